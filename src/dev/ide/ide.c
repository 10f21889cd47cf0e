/*
 * The PCI function with its two channels; see ide.h. In compatibility mode: the channels
 * are at the ports and interrupts of old, whatever the first four bars say, and answer as
 * long as IDETIM has their decode bit on, which it is at power-up. Bar 4 is the bus
 * masters'.
 */
#include "dev/ide/ide_int.h"

#include <stdlib.h>

#define VENDOR 0x8086
#define DEVICE 0x7010    /* PIIX3 IDE */
#define CLASS 0x010180   /* IDE, with bus masters, compatibility mode only */
#define IDETIM 0x40      /* 16 bits a channel */
#define IDETIM_ON 0x8000 /* decode */

struct ide {
    struct pci_function pci;
    struct ide_channel channel[2];
};

static const uint16_t ports[2] = {0x1f0, 0x170}, controls[2] = {0x3f6, 0x376};

static const struct bus_ops task_ops = {.read = ide_read, .write = ide_write, .width = 4};
static const struct bus_ops control_ops = {
    .read = ide_control_read, .write = ide_control_write, .width = 1};

static uint64_t bm_read(void *dev, uint64_t reg, unsigned size) {
    struct ide *i = dev;

    return ide_bm_read(&i->channel[reg >> 3 & 1], reg & 7, size);
}

static void bm_write(void *dev, uint64_t reg, unsigned size, uint64_t value) {
    struct ide *i = dev;

    ide_bm_write(&i->channel[reg >> 3 & 1], reg & 7, size, value);
}

static const struct bus_ops bm_ops = {.read = bm_read, .write = bm_write, .width = 4};

static void decode(struct ide *i) {
    for (unsigned n = 0; n < 2; n++) {
        bool on = pci_config(&i->pci, IDETIM + 2 * n, 2) & IDETIM_ON;

        bus_range_enable(i->channel[n].ports, on);
        bus_range_enable(i->channel[n].control, on);
    }
}

static void config_written(struct pci_function *f, unsigned at, unsigned size) {
    decode((struct ide *)((uint8_t *)f - offsetof(struct ide, pci)));
}

static const struct pci_ops pci_ops = {.config_written = config_written};

static void reset_drive(struct ide_drive *d) {
    if (!d->present)
        return;
    if (d->block)
        block_drain(d->block);
    d->busy = d->stale = false;
    d->heads = 16;
    d->per_track = 63;
    d->write_cache = true;
    d->dma_mode = 0;
    d->device = 0;
    d->open = d->locked = d->changed = false;
    d->attention = d->cdrom;
    ide_sense(d, 0, 0, 0);
    ide_drive_ready(d);
}

void ide_reset(struct ide *i) {
    for (unsigned n = 0; n < 2; n++) {
        struct ide_channel *c = &i->channel[n];

        reset_drive(&c->drive[0]);
        reset_drive(&c->drive[1]);
        c->selected = 0;
        c->no_irq = c->srst = false;
        c->hob = 0;
        c->bm_command = 0;
        c->bm_status = 0;
        c->bm_table = 0;
        c->prd_left = 0;
        ide_lower(c);
    }
    decode(i);
}

static bool make_drive(struct ide_channel *c, unsigned n, struct block *b, bool cdrom) {
    struct ide_drive *d = &c->drive[n];

    d->channel = c;
    d->present = b || cdrom;
    if (!d->present)
        return true;
    d->block = b;
    d->cdrom = cdrom;
    d->sector_size = cdrom ? IDE_CD_SECTOR : IDE_SECTOR;
    d->sectors = b ? block_size(b) / IDE_SECTOR : 0;
    d->buf = calloc(1, IDE_BUFFER);
    return d->buf;
}

static bool make_channel(struct ide *i, unsigned n, struct bus *bus, struct mem *m,
                         const struct ide_config *cfg) {
    struct ide_channel *c = &i->channel[n];

    c->irq = cfg->irq[n];
    c->mem = m;
    c->pci = &i->pci;
    for (unsigned k = 0; k < 2; k++)
        if (!make_drive(c, k, cfg->drive[2 * n + k].block, cfg->drive[2 * n + k].cdrom))
            return false;
    c->ports = bus_attach_pio(bus, ports[n], 8, &task_ops, c, "IDE");
    c->control = bus_attach_pio(bus, controls[n], 1, &control_ops, c, "IDE control");
    return c->ports && c->control;
}

struct ide *ide_new(struct pci *p, unsigned slot, unsigned function, struct bus *bus,
                    struct mem *m, const struct ide_config *cfg) {
    static const struct pci_identity id = {
        .vendor = VENDOR, .device = DEVICE, .class = CLASS};
    struct ide *i = calloc(1, sizeof(*i));

    if (!i)
        return NULL;
    if (pci_add(p, &i->pci, slot, function, "IDE", &id, &pci_ops) ||
        pci_add_bar(&i->pci, 4, PCI_BAR_IO, 16, &bm_ops, i) ||
        !make_channel(i, 0, bus, m, cfg) || !make_channel(i, 1, bus, m, cfg)) {
        ide_free(i);
        return NULL;
    }
    pci_define(&i->pci, IDETIM, 4, IDETIM_ON | IDETIM_ON << 16, 0xffffffff);
    ide_reset(i);
    return i;
}

void ide_free(struct ide *i) {
    if (!i)
        return;
    for (unsigned n = 0; n < 2; n++) {
        struct ide_channel *c = &i->channel[n];

        for (unsigned k = 0; k < 2; k++) {
            if (c->drive[k].block)
                block_drain(c->drive[k].block);
            free(c->drive[k].buf);
        }
        bus_range_detach(c->ports);
        bus_range_detach(c->control);
    }
    pci_remove(&i->pci);
    free(i);
}
