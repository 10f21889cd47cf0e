/* A virtio source of entropy; see rng.c. Locking: the board's. */
#ifndef DEV_VIRTIO_RNG_H
#define DEV_VIRTIO_RNG_H

#include "dev/virtio/virtio.h"

struct virtio_rng_host {
    /* Writes up to LEN random bytes, and does not wait for them: how many. The guest's
     * vector state is parked. */
    size_t (*random)(void *arg, void *buf, size_t len);
    /* When a request may have some: NOW or earlier, or a later time of the device's
     * clock. NULL: always. */
    uint64_t (*when)(void *arg, uint64_t now);
    /* One has had LEN bytes; NULL: nobody counts. */
    void (*had)(void *arg, size_t len, uint64_t now);
    void *arg;
};

struct virtio_rng;
struct snapshot;
/* NULL when out of memory. */
struct virtio_rng *virtio_rng_new(struct mem *mem, struct vclock *clock,
                                  const struct virtio_rng_host *host,
                                  struct counters *cnt);
void virtio_rng_free(struct virtio_rng *r); /* R may be NULL */
struct virtio_device *virtio_rng_device(struct virtio_rng *r);

/* Its record of a snapshot (snapshot/snapshot.h). */
void virtio_rng_state(struct virtio_rng *r, struct snapshot *s);

#endif
