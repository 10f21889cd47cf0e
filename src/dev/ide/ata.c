/*
 * Commands of disks. ATA/ATAPI-6, "Command descriptions"; the general feature set, 48-bit
 * addresses, power management; and of older standards what BIOSes still use.
 */
#include "dev/ide/ide_int.h"

#include <errno.h>

enum way { BY_PORT, BY_MULTIPLE, BY_DMA };

/* --- addresses --- */

static uint64_t address(const struct ide_drive *d) {
    uint64_t low = d->low[0], mid = d->mid[0], high = d->high[0], head = d->device & 15;

    if (d->large)
        return low | mid << 8 | high << 16 | (uint64_t)d->low[1] << 24 |
               (uint64_t)d->mid[1] << 32 | (uint64_t)d->high[1] << 40;
    if (d->device & IDE_LBA)
        return low | mid << 8 | high << 16 | head << 24;
    /* Cylinder, head, sector, which counts from 1: 0 is nowhere. */
    if (!low || low > d->per_track || head >= d->heads)
        return UINT64_MAX;
    return ((mid | high << 8) * d->heads + head) * d->per_track + low - 1;
}

/* The address of an error, or the disk's size. */
static void set_address(struct ide_drive *d, uint64_t sector) {
    if (!d->large && !(d->device & IDE_LBA)) {
        uint64_t track = sector / d->per_track, cylinder = track / d->heads;

        d->low[0] = (uint8_t)(sector % d->per_track + 1);
        d->mid[0] = (uint8_t)cylinder;
        d->high[0] = (uint8_t)(cylinder >> 8);
        d->device = (uint8_t)((d->device & 0xf0) | track % d->heads);
        return;
    }
    d->low[0] = (uint8_t)sector;
    d->mid[0] = (uint8_t)(sector >> 8);
    d->high[0] = (uint8_t)(sector >> 16);
    if (d->large) {
        d->low[1] = (uint8_t)(sector >> 24);
        d->mid[1] = (uint8_t)(sector >> 32);
        d->high[1] = (uint8_t)(sector >> 40);
    } else {
        d->device = (uint8_t)((d->device & 0xf0) | (sector >> 24 & 15));
    }
}

/* Takes place and number of sectors from the task file. False: not on the disk; the
 * command has failed. */
static bool take_range(struct ide_drive *d) {
    d->sector = address(d);
    d->left = d->count[0];
    if (d->large)
        d->left |= (uint32_t)d->count[1] << 8;
    if (!d->left)
        d->left = d->large ? 0x10000 : 0x100;
    if (d->sector < d->sectors && d->left <= d->sectors - d->sector)
        return true;
    ide_fail(d, IDE_IDNF | IDE_ABRT);
    return false;
}

/* --- reading and writing --- */

static void fail_at(struct ide_drive *d, int rc, uint8_t error) {
    set_address(d, d->sector);
    d->large = false;
    ide_fail(d, rc == -EROFS ? IDE_ABRT : error);
}

/* The piece has been moved. */
static bool step(struct ide_drive *d) {
    d->sector += d->piece;
    d->left -= d->piece;
    d->piece = d->left < d->at_once ? d->left : d->at_once;
    return d->left;
}

static void read_piece(struct ide_drive *d);

void ide_ata_taken(struct ide_drive *d) {
    if (step(d)) {
        read_piece(d);
    } else if (d->dma) {
        ide_done(d);
    } else {
        ide_taken(d);
    }
}

static void read_done(struct block_request *r, int rc) {
    struct ide_drive *d = ide_disk_done(r);

    if (!d)
        return;
    if (rc)
        fail_at(d, rc, IDE_UNC);
    else if (d->dma)
        ide_by_dma(d, d->piece * IDE_SECTOR, ide_ata_taken);
    else
        ide_offer(d, d->piece * IDE_SECTOR, true, ide_ata_taken);
}

static void read_piece(struct ide_drive *d) {
    ide_disk(d, BLOCK_READ, read_done);
}

static void write_done(struct block_request *r, int rc) {
    struct ide_drive *d = ide_disk_done(r);

    if (!d)
        return;
    if (rc) {
        fail_at(d, rc, IDE_ABRT);
        if (rc != -EROFS)
            d->status |= IDE_DF;
    } else if (!step(d)) {
        ide_done(d);
    } else if (d->dma) {
        ide_by_dma(d, d->piece * IDE_SECTOR, ide_ata_given);
    } else {
        ide_want(d, d->piece * IDE_SECTOR, true, ide_ata_given);
    }
}

void ide_ata_given(struct ide_drive *d) {
    ide_disk(d, BLOCK_WRITE, write_done);
}

static bool begin(struct ide_drive *d, enum way way) {
    if (way == BY_MULTIPLE && !d->multiple) {
        ide_fail(d, IDE_ABRT);
        return false;
    }
    if (!take_range(d))
        return false;
    d->dma = way == BY_DMA;
    d->at_once = way == BY_DMA        ? IDE_BUFFER / IDE_SECTOR
                 : way == BY_MULTIPLE ? d->multiple
                                      : 1;
    d->piece = d->left < d->at_once ? d->left : d->at_once;
    return true;
}

static void read_sectors(struct ide_drive *d, enum way way) {
    d->to_guest = true;
    if (begin(d, way))
        read_piece(d);
}

static void write_sectors(struct ide_drive *d, enum way way) {
    d->to_guest = false;
    if (!begin(d, way))
        return;
    if (block_readonly(d->block))
        fail_at(d, -EROFS, IDE_ABRT);
    else if (way == BY_DMA)
        ide_by_dma(d, d->piece * IDE_SECTOR, ide_ata_given);
    else
        ide_want(d, d->piece * IDE_SECTOR, false, ide_ata_given);
}

static void flushed(struct block_request *r, int rc) {
    struct ide_drive *d = ide_disk_done(r);

    if (!d)
        return;
    if (!rc) {
        ide_done(d);
        return;
    }
    ide_fail(d, IDE_ABRT);
    d->status |= IDE_DF;
}

/* --- the others --- */

static void set_geometry(struct ide_drive *d) {
    if (!d->count[0]) {
        ide_fail(d, IDE_ABRT);
        return;
    }
    d->heads = (d->device & 15u) + 1;
    d->per_track = d->count[0];
    ide_done(d);
}

static void set_multiple(struct ide_drive *d) {
    unsigned n = d->count[0];

    if (n > IDE_MULTIPLE || (n & (n - 1))) {
        ide_fail(d, IDE_ABRT);
        return;
    }
    d->multiple = n;
    ide_done(d);
}

/* PIO modes take effect by themselves; DMA modes are told again by IDENTIFY. */
static bool set_mode(struct ide_drive *d) {
    switch (d->count[0] >> 3) {
    case 0: /* default PIO */
    case 1: /* PIO with flow control */
        return (d->count[0] & 7) <= 4;
    case 4: /* multiword DMA */
        d->dma_mode = d->count[0];
        return (d->count[0] & 7) <= 2;
    case 8: /* ultra DMA */
        d->dma_mode = d->count[0];
        return (d->count[0] & 7) <= 5;
    default:
        return false;
    }
}

static void set_features(struct ide_drive *d) {
    uint8_t before = d->dma_mode;
    bool good = true;

    switch (d->feature[0]) {
    case 0x02:
        d->write_cache = true;
        break;
    case 0x82:
        d->write_cache = false;
        break;
    case 0x03:
        good = set_mode(d);
        if (!good)
            d->dma_mode = before;
        break;
    case 0x55: /* read look-ahead off, on; power-on defaults: kept, or not */
    case 0xaa:
    case 0x66:
    case 0xcc:
        break;
    default:
        good = false;
    }
    good ? ide_done(d) : ide_fail(d, IDE_ABRT);
}

static void native_max(struct ide_drive *d) {
    uint64_t last = d->sectors - 1;

    d->device |= IDE_LBA;
    if (!d->large && last > 0x0fffffff)
        last = 0x0fffffff;
    set_address(d, last);
    ide_done(d);
}

/* Reading for its own sake, and without data: the range has to be there. */
static void verify(struct ide_drive *d) {
    if (take_range(d))
        ide_done(d);
}

static bool is_large(uint8_t command) {
    switch (command) {
    case 0x24:
    case 0x25:
    case 0x27:
    case 0x29:
    case 0x34:
    case 0x35:
    case 0x39:
    case 0x42:
    case 0xea:
        return true;
    default:
        return false;
    }
}

static void transfer(struct ide_drive *d, uint8_t command) {
    switch (command) {
    case 0x20: /* READ SECTOR(S), with and without retries */
    case 0x21:
    case 0x24: /* EXT */
        read_sectors(d, BY_PORT);
        break;
    case 0xc4: /* READ MULTIPLE */
    case 0x29:
        read_sectors(d, BY_MULTIPLE);
        break;
    case 0xc8: /* READ DMA */
    case 0xc9:
    case 0x25:
        read_sectors(d, BY_DMA);
        break;
    case 0x30: /* WRITE SECTOR(S) */
    case 0x31:
    case 0x34:
        write_sectors(d, BY_PORT);
        break;
    case 0xc5: /* WRITE MULTIPLE */
    case 0x39:
        write_sectors(d, BY_MULTIPLE);
        break;
    default: /* WRITE DMA */
        write_sectors(d, BY_DMA);
        break;
    }
}

/* Commands that are about the drive itself. */
static void other(struct ide_drive *d, uint8_t command) {
    switch (command) {
    case 0x10 ... 0x1f: /* RECALIBRATE */
    case 0x70 ... 0x7f: /* SEEK */
    case 0x94 ... 0x97: /* power management, in the numbers of ATA-1 */
    case 0x99:
    case 0xe0 ... 0xe3: /* STANDBY (IMMEDIATE), IDLE (IMMEDIATE) */
    case 0xe6:          /* SLEEP: as it never sleeps, nothing has to wake it */
        ide_done(d);
        break;
    case 0x98: /* CHECK POWER MODE: active */
    case 0xe5:
        d->count[0] = 0xff;
        ide_done(d);
        break;
    case 0x91: /* INITIALIZE DEVICE PARAMETERS */
        set_geometry(d);
        break;
    case 0xc6:
        set_multiple(d);
        break;
    case 0xe7: /* FLUSH CACHE */
    case 0xea:
        ide_disk(d, BLOCK_FLUSH, flushed);
        break;
    case 0xec: /* IDENTIFY DEVICE */
        ide_identify(d);
        ide_offer(d, 512, true, ide_taken);
        break;
    case 0xef:
        set_features(d);
        break;
    case 0xf8: /* READ NATIVE MAX ADDRESS */
    case 0x27:
        native_max(d);
        break;
    default: /* NOP among them, which fails */
        ide_fail(d, IDE_ABRT);
        break;
    }
}

void ide_ata_command(struct ide_drive *d, uint8_t command) {
    d->large = is_large(command);
    switch (command) {
    case 0x20 ... 0x21:
    case 0x24 ... 0x25:
    case 0x29:
    case 0x30 ... 0x31:
    case 0x34 ... 0x35:
    case 0x39:
    case 0xc4 ... 0xc5:
    case 0xc8 ... 0xcb:
        transfer(d, command);
        break;
    case 0x40 ... 0x42: /* READ VERIFY SECTOR(S) */
        verify(d);
        break;
    default:
        other(d, command);
        break;
    }
}
