/*
 * The e1000 by itself, as its drivers use it, with a network that is the test's: EEPROM
 * and PHY, interrupts, frames out and in, what is offloaded, filters, flow control; and a
 * guest whose rings and registers are garbage.
 */
#include "dev/net/e1000_int.h"
#include "lib/rig.h"
#include "lib/rnd.h"
#include "lib/tables.h"
#include "lib/unit.h"

enum { SLOT = 3, BASE = 0xe0000000, IO = 0xc000 };
enum { TX_RING = 0x100000, RX_RING = 0x110000, BUFFERS = 0x200000, RING = 32 };
enum { CMD_END = 1, CMD_SUM = 4, CMD_REPORT = 8, CMD_EXT = 0x20, CMD_VLAN = 0x40 };

static struct rig r;
static struct pci *pci;
static struct e1000 *e;
static bool line;
static const uint8_t mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

/* --- the network --- */

struct net {
    struct net_card card;
    bool link, full, rooms; /* rooms: says so at once, in the middle of net_send() */
    unsigned sent, flushes, readies, laters, can;
    struct net_offload off;
    uint8_t frame[NET_FRAME_MAX];
    size_t len;
};
static struct net net;

void net_plug(struct net *n, const struct net_card *card) {
    n->card = card ? *card : (struct net_card){.receive = NULL};
}

void net_card_can(struct net *n, unsigned can) {
    n->can = can;
}

bool net_send(struct net *n, const struct net_offload *off, const struct net_piece *piece,
              unsigned count) {
    if (n->rooms)
        n->card.room(n->card.arg);
    if (n->full)
        return false;
    n->sent++;
    n->off = *off;
    n->len = 0;
    for (unsigned k = 0; k < count; k++) {
        assert_true(n->len + piece[k].len <= sizeof(n->frame));
        memcpy(n->frame + n->len, piece[k].at, piece[k].len);
        n->len += piece[k].len;
    }
    return true;
}

void net_flush(struct net *n) {
    n->flushes++;
}

void net_later(struct net *n) {
    n->laters++;
}

void net_ready(struct net *n) {
    n->readies++;
}

bool net_link(const struct net *n) {
    return n->link;
}

static bool deliver(const uint8_t *frame, size_t len, bool good) {
    struct net_offload off = {.csum_good = good};

    return net.card.receive(net.card.arg, &off, frame, len);
}

/* --- the driver --- */

static void on_intx(void *arg, unsigned slot, unsigned pin, bool level) {
    assert_int_equal(slot, SLOT);
    line = level;
}

static uint32_t get(unsigned reg) {
    return rig_read(&r, BASE + reg);
}

static void put(unsigned reg, uint32_t value) {
    rig_write(&r, BASE + reg, value);
}

static int setup(void **state) {
    struct pci_host host = {.intx = on_intx};

    rig_new(&r);
    mem_reset(table_mem);
    net = (struct net){.link = true};
    line = false;
    pci = pci_new(r.bus, &host);
    if (!pci || e1000_new(pci, SLOT, table_mem, &net, mac, &e))
        return -1;
    pci_config_write(pci_at(pci, SLOT, 0), PCI_BAR0, 4, BASE);
    pci_config_write(pci_at(pci, SLOT, 0), PCI_BAR0 + 4, 4, IO);
    pci_config_write(pci_at(pci, SLOT, 0), PCI_COMMAND, 2,
                     PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    return 0;
}

static int teardown(void **state) {
    e1000_free(e);
    pci_free(pci);
    rig_free(&r);
    return 0;
}

static void store(uint64_t at, const void *bytes, unsigned len) {
    assert_true(mem_write(table_mem, gpa(at), bytes, len));
}

static void load(uint64_t at, void *bytes, unsigned len) {
    assert_true(mem_read(table_mem, gpa(at), bytes, len));
}

static void rings_on(void) {
    put(R_TDBAL, TX_RING);
    put(R_TDLEN, RING * 16);
    put(R_TDH, 0);
    put(R_TDT, 0);
    put(R_TCTL, 2);
    for (unsigned n = 0; n < RING; n++) {
        uint64_t d[2] = {BUFFERS + n * 2048ull, ~0ull};

        store(RX_RING + n * 16, d, 16);
    }
    put(R_RDBAL, RX_RING);
    put(R_RDLEN, RING * 16);
    put(R_RDH, 0);
    put(R_RDT, RING - 1);
    put(R_RCTL, 2 | 1 << 15);
    put(R_IMS, ~0u);
    net.readies = 0;
}

/* Descriptor N of the ring, without moving the tail. */
static void put_tx(unsigned n, uint64_t address, uint32_t lower, uint32_t upper) {
    uint64_t d[2] = {address, (uint64_t)upper << 32 | lower};

    store(TX_RING + (n % RING) * 16, d, 16);
}

static unsigned tx_status(unsigned n) {
    uint8_t s;

    load(TX_RING + n * 16 + 12, &s, 1);
    return s;
}

struct rx {
    uint64_t address;
    uint16_t len, sum;
    uint8_t status, errors;
    uint16_t special;
};

static struct rx rx(unsigned n) {
    struct rx d;

    load(RX_RING + n * 16, &d, 16);
    return d;
}

/* A frame of LEN bytes to us, that tells its places. */
static uint8_t *frame_of(size_t len) {
    static uint8_t f[NET_FRAME_MAX];

    for (size_t n = 0; n < len; n++)
        f[n] = (uint8_t)(n * 7 + n / 256);
    memcpy(f, mac, 6);
    memcpy(f + 6, "\x02\x00\x00\x00\x00\x01\x88\xb5", 8);
    return f;
}

static uint8_t *ip_frame(size_t len) {
    static const uint8_t head[] = {0x08, 0x00, 0x45, 0,  0, 0, 0,  1,  0x40, 0, 64,
                                   6,    0,    0,    10, 0, 2, 15, 10, 0,    2, 2};
    uint8_t *f = frame_of(len);

    memcpy(f + 12, head, sizeof(head));
    return f;
}

/* --- EEPROM, PHY --- */

static unsigned eerd(unsigned word) {
    uint32_t v;

    put(R_EERD, word << 8 | 1);
    v = get(R_EERD);
    assert_int_equal(v & 0xff1f, word << 8 | 0x10);
    return v >> 16;
}

static void pin_bits(unsigned bits, unsigned count) {
    while (count--) {
        unsigned in = bits >> count & 1 ? 4 : 0;

        put(R_EECD, 0x42 | in);
        put(R_EECD, 0x43 | in);
        put(R_EECD, 0x42 | in);
    }
}

static unsigned pin_word(void) {
    unsigned v = 0;

    for (unsigned n = 0; n < 16; n++) {
        put(R_EECD, 0x43);
        v = v << 1 | (get(R_EECD) >> 3 & 1);
        put(R_EECD, 0x42);
    }
    return v;
}

static void test_eeprom(void **state) {
    unsigned sum = 0;

    put(R_EECD, 0x40);
    assert_int_equal(get(R_EECD) & 0x1c0, 0x1c0); /* granted; it is there */
    assert_int_equal(eerd(0), 0x5452);
    assert_int_equal(eerd(2), 0x5634);
    assert_int_equal(eerd(0x0d), 0x100e);
    for (unsigned n = 0; n < 64; n++) {
        unsigned word = eerd(n);

        sum += word;
        put(R_EECD, 0x40);
        put(R_EECD, 0x42);
        pin_bits(6, 3);
        pin_bits(n, 6);
        assert_int_equal(get(R_EECD) & 8, 0); /* a zero in front */
        assert_int_equal(pin_word(), word);
        put(R_EECD, 0x40);
    }
    assert_int_equal(sum & 0xffff, 0xbaba);
    assert_int_equal(eerd(200), 0xffff);
    put(R_EECD, 0x42); /* leading zeros; two words in a row; no other operation */
    pin_bits(6, 5);
    pin_bits(1, 6);
    assert_int_equal(pin_word(), eerd(1));
    assert_int_equal(pin_word(), eerd(2));
    put(R_EECD, 0x40);
    pin_bits(5, 3);
    pin_bits(1, 6);
    assert_int_equal(pin_word(), 0xffff);
    assert_int_equal(get(R_RA), 0x12005452);
    assert_int_equal(get(R_RA + 4), 0x80005634);
}

static uint32_t mdic(unsigned op, unsigned phy, unsigned reg, unsigned value) {
    put(R_MDIC, op << 26 | phy << 21 | reg << 16 | value);
    return get(R_MDIC);
}

static void test_phy(void **state) {
    uint32_t v = mdic(2, 1, 2, 0);

    assert_int_equal(v & 0xffff, 0x0141);
    assert_int_equal(v >> 28, 1);
    assert_int_equal(mdic(2, 1, 3, 0) & 0xfff0, 0x0c20);
    assert_int_equal(mdic(2, 1, 1, 0) & 0x24, 0x24);
    assert_int_equal(mdic(2, 2, 2, 0) >> 30, 1); /* there is no such PHY */
    assert_int_equal(mdic(3, 1, 2, 0) >> 30, 1);
    mdic(1, 1, 4, 0x1234);
    assert_int_equal(mdic(2, 1, 4, 0) & 0xffff, 0x1234);
    mdic(1, 1, 2, 0xffff); /* read-only */
    assert_int_equal(mdic(2, 1, 2, 0) & 0xffff, 0x0141);
    mdic(1, 1, 0, 0x8000);
    assert_int_equal(mdic(2, 1, 4, 0) & 0xffff, 0x0de1);
    assert_int_equal(mdic(2, 1, 0, 0) & 0xffff, 0x1140);
}

static void test_link(void **state) {
    assert_int_equal(get(R_STATUS) & 0xc3, 0x83);
    put(R_IMS, CAUSE_LSC);
    net.link = false;
    net.card.link(net.card.arg);
    assert_true(line);
    assert_int_equal(get(R_STATUS) & 2, 0);
    assert_int_equal(mdic(2, 1, 1, 0) & 0x24, 0);
    assert_int_equal(mdic(2, 1, 17, 0) & 0x0400, 0);
    assert_int_equal(get(R_ICR), CAUSE_LSC);
    assert_false(line);
    assert_int_equal(get(R_ICR), 0);
    net.link = true;
    net.card.link(net.card.arg);
    assert_int_equal(mdic(2, 1, 17, 0) & 0xffff, 0xac00);
}

static void test_interrupts(void **state) {
    put(R_ICS, 0x85);
    assert_false(line);
    put(R_IMS, 0x80);
    assert_true(line);
    put(R_IMC, 0x80);
    assert_false(line);
    put(R_IMS, 0x04);
    assert_true(line);
    put(R_ICR, 0x04);
    assert_false(line);
    assert_int_equal(get(R_IMS), 0x04);
    assert_int_equal(get(R_ICS), 0x81);
    assert_int_equal(get(R_ICR), 0x81);
    put(R_IMS, ~0u);
    put(R_ICS, 1);
    assert_true(line);
    put(R_CTRL, 1 << 26);
    assert_false(line);
    assert_int_equal(get(R_IMS), 0);
}

/* The window in ports; widths. */
static void test_windows(void **state) {
    rig_out32(&r, IO, R_VET);
    rig_out32(&r, IO + 4, 0x12345678);
    assert_int_equal(rig_in32(&r, IO), R_VET);
    assert_int_equal(rig_in32(&r, IO + 4), 0x5678);
    assert_int_equal(get(R_VET), 0x5678);
    assert_int_equal(bus_mmio_read(r.bus, gpa(BASE + R_VET + 1), 1), 0x56);
    bus_mmio_write(r.bus, gpa(BASE + R_VET), 1, 0x11);
    assert_int_equal(get(R_VET), 0x5678);
    rig_out32(&r, IO, 0x1fffc);
    rig_out32(&r, IO + 4, 1);
    assert_int_equal(rig_in32(&r, IO + 4), 0);
    assert_int_equal(get(0x1fffc), 0);
    assert_int_equal(get(0x5ffc), 0);
}

/* --- transmission --- */

static void test_send(void **state) {
    const uint8_t *f = frame_of(100);

    rings_on();
    store(BUFFERS, f, 100);
    put_tx(0, BUFFERS, 60 | CMD_REPORT << 24, 0); /* in two pieces */
    put_tx(1, BUFFERS + 60, 40 | (CMD_END | CMD_REPORT) << 24, 0);
    put(R_TDT, 1);
    assert_int_equal(net.sent, 0);
    assert_int_equal(tx_status(0), 1);
    put(R_TDT, 2);
    assert_int_equal(net.sent, 1);
    assert_int_equal(net.len, 100);
    assert_memory_equal(net.frame, f, 100);
    assert_false(net.off.csum || net.off.gso);
    assert_int_equal(tx_status(1), 1);
    assert_int_equal(get(R_TDH), 2);
    assert_true(line);
    assert_int_equal(get(R_ICR) & 3, CAUSE_TXDW | CAUSE_TXQE);
    put_tx(2, BUFFERS, 100 | CMD_END << 24, 0); /* no report */
    put(R_TDT, 3);
    assert_int_equal(tx_status(2), 0);
    assert_int_equal(get(R_ICR) & 3, CAUSE_TXQE);
    assert_int_equal(get(R_TPT), 2);
    assert_int_equal(get(R_TPT), 0); /* read, and gone */
    assert_int_equal(get(R_GOTC), 200);
    pci_config_write(pci_at(pci, SLOT, 0), PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    put_tx(3, BUFFERS, 100 | CMD_END << 24, 0);
    put(R_TDT, 4);
    assert_int_equal(net.sent, 2); /* it may not read memory */
    pci_config_write(pci_at(pci, SLOT, 0), PCI_COMMAND, 2,
                     PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(net.sent, 3);
}

static void test_refused(void **state) {
    rings_on();
    store(BUFFERS, frame_of(100), 100);
    for (unsigned n = 0; n < 3; n++)
        put_tx(n, BUFFERS, 100 | CMD_END << 24, 0);
    net.full = true;
    put(R_TDT, 3);
    assert_int_equal(get(R_TDH), 1); /* it has the first one */
    net.full = false;
    net.rooms = true;
    net.card.room(net.card.arg);
    assert_int_equal(net.sent, 3);
    assert_int_equal(get(R_TDH), 3);
    put(R_CTRL, 1 << 26);
    net.card.room(net.card.arg);
    assert_int_equal(net.sent, 3);
}

/* A doorbell for very much is not all done at once. */
static void test_later(void **state) {
    put(R_TDBAL, TX_RING);
    put(R_TDLEN, 512 * 16);
    store(BUFFERS, frame_of(100), 100);
    for (unsigned n = 0; n < 512; n++) {
        uint64_t d[2] = {BUFFERS, 100 | CMD_END << 24};

        store(TX_RING + n * 16, d, 16);
    }
    put(R_TCTL, 2);
    put(R_TDT, 500);
    assert_true(net.sent < 500);
    for (unsigned n = 0; n < 20 && net.sent < 500; n++) {
        assert_int_equal(net.laters, n + 1);
        net.card.room(net.card.arg);
    }
    assert_int_equal(net.sent, 500);
}

/* RFC 1071, word by word. */
static unsigned sum(const uint8_t *bytes, size_t len) {
    unsigned s = 0;

    for (size_t n = 0; n < len; n++)
        s += (unsigned)bytes[n] << (n % 2 ? 0 : 8);
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return s;
}

static void put_context(unsigned n, unsigned ip, unsigned l4, unsigned place,
                        unsigned command, unsigned header, unsigned mss) {
    put_tx(n,
           ip | (ip + 10) << 8 | (ip + 19) << 16 | (uint64_t)l4 << 32 |
               (uint64_t)place << 40,
           (CMD_EXT | command) << 24, header << 8 | mss << 16);
}

static void test_sums(void **state) {
    uint8_t *f = ip_frame(120);

    rings_on();
    store(BUFFERS, f, 120);
    put_context(0, 14, 34, 50, 3, 0, 0);
    put_tx(1, BUFFERS, 120 | 1 << 20 | (CMD_EXT | CMD_END) << 24, 3 << 8);
    put(R_TDT, 2);
    assert_int_equal(net.sent, 1);
    assert_true(net.off.csum);
    assert_int_equal(net.off.csum_start, 34);
    assert_int_equal(net.off.csum_offset, 16);
    assert_int_equal(sum(net.frame + 14, 20), 0xffff); /* IP's is in */
    /* Of a legacy descriptor; with places that cannot be left to the network. */
    put_tx(2, BUFFERS, 120 | 50 << 16 | (CMD_END | CMD_SUM) << 24, 34 << 8);
    put(R_TDT, 3);
    assert_true(net.off.csum);
    assert_int_equal(net.off.csum_start, 34);
    put_tx(3, BUFFERS, 120 | 20 << 16 | (CMD_END | CMD_SUM) << 24, 34 << 8);
    put(R_TDT, 4);
    assert_false(net.off.csum);
    assert_int_equal(net.frame[20] << 8 | net.frame[21], ~sum(f + 34, 86) & 0xffff);
    put_tx(4, BUFFERS, 120 | 200 << 16 | (CMD_END | CMD_SUM) << 24, 250 << 8);
    put(R_TDT, 5); /* outside: as it is */
    assert_memory_equal(net.frame, f, 120);
    assert_int_equal(net.sent, 4);
}

static void test_segments(void **state) {
    unsigned len = 14 + 40 + 9000;
    uint8_t *f = ip_frame(len);

    rings_on();
    memset(f + 50, 0, 2);
    store(BUFFERS, f, len);
    put_context(0, 14, 34, 50, 7, 54, 1460);
    put_tx(1, BUFFERS, 54 | 1 << 20 | (CMD_EXT | 4) << 24, 3 << 8);
    put_tx(2, BUFFERS + 54, 9000 | 1 << 20 | (CMD_EXT | CMD_END | 4) << 24, 0);
    put(R_TDT, 3);
    assert_int_equal(net.sent, 1);
    assert_int_equal(net.len, len);
    assert_int_equal(net.off.gso, NET_GSO_TCP4);
    assert_int_equal(net.off.gso_size, 1460);
    assert_int_equal(net.off.header_len, 54);
    assert_true(net.off.csum);
    assert_int_equal(net.frame[16] << 8 | net.frame[17], 9040);
    assert_int_equal(sum(net.frame + 14, 20), 0xffff);
    assert_int_equal(net.frame[50] << 8 | net.frame[51], 9020); /* in the pseudo header */
    assert_int_equal(get(R_TSCTC), 1);
    /* As long as one segment: it is none. */
    put_context(3, 14, 34, 50, 7, 54, 9000);
    put_tx(4, BUFFERS, len | 1 << 20 | (CMD_EXT | CMD_END | 4) << 24, 3 << 8);
    put(R_TDT, 5);
    assert_int_equal(net.sent, 2);
    assert_int_equal(net.off.gso, NET_GSO_NONE);
    assert_true(net.off.csum);
    /* Headers that lie outside: it is no frame. */
    put_context(5, 14, 250, 255, 7, 200, 1460);
    put_tx(6, BUFFERS, 120 | 1 << 20 | (CMD_EXT | CMD_END | 4) << 24, 3 << 8);
    put(R_TDT, 7);
    assert_int_equal(net.sent, 2);
    assert_int_equal(get(R_TDH), 7);
}

static void test_tag_out(void **state) {
    const uint8_t *f = frame_of(100);

    rings_on();
    put(R_VET, 0x8100);
    put(R_CTRL, CTRL_VME);
    store(BUFFERS, f, 100);
    put_tx(0, BUFFERS, 100 | 60 << 16 | (CMD_END | CMD_VLAN | CMD_SUM) << 24,
           0x2345u << 16 | 40 << 8);
    put(R_TDT, 1);
    assert_int_equal(net.len, 104);
    assert_memory_equal(net.frame, f, 12);
    assert_memory_equal(net.frame + 12, "\x81\x00\x23\x45", 4);
    assert_memory_equal(net.frame + 16, f + 12, 88);
    assert_int_equal(net.off.csum_start, 44);
    assert_int_equal(net.off.csum_offset, 20);
}

static void test_bad_frames(void **state) {
    rings_on();
    put_tx(0, BUFFERS, 13 | (CMD_END | CMD_REPORT) << 24, 0); /* shorter than a header */
    put_tx(1, 0xd0000000, 100 | (CMD_END | CMD_REPORT) << 24, 0); /* not in memory */
    put_tx(2, BUFFERS, 0xfffff | 1 << 20 | CMD_EXT << 24, 0);     /* longer than any */
    put_tx(3, BUFFERS, 100 | 1 << 20 | (CMD_EXT | CMD_END | CMD_REPORT) << 24, 0);
    put_tx(4, BUFFERS, 100 | CMD_END << 24, 0);
    put(R_TDT, 4);
    assert_int_equal(net.sent, 0);
    assert_int_equal(get(R_TDH), 4);
    assert_int_equal(tx_status(3), 1);
    put(R_TDT, 5); /* what comes after them is whole */
    assert_int_equal(net.sent, 1);
    assert_int_equal(net.len, 100);
}

/* --- reception --- */

static void test_receive(void **state) {
    uint8_t got[2048];

    rings_on();
    assert_true(deliver(frame_of(100), 100, false));
    load(BUFFERS, got, 100);
    assert_memory_equal(got, frame_of(100), 100);
    assert_int_equal(rx(0).len, 104); /* with Ethernet's checksum */
    assert_int_equal(rx(0).status, 7);
    assert_int_equal(rx(0).errors, 0);
    assert_int_equal(get(R_RDH), 1);
    assert_true(line);
    assert_int_equal(get(R_ICR) & CAUSE_RXT0, CAUSE_RXT0);
    put(R_RCTL, 2 | 1 << 26);
    assert_true(deliver(frame_of(20), 20, false));
    assert_int_equal(rx(1).len, 60); /* filled up */
    assert_int_equal(get(R_GPRC), 2);
    put(R_RCTL, 0);
    assert_true(deliver(frame_of(100), 100, false)); /* off: it is gone */
    assert_int_equal(get(R_RDH), 2);
}

static void test_pieces(void **state) {
    uint8_t got[1024];
    const uint8_t *f = frame_of(1000);

    rings_on();
    put(R_RCTL, 2 | 3 << 16 | 1 << 26); /* buffers of 256 bytes */
    assert_true(deliver(f, 1000, false));
    for (unsigned n = 0; n < 4; n++) {
        load(BUFFERS + n * 2048, got + n * 256, n < 3 ? 256 : 1000 - 768);
        assert_int_equal(rx(n).len, n < 3 ? 256 : 1000 - 768);
        assert_int_equal(rx(n).status, n < 3 ? 1 : 7);
    }
    assert_memory_equal(got, f, 1000);
    assert_int_equal(get(R_RDH), 4);
}

static void test_full(void **state) {
    rings_on();
    put(R_RDT, 3);
    get(R_ICR);
    for (unsigned n = 0; n < 3; n++)
        assert_true(deliver(frame_of(100), 100, false));
    assert_true(get(R_ICR) & CAUSE_RXDMT0);
    assert_false(deliver(frame_of(100), 100, false));
    net.readies = 0;
    put(R_RDT, 4);
    assert_int_equal(net.readies, 1);
    assert_true(deliver(frame_of(100), 100, false));
    put(R_RCTL, 2 | 3 << 16 | 1 << 5); /* more pieces than the ring has: gone */
    put(R_RDT, 2);
    assert_true(deliver(frame_of(9000), 9000, false));
    assert_int_equal(get(R_MPC), 1);
}

/* What waits when the card is reset comes again, and is dropped. */
static void test_full_reset(void **state) {
    rings_on();
    put(R_RDT, 0);
    assert_false(deliver(frame_of(100), 100, false));
    net.readies = 0;
    put(R_CTRL, 1 << 26);
    assert_int_equal(net.readies, 1);
    assert_true(deliver(frame_of(100), 100, false));
    rings_on();
    put(R_RDT, 0);
    assert_false(deliver(frame_of(100), 100, false));
    net.readies = 0;
    pci_reset(pci);
    assert_int_equal(net.readies, 1);
    assert_true(deliver(frame_of(100), 100, false));
}

static void test_long(void **state) {
    rings_on();
    assert_true(deliver(frame_of(1515), 1515, false));
    assert_int_equal(get(R_RDH), 0);
    assert_int_equal(get(R_ROC), 1);
    assert_true(deliver(frame_of(1514), 1514, false));
    assert_int_equal(get(R_RDH), 1);
    put(R_RCTL, 2 | 1 << 5 | 1 << 16 | 1 << 25); /* of 16 KiB */
    assert_true(deliver(frame_of(16000), 16000, false));
    assert_int_equal(rx(1).len, 16004);
    assert_true(deliver(frame_of(17000), 17000, false));
    assert_int_equal(get(R_RDH), 2);
}

static bool passes(const char *to) {
    uint8_t *f = frame_of(100);
    uint32_t before = get(R_RDH);

    memcpy(f, to, 6);
    put(R_RDT, (before + RING - 1) % RING);
    assert_true(deliver(f, 100, false));
    return get(R_RDH) != before;
}

static void test_filters(void **state) {
    rings_on();
    put(R_RCTL, 2);
    assert_true(passes("\x52\x54\x00\x12\x34\x56"));
    assert_false(passes("\x52\x54\x00\x12\x34\x57"));
    assert_false(passes("\xff\xff\xff\xff\xff\xff"));
    assert_false(passes("\x01\x00\x5e\x00\x00\xfb"));
    put(R_RCTL, 2 | 1 << 15);
    assert_true(passes("\xff\xff\xff\xff\xff\xff"));
    put(R_RCTL, 2 | 1 << 3);
    assert_true(passes("\x52\x54\x00\x12\x34\x57"));
    put(R_RCTL, 2 | 1 << 4);
    assert_true(passes("\x01\x00\x5e\x00\x00\xfb"));
    for (unsigned mo = 0; mo < 4; mo++) { /* 0xfb00: bits 47 to 36, and lower ones */
        static const unsigned hash[] = {0xfb0, 0xf60, 0xec0, 0xb00};

        put(R_RCTL, 2 | mo << 12);
        assert_false(passes("\x01\x00\x5e\x00\x00\xfb"));
        put(R_MTA + hash[mo] / 32 * 4, 1u << hash[mo] % 32);
        assert_true(passes("\x01\x00\x5e\x00\x00\xfb"));
        put(R_MTA + hash[mo] / 32 * 4, 0);
    }
    put(R_RA + 15 * 8, 0x0fedcb02);
    put(R_RA + 15 * 8 + 4, 0x80002211);
    assert_true(passes("\x02\xcb\xed\x0f\x11\x22"));
    put(R_RA + 15 * 8 + 4, 0x00002211);
    assert_false(passes("\x02\xcb\xed\x0f\x11\x22"));
}

static void test_tag_in(void **state) {
    uint8_t *f = frame_of(100), got[100];

    memcpy(f + 12, "\x81\x00\x20\x05", 4);
    rings_on();
    put(R_VET, 0x8100);
    put(R_CTRL, CTRL_VME);
    put(R_RCTL, 2 | 1 << 26);
    assert_true(deliver(f, 100, false));
    assert_int_equal(rx(0).len, 96);
    assert_int_equal(rx(0).special, 0x2005);
    assert_int_equal(rx(0).status, 0xf);
    load(BUFFERS, got, 96);
    assert_memory_equal(got, f, 12);
    assert_memory_equal(got + 12, f + 16, 84);
    put(R_RCTL, 2 | 1 << 18);
    assert_true(deliver(f, 100, false)); /* not one of ours */
    assert_int_equal(get(R_RDH), 1);
    put(R_VFTA, 1 << 5);
    assert_true(deliver(f, 100, false));
    assert_int_equal(get(R_RDH), 2);
}

static void test_good_sums(void **state) {
    uint8_t *fragment;

    assert_int_equal(net.can, NET_CAN_GOOD); /* the network looks after them for it */
    rings_on();
    put(R_RXCSUM, 0x300);
    assert_true(deliver(ip_frame(100), 100, true));
    assert_int_equal(rx(0).status, 0x63);
    assert_true(deliver(frame_of(100), 100, true)); /* something else */
    assert_int_equal(rx(1).status, 7);
    assert_true(deliver(ip_frame(100), 100, false));
    assert_int_equal(rx(2).status, 7);
    fragment = ip_frame(100);
    fragment[20] = 0x20;
    assert_true(deliver(fragment, 100, true));
    assert_int_equal(rx(3).status, 0x43);
}

/* After a reset nothing is written to memory, whatever the rings were. */
static void test_reset(void **state) {
    rings_on();
    put(R_CTRL, 1 << 26);
    assert_true(deliver(frame_of(100), 100, false));
    assert_int_equal((uint8_t)rx(0).status, 0xff);
    assert_int_equal(get(R_RDBAL), 0);
    rings_on();
    put_tx(0, BUFFERS, 100, 0); /* half a frame */
    put(R_TDT, 1);
    pci_reset(pci);
    assert_false(line);
}

/* --- anything --- */

static void scribble(uint64_t at, unsigned len) {
    for (unsigned n = 0; n < len; n += 8) {
        uint64_t v = one_in(2) ? rnd() : BUFFERS + pick(1 << 16);

        store(at + n, &v, 8);
    }
}

static void test_hostile(void **state) {
    static const unsigned regs[] = {R_TDBAL, R_TDLEN, R_TDH,  R_TDT,  R_RDBAL, R_RDLEN,
                                    R_RDH,   R_RDT,   R_RCTL, R_TCTL, R_CTRL,  R_VET};

    rnd_seed(7);
    for (unsigned n = 0; n < 3000; n++) {
        rings_on();
        scribble(TX_RING, RING * 16);
        scribble(RX_RING, RING * 16);
        net.rooms = one_in(2);
        for (unsigned k = 0; k < 12; k++) {
            unsigned reg = one_in(3) ? pick(0x6000) & ~3u : regs[pick(12)];

            net.full = one_in(4);
            put(reg, one_in(2) ? pick(RING) : (uint32_t)rnd());
            get(pick(0x20000) & ~3u);
            deliver(ip_frame(20000), 14 + pick(20000 - 14), one_in(2));
            net.card.room(net.card.arg);
        }
    }
    put(R_CTRL, 1 << 26); /* and it still works */
    net.full = net.rooms = false;
    net.sent = 0;
    test_send(state);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_eeprom),  T(test_phy),      T(test_link),    T(test_interrupts),
        T(test_windows), T(test_send),     T(test_refused), T(test_later),
        T(test_sums),    T(test_segments), T(test_tag_out), T(test_bad_frames),
        T(test_receive), T(test_pieces),   T(test_full),    T(test_full_reset),
        T(test_long),    T(test_filters),  T(test_tag_in),  T(test_good_sums),
        T(test_reset),   T(test_hostile),
    };

    return cmocka_run_group_tests(tests, table_setup, table_teardown);
}
