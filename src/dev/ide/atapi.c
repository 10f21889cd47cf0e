/*
 * Commands of CD-ROM drives: PACKET and what it carries. ATA/ATAPI-6, "PACKET", "PACKET
 * command feature set"; MMC-3.
 *
 * Interrupt reason (the sector count) and byte count (the cylinder registers) tell the
 * guest what to do: IDE_CD alone: it writes the packet; IDE_IO alone: it reads data;
 * both: the command is over.
 */
#include "dev/ide/ide_int.h"

#include <errno.h>

#include "base/be.h"

static void reason(struct ide_drive *d, uint8_t why) {
    d->count[0] = (uint8_t)((d->count[0] & ~7) | why);
}

static void good(struct ide_drive *d) {
    reason(d, IDE_CD | IDE_IO);
    d->error = 0;
    ide_done(d);
}

/* CHECK CONDITION: the sense key is in the error register. */
static void bad(struct ide_drive *d) {
    reason(d, IDE_CD | IDE_IO);
    ide_fail(d, (uint8_t)(d->sense << 4 | (d->sense == SENSE_ILLEGAL ? IDE_ABRT : 0)));
}

static void illegal(struct ide_drive *d, uint8_t asc) {
    ide_sense(d, SENSE_ILLEGAL, asc, 0);
    bad(d);
}

/* --- data to the guest --- */

/* Bytes data_sent..data_len of `buf` are still to be sent. */
static void send_more(struct ide_drive *d);

void ide_atapi_sent(struct ide_drive *d) {
    d->data_sent = d->end;
    send_more(d);
}

static void read_piece(struct ide_drive *d);

static void send_more(struct ide_drive *d) {
    uint32_t n = d->data_len - d->data_sent;

    if (!n) {
        d->sector += d->piece;
        d->left -= d->piece;
        d->left ? read_piece(d) : good(d);
        return;
    }
    reason(d, IDE_IO);
    d->to_guest = true;
    if (d->by_dma) {
        ide_by_dma(d, n, ide_atapi_sent);
        return;
    }
    n = n < d->limit ? n : d->limit;
    d->mid[0] = (uint8_t)n;
    d->high[0] = (uint8_t)(n >> 8);
    ide_offer(d, n, true, ide_atapi_sent);
    d->pos += d->data_sent;
    d->end += d->data_sent;
}

static void answer(struct ide_drive *d, uint32_t len) {
    d->data_len = len;
    d->data_sent = d->left = d->piece = 0;
    len ? send_more(d) : good(d);
}

static void read_done(struct block_request *r, int rc) {
    struct ide_drive *d = ide_disk_done(r);

    if (!d)
        return;
    if (rc) {
        ide_sense(d, SENSE_MEDIUM, 0x11, 0); /* unrecovered read error */
        bad(d);
        return;
    }
    d->data_len = d->piece * IDE_CD_SECTOR;
    d->data_sent = 0;
    send_more(d);
}

static void read_piece(struct ide_drive *d) {
    d->piece = d->left < d->at_once ? d->left : d->at_once;
    ide_disk(d, BLOCK_READ, read_done);
}

static void read_sectors(struct ide_drive *d, uint32_t first, uint32_t count) {
    uint32_t have = ide_cd_sectors(d);

    if (!have) {
        ide_sense(d, SENSE_NOT_READY, 0x3a, d->open ? 2 : 1);
        bad(d);
    } else if (first >= have || count > have - first) {
        illegal(d, 0x21); /* address out of range */
    } else if (!count) {
        good(d);
    } else {
        d->sector = first;
        d->left = count;
        d->at_once = IDE_BUFFER / IDE_CD_SECTOR;
        read_piece(d);
    }
}

static uint32_t get32(const uint8_t *at) {
    return (uint32_t)be_get(at, 4);
}

/* READ CD: of a data track, its user data and nothing else. */
static void read_cd(struct ide_drive *d) {
    const uint8_t *p = d->packet;
    uint32_t count = (uint32_t)be_get(p + 6, 3);

    if (p[10] & 7 || (p[9] & 0xfe) != 0x10 || (p[1] >> 2 & 7) == 1)
        !count || !(p[9] & 0xf8) ? good(d) : illegal(d, 0x24);
    else
        read_sectors(d, get32(p + 2), count);
}

static void execute(struct ide_drive *d) {
    const uint8_t *p = d->packet;

    switch (p[0]) {
    case 0x28: /* READ (10), (12) */
        read_sectors(d, get32(p + 2), (uint32_t)be_get(p + 7, 2));
        break;
    case 0xa8:
        read_sectors(d, get32(p + 2), get32(p + 6));
        break;
    case 0xbe:
        read_cd(d);
        break;
    default: {
        int n = ide_packet(d);

        if (n >= 0)
            answer(d, (uint32_t)n);
        else if (n == -1)
            bad(d);
        else
            illegal(d, 0x20); /* no such command */
    }
    }
}

/* What happened since the last command is told first, but not to those that ask. */
static bool attention(struct ide_drive *d) {
    switch (d->packet[0]) {
    case 0x03:
    case 0x12:
    case 0x46:
    case 0x4a:
        return false;
    default:
        break;
    }
    if (d->attention) {
        ide_sense(d, SENSE_ATTENTION, 0x29, 0); /* power on, or reset */
        d->attention = false;
    } else if (d->changed) {
        ide_sense(d, SENSE_ATTENTION, 0x28, 0); /* another medium */
        d->changed = false;
    } else {
        return false;
    }
    bad(d);
    return true;
}

void ide_atapi_packet(struct ide_drive *d) {
    mem_copy(d->packet, d->buf, sizeof(d->packet));
    d->status = IDE_BSY;
    if (attention(d))
        return;
    if (d->packet[0] != 0x03)
        ide_sense(d, 0, 0, 0);
    execute(d);
}

static void packet(struct ide_drive *d) {
    uint32_t limit = d->mid[0] | (uint32_t)d->high[0] << 8;

    if (d->feature[0] & 2) { /* overlapped: not here */
        ide_fail(d, IDE_ABRT);
        return;
    }
    d->by_dma = d->feature[0] & 1;
    d->limit = limit >= 0xffff || !limit ? 0xfffe : limit & ~1u;
    d->limit = d->limit ? d->limit : 2;
    reason(d, IDE_CD);
    ide_want(d, sizeof(d->packet), false, ide_atapi_packet);
}

static void set_features(struct ide_drive *d) {
    uint8_t mode = d->count[0];

    if (d->feature[0] == 0x03 && (mode >> 3 <= 1 || mode >> 3 == 4 || mode >> 3 == 8) &&
        (mode & 7) <= 5) {
        if (mode >> 3 > 1)
            d->dma_mode = mode;
        ide_done(d);
    } else {
        ide_fail(d, IDE_ABRT);
    }
}

void ide_atapi_command(struct ide_drive *d, uint8_t command) {
    d->large = false;
    switch (command) {
    case 0xa0:
        packet(d);
        break;
    case 0xa1: /* IDENTIFY PACKET DEVICE */
        ide_identify(d);
        ide_offer(d, 512, true, ide_taken);
        break;
    case 0xef:
        set_features(d);
        break;
    case 0xe0 ... 0xe3: /* power management: it is always awake */
    case 0xe6:
        ide_done(d);
        break;
    case 0xe5:
        d->count[0] = 0xff;
        ide_done(d);
        break;
    case 0x20: /* READ SECTOR(S), IDENTIFY DEVICE: here is a packet device */
    case 0xec:
        ide_signature(d);
        ide_fail(d, IDE_ABRT);
        break;
    default:
        ide_fail(d, IDE_ABRT);
        break;
    }
}
