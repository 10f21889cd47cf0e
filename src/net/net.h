/*
 * The far end of a network card's cable: frames go out and come in. This room knows no
 * card and no machine; a card knows no socket.
 *
 * A back end is opened before there are threads and before the jail (a process may be
 * made for it), started on a machine's loop, stopped before that goes, and closed.
 *
 * Flow control goes both ways. What a card hands over is taken as a whole or not at all:
 * after a refusal the card keeps the frame, and room() tells it to try again. A frame
 * that the card has no place for is kept here, and nothing more is read, until
 * net_ready(): who sends to the guest is slowed down, and loses nothing.
 *
 * Offloads: a frame comes with what is still to be done to it (struct net_offload). What
 * the receiving side cannot do is done here (net/offload.c): either end may leave as much
 * undone as it likes, and takes as much as it can.
 *
 * Locking: all of it, but for what the loop's thread reads into, is under the lock of the
 * board, which this room takes by net_guard around what it does on the loop's thread. So
 * a card calls it from any thread that has that lock, and is called with it held. Nothing
 * here waits. Frames are copied before they are looked at: the guest may change what it
 * sends at any time.
 */
#ifndef NET_NET_H
#define NET_NET_H

#include "base/jail.h"
#include "base/rate.h"
#include "base/types.h"

struct net;
struct os_loop;
struct snapshot;

#define NET_MAC_SIZE 6
/* The longest frame: 64 KiB of IP and what goes before it on Ethernet, with a VLAN tag.
 */
#define NET_FRAME_MAX (65535 + 18)
#define NET_MTU 1500 /* without anything being said about it */
#define NET_MTU_MIN 576
#define NET_MTU_MAX 65520

/* --- offloads --- */

/* What is still to be done to a frame; all zero: nothing. It is what a guest has said, or
 * a peer: nothing in it is to be believed. */
struct net_offload {
    /* The sum from CSUM_START to the end of the frame is to be put CSUM_OFFSET behind
     * CSUM_START, where there is the pseudo header's so far. */
    bool csum;
    bool csum_good;      /* checksums have been looked at, and are right */
    uint8_t gso;         /* enum net_gso */
    uint16_t gso_size;   /* bytes of payload in each segment */
    uint16_t header_len; /* of all headers; a hint */
    uint16_t csum_start, csum_offset;
};

/* The frame is to be cut into segments; it then wants checksums, too. */
enum net_gso { NET_GSO_NONE, NET_GSO_TCP4, NET_GSO_TCP6 };

/* What a card takes undone. */
#define NET_CAN_CSUM 1u
#define NET_CAN_TSO4 2u /* with NET_CAN_CSUM */
#define NET_CAN_TSO6 4u
/* It tells its guest of csum_good, as with NET_CAN_CSUM, and takes nothing undone. */
#define NET_CAN_GOOD 8u

/* --- what the card gives --- */

/* Called on the loop's thread or on one that is in net_*(), with the lock held. They may
 * call net_*(). */
struct net_card {
    /* A frame, which is read by then, for the guest. False: there is no place for it;
     * net_ready() says when there is. A card that is not switched on takes frames and
     * drops them. */
    bool (*receive)(void *arg, const struct net_offload *off, const uint8_t *frame,
                    size_t len);
    /* After net_send() has refused a frame: it may go now. */
    void (*room)(void *arg);
    /* The cable's state has changed: net_link(). */
    void (*link)(void *arg);
    void *arg;
};

/* Takes and gives back the board's lock, on the loop's thread. */
struct net_guard {
    void (*enter)(void *arg);
    void (*leave)(void *arg);
    void *arg;
};

/* What may go through the cable, in one direction: bytes, and frames as the card hands
 * them over or gets them, however many segments they are. What is more waits, on either
 * side. */
enum net_limit {
    NET_IN_BYTES,
    NET_IN_FRAMES,
    NET_OUT_BYTES,
    NET_OUT_FRAMES,
    NET_LIMITS,
};

/* --- for the card, with the lock held --- */

/* A part of a frame that is in one place. */
struct net_piece {
    const uint8_t *at;
    size_t len;
};

/* From now on frames are CARD's, which is copied; NULL: nobody's, they are dropped. It
 * can do nothing, see below. */
void net_plug(struct net *n, const struct net_card *card);
/* What the card takes undone: a set of NET_CAN_*. A frame that waits and is too much for
 * it now is dropped. */
void net_card_can(struct net *n, unsigned can);
/* Takes the frame that is in COUNT pieces, or drops it if it is none: true. False: there
 * is no room for it, room() will be called. It leaves by net_flush() at the latest. */
bool net_send(struct net *n, const struct net_offload *off, const struct net_piece *piece,
              unsigned count);
/* The card has more to send than it wants to now: room() will be called soon, on the
 * loop's thread. */
void net_later(struct net *n);
/* After one or more frames: they leave now. */
void net_flush(struct net *n);
/* There is place for a frame again. */
void net_ready(struct net *n);
/* From now on; LOOP's thread, or before net_start(). */
void net_limit(struct net *n, enum net_limit which, const struct rate_limit *l);
/* The far end ends with this process, and which connections the guest has to it is kept:
 * as a record of a snapshot. When that is read, the guest finds them gone (known.h). */
bool net_knows(const struct net *n);
void net_state(struct net *n, struct snapshot *s);
/* Is anybody at the other end? */
bool net_link(const struct net *n);

/* --- for who makes machines --- */

enum net_kind {
    NET_USER,   /* a network of the guest's own: net/user.c */
    NET_TAP,    /* an interface of the host's: net/tap.c */
    NET_SOCKET, /* a peer at a unix socket: net/stream.c */
};

#define NET_FORWARDS 32
#define NET_BOOTFILE_MAX 127 /* characters, of a bootfile */

/* Who comes to ADDRESS (IPv4) and PORT of the host is connected to the guest. */
struct net_forward {
    bool udp;
    uint8_t address[4];
    uint16_t port, guest_port;
};

struct net_config {
    enum net_kind kind;
    const char *name;    /* tap: the interface's; socket: a path */
    enum jail_want jail; /* user: of the process that is made */
    bool listen;         /* socket: we are the one who is connected to */
    bool restricted;     /* user: the guest reaches nobody */
    unsigned mtu;        /* user: of what goes to the guest; 0: NET_MTU */
    struct net_forward forward[NET_FORWARDS]; /* user */
    unsigned forwards;
    const char *tftp; /* user: a directory that 10.0.2.2 serves by TFTP; or NULL */
    struct rate_limit limit[NET_LIMITS]; /* all zero: none */
    const char *bootfile; /* user: what DHCP says is to be booted; or NULL */
};

/* 0, or -errno with one sentence in WHY. Before there are threads. */
int net_open(const struct net_config *cfg, struct net **out, char *why, size_t why_size);
/* N may be NULL. No card is called any more. */
void net_close(struct net *n);
/* From now on frames go and come; LOOP is not running, or it is its thread. 0 or -errno.
 */
int net_start(struct net *n, struct os_loop *loop, const struct net_guard *guard);
/* One forward more (ADD), or less, of a user network: DONE(ARG, rc) is called when that
 * is so (0), or cannot be (-errno). On the loop's thread. 0, or -errno: it is not called;
 * -EBUSY: another one is on its way. */
int net_forward_change(struct net *n, const struct net_forward *f, bool add,
                       void (*done)(void *arg, int rc), void *arg);
/* Those that there are, N's until the next change: how many. */
unsigned net_forwards(const struct net *n, const struct net_forward **list);
/* Out of the loop: nothing goes or comes any more. N stays open. */
void net_stop(struct net *n);
/* Where clients are accepted after the jail; -1: nowhere. */
int net_listener(const struct net *n);
/* Frames and bytes that went out and came in, and frames that were dropped here. */
struct net_figures {
    uint64_t out_frames, out_bytes, in_frames, in_bytes, dropped;
};
struct net_figures net_figures(const struct net *n);

#endif
