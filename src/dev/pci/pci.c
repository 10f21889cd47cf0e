/*
 * The bus: who is where, and configuration mechanism 1. PCI Local Bus Specification 3.0,
 * "Software Generation of Configuration Transactions" and "Configuration Space Decoding".
 *
 * CONFIG_ADDRESS is written and read by doublewords at 0xcf8; any other access to its
 * four ports is somebody else's. While its bit 31 is set, accesses at 0xcfc to 0xcff, of
 * one, two or four bytes, go to the function that it names. There is one bus, number 0;
 * where there is no function (or none yet: only by its function 0 is a slot there), reads
 * give all ones.
 */
#include "dev/pci/pci.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/pci/pci_int.h"
#include "snapshot/snapshot.h"

#define ADDRESS_PORT 0xcf8
#define DATA_PORT 0xcfc
#define ADDRESS_ENABLE (1u << 31)
#define ADDRESS_BITS 0x80fffffcu
#define MULTI_FUNCTION 0x80u

/* --- accesses --- */

uint32_t pci_config_read(struct pci_function *f, unsigned at, unsigned size) {
    if (f->ops && f->ops->config_read)
        f->ops->config_read(f, at, size);
    return pci_config(f, at, size);
}

void pci_config_write(struct pci_function *f, unsigned at, unsigned size,
                      uint32_t value) {
    for (unsigned i = 0; i < size && at + i < sizeof(f->config); i++) {
        uint8_t v = (uint8_t)(value >> (i * 8)), mask = f->writable[at + i];
        uint8_t *c = &f->config[at + i];

        *c = (uint8_t)((*c & ~mask) | (v & mask));
        *c &= (uint8_t) ~(v & f->clearable[at + i]);
    }
    pci_bars_changed(f);
    pci_interrupts_changed(f);
    if (f->ops && f->ops->config_written)
        f->ops->config_written(f, at, size);
}

struct pci_function *pci_at(const struct pci *p, unsigned slot, unsigned function) {
    if (slot >= PCI_SLOTS || function >= PCI_FUNCTIONS || !p->at[slot][0])
        return NULL;
    return p->at[slot][function];
}

/* Whom CONFIG_ADDRESS names, or NULL. */
static struct pci_function *selected(const struct pci *p) {
    if (!(p->address & ADDRESS_ENABLE) || (p->address >> 16 & 0xff))
        return NULL;
    return pci_at(p, p->address >> 11 & 31, p->address >> 8 & 7);
}

static uint64_t data_read(void *dev, uint64_t addr, unsigned size) {
    struct pci *p = dev;
    struct pci_function *f = selected(p);

    return f ? pci_config_read(f, (p->address & 0xfc) + (unsigned)addr, size) : ~0ull;
}

static void data_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    struct pci *p = dev;
    struct pci_function *f = selected(p);

    if (f)
        pci_config_write(f, (p->address & 0xfc) + (unsigned)addr, size, (uint32_t)value);
}

static uint64_t address_read(void *dev, uint64_t addr, unsigned size) {
    struct pci *p = dev;

    if (size == 4)
        return p->address;
    return p->host.not_pci ? p->host.not_pci->read(p->host.not_pci_dev, addr, size)
                           : ~0ull;
}

static void address_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    struct pci *p = dev;

    if (size == 4)
        p->address = (uint32_t)value & ADDRESS_BITS;
    else if (p->host.not_pci)
        p->host.not_pci->write(p->host.not_pci_dev, addr, size, value);
}

static const struct bus_ops address_ops = {
    .read = address_read, .write = address_write, .width = 4};
static const struct bus_ops data_ops = {
    .read = data_read, .write = data_write, .width = 4};

/* --- functions --- */

static void define_header(struct pci_function *f, const struct pci_identity *id) {
    pci_define(f, PCI_VENDOR, 2, id->vendor, 0);
    pci_define(f, PCI_DEVICE, 2, id->device, 0);
    /* I/O and memory come with the bars, INTx with its pin. */
    pci_define(f, PCI_COMMAND, 2, 0,
               PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR);
    pci_define(f, PCI_REVISION, 1, id->revision, 0);
    pci_define(f, PCI_CLASS, 1, id->class, 0);
    pci_define(f, PCI_CLASS + 1, 2, id->class >> 8, 0);
    pci_define(f, PCI_SUB_VENDOR, 2, id->sub_vendor, 0);
    pci_define(f, PCI_SUB_DEVICE, 2, id->sub_device, 0);
}

int pci_add(struct pci *p, struct pci_function *f, unsigned slot, unsigned number,
            const char *name, const struct pci_identity *id, const struct pci_ops *ops) {
    struct pci_function *first;

    if (slot >= PCI_SLOTS || number >= PCI_FUNCTIONS)
        return -EINVAL;
    first = p->at[slot][0];
    if (p->at[slot][number])
        return -EBUSY;
    if (number && !first)
        return -EINVAL;
    f->pci = p;
    f->ops = ops;
    f->name = name;
    f->slot = (uint8_t)slot;
    f->number = (uint8_t)number;
    f->caps_end = PCI_OWN;
    define_header(f, id);
    p->at[slot][number] = f;
    if (number) {
        pci_define(f, PCI_HEADER_TYPE, 1, MULTI_FUNCTION, 0);
        pci_define(first, PCI_HEADER_TYPE, 1, MULTI_FUNCTION, 0);
    }
    return 0;
}

void pci_remove(struct pci_function *f) {
    if (!f->pci)
        return;
    pci_irq(f, false);
    pci_bars_remove(f);
    pci_interrupts_free(f);
    f->pci->at[f->slot][f->number] = NULL;
    f->pci = NULL;
}

static void reset_function(struct pci_function *f) {
    for (unsigned i = 0; i < sizeof(f->config); i++)
        f->config[i] = f->power_up[i];
    pci_bars_changed(f);
    pci_interrupts_reset(f);
    if (f->ops && f->ops->reset)
        f->ops->reset(f);
}

/* --- the bus --- */

void pci_reset(struct pci *p) {
    p->address = 0;
    for (unsigned n = 0; n < PCI_SLOTS * PCI_FUNCTIONS; n++) {
        struct pci_function *f = p->at[n / PCI_FUNCTIONS][n % PCI_FUNCTIONS];

        if (f)
            reset_function(f);
    }
}

struct pci *pci_new(struct bus *bus, const struct pci_host *host) {
    struct pci *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->bus = bus;
    p->host = *host;
    if (!bus_attach_pio(bus, ADDRESS_PORT, 4, &address_ops, p, "PCI address") ||
        !bus_attach_pio(bus, DATA_PORT, 4, &data_ops, p, "PCI data")) {
        free(p);
        return NULL;
    }
    return p;
}

struct bus *pci_bus(const struct pci *p) {
    return p->bus;
}

void pci_free(struct pci *p) {
    free(p);
}

/* --- snapshots --- */

void pci_state(struct pci *p, struct snapshot *s) {
    SNAPSHOT(s, p->address);
    snapshot_need(s, !(p->address & ~ADDRESS_BITS));
}

void pci_function_state(struct pci_function *f, struct snapshot *s) {
    pci_config_state(f, s);
    pci_interrupts_state(f, s);
    if (!snapshot_reading(s) || !snapshot_good(s))
        return;
    pci_bars_changed(f);
    if (f->ops && f->ops->config_written)
        f->ops->config_written(f, 0, sizeof(f->config));
}
