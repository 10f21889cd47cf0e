/* Fields and sums of frames; see packet.h. */
#include "net/packet.h"

#include <string.h>

/* Sums of words in the host's order, as RFC 1071 (B) allows: folded and turned round at
 * the end. The carries are counted in the upper half. */
uint64_t net_sum_add(uint64_t sum, const uint8_t *p, size_t len) {
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

unsigned net_sum_fold(uint64_t sum) {
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (unsigned)__builtin_bswap16((uint16_t)sum);
}

void net_sum_fill_ipv4(uint8_t *ip, size_t header) {
    net_put16(ip + 10, 0);
    net_put16(ip + 10, ~net_sum_fold(net_sum_add(0, ip, header)) & 0xffff);
}

uint64_t net_sum_pseudo(const uint8_t *ip, bool ipv6, unsigned proto, size_t len) {
    uint8_t rest[8] = {0};

    net_put32(rest, (uint32_t)len);
    rest[7] = (uint8_t)proto;
    return net_sum_add(ipv6 ? net_sum_add(0, ip + 8, 32) : net_sum_add(0, ip + 12, 8),
                       rest, 8);
}

size_t net_find_ip(const uint8_t *frame, size_t len, bool *ipv6) {
    size_t at = ETH_HEADER;
    unsigned type;

    if (len < ETH_HEADER)
        return 0;
    type = net_get16(frame + 12);
    if (type == TYPE_VLAN && len >= ETH_HEADER + 4) {
        type = net_get16(frame + 16);
        at += 4;
    }
    *ipv6 = type == TYPE_IPV6;
    if (type != TYPE_IPV4 && type != TYPE_IPV6)
        return 0;
    if (len < at + (*ipv6 ? IPV6_HEADER : 20))
        return 0;
    return frame[at] >> 4 == (*ipv6 ? 6 : 4) ? at : 0;
}
