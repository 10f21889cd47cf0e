/* Connections of the guest; see known.h. */
#include "net/known.h"

#include <string.h>

#include "net/packet.h"
#include "snapshot/snapshot.h"

#define FLAG_SYN 0x02
#define FLAG_RST 0x04
#define TCP_FLAGS 13
#define IPV4_HEADER 20
#define WINDOW 65535u

/* TCP's header behind that of IP, which has no fragments and, of IPv6, no extensions;
 * NULL: that is not what it is. */
static const uint8_t *find_tcp(const uint8_t *frame, size_t len, const uint8_t **ip,
                               bool *ipv6) {
    size_t at = net_find_ip(frame, len, ipv6), header;

    if (!at)
        return NULL;
    *ip = frame + at;
    header = *ipv6 ? IPV6_HEADER : net_ipv4_header(*ip);
    if ((*ip)[*ipv6 ? 6 : 9] != PROTO_TCP || header < IPV4_HEADER ||
        (!*ipv6 && net_get16(*ip + 6) & 0x1fff) || len - at < header + TCP_HEADER)
        return NULL;
    return *ip + header;
}

static bool same(const struct net_known_one *a, const struct net_known_one *b) {
    return !memcmp(a, b, sizeof(*a));
}

static void note(struct net_known *k, const struct net_known_one *o) {
    for (uint32_t n = 0; n < k->count; n++)
        if (same(&k->one[n], o))
            return;
    k->one[k->next] = *o;
    k->next = (k->next + 1) % NET_KNOWN_MAX;
    if (k->count < NET_KNOWN_MAX)
        k->count++;
}

void net_known_look(struct net_known *k, const uint8_t *frame, size_t len) {
    const uint8_t *ip, *tcp;
    struct net_known_one o = {0};
    bool ipv6;

    tcp = find_tcp(frame, len, &ip, &ipv6);
    if (!tcp || (tcp[TCP_FLAGS] & (FLAG_SYN | FLAG_RST)) != FLAG_SYN)
        return;
    memcpy(o.guest_mac, frame + 6, 6);
    memcpy(o.peer_mac, frame, 6);
    o.ipv6 = ipv6;
    memcpy(o.guest, ip + (ipv6 ? 8 : 12), ipv6 ? 16 : 4);
    memcpy(o.peer, ip + (ipv6 ? 24 : 16), ipv6 ? 16 : 4);
    memcpy(o.guest_port, tcp, 2);
    memcpy(o.peer_port, tcp + 2, 2);
    note(k, &o);
}

/* --- to the guest --- */

static size_t put_ip(uint8_t *ip, const struct net_known_one *o) {
    if (o->ipv6) {
        net_put32(ip, 6u << 28);
        net_put16(ip + 4, TCP_HEADER);
        ip[6] = PROTO_TCP;
        ip[7] = 64;
        memcpy(ip + 8, o->peer, 16);
        memcpy(ip + 24, o->guest, 16);
        return IPV6_HEADER;
    }
    ip[0] = 0x45;
    net_put16(ip + 2, IPV4_HEADER + TCP_HEADER);
    ip[8] = 64;
    ip[9] = PROTO_TCP;
    memcpy(ip + 12, o->peer, 4);
    memcpy(ip + 16, o->guest, 4);
    net_sum_fill_ipv4(ip, IPV4_HEADER);
    return IPV4_HEADER;
}

static void put_syn(uint8_t *tcp, const uint8_t *ip, const struct net_known_one *o) {
    memcpy(tcp, o->peer_port, 2);
    memcpy(tcp + 2, o->guest_port, 2);
    tcp[12] = TCP_HEADER / 4 << 4;
    tcp[TCP_FLAGS] = FLAG_SYN;
    net_put16(tcp + 14, WINDOW);
    net_put16(tcp + TCP_SUM,
              net_sum_complement(net_sum_add(
                  net_sum_pseudo(ip, o->ipv6, PROTO_TCP, TCP_HEADER), tcp, TCP_HEADER)));
}

size_t net_known_next(struct net_known *k, uint8_t **frame) {
    const struct net_known_one *o;
    uint8_t *ip = k->frame + ETH_HEADER;
    size_t header;

    if (!k->lost_count)
        return 0;
    o = &k->lost[--k->lost_count];
    memset(k->frame, 0, sizeof(k->frame));
    memcpy(k->frame, o->guest_mac, 6);
    memcpy(k->frame + 6, o->peer_mac, 6);
    net_put16(k->frame + 12, o->ipv6 ? TYPE_IPV6 : TYPE_IPV4);
    header = put_ip(ip, o);
    put_syn(ip + header, ip, o);
    *frame = k->frame;
    return ETH_HEADER + header + TCP_HEADER;
}

/* --- snapshots --- */

void net_known_state(struct net_known *k, struct snapshot *s) {
    uint32_t count = k->count;

    SNAPSHOT_UPTO(s, count, NET_KNOWN_MAX);
    for (uint32_t n = 0; n < count; n++) {
        struct net_known_one *o = snapshot_reading(s) ? &k->lost[n] : &k->one[n];

        snapshot_bytes(s, o->guest_mac, sizeof(o->guest_mac));
        snapshot_bytes(s, o->peer_mac, sizeof(o->peer_mac));
        SNAPSHOT_UPTO(s, o->ipv6, 1);
        snapshot_bytes(s, o->guest, sizeof(o->guest));
        snapshot_bytes(s, o->peer, sizeof(o->peer));
        snapshot_bytes(s, o->guest_port, sizeof(o->guest_port));
        snapshot_bytes(s, o->peer_port, sizeof(o->peer_port));
    }
    if (snapshot_reading(s))
        k->lost_count = count;
}
