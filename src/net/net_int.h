/*
 * The insides of a network.
 *
 *   net.c       opening, the loop, closing
 *   card.c      the card's side
 *   stream.c    frames over a stream socket: a peer, or the user network's process
 *   tap.c       an interface of the host's
 *   user.c      makes the process that has the user network
 *   slirp.c     what that process does
 *   known.c     connections that a restored guest is to find gone
 *   service.c   a server inside the network; tcp.c its TCP
 *   frames.c, offload.c, merge.c, packet.c   functions of bytes
 */
#ifndef NET_NET_INT_H
#define NET_NET_INT_H

#include "base/os_loop.h"
#include "net/frames.h"
#include "net/known.h"
#include "net/merge.h"
#include "net/net.h"
#include "net/offload.h"
#include "net/service.h"

/* What one frame may become by being cut: bytes, and segments. */
#define NET_CUT_MAX (192u << 10)
#define NET_CUT_COUNT (NET_FRAME_MAX / NET_SEGMENT_MIN + 1)

/* What a kind of network does. All with the lock held, but for pull(). */
struct net_ops {
    unsigned can; /* what it takes undone: NET_CAN_* */
    bool trusted; /* frames come with their checksums right */
    /* COUNT frames of BYTES in all can be taken. */
    bool (*room)(const struct net *n, size_t bytes, unsigned count);
    /* Where to put a frame of LEN bytes, for which there is room; then it is sent. */
    uint8_t *(*place)(struct net *n, size_t len);
    void (*put)(struct net *n, const struct net_offload *off, size_t len);
    /* Sends what waits, as far as it goes. */
    void (*flush)(struct net *n);
    /* Something waits to be written. */
    bool (*waits)(const struct net *n);
    /* Gives the card what has been read, by net_deliver(), until that says false. -errno:
     * it is over. */
    int (*deliver)(struct net *n);
    /* On the loop's thread, without the lock: reads. Then deliver() is called. -errno:
     * it is over. */
    int (*pull)(struct net *n);
};

struct net {
    const struct net_ops *ops;
    struct net_config cfg; /* its names are the caller's */
    char what[128];        /* for messages: the option that made it */

    /* the card */
    struct net_card card;
    bool plugged;
    unsigned can;
    bool refused; /* a frame of the card's: room() is owed */
    bool blocked; /* the card refused one of ours, which is HELD or the next of CUT */
    bool cutting, holding;
    bool in_limited, out_limited; /* some RATE is */
    struct rate rate[NET_LIMITS];
    struct net_segments cut;
    struct {
        struct net_offload off;
        const uint8_t *frame;
        size_t len;
    } held;

    /* the loop */
    struct os_loop *loop;
    struct net_guard guard;
    struct os_watch watch;
    struct os_watch door; /* of LISTENER */
    struct os_task task;
    struct os_timer rested; /* some rate that was waited for has something again, or the
                             * service something to send */
    struct net_service *service; /* NULL: there is none */
    struct net_known *known;     /* user; else NULL */

    int fd;     /* -1: the link is down */
    int gone;   /* user: the pipe that ends with the process; -1 */
    int orders; /* user: changes of forwards, and what came of them; -1 */
    struct os_watch told;
    struct {
        struct net_forward forward;
        bool add;
        void (*done)(void *arg, int rc); /* NULL: there is none */
        void *arg;
    } change; /* which is on its way */
    struct os_listener *listener;
    struct net_bytes in, out;
    struct net_merge merge; /* stream: empty, but in deliver() */
    struct net_figures figures;
    uint8_t whole[NET_FRAME_MAX];   /* a frame that is to be cut */
    uint8_t segment[NET_FRAME_MAX]; /* for the card */
};

/* --- card.c --- */

/* The card is told of checksums that are right. */
static inline bool net_tells_good(const struct net *n) {
    return n->can & (NET_CAN_CSUM | NET_CAN_GOOD);
}
/* The card gets a frame, in which checksums may be filled in, and which stays where it is
 * until the card has it. False: it has to wait; net_go_on() gives it to the card later.
 */
bool net_deliver(struct net *n, const struct net_offload *off, uint8_t *frame,
                 size_t len);
/* Gives the card what it has not got yet, and then what has been read. As deliver(). */
int net_go_on(struct net *n);
/* When a frame may come in, or go out: NOW, or later, as rates say. */
uint64_t net_may_come(const struct net *n, uint64_t now);
uint64_t net_may_go(const struct net *n, uint64_t now);
/* Frames that wait for the card are dropped. */
void net_forget_held(struct net *n);

/* --- kinds: 0, or -errno with a sentence in WHY --- */

int net_stream_open(struct net *n, char *why, size_t why_size);
int net_tap_open(struct net *n, char *why, size_t why_size);
int net_user_open(struct net *n, char *why, size_t why_size);

extern const struct net_ops net_stream_ops;
extern const struct net_ops net_user_ops; /* a stream, too */
extern const struct net_ops net_tap_ops;

/* The two buffers of a stream. 0 or -ENOMEM. */
int net_stream_buffers(struct net *n);
/* Reads what FD has, as far as there is place, and writes what is there, as far as FD
 * takes it. 0, or -errno: it is over. */
int net_stream_read(int fd, struct net_bytes *in);
int net_stream_write(int fd, struct net_bytes *out);

/* What the user network's process is to do, at a socket of its own. It answers with an
 * int: 0 or -errno. */
struct net_order {
    bool add;
    struct net_forward forward;
};
/* Tells who waits for a change that it has become RC. */
void net_user_changed(struct net *n, int rc);
/* There is an answer of the process's; ARG is a net. */
void net_user_told(void *arg, unsigned ready);

/* A user network, in a process of its own: frames come and go at FD, and orders at
 * ORDERS, whose calls do not wait. -errno: it cannot be; *FORWARD is which forward's
 * fault that was, or -1. */
struct net_slirp;
int net_slirp_new(const struct net_config *cfg, int fd, int orders,
                  struct net_slirp **out, int *forward);
/* Until FD ends. */
void net_slirp_run(struct net_slirp *s);
/* Its ports are free again. */
void net_slirp_free(struct net_slirp *s);

#endif
