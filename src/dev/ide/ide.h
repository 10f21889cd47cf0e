/*
 * PIIX3's IDE: two channels at the places of old, each with up to two drives, disks (ATA)
 * or CD-ROM drives (ATAPI), and a bus master for each channel. ATA/ATAPI-6 (T13/1410D);
 * "Programming Interface for Bus Master IDE Controller", revision 1.0; Intel 82371SB
 * (PIIX3), "IDE Controller Register Descriptions".
 *
 * What a guest reads and writes goes through a buffer of the drive's, by the port or by
 * DMA, a piece at a time; the disk's requests are of those pieces, one at once, so that
 * nothing that the guest does meanwhile is seen by the host.
 *
 * Locking: the board's, also around completions.
 */
#ifndef DEV_IDE_H
#define DEV_IDE_H

#include "block/block.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "dev/pci/pci.h"
#include "mem/mem.h"

#define IDE_DRIVES 4u /* primary master and slave, secondary master and slave */
#define IDE_PRIMARY_IRQ 14
#define IDE_SECONDARY_IRQ 15

struct ide;
struct snapshot;

struct ide_config {
    struct {
        struct block *block; /* the caller's, outlives the controller; or NULL */
        bool cdrom;          /* a CD-ROM drive; empty, if it has no block */
    } drive[IDE_DRIVES];
    struct irq_line irq[2];
};

/* At SLOT and FUNCTION of P. NULL when out of memory or of places on the bus. */
struct ide *ide_new(struct pci *p, unsigned slot, unsigned function, struct bus *bus,
                    struct mem *m, const struct ide_config *cfg);
/* Waits for what is in flight. NULL: nothing to do. */
void ide_free(struct ide *i);
/* Power-up state, but for trays, which stay as they are; waits for what is in flight. */
void ide_reset(struct ide *i);
/* The user opens or closes the tray of CD-ROM drive DRIVE. The guest may hold it: without
 * FORCE it is told of the wish, and false returned. */
bool ide_tray(struct ide *i, unsigned drive, bool open, bool force);

/* Its record of a snapshot (snapshot/snapshot.h), while no disk is at a request. */
void ide_state(struct ide *i, struct snapshot *s);

#endif
