/*
 * The card's registers, its life, and its two bars: 128 KiB of registers, and a window to
 * them in ports. Manual, "Register Descriptions".
 *
 * Registers are doublewords; narrower writes are nobody's, narrower reads see their
 * bytes. Those in `plain` are a place each, and the mask says which of its bits are one;
 * the others are dealt with by name; the rest reads 0.
 */
#include "dev/net/e1000.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/net/e1000_int.h"
#include "snapshot/snapshot.h"

#define MMIO_SIZE 0x20000u
#define IO_SIZE 64u
enum { IO_ADDRESS = 0, IO_DATA = 4 };

#define CTRL_RESET (1u << 26)
#define CTRL_PHY_RESET (1u << 31)
#define CTRL_POWER_UP 0x00140241u /* full duplex, 1000 Mbit/s, link set up */
#define STATUS_FULL_1000 0x81u
#define STATUS_LINK 0x02u
#define CAUSES 0x0001ffffu

/* --- plain registers --- */

static const struct {
    uint16_t first, last;
    uint32_t mask;
} plain[] = {
    {R_CTRL_EXT, R_CTRL_EXT, ~0u},
    {R_FCAL, R_FCT, ~0u},
    {R_VET, R_VET, 0xffff},
    {R_ITR, R_ITR, 0xffff},
    {R_RCTL, R_RCTL, ~0u},
    {R_FCTTV, R_FCTTV, 0xffff},
    {R_TXCW, R_TXCW, ~0u},
    {R_TCTL, R_TCTL, ~0u},
    {R_TIPG, R_TIPG, ~0u},
    {R_AIT, R_AIT, 0xffff},
    {R_LEDCTL, R_LEDCTL, ~0u},
    {R_PBA, R_PBA, 0xffff},
    {R_FCRTL, R_FCRTL, ~0u},
    {R_FCRTH, R_FCRTH, ~0u},
    {R_RDBAL, R_RDBAL, 0xfffffff0u},
    {R_RDBAH, R_RDBAH, ~0u},
    {R_RDLEN, R_RDLEN, 0x000fff80u},
    {R_RDH, R_RDH, 0xffff},
    {R_RDT, R_RDT, 0xffff},
    {R_RDTR, R_RDTR, 0xffff},
    {R_RXDCTL, R_RXDCTL, ~0u},
    {R_RADV, R_RADV, 0xffff},
    {R_RSRPD, R_RSRPD, 0xfff},
    {R_TDBAL, R_TDBAL, 0xfffffff0u},
    {R_TDBAH, R_TDBAH, ~0u},
    {R_TDLEN, R_TDLEN, 0x000fff80u},
    {R_TDH, R_TDH, 0xffff},
    {R_TDT, R_TDT, 0xffff},
    {R_TIDV, R_TIDV, 0xffff},
    {R_TXDCTL, R_TXDCTL, ~0u},
    {R_TADV, R_TADV, 0xffff},
    {R_TSPMT, R_TSPMT, ~0u},
    {R_RXCSUM, R_RXCSUM, 0x7ff},
    {R_MTA, R_MTA + 0x1fc, ~0u},
    {R_RA, R_RA + 0x7c, ~0u},
    {R_VFTA, R_VFTA + 0x1fc, ~0u},
    {R_WUC, R_WUC, 0xf},
    {R_WUFC, R_WUFC, ~0u},
    {R_MANC, R_MANC, ~0u},
};

/* The bits of the register AT that are places. */
static uint32_t plain_mask(uint32_t at) {
    for (unsigned n = 0; n < sizeof(plain) / sizeof(plain[0]); n++)
        if (at >= plain[n].first && at <= plain[n].last)
            return plain[n].mask;
    return 0;
}

/* --- life --- */

static void load_address(struct e1000 *e) {
    const uint16_t *w = e->eeprom;

    *e1000_reg(e, R_RA) = w[0] | (uint32_t)w[1] << 16;
    *e1000_reg(e, R_RA + 4) = w[2] | 1u << 31;
}

static void reset_registers(struct e1000 *e) {
    for (unsigned n = 0; n < E1000_REGS / 4; n++)
        e->reg[n] = 0;
    *e1000_reg(e, R_CTRL) = CTRL_POWER_UP;
    *e1000_reg(e, R_LEDCTL) = 0x07068302;
    *e1000_reg(e, R_PBA) = 0x30; /* KiB of it are for what is received */
    load_address(e);
    e1000_transmit_reset(e);
    e1000_update_irq(e);
    net_ready(e->net); /* what waits is dropped */
}

static void on_reset(struct pci_function *f) {
    struct e1000 *e = (struct e1000 *)f;

    e->io_address = 0;
    e1000_eecd_write(e, 0);
    e1000_phy_reset(e);
    reset_registers(e);
}

/* --- the network's calls --- */

static void on_room(void *arg) {
    e1000_transmit(arg);
}

static void on_link(void *arg) {
    struct e1000 *e = arg;

    e1000_phy_link(e, net_link(e->net));
    e1000_raise(e, CAUSE_LSC);
}

/* --- reads --- */

static uint32_t status(const struct e1000 *e) {
    return STATUS_FULL_1000 | (net_link(e->net) ? STATUS_LINK : 0);
}

/* What is pending, which the read ends. */
static uint32_t take_causes(struct e1000 *e) {
    uint32_t causes = *e1000_reg(e, R_ICR);

    *e1000_reg(e, R_ICR) = 0;
    e1000_update_irq(e);
    return causes;
}

static uint32_t read_register(struct e1000 *e, uint32_t at) {
    uint32_t value;

    if (at >= E1000_REGS)
        return 0;
    switch (at) {
    case R_STATUS:
        return status(e);
    case R_EECD:
        return e1000_eecd_read(e);
    case R_ICR:
        return take_causes(e);
    case R_ICS:
        return *e1000_reg(e, R_ICR);
    case R_IMC:
        return 0;
    default:
        break;
    }
    value = *e1000_reg(e, at);
    if (at >= R_STATISTICS && at < R_STATISTICS + 0x100)
        *e1000_reg(e, at) = 0;
    return value;
}

/* --- writes --- */

static void write_ctrl(struct e1000 *e, uint32_t value) {
    if (value & CTRL_RESET) {
        reset_registers(e);
        return;
    }
    *e1000_reg(e, R_CTRL) = value & ~CTRL_PHY_RESET;
    if (value & CTRL_PHY_RESET)
        e1000_phy_reset(e);
}

static void write_causes(struct e1000 *e, uint32_t at, uint32_t value) {
    value &= CAUSES;
    if (at == R_ICR)
        *e1000_reg(e, R_ICR) &= ~value;
    else if (at == R_ICS)
        *e1000_reg(e, R_ICR) |= value;
    else if (at == R_IMS)
        *e1000_reg(e, R_IMS) |= value;
    else
        *e1000_reg(e, R_IMS) &= ~value;
    e1000_update_irq(e);
}

static void write_plain(struct e1000 *e, uint32_t at, uint32_t value) {
    uint32_t mask = plain_mask(at);

    *e1000_reg(e, at) = (*e1000_reg(e, at) & ~mask) | (value & mask);
    if (at == R_RDT || at == R_RCTL)
        net_ready(e->net);
    else if (at == R_TDT || at == R_TCTL)
        e1000_transmit(e);
}

static void write_register(struct e1000 *e, uint32_t at, uint32_t value) {
    if (at >= E1000_REGS)
        return;
    switch (at) {
    case R_CTRL:
        write_ctrl(e, value);
        break;
    case R_EECD:
        e1000_eecd_write(e, value);
        break;
    case R_EERD:
        e1000_eerd_write(e, value);
        break;
    case R_MDIC:
        e1000_mdic_write(e, value);
        break;
    case R_ICR:
    case R_ICS:
    case R_IMS:
    case R_IMC:
        write_causes(e, at, value);
        break;
    default:
        write_plain(e, at, value);
        break;
    }
}

/* --- bars --- */

static uint64_t mmio_read(void *dev, uint64_t addr, unsigned size) {
    return read_register(dev, (uint32_t)addr & ~3u) >> ((addr & 3) * 8);
}

static void mmio_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    if (size == 4 && !(addr & 3))
        write_register(dev, (uint32_t)addr, (uint32_t)value);
}

/* "I/O-Mapped Internal Register Access" */
static uint64_t io_read(void *dev, uint64_t addr, unsigned size) {
    struct e1000 *e = dev;

    if (size != 4)
        return ~0ull;
    if (addr == IO_ADDRESS)
        return e->io_address;
    return addr == IO_DATA ? read_register(e, e->io_address & ~3u) : 0;
}

static void io_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    struct e1000 *e = dev;

    if (size != 4)
        return;
    if (addr == IO_ADDRESS)
        e->io_address = (uint32_t)value & (MMIO_SIZE - 1);
    else if (addr == IO_DATA)
        write_register(e, e->io_address & ~3u, (uint32_t)value);
}

static const struct bus_ops mmio_ops = {
    .read = mmio_read, .write = mmio_write, .width = 4};
static const struct bus_ops io_ops = {.read = io_read, .write = io_write, .width = 4};

/* The guest may have given it the memory that it has to send from, or write to. */
static void on_config(struct pci_function *f, unsigned at, unsigned size) {
    struct e1000 *e = (struct e1000 *)f;

    if (at > PCI_COMMAND || at + size <= PCI_COMMAND || !pci_bus_master(f))
        return;
    net_ready(e->net);
    e1000_transmit(e);
}

/* --- snapshots --- */

static void context_state(struct e1000_context *c, struct snapshot *s) {
    SNAPSHOT(s, c->ip_start);
    SNAPSHOT(s, c->ip_place);
    SNAPSHOT(s, c->l4_start);
    SNAPSHOT(s, c->l4_place);
    SNAPSHOT(s, c->ip_end);
    SNAPSHOT(s, c->l4_end);
    SNAPSHOT(s, c->command);
    SNAPSHOT(s, c->header);
    SNAPSHOT(s, c->mss);
}

/* A frame that is whole and waits for the network is lost, as frames are; what there is
 * of one that is being put together is kept. */
static void transmit_state(struct e1000_tx *t, struct snapshot *s) {
    bool started = t->started && !t->ready;
    uint32_t len = started ? t->len : 0;

    context_state(&t->context[0], s);
    context_state(&t->context[1], s);
    SNAPSHOT(s, started);
    SNAPSHOT(s, t->extended);
    SNAPSHOT(s, t->segment);
    SNAPSHOT(s, t->options);
    SNAPSHOT(s, t->bad);
    SNAPSHOT_UPTO(s, len, E1000_FRAME - 4);
    snapshot_bytes(s, t->frame, len);
    if (!snapshot_reading(s))
        return;
    t->started = started;
    t->len = len;
    t->ready = t->busy = false;
    t->offload = (struct net_offload){.csum = false};
}

static void serial_state(struct e1000 *e, struct snapshot *s) {
    SNAPSHOT(s, e->io_address);
    SNAPSHOT(s, e->serial.in);
    SNAPSHOT_UPTO(s, e->serial.bits, 64);
    SNAPSHOT_UPTO(s, e->serial.out, 16);
    SNAPSHOT_UPTO(s, e->serial.address, ARRAY_SIZE(e->eeprom) - 1);
    SNAPSHOT(s, e->serial.reading);
    snapshot_need(s, e->io_address < MMIO_SIZE);
}

void e1000_state(struct e1000 *e, struct snapshot *s) {
    pci_function_state(&e->pci, s);
    serial_state(e, s);
    for (unsigned n = 0; n < ARRAY_SIZE(e->reg); n++)
        SNAPSHOT(s, e->reg[n]);
    for (unsigned n = 0; n < ARRAY_SIZE(e->eeprom); n++)
        SNAPSHOT(s, e->eeprom[n]);
    for (unsigned n = 0; n < ARRAY_SIZE(e->phy); n++)
        SNAPSHOT(s, e->phy[n]);
    transmit_state(&e->tx, s);
    e->had_link = net_link(e->net);
    SNAPSHOT(s, e->had_link);
}

void e1000_go_on(struct e1000 *e) {
    if (net_link(e->net) != e->had_link)
        on_link(e);
    net_ready(e->net);
    e1000_transmit(e);
}

static const struct pci_ops pci_ops = {.config_written = on_config, .reset = on_reset};
static const struct pci_identity identity = {.vendor = 0x8086,
                                             .device = 0x100e,
                                             .sub_vendor = 0x1af4,
                                             .sub_device = 0x1100,
                                             .class = 0x020000,
                                             .revision = 3};

int e1000_new(struct pci *pci, unsigned slot, struct mem *mem, struct net *net,
              const uint8_t mac[NET_MAC_SIZE], struct e1000 **out) {
    struct e1000 *e = calloc(1, sizeof(*e));
    struct net_card card = {
        .receive = e1000_receive, .room = on_room, .link = on_link, .arg = e};
    int rc;

    if (!e)
        return -ENOMEM;
    e->mem = mem;
    e->net = net;
    e->tx.frame = malloc(E1000_FRAME);
    rc = e->tx.frame ? pci_add(pci, &e->pci, slot, 0, "e1000", &identity, &pci_ops)
                     : -ENOMEM;
    if (!rc)
        rc = pci_add_bar(&e->pci, 0, PCI_BAR_MMIO32, MMIO_SIZE, &mmio_ops, e);
    if (!rc)
        rc = pci_add_bar(&e->pci, 1, PCI_BAR_IO, IO_SIZE, &io_ops, e);
    if (rc) {
        pci_remove(&e->pci);
        free(e->tx.frame);
        free(e);
        return rc;
    }
    pci_use_intx(&e->pci, 0);
    e1000_eeprom_fill(e, mac);
    net_plug(net, &card);
    net_card_can(net, NET_CAN_GOOD);
    on_reset(&e->pci);
    *out = e;
    return 0;
}

void e1000_free(struct e1000 *e) {
    if (!e)
        return;
    net_plug(e->net, NULL);
    pci_remove(&e->pci);
    free(e->tx.frame);
    free(e);
}
