/* What the DSDT contains: the board's devices as ACPI's namespace. */
#ifndef DEV_DSDT_H
#define DEV_DSDT_H

#include "dev/tables/aml.h"

#define DSDT_MMIO_MAX 16u

struct dsdt_config {
    bool pci;
    bool keyboard;    /* is plugged in */
    bool fw_cfg;      /* is there */
    uint64_t ram_end; /* below 4 GiB: from there to the I/O APIC is PCI's */
    /* Where 64-bit bars may be, above RAM: from here to there. Equal: nowhere. */
    uint64_t window64, window64_end;
    /* virtio devices by MMIO: SIZE bytes each from MMIO on, and their interrupts. */
    unsigned mmio_count;
    uint32_t mmio, mmio_size;
    uint8_t mmio_irq[DSDT_MMIO_MAX];
    uint64_t generation; /* where the generation ID is; 0: there is none */
};

/* PCI's windows of a board with RAM bytes of memory, whose CPU has so many bits of
 * physical addresses: what is free below the I/O APIC (some firmware begins close to RAM)
 * and, for large bars, all above RAM, as far as these addresses go: OVMF puts them at the
 * end. */
void dsdt_pci_windows(struct dsdt_config *cfg, uint64_t ram, unsigned phys_bits);

/* The ISA lines that a guest may lead PCI's to. */
#define DSDT_PCI_IRQS 3u
extern const uint8_t dsdt_pci_irqs[DSDT_PCI_IRQS];

/* Appends its terms. No address of another table is in them. */
void dsdt_build(struct aml *a, const struct dsdt_config *cfg);

#endif
