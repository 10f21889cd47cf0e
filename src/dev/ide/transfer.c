/*
 * Status and interrupt, blocks of data, and the disk: what commands are made of. See
 * ide_int.h.
 */
#include "dev/ide/ide_int.h"

/* --- interrupt --- */

void ide_update_irq(struct ide_channel *c) {
    irq_set(&c->irq, c->intrq && !c->no_irq);
}

void ide_raise(struct ide_channel *c) {
    c->intrq = true;
    c->bm_status |= BM_IRQ;
    ide_update_irq(c);
}

void ide_lower(struct ide_channel *c) {
    c->intrq = false;
    ide_update_irq(c);
}

/* A drive that is not selected keeps its interrupt to itself. */
static void interrupt(struct ide_drive *d) {
    if (d == ide_selected(d->channel))
        ide_raise(d->channel);
}

/* The transfer is over: the bus master knows when its table was all used. */
static void end_dma(struct ide_drive *d) {
    struct ide_channel *c = d->channel;

    if (d->dma && c->prd_last && !c->prd_left)
        c->bm_status &= (uint8_t)~BM_ACTIVE;
    d->dma = false;
}

void ide_done(struct ide_drive *d) {
    end_dma(d);
    d->next = NULL;
    d->pos = d->end = 0;
    d->status = IDE_DRDY | IDE_DSC;
    interrupt(d);
}

void ide_taken(struct ide_drive *d) {
    d->next = NULL;
    d->status = IDE_DRDY | IDE_DSC;
}

void ide_fail(struct ide_drive *d, uint8_t error) {
    end_dma(d);
    d->next = NULL;
    d->pos = d->end = 0;
    d->error = error;
    d->status = IDE_DRDY | IDE_DSC | IDE_ERR;
    interrupt(d);
}

/* --- data --- */

static void data(struct ide_drive *d, uint32_t len, void (*next)(struct ide_drive *d)) {
    d->pos = 0;
    d->end = len < IDE_BUFFER ? len : IDE_BUFFER;
    d->next = next;
}

void ide_offer(struct ide_drive *d, uint32_t len, bool irq,
               void (*next)(struct ide_drive *d)) {
    data(d, len, next);
    d->to_guest = true;
    d->status = IDE_DRDY | IDE_DSC | IDE_DRQ;
    if (irq)
        interrupt(d);
}

void ide_want(struct ide_drive *d, uint32_t len, bool irq,
              void (*next)(struct ide_drive *d)) {
    data(d, len, next);
    d->to_guest = false;
    d->status = IDE_DRDY | IDE_DSC | IDE_DRQ;
    if (irq)
        interrupt(d);
}

void ide_by_dma(struct ide_drive *d, uint32_t len, void (*next)(struct ide_drive *d)) {
    data(d, len, next);
    d->dma = true;
    d->status = IDE_DRDY | IDE_DSC | IDE_DRQ;
    ide_dma_go(d);
}

void ide_dma_go(struct ide_drive *d) {
    void (*next)(struct ide_drive * d) = d->next;

    if (!d->dma || !next || !(d->status & IDE_DRQ) ||
        !(d->channel->bm_status & BM_ACTIVE))
        return;
    d->status = IDE_BSY;
    if (!ide_dma_move(d)) {
        ide_fail(d, IDE_ABRT);
        return;
    }
    d->next = NULL;
    next(d);
}

/* --- the disk --- */

void ide_disk(struct ide_drive *d, enum block_op op,
              void (*done)(struct block_request *r, int rc)) {
    bool data = op == BLOCK_READ || op == BLOCK_WRITE;
    uint64_t len = data ? (uint64_t)d->piece * d->sector_size : 0;

    d->status = IDE_BSY;
    d->busy = true;
    d->iov = (struct block_iov){.base = d->buf, .len = len};
    d->request = (struct block_request){.op = op,
                                        .offset = data ? d->sector * d->sector_size : 0,
                                        .length = len,
                                        .iov = &d->iov,
                                        .iov_count = data ? 1 : 0,
                                        .done = done};
    block_submit(d->block, &d->request);
}

struct ide_drive *ide_disk_done(struct block_request *r) {
    struct ide_drive *d =
        (struct ide_drive *)((uint8_t *)r - offsetof(struct ide_drive, request));

    d->busy = false;
    if (!d->stale)
        return d;
    d->stale = false;
    ide_drive_ready(d);
    return NULL;
}

/* --- resets --- */

void ide_signature(struct ide_drive *d) {
    d->count[0] = d->low[0] = 1;
    d->mid[0] = d->cdrom ? 0x14 : 0;
    d->high[0] = d->cdrom ? 0xeb : 0;
    d->device &= IDE_DEV;
}

void ide_drive_ready(struct ide_drive *d) {
    d->next = NULL;
    d->pos = d->end = d->left = 0;
    d->dma = false;
    d->error = 0x01; /* diagnostic code: it is well */
    d->status = d->cdrom ? 0 : IDE_DRDY | IDE_DSC;
    d->multiple = 0;
    ide_signature(d);
}

void ide_drive_reset(struct ide_drive *d) {
    if (!d->present)
        return;
    if (d->busy) {
        d->stale = true;
        block_cancel(d->block);
        return;
    }
    ide_drive_ready(d);
}
