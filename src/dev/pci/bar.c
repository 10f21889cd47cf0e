/*
 * Base address registers. PCI Local Bus Specification 3.0, "Address Maps" and "Expansion
 * ROM Base Address Register".
 *
 * A register's low bits say what it is and are read-only; the bits that a size leaves
 * above them are the guest's. So a guest that writes ones reads the size back, and while
 * it does, the range is where it says: at the end of the space, behind the board's own
 * devices. What lies beyond the end of the 64K of ports is out of reach.
 */
#include <errno.h>

#include "dev/pci/pci_int.h"

#define IO_TYPE 0x1u
#define MMIO64_TYPE 0x4u
#define PREFETCHABLE 0x8u
#define LOW_BITS_IO 0x3u
#define LOW_BITS_MMIO 0xfu
#define ROM_ENABLE 0x1u
#define ROM_MIN 0x800u

static unsigned place_of(unsigned n) {
    return n == PCI_ROM_BAR ? PCI_ROM : PCI_BAR0 + 4 * n;
}

/* Bar N+1 belongs to bar N. */
static bool is_upper_half(const struct pci_function *f, unsigned n) {
    return n && n < PCI_BARS && f->bar[n - 1].kind == PCI_BAR_MMIO64;
}

static bool valid(const struct pci_function *f, unsigned n, enum pci_bar_kind kind,
                  uint64_t size) {
    uint64_t max = kind == PCI_BAR_MMIO64 ? 1ull << 62 : 1ull << 31;

    if (n > PCI_ROM_BAR || f->bar[n].kind || is_upper_half(f, n) || (size & (size - 1)))
        return false;
    if (kind == PCI_BAR_IO)
        return size >= 4 && size <= 0x100 && n < PCI_BARS;
    if (kind == PCI_BAR_MMIO64 && (n + 1 >= PCI_BARS || f->bar[n + 1].kind))
        return false;
    return size >= 16 && size <= max;
}

static void define(struct pci_function *f, unsigned n) {
    const struct pci_bar *b = &f->bar[n];
    unsigned at = place_of(n);
    uint64_t mask = ~(b->size - 1);

    if (n == PCI_ROM_BAR) {
        pci_define(f, at, 4, 0, (uint32_t)mask | ROM_ENABLE);
    } else if (b->kind == PCI_BAR_IO) {
        pci_define(f, at, 4, IO_TYPE, (uint32_t)mask);
    } else {
        pci_define(f, at, 4, b->kind == PCI_BAR_MMIO64 ? MMIO64_TYPE : 0, (uint32_t)mask);
        if (b->kind == PCI_BAR_MMIO64)
            pci_define(f, at + 4, 4, 0, (uint32_t)(mask >> 32));
    }
}

int pci_add_bar(struct pci_function *f, unsigned n, enum pci_bar_kind kind, uint64_t size,
                const struct bus_ops *ops, void *dev) {
    struct pci_bar *b;
    struct bus *bus = f->pci->bus;
    uint32_t command = kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;

    if (!valid(f, n, kind, size))
        return -EINVAL;
    b = &f->bar[n];
    *b = (struct pci_bar){.kind = kind, .size = size};
    if (ops) {
        b->range = kind == PCI_BAR_IO
                       ? bus_attach_pio(bus, 0, (unsigned)size, ops, dev, f->name)
                       : bus_attach_mmio(bus, gpa(0), size, ops, dev, f->name);
        if (!b->range) {
            b->kind = PCI_BAR_NONE;
            return -ENOSPC;
        }
        bus_range_enable(b->range, false);
    }
    define(f, n);
    f->writable[PCI_COMMAND] |= (uint8_t)command;
    return 0;
}

void pci_bar_prefetchable(struct pci_function *f, unsigned n) {
    unsigned at = place_of(n);

    f->bar[n].prefetchable = true;
    f->config[at] = f->power_up[at] = f->config[at] | PREFETCHABLE;
}

static uint64_t rom_read(void *dev, uint64_t addr, unsigned size) {
    const struct pci_function *f = dev;
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (addr + i < f->rom_size ? f->rom[addr + i] : 0xffull) << (i * 8);
    return value;
}

static void rom_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    /* read-only */
}

static const struct bus_ops rom_ops = {
    .read = rom_read, .write = rom_write, .general = true};

int pci_add_rom(struct pci_function *f, const uint8_t *bytes, uint64_t len) {
    uint64_t size = ROM_MIN;

    if (!len || len > 16u << 20)
        return -EINVAL;
    while (size < len)
        size *= 2;
    f->rom = bytes;
    f->rom_size = len;
    return pci_add_bar(f, PCI_ROM_BAR, PCI_BAR_MMIO32, size, &rom_ops, f);
}

/* --- where they are --- */

static uint64_t address_of(const struct pci_function *f, unsigned n) {
    const struct pci_bar *b = &f->bar[n];
    uint64_t low = pci_config(f, place_of(n), 4);

    if (b->kind == PCI_BAR_MMIO64)
        low |= (uint64_t)pci_config(f, place_of(n) + 4, 4) << 32;
    return low & ~(b->size - 1);
}

static bool enabled(const struct pci_function *f, unsigned n) {
    uint8_t command = f->config[PCI_COMMAND];

    if (!pci_powered(f))
        return false;
    if (n == PCI_ROM_BAR && !(f->config[PCI_ROM] & ROM_ENABLE))
        return false;
    return command & (f->bar[n].kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY);
}

static void place(struct pci_function *f, unsigned n, uint64_t addr, bool on) {
    struct pci_bar *b = &f->bar[n];

    if (on == b->on && addr == b->addr)
        return;
    b->on = on;
    b->addr = addr;
    if (b->range) {
        if (!on)
            bus_range_enable(b->range, false);
        bus_range_move(b->range, addr);
        if (on)
            bus_range_enable(b->range, true);
    } else if (f->ops && f->ops->bar_moved) {
        f->ops->bar_moved(f, n, addr, on);
    }
}

void pci_bars_changed(struct pci_function *f) {
    for (unsigned n = 0; n <= PCI_ROM_BAR; n++)
        if (f->bar[n].kind)
            place(f, n, address_of(f, n), enabled(f, n));
}

void pci_bars_remove(struct pci_function *f) {
    for (unsigned n = 0; n <= PCI_ROM_BAR; n++) {
        bus_range_detach(f->bar[n].range);
        f->bar[n] = (struct pci_bar){.kind = PCI_BAR_NONE};
    }
}
