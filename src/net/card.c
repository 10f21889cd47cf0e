/*
 * The card's side of a network: frames of its go to the kind of network that N is, and
 * frames from there to it; see net.h and net_int.h.
 *
 * Frames for the card are given to it on the loop's thread only. One that it refuses
 * stays in its buffer, or as the rest of a frame that is being cut, and `blocked` says
 * that nothing is to be read until net_ready(), which has the loop's thread try again.
 * Frames of the card's are taken on any thread; what does not go at once is waited for on
 * the loop's.
 *
 * What a rate has nothing left for is refused as if there were no room for it, in either
 * direction, and the loop's thread, which has a timer, tries again.
 */
#include <string.h>

#include "base/os.h"
#include "net/net_int.h"
#include "net/packet.h"
#include "snapshot/snapshot.h"

/* The loop's thread is to look after N. */
static void call_loop(struct net *n) {
    if (n->loop)
        os_task_post(&n->task, n->loop);
}

static bool can_cut(unsigned can, const struct net_offload *off) {
    return can & (off->gso == NET_GSO_TCP4 ? NET_CAN_TSO4 : NET_CAN_TSO6);
}

/* --- rates --- */

static uint64_t when(const struct rate r[2], uint64_t now) {
    uint64_t bytes = rate_when(&r[0], now), frames = rate_when(&r[1], now);

    return bytes > frames ? bytes : frames;
}

static void pay(struct rate r[2], size_t len) {
    uint64_t now = os_monotonic_ns();

    rate_take(&r[0], len, now);
    rate_take(&r[1], 1, now);
}

uint64_t net_may_come(const struct net *n, uint64_t now) {
    return when(&n->rate[NET_IN_BYTES], now);
}

uint64_t net_may_go(const struct net *n, uint64_t now) {
    return when(&n->rate[NET_OUT_BYTES], now);
}

static bool comes_too_soon(const struct net *n) {
    uint64_t now = os_monotonic_ns();

    return net_may_come(n, now) > now;
}

static bool goes_too_soon(const struct net *n) {
    uint64_t now = os_monotonic_ns();

    return net_may_go(n, now) > now;
}

void net_limit(struct net *n, enum net_limit which, const struct rate_limit *l) {
    const struct rate *r = n->rate;

    rate_set(&n->rate[which], l, os_monotonic_ns());
    n->in_limited =
        rate_is_limited(&r[NET_IN_BYTES]) || rate_is_limited(&r[NET_IN_FRAMES]);
    n->out_limited =
        rate_is_limited(&r[NET_OUT_BYTES]) || rate_is_limited(&r[NET_OUT_FRAMES]);
    n->blocked = false;
    call_loop(n);
}

/* --- from the card --- */

static size_t gather(uint8_t *to, const struct net_piece *piece, unsigned count) {
    size_t len = 0;

    for (unsigned i = 0; i < count; i++) {
        memcpy(to + len, piece[i].at, piece[i].len);
        len += piece[i].len;
    }
    return len;
}

/* Up to more than a frame has. */
static size_t length_of(const struct net_piece *piece, unsigned count) {
    size_t len = 0;

    for (unsigned i = 0; i < count && len <= NET_FRAME_MAX; i++) {
        if (piece[i].len > NET_FRAME_MAX)
            return NET_FRAME_MAX + 1;
        len += piece[i].len;
    }
    return len;
}

static bool drop(struct net *n) {
    n->figures.dropped++;
    return true;
}

static bool refuse(struct net *n) {
    n->refused = true;
    return false;
}

static void count_out(struct net *n, size_t len) {
    n->figures.out_frames++;
    n->figures.out_bytes += len;
}

static bool send_whole(struct net *n, const struct net_offload *off,
                       const struct net_piece *piece, unsigned count, size_t len) {
    struct net_offload left = *off;
    uint8_t *p;

    if (!n->ops->room(n, len, 1))
        return refuse(n);
    p = n->ops->place(n, len);
    gather(p, piece, count);
    if (n->known)
        net_known_look(n->known, p, len);
    if (off->csum && !(n->ops->can & NET_CAN_CSUM)) {
        if (!net_checksum_fill(off, p, len))
            return drop(n);
        left.csum = false;
    }
    n->ops->put(n, &left, len);
    count_out(n, len);
    return true;
}

static bool send_cut(struct net *n, const struct net_offload *off,
                     const struct net_piece *piece, unsigned count) {
    static const struct net_offload nothing_left;
    struct net_segments cut;
    size_t len = gather(n->whole, piece, count);

    if (!net_segments_begin(&cut, off, n->whole, len) ||
        net_segments_total(&cut) > NET_CUT_MAX)
        return drop(n);
    if (!n->ops->room(n, net_segments_total(&cut), cut.count))
        return refuse(n);
    while ((len = net_segments_length(&cut))) {
        net_segments_next(&cut, n->ops->place(n, len));
        n->ops->put(n, &nothing_left, len);
        count_out(n, len);
    }
    return true;
}

static bool send_frame(struct net *n, const struct net_offload *off,
                       const struct net_piece *piece, unsigned count, size_t len) {
    if (off->gso && !can_cut(n->ops->can, off))
        return send_cut(n, off, piece, count);
    return send_whole(n, off, piece, count, len);
}

static bool send_limited(struct net *n, const struct net_offload *off,
                         const struct net_piece *piece, unsigned count, size_t len) {
    if (goes_too_soon(n)) {
        call_loop(n); /* it has the timer */
        return refuse(n);
    }
    if (!send_frame(n, off, piece, count, len))
        return false;
    pay(&n->rate[NET_OUT_BYTES], len);
    return true;
}

bool net_send(struct net *n, const struct net_offload *off, const struct net_piece *piece,
              unsigned count) {
    size_t len = length_of(piece, count);

    if (len < ETH_HEADER || len > NET_FRAME_MAX)
        return drop(n);
    if (n->service && net_service_take(n->service, off, piece, count, len)) {
        call_loop(n);
        return true;
    }
    if (n->fd < 0)
        return drop(n);
    if (n->out_limited)
        return send_limited(n, off, piece, count, len);
    return send_frame(n, off, piece, count, len);
}

void net_flush(struct net *n) {
    if (n->fd < 0)
        return;
    n->ops->flush(n);
    if (n->ops->waits(n))
        call_loop(n);
}

/* --- to the card --- */

static bool hand_over(struct net *n) {
    if (!n->plugged)
        return drop(n);
    if (!(n->in_limited && comes_too_soon(n)) &&
        n->card.receive(n->card.arg, &n->held.off, n->held.frame, n->held.len)) {
        if (n->in_limited)
            pay(&n->rate[NET_IN_BYTES], n->held.len);
        return true;
    }
    n->blocked = true;
    return false;
}

static void hold(struct net *n, const struct net_offload *off, const uint8_t *frame,
                 size_t len) {
    n->held.off = *off;
    n->held.frame = frame;
    n->held.len = len;
    n->holding = true;
    n->figures.in_frames++;
    n->figures.in_bytes += len;
}

/* Of a frame that is being cut. False: there are no more. */
static bool hold_next_segment(struct net *n) {
    const struct net_offload good = {.csum_good = net_tells_good(n)};
    size_t len = n->cutting ? net_segments_length(&n->cut) : 0;

    n->cutting = len;
    if (!len)
        return false;
    net_segments_next(&n->cut, n->segment);
    hold(n, &good, n->segment, len);
    return true;
}

/* What the card has refused, or not been offered yet. */
static bool give_held(struct net *n) {
    do {
        if (n->holding && !hand_over(n))
            return false;
        n->holding = false;
    } while (hold_next_segment(n));
    return true;
}

bool net_deliver(struct net *n, const struct net_offload *off, uint8_t *frame,
                 size_t len) {
    struct net_offload left = *off;

    if (len < ETH_HEADER)
        return drop(n);
    if (off->gso && !can_cut(n->can, off)) {
        n->cutting = net_segments_begin(&n->cut, off, frame, len);
        return n->cutting ? give_held(n) : drop(n);
    }
    if (off->csum && !(n->can & NET_CAN_CSUM)) {
        if (!net_checksum_fill(off, frame, len))
            return drop(n);
        left.csum = false;
        left.csum_good = true;
    }
    left.csum_good &= net_tells_good(n);
    hold(n, &left, frame, len);
    return give_held(n);
}

static bool give_service(struct net *n) {
    static const struct net_offload good = {.csum_good = true};
    uint64_t now = os_monotonic_ns();
    uint8_t *frame;
    size_t len;

    while (n->service && (len = net_service_next(n->service, &frame, now)))
        if (!net_deliver(n, &good, frame, len))
            return false;
    return true;
}

static bool give_lost(struct net *n) {
    static const struct net_offload good = {.csum_good = true};
    uint8_t *frame;
    size_t len;

    while (n->known && (len = net_known_next(n->known, &frame)))
        if (!net_deliver(n, &good, frame, len))
            return false;
    return true;
}

int net_go_on(struct net *n) {
    if (n->blocked || !give_held(n) || !give_lost(n) || !give_service(n))
        return 0;
    return n->ops->deliver(n);
}

void net_forget_held(struct net *n) {
    n->holding = n->cutting = n->blocked = false;
}

/* --- what it says and asks --- */

void net_plug(struct net *n, const struct net_card *card) {
    n->plugged = card;
    n->can = 0;
    if (card)
        n->card = *card;
    n->refused = false;
    net_forget_held(n);
    call_loop(n);
}

static bool takes(unsigned can, const struct net_offload *off) {
    return (!off->csum || can & NET_CAN_CSUM) && (!off->gso || can_cut(can, off));
}

void net_card_can(struct net *n, unsigned can) {
    n->can = can;
    n->held.off.csum_good &= net_tells_good(n);
    if (n->holding && !takes(can, &n->held.off)) {
        n->holding = false;
        drop(n);
    }
}

bool net_knows(const struct net *n) {
    return n->known;
}

void net_state(struct net *n, struct snapshot *s) {
    net_known_state(n->known, s);
    if (snapshot_reading(s))
        call_loop(n);
}

void net_later(struct net *n) {
    n->refused = true;
    call_loop(n);
}

void net_ready(struct net *n) {
    if (!n->blocked)
        return;
    n->blocked = false;
    call_loop(n);
}

bool net_link(const struct net *n) {
    return n->fd >= 0;
}

struct net_figures net_figures(const struct net *n) {
    return n->figures;
}
