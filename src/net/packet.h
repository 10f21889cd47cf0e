/*
 * What is looked at and changed in frames: fields of Ethernet, IP and TCP, and their
 * sums. RFC 791 (IPv4), 8200 (IPv6), 9293 (TCP), 1071 "Computing the Internet Checksum".
 */
#ifndef NET_PACKET_H
#define NET_PACKET_H

#include "base/types.h"

#define ETH_HEADER 14
#define TYPE_IPV4 0x0800
#define TYPE_IPV6 0x86dd
#define TYPE_VLAN 0x8100
#define PROTO_TCP 6
#define PROTO_UDP 17
#define IPV6_HEADER 40
#define TCP_HEADER 20
#define UDP_HEADER 8
#define TCP_SUM 16 /* where it is in the header */
#define FLAG_FIN 0x01
#define FLAG_PSH 0x08
#define FLAG_ACK 0x10
#define FLAG_CWR 0x80

static inline unsigned net_get16(const uint8_t *p) {
    return (unsigned)p[0] << 8 | p[1];
}

static inline uint32_t net_get32(const uint8_t *p) {
    return (uint32_t)net_get16(p) << 16 | net_get16(p + 2);
}

static inline void net_put16(uint8_t *p, unsigned v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void net_put32(uint8_t *p, uint32_t v) {
    net_put16(p, v >> 16);
    net_put16(p + 2, v);
}

/* Where IP begins; 0: there is none. The fixed header of its version is there. */
size_t net_find_ip(const uint8_t *frame, size_t len, bool *ipv6);
/* Bytes of an IPv4 header, by its own word: 0 to 60. */
static inline size_t net_ipv4_header(const uint8_t *ip) {
    return (ip[0] & 15u) * 4u;
}

/* Sums go on from SUM; they are folded at the end. LEN is a multiple of 4 but for the
 * last one. */
uint64_t net_sum_add(uint64_t sum, const uint8_t *p, size_t len);
/* 16 bits, as they stand in a frame: 0xffff, if what was summed has its checksum in it.
 */
unsigned net_sum_fold(uint64_t sum);
/* What makes SUM right. Zero would say "none" in UDP; the other zero is as good in TCP.
 */
static inline unsigned net_sum_complement(uint64_t sum) {
    unsigned v = ~net_sum_fold(sum) & 0xffff;

    return v ? v : 0xffff;
}
/* Of addresses, protocol and length, as they are summed before a header of layer 4. */
uint64_t net_sum_pseudo(const uint8_t *ip, bool ipv6, unsigned proto, size_t len);
/* Puts the sum of its own into an IPv4 header. */
void net_sum_fill_ipv4(uint8_t *ip, size_t header);

#endif
