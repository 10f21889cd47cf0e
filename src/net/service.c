/*
 * The server's frames; see service.h. Addresses: of Ethernet the one that Firecracker's
 * metadata service has (docs/mmds/mmds-design.md there, "MMDS Network Stack"), of IPv4
 * what the user of this says.
 *
 * Frames wait in a ring until the loop's thread has them. What finds no place is lost, as
 * on a cable: TCP sends it again. Tagged frames and fragments are none of ours.
 */
#include "net/service.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/offload.h"
#include "net/packet.h"
#include "net/tcp.h"

#define TYPE_ARP 0x0806
#define ARP_SIZE 28
#define IPV4_HEADER 20
#define FRAMES 32u
/* A window's worth, with room for headers: a guest may leave segments uncut. */
#define FRAME_MOST (NET_SERVICE_REQUEST + 256u)
#define OUT_MOST                                                                         \
    (ETH_HEADER + IPV4_HEADER + TCP_HEADER + NET_TCP_OPTIONS + NET_TCP_SEGMENT)

static const uint8_t own_mac[6] = {0x06, 0x01, 0x23, 0x45, 0x67, 0x01};

struct waiting {
    size_t len;
    bool summed; /* its sums are still to be looked at */
    uint8_t frame[FRAME_MOST];
};

struct net_service {
    uint8_t address[4];
    struct net_tcp *tcp;
    bool asked; /* for our address, by the one whose these are */
    uint8_t asker_mac[6], asker_address[4];
    unsigned head, count;
    struct waiting ring[FRAMES];
    uint8_t out[OUT_MOST];
};

int net_service_new(const uint8_t address[4], uint16_t port,
                    const struct net_service_user *user, struct net_service **out) {
    struct net_service *s = calloc(1, sizeof(*s));
    int rc = s ? net_tcp_new(port, user, &s->tcp) : -ENOMEM;

    if (rc) {
        free(s);
        return rc;
    }
    memcpy(s->address, address, 4);
    *out = s;
    return 0;
}

void net_service_free(struct net_service *s) {
    if (s)
        net_tcp_free(s->tcp);
    free(s);
}

/* --- from the card --- */

/* Up to MOST bytes of the frame. */
static size_t gather(uint8_t *to, size_t most, const struct net_piece *piece,
                     unsigned count) {
    size_t len = 0;

    for (unsigned i = 0; i < count && len < most; i++) {
        size_t n = piece[i].len < most - len ? piece[i].len : most - len;

        memcpy(to + len, piece[i].at, n);
        len += n;
    }
    return len;
}

/* By what is at its head, which the guest may change afterwards. */
static bool is_ours(const struct net_service *s, const uint8_t *head, size_t len) {
    unsigned type = len < ETH_HEADER ? 0 : net_get16(head + 12);

    if (type == TYPE_ARP)
        return len >= ETH_HEADER + ARP_SIZE &&
               !memcmp(head + ETH_HEADER + 24, s->address, 4);
    return type == TYPE_IPV4 && len >= ETH_HEADER + IPV4_HEADER &&
           !memcmp(head + ETH_HEADER + 16, s->address, 4);
}

bool net_service_take(struct net_service *s, const struct net_offload *off,
                      const struct net_piece *piece, unsigned count, size_t len) {
    uint8_t head[ETH_HEADER + ARP_SIZE];
    struct waiting *w = &s->ring[(s->head + s->count) % FRAMES];

    if (!is_ours(s, head, gather(head, sizeof(head), piece, count)))
        return false;
    if (s->count == FRAMES || len > sizeof(w->frame))
        return true;
    w->len = gather(w->frame, sizeof(w->frame), piece, count);
    w->summed = !off->csum && !off->csum_good;
    s->count++;
    return true;
}

/* --- what it says --- */

/* RFC 826, "Packet Reception"; who asks for us is answered, and others are not. */
static void look_at_arp(struct net_service *s, const uint8_t *arp, size_t len) {
    static const uint8_t question[8] = {0, 1, 8, 0, 6, 4, 0, 1};

    if (len < ARP_SIZE || memcmp(arp, question, sizeof(question)) != 0 ||
        memcmp(arp + 24, s->address, 4) != 0)
        return;
    memcpy(s->asker_mac, arp + 8, 6);
    memcpy(s->asker_address, arp + 14, 4);
    s->asked = true;
}

static bool is_fragment(const uint8_t *ip) {
    return net_get16(ip + 6) & 0x3fff;
}

static void look_at_ip(struct net_service *s, const uint8_t *frame, size_t len,
                       uint64_t now) {
    const uint8_t *ip = frame + ETH_HEADER;
    size_t header, total;
    struct net_tcp_peer peer;

    len -= ETH_HEADER;
    if (len < IPV4_HEADER || ip[0] >> 4 != 4)
        return;
    header = net_ipv4_header(ip);
    total = net_get16(ip + 2);
    if (header < IPV4_HEADER || total < header || total > len || is_fragment(ip) ||
        ip[9] != PROTO_TCP || memcmp(ip + 16, s->address, 4) != 0)
        return;
    memcpy(peer.mac, frame + 6, 6);
    memcpy(peer.address, ip + 12, 4);
    net_tcp_input(s->tcp, &peer, ip + header, total - header, now);
}

static void look_at(struct net_service *s, const struct waiting *w, uint64_t now) {
    if (w->len < ETH_HEADER)
        return;
    if (net_get16(w->frame + 12) == TYPE_ARP)
        look_at_arp(s, w->frame + ETH_HEADER, w->len - ETH_HEADER);
    else if (!w->summed || net_checksum_right(w->frame, w->len))
        look_at_ip(s, w->frame, w->len, now);
}

void net_service_look(struct net_service *s, uint64_t now) {
    for (; s->count; s->count--) {
        look_at(s, &s->ring[s->head], now);
        s->head = (s->head + 1) % FRAMES;
    }
}

/* --- to the card --- */

static void put_ethernet(uint8_t *frame, const uint8_t to[6], unsigned type) {
    memcpy(frame, to, 6);
    memcpy(frame + 6, own_mac, 6);
    net_put16(frame + 12, type);
}

static size_t put_arp(struct net_service *s) {
    static const uint8_t answer[8] = {0, 1, 8, 0, 6, 4, 0, 2};
    uint8_t *arp = s->out + ETH_HEADER;

    put_ethernet(s->out, s->asker_mac, TYPE_ARP);
    memcpy(arp, answer, sizeof(answer));
    memcpy(arp + 8, own_mac, 6);
    memcpy(arp + 14, s->address, 4);
    memcpy(arp + 18, s->asker_mac, 6);
    memcpy(arp + 24, s->asker_address, 4);
    s->asked = false;
    return ETH_HEADER + ARP_SIZE;
}

/* Puts in front of LEN bytes of TCP what belongs there, and all sums. */
static size_t put_ip(struct net_service *s, const struct net_tcp_peer *to, size_t len) {
    uint8_t *ip = s->out + ETH_HEADER, *tcp = ip + IPV4_HEADER;

    put_ethernet(s->out, to->mac, TYPE_IPV4);
    memset(ip, 0, IPV4_HEADER);
    ip[0] = 0x45;
    net_put16(ip + 2, (unsigned)(IPV4_HEADER + len));
    net_put16(ip + 6, 0x4000); /* no fragments */
    ip[8] = 64;
    ip[9] = PROTO_TCP;
    memcpy(ip + 12, s->address, 4);
    memcpy(ip + 16, to->address, 4);
    net_sum_fill_ipv4(ip, IPV4_HEADER);
    net_put16(tcp + TCP_SUM, net_sum_complement(net_sum_add(
                                 net_sum_pseudo(ip, false, PROTO_TCP, len), tcp, len)));
    return ETH_HEADER + IPV4_HEADER + len;
}

size_t net_service_next(struct net_service *s, uint8_t **frame, uint64_t now) {
    struct net_tcp_peer to;
    size_t len;

    *frame = s->out;
    if (s->asked)
        return put_arp(s);
    len = net_tcp_next(s->tcp, &to, s->out + ETH_HEADER + IPV4_HEADER, now);
    return len ? put_ip(s, &to, len) : 0;
}

uint64_t net_service_when(const struct net_service *s) {
    return net_tcp_when(s->tcp);
}
