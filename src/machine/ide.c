/*
 * The IDE controller's drives, from the disks of the configuration: disks from the
 * primary master on, CD-ROM drives from the secondary master on, each in the first place
 * that is free there or, if none is, anywhere.
 */
#include <errno.h>
#include <stdio.h>

#include "base/os.h"
#include "dev/ide/ide.h"
#include "machine/machine_int.h"

#define SECONDARY 2u

/* The first free place from FIRST on, round and round; IDE_DRIVES: none. */
static unsigned find_place(const struct ide_config *cfg, unsigned first) {
    for (unsigned n = 0; n < IDE_DRIVES; n++) {
        unsigned k = (first + n) % IDE_DRIVES;

        if (!cfg->drive[k].block && !cfg->drive[k].cdrom)
            return k;
    }
    return IDE_DRIVES;
}

/* Places the disks that are IDE's; PLACE gets each one's, IDE_DRIVES for the others.
 * False: there are too many. */
static bool place_all(const struct machine *m, struct ide_config *cfg,
                      unsigned place[MACHINE_DISKS]) {
    for (unsigned n = 0; n < m->cfg.disk_count; n++) {
        const struct machine_disk *d = &m->cfg.disks[n];
        bool cdrom = d->kind == MACHINE_DISK_CDROM;

        place[n] = IDE_DRIVES;
        if (d->kind == MACHINE_DISK_VIRTIO)
            continue;
        place[n] = find_place(cfg, cdrom ? SECONDARY : 0);
        if (place[n] == IDE_DRIVES)
            return false;
        cfg->drive[place[n]].block = d->block;
        cfg->drive[place[n]].cdrom = cdrom;
    }
    return true;
}

unsigned machine_ide_place(const struct machine *m, unsigned disk) {
    struct ide_config cfg = {0};
    unsigned place[MACHINE_DISKS];

    place_all(m, &cfg, place);
    return place[disk];
}

static bool any(const struct ide_config *cfg) {
    for (unsigned n = 0; n < IDE_DRIVES; n++)
        if (cfg->drive[n].block || cfg->drive[n].cdrom)
            return true;
    return false;
}

static void reset_ide(void *dev) {
    ide_reset(dev);
}

static void free_ide(void *dev) {
    ide_free(dev);
}

static void ide_record(void *dev, struct snapshot *s) {
    ide_state(dev, s);
}

int machine_ide_make(struct machine *m, char *why, size_t why_size) {
    static const struct machine_device_ops ops = {.quiet = reset_ide,
                                                  .reset = reset_ide,
                                                  .free = free_ide,
                                                  .name = "ide",
                                                  .state = ide_record};
    struct ide_config cfg = {.irq = {board_isa_line(&m->board, IDE_PRIMARY_IRQ),
                                     board_isa_line(&m->board, IDE_SECONDARY_IRQ)}};
    unsigned place[MACHINE_DISKS];
    struct ide *ide;

    if (!place_all(m, &cfg, place)) {
        snprintf(why, why_size, "IDE has room for %u disks and CD-ROM drives, not more",
                 IDE_DRIVES);
        return -EINVAL;
    }
    if (!any(&cfg))
        return 0;
    if (!m->board.pci.bus) {
        snprintf(why, why_size,
                 "IDE disks and CD-ROM drives are on PCI, which --no-pci takes away");
        return -EINVAL;
    }
    snprintf(why, why_size, "out of memory");
    ide = m->ide = ide_new(m->board.pci.bus, PIIX_SLOT, PIIX_IDE, m->bus, m->mem, &cfg);
    return ide ? machine_device_add(m, &ops, ide) : -ENOMEM;
}

int machine_config_cdrom(const struct machine_config *cfg, unsigned n) {
    for (unsigned disk = 0; disk < cfg->disk_count; disk++)
        if (cfg->disks[disk].kind == MACHINE_DISK_CDROM && !n--)
            return (int)disk;
    return -ENODEV;
}

void machine_tray_why(int rc, char *why, size_t why_size) {
    snprintf(why, why_size, "%s",
             rc == -EBUSY    ? "the guest holds the tray, and has been asked to open it"
             : rc == -ENODEV ? "there is no such CD-ROM drive"
                             : "a run that can be repeated keeps its discs");
}

int machine_tray(struct machine *m, unsigned n, bool open, bool force) {
    int disk = machine_config_cdrom(&m->cfg, n);
    bool moved;

    if (disk < 0)
        return disk;
    if (m->cfg.counted)
        return -EINVAL;
    machine_board_enter(m);
    moved = ide_tray(m->ide, machine_ide_place(m, (unsigned)disk), open, force);
    machine_board_leave(m);
    return moved ? 0 : -EBUSY;
}

/* The board's lock is held, the tray is open. */
static int put_in(struct machine *m, unsigned disk, int fd,
                  const struct block_facts *facts, const char *path, struct image **old,
                  char *why, size_t why_size) {
    int rc =
        block_exchange(m->cfg.disks[disk].block, fd, facts, path, old, why, why_size);

    if (!rc)
        ide_tray(m->ide, machine_ide_place(m, disk), false, false);
    return rc;
}

int machine_disc_exchange(struct machine *m, unsigned n, int fd, bool force,
                          const struct block_facts *facts, const char *path, char *why,
                          size_t why_size) {
    int disk = machine_config_cdrom(&m->cfg, n), rc = machine_tray(m, n, true, force);
    struct image *old = NULL;

    if (rc) {
        machine_tray_why(rc, why, why_size);
        os_socket_close(fd);
        return rc;
    }
    machine_board_enter(m);
    rc = put_in(m, (unsigned)disk, fd, facts, path, &old, why, why_size);
    machine_board_leave(m);
    block_put_away(old); /* its disk may take long */
    return rc;
}
