/*
 * What a CD-ROM drive answers that is not data of the disc: MMC-3 ("Commands for
 * Multimedia Devices"), SPC-2 ("SCSI Primary Commands"). A disc is one data track that
 * has all of the image.
 */
#include "base/be.h"
#include "dev/ide/ide_int.h"

#define PROFILE_CD_ROM 0x0008u
#define PROFILE_DVD_ROM 0x0010u
#define CD_MAX 449849u /* sectors: 99:59:74 less the lead-in; a longer one is a DVD */

static void put(struct ide_drive *d, unsigned at, uint64_t value, unsigned size) {
    be_put(d->buf + at, value, size);
}

static unsigned get16(const uint8_t *at) {
    return (unsigned)be_get(at, 2);
}

uint32_t ide_cd_sectors(const struct ide_drive *d) {
    uint64_t n = d->block && !d->open ? block_size(d->block) / IDE_CD_SECTOR : 0;

    return n < 0xffffffff ? (uint32_t)n : 0xfffffffe;
}

void ide_sense(struct ide_drive *d, uint8_t sense, uint8_t asc, uint8_t ascq) {
    d->sense = sense;
    d->asc = asc;
    d->ascq = ascq;
}

static int refuse(struct ide_drive *d, uint8_t sense, uint8_t asc, uint8_t ascq) {
    ide_sense(d, sense, asc, ascq);
    return -1;
}

static int bad_field(struct ide_drive *d) {
    return refuse(d, SENSE_ILLEGAL, 0x24, 0); /* invalid field in command packet */
}

static int at_most(int have, unsigned wanted) {
    return (unsigned)have < wanted ? have : (int)wanted;
}

static int request_sense(struct ide_drive *d) {
    mem_fill(d->buf, 0, 18);
    d->buf[0] = 0x70; /* current errors */
    d->buf[2] = d->sense;
    d->buf[7] = 10;
    d->buf[12] = d->asc;
    d->buf[13] = d->ascq;
    ide_sense(d, 0, 0, 0);
    return at_most(18, d->packet[4]);
}

static int inquiry(struct ide_drive *d) {
    static const char text[] = "bivisor CD-ROM          1   ";

    if (d->packet[1] & 3 || d->packet[2])
        return bad_field(d); /* no vital product data */
    mem_fill(d->buf, 0, 36);
    d->buf[0] = 0x05; /* CD-ROM */
    d->buf[1] = 0x80; /* removable */
    d->buf[3] = 0x21; /* ATAPI, response format */
    d->buf[4] = 31;
    mem_copy(d->buf + 8, text, sizeof(text) - 1);
    return at_most(36, d->packet[4]);
}

/* A page of parameters at AT: its length, or 0. */
static unsigned mode_page(struct ide_drive *d, unsigned at, unsigned page) {
    uint8_t *p = d->buf + at;

    switch (page) {
    case 0x01: /* error recovery */
        p[1] = 6;
        break;
    case 0x0e: /* audio */
        p[1] = 14;
        break;
    case 0x2a: /* capabilities and mechanical status */
        p[1] = 20;
        p[6] = (uint8_t)(0x29 | (d->locked ? 0x02 : 0)); /* tray, can eject and lock */
        put(d, at + 8, 706, 2);                          /* KB/s */
        put(d, at + 12, 512, 2);                         /* buffer, KB */
        put(d, at + 14, 706, 2);
        break;
    default:
        return 0;
    }
    p[0] = (uint8_t)page;
    return p[1] + 2u;
}

/* What the parameter header calls the medium. */
static uint8_t medium(const struct ide_drive *d) {
    return d->open ? 0x71 : ide_cd_sectors(d) ? 0x01 : 0x70;
}

static int mode_sense(struct ide_drive *d) {
    static const uint8_t pages[] = {0x01, 0x0e, 0x2a};
    bool ten = d->packet[0] == 0x5a;
    unsigned page = d->packet[2] & 0x3f, n = ten ? 8 : 4, head = n;

    if (d->packet[2] >> 6 == 3)
        return refuse(d, SENSE_ILLEGAL, 0x39, 0); /* nothing is saved */
    mem_fill(d->buf, 0, 128);
    for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
        if (page == pages[i] || page == 0x3f)
            n += mode_page(d, n, pages[i]);
    if (n == head)
        return bad_field(d);
    if (ten) {
        put(d, 0, n - 2, 2);
        d->buf[2] = medium(d);
        return at_most((int)n, get16(d->packet + 7));
    }
    d->buf[0] = (uint8_t)(n - 1);
    d->buf[1] = medium(d);
    return at_most((int)n, d->packet[4]);
}

/* Minute, second, frame of a sector, or its number. */
static void put_address(struct ide_drive *d, unsigned at, bool msf, uint32_t sector) {
    if (!msf) {
        put(d, at, sector, 4);
        return;
    }
    sector += 150;
    d->buf[at] = 0;
    d->buf[at + 1] = (uint8_t)(sector / (75 * 60));
    d->buf[at + 2] = (uint8_t)(sector / 75 % 60);
    d->buf[at + 3] = (uint8_t)(sector % 75);
}

static int read_toc(struct ide_drive *d) {
    bool msf = d->packet[1] & 2;
    unsigned format = d->packet[2] & 15, n = 4, track = d->packet[6];

    if (!format)
        format = d->packet[9] >> 6; /* as older drives have it */
    mem_fill(d->buf, 0, 64);
    d->buf[2] = d->buf[3] = 1; /* first and last track, or session */
    if (format > 1 || (format == 0 && track > 1 && track != 0xaa))
        return bad_field(d);
    if (format == 1 || track <= 1) {
        d->buf[n + 1] = 0x14; /* data */
        d->buf[n + 2] = 1;
        put_address(d, n + 4, msf, 0);
        n += 8;
    }
    if (format == 0) {
        d->buf[n + 1] = 0x16;
        d->buf[n + 2] = 0xaa; /* lead-out */
        put_address(d, n + 4, msf, ide_cd_sectors(d));
        n += 8;
    }
    put(d, 0, n - 2, 2);
    return at_most((int)n, get16(d->packet + 7));
}

static unsigned profile(const struct ide_drive *d) {
    uint32_t n = ide_cd_sectors(d);

    return !n ? 0 : n > CD_MAX ? PROFILE_DVD_ROM : PROFILE_CD_ROM;
}

static int get_configuration(struct ide_drive *d) {
    static const uint8_t list[] = {
        0,    0,    0x03, 8,                   /* profiles */
        0x00, 0x10, 0,    0, 0x00, 0x08, 0, 0, /* DVD-ROM, CD-ROM */
        0,    1,    0x03, 4, 0,    0,    0, 2, /* core: ATAPI */
        0,    3,    0x03, 4, 0x29, 0,    0, 0, /* removable: tray, eject, lock */
        0,    0x10, 0x00, 8, 0,    0,    8, 0, 0, 16, 0, 0, /* random readable */
        0,    0x1e, 0x00, 4, 0,    0,    0, 0,              /* CD read */
        0,    0x1f, 0x00, 0,                                /* DVD read */
    };
    unsigned from = get16(d->packet + 2), type = d->packet[1] & 3, n = 8;

    if (type == 3)
        return bad_field(d);
    mem_fill(d->buf, 0, 8);
    put(d, 6, profile(d), 2);
    for (unsigned at = 0; at < sizeof(list); at += 4u + list[at + 3]) {
        unsigned code = get16(list + at), len = 4u + list[at + 3];

        if (type == 2 ? code != from : code < from)
            continue;
        mem_copy(d->buf + n, list + at, len);
        if (code == 0) {
            d->buf[n + 6] = profile(d) == PROFILE_DVD_ROM;
            d->buf[n + 10] = profile(d) == PROFILE_CD_ROM;
        }
        if (code >= 0x1e)
            d->buf[n + 2] |=
                profile(d) == (code == 0x1e ? PROFILE_CD_ROM : PROFILE_DVD_ROM);
        n += len;
    }
    put(d, 0, n - 4, 4);
    return at_most((int)n, get16(d->packet + 7));
}

static int event_status(struct ide_drive *d) {
    if (!(d->packet[1] & 1))
        return bad_field(d); /* only polled */
    mem_fill(d->buf, 0, 8);
    d->buf[3] = 0x10; /* of the classes there is: media */
    if (!(d->packet[4] & 0x10)) {
        put(d, 0, 2, 2);
        d->buf[2] = 0x80;
        return at_most(4, get16(d->packet + 7));
    }
    put(d, 0, 6, 2);
    d->buf[2] = 0x04;
    d->buf[4] = d->changed ? 2 : d->event; /* new media */
    d->buf[5] = (uint8_t)((d->open ? 1 : 0) | (ide_cd_sectors(d) ? 2 : 0));
    d->changed = false;
    d->event = 0;
    return at_most(8, get16(d->packet + 7));
}

static int disc_information(struct ide_drive *d) {
    if (d->packet[1] & 7)
        return bad_field(d);
    mem_fill(d->buf, 0, 34);
    put(d, 0, 32, 2);
    d->buf[2] = 0x0e; /* complete, last session complete */
    d->buf[3] = d->buf[4] = d->buf[5] = d->buf[6] = 1;
    d->buf[7] = 0x20; /* may be used */
    put(d, 16, 0xffffffff, 4);
    put(d, 20, 0xffffffff, 4);
    return at_most(34, get16(d->packet + 7));
}

static int track_information(struct ide_drive *d) {
    mem_fill(d->buf, 0, 36);
    put(d, 0, 34, 2);
    d->buf[2] = d->buf[3] = 1;
    d->buf[5] = 0x04; /* data, recorded at once */
    d->buf[6] = 0x01;
    put(d, 24, ide_cd_sectors(d), 4);
    return at_most(36, get16(d->packet + 7));
}

static int capacity(struct ide_drive *d) {
    put(d, 0, ide_cd_sectors(d) - 1, 4);
    put(d, 4, IDE_CD_SECTOR, 4);
    return 8;
}

static int mechanism(struct ide_drive *d) {
    mem_fill(d->buf, 0, 8);
    d->buf[1] = d->open ? 0x10 : 0;
    d->buf[5] = 1;
    return at_most(8, get16(d->packet + 8));
}

static int start_stop(struct ide_drive *d) {
    bool eject = (d->packet[4] & 3) == 2, load = (d->packet[4] & 3) == 3;

    if (eject && d->locked)
        return refuse(d, SENSE_ILLEGAL, 0x53, 2); /* removal prevented */
    if (load && d->open && d->block)
        d->changed = true;
    d->open = load ? false : eject ? true : d->open;
    return 0;
}

/* Commands that want a disc: 0, or -1 with the sense set. */
static int need_disc(struct ide_drive *d) {
    if (!ide_cd_sectors(d))
        return refuse(d, SENSE_NOT_READY, 0x3a, d->open ? 2 : 1);
    return 0;
}

static int of_disc(struct ide_drive *d) {
    if (need_disc(d))
        return -1;
    switch (d->packet[0]) {
    case 0x25: /* READ CAPACITY */
        return capacity(d);
    case 0x43: /* READ TOC/PMA/ATIP */
        return read_toc(d);
    case 0x51: /* READ DISC INFORMATION */
        return disc_information(d);
    case 0x52: /* READ TRACK INFORMATION */
        return track_information(d);
    default: /* TEST UNIT READY, SEEK */
        return 0;
    }
}

int ide_packet(struct ide_drive *d) {
    switch (d->packet[0]) {
    case 0x03:
        return request_sense(d);
    case 0x12:
        return inquiry(d);
    case 0x1a: /* MODE SENSE (6), (10) */
    case 0x5a:
        return mode_sense(d);
    case 0x1b:
        return start_stop(d);
    case 0x1e: /* PREVENT/ALLOW MEDIUM REMOVAL */
        d->locked = d->packet[4] & 1;
        return 0;
    case 0x46:
        return get_configuration(d);
    case 0x4a:
        return event_status(d);
    case 0xbb: /* SET CD SPEED */
        return 0;
    case 0xbd:
        return mechanism(d);
    case 0x00:
    case 0x25:
    case 0x2b:
    case 0x43:
    case 0x51:
    case 0x52:
        return of_disc(d);
    default:
        return -2;
    }
}
