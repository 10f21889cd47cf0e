/*
 * Reception. Manual, "Packet Reception" and "Receive Initialization".
 *
 * A frame that passes the filters is written into as many buffers of the ring as it
 * needs; each descriptor is written back when its buffer is full, its status last. While
 * there are too few, the frame stays in the network's hands, and is asked for again when
 * the tail moves.
 */
#include "dev/net/e1000_int.h"
#include "net/packet.h"

#define RCTL_ENABLE (1u << 1)
#define RCTL_ALL_UNICAST (1u << 3)
#define RCTL_ALL_MULTICAST (1u << 4)
#define RCTL_LONG (1u << 5)
#define RCTL_THRESHOLD(v) ((v) >> 8 & 3)
#define RCTL_HASH(v) ((v) >> 12 & 3)
#define RCTL_BROADCAST (1u << 15)
#define RCTL_SIZE(v) ((v) >> 16 & 3)
#define RCTL_VLAN_FILTER (1u << 18)
#define RCTL_SIZE_16 (1u << 25)
#define RCTL_STRIP_CRC (1u << 26)

#define RXCSUM_IP (1u << 8)
#define RXCSUM_L4 (1u << 9)

enum {
    S_DONE = 1,
    S_END = 2,
    S_NO_SUMS = 4,
    S_VLAN = 8,
    S_L4_SUM = 0x20,
    S_IP_SUM = 0x40
};

#define ADDRESS_VALID (1u << 31)
#define ETH_MIN 60u
#define ETH_MAX 1514u
#define TAG 4u
#define CRC 4u

/* --- filters: "Receive Packet Address Filtering" --- */

static bool is_vlan(const struct e1000 *e, const uint8_t *frame) {
    return net_get16(frame + 12) == (e->reg[R_VET / 4] & 0xffff);
}

static bool address_matches(const struct e1000 *e, const uint8_t *frame) {
    for (unsigned n = 0; n < 16; n++) {
        uint32_t low = e->reg[R_RA / 4 + 2 * n], high = e->reg[R_RA / 4 + 2 * n + 1];
        bool same = (high & ADDRESS_VALID) && frame[4] == (uint8_t)high &&
                    frame[5] == (uint8_t)(high >> 8);

        for (unsigned i = 0; i < 4; i++)
            same &= frame[i] == (uint8_t)(low >> (8 * i));
        if (same)
            return true;
    }
    return false;
}

/* Twelve of the address's upper sixteen bits choose a bit of the table. */
static bool hash_matches(const struct e1000 *e, const uint8_t *frame) {
    static const uint8_t shift[] = {4, 3, 2, 0};
    uint32_t bits = frame[4] | (uint32_t)frame[5] << 8;
    uint32_t hash = bits >> shift[RCTL_HASH(e->reg[R_RCTL / 4])] & 0xfff;

    return e->reg[R_MTA / 4 + hash / 32] >> (hash % 32) & 1;
}

static bool is_broadcast(const uint8_t *frame) {
    return (frame[0] & frame[1] & frame[2] & frame[3] & frame[4] & frame[5]) == 0xff;
}

static bool wanted(const struct e1000 *e, const uint8_t *frame, size_t len) {
    uint32_t rctl = e->reg[R_RCTL / 4];

    if ((rctl & RCTL_VLAN_FILTER) && is_vlan(e, frame) && len >= ETH_HEADER + TAG) {
        uint32_t id = net_get16(frame + 14) & 0xfff;

        if (!(e->reg[R_VFTA / 4 + id / 32] >> (id % 32) & 1))
            return false;
    }
    if (is_broadcast(frame) && (rctl & RCTL_BROADCAST))
        return true;
    if (frame[0] & 1)
        return (rctl & RCTL_ALL_MULTICAST) || hash_matches(e, frame);
    return (rctl & RCTL_ALL_UNICAST) || address_matches(e, frame);
}

/* --- a frame --- */

struct frame {
    uint32_t len; /* in e->rx */
    uint8_t status;
    uint16_t tag;
};

/* IPv4 or IPv6 with TCP or UDP, after whose sums the network has looked; a fragment has
 * only IP's. */
static uint8_t sum_status(const struct e1000 *e, const uint8_t *frame, uint32_t len) {
    uint32_t rxcsum = e->reg[R_RXCSUM / 4], type;
    const uint8_t *ip = frame + ETH_HEADER;
    uint8_t status = 0, proto;
    bool v4, whole;

    if (len < ETH_HEADER + 40)
        return S_NO_SUMS;
    type = net_get16(frame + 12);
    v4 = type == TYPE_IPV4;
    proto = v4 ? ip[9] : ip[6];
    whole = v4 ? !(net_get16(ip + 6) & 0x3fff) : type == TYPE_IPV6;
    if (v4 && (rxcsum & RXCSUM_IP))
        status |= S_IP_SUM;
    if (whole && (rxcsum & RXCSUM_L4) && (proto == PROTO_TCP || proto == PROTO_UDP))
        status |= S_L4_SUM;
    return status ? status : S_NO_SUMS;
}

/* Puts it into e->rx: without its tag if that is taken out, filled up, with a place for
 * the checksum of Ethernet, which nobody looks at (it is zero). */
static struct frame take_in(struct e1000 *e, const struct net_offload *off,
                            const uint8_t *bytes, size_t len) {
    struct frame f = {.status = S_NO_SUMS};
    uint32_t from = 0;

    for (; f.len < 12; f.len++)
        e->rx[f.len] = bytes[from++];
    if ((e->reg[R_CTRL / 4] & CTRL_VME) && is_vlan(e, bytes) && len >= ETH_HEADER + TAG) {
        f.status |= S_VLAN;
        f.tag = (uint16_t)net_get16(bytes + 14);
        from += TAG;
    }
    mem_copy(e->rx + f.len, bytes + from, len - from);
    f.len += (uint32_t)len - from;
    if (off->csum_good)
        f.status = (uint8_t)((f.status & ~S_NO_SUMS) | sum_status(e, e->rx, f.len));
    while (f.len < ETH_MIN)
        e->rx[f.len++] = 0;
    if (!(e->reg[R_RCTL / 4] & RCTL_STRIP_CRC))
        for (unsigned i = 0; i < CRC; i++)
            e->rx[f.len++] = 0;
    return f;
}

static uint32_t buffer_size(const struct e1000 *e) {
    uint32_t rctl = e->reg[R_RCTL / 4], size = 2048u >> RCTL_SIZE(rctl);

    return rctl & RCTL_SIZE_16 && size < 2048 ? size * 16 : size;
}

/* The descriptor's second half in one piece: what is before it has been seen by then. */
static void write_back(struct e1000 *e, struct gpa at, uint32_t len, uint8_t status,
                       uint16_t tag) {
    uint64_t value = len | (uint64_t)status << 32 | (uint64_t)tag << 48, n;
    uint8_t *host = mem_run(e->mem, gpa(at.a + 8), 8, true, &n);

    if (host && n == 8)
        mem_store(e->mem, host, &value, 8);
}

static void fill_buffer(struct e1000 *e, struct gpa at, const struct frame *f,
                        uint32_t from, uint32_t size) {
    bool last = f->len - from <= size;
    uint32_t len = last ? f->len - from : size;
    uint64_t buffer;

    if (!mem_read(e->mem, at, &buffer, sizeof(buffer)))
        return;
    mem_write(e->mem, gpa(buffer), e->rx + from, len);
    write_back(e, at, len, S_DONE | (last ? S_END | f->status : 0), last ? f->tag : 0);
}

static void count_frame(struct e1000 *e, const struct frame *f) {
    e1000_count(e, R_GPRC, 1);
    e1000_count(e, R_TPR, 1);
    e1000_count64(e, R_GORC, f->len);
    e1000_count64(e, R_TOR, f->len);
    if (is_broadcast(e->rx))
        e1000_count(e, R_BPRC, 1);
    else if (e->rx[0] & 1)
        e1000_count(e, R_MPRC, 1);
}

/* Longer than the guest wants, or than we can. */
static bool too_long(const struct e1000 *e, const uint8_t *frame, size_t len) {
    if (len > E1000_RX_MAX - CRC)
        return true;
    return !(e->reg[R_RCTL / 4] & RCTL_LONG) &&
           len > ETH_MAX + (is_vlan(e, frame) ? TAG : 0);
}

bool e1000_receive(void *e1000, const struct net_offload *off, const uint8_t *frame,
                   size_t len) {
    struct e1000 *e = e1000;
    uint32_t size = buffer_size(e), free, need, causes = CAUSE_RXT0;
    struct e1000_ring r = e1000_ring(e, R_RDBAL);
    struct frame f;

    if (!(e->reg[R_RCTL / 4] & RCTL_ENABLE) || !pci_bus_master(&e->pci) || !r.count ||
        len < ETH_HEADER || !wanted(e, frame, len))
        return true;
    if (too_long(e, frame, len)) {
        e1000_count(e, R_ROC, 1);
        return true;
    }
    f = take_in(e, off, frame, len);
    need = (f.len + size - 1) / size;
    free = (r.tail + r.count - r.head) % r.count;
    if (need >= r.count) { /* it never fits */
        e1000_count(e, R_MPC, 1);
        return true;
    }
    if (need > free)
        return false;
    for (uint32_t at = 0; at < f.len; at += size) {
        fill_buffer(e, e1000_descriptor(&r, r.head), &f, at, size);
        r.head = (r.head + 1) % r.count;
    }
    *e1000_reg(e, R_RDH) = r.head;
    count_frame(e, &f);
    if (free - need <= r.count >> (1 + RCTL_THRESHOLD(e->reg[R_RCTL / 4])))
        causes |= CAUSE_RXDMT0;
    e1000_raise(e, causes);
    return true;
}
