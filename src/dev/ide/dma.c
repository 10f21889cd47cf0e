/*
 * The bus master of a channel: a table of physical regions in guest memory, through which
 * a drive's buffer is filled or emptied. "Programming Interface for Bus Master IDE
 * Controller", "Physical Region Descriptor Table".
 *
 * The table is read a descriptor at a time, each once; the bounds are the guest's, what
 * is copied is checked by mem/.
 */
#include "dev/ide/ide_int.h"

#define PRD_SIZE 8u
#define PRD_LAST 0x80000000u
#define TABLE_MAX 0x10000u /* it may not cross such a boundary */

void ide_dma_start(struct ide_channel *c) {
    c->prd_at = c->bm_table;
    c->prd_left = 0;
    c->prd_last = false;
    c->bm_status |= BM_ACTIVE;
}

static bool next_prd(struct ide_channel *c) {
    uint32_t prd[2];

    if (c->prd_last || c->prd_at - (c->bm_table & ~(TABLE_MAX - 1)) >= TABLE_MAX ||
        !mem_read(c->mem, gpa(c->prd_at), prd, sizeof(prd)))
        return false;
    c->prd_at += PRD_SIZE;
    c->prd_base = prd[0] & ~1u;
    c->prd_left = prd[1] & 0xfffe ? prd[1] & 0xfffe : 0x10000;
    c->prd_last = prd[1] & PRD_LAST;
    return true;
}

/* N bytes of the buffer, which are within the descriptor. */
static bool copy(struct ide_drive *d, uint32_t n) {
    struct ide_channel *c = d->channel;

    if (c->bm_command & BM_TO_MEMORY)
        return mem_write(c->mem, gpa(c->prd_base), d->buf + d->pos, n);
    return mem_read(c->mem, gpa(c->prd_base), d->buf + d->pos, n);
}

static bool stop(struct ide_channel *c, bool error) {
    c->bm_status &= (uint8_t)~BM_ACTIVE;
    c->bm_status |= error ? BM_ERROR : 0;
    return false;
}

bool ide_dma_move(struct ide_drive *d) {
    struct ide_channel *c = d->channel;

    if (!pci_bus_master(c->pci) || d->to_guest != !!(c->bm_command & BM_TO_MEMORY))
        return stop(c, true);
    while (d->pos < d->end) {
        uint32_t n = d->end - d->pos;

        if (!c->prd_left && !next_prd(c))
            return stop(c, !c->prd_last);
        n = n < c->prd_left ? n : c->prd_left;
        if (!copy(d, n))
            return stop(c, true);
        d->pos += n;
        c->prd_base += n;
        c->prd_left -= n;
    }
    return true;
}
