/*
 * The firmware's part. Bars are placed by size, the largest first, so that alignment
 * wastes nothing; within a size in the order of slots. Bus mastering stays off: that is
 * for drivers.
 */
#include "dev/pci/setup.h"

#include "dev/pci/piix.h"

#define ELCR 0x4d0

struct window {
    uint64_t next, end; /* the first that is free; the last that may be used */
};

unsigned pci_setup_irq(unsigned slot, unsigned pin) {
    return piix_pirq(slot, pin) < 2 ? PCI_IRQ_AB : PCI_IRQ_CD;
}

/* The address for SIZE bytes, or 0. */
static uint64_t take(struct window *w, uint64_t size) {
    uint64_t at = (w->next + size - 1) & ~(size - 1);

    if (at > w->end || w->end - at < size - 1)
        return 0;
    w->next = at + size;
    return at;
}

static void place_bar(struct pci_function *f, unsigned n, struct window *io,
                      struct window *mmio) {
    const struct pci_bar *b = &f->bar[n];
    bool ports = b->kind == PCI_BAR_IO;
    uint64_t at = take(ports ? io : mmio, b->size);

    pci_config_write(f, n == PCI_ROM_BAR ? PCI_ROM : PCI_BAR0 + 4 * n, 4, (uint32_t)at);
    if (b->kind == PCI_BAR_MMIO64)
        pci_config_write(f, PCI_BAR0 + 4 * n + 4, 4, (uint32_t)(at >> 32));
}

static void place_bars(struct pci *p) {
    struct window io = {PCI_IO_WINDOW, PCI_IO_WINDOW_END};
    struct window mmio = {PCI_MMIO_WINDOW, PCI_MMIO_WINDOW_END};

    for (unsigned log = 31; log >= 2; log--)
        for (unsigned k = 0; k < PCI_SLOTS * PCI_FUNCTIONS; k++) {
            struct pci_function *f = pci_at(p, k / PCI_FUNCTIONS, k % PCI_FUNCTIONS);

            for (unsigned n = 0; f && n <= PCI_ROM_BAR; n++)
                if (f->bar[n].kind && f->bar[n].size == 1ull << log)
                    place_bar(f, n, &io, &mmio);
        }
}

static bool has_address(const struct pci_function *f, unsigned n) {
    uint32_t at = pci_config(f, PCI_BAR0 + 4 * n, 4) & ~0xfu;

    return at ||
           (f->bar[n].kind == PCI_BAR_MMIO64 && pci_config(f, PCI_BAR0 + 4 * n + 4, 4));
}

/* Decoding of a kind is on when all bars of the kind have a place. */
static void switch_on(struct pci_function *f) {
    uint32_t command = pci_config(f, PCI_COMMAND, 2), io = 0, memory = 0;
    bool all_io = true, all_memory = true;

    for (unsigned n = 0; n < PCI_BARS; n++) {
        if (f->bar[n].kind == PCI_BAR_IO) {
            io = PCI_COMMAND_IO;
            all_io &= has_address(f, n);
        } else if (f->bar[n].kind) {
            memory = PCI_COMMAND_MEMORY;
            all_memory &= has_address(f, n);
        }
    }
    command |= (all_io ? io : 0) | (all_memory ? memory : 0);
    pci_config_write(f, PCI_COMMAND, 2, command);
}

static void set_up_function(struct pci_function *f) {
    unsigned pin = f->config[PCI_INTERRUPT_PIN];

    switch_on(f);
    if (pin && f->slot != PIIX_SLOT) /* the chip's own functions have ISA lines */
        pci_config_write(f, PCI_INTERRUPT_LINE, 1, pci_setup_irq(f->slot, pin - 1));
}

void pci_setup(struct pci *pci) {
    struct pci_function *isa = pci_at(pci, PIIX_SLOT, PIIX_ISA);
    unsigned levels = 1u << PCI_IRQ_AB | 1u << PCI_IRQ_CD;

    if (isa) {
        pci_config_write(isa, PIIX_ROUTE, 4,
                         PCI_IRQ_AB * 0x0101u | PCI_IRQ_CD * 0x01010000u);
        bus_pio_write(pci_bus(pci), ELCR, 2, levels);
    }
    place_bars(pci);
    for (unsigned k = 0; k < PCI_SLOTS * PCI_FUNCTIONS; k++) {
        struct pci_function *f = pci_at(pci, k / PCI_FUNCTIONS, k % PCI_FUNCTIONS);

        if (f)
            set_up_function(f);
    }
}
