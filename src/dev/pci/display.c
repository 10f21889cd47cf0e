/*
 * The display; see display.h.
 *
 * Bar 0 is its memory, RAM of mem/'s that is where the bar says: what the guest draws
 * costs it nothing. Bar 2 has the VGA's ports at 0x400 and the registers at 0x500, each
 * 16 bits; these are at ports 0x1ce (which) and 0x1cf as well. The picture is shown when
 * ENABLE's lowest bit is set, in the size that was written before.
 *
 * Invariant: width, height and depth are those of a picture that fits into the memory,
 * whenever it is shown.
 */
#include "dev/pci/display.h"
#include "snapshot/snapshot.h"

#include <errno.h>
#include <stdlib.h>

#define INDEX_PORT 0x1ce
#define REGS_SIZE 4096u
#define VGA_AT 0x400u /* in bar 2: ports 0x3c0 to 0x3df */
#define REGS_AT 0x500u
#define ID 0xb0c5u
#define ID_FIRST 0xb0c0u

enum { R_ID, R_WIDTH, R_HEIGHT, R_DEPTH, R_ENABLE, R_BANK, R_LINE, R_LINES, R_X, R_Y };
enum { R_MEMORY = 10, REGS };

#define ENABLED 0x01u
#define CAPABILITIES 0x02u
#define WIDE_DAC 0x20u
#define LINEAR 0x40u
#define KEEP 0x80u /* what is in memory is not cleared */

struct display {
    struct pci_function pci;
    struct mem *mem;
    struct mem_region *memory;
    struct vga *vga;
    uint16_t index;
    uint16_t reg[REGS];
    struct bus_range *ports;
    bool touched; /* the memory may not be all zeros */
};

static uint8_t *bytes(const struct display *d) {
    return mem_region_host(d->mem, d->memory);
}

/* --- what is shown --- */

static unsigned pixel_bytes(unsigned depth) {
    return (depth + 7) / 8;
}

static unsigned pitch(const struct display *d) {
    return d->reg[R_LINE] * pixel_bytes(d->reg[R_DEPTH]);
}

static bool fits(const struct display *d) {
    unsigned depth = d->reg[R_DEPTH], w = d->reg[R_WIDTH], h = d->reg[R_HEIGHT];

    if (depth != 8 && depth != 15 && depth != 16 && depth != 24 && depth != 32)
        return false;
    return w && h && w <= VGA_WIDTH && h <= VGA_HEIGHT &&
           w * h * pixel_bytes(depth) <= DISPLAY_MEMORY;
}

static void show(struct display *d) {
    struct vga_linear l = {.on = d->reg[R_ENABLE] & ENABLED};
    uint64_t bank = (uint64_t)d->reg[R_BANK] << 16;

    if (l.on) {
        l.width = d->reg[R_WIDTH];
        l.height = d->reg[R_HEIGHT];
        l.depth = d->reg[R_DEPTH];
        l.bytes = bytes(d);
        l.size = DISPLAY_MEMORY;
        l.pitch = pitch(d);
        l.start = d->reg[R_Y] * l.pitch + d->reg[R_X] * pixel_bytes(l.depth);
    }
    vga_show_linear(d->vga, &l);
    vga_show_bank(d->vga, l.on && !(d->reg[R_ENABLE] & LINEAR) && bank < DISPLAY_MEMORY
                              ? bytes(d) + bank
                              : NULL);
}

/* --- registers --- */

static void clear(struct display *d) {
    uint64_t len = (uint64_t)pitch(d) * d->reg[R_HEIGHT];

    mem_about_to_write(d->mem, bytes(d), len);
    mem_fill(bytes(d), 0, len);
}

static void write_enable(struct display *d, uint16_t value) {
    bool was = d->reg[R_ENABLE] & ENABLED;

    if ((value & ENABLED) && !was) {
        if (!fits(d)) /* nothing that could be shown */
            value &= (uint16_t)~ENABLED;
        d->reg[R_LINE] = d->reg[R_WIDTH];
        d->reg[R_X] = d->reg[R_Y] = 0;
        if ((value & ENABLED) && !(value & KEEP))
            clear(d);
    }
    d->reg[R_ENABLE] = value;
    vga_wide_dac(d->vga, value & WIDE_DAC);
}

/* A line is as long as the picture is wide, or longer. */
static void write_line(struct display *d, uint16_t value) {
    uint64_t len = (uint64_t)value * pixel_bytes(d->reg[R_DEPTH]);

    if (value >= d->reg[R_WIDTH] && len * d->reg[R_HEIGHT] <= DISPLAY_MEMORY)
        d->reg[R_LINE] = value;
}

static void write_reg(struct display *d, unsigned n, uint16_t value) {
    switch (n) {
    case R_ID:
        if (value >= ID_FIRST && value <= ID)
            d->reg[R_ID] = value;
        return;
    case R_WIDTH:
    case R_HEIGHT:
    case R_DEPTH:
        if (!(d->reg[R_ENABLE] & ENABLED))
            d->reg[n] = n == R_DEPTH && !value ? 8 : value;
        return;
    case R_ENABLE:
        write_enable(d, value);
        break;
    case R_LINE:
        write_line(d, value);
        break;
    case R_BANK:
    case R_X:
    case R_Y:
        d->reg[n] = value;
        break;
    default:
        return;
    }
    show(d);
}

static uint16_t read_reg(const struct display *d, unsigned n) {
    bool most = d->reg[R_ENABLE] & CAPABILITIES;

    switch (n) {
    case R_WIDTH:
        return most ? VGA_WIDTH : d->reg[n];
    case R_HEIGHT:
        return most ? VGA_HEIGHT : d->reg[n];
    case R_DEPTH:
        return most ? 32 : d->reg[n];
    case R_LINES:
        return (uint16_t)(pitch(d) && DISPLAY_MEMORY / pitch(d) < 0xffff
                              ? DISPLAY_MEMORY / pitch(d)
                              : 0xffff);
    case R_MEMORY:
        return DISPLAY_MEMORY >> 16;
    default:
        return n < REGS ? d->reg[n] : 0;
    }
}

/* --- ports --- */

/* The index at 0, data at 1 and 2: a word at each. */
static uint64_t port_read(void *dev, uint64_t at, unsigned size) {
    struct display *d = dev;

    return at ? read_reg(d, d->index) : d->index;
}

static void port_write(void *dev, uint64_t at, unsigned size, uint64_t value) {
    struct display *d = dev;

    if (size != 2)
        return;
    if (at)
        write_reg(d, d->index, (uint16_t)value);
    else
        d->index = (uint16_t)value;
}

static const struct bus_ops port_ops = {
    .read = port_read, .write = port_write, .width = 2};

/* --- bar 2 --- */

static uint64_t regs_read(void *dev, uint64_t at, unsigned size) {
    struct display *d = dev;

    if (at >= VGA_AT && at < VGA_AT + 0x20) {
        uint64_t value = 0;

        for (unsigned n = 0; n < size; n++)
            value |= (uint64_t)vga_port_read(d->vga, 0x3c0 + (unsigned)(at - VGA_AT) + n)
                     << 8 * n;
        return value;
    }
    if (at >= REGS_AT && at < REGS_AT + 2 * REGS && !(at & 1))
        return read_reg(d, (unsigned)(at - REGS_AT) / 2);
    return 0;
}

static void regs_write(void *dev, uint64_t at, unsigned size, uint64_t value) {
    struct display *d = dev;

    if (at >= VGA_AT && at < VGA_AT + 0x20)
        for (unsigned n = 0; n < size; n++)
            vga_port_write(d->vga, 0x3c0 + (unsigned)(at - VGA_AT) + n,
                           (uint8_t)(value >> 8 * n));
    else if (at >= REGS_AT && at < REGS_AT + 2 * REGS && !(at & 1) && size == 2)
        write_reg(d, (unsigned)(at - REGS_AT) / 2, (uint16_t)value);
}

static const struct bus_ops regs_ops = {
    .read = regs_read, .write = regs_write, .width = 2};

/* --- PCI --- */

static void bar_moved(struct pci_function *f, unsigned bar, uint64_t addr, bool on) {
    struct display *d = (struct display *)f;

    if (bar != 0)
        return;
    if (on && mem_region_move(d->mem, d->memory, gpa(addr)))
        on = false;
    d->touched |= on;
    mem_region_show(d->mem, d->memory, on);
}

static void reset(struct pci_function *f) {
    struct display *d = (struct display *)f;

    d->index = 0;
    for (unsigned n = 0; n < REGS; n++)
        d->reg[n] = 0;
    d->reg[R_ID] = ID;
    d->reg[R_DEPTH] = 8;
    mem_region_show(d->mem, d->memory, false);
    if (d->touched)
        mem_fill(bytes(d), 0, DISPLAY_MEMORY);
    d->touched = false;
    show(d);
}

/* What the memory shows is in it. */
static bool can_be_shown(const struct display *d) {
    return fits(d) && d->reg[R_LINE] >= d->reg[R_WIDTH] &&
           (uint64_t)pitch(d) * d->reg[R_HEIGHT] <= DISPLAY_MEMORY;
}

/* The memory is with the guest's other memory. */
void display_state(struct display *d, struct snapshot *s) {
    SNAPSHOT(s, d->index);
    for (unsigned n = 0; n < REGS; n++)
        SNAPSHOT(s, d->reg[n]);
    pci_function_state(&d->pci, s);
    SNAPSHOT(s, d->touched);
    if (!snapshot_reading(s))
        return;
    if ((d->reg[R_ENABLE] & ENABLED) && !can_be_shown(d)) {
        d->reg[R_ENABLE] = 0;
        snapshot_need(s, false);
    }
    show(d);
}

static const struct pci_ops ops = {.bar_moved = bar_moved, .reset = reset};
static const struct pci_identity identity = {.vendor = 0x1234,
                                             .device = 0x1111,
                                             .sub_vendor = 0x1af4,
                                             .sub_device = 0x1100,
                                             .class = 0x030000,
                                             .revision = 2};

static int add_function(struct display *d, struct pci *pci, unsigned slot,
                        const uint8_t *rom, uint64_t rom_len) {
    int rc = pci_add(pci, &d->pci, slot, 0, "display", &identity, &ops);

    if (!rc)
        rc = pci_add_bar(&d->pci, 0, PCI_BAR_MMIO32, DISPLAY_MEMORY, NULL, NULL);
    if (!rc)
        pci_bar_prefetchable(&d->pci, 0);
    if (!rc)
        rc = pci_add_bar(&d->pci, 2, PCI_BAR_MMIO32, REGS_SIZE, &regs_ops, d);
    /* The VGA's ports are no bar's, but a VGA is one that answers at them. */
    if (!rc)
        d->pci.writable[PCI_COMMAND] |= PCI_COMMAND_IO;
    if (!rc && rom)
        rc = pci_add_rom(&d->pci, rom, rom_len);
    d->ports = bus_attach_pio(pci_bus(pci), INDEX_PORT, 3, &port_ops, d, "display");
    return rc ? rc : d->ports ? 0 : -ENOSPC;
}

int display_new(struct pci *pci, unsigned slot, struct mem *m, struct vga *v,
                const uint8_t *rom, uint64_t rom_len, struct display **out) {
    struct display *d = calloc(1, sizeof(*d));
    int rc;

    if (!d)
        return -ENOMEM;
    d->mem = m;
    d->vga = v;
    rc = mem_region_add(m, gpa(MEM_HOLE_START), DISPLAY_MEMORY, MEM_RAM, &d->memory);
    if (!rc) {
        mem_region_show(m, d->memory, false);
        rc = add_function(d, pci, slot, rom, rom_len);
    }
    if (rc) {
        display_free(d);
        return rc;
    }
    reset(&d->pci);
    *out = d;
    return 0;
}

void display_free(struct display *d) {
    if (!d)
        return;
    pci_remove(&d->pci);
    bus_range_detach(d->ports);
    if (d->memory)
        mem_region_remove(d->mem, d->memory);
    free(d);
}
