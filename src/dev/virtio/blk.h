/* A virtio disk over a struct block; see blk.c. Locking: the board's. */
#ifndef DEV_VIRTIO_BLK_H
#define DEV_VIRTIO_BLK_H

#include "base/counters.h"
#include "block/block.h"
#include "dev/virtio/virtio.h"

#define VIRTIO_BLK_QUEUES_MAX 16u

struct virtio_blk;
struct snapshot;

/* With QUEUES (1..VIRTIO_BLK_QUEUES_MAX) request queues. BLOCK, which has been attached
 * to its workers, stays the caller's. NULL when out of memory. */
struct virtio_blk *virtio_blk_new(struct mem *mem, struct vclock *clock,
                                  struct block *block, unsigned queues,
                                  struct counters *cnt);
/* Nothing is in flight: the workers have ended, or after virtio_blk_quiet(). B may be
 * NULL. */
void virtio_blk_free(struct virtio_blk *b);
struct virtio_device *virtio_blk_device(struct virtio_blk *b);
/* BLOCK has another image: the driver is told of its size. */
void virtio_blk_exchanged(struct virtio_blk *b);
/* Waits for the workers: nothing is read or written any more, and what the guest had
 * asked for is forgotten. Before a reset from outside. */
void virtio_blk_quiet(struct virtio_blk *b);

/* Its record of a snapshot (snapshot/snapshot.h), while no request is under way. */
void virtio_blk_state(struct virtio_blk *b, struct snapshot *s);

#endif
