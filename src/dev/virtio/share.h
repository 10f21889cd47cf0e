/* A virtio device that files are reached by; see share.c. Locking: the board's. */
#ifndef DEV_VIRTIO_SHARE_H
#define DEV_VIRTIO_SHARE_H

#include "dev/virtio/virtio.h"

#define VIRTIO_SHARE_SLOTS 32u
#define VIRTIO_SHARE_TAG 36u /* bytes of a name at most */

/*
 * The file server: messages have numbers below VIRTIO_SHARE_SLOTS. None of it waits; the
 * guest's vector state is parked.
 */
struct virtio_share_host {
    /* A place for a message of up to MAX bytes; NULL: there is none now. */
    uint8_t *(*begin)(void *arg, unsigned *slot);
    /* It is whole: LEN bytes, and the answer may have ROOM. virtio_share_done() later. */
    void (*submit)(void *arg, unsigned slot, uint32_t len, uint32_t room);
    void (*drop)(void *arg, unsigned slot); /* there will be no message */
    void (*reset)(void *arg);               /* the driver is gone; nothing is answered */
    uint32_t max;
    void *arg;
};

struct virtio_share;
struct snapshot;

/* What drives it: Linux's 9p, or virtiofs. TAG is what the guest mounts it by. NULL when
 * out of memory. */
enum virtio_share_kind { VIRTIO_SHARE_9P, VIRTIO_SHARE_FS };
struct virtio_share *virtio_share_new(struct mem *mem, struct vclock *clock,
                                      enum virtio_share_kind kind, const char *tag,
                                      const struct virtio_share_host *host,
                                      struct counters *cnt);
void virtio_share_free(struct virtio_share *s); /* S may be NULL */
struct virtio_device *virtio_share_device(struct virtio_share *s);

/* The answer to the message of SLOT, which is free afterwards. LEN 0: there is none. */
void virtio_share_done(struct virtio_share *s, unsigned slot, const uint8_t *answer,
                       uint32_t len);
/* Slots are free again: what waits for one goes on. */
void virtio_share_go_on(struct virtio_share *s);

/* Its record of a snapshot (snapshot/snapshot.h): refused while the guest has the
 * directory mounted. */
void virtio_share_state(struct virtio_share *v, struct snapshot *s);

#endif
