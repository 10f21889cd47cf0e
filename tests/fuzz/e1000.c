/*
 * The e1000: a driver that writes any register, and memory that holds any rings, while a
 * network that refuses at times sends any frames. Nothing may be out of bounds or go on
 * for ever, what is sent is a frame, and a reset brings everything back.
 *
 * The network is this file's: its functions come before net/'s.
 */
#include "dev/net/e1000_int.h"
#include "fuzz/fuzz.h"
#include "lib/rig.h"

enum { RAM = 4 << 20, OPS = 300, BASE = 0xe0000000, IO = 0xc000, RINGS = 0x10000 };

struct net {
    struct net_card card;
    bool link, full, rooms;
    unsigned depth;
    size_t sum;
};

static struct net net;
static struct rig r;
static struct mem *mem;
static struct e1000 *e;

void net_plug(struct net *n, const struct net_card *card) {
    n->card = card ? *card : (struct net_card){.arg = NULL};
}

void net_card_can(struct net *n, unsigned can) {
}

bool net_send(struct net *n, const struct net_offload *off, const struct net_piece *piece,
              unsigned count) {
    size_t len = 0;

    HOLDS(!n->depth);
    if (n->rooms) {
        n->depth++;
        n->card.room(n->card.arg);
        n->depth--;
    }
    if (n->full)
        return false;
    for (unsigned k = 0; k < count; k++) {
        for (size_t i = 0; i < piece[k].len; i += 97)
            n->sum += piece[k].at[i];
        len += piece[k].len;
    }
    HOLDS(len >= 14 && len <= NET_FRAME_MAX);
    HOLDS(!off->csum || off->csum_start < len);
    HOLDS(!off->gso || off->gso_size);
    return true;
}

void net_flush(struct net *n) {
}

void net_later(struct net *n) {
}

void net_ready(struct net *n) {
}

bool net_link(const struct net *n) {
    return n->link;
}

static const uint16_t regs[] = {
    R_CTRL,  R_EECD, R_EERD, R_MDIC,   R_ICR,   R_ICS, R_IMS, R_IMC,
    R_RCTL,  R_TCTL, R_VET,  R_RDBAL,  R_RDLEN, R_RDH, R_RDT, R_TDBAL,
    R_TDLEN, R_TDH,  R_TDT,  R_RXCSUM, R_RA,    R_MTA,
};

static unsigned some_register(struct fuzz_in *in) {
    unsigned how = (unsigned)fuzz_get(in, 1);

    return how & 0x80 ? (how & 0x7f) << 8 | (unsigned)(fuzz_get(in, 1) & 0xfc)
                      : regs[how % ARRAY_SIZE(regs)];
}

static void write_memory(struct fuzz_in *in) {
    uint64_t at = RINGS + (fuzz_get(in, 1) << 3), value = fuzz_get(in, 8);

    HOLDS(mem_write(mem, gpa(at), &value, sizeof(value)));
}

static void receive(struct fuzz_in *in) {
    static uint8_t frame[NET_FRAME_MAX];
    size_t len = 1 + fuzz_get(in, 2) % NET_FRAME_MAX;
    struct net_offload off = {.csum_good = len & 1};
    uint64_t head = fuzz_get(in, 8);

    memset(frame, 0x5a, len);
    memcpy(frame, &head, len < 8 ? len : 8);
    if (len > 13)
        frame[12] = 0x81, frame[13] = 0;
    net.card.receive(net.card.arg, &off, frame, len);
}

static void one(struct fuzz_in *in) {
    unsigned op = (unsigned)fuzz_get(in, 1), at;

    net.full = op & 0x80;
    net.rooms = op & 0x40;
    switch (op & 7) {
    case 0:
    case 1:
        at = some_register(in);
        bus_mmio_write(r.bus, gpa(BASE + at), 4, fuzz_get(in, 4));
        break;
    case 2:
        bus_mmio_read(r.bus, gpa(BASE + some_register(in)), 1u << (op >> 3 & 3));
        break;
    case 3:
    case 4:
        write_memory(in);
        break;
    case 5:
        receive(in);
        break;
    case 6:
        rig_out32(&r, IO + (op >> 3 & 1) * 4, (uint32_t)fuzz_get(in, 4));
        rig_in32(&r, IO + 4);
        break;
    default:
        net.link = op & 8;
        net.card.link(net.card.arg);
        net.card.room(net.card.arg);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t mac[NET_MAC_SIZE] = {2, 0, 0, 0, 0, 1};
    static const struct pci_host host;
    struct fuzz_in in = {data, size};
    struct pci_function *f;
    struct pci *pci;

    HOLDS(mem || !mem_create(RAM, &mem));
    mem_reset(mem);
    rig_new(&r);
    net = (struct net){.link = true};
    pci = pci_new(r.bus, &host);
    HOLDS(pci && !e1000_new(pci, 3, mem, &net, mac, &e));
    f = pci_at(pci, 3, 0);
    pci_config_write(f, PCI_BAR0, 4, BASE);
    pci_config_write(f, PCI_BAR0 + 4, 4, IO);
    pci_config_write(f, PCI_COMMAND, 2,
                     PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    for (unsigned k = 0; k < OPS && in.left; k++)
        one(&in);
    rig_write(&r, BASE + R_CTRL, 1u << 26);
    HOLDS(rig_read(&r, BASE + R_RDBAL) == 0 && rig_read(&r, BASE + R_RCTL) == 0);
    e1000_free(e);
    pci_free(pci);
    rig_free(&r);
    return 0;
}
