/*
 * Segments of TCP that become one frame; see merge.h.
 *
 * Two go together when all of their headers is the same but for what the second one's
 * place in the stream makes different: IPv4's identification and checksum, lengths, the
 * sequence number, the checksum, and PSH and FIN, which the last one may have. All but
 * the last are of one size.
 */
#include "net/merge.h"

#include <string.h>

#include "net/offload.h"
#include "net/packet.h"

#define IP_MAX 65535

/* Is it a segment that can be merged? Finds its parts. */
static bool look_at(struct net_segment *s, const uint8_t *frame, size_t len,
                    unsigned can) {
    const uint8_t *ip, *tcp;
    size_t end;

    s->l3 = net_find_ip(frame, len, &s->ipv6);
    if (!s->l3 || !(can & (s->ipv6 ? NET_CAN_TSO6 : NET_CAN_TSO4)))
        return false;
    ip = frame + s->l3;
    s->l4 = s->l3 + (s->ipv6 ? IPV6_HEADER : 20);
    end = s->ipv6 ? s->l4 + net_get16(ip + 4) : s->l3 + net_get16(ip + 2);
    if (end != len || len < s->l4 + TCP_HEADER || ip[s->ipv6 ? 6 : 9] != PROTO_TCP)
        return false;
    if (!s->ipv6 && (net_ipv4_header(ip) != 20 || (net_get16(ip + 6) & 0x3fff)))
        return false;
    tcp = frame + s->l4;
    s->payload = s->l4 + (tcp[12] >> 4) * 4u;
    if (s->payload < s->l4 + TCP_HEADER || s->payload >= len)
        return false;
    s->size = len - s->payload;
    s->last = tcp[13] & (FLAG_PSH | FLAG_FIN);
    return s->size >= NET_SEGMENT_MIN && (tcp[13] & ~(FLAG_PSH | FLAG_FIN)) == FLAG_ACK;
}

static bool same(const uint8_t *a, const uint8_t *b, size_t from, size_t to) {
    return !memcmp(a + from, b + from, to - from);
}

/* FRAME is what comes next in the stream, and its headers say so. */
static bool goes_on(const struct net_merge *m, const struct net_segment *s,
                    const uint8_t *frame) {
    const uint8_t *a = m->first;
    size_t ip = s->l3, tcp = s->l4;

    if (m->full || s->ipv6 != m->at.ipv6 || ip != m->at.l3 ||
        s->payload != m->at.payload || s->size > m->at.size ||
        m->len + s->size - ip > IP_MAX || !same(a, frame, 0, ip))
        return false;
    if (s->ipv6 ? !same(a, frame, ip, ip + 4) || !same(a, frame, ip + 6, tcp)
                : !same(a, frame, ip, ip + 2) || !same(a, frame, ip + 6, ip + 10) ||
                      !same(a, frame, ip + 12, tcp))
        return false;
    /* Ports; acknowledgement and the header's length; window; urgent pointer, options. */
    return same(a, frame, tcp, tcp + 4) && same(a, frame, tcp + 8, tcp + 13) &&
           same(a, frame, tcp + 14, tcp + 16) && same(a, frame, tcp + 18, s->payload) &&
           net_get32(frame + tcp + 4) ==
               net_get32(a + tcp + 4) + (uint32_t)(m->len - s->payload);
}

static void append(struct net_merge *m, const struct net_segment *s,
                   const uint8_t *frame) {
    if (m->count == 1)
        memcpy(m->bytes, m->first, m->len);
    memcpy(m->bytes + m->len, frame + s->payload, s->size);
    m->bytes[s->l4 + 13] |= frame[s->l4 + 13];
    m->len += s->size;
    m->count++;
    m->full = s->last || s->size < m->at.size;
}

bool net_merge_take(struct net_merge *m, const uint8_t *frame, size_t len, unsigned can) {
    struct net_segment s;

    if (!look_at(&s, frame, len, can))
        return false;
    if (!m->first) {
        m->first = frame;
        m->at = s;
        m->len = len;
        m->count = 1;
        m->full = s.last;
        return true;
    }
    if (!goes_on(m, &s, frame))
        return false;
    append(m, &s, frame);
    return true;
}

/* Lengths and sums of what is long now; the checksum is left to the guest. */
static void fix_headers(struct net_merge *m) {
    uint8_t *ip = m->bytes + m->at.l3, *tcp = m->bytes + m->at.l4;
    size_t l4_len = m->len - m->at.l4;

    if (m->at.ipv6) {
        net_put16(ip + 4, (unsigned)l4_len);
    } else {
        net_put16(ip + 2, (unsigned)(m->len - m->at.l3));
        net_sum_fill_ipv4(ip, 20);
    }
    net_put16(tcp + TCP_SUM,
              net_sum_fold(net_sum_pseudo(ip, m->at.ipv6, PROTO_TCP, l4_len)));
}

const uint8_t *net_merge_end(struct net_merge *m, struct net_offload *off, size_t *len) {
    const uint8_t *frame = m->first;

    *off = (struct net_offload){.csum_good = true};
    *len = m->len;
    m->first = NULL;
    if (m->count == 1)
        return frame;
    fix_headers(m);
    *off = (struct net_offload){
        .csum = true,
        .gso = m->at.ipv6 ? NET_GSO_TCP6 : NET_GSO_TCP4,
        .gso_size = (uint16_t)m->at.size,
        .header_len = (uint16_t)m->at.payload,
        .csum_start = (uint16_t)m->at.l4,
        .csum_offset = TCP_SUM,
    };
    return m->bytes;
}
