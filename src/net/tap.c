/*
 * A TAP interface of the host's: frames as packets, each with a struct virtio_net_hdr
 * before it (virtio 1.2, "5.1.6 Device Operation"; the kernel's
 * "Universal TUN/TAP device driver"), so that checksums and segments can be left to
 * whoever is last: the host's card, or the other guest.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net/net_int.h"

#define TUN_DEVICE "/dev/net/tun"
#define HEADER sizeof(struct virtio_net_hdr)
#define BATCH 64 /* frames before others have their turn */

/* --- out. A frame that the kernel does not take is lost, as on a wire --- */

static bool room(const struct net *n, size_t bytes, unsigned count) {
    return true;
}

static uint8_t *place(struct net *n, size_t len) {
    return n->out.buf;
}

static struct virtio_net_hdr header_of(const struct net_offload *off) {
    static const uint8_t gso[] = {[NET_GSO_NONE] = VIRTIO_NET_HDR_GSO_NONE,
                                  [NET_GSO_TCP4] = VIRTIO_NET_HDR_GSO_TCPV4,
                                  [NET_GSO_TCP6] = VIRTIO_NET_HDR_GSO_TCPV6};

    return (struct virtio_net_hdr){
        .flags = off->csum ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0,
        .gso_type = gso[off->gso],
        .hdr_len = off->header_len,
        .gso_size = off->gso_size,
        .csum_start = off->csum ? off->csum_start : 0,
        .csum_offset = off->csum ? off->csum_offset : 0,
    };
}

static void put(struct net *n, const struct net_offload *off, size_t len) {
    struct virtio_net_hdr header = header_of(off);
    struct iovec iov[2] = {{&header, HEADER}, {n->out.buf, len}};

    if (writev(n->fd, iov, 2) < 0)
        n->figures.dropped++;
}

static void flush(struct net *n) {
}

static bool waits(const struct net *n) {
    return false;
}

/* --- in --- */

static int pull(struct net *n) {
    ssize_t rc = read(n->fd, n->in.buf, n->in.size);

    if (rc < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    n->in.len = (size_t)rc;
    return 0;
}

static bool offload_of(const struct virtio_net_hdr *h, struct net_offload *off) {
    *off = (struct net_offload){
        .csum = h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .csum_good = h->flags & VIRTIO_NET_HDR_F_DATA_VALID,
        .gso_size = h->gso_size,
        .header_len = h->hdr_len,
        .csum_start = h->csum_start,
        .csum_offset = h->csum_offset,
    };
    switch (h->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_NONE:
        return true;
    case VIRTIO_NET_HDR_GSO_TCPV4:
        off->gso = NET_GSO_TCP4;
        return true;
    case VIRTIO_NET_HDR_GSO_TCPV6:
        off->gso = NET_GSO_TCP6;
        return true;
    default:
        return false;
    }
}

/* The one frame that is there. False: the card has to have it first. */
static bool deliver_one(struct net *n) {
    struct virtio_net_hdr header;
    struct net_offload off;
    size_t len = n->in.len;

    n->in.len = 0;
    if (len < HEADER)
        return true;
    memcpy(&header, n->in.buf, HEADER);
    if (!offload_of(&header, &off)) {
        n->figures.dropped++;
        return true;
    }
    return net_deliver(n, &off, n->in.buf + HEADER, len - HEADER);
}

static int deliver(struct net *n) {
    int rc = 0;

    for (unsigned count = 0; !rc && n->in.len && deliver_one(n) && count < BATCH; count++)
        rc = pull(n);
    return rc;
}

const struct net_ops net_tap_ops = {
    .can = NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6,
    .room = room,
    .place = place,
    .put = put,
    .flush = flush,
    .waits = waits,
    .deliver = deliver,
    .pull = pull,
};

/* --- opening --- */

static int open_device(const char *name, int *out, const char **what) {
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int size = HEADER, fd = open(TUN_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);

    *what = "cannot open " TUN_DEVICE;
    if (fd < 0)
        return -errno;
    *out = fd;
    memcpy(ifr.ifr_name, name, strlen(name));
    *what = "cannot have the interface";
    if (ioctl(fd, TUNSETIFF, &ifr))
        return -errno;
    *what = "the interface has no offloads";
    if (ioctl(fd, TUNSETVNETHDRSZ, &size) ||
        ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6))
        return -errno;
    return 0;
}

int net_tap_open(struct net *n, char *why, size_t why_size) {
    const char *name = n->cfg.name, *what;
    int rc = net_bytes_new(&n->in, HEADER + NET_FRAME_MAX);

    if (!rc)
        rc = net_bytes_new(&n->out, NET_FRAME_MAX);
    if (rc)
        return rc;
    n->ops = &net_tap_ops;
    snprintf(n->what, sizeof(n->what), "tap=%s", name);
    if (!*name || strlen(name) >= IFNAMSIZ) {
        snprintf(why, why_size, "an interface's name has 1 to %d bytes, not '%s'",
                 IFNAMSIZ - 1, name);
        return -EINVAL;
    }
    rc = open_device(name, &n->fd, &what);
    if (rc)
        snprintf(why, why_size, "%s '%s': %s%s", what, name, strerror(-rc),
                 rc == -EPERM || rc == -EACCES
                     ? "; it has to be made for this user before, as with: ip tuntap add "
                       "NAME mode tap user USER"
                     : "");
    return rc;
}
