/*
 * In which order firmware is to try disks and network cards: those cards that are to be
 * first, the disks as on the command line, the other cards. Devices have the
 * names that Open Firmware gives them, a line each ("PCI Bus Binding to Open Firmware",
 * "Device Addressing"); of fw_cfg, file bootorder, as SeaBIOS and OVMF read it.
 */
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

static size_t nets(const struct machine *m, enum machine_net_boot when, char *text,
                   size_t size) {
    size_t len = 0;

    for (unsigned n = 0; n < m->cfg.net_count && len < size; n++)
        if (m->cfg.nets[n].boot == when)
            len += (size_t)snprintf(text + len, size - len,
                                    "/pci@i0cf8/ethernet@%x/ethernet-phy@0\n",
                                    m->net_slot[n]);
    return len;
}

static size_t disks(const struct machine *m, char *text, size_t size) {
    unsigned virtio = 0;
    size_t len = 0;

    for (unsigned n = 0; n < m->cfg.disk_count && len < size; n++) {
        unsigned place = machine_ide_place(m, n);
        int more = 0;

        if (place < IDE_DRIVES)
            more = snprintf(text + len, size - len,
                            "/pci@i0cf8/ide@%x,%x/drive@%u/disk@%u\n", PIIX_SLOT,
                            PIIX_IDE, place / 2, place % 2);
        else if ((place = virtio_slot(m, virtio++)))
            more =
                snprintf(text + len, size - len, "/pci@i0cf8/scsi@%x/disk@0,0\n", place);
        len += (size_t)more;
    }
    return len;
}

void machine_bootorder(const struct machine *m, char *text, size_t size) {
    size_t len = nets(m, MACHINE_NET_FIRST, text, size);

    len += disks(m, text + len, size - len);
    text[len] = 0;
    nets(m, MACHINE_NET_LAST, text + len, size - len);
}
