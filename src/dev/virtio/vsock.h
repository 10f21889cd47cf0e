/* A virtio socket device; see vsock.c. Locking: the board's. */
#ifndef DEV_VIRTIO_VSOCK_H
#define DEV_VIRTIO_VSOCK_H

#include "dev/virtio/virtio.h"

#define VIRTIO_VSOCK_HOST 2u /* the host's CID */
#define VIRTIO_VSOCK_CONNECTIONS 128u
#define VIRTIO_VSOCK_BUFFER 65536u /* bytes that a connection may owe its host side */

/*
 * The host's side of connections, which have numbers below VIRTIO_VSOCK_CONNECTIONS. None
 * of it waits; the guest's vector state is parked.
 */
struct virtio_vsock_host {
    /* The guest wants to be connected to PORT of the host: virtio_vsock_answer() later.
     * False: that cannot be, and N is free again. */
    bool (*connect)(void *arg, unsigned n, uint32_t port);
    /* The guest has answered what virtio_vsock_open() asked: OK, from the host's PORT. If
     * it is not OK, N is free again. */
    void (*opened)(void *arg, unsigned n, bool ok, uint32_t port);
    /* How many of LEN bytes the host side takes; virtio_vsock_writable() when it takes
     * the others. */
    size_t (*write)(void *arg, unsigned n, const uint8_t *bytes, size_t len);
    /* Gives up to LEN bytes; 0: there are none now, and virtio_vsock_readable() will
     * come; -1: there never will be any more. */
    int (*read)(void *arg, unsigned n, uint8_t *buf, size_t len);
    void (*end)(void *arg, unsigned n); /* the guest sends no more, and all is written */
    void (*close)(void *arg, unsigned n); /* N is free: forget it */
    void *arg;
};

struct virtio_vsock;
struct snapshot;

/* The guest has the address CID (3 or more). NULL when out of memory. */
struct virtio_vsock *virtio_vsock_new(struct mem *mem, struct vclock *clock, uint32_t cid,
                                      const struct virtio_vsock_host *host,
                                      struct counters *cnt);
void virtio_vsock_free(struct virtio_vsock *v); /* V may be NULL */
struct virtio_device *virtio_vsock_device(struct virtio_vsock *v);

/* Somebody wants to be connected to PORT of the guest: a connection's number, which is
 * the caller's until host.opened(ok = false) or host.close(), or -1: there are too many,
 * or there is no driver. */
int virtio_vsock_open(struct virtio_vsock *v, uint32_t port);
/* Of host.connect(): it is connected, or nobody is there (N is free then). */
void virtio_vsock_answer(struct virtio_vsock *v, unsigned n, bool ok);
void virtio_vsock_readable(struct virtio_vsock *v, unsigned n);
void virtio_vsock_writable(struct virtio_vsock *v, unsigned n);
/* The host side is gone. N is free. */
void virtio_vsock_lost(struct virtio_vsock *v, unsigned n);

/* Its record of a snapshot (snapshot/snapshot.h): connections are not in it, the driver
 * is told that they are gone. */
void virtio_vsock_state(struct virtio_vsock *v, struct snapshot *s);

#endif
