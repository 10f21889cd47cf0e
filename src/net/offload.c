/* Checksums and segments; see offload.h. */
#include "net/offload.h"

#include <string.h>

#include "net/packet.h"

bool net_checksum_fill(const struct net_offload *off, uint8_t *frame, size_t len) {
    size_t start = off->csum_start, place = start + off->csum_offset;

    if (place + 2 > len)
        return false;
    net_put16(frame + place,
              net_sum_complement(net_sum_add(0, frame + start, len - start)));
    return true;
}

/* --- headers --- */

/* The end of an IPv4 packet that is no fragment and has its sum right; 0: it is not. */
static size_t ipv4_end(const uint8_t *ip, size_t room) {
    size_t header = net_ipv4_header(ip), total = net_get16(ip + 2);

    if (header < 20 || total < header || total > room || (net_get16(ip + 6) & 0x3fff))
        return 0;
    return net_sum_fold(net_sum_add(0, ip, header)) == 0xffff ? total : 0;
}

bool net_checksum_right(const uint8_t *frame, size_t len) {
    bool ipv6;
    size_t ip = net_find_ip(frame, len, &ipv6), l4, end;
    unsigned proto;

    if (!ip)
        return false;
    end = ipv6 ? IPV6_HEADER + net_get16(frame + ip + 4) : ipv4_end(frame + ip, len - ip);
    if (!end || end > len - ip)
        return false;
    proto = frame[ip + (ipv6 ? 6 : 9)];
    l4 = ipv6 ? IPV6_HEADER : net_ipv4_header(frame + ip);
    len = end - l4;
    if (proto == PROTO_UDP && (len < UDP_HEADER || !net_get16(frame + ip + l4 + 6)))
        return false;
    if (proto != PROTO_UDP && (proto != PROTO_TCP || len < TCP_HEADER))
        return false;
    return net_sum_fold(net_sum_add(net_sum_pseudo(frame + ip, ipv6, proto, len),
                                    frame + ip + l4, len)) == 0xffff;
}

/* --- segments --- */

bool net_segments_begin(struct net_segments *s, const struct net_offload *off,
                        const uint8_t *frame, size_t len) {
    size_t l4 = off->csum_start, least;

    *s = (struct net_segments){.frame = frame, .len = len, .size = off->gso_size};
    s->l3 = net_find_ip(frame, len, &s->ipv6);
    if (!s->l3 || s->ipv6 != (off->gso == NET_GSO_TCP6) || s->size < NET_SEGMENT_MIN)
        return false;
    least = s->ipv6 ? IPV6_HEADER : net_ipv4_header(frame + s->l3);
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
        net_put16(ip + 4, (unsigned)(ip_len - IPV6_HEADER));
    } else {
        net_put16(ip + 2, (unsigned)ip_len);
        net_put16(ip + 4, net_get16(ip + 4) + s->next);
        net_sum_fill_ipv4(ip, s->l4 - s->l3);
    }
    net_put32(tcp + 4, net_get32(tcp + 4) + (uint32_t)(s->at - s->payload));
    if (s->next + 1 < s->count)
        tcp[13] &= (uint8_t) ~(FLAG_FIN | FLAG_PSH);
    if (s->next)
        tcp[13] &= (uint8_t)~FLAG_CWR;
    net_put16(tcp + TCP_SUM, 0);
    net_put16(tcp + TCP_SUM,
              net_sum_complement(net_sum_add(
                  net_sum_pseudo(ip, s->ipv6, PROTO_TCP, l4_len), tcp, l4_len)));
}

void net_segments_next(struct net_segments *s, uint8_t *out) {
    size_t len = next_payload(s);

    memcpy(out, s->frame, s->payload);
    memcpy(out + s->payload, s->frame + s->at, len);
    fix_headers(s, out, len);
    s->at += len;
    s->next++;
}
