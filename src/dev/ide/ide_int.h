/*
 * Inside dev/ide: a channel, its drives, and the way of a command.
 *
 *   dma.c       the bus master: between a drive's buffer and guest memory
 *   transfer.c  status and interrupt; blocks of data at the port or by DMA; the disk
 *   identify.c  what a drive says of itself
 *   ata.c       commands of disks
 *   packet.c    what CD-ROM drives answer that is not on the disc
 *   atapi.c     their commands
 *   channel.c   the registers
 *   ide.c       the PCI function, the ports
 *
 * A command is executed when its register is written, as far as it goes: until it waits
 * for the guest (DRQ: data at the port; `dma`: the bus master) or for the disk (`busy`).
 * Whatever it waits for calls `next`, which goes on.
 *
 * Invariants: pos <= end <= IDE_BUFFER; while `busy` BSY is on and the buffer is the
 * disk's. A reset in that time waits (`stale`): the answer is thrown away.
 */
#ifndef IDE_INT_H
#define IDE_INT_H

#include "dev/ide/ide.h"

#define IDE_BUFFER 0x20000u /* 256 sectors of 512 bytes, 64 of 2048 */
#define IDE_SECTOR 512u
#define IDE_CD_SECTOR 2048u
#define IDE_MULTIPLE 16u /* sectors, at most */

enum {
    IDE_BSY = 0x80,
    IDE_DRDY = 0x40,
    IDE_DF = 0x20,
    IDE_DSC = 0x10,
    IDE_DRQ = 0x08,
    IDE_ERR = 0x01
};
/* Error register. */
enum { IDE_UNC = 0x40, IDE_IDNF = 0x10, IDE_ABRT = 0x04 };
/* Device register. */
enum { IDE_DEV = 0x10, IDE_LBA = 0x40, IDE_DEVICE_ONES = 0xa0 };
/* Interrupt reason: the sector count of a packet command. */
enum { IDE_CD = 0x01, IDE_IO = 0x02 };

struct ide_channel;

/* "GET EVENT STATUS NOTIFICATION", media events: the user wants it open; it is. */
enum { IDE_WISH = 1, IDE_REMOVAL = 3 };

struct ide_drive {
    struct ide_channel *channel;
    struct block *block; /* NULL: no disc */
    bool present, cdrom;
    /* The task file; [1] is what was there before (48-bit commands). */
    uint8_t feature[2], count[2], low[2], mid[2], high[2];
    uint8_t device, status, error;
    /* A block of data. */
    uint8_t *buf; /* IDE_BUFFER bytes */
    uint32_t pos, end;
    bool to_guest;
    bool dma; /* it goes by the bus master */
    void (*next)(struct ide_drive *d);
    /* Sectors of the disk that are still to be moved. */
    uint64_t sector;
    uint32_t left, piece, at_once;
    uint32_t sector_size;
    bool large; /* a 48-bit command */
    struct block_request request;
    struct block_iov iov;
    bool busy, stale;
    /* Disks. */
    uint64_t sectors;
    unsigned heads, per_track; /* as the guest would have them */
    unsigned multiple;         /* sectors; 0: off */
    bool write_cache;
    uint8_t dma_mode; /* as SET FEATURES has it */
    /* CD-ROM drives. */
    uint8_t packet[12];
    uint8_t sense, asc, ascq;
    bool attention; /* power on, reset: the next command is told */
    bool changed;   /* so is another disc */
    bool open, locked;
    uint8_t event;      /* what the user has done with the tray; not in snapshots */
    bool by_dma;        /* the packet's data */
    uint32_t limit;     /* bytes that the guest takes at once */
    uint32_t data_len;  /* of an answer in `buf` */
    uint32_t data_sent; /* of that */
};

struct ide_channel {
    struct ide_drive drive[2];
    unsigned selected;
    bool no_irq, srst; /* device control */
    uint8_t hob;
    bool intrq;
    struct irq_line irq;
    struct mem *mem;
    struct pci_function *pci;
    /* The bus master. */
    uint8_t bm_command, bm_status;
    uint32_t bm_table;
    uint32_t prd_at, prd_base, prd_left; /* the descriptor in use */
    bool prd_last;
    struct bus_range *ports, *control;
};

/* --- dma.c --- */
enum { BM_START = 0x01, BM_TO_MEMORY = 0x08 };
enum { BM_ACTIVE = 0x01, BM_ERROR = 0x02, BM_IRQ = 0x04, BM_CAN_DMA = 0x60 };
/* The table is begun with. */
void ide_dma_start(struct ide_channel *c);
/* Moves the drive's bytes pos..end, and pos with them. False: the table has no more, or
 * is wrong; then the bus master has stopped. */
bool ide_dma_move(struct ide_drive *d);

/* --- transfer.c --- */
static inline struct ide_drive *ide_selected(struct ide_channel *c) {
    return &c->drive[c->selected];
}
void ide_raise(struct ide_channel *c);
void ide_lower(struct ide_channel *c);
/* `intrq` or `no_irq` has changed. */
void ide_update_irq(struct ide_channel *c);
/* The command has ended, well or with an error, and the guest is interrupted. */
void ide_done(struct ide_drive *d);
void ide_fail(struct ide_drive *d, uint8_t error);
/* The guest has taken the last block at the port, of which it was told: well, the end. */
void ide_taken(struct ide_drive *d);
/* Bytes 0..LEN-1 of the buffer are for the guest, or are to come from it; NEXT goes on
 * when it has taken or given all. IRQ: it is told. */
void ide_offer(struct ide_drive *d, uint32_t len, bool irq,
               void (*next)(struct ide_drive *d));
void ide_want(struct ide_drive *d, uint32_t len, bool irq,
              void (*next)(struct ide_drive *d));
/* The same by DMA, in whichever direction `to_guest` says. */
void ide_by_dma(struct ide_drive *d, uint32_t len, void (*next)(struct ide_drive *d));
/* The bus master was started: goes on with what waits for it. */
void ide_dma_go(struct ide_drive *d);
/* `piece` sectors at `sector` between disk and buffer; or a flush. DONE gets 0 or -errno.
 */
void ide_disk(struct ide_drive *d, enum block_op op,
              void (*done)(struct block_request *r, int rc));
/* What DONE begins with: whose request it was; NULL: nobody wants it any more. */
struct ide_drive *ide_disk_done(struct block_request *r);
/* The state after a reset, with the signature. */
void ide_drive_ready(struct ide_drive *d);
void ide_signature(struct ide_drive *d);
/* A reset by the guest: now, or when the disk has answered. */
void ide_drive_reset(struct ide_drive *d);

/* --- identify.c --- */
void ide_identify(struct ide_drive *d); /* 512 bytes of `buf` */

/* --- ata.c, atapi.c: how a command goes on --- */
void ide_ata_taken(struct ide_drive *d);
void ide_ata_given(struct ide_drive *d);
void ide_atapi_sent(struct ide_drive *d);
void ide_atapi_packet(struct ide_drive *d);
/* The command register was written. */
void ide_ata_command(struct ide_drive *d, uint8_t command);
void ide_atapi_command(struct ide_drive *d, uint8_t command);

/* --- packet.c --- */
enum {
    SENSE_NOT_READY = 2,
    SENSE_MEDIUM = 3,
    SENSE_ILLEGAL = 5,
    SENSE_ATTENTION = 6,
};
void ide_sense(struct ide_drive *d, uint8_t sense, uint8_t asc, uint8_t ascq);
/* Sectors of 2048 bytes; 0: no disc. */
uint32_t ide_cd_sectors(const struct ide_drive *d);
/* Answers what needs no disc's data: bytes of `buf`, or -1 with the sense set, or -2: not
 * one of these. */
int ide_packet(struct ide_drive *d);

/* --- channel.c --- */
uint64_t ide_read(void *channel, uint64_t reg, unsigned size);
void ide_write(void *channel, uint64_t reg, unsigned size, uint64_t value);
uint64_t ide_control_read(void *channel, uint64_t reg, unsigned size);
void ide_control_write(void *channel, uint64_t reg, unsigned size, uint64_t value);
uint64_t ide_bm_read(struct ide_channel *c, unsigned reg, unsigned size);
void ide_bm_write(struct ide_channel *c, unsigned reg, unsigned size, uint64_t value);

#endif
