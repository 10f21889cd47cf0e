/*
 * Transmission. Manual, "Packet Transmission", "Transmit Descriptor Ring Structure", "TCP
 * Segmentation" and "IP/TCP/UDP Transmit Checksum Offloading".
 *
 * Descriptors are read one by one, and what they point to is copied at once, so that each
 * is done with (and written back, if it asks for that) as soon as it was read. The last
 * of a frame makes it ready; a ready frame that the network refuses waits, and with it
 * the ring. Segmentation is the network's: it gets the whole frame with its headers as
 * TCP wants them for the whole.
 *
 * What one call does is bounded; the rest comes later, on the loop's thread.
 */
#include "dev/net/e1000_int.h"
#include "net/packet.h"

#define TCTL_ENABLE (1u << 1)

/* Commands, in the byte that all kinds of descriptors have. */
enum { C_END = 0x01, C_SUM = 0x04, C_REPORT = 0x08, C_SEND_REPORT = 0x10 };
enum { C_SEGMENT = 0x04, C_EXTENDED = 0x20, C_VLAN = 0x40 };
enum { CTX_TCP = 0x01, CTX_IPV4 = 0x02 };
enum { OPT_IP_SUM = 0x01, OPT_L4_SUM = 0x02 };
#define TYPE_DATA 1u
#define STATUS_DONE 1u

#define FRAMES_AT_ONCE 128u
#define DESCRIPTORS_AT_ONCE 1024u
#define TAG 4u

struct descriptor {
    uint64_t address;
    uint32_t lower, upper;
};

static uint8_t command_of(const struct descriptor *d) {
    return (uint8_t)(d->lower >> 24);
}

static bool is_context(const struct descriptor *d) {
    return (command_of(d) & C_EXTENDED) && (d->lower >> 20 & 15) != TYPE_DATA;
}

void e1000_transmit_reset(struct e1000 *e) {
    struct e1000_tx *t = &e->tx;

    *t = (struct e1000_tx){.frame = t->frame, .busy = t->busy};
}

/* --- a frame's end --- */

/* The sum of START..END (0: all that follows) goes to PLACE, as far as all lies in the
 * frame. */
static void put_sum(struct e1000_tx *t, uint32_t start, uint32_t end, uint32_t place) {
    if (!end || end >= t->len)
        end = t->len - 1;
    if (start > end || place + 2 > t->len)
        return;
    net_put16(t->frame + place,
              ~net_sum_fold(net_sum_add(0, t->frame + start, end - start + 1)));
}

/* The same, left to the network where it can be said. */
static void leave_sum(struct e1000_tx *t, uint32_t start, uint32_t end, uint32_t place) {
    if (place < start || (end && end + 1 < t->len) || place + 2 > t->len) {
        put_sum(t, start, end, place);
        return;
    }
    t->offload.csum = true;
    t->offload.csum_start = (uint16_t)start;
    t->offload.csum_offset = (uint16_t)(place - start);
}

/* The driver leaves the lengths out, of IP and in TCP's pseudo header: they are put in,
 * for the frame as a whole. */
static void prepare_segments(struct e1000_tx *t, const struct e1000_context *c) {
    uint32_t ip = c->ip_start, l4 = c->l4_start, place = c->l4_place, sum;
    bool v4 = c->command & CTX_IPV4;

    if (t->len <= c->header || ip + 20 > t->len || l4 < ip || l4 + 20 > t->len ||
        place < l4 || place + 2 > t->len || !(c->command & CTX_TCP)) {
        t->bad = true;
        return;
    }
    if (v4)
        net_put16(t->frame + ip + 2, t->len - ip);
    else
        net_put16(t->frame + ip + 4, t->len - ip - 40);
    if (v4 && (t->options & OPT_IP_SUM)) {
        if (c->ip_place + 2u <= t->len)
            net_put16(t->frame + c->ip_place, 0);
        put_sum(t, ip, c->ip_end, c->ip_place);
    }
    sum = net_get16(t->frame + place) + (t->len - l4);
    sum = (sum & 0xffff) + (sum >> 16);
    net_put16(t->frame + place, (sum & 0xffff) + (sum >> 16));
    leave_sum(t, l4, 0, place);
    t->offload.gso = v4 ? NET_GSO_TCP4 : NET_GSO_TCP6;
    t->offload.gso_size = c->mss;
    t->offload.header_len = c->header;
}

/* One segment is none: such a frame is sent as it is. */
static bool is_segmented(const struct e1000_tx *t, const struct e1000_context *c) {
    return t->segment && c->mss && t->len > (uint32_t)c->header + c->mss;
}

static void put_tag(struct e1000 *e, uint16_t tag) {
    struct e1000_tx *t = &e->tx;

    for (uint32_t n = t->len; n-- > 12;)
        t->frame[n + TAG] = t->frame[n];
    net_put16(t->frame + 12, *e1000_reg(e, R_VET) & 0xffff);
    net_put16(t->frame + 14, tag);
    t->len += TAG;
    if (t->offload.csum)
        t->offload.csum_start = (uint16_t)(t->offload.csum_start + TAG);
    if (t->offload.gso)
        t->offload.header_len = (uint16_t)(t->offload.header_len + TAG);
}

static void end_frame(struct e1000 *e, const struct descriptor *d) {
    struct e1000_tx *t = &e->tx;
    const struct e1000_context *c = &t->context[t->segment];

    t->bad |= t->len < ETH_HEADER;
    if (t->bad)
        return;
    if (t->segment) {
        prepare_segments(t, c);
        if (!is_segmented(t, c))
            t->offload.gso = NET_GSO_NONE;
    } else if (t->extended) {
        if (t->options & OPT_IP_SUM)
            put_sum(t, c->ip_start, c->ip_end, c->ip_place);
        if (t->options & OPT_L4_SUM)
            leave_sum(t, c->l4_start, c->l4_end, c->l4_place);
    } else if (command_of(d) & C_SUM) {
        leave_sum(t, d->upper >> 8 & 0xff, 0, d->lower >> 16 & 0xff);
    }
    if ((command_of(d) & C_VLAN) && (*e1000_reg(e, R_CTRL) & CTRL_VME))
        put_tag(e, (uint16_t)(d->upper >> 16));
}

/* --- descriptors --- */

static void take_context(struct e1000_tx *t, const struct descriptor *d) {
    uint8_t command = command_of(d);

    t->context[command & C_SEGMENT ? 1 : 0] = (struct e1000_context){
        .ip_start = (uint8_t)d->address,
        .ip_place = (uint8_t)(d->address >> 8),
        .ip_end = (uint16_t)(d->address >> 16),
        .l4_start = (uint8_t)(d->address >> 32),
        .l4_place = (uint8_t)(d->address >> 40),
        .l4_end = (uint16_t)(d->address >> 48),
        .command = command,
        .header = (uint8_t)(d->upper >> 8),
        .mss = (uint16_t)(d->upper >> 16),
    };
}

/* True: it ends the frame. */
static bool take_data(struct e1000 *e, const struct descriptor *d) {
    struct e1000_tx *t = &e->tx;
    bool extended = command_of(d) & C_EXTENDED;
    uint32_t len = d->lower & (extended ? 0xfffff : 0xffff);

    if (!t->started) {
        t->started = true;
        t->extended = extended;
        t->segment = extended && (command_of(d) & C_SEGMENT);
        t->options = extended ? (uint8_t)(d->upper >> 8) : 0;
    }
    if (len > E1000_FRAME - TAG - t->len) /* there may come a tag */
        t->bad = true;
    if (!t->bad && len) {
        t->bad = !mem_read(e->mem, gpa(d->address), t->frame + t->len, len);
        t->len += len;
    }
    return command_of(d) & C_END;
}

static void next_frame(struct e1000_tx *t) {
    t->len = 0;
    t->started = t->bad = t->ready = false;
    t->offload = (struct net_offload){.csum = false};
}

static void count_frame(struct e1000 *e) {
    const struct e1000_tx *t = &e->tx;

    e1000_count(e, R_TPT, 1);
    e1000_count(e, R_GPTC, 1);
    e1000_count64(e, R_TOT, t->len);
    e1000_count64(e, R_GOTC, t->len);
    if ((t->frame[0] & t->frame[5]) == 0xff)
        e1000_count(e, R_BPTC, 1);
    else if (t->frame[0] & 1)
        e1000_count(e, R_MPTC, 1);
    if (t->offload.gso)
        e1000_count(e, R_TSCTC, 1);
}

/* False: the network will say when it has room. */
static bool send_ready(struct e1000 *e) {
    struct e1000_tx *t = &e->tx;
    struct net_piece piece = {t->frame, t->len};

    if (!net_send(e->net, &t->offload, &piece, 1))
        return false;
    count_frame(e);
    next_frame(t);
    return true;
}

/* One descriptor at the head. The causes that it gives. */
static uint32_t step(struct e1000 *e, const struct e1000_ring *r) {
    struct gpa at = e1000_descriptor(r, r->head);
    struct e1000_tx *t = &e->tx;
    struct descriptor d;
    uint8_t status;

    *e1000_reg(e, R_TDH) = (r->head + 1) % r->count;
    if (!mem_read(e->mem, at, &d, sizeof(d)))
        return 0;
    if (is_context(&d)) {
        take_context(t, &d);
    } else if (take_data(e, &d)) {
        end_frame(e, &d);
        if (t->bad)
            next_frame(t);
        else
            t->ready = true;
    }
    if (!(command_of(&d) & (C_REPORT | C_SEND_REPORT)))
        return 0;
    status = (uint8_t)(d.upper | STATUS_DONE);
    mem_write(e->mem, gpa(at.a + 12), &status, 1);
    return CAUSE_TXDW;
}

static uint32_t transmit(struct e1000 *e) {
    unsigned frames = 0, descriptors = 0;
    uint32_t causes = 0;

    for (;;) {
        struct e1000_ring r = e1000_ring(e, R_TDBAL);

        if (e->tx.ready) {
            if (!send_ready(e))
                return causes;
            frames++;
        }
        if (!r.count || r.head == r.tail)
            return descriptors ? causes | CAUSE_TXQE : causes;
        if (frames >= FRAMES_AT_ONCE || descriptors >= DESCRIPTORS_AT_ONCE) {
            net_later(e->net);
            return causes;
        }
        causes |= step(e, &r);
        descriptors++;
    }
}

void e1000_transmit(struct e1000 *e) {
    uint32_t causes;

    /* The network may say that it has room while it takes a frame. */
    if (e->tx.busy || !(*e1000_reg(e, R_TCTL) & TCTL_ENABLE) || !pci_bus_master(&e->pci))
        return;
    e->tx.busy = true;
    causes = transmit(e);
    net_flush(e->net);
    e->tx.busy = false;
    if (causes)
        e1000_raise(e, causes);
}
