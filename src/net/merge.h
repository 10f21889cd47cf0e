/*
 * Segments of one TCP stream that arrive together become one long frame, which a card
 * that takes such frames hands to its guest as a whole: what a guest does for each frame
 * is done once. It is the reverse of cutting (offload.h): a merged frame, cut, gives the
 * segments that it was made of, but for IPv4's identification.
 */
#ifndef NET_MERGE_H
#define NET_MERGE_H

#include "net/net.h"

/* Where the parts of a segment begin. */
struct net_segment {
    size_t l3, l4, payload;
    size_t size; /* of the payload */
    bool ipv6;
    bool last; /* it ends what was written, or all (PSH, FIN) */
};

struct net_merge {
    const uint8_t *first;  /* in its buffer; NULL: there is nothing */
    struct net_segment at; /* FIRST's parts */
    unsigned count;
    size_t len; /* of FIRST or, from the second one on, of BYTES */
    bool full;  /* nothing fits behind it any more */
    uint8_t bytes[NET_FRAME_MAX];
};

static inline bool net_merge_there(const struct net_merge *m) {
    return m->first;
}

/* Takes a frame whose checksums are right, for a card that takes CAN: it is the first, or
 * goes on where the last one ended. FRAME stays where it is until net_merge_end(). False:
 * it was not taken. */
bool net_merge_take(struct net_merge *m, const uint8_t *frame, size_t len, unsigned can);
/* What there is, and what is to be done to it; then there is nothing. The frame stays as
 * long as the first one does, or until the next one is taken. */
const uint8_t *net_merge_end(struct net_merge *m, struct net_offload *off, size_t *len);

#endif
