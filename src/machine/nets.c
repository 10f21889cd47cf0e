/*
 * Network cards, and their networks on the machine's loop. What comes is delivered on the
 * loop's thread, with the board's lock held: while the loop does not run, as between two
 * lives of the machine, no card writes to memory. What a card is at resets it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "dev/net/e1000.h"
#include "dev/virtio/net.h"
#include "machine/devices.h"
#include "machine/machine_int.h"
#include "machine/virtio.h"
#include "net/net.h"
#include "snapshot/snapshot.h"

/* --- cards --- */

static void virtio_free(void *dev) {
    virtio_net_free(dev);
}

static void virtio_record(void *dev, struct snapshot *s) {
    virtio_net_state(dev, s);
}

static void virtio_goes_on(void *dev) {
    virtio_net_go_on(dev);
}

static int make_virtio(struct machine *m, const struct machine_net *n, char *why,
                       size_t why_size) {
    static const struct machine_device_ops ops = {.free = virtio_free,
                                                  .name = "virtio-net",
                                                  .state = virtio_record,
                                                  .go_on = virtio_goes_on};
    struct virtio_net_config cfg = {.net = n->net, .clock = m->clock, .mtu = n->mtu};
    struct virtio_net *net;

    memcpy(cfg.mac, n->mac, sizeof(cfg.mac));
    net = virtio_net_new(m->mem, &cfg);
    if (!net || machine_device_add(m, &ops, net)) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    return machine_virtio_attach(m, virtio_net_device(net), why, why_size);
}

static void free_e1000(void *dev) {
    e1000_free(dev);
}

static void e1000_record(void *dev, struct snapshot *s) {
    e1000_state(dev, s);
}

static void e1000_goes_on(void *dev) {
    e1000_go_on(dev);
}

static int make_e1000(struct machine *m, const struct machine_net *n, char *why,
                      size_t why_size) {
    static const struct machine_device_ops ops = {.free = free_e1000,
                                                  .name = "e1000",
                                                  .state = e1000_record,
                                                  .go_on = e1000_goes_on};
    struct e1000 *e;
    int slot = board_pci_slot(&m->board.pci), rc = slot;

    if (slot >= 0)
        rc = e1000_new(m->board.pci.bus, (unsigned)slot, m->mem, n->net, n->mac, &e);
    if (!rc)
        rc = machine_device_add(m, &ops, e);
    if (rc && !m->board.pci.bus)
        snprintf(why, why_size, "an e1000 is a PCI card, and this board has no PCI");
    else if (rc)
        snprintf(why, why_size, "cannot make a network card: %s", strerror(-rc));
    return rc;
}

/* Firmware runs a ROM that names the card it is at; a ROM for virtio's cards names one of
 * their two numbers. PCI Firmware Specification 3.0, "PCI Expansion ROM Header Format"
 * and "PCI Data Structure Format": the sum of the image's bytes stays 0, by one that
 * belongs to nobody. */
static void name_card(uint8_t *rom, uint32_t size, const struct pci_function *f) {
    enum { SPARE = 6, DATA_AT = 0x18, VENDOR = 4, DATA_SIZE = 0x18 };
    uint32_t at =
        size > DATA_AT + 1 ? rom[DATA_AT] | (uint32_t)rom[DATA_AT + 1] << 8 : size;

    if (at >= size || size - at < DATA_SIZE || memcmp(rom + at, "PCIR", 4) != 0)
        return; /* none that firmware would run */
    for (unsigned n = 0; n < 4; n++) {
        uint8_t *byte = rom + at + VENDOR + n, is = (uint8_t)pci_config(f, n, 1);

        rom[SPARE] = (uint8_t)(rom[SPARE] + *byte - is);
        *byte = is;
    }
}

/* The one at SLOT; -ENOSPC: it is on no PCI bus. */
static int add_rom(struct machine *m, const struct machine_net *n, int slot, char *why,
                   size_t why_size) {
    struct pci_function *f =
        slot < 0 ? NULL : pci_at(m->board.pci.bus, (unsigned)slot, 0);
    int rc = -ENOSPC;

    if (f) {
        name_card(n->rom, n->rom_size, f);
        rc = pci_add_rom(f, n->rom, n->rom_size);
    }
    if (rc)
        snprintf(why, why_size,
                 "a network card that is booted from is a PCI card: leave --no-pci and "
                 "--virtio mmio out");
    return rc;
}

int machine_nets_make(struct machine *m, char *why, size_t why_size) {
    for (unsigned k = 0; k < m->cfg.net_count; k++) {
        const struct machine_net *n = &m->cfg.nets[k];
        int slot = m->board.pci.bus ? board_pci_slot(&m->board.pci) : -1;
        int rc = n->model == MACHINE_NET_E1000 ? make_e1000(m, n, why, why_size)
                                               : make_virtio(m, n, why, why_size);

        m->net_slot[k] = slot < 0 ? 0 : (unsigned)slot;
        if (!rc && n->rom)
            rc = add_rom(m, n, slot, why, why_size);

        if (rc)
            return rc;
    }
    return 0;
}

static void record(void *net, struct snapshot *s) {
    net_state(net, s);
}

void machine_nets_records(struct machine *m, struct snapshot *s) {
    for (unsigned k = 0; k < m->cfg.net_count; k++)
        if (m->cfg.nets[k].net && net_knows(m->cfg.nets[k].net))
            snapshot_optional(s, "net", k, 1, record, m->cfg.nets[k].net);
}

/* --- the loop --- */

int machine_start_nets(struct machine *m) {
    const struct net_guard guard = {machine_guard_enter, machine_guard_leave, m};
    int rc = 0;

    for (unsigned k = 0; k < m->cfg.net_count && !rc; k++)
        rc = net_start(m->cfg.nets[k].net, m->loop, &guard);
    return rc;
}

void machine_stop_nets(struct machine *m) {
    for (unsigned k = 0; k < m->cfg.net_count; k++)
        net_stop(m->cfg.nets[k].net);
}

bool machine_net_limit(struct machine *m, unsigned n, enum net_limit which,
                       const struct rate_limit *l) {
    if (n >= m->cfg.net_count || m->cfg.counted)
        return false;
    machine_board_enter(m);
    net_limit(m->cfg.nets[n].net, which, l);
    machine_board_leave(m);
    return true;
}

struct net_figures machine_net_figures(const struct machine *m) {
    struct net_figures sum = {0};

    for (unsigned k = 0; k < m->cfg.net_count; k++) {
        struct net_figures f = net_figures(m->cfg.nets[k].net);

        sum.out_frames += f.out_frames;
        sum.out_bytes += f.out_bytes;
        sum.in_frames += f.in_frames;
        sum.in_bytes += f.in_bytes;
        sum.dropped += f.dropped;
    }
    return sum;
}
