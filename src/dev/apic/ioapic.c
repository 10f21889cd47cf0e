/*
 * I/O APIC. Intel 82093AA data sheet; the EOI register is that of version 0x20.
 *
 * Each pin has a 64-bit redirection entry, the pin's level, and, for an edge that came
 * while the pin was masked, nothing: such an edge is lost, as on hardware. A
 * level-triggered entry sends one message, sets Remote IRR, and sends again only after
 * the EOI has cleared that and if the pin is still high.
 */
#include "dev/apic/ioapic.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>
#include <string.h>

#define REG_ID 0x00u
#define REG_VERSION 0x01u
#define REG_ARB 0x02u
#define REG_REDIR 0x10u

#define WIN_SELECT 0x00u
#define WIN_DATA 0x10u
#define WIN_EOI 0x40u

#define RTE_LOGICAL (1ull << 11)
#define RTE_PENDING (1ull << 12)
#define RTE_LOW_ACTIVE (1ull << 13)
#define RTE_REMOTE_IRR (1ull << 14)
#define RTE_LEVEL (1ull << 15)
#define RTE_MASKED (1ull << 16)
#define RTE_READONLY (RTE_PENDING | RTE_REMOTE_IRR)
#define RTE_WRITABLE (0xff0000000001ffffull & ~RTE_READONLY)

struct ioapic {
    uint64_t rte[IOAPIC_PINS];
    uint32_t lines; /* electrical level, active high whatever the polarity bit says */
    uint32_t id;
    uint8_t select;
    bool (*deliver)(void *arg, const struct apic_msg *m);
    void *arg;
    void (*served)(void *arg);
    void *served_arg;
    struct counters *cnt;
};

static void send(struct ioapic *io, unsigned n) {
    uint64_t e = io->rte[n];
    struct apic_msg m = {
        .vector = (uint8_t)e,
        .mode = (e >> 8) & 7,
        .logical = e & RTE_LOGICAL,
        .level = e & RTE_LEVEL,
        .dest = (uint8_t)(e >> 56),
    };
    /* NMI, INIT and ExtINT are edges whatever the entry says. */
    bool level = m.level && (m.mode == APIC_FIXED || m.mode == APIC_LOWEST);

    m.level = level;
    io->cnt->irq_ioapic++;
    /* Set first: the EOI may come from inside deliver(). */
    if (level)
        io->rte[n] |= RTE_REMOTE_IRR;
    if (!io->deliver(io->arg, &m) && level)
        io->rte[n] &= ~RTE_REMOTE_IRR;
}

/*
 * The board's lines are abstract: "level" means asserted. A guest that programs a pin as
 * active low means the same assertion, because that is what the firmware tables of such a
 * pin would say.
 */
static void level_check(struct ioapic *io, unsigned n) {
    uint64_t e = io->rte[n];

    if ((e & RTE_LEVEL) && !(e & (RTE_MASKED | RTE_REMOTE_IRR)) &&
        (io->lines & (1u << n)))
        send(io, n);
}

void ioapic_set(void *ioapic, unsigned n, bool level) {
    struct ioapic *io = ioapic;
    uint32_t bit;
    bool rose;

    if (n >= IOAPIC_PINS)
        return;
    bit = 1u << n;
    rose = level && !(io->lines & bit);
    io->lines = level ? io->lines | bit : io->lines & ~bit;
    if (io->rte[n] & RTE_LEVEL)
        level_check(io, n);
    else if (rose && !(io->rte[n] & RTE_MASKED))
        send(io, n);
}

void ioapic_on_served(struct ioapic *io, void (*served)(void *arg), void *arg) {
    io->served = served;
    io->served_arg = arg;
}

static void tell_served(struct ioapic *io) {
    if (io->served)
        io->served(io->served_arg);
}

void ioapic_eoi(struct ioapic *io, uint8_t vector) {
    unsigned n;

    for (n = 0; n < IOAPIC_PINS; n++) {
        if ((io->rte[n] & 0xff) != vector || !(io->rte[n] & RTE_REMOTE_IRR))
            continue;
        io->rte[n] &= ~RTE_REMOTE_IRR;
        tell_served(io);
        level_check(io, n);
    }
}

static void write_rte(struct ioapic *io, unsigned n, bool high, uint32_t value) {
    uint64_t e = io->rte[n], was = e;

    if (high)
        e = (e & 0xffffffffull) | (uint64_t)value << 32;
    else
        e = (e & ~0xffffffffull) | value;
    e = (e & RTE_WRITABLE) | (io->rte[n] & RTE_READONLY);
    /* Making an entry edge-triggered is how old drivers forget a stuck Remote IRR. */
    if (!(e & RTE_LEVEL))
        e &= ~RTE_REMOTE_IRR;
    io->rte[n] = e;
    if (was & ~e & RTE_MASKED)
        tell_served(io);
    level_check(io, n);
}

static uint32_t reg_read(const struct ioapic *io, uint8_t reg) {
    unsigned n = (reg - REG_REDIR) / 2u;

    if (reg == REG_ID || reg == REG_ARB)
        return io->id;
    if (reg == REG_VERSION)
        return (IOAPIC_PINS - 1) << 16 | 0x20;
    if (reg < REG_REDIR || n >= IOAPIC_PINS)
        return 0;
    return (uint32_t)(io->rte[n] >> (reg & 1 ? 32 : 0));
}

static void reg_write(struct ioapic *io, uint8_t reg, uint32_t value) {
    unsigned n = (reg - REG_REDIR) / 2u;

    if (reg == REG_ID)
        io->id = value & 0x0f000000u;
    else if (reg >= REG_REDIR && n < IOAPIC_PINS)
        write_rte(io, n, reg & 1, value);
}

/* Registers are 32 bits wide on 16-byte boundaries; narrower reads see their bytes, other
 * writes than of 32 bits are taken as if their missing bytes were zero. */
static uint64_t mmio_read(void *dev, uint64_t addr, unsigned size) {
    struct ioapic *io = dev;
    unsigned shift = (unsigned)(addr & 3) * 8;
    uint32_t value = 0;

    if ((addr & 0xfc) == WIN_SELECT)
        value = io->select;
    else if ((addr & 0xfc) == WIN_DATA)
        value = reg_read(io, io->select);
    return value >> shift;
}

static void mmio_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    struct ioapic *io = dev;

    switch (addr & 0xff) {
    case WIN_SELECT:
        io->select = (uint8_t)value;
        break;
    case WIN_DATA:
        reg_write(io, io->select, (uint32_t)value);
        break;
    case WIN_EOI:
        ioapic_eoi(io, (uint8_t)value);
        break;
    default:
        break;
    }
}

static const struct bus_ops ops = {
    .read = mmio_read, .write = mmio_write, .width = 4, .general = true};

void ioapic_reset(struct ioapic *io) {
    unsigned n;

    for (n = 0; n < IOAPIC_PINS; n++)
        io->rte[n] = RTE_MASKED;
    io->id = 0;
    io->select = 0;
}

void ioapic_state(struct ioapic *io, struct snapshot *s) {
    for (unsigned n = 0; n < IOAPIC_PINS; n++)
        SNAPSHOT(s, io->rte[n]);
    SNAPSHOT(s, io->lines);
    SNAPSHOT(s, io->id);
    SNAPSHOT(s, io->select);
}

struct ioapic *ioapic_new(struct bus *bus,
                          bool (*deliver)(void *arg, const struct apic_msg *m), void *arg,
                          struct counters *cnt) {
    struct ioapic *io = calloc(1, sizeof(*io));

    if (!io)
        return NULL;
    io->deliver = deliver;
    io->arg = arg;
    io->cnt = cnt;
    if (!bus_attach_mmio(bus, gpa(IOAPIC_BASE), 0x1000, &ops, io, "ioapic")) {
        free(io);
        return NULL;
    }
    ioapic_reset(io);
    return io;
}

void ioapic_free(struct ioapic *io) {
    free(io);
}
