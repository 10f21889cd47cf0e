/*
 * A channel's registers. ATA/ATAPI-6, "I/O register descriptions"; both drives take what
 * is written, the one that is selected answers and executes.
 */
#include "dev/ide/ide_int.h"

enum { DATA, FEATURE, COUNT, LOW, MID, HIGH, DEVICE, COMMAND };
enum { CONTROL_NIEN = 0x02, CONTROL_SRST = 0x04, CONTROL_HOB = 0x80 };

#define CHECK_DRIVES 0x90u /* EXECUTE DEVICE DIAGNOSTIC, for both */
#define DEVICE_RESET 0x08u

/* --- data --- */

/* The drive's block was moved: what comes now. */
static void moved(struct ide_drive *d) {
    void (*next)(struct ide_drive * d) = d->next;

    if (d->pos < d->end || !next)
        return;
    d->next = NULL;
    d->status = (d->status & ~IDE_DRQ) | IDE_BSY;
    next(d);
}

static bool at_port(const struct ide_drive *d, bool to_guest) {
    return (d->status & IDE_DRQ) && !d->dma && d->to_guest == to_guest;
}

static uint64_t data_read(struct ide_drive *d, unsigned size) {
    uint64_t v = 0;

    if (!at_port(d, true))
        return 0;
    for (unsigned i = 0; i < size && d->pos < d->end; i++)
        v |= (uint64_t)d->buf[d->pos++] << 8 * i;
    moved(d);
    return v;
}

static void data_write(struct ide_drive *d, unsigned size, uint64_t value) {
    if (!at_port(d, false))
        return;
    for (unsigned i = 0; i < size && d->pos < d->end; i++)
        d->buf[d->pos++] = (uint8_t)(value >> 8 * i);
    moved(d);
}

/* --- resets --- */

static void reset_drives(struct ide_channel *c) {
    ide_lower(c);
    c->selected = 0;
    c->hob = 0;
    for (unsigned n = 0; n < 2; n++) {
        ide_drive_reset(&c->drive[n]);
        c->drive[n].attention |= c->drive[n].cdrom;
        c->drive[n].device = 0;
    }
}

static void diagnose(struct ide_channel *c) {
    reset_drives(c);
    ide_raise(c);
}

/* --- registers --- */

static void command(struct ide_channel *c, uint8_t value) {
    struct ide_drive *d = ide_selected(c);

    ide_lower(c);
    c->hob = 0;
    if (value == CHECK_DRIVES && !c->drive[0].busy && !c->drive[1].busy &&
        (c->drive[0].present || c->drive[1].present)) {
        diagnose(c);
        return;
    }
    if (!d->present)
        return;
    if (value == DEVICE_RESET && d->cdrom) {
        ide_drive_reset(d);
        return;
    }
    if (d->status & (IDE_BSY | IDE_DRQ))
        return; /* the standard leaves open what happens */
    d->error = 0;
    d->status = IDE_DRDY | IDE_DSC;
    d->cdrom ? ide_atapi_command(d, value) : ide_ata_command(d, value);
}

/* A register that is two deep: what was there moves back. */
static void push(uint8_t reg[2], uint8_t value) {
    reg[1] = reg[0];
    reg[0] = value;
}

static void write_task(struct ide_drive *d, uint64_t reg, uint8_t value) {
    if (d->status & (IDE_BSY | IDE_DRQ))
        return;
    switch (reg) {
    case FEATURE:
        push(d->feature, value);
        break;
    case COUNT:
        push(d->count, value);
        break;
    case LOW:
        push(d->low, value);
        break;
    case MID:
        push(d->mid, value);
        break;
    case HIGH:
        push(d->high, value);
        break;
    default:
        d->device = value;
        break;
    }
}

void ide_write(void *channel, uint64_t reg, unsigned size, uint64_t value) {
    struct ide_channel *c = channel;

    if (reg == DATA) {
        data_write(ide_selected(c), size, value);
        return;
    }
    for (unsigned i = 0; i < size; i++, reg++) {
        uint8_t byte = (uint8_t)(value >> 8 * i);

        if (reg == COMMAND) {
            command(c, byte);
            return;
        }
        c->hob = 0;
        write_task(&c->drive[0], reg, byte);
        write_task(&c->drive[1], reg, byte);
        if (reg == DEVICE)
            c->selected = byte & IDE_DEV ? 1 : 0;
    }
}

static uint8_t read_task(const struct ide_channel *c, uint64_t reg) {
    const struct ide_drive *d = &c->drive[c->selected];
    unsigned old = c->hob ? 1 : 0;

    if (!d->present) /* an absent second drive's registers are the first one's */
        d = &c->drive[!c->selected];
    if (!d->present)
        return 0;
    switch (reg) {
    case FEATURE:
        return d->error;
    case COUNT:
        return d->count[old];
    case LOW:
        return d->low[old];
    case MID:
        return d->mid[old];
    case HIGH:
        return d->high[old];
    default:
        return (uint8_t)((d->device & ~IDE_DEV) | IDE_DEVICE_ONES |
                         (c->selected ? IDE_DEV : 0));
    }
}

static uint8_t status(const struct ide_channel *c) {
    const struct ide_drive *d = &c->drive[c->selected];

    if (!d->present)
        return 0;
    return c->srst || d->stale ? IDE_BSY : d->status;
}

uint64_t ide_read(void *channel, uint64_t reg, unsigned size) {
    struct ide_channel *c = channel;
    uint64_t v = 0;

    if (reg == DATA)
        return data_read(ide_selected(c), size);
    for (unsigned i = 0; i < size; i++, reg++) {
        if (reg == COMMAND) {
            v |= (uint64_t)status(c) << 8 * i;
            ide_lower(c);
            break;
        }
        v |= (uint64_t)read_task(c, reg) << 8 * i;
    }
    return v;
}

/* --- device control, alternate status --- */

uint64_t ide_control_read(void *channel, uint64_t reg, unsigned size) {
    return status(channel);
}

void ide_control_write(void *channel, uint64_t reg, unsigned size, uint64_t value) {
    struct ide_channel *c = channel;
    bool srst = value & CONTROL_SRST;

    c->no_irq = value & CONTROL_NIEN;
    c->hob = value & CONTROL_HOB ? 1 : 0;
    ide_update_irq(c);
    if (srst && !c->srst)
        reset_drives(c);
    c->srst = srst;
}

/* --- the bus master's --- */

enum { BM_COMMAND = 0, BM_STATUS = 2, BM_TABLE = 4 };

uint64_t ide_bm_read(struct ide_channel *c, unsigned reg, unsigned size) {
    const uint8_t regs[8] = {c->bm_command,
                             0,
                             c->bm_status,
                             0,
                             (uint8_t)c->bm_table,
                             (uint8_t)(c->bm_table >> 8),
                             (uint8_t)(c->bm_table >> 16),
                             (uint8_t)(c->bm_table >> 24)};
    uint64_t v = 0;

    for (unsigned i = 0; i < size && reg + i < sizeof(regs); i++)
        v |= (uint64_t)regs[reg + i] << 8 * i;
    return v;
}

static void bm_command(struct ide_channel *c, uint8_t value) {
    bool start = value & BM_START && !(c->bm_command & BM_START);

    /* The direction stays while it runs. */
    if (!(c->bm_command & BM_START) || !(value & BM_START))
        c->bm_command = value & (BM_START | BM_TO_MEMORY);
    if (!(value & BM_START))
        c->bm_status &= (uint8_t)~BM_ACTIVE;
    if (!start)
        return;
    ide_dma_start(c);
    ide_dma_go(ide_selected(c));
}

void ide_bm_write(struct ide_channel *c, unsigned reg, unsigned size, uint64_t value) {
    for (unsigned i = 0; i < size; i++, reg++) {
        uint8_t byte = (uint8_t)(value >> 8 * i);
        unsigned shift = 8 * (reg - BM_TABLE);

        if (reg == BM_COMMAND)
            bm_command(c, byte);
        else if (reg == BM_STATUS)
            c->bm_status =
                (uint8_t)((c->bm_status & ~BM_CAN_DMA & ~(byte & (BM_ERROR | BM_IRQ))) |
                          (byte & BM_CAN_DMA));
        else if (reg >= BM_TABLE && reg < BM_TABLE + 4)
            c->bm_table = (c->bm_table & ~(0xffu << shift)) | (uint32_t)byte << shift;
    }
    c->bm_table &= ~3u;
}
