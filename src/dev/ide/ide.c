/*
 * The PCI function with its two channels; see ide.h. In compatibility mode: the channels
 * are at the ports and interrupts of old, whatever the first four bars say, and answer as
 * long as IDETIM has their decode bit on, which it is at power-up. Bar 4 is the bus
 * masters'.
 */
#include "dev/ide/ide_int.h"
#include "snapshot/snapshot.h"

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
    d->locked = d->changed = false;
    d->event = 0;
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

bool ide_tray(struct ide *i, unsigned drive, bool open, bool force) {
    struct ide_drive *d = &i->channel[drive / 2].drive[drive % 2];

    if (open == d->open)
        return true;
    if (open && d->locked && !force) {
        d->event = IDE_WISH;
        return false;
    }
    d->open = open;
    d->changed = !open && d->block;
    d->event = open ? IDE_REMOVAL : 0; /* nobody wants it open any more */
    if (open)
        d->locked = false;
    return true;
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

/* --- snapshots --- */

/* What a command may go on with, by number. */
static void (*const next[])(struct ide_drive *d) = {
    NULL, ide_taken, ide_ata_taken, ide_ata_given, ide_atapi_sent, ide_atapi_packet,
};

static uint8_t number_of(void (*fn)(struct ide_drive *d)) {
    uint8_t n = 0;

    while (n < ARRAY_SIZE(next) - 1 && next[n] != fn)
        n++;
    return n;
}

static void task_state(struct ide_drive *d, struct snapshot *s) {
    for (unsigned n = 0; n < 2; n++) {
        SNAPSHOT(s, d->feature[n]);
        SNAPSHOT(s, d->count[n]);
        SNAPSHOT(s, d->low[n]);
        SNAPSHOT(s, d->mid[n]);
        SNAPSHOT(s, d->high[n]);
    }
    SNAPSHOT(s, d->device);
    SNAPSHOT(s, d->status);
    SNAPSHOT(s, d->error);
    SNAPSHOT_UPTO(s, d->heads, 16);
    SNAPSHOT_UPTO(s, d->per_track, 255);
    SNAPSHOT_UPTO(s, d->multiple, IDE_MULTIPLE);
    SNAPSHOT(s, d->write_cache);
    SNAPSHOT(s, d->dma_mode);
    snapshot_need(s, d->heads && d->per_track && !(d->multiple & (d->multiple - 1)));
    d->heads = d->heads ? d->heads : 1;
    d->per_track = d->per_track ? d->per_track : 1;
}

static void packet_state(struct ide_drive *d, struct snapshot *s) {
    snapshot_bytes(s, d->packet, sizeof(d->packet));
    SNAPSHOT(s, d->sense);
    SNAPSHOT(s, d->asc);
    SNAPSHOT(s, d->ascq);
    SNAPSHOT(s, d->attention);
    SNAPSHOT(s, d->changed);
    SNAPSHOT(s, d->open);
    SNAPSHOT(s, d->locked);
    SNAPSHOT(s, d->by_dma);
    SNAPSHOT_UPTO(s, d->limit, 0xfffe);
    SNAPSHOT_UPTO(s, d->data_len, IDE_BUFFER);
    SNAPSHOT_UPTO(s, d->data_sent, d->data_len);
}

/* What it goes on with comes to an end, within the buffer. */
static bool can_go_on(const struct ide_drive *d) {
    if (d->next == ide_ata_taken || d->next == ide_ata_given)
        return d->piece && d->piece <= d->left && d->at_once;
    if (d->next == ide_atapi_sent)
        return d->end <= d->data_len && (!d->left || d->piece <= d->left);
    return true;
}

/* A command in its middle. What was read makes sense as far as memory goes: the rest a
 * disk, a bus master or the guest refuses. */
static void transfer_state(struct ide_drive *d, struct snapshot *s) {
    uint8_t go_on = number_of(d->next);
    uint32_t most = IDE_BUFFER / d->sector_size;

    SNAPSHOT_UPTO(s, go_on, ARRAY_SIZE(next) - 1);
    d->next = next[go_on];
    SNAPSHOT_UPTO(s, d->end, IDE_BUFFER);
    SNAPSHOT_UPTO(s, d->pos, d->end);
    SNAPSHOT(s, d->to_guest);
    SNAPSHOT(s, d->dma);
    SNAPSHOT(s, d->large);
    SNAPSHOT(s, d->sector);
    SNAPSHOT_UPTO(s, d->left, 0x10000);
    SNAPSHOT_UPTO(s, d->piece, most);
    SNAPSHOT_UPTO(s, d->at_once, most);
    if (!can_go_on(d)) {
        d->next = NULL;
        snapshot_need(s, false);
    }
    snapshot_sparse(s, d->buf, IDE_BUFFER);
}

static void drive_state(struct ide_drive *d, struct snapshot *s) {
    bool present = d->present, cdrom = d->cdrom;
    uint64_t sectors = d->sectors;

    SNAPSHOT(s, present);
    SNAPSHOT(s, cdrom);
    SNAPSHOT(s, sectors);
    snapshot_need(s, present == d->present && cdrom == d->cdrom);
    if (snapshot_reading(s) && sectors != d->sectors)
        snapshot_refuse(s, "a disk has another size than it had");
    if (!d->present || !snapshot_good(s))
        return;
    task_state(d, s);
    packet_state(d, s);
    transfer_state(d, s);
}

static void channel_state(struct ide_channel *c, struct snapshot *s) {
    drive_state(&c->drive[0], s);
    drive_state(&c->drive[1], s);
    SNAPSHOT_UPTO(s, c->selected, 1);
    SNAPSHOT(s, c->no_irq);
    SNAPSHOT(s, c->srst);
    SNAPSHOT_UPTO(s, c->hob, 1);
    SNAPSHOT(s, c->intrq);
    SNAPSHOT(s, c->bm_command);
    SNAPSHOT(s, c->bm_status);
    SNAPSHOT(s, c->bm_table);
    SNAPSHOT(s, c->prd_at);
    SNAPSHOT(s, c->prd_base);
    SNAPSHOT_UPTO(s, c->prd_left, 0x10000);
    SNAPSHOT(s, c->prd_last);
}

void ide_state(struct ide *i, struct snapshot *s) {
    pci_function_state(&i->pci, s);
    channel_state(&i->channel[0], s);
    channel_state(&i->channel[1], s);
}
