/*
 * The board's PCI bus and who is where on it:
 *
 *   0    host bridge
 *   1    ISA bridge (function 0), IDE (1), power management (3)
 *   2    display, with the VGA in it
 *   3..  devices of the command line, in its order
 *
 * A function's INTx goes to the ISA bridge, and as an ISA line on to both interrupt
 * controllers: a system finds it on the same line with and without APIC.
 */
#ifndef MACHINE_PCI_H
#define MACHINE_PCI_H

#include "dev/pc/pm.h"
#include "dev/pc/ports.h"
#include "dev/pci/display.h"
#include "dev/pci/i440fx.h"
#include "dev/pci/pci.h"
#include "dev/pci/piix.h"

#define BOARD_PCI_FIRST 3u /* slot of the command line's */

struct board_pci {
    struct pci *bus; /* NULL: there is none */
    struct i440fx *i440fx;
    struct piix *piix;
    struct display *display;
};

/* What it is wired to, all of it the caller's. */
struct board_pci_config {
    struct bus *bus;
    struct mem *mem;
    struct ports *ports;
    struct pm *pm;
    struct vga *vga;
    const uint8_t *vga_bios; /* the display's ROM; NULL: none */
    uint32_t vga_bios_size;
    bool firmware; /* sets up what is here; else it is left as firmware would leave it */
    void (*isa_irq)(void *arg, unsigned n, bool level); /* as the PCI lines make it */
    void (*msi)(void *arg, uint64_t addr, uint32_t data);
    void *arg;
};

/* After the ISA devices, before those on the bus. 0 or -errno (board_pci_destroy()). P
 * stays where it is. */
int board_pci_create(struct board_pci *p, const struct board_pci_config *cfg);
/* After the devices on the bus. */
void board_pci_destroy(struct board_pci *p);
/* The first free slot for a device of the command line, or -ENOSPC. */
int board_pci_slot(const struct board_pci *p);

#endif
