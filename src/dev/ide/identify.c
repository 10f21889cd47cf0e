/*
 * What a drive says of itself: ATA/ATAPI-6, "IDENTIFY DEVICE" and "IDENTIFY PACKET
 * DEVICE".
 */
#include "dev/ide/ide_int.h"

#define MAX_28BIT 0x0fffffffull
#define UDMA_MODES 0x3fu /* 0 to 5 */
#define MWDMA_MODES 0x07u
#define SETS_82 (1u << 14 | 1u << 5 | 1u << 3) /* NOP, write cache, power management */
#define SETS_83 (1u << 14 | 1u << 13 | 1u << 12 | 1u << 10) /* flushes, 48 bits */

static void word(struct ide_drive *d, unsigned n, unsigned value) {
    d->buf[2 * n] = (uint8_t)value;
    d->buf[2 * n + 1] = (uint8_t)(value >> 8);
}

static void words(struct ide_drive *d, unsigned n, uint64_t value, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        word(d, n + i, (unsigned)(value >> 16 * i) & 0xffff);
}

/* Text, two characters a word, the first in the high byte, filled up with spaces. */
static void text(struct ide_drive *d, unsigned n, unsigned count, const char *s) {
    for (unsigned i = 0; i < 2 * count; i++)
        d->buf[2 * n + (i ^ 1)] = *s ? (uint8_t)*s++ : ' ';
}

static void modes(struct ide_drive *d) {
    bool ultra = (d->dma_mode & 0xf8) == 0x40, multi = (d->dma_mode & 0xf8) == 0x20;

    word(d, 53, 0x7); /* words 54-58, 64-70 and 88 are valid */
    word(d, 63, MWDMA_MODES | (multi ? 0x100u << (d->dma_mode & 7) : 0));
    word(d, 64, 0x03); /* PIO modes 3 and 4 */
    for (unsigned n = 65; n <= 68; n++)
        word(d, n, 120); /* cycle times, ns */
    word(d, 88, UDMA_MODES | (ultra ? 0x100u << (d->dma_mode & 7) : 0));
    word(d, 80, 0x7e);                     /* ATA-1 to ATA/ATAPI-6 */
    word(d, 93, 0x4000 | 0x2000 | 0x0001); /* an 80-wire cable */
}

static void names(struct ide_drive *d, const char *model) {
    text(d, 10, 10, d->block ? block_id(d->block) : "");
    text(d, 23, 4, "1");
    text(d, 27, 20, model);
}

static void disk(struct ide_drive *d) {
    uint64_t cylinders = d->sectors / (16 * 63), now;

    cylinders = cylinders > 16383 ? 16383 : cylinders;
    now = d->sectors / ((uint64_t)d->heads * d->per_track);
    now = now > 0xffff ? 0xffff : now;
    word(d, 0, 0x0040); /* ATA, fixed */
    word(d, 1, (unsigned)cylinders);
    word(d, 3, 16);
    word(d, 6, 63);
    names(d, "bivisor disk");
    word(d, 47, 0x8000 | IDE_MULTIPLE);
    word(d, 49, 0x0300 | 0x0800); /* DMA, LBA, IORDY */
    word(d, 50, 0x4000);
    word(d, 54, (unsigned)now);
    word(d, 55, d->heads);
    word(d, 56, d->per_track);
    words(d, 57, now * d->heads * d->per_track, 2);
    word(d, 59, d->multiple ? 0x100 | d->multiple : 0);
    words(d, 60, d->sectors < MAX_28BIT ? d->sectors : MAX_28BIT, 2);
    modes(d);
    word(d, 82, SETS_82);
    word(d, 83, SETS_83);
    word(d, 84, 1u << 14);
    word(d, 85, (SETS_82 & ~(1u << 5)) | (d->write_cache ? 1u << 5 : 0));
    word(d, 86, SETS_83 & ~(1u << 14));
    word(d, 87, 1u << 14);
    words(d, 100, d->sectors, 4);
}

static void cdrom(struct ide_drive *d) {
    word(d, 0, 0x8580 | 0x0040); /* ATAPI, CD-ROM, removable, DRQ soon, 12 bytes */
    names(d, "bivisor CD-ROM");
    word(d, 49, 0x0300 | 0x0800);
    modes(d);
    word(d, 82, 1u << 14 | 1u << 9 | 1u << 4); /* NOP, DEVICE RESET, PACKET */
    word(d, 83, 1u << 14);
    word(d, 84, 1u << 14);
    word(d, 85, 1u << 14 | 1u << 9 | 1u << 4);
    word(d, 87, 1u << 14);
}

void ide_identify(struct ide_drive *d) {
    mem_fill(d->buf, 0, 512);
    d->cdrom ? cdrom(d) : disk(d);
}
