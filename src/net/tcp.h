/*
 * TCP (RFC 9293) as a server needs it towards one machine, over a cable that seldom loses
 * a frame and never changes their order: connections that come, requests of bounded
 * length, an answer to each. Sent again after a timeout; no congestion control, no
 * options but the segments' size, nothing kept that came out of order.
 *
 * Segments in, segments out: it knows no frame, no address but its clients', no clock and
 * no descriptor. What comes is the guest's, and not believed.
 */
#ifndef NET_TCP_H
#define NET_TCP_H

#include "net/service.h"

#define NET_TCP_CONNECTIONS 32u
#define NET_TCP_OPTIONS 4u   /* bytes of them behind the header, at most */
#define NET_TCP_SEGMENT 1460 /* of payload, at most, in either direction */

struct net_tcp;

struct net_tcp_peer {
    uint8_t mac[6], address[4];
    uint16_t port;
};

/* 0 or -ENOMEM. USER is copied. */
int net_tcp_new(uint16_t port, const struct net_service_user *user, struct net_tcp **out);
void net_tcp_free(struct net_tcp *t); /* T may be NULL */
/* LEN bytes have come from PEER, whose port is still in them: a header, whose checksum
 * nobody looks at here, and a payload. */
void net_tcp_input(struct net_tcp *t, const struct net_tcp_peer *peer, const uint8_t *tcp,
                   size_t len, uint64_t now);
/* The next segment that is to be sent: its bytes in TCP, without a checksum, for which
 * there is place for NET_TCP_SEGMENT and two headers; 0: there is none now. */
size_t net_tcp_next(struct net_tcp *t, struct net_tcp_peer *to, uint8_t *tcp,
                    uint64_t now);
/* When net_tcp_next() may have more without anything having come; UINT64_MAX: never. */
uint64_t net_tcp_when(const struct net_tcp *t);

#endif
