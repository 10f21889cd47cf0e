/*
 * MP configuration table. MultiProcessor Specification 1.4, "MP Configuration Table" and
 * "Default Configurations" (for what the entries of a PC/AT are).
 *
 * The board: one ISA bus, and PCI's where there is one; ISA IRQ n at pin n of the I/O
 * APIC, but 0 at pin 2 and 2, the cascade, nowhere; SCI level-triggered, active high; the
 * 8259s at LINT0 of every CPU (virtual wire), NMI at LINT1.
 */
#include "dev/tables/mptable.h"

#include <errno.h>
#include <string.h>

#include "dev/apic/ioapic.h"
#include "dev/apic/lapic.h"
#include "dev/pc/pm.h"
#include "dev/pci/setup.h"
#include "dev/tables/table.h"

#define POINTER_SIZE 16u
#define HEADER_SIZE 44u
#define MAX_CPUS 64u
#define REVISION 4u /* 1.4 */
#define PCI_BUS 0u  /* systems take it for PCI's own number of it */
#define IOAPIC_ID 0u
#define LAPIC_VERSION 0x14u
#define IOAPIC_VERSION 0x20u
#define ALL_LAPICS 0xffu

enum { PROCESSOR, BUS, IOAPIC, IO_INTERRUPT, LOCAL_INTERRUPT };
enum { INT = 0, NMI = 1, EXTINT = 3 };
#define CPU_ENABLED 1u
#define CPU_BOOTS 2u
#define LEVEL_HIGH 0x0du
#define AS_THE_BUS 0u
#define PCI_INTERRUPTS ((PCI_SLOTS - 1) * 4)

struct builder {
    uint8_t buf[POINTER_SIZE + HEADER_SIZE + MAX_CPUS * 20 + (20 + PCI_INTERRUPTS) * 8];
    uint32_t len;
    unsigned entries;
};

/* The next entry, of TYPE and SIZE, zero. */
static uint8_t *entry(struct builder *b, unsigned type, uint32_t size) {
    uint8_t *e = b->buf + b->len;

    b->len += size;
    b->entries++;
    e[0] = (uint8_t)type;
    return e;
}

static void put_processor(struct builder *b, unsigned id,
                          const struct mptable_config *cfg) {
    uint8_t *e = entry(b, PROCESSOR, 20);

    e[1] = (uint8_t)id;
    e[2] = LAPIC_VERSION;
    e[3] = (uint8_t)(CPU_ENABLED | (id ? 0 : CPU_BOOTS));
    table_put(e + 4, cfg->signature, 4);
    table_put(e + 8, cfg->features, 4);
}

/* ENTRY_TYPE says whether TO is an I/O APIC and its pin or a local APIC and its LINT. */
static void put_interrupt(struct builder *b, unsigned entry_type, unsigned type,
                          unsigned flags, unsigned bus, unsigned irq, unsigned to,
                          unsigned pin) {
    uint8_t *e = entry(b, entry_type, 8);

    e[1] = (uint8_t)type;
    table_put(e + 2, flags, 2);
    e[4] = (uint8_t)bus;
    e[5] = (uint8_t)irq;
    e[6] = (uint8_t)to;
    e[7] = (uint8_t)pin;
}

static void put_bus(struct builder *b, unsigned id, const char *type) {
    uint8_t *e = entry(b, BUS, 8);

    e[1] = (uint8_t)id;
    for (unsigned i = 0; i < 6; i++)
        e[2 + i] = (uint8_t)type[i];
}

/* Each slot's INTA..INTD, as firmware has led them. "I/O Interrupt Assignment Entries": a
 * PCI source is the slot's number and the pin's. */
static void put_pci_interrupts(struct builder *b) {
    for (unsigned n = 4; n < PCI_SLOTS * 4; n++)
        put_interrupt(b, IO_INTERRUPT, INT, AS_THE_BUS, PCI_BUS, n, IOAPIC_ID,
                      pci_setup_irq(n / 4, n % 4));
}

static bool is_pci_line(const struct mptable_config *cfg, unsigned irq) {
    return cfg->pci && (irq == PCI_IRQ_AB || irq == PCI_IRQ_CD);
}

static void put_entries(struct builder *b, const struct mptable_config *cfg) {
    unsigned isa = cfg->pci ? PCI_BUS + 1 : 0;
    uint8_t *e;

    for (unsigned i = 0; i < cfg->cpus; i++)
        put_processor(b, i, cfg);
    if (cfg->pci)
        put_bus(b, PCI_BUS, "PCI   ");
    put_bus(b, isa, "ISA   ");
    e = entry(b, IOAPIC, 8);
    e[1] = IOAPIC_ID;
    e[2] = IOAPIC_VERSION;
    e[3] = 1; /* usable */
    table_put(e + 4, IOAPIC_BASE, 4);
    for (unsigned irq = 0; irq < 16; irq++) {
        if (irq != 2 && !is_pci_line(cfg, irq))
            put_interrupt(b, IO_INTERRUPT, INT, irq == PM_SCI_IRQ ? LEVEL_HIGH : 0, isa,
                          irq, IOAPIC_ID, irq ? irq : 2);
    }
    if (cfg->pci)
        put_pci_interrupts(b);
    put_interrupt(b, LOCAL_INTERRUPT, EXTINT, 0, isa, 0, ALL_LAPICS, 0);
    put_interrupt(b, LOCAL_INTERRUPT, NMI, 0, isa, 0, ALL_LAPICS, 1);
}

static void put_header(struct builder *b) {
    uint8_t *h = b->buf + POINTER_SIZE;
    uint32_t len = b->len - POINTER_SIZE;

    memcpy(h, "PCMP", 4);
    table_put(h + 4, len, 2);
    h[6] = REVISION;
    memcpy(h + 8, "BIVISOR BOARD       ", 20);
    table_put(h + 34, b->entries, 2);
    table_put(h + 36, LAPIC_BASE, 4);
    h[7] = table_checksum(h, len);
}

int mptable_build(struct mem *m, struct gpa where, const struct mptable_config *cfg) {
    struct builder b = {.len = POINTER_SIZE + HEADER_SIZE};
    uint8_t *p = b.buf;

    if (!cfg->cpus || cfg->cpus > MAX_CPUS || (where.a & 15) ||
        where.a > 0xffffffffu - sizeof(b.buf))
        return -EINVAL;
    put_entries(&b, cfg);
    put_header(&b);
    memcpy(p, "_MP_", 4);
    table_put(p + 4, where.a + POINTER_SIZE, 4);
    p[8] = POINTER_SIZE / 16;
    p[9] = REVISION;
    p[10] = table_checksum(p, POINTER_SIZE);
    return mem_write(m, where, b.buf, b.len) ? 0 : -EFAULT;
}
