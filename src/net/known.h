/*
 * The TCP connections of a guest whose far end is this process: a machine that goes on
 * from a snapshot has them, and nobody is there any more. Who sends hears that from the
 * far end, which knows no such connection; who only waits would wait for ever. So what
 * the guest has opened or taken is noted by its SYN, is kept in snapshots, and is sent a
 * SYN then, as if the far end had begun anew: RFC 9293, "Reset Generation", 3.10.7.4: the
 * guest answers with an acknowledgment of what it has, to which the far end says RST.
 *
 * One that has ended is not forgotten, but at some time overwritten: the guest answers a
 * SYN that means nothing to it by RST.
 */
#ifndef NET_KNOWN_H
#define NET_KNOWN_H

#include "base/types.h"

struct snapshot;

#define NET_KNOWN_MAX 1024u /* the latest */

struct net_known_one {
    uint8_t guest_mac[6], peer_mac[6];
    uint8_t ipv6;
    uint8_t guest[16], peer[16];         /* addresses; 4 bytes of IPv4 */
    uint8_t guest_port[2], peer_port[2]; /* as they stand in a frame */
};

struct net_known {
    struct net_known_one one[NET_KNOWN_MAX];
    uint32_t count, next; /* NEXT is overwritten */
    struct net_known_one lost[NET_KNOWN_MAX];
    uint32_t lost_count;
    uint8_t frame[80];
};

/* A frame of the guest's. */
void net_known_look(struct net_known *k, const uint8_t *frame, size_t len);
/* The next frame for the guest, K's until the next call: its length; 0: there is none. */
size_t net_known_next(struct net_known *k, uint8_t **frame);
/* A record of a snapshot: what is known; what is read is lost. */
void net_known_state(struct net_known *k, struct snapshot *s);

#endif
