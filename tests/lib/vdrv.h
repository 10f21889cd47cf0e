/*
 * A virtio driver for tests: it makes rings in guest memory, good and bad ones, and takes
 * a device through its life without any transport.
 *
 * Queue N has its rings at VDRV_RINGS + N * VDRV_RINGS_SIZE. Memory from VDRV_DATA on is
 * the test's.
 */
#ifndef LIB_VDRV_H
#define LIB_VDRV_H

#include "dev/virtio/virtio.h"

#define VDRV_RAM (8ull << 20)
#define VDRV_RINGS 0x100000ull
#define VDRV_RINGS_SIZE 0x10000ull
#define VDRV_USED 0x8000ull  /* the used ring, from the queue's rings on */
#define VDRV_AVAIL 0x6000ull /* the available ring */
#define VDRV_DATA 0x400000ull

#define VDRV_NEXT 1u
#define VDRV_WRITE 2u
#define VDRV_INDIRECT 4u

struct vdrv {
    struct mem *mem;
    struct virtio_device *d;
    unsigned interrupts, changes; /* of queues, of the configuration */
    struct vdrv_queue {
        uint16_t avail, used; /* indices: what was offered, what was taken back */
        uint16_t free;        /* descriptors from 0 on that are in use */
    } q[8];
    struct vdrv_echo {
        unsigned q, head, left, done;
    } echo;
};

void vdrv_new(struct vdrv *v); /* memory is there; D is to be set */
void vdrv_free(struct vdrv *v);
/* Resets the device and goes through its initialization up to DRIVER_OK. */
void vdrv_start(struct vdrv *v, uint64_t features);
/* The same, but the rings are the caller's. */
void vdrv_features(struct vdrv *v, uint64_t features);

void vdrv_desc(struct vdrv *v, unsigned q, unsigned n, uint64_t at, uint32_t len,
               unsigned flags, unsigned next);
/* Makes the chain that begins at HEAD available, and tells the device. */
void vdrv_offer(struct vdrv *v, unsigned q, unsigned head);
void vdrv_offer_quietly(struct vdrv *v, unsigned q, unsigned head);
/* From now on, as another CPU would while the device is at work: makes HEAD available
 * again, TIMES times, each time that the device writes to the page of AT. How often it
 * did is in echo.done. */
void vdrv_echo(struct vdrv *v, unsigned q, unsigned head, uint64_t at, unsigned times);
/* Makes a chain of COUNT pieces available: each of LEN bytes at AT, with VDRV_WRITE in
 * FLAGS or not. The head. */
struct vdrv_piece {
    uint64_t at;
    uint32_t len;
    unsigned flags;
};
unsigned vdrv_send(struct vdrv *v, unsigned q, const struct vdrv_piece *p,
                   unsigned count);
/* Takes back a used buffer: its head, or -1: there is none. */
int vdrv_take(struct vdrv *v, unsigned q, uint32_t *len);

uint64_t vdrv_get(struct vdrv *v, uint64_t at, unsigned size);
void vdrv_put(struct vdrv *v, uint64_t at, unsigned size, uint64_t value);

#endif
