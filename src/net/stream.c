/*
 * Frames over a stream socket: to a peer (passt, QEMU, another bivisor), to which we have
 * connected or which connects to us, one at a time; or to the process of the user
 * network (user.c).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/os.h"
#include "net/net_int.h"

#define IN_SIZE (256u << 10)
/* What waits for a reader that is slow; more than one frame can become. */
#define OUT_SIZE (512u << 10)
/* So much does not wait for net_flush(): the other end may begin. */
#define OUT_EAGER (64u << 10)

int net_stream_read(int fd, struct net_bytes *in) {
    size_t space;
    uint8_t *to = net_frames_space(in, &space);
    int rc = os_socket_read(fd, to, space);

    if (rc == -EAGAIN || rc == -EINTR)
        return 0;
    if (rc <= 0)
        return rc ? rc : -ECONNRESET;
    net_frames_filled(in, (size_t)rc);
    return 0;
}

int net_stream_write(int fd, struct net_bytes *out) {
    while (net_bytes_there(out)) {
        int rc = os_socket_write(fd, out->buf + out->at, net_bytes_there(out));

        if (rc == -EAGAIN)
            return 0;
        if (rc < 0 && rc != -EINTR)
            return rc;
        net_frames_gone(out, rc > 0 ? (size_t)rc : 0);
    }
    return 0;
}

static bool room(const struct net *n, size_t bytes, unsigned count) {
    return net_frames_room(&n->out, bytes, count);
}

static uint8_t *place(struct net *n, size_t len) {
    return net_frames_place(&n->out, len);
}

static void flush(struct net *n) {
    if (net_stream_write(n->fd, &n->out))
        net_bytes_clear(&n->out); /* pull() will see that it is over */
}

static void put(struct net *n, const struct net_offload *off, size_t len) {
    net_frames_put(&n->out, len);
    if (net_bytes_there(&n->out) >= OUT_EAGER)
        flush(n);
}

static bool waits(const struct net *n) {
    return net_bytes_there(&n->out);
}

static int pull(struct net *n) {
    return net_stream_read(n->fd, &n->in);
}

static bool give_merged(struct net *n) {
    struct net_offload off;
    size_t len;
    const uint8_t *frame;

    if (!net_merge_there(&n->merge))
        return true;
    frame = net_merge_end(&n->merge, &off, &len);
    return net_deliver(n, &off, (uint8_t *)(uintptr_t)frame, len);
}

/* A card that does not look at checksums itself is told that they are right, if so; and
 * gets together what came together. False: the frame, or one before it, has to wait. */
static bool deliver_one(struct net *n, uint8_t *frame, size_t len) {
    struct net_offload off = {0};

    if (net_tells_good(n))
        off.csum_good = n->ops->trusted || net_checksum_right(frame, len);
    if (off.csum_good && net_merge_take(&n->merge, frame, len, n->can))
        return true;
    if (net_merge_there(&n->merge)) {
        net_frames_back(&n->in, len);
        return give_merged(n);
    }
    return net_deliver(n, &off, frame, len);
}

static int deliver(struct net *n) {
    uint8_t *frame;
    size_t len;
    int rc;

    while ((rc = net_frames_take(&n->in, &frame, &len)) > 0)
        if (!deliver_one(n, frame, len))
            return 0;
    give_merged(n);
    return rc;
}

const struct net_ops net_stream_ops = {
    .room = room,
    .place = place,
    .put = put,
    .flush = flush,
    .waits = waits,
    .deliver = deliver,
    .pull = pull,
};

/* Its TCP takes long segments as they are; over IPv6 it wants them to fit. */
const struct net_ops net_user_ops = {
    .can = NET_CAN_TSO4,
    .trusted = true,
    .room = room,
    .place = place,
    .put = put,
    .flush = flush,
    .waits = waits,
    .deliver = deliver,
    .pull = pull,
};

int net_stream_buffers(struct net *n) {
    int rc = net_bytes_new(&n->in, IN_SIZE);

    return rc ? rc : net_bytes_new(&n->out, OUT_SIZE);
}

/* --- a peer --- */

int net_stream_open(struct net *n, char *why, size_t why_size) {
    const char *path = n->cfg.name;
    int rc = net_stream_buffers(n);

    if (rc)
        return rc;
    n->ops = &net_stream_ops;
    snprintf(n->what, sizeof(n->what), "socket=%s", path);
    if (n->cfg.listen) {
        rc = os_endpoint_listen(path, &n->listener);
    } else {
        n->fd = os_endpoint_connect(path);
        rc = n->fd < 0 ? n->fd : 0;
    }
    if (rc)
        snprintf(why, why_size, "cannot %s '%s': %s",
                 n->cfg.listen ? "listen at" : "connect to", path,
                 os_endpoint_reason(rc));
    return rc;
}
