/*
 * A guest's driver of a virtio device over MMIO, for fuzzing: what a good driver does and
 * a bad one can, in guest memory that is laid out as below. What it does, inputs say.
 */
#ifndef FUZZ_VGUEST_H
#define FUZZ_VGUEST_H

#include "dev/virtio/transport.h"
#include "fuzz/fuzz.h"
#include "lib/rig.h"

#define VGUEST_MMIO 0xfec10000ull
#define VGUEST_RAM (4u << 20)
#define VGUEST_RINGS 0x10000u /* of queue N at N times this, from 1 on */
#define VGUEST_DATA 0x200000u

struct vguest {
    struct rig *r;
    struct mem *mem;
    struct virtio_device *dev;
    struct virtio_mmio *mmio;
    uint16_t avail[32]; /* indices */
};

/* DEV is on R's bus from now on, with the rig's line 5. */
void vguest_new(struct vguest *g, struct rig *r, struct mem *mem,
                struct virtio_device *dev);
/* Resets the device: nothing is to be under way. DEV stays the caller's. */
void vguest_free(struct vguest *g);

/* Registers, and memory. */
void vguest_set(struct vguest *g, unsigned at, uint32_t value);
void vguest_put(struct vguest *g, uint64_t at, unsigned len, uint64_t value);
/* As a good driver begins, with those of FEATURES that there are. */
void vguest_start(struct vguest *g, uint64_t features);
/* One of its queues. */
unsigned vguest_queue(const struct vguest *g, struct fuzz_in *in);
void vguest_desc(struct vguest *g, unsigned q, unsigned n, uint64_t at, uint32_t len,
                 unsigned flags, unsigned next);
/* Makes something available. */
void vguest_offer(struct vguest *g, struct fuzz_in *in);

#endif
