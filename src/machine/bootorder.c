/*
 * In which order firmware is to try disks and network cards: those cards that are to be
 * first, the disks as on the command line, the other cards; but the first time what
 * --boot-once says before all of them. Devices have the
 * names that Open Firmware gives them, a line each ("PCI Bus Binding to Open Firmware",
 * "Device Addressing"); of fw_cfg, file bootorder, as SeaBIOS and OVMF read it.
 */
#include <stdarg.h>
#include <stdio.h>

#include "dev/ide/ide.h"
#include "machine/machine_int.h"

#define VIRTIO 0x1af4u
#define VIRTIO_BLK 0x1001u /* transitional */
#define VIRTIO_BLK_1 0x1042u

/* The slot of the disk that is number N of those that are virtio's; 0: there is none. */
static unsigned virtio_slot(const struct machine *m, unsigned n) {
    for (unsigned slot = BOARD_PCI_FIRST; slot < PCI_SLOTS; slot++) {
        const struct pci_function *f = pci_at(m->board.pci.bus, slot, 0);
        unsigned device = f ? pci_config(f, PCI_DEVICE, 2) : 0;

        if (f && pci_config(f, PCI_VENDOR, 2) == VIRTIO &&
            (device == VIRTIO_BLK || device == VIRTIO_BLK_1) && !n--)
            return slot;
    }
    return 0;
}

/* What is being written. */
struct order {
    char *text;
    size_t size, len;
    enum machine_boot_once once; /* what comes before all else, this time */
};

__attribute__((format(printf, 2, 3))) static void put(struct order *o, const char *format,
                                                      ...) {
    va_list args;

    va_start(args, format);
    if (o->len < o->size)
        o->len += (size_t)vsnprintf(o->text + o->len, o->size - o->len, format, args);
    va_end(args);
}

static void nets(const struct machine *m, struct order *o, enum machine_net_boot when) {
    for (unsigned n = 0; n < m->cfg.net_count; n++)
        if (m->cfg.nets[n].boot == when)
            put(o, "/pci@i0cf8/ethernet@%x/ethernet-phy@0\n", m->net_slot[n]);
}

/* Those that come before all else, or the others. */
static void disks(const struct machine *m, struct order *o, bool once) {
    unsigned virtio = 0;

    for (unsigned n = 0; n < m->cfg.disk_count; n++) {
        bool cdrom = m->cfg.disks[n].kind == MACHINE_DISK_CDROM;
        unsigned ide = machine_ide_place(m, n);
        unsigned slot = ide < IDE_DRIVES ? 0 : virtio_slot(m, virtio++);

        if (once != (o->once == (cdrom ? MACHINE_ONCE_CDROM : MACHINE_ONCE_DISK)))
            continue;
        if (ide < IDE_DRIVES)
            put(o, "/pci@i0cf8/ide@%x,%x/drive@%u/disk@%u\n", PIIX_SLOT, PIIX_IDE,
                ide / 2, ide % 2);
        else if (slot)
            put(o, "/pci@i0cf8/scsi@%x/disk@0,0\n", slot);
    }
}

void machine_bootorder(const struct machine *m, char *text, size_t size) {
    struct order o = {.text = text, .size = size};

    *text = 0;
    if (!m->told)
        o.once = m->cfg.boot_once;
    disks(m, &o, true);
    nets(m, &o, MACHINE_NET_FIRST);
    if (o.once == MACHINE_ONCE_NET)
        nets(m, &o, MACHINE_NET_LAST);
    disks(m, &o, false);
    if (o.once != MACHINE_ONCE_NET)
        nets(m, &o, MACHINE_NET_LAST);
}
