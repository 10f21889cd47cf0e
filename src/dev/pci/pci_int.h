/* Inside dev/pci: what the files of a function's configuration space call of each other.
 */
#ifndef DEV_PCI_INT_H
#define DEV_PCI_INT_H

#include "dev/pci/pci.h"

struct pci {
    struct bus *bus;
    struct pci_host host;
    uint32_t address; /* CONFIG_ADDRESS */
    struct pci_function *at[PCI_SLOTS][PCI_FUNCTIONS];
};

/* --- interrupt.c --- */

/* Configuration space was written: INTx is as it says, and messages that were pending and
 * may go now go. */
void pci_interrupts_changed(struct pci_function *f);
void pci_interrupts_reset(struct pci_function *f);
void pci_interrupts_free(struct pci_function *f);

void pci_interrupts_state(struct pci_function *f, struct snapshot *s);
#define PCI_MSI_PENDING 0x14u /* in the capability */

/* --- bar.c --- */

/* Bars are where the registers say, and on as they say. */
void pci_bars_changed(struct pci_function *f);
void pci_bars_remove(struct pci_function *f);

/* --- config.c --- */

/* In D0, or without power management. */
bool pci_powered(const struct pci_function *f);
void pci_config_state(struct pci_function *f, struct snapshot *s);

#endif
