/*
 * What cards leave undone, done here: checksums, and the cutting of long TCP frames into
 * segments. Functions of bytes alone.
 *
 * Everything in a frame and in its struct net_offload is somebody's word: lengths and
 * offsets are checked, and what does not fit makes the frame none.
 */
#ifndef NET_OFFLOAD_H
#define NET_OFFLOAD_H

#include "net/net.h"

/* Puts the checksum in that OFF asks for. False: it lies outside. */
bool net_checksum_fill(const struct net_offload *off, uint8_t *frame, size_t len);
/* The frame is TCP or UDP over IP, whole, and its checksums are right. False: they are
 * wrong, or it is something else. */
bool net_checksum_right(const uint8_t *frame, size_t len);

#define NET_HEADERS_MAX 512 /* of a frame that is to be cut */
/* No TCP that is meant well has shorter segments; they bound what a frame becomes. */
#define NET_SEGMENT_MIN 48

/* A frame that is being cut. */
struct net_segments {
    const uint8_t *frame; /* the caller's, must stay */
    size_t len;
    size_t l3, l4, payload; /* where they begin */
    size_t size;            /* of a segment's payload */
    size_t at;              /* of the next one's */
    unsigned count, next;   /* segments */
    bool ipv6;
};

/* False: it cannot be cut. */
bool net_segments_begin(struct net_segments *s, const struct net_offload *off,
                        const uint8_t *frame, size_t len);
/* Bytes of the next segment; 0: there are no more. */
size_t net_segments_length(const struct net_segments *s);
/* Of all that are still to come. */
size_t net_segments_total(const struct net_segments *s);
/* Writes the next segment to OUT, its checksums too. */
void net_segments_next(struct net_segments *s, uint8_t *out);

#endif
