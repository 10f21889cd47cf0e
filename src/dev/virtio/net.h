/*
 * A virtio network card: "Network Device" of the standard, over virtio.h, with one pair
 * of queues and the control queue. What the guest leaves undone of a frame goes on as it
 * is; who is at the other end of the cable (net/net.h) decides what is to be done.
 *
 * Locking: the board's.
 */
#ifndef DEV_VIRTIO_NET_H
#define DEV_VIRTIO_NET_H

#include "dev/virtio/virtio.h"
#include "net/net.h"

struct virtio_net;
struct snapshot;

struct virtio_net_config {
    struct net *net; /* started or not; must outlive the card */
    struct vclock *clock;
    uint8_t mac[NET_MAC_SIZE];
    uint16_t mtu; /* that the guest is told; 0: nothing is said */
};

/* NULL: out of memory. Its reset is virtio_device_reset(). */
struct virtio_net *virtio_net_new(struct mem *mem, const struct virtio_net_config *cfg);
struct virtio_device *virtio_net_device(struct virtio_net *n);
void virtio_net_free(struct virtio_net *n); /* N may be NULL */

/* Its record of a snapshot (snapshot/snapshot.h); and when all is read, and the machine
 * about to run: the driver looks at the cable. */
void virtio_net_state(struct virtio_net *n, struct snapshot *s);
void virtio_net_go_on(struct virtio_net *n);

#endif
