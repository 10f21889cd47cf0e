/* A virtio memory balloon; see balloon.c. Locking: the board's. */
#ifndef DEV_VIRTIO_BALLOON_H
#define DEV_VIRTIO_BALLOON_H

#include "dev/virtio/virtio.h"

struct virtio_balloon;
struct snapshot;

/* Statistics by their tags. VIRTIO 1.2, "Memory Statistics Tags". */
#define VIRTIO_BALLOON_STATS 10u
struct virtio_balloon_stats {
    uint32_t given; /* a bit for each tag that the guest has told */
    uint64_t value[VIRTIO_BALLOON_STATS];
};

/* STRICT: a guest that is short of memory may take nothing back by itself. NULL when out
 * of memory. */
struct virtio_balloon *virtio_balloon_new(struct mem *mem, struct vclock *clock,
                                          bool strict, struct counters *cnt);
void virtio_balloon_free(struct virtio_balloon *b); /* B may be NULL */
struct virtio_device *virtio_balloon_device(struct virtio_balloon *b);

/* The guest is to give PAGES of 4 KiB to the balloon in all; it does so as it can. */
void virtio_balloon_set(struct virtio_balloon *b, uint32_t pages);
uint32_t virtio_balloon_target(const struct virtio_balloon *b); /* the same number */
/* How many it says that the balloon has. */
uint32_t virtio_balloon_pages(const struct virtio_balloon *b);
/* Asks the guest for statistics, if it has any to give; they come later. */
void virtio_balloon_poll(struct virtio_balloon *b);
/* What the guest has told last. */
struct virtio_balloon_stats virtio_balloon_stats(const struct virtio_balloon *b);

/* Its record of a snapshot (snapshot/snapshot.h). */
void virtio_balloon_state(struct virtio_balloon *b, struct snapshot *s);

#endif
