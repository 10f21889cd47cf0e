/*
 * Checksums and segments; see offload.h. RFC 1071 "Computing the Internet Checksum";
 * RFC 9293 (TCP), 8200 (IPv6), 791 (IPv4).
 */
#include "net/offload.h"

#include <string.h>

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
#define FLAG_CWR 0x80

static unsigned get16(const uint8_t *p) {
    return (unsigned)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p) {
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, unsigned v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v) {
    put16(p, v >> 16);
    put16(p + 2, v);
}

/* --- sums --- */

/* Sums of words in the host's order, as RFC 1071 (B) allows: folded and turned round at
 * the end. The carries are counted in the upper half. */
static uint64_t add_bytes(uint64_t sum, const uint8_t *p, size_t len) {
    for (; len >= 4; p += 4, len -= 4) {
        uint32_t word;

        memcpy(&word, p, 4);
        sum += word;
    }
    if (len) {
        uint32_t word = 0;

        memcpy(&word, p, len);
        sum += word;
    }
    return sum;
}

static unsigned fold(uint64_t sum) {
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (unsigned)__builtin_bswap16((uint16_t)sum);
}

/* What makes SUM right. Zero would say "none" in UDP; the other zero is as good in TCP.
 */
static unsigned complement(uint64_t sum) {
    unsigned v = ~fold(sum) & 0xffff;

    return v ? v : 0xffff;
}

static void fill_ipv4_sum(uint8_t *ip, size_t header) {
    put16(ip + 10, 0);
    put16(ip + 10, ~fold(add_bytes(0, ip, header)) & 0xffff);
}

/* Addresses, protocol and length, as they are summed before a header of layer 4. */
static uint64_t pseudo_sum(const uint8_t *ip, bool ipv6, unsigned proto, size_t len) {
    uint8_t rest[8] = {0};

    put32(rest, (uint32_t)len);
    rest[7] = (uint8_t)proto;
    return add_bytes(ipv6 ? add_bytes(0, ip + 8, 32) : add_bytes(0, ip + 12, 8), rest, 8);
}

bool net_checksum_fill(const struct net_offload *off, uint8_t *frame, size_t len) {
    size_t start = off->csum_start, place = start + off->csum_offset;

    if (place + 2 > len)
        return false;
    put16(frame + place, complement(add_bytes(0, frame + start, len - start)));
    return true;
}

/* --- headers --- */

/* Where IP begins; 0: there is none. */
static size_t find_ip(const uint8_t *frame, size_t len, bool *ipv6) {
    size_t at = ETH_HEADER;
    unsigned type;

    if (len < ETH_HEADER)
        return 0;
    type = get16(frame + 12);
    if (type == TYPE_VLAN && len >= ETH_HEADER + 4) {
        type = get16(frame + 16);
        at += 4;
    }
    *ipv6 = type == TYPE_IPV6;
    if (type != TYPE_IPV4 && type != TYPE_IPV6)
        return 0;
    if (len < at + (*ipv6 ? IPV6_HEADER : 20))
        return 0;
    return frame[at] >> 4 == (*ipv6 ? 6 : 4) ? at : 0;
}

static size_t ipv4_header(const uint8_t *ip) {
    return (ip[0] & 15u) * 4u;
}

/* The end of an IPv4 packet that is no fragment and has its sum right; 0: it is not. */
static size_t ipv4_end(const uint8_t *ip, size_t room) {
    size_t header = ipv4_header(ip), total = get16(ip + 2);

    if (header < 20 || total < header || total > room || (get16(ip + 6) & 0x3fff))
        return 0;
    return fold(add_bytes(0, ip, header)) == 0xffff ? total : 0;
}

bool net_checksum_right(const uint8_t *frame, size_t len) {
    bool ipv6;
    size_t ip = find_ip(frame, len, &ipv6), l4, end;
    unsigned proto;

    if (!ip)
        return false;
    end = ipv6 ? IPV6_HEADER + get16(frame + ip + 4) : ipv4_end(frame + ip, len - ip);
    if (!end || end > len - ip)
        return false;
    proto = frame[ip + (ipv6 ? 6 : 9)];
    l4 = ipv6 ? IPV6_HEADER : ipv4_header(frame + ip);
    len = end - l4;
    if (proto == PROTO_UDP && (len < UDP_HEADER || !get16(frame + ip + l4 + 6)))
        return false;
    if (proto != PROTO_UDP && (proto != PROTO_TCP || len < TCP_HEADER))
        return false;
    return fold(add_bytes(pseudo_sum(frame + ip, ipv6, proto, len), frame + ip + l4,
                          len)) == 0xffff;
}

/* --- segments --- */

bool net_segments_begin(struct net_segments *s, const struct net_offload *off,
                        const uint8_t *frame, size_t len) {
    size_t l4 = off->csum_start, least;

    *s = (struct net_segments){.frame = frame, .len = len, .size = off->gso_size};
    s->l3 = find_ip(frame, len, &s->ipv6);
    if (!s->l3 || s->ipv6 != (off->gso == NET_GSO_TCP6) || s->size < NET_SEGMENT_MIN)
        return false;
    least = s->ipv6 ? IPV6_HEADER : ipv4_header(frame + s->l3);
    /* IPv6 may have further headers in between. */
    if (!off->csum || off->csum_offset != TCP_SUM || least < 20 || l4 < s->l3 + least ||
        (!s->ipv6 && l4 != s->l3 + least) || l4 + TCP_HEADER > len)
        return false;
    s->l4 = l4;
    s->payload = s->at = l4 + (frame[l4 + 12] >> 4) * 4u;
    if (s->payload < l4 + TCP_HEADER || s->payload > len || s->payload > NET_HEADERS_MAX)
        return false;
    len -= s->payload;
    s->count = len ? (unsigned)((len + s->size - 1) / s->size) : 1;
    return true;
}

/* Of payload, in the next one. */
static size_t next_payload(const struct net_segments *s) {
    size_t left = s->len - s->at;

    return left < s->size ? left : s->size;
}

size_t net_segments_length(const struct net_segments *s) {
    return s->next < s->count ? s->payload + next_payload(s) : 0;
}

size_t net_segments_total(const struct net_segments *s) {
    return (s->count - s->next) * s->payload + (s->len - s->at);
}

/* OUT has a copy of the headers, and LEN bytes behind them. */
static void fix_headers(const struct net_segments *s, uint8_t *out, size_t len) {
    uint8_t *ip = out + s->l3, *tcp = out + s->l4;
    size_t l4_len = s->payload - s->l4 + len, ip_len = s->l4 - s->l3 + l4_len;

    if (s->ipv6) {
        put16(ip + 4, (unsigned)(ip_len - IPV6_HEADER));
    } else {
        put16(ip + 2, (unsigned)ip_len);
        put16(ip + 4, get16(ip + 4) + s->next);
        fill_ipv4_sum(ip, s->l4 - s->l3);
    }
    put32(tcp + 4, get32(tcp + 4) + (uint32_t)(s->at - s->payload));
    if (s->next + 1 < s->count)
        tcp[13] &= (uint8_t) ~(FLAG_FIN | FLAG_PSH);
    if (s->next)
        tcp[13] &= (uint8_t)~FLAG_CWR;
    put16(tcp + TCP_SUM, 0);
    put16(tcp + TCP_SUM,
          complement(add_bytes(pseudo_sum(ip, s->ipv6, PROTO_TCP, l4_len), tcp, l4_len)));
}

void net_segments_next(struct net_segments *s, uint8_t *out) {
    size_t len = next_payload(s);

    memcpy(out, s->frame, s->payload);
    memcpy(out + s->payload, s->frame + s->at, len);
    fix_headers(s, out, len);
    s->at += len;
    s->next++;
}
