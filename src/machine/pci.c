/* The PCI bus and its bridges; see pci.h. */
#include "machine/pci.h"

#include <errno.h>

#define DISPLAY_SLOT 2u

static void on_intx(void *arg, unsigned slot, unsigned pin, bool level) {
    struct board_pci *p = arg;

    piix_intx(p->piix, slot, pin, level);
}

int board_pci_create(struct board_pci *p, const struct board_pci_config *cfg) {
    struct pci_host host = {.intx = on_intx,
                            .intx_arg = p,
                            .msi = cfg->msi,
                            .msi_arg = cfg->arg,
                            .not_pci = &ports_reset_control,
                            .not_pci_dev = cfg->ports};
    struct piix_host piix = {.isa_irq = cfg->isa_irq, .arg = cfg->arg};

    ports_leave_pci(cfg->ports);
    if (!(p->bus = pci_new(cfg->bus, &host)) ||
        !(p->i440fx = i440fx_new(p->bus, cfg->mem, !cfg->firmware)) ||
        !(p->piix = piix_new(p->bus, cfg->pm, &piix, !cfg->firmware)))
        return -ENOMEM;
    return display_new(p->bus, DISPLAY_SLOT, cfg->mem, cfg->vga, cfg->vga_bios,
                       cfg->vga_bios_size, &p->display);
}

void board_pci_destroy(struct board_pci *p) {
    display_free(p->display);
    piix_free(p->piix);
    i440fx_free(p->i440fx);
    pci_free(p->bus);
    *p = (struct board_pci){.bus = NULL};
}

int board_pci_slot(const struct board_pci *p) {
    for (unsigned slot = BOARD_PCI_FIRST; p->bus && slot < PCI_SLOTS; slot++)
        if (!pci_at(p->bus, slot, 0))
            return (int)slot;
    return -ENOSPC;
}
