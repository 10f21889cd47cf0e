/*
 * A function's interrupts: INTx, MSI, MSI-X. PCI Local Bus Specification 3.0,
 * "Interrupts", "MSI Capability Structure", "MSI-X Capability and Table Structure".
 *
 * INTx reaches the board while the device wants it, bit 10 of the command register is
 * clear and no messages are on. A message is a memory write: without the bus master bit
 * it cannot be sent, and is kept pending as a masked one is. What is pending is sent when
 * nothing is in its way any more; a second one of the same vector meanwhile is the same.
 *
 * The MSI-X table is bytes in a bar of its own, pending bits in the bar's upper half.
 */
#include <errno.h>
#include <stdlib.h>

#include "dev/pci/pci_int.h"
#include "snapshot/snapshot.h"

#define CONTROL 2u /* of both capabilities */

#define MSI_SIZE 0x18u
#define MSI_ENABLE (1u << 0)
#define MSI_CAPABLE_SHIFT 1
#define MSI_COUNT_SHIFT 4 /* how many the guest gave, as a power of two */
#define MSI_COUNT 7u
#define MSI_64BIT (1u << 7)
#define MSI_MASKABLE (1u << 8)
#define MSI_ADDR 4u
#define MSI_DATA 0xcu
#define MSI_MASK 0x10u
#define MSI_PENDING PCI_MSI_PENDING

#define MSIX_SIZE 0xcu
#define MSIX_ENABLE (1u << 15)
#define MSIX_MASK_ALL (1u << 14)
#define MSIX_MAX 2048u
#define MSIX_TABLE 4u
#define MSIX_PBA 8u
#define MSIX_BAR_MIN 0x1000u

struct pci_msix_entry {
    uint32_t addr, addr_high, data, control; /* control: bit 0 masks */
};
#define ENTRY_MASKED 1u

static void send(const struct pci_function *f, uint64_t addr, uint32_t data) {
    const struct pci_host *h = &f->pci->host;

    if (h->msi)
        h->msi(h->msi_arg, addr, data);
}

/* --- INTx --- */

void pci_use_intx(struct pci_function *f, unsigned pin) {
    pci_define(f, PCI_INTERRUPT_PIN, 1, (pin & 3) + 1, 0);
    pci_define(f, PCI_INTERRUPT_LINE, 1, 0, 0xff);
    f->writable[PCI_COMMAND + 1] |= PCI_COMMAND_NO_INTX >> 8;
}

static void drive(struct pci_function *f) {
    const struct pci_host *h = &f->pci->host;
    unsigned pin = f->config[PCI_INTERRUPT_PIN];
    bool level = f->irq && pin &&
                 !(pci_config(f, PCI_COMMAND, 2) & PCI_COMMAND_NO_INTX) &&
                 !pci_msi_enabled(f) && !pci_msix_enabled(f);

    /* Whether or not it may show: "Device Status". */
    f->config[PCI_STATUS] = (uint8_t)((f->config[PCI_STATUS] & ~PCI_STATUS_INTX) |
                                      (f->irq ? PCI_STATUS_INTX : 0));
    if (level == f->driven)
        return;
    f->driven = level;
    if (h->intx)
        h->intx(h->intx_arg, f->slot, pin - 1, level);
}

void pci_irq(struct pci_function *f, bool level) {
    if (f->irq == level)
        return;
    f->irq = level;
    drive(f);
}

static void line_set(void *arg, unsigned n, bool level) {
    pci_irq(arg, level);
}

struct irq_line pci_irq_line(struct pci_function *f) {
    return (struct irq_line){.set = line_set, .arg = f};
}

/* --- MSI --- */

int pci_add_msi(struct pci_function *f, unsigned vectors) {
    unsigned log = 0;

    if (!vectors || vectors > 32 || (vectors & (vectors - 1)))
        return -EINVAL;
    while (1u << log < vectors)
        log++;
    f->msi = pci_add_capability(f, PCI_CAP_MSI, MSI_SIZE);
    if (!f->msi)
        return -ENOSPC;
    pci_define(f, f->msi + CONTROL, 2,
               MSI_64BIT | MSI_MASKABLE | log << MSI_CAPABLE_SHIFT,
               MSI_ENABLE | MSI_COUNT << MSI_COUNT_SHIFT);
    pci_define(f, f->msi + MSI_ADDR, 4, 0, ~3u);
    pci_define(f, f->msi + MSI_ADDR + 4, 4, 0, ~0u);
    pci_define(f, f->msi + MSI_DATA, 4, 0, 0xffff);
    pci_define(f, f->msi + MSI_MASK, 4, 0, (uint32_t)((1ull << vectors) - 1));
    pci_define(f, f->msi + MSI_PENDING, 4, 0, 0);
    return 0;
}

bool pci_msi_enabled(const struct pci_function *f) {
    return f->msi && (pci_config(f, f->msi + CONTROL, 2) & MSI_ENABLE);
}

/* What the guest gave, at most what the function asked for. */
static unsigned msi_count(const struct pci_function *f) {
    unsigned control = pci_config(f, f->msi + CONTROL, 2);
    unsigned gave = control >> MSI_COUNT_SHIFT & MSI_COUNT;
    unsigned asked = control >> MSI_CAPABLE_SHIFT & MSI_COUNT;

    return 1u << (gave < asked ? gave : asked);
}

static void msi_send(struct pci_function *f, unsigned vector) {
    uint32_t low = vector & (msi_count(f) - 1);
    uint64_t addr = pci_config(f, f->msi + MSI_ADDR, 4);
    uint32_t data = pci_config(f, f->msi + MSI_DATA, 2);

    addr |= (uint64_t)pci_config(f, f->msi + MSI_ADDR + 4, 4) << 32;
    send(f, addr, (data & ~(msi_count(f) - 1)) | low);
}

void pci_msi_raise(struct pci_function *f, unsigned vector) {
    uint32_t pending;

    if (!pci_msi_enabled(f) || vector >= 32)
        return;
    vector &= msi_count(f) - 1;
    if (pci_bus_master(f) && !(pci_config(f, f->msi + MSI_MASK, 4) & (1u << vector))) {
        msi_send(f, vector);
        return;
    }
    pending = pci_config(f, f->msi + MSI_PENDING, 4);
    pci_set(f, f->msi + MSI_PENDING, 4, pending | 1u << vector);
}

static void msi_changed(struct pci_function *f) {
    uint32_t pending;

    if (!pci_msi_enabled(f) || !pci_bus_master(f))
        return;
    pending = pci_config(f, f->msi + MSI_PENDING, 4);
    for (unsigned n = 0; n < 32; n++) {
        if (!(pending & ~pci_config(f, f->msi + MSI_MASK, 4) & (1u << n)))
            continue;
        pending &= ~(1u << n);
        pci_set(f, f->msi + MSI_PENDING, 4, pending);
        msi_send(f, n);
    }
}

/* --- MSI-X --- */

bool pci_msix_enabled(const struct pci_function *f) {
    return f->msix && (pci_config(f, f->msix + CONTROL, 2) & MSIX_ENABLE);
}

bool pci_msix_masked(const struct pci_function *f, unsigned vector) {
    return !pci_msix_enabled(f) || vector >= f->msix_vectors ||
           (pci_config(f, f->msix + CONTROL, 2) & MSIX_MASK_ALL) ||
           (f->msix_table[vector].control & ENTRY_MASKED);
}

static void msix_send(const struct pci_function *f, unsigned vector) {
    const struct pci_msix_entry *e = &f->msix_table[vector];

    send(f, (uint64_t)e->addr_high << 32 | (e->addr & ~3u), e->data);
}

void pci_msix_raise(struct pci_function *f, unsigned vector) {
    if (!pci_msix_enabled(f) || vector >= f->msix_vectors)
        return;
    if (pci_msix_masked(f, vector) || !pci_bus_master(f))
        f->msix_pending[vector / 8] |= (uint8_t)(1u << (vector % 8));
    else
        msix_send(f, vector);
}

/* VECTOR goes if it is pending and nothing is in its way. */
static void msix_try(struct pci_function *f, unsigned vector) {
    uint8_t *byte = &f->msix_pending[vector / 8], bit = (uint8_t)(1u << (vector % 8));

    if (!(*byte & bit) || pci_msix_masked(f, vector) || !pci_bus_master(f))
        return;
    *byte &= (uint8_t)~bit;
    msix_send(f, vector);
}

/* The bar: table in the lower half, pending bits in the upper. Widths other than 4 and 8,
 * or addresses that are no multiple of them, are undefined in the standard: here they see
 * the doublewords that hold them. */
static uint32_t *table_word(struct pci_function *f, uint64_t addr) {
    struct pci_msix_entry *e =
        &f->msix_table[addr / 16 < f->msix_vectors ? addr / 16 : 0];

    if (addr / 16 >= f->msix_vectors)
        return NULL;
    switch (addr >> 2 & 3) {
    case 0:
        return &e->addr;
    case 1:
        return &e->addr_high;
    case 2:
        return &e->data;
    default:
        return &e->control;
    }
}

static uint32_t msix_word(struct pci_function *f, uint64_t addr) {
    uint64_t half = f->bar[f->msix_bar].size / 2;
    uint32_t *w, value = 0;

    if (addr < half) {
        w = table_word(f, addr);
        return w ? *w : 0;
    }
    addr = (addr - half) & ~3ull;
    for (unsigned i = 0; i < 4 && addr + i < (f->msix_vectors + 7) / 8; i++)
        value |= (uint32_t)f->msix_pending[addr + i] << (i * 8);
    return value;
}

static uint64_t msix_read(void *dev, uint64_t addr, unsigned size) {
    return msix_word(dev, addr) >> ((addr & 3) * 8);
}

static void msix_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    struct pci_function *f = dev;
    unsigned shift = (unsigned)(addr & 3) * 8;
    uint32_t mask = (uint32_t)(((1ull << (size * 8)) - 1) << shift);
    uint32_t *w = addr < f->bar[f->msix_bar].size / 2 ? table_word(f, addr) : NULL;

    if (!w)
        return;
    if ((addr & 0xc) == 0xc)
        mask &= ENTRY_MASKED;
    *w = (*w & ~mask) | ((uint32_t)value << shift & mask);
    msix_try(f, (unsigned)(addr / 16));
}

static const struct bus_ops msix_ops = {
    .read = msix_read, .write = msix_write, .width = 4};

int pci_add_msix(struct pci_function *f, unsigned n, unsigned vectors) {
    uint64_t size = MSIX_BAR_MIN;
    int rc;

    if (!vectors || vectors > MSIX_MAX || n >= PCI_BARS || f->msix)
        return -EINVAL;
    while (size / 2 < vectors * 16ull)
        size *= 2;
    f->msix_table = calloc(vectors, sizeof(*f->msix_table));
    f->msix_pending = calloc((vectors + 7) / 8, 1);
    f->msix_vectors = vectors;
    f->msix_bar = n;
    rc = f->msix_table && f->msix_pending ? 0 : -ENOMEM;
    if (!rc)
        rc = pci_add_bar(f, n, PCI_BAR_MMIO32, size, &msix_ops, f);
    if (!rc)
        f->msix = pci_add_capability(f, PCI_CAP_MSIX, MSIX_SIZE);
    if (!rc && !f->msix)
        rc = -ENOSPC;
    if (rc) {
        pci_interrupts_free(f);
        return rc;
    }
    pci_define(f, f->msix + CONTROL, 2, vectors - 1, MSIX_ENABLE | MSIX_MASK_ALL);
    pci_define(f, f->msix + MSIX_TABLE, 4, n, 0);
    pci_define(f, f->msix + MSIX_PBA, 4, (uint32_t)(size / 2) | n, 0);
    pci_interrupts_reset(f);
    return 0;
}

/* --- all of them --- */

void pci_interrupts_changed(struct pci_function *f) {
    drive(f);
    if (f->msi)
        msi_changed(f);
    for (unsigned n = 0; n < f->msix_vectors; n++)
        if (f->msix_pending[n / 8])
            msix_try(f, n);
}

void pci_interrupts_reset(struct pci_function *f) {
    for (unsigned n = 0; n < f->msix_vectors; n++) {
        f->msix_table[n] = (struct pci_msix_entry){.control = ENTRY_MASKED};
        f->msix_pending[n / 8] = 0;
    }
    f->irq = false;
    drive(f);
}

void pci_interrupts_free(struct pci_function *f) {
    free(f->msix_table);
    free(f->msix_pending);
    f->msix_table = NULL;
    f->msix_pending = NULL;
    f->msix_vectors = f->msix = 0;
}

/* Whoever hears of the lines has a record of his own: nobody is told. */
void pci_interrupts_state(struct pci_function *f, struct snapshot *s) {
    SNAPSHOT(s, f->irq);
    SNAPSHOT(s, f->driven);
    snapshot_need(s, !f->driven || f->config[PCI_INTERRUPT_PIN]);
    for (unsigned n = 0; n < f->msix_vectors; n++) {
        struct pci_msix_entry *e = &f->msix_table[n];

        SNAPSHOT(s, e->addr);
        SNAPSHOT(s, e->addr_high);
        SNAPSHOT(s, e->data);
        SNAPSHOT_UPTO(s, e->control, ENTRY_MASKED);
    }
    snapshot_bytes(s, f->msix_pending, (f->msix_vectors + 7) / 8);
}
