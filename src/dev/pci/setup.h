/*
 * What firmware does with a PCI bus when a PC starts, for machines without any: addresses
 * for all bars, decoding on, interrupt lines. Systems that assign addresses themselves
 * find nothing to do, those that never do (most small ones) find devices that work.
 */
#ifndef DEV_PCI_SETUP_H
#define DEV_PCI_SETUP_H

#include "dev/pci/pci.h"

/* Where bars may be: what the board's tables tell the guest. */
#define PCI_IO_WINDOW 0xc000u
#define PCI_IO_WINDOW_END 0xffffu
#define PCI_MMIO_WINDOW                                                                  \
    0xe0000000u /* of what is set up here; tables name all of the hole */
#define PCI_MMIO_WINDOW_END 0xfebfffffu
#define PCI_IRQ_AB 10u /* of PIRQA and PIRQB */
#define PCI_IRQ_CD 11u

/* The ISA line that pin PIN (0..3) of SLOT comes to. */
unsigned pci_setup_irq(unsigned slot, unsigned pin);
/* After a reset. A bar that no window has room for is left without an address, and its
 * device without decoding. */
void pci_setup(struct pci *pci);

#endif
