/*
 * The ISA bridge and its power management function, as old systems know them: Intel
 * 82371SB (PIIX3) function 0, 82371AB (PIIX4) function 3. Their data sheets, "PCI to ISA
 * Bridge Registers" and "Power Management Registers".
 *
 * The bridge leads the four PCI interrupt lines, PIRQA to PIRQD, to ISA lines of the
 * guest's choice: level, and together with whoever else drives them. The power management
 * function says where the ports of dev/pc/pm are; it has an SMBus host controller with
 * nothing on its bus.
 */
#ifndef DEV_PIIX_H
#define DEV_PIIX_H

#include "dev/pc/pm.h"
#include "dev/pci/pci.h"

#define PIIX_SLOT 1u
#define PIIX_ISA 0u /* functions */
#define PIIX_IDE 1u
#define PIIX_PM 3u

#define PIIX_ROUTE 0x60u /* of the ISA bridge: PIRQA's line; B, C, D */
#define PIIX_ROUTE_OFF 0x80u
#define PIIX_PM_BASE 0x40u /* of the PM function: bits 15 to 6 */
#define PIIX_PM_ENABLE 0x80u
#define PIIX_SMB_BASE 0x90u

struct piix;
struct snapshot;

struct piix_host {
    /* The level of ISA line N, as the PCI lines that are led to it make it. */
    void (*isa_irq)(void *arg, unsigned n, bool level);
    void *arg;
};

/* Functions 0 and 3 of slot 1. CONFIGURED: after a reset the registers are as firmware
 * leaves them, which is not there: PM's ports at PM_BASE. PM is the caller's. NULL when
 * out of memory. */
struct piix *piix_new(struct pci *pci, struct pm *pm, const struct piix_host *host,
                      bool configured);
void piix_free(struct piix *p);

/* Which of PIRQA to PIRQD (0 to 3) pin PIN of SLOT is wired to. */
static inline unsigned piix_pirq(unsigned slot, unsigned pin) {
    return (slot + pin + 3) & 3;
}
/* A function drives pin PIN of SLOT; of the shape of pci_host.intx. */
void piix_intx(void *piix, unsigned slot, unsigned pin, bool level);

/* Its record of a snapshot (snapshot/snapshot.h). */
void piix_state(struct piix *p, struct snapshot *s);

#endif
