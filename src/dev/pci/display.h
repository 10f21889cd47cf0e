/*
 * A display with memory of its own around the VGA: the PCI function 1234:1111 that Bochs
 * and QEMU have ("QEMU Standard VGA", docs/specs/standard-vga; Bochs's "VBE DISPI
 * interface"), which Linux's bochs driver, SeaBIOS's VGA BIOS and OVMF know.
 */
#ifndef DEV_DISPLAY_H
#define DEV_DISPLAY_H

#include "dev/pc/vga.h"
#include "dev/pci/pci.h"

#define DISPLAY_MEMORY (16u << 20)

struct display;
struct snapshot;

/* At SLOT, around V. ROM, of ROM_LEN bytes, is the VGA's BIOS, the caller's; NULL: none.
 * 0, -ENOMEM, or what memory and the bus say. */
int display_new(struct pci *pci, unsigned slot, struct mem *m, struct vga *v,
                const uint8_t *rom, uint64_t rom_len, struct display **out);
void display_free(struct display *d); /* D may be NULL */

/* Its record of a snapshot (snapshot/snapshot.h). */
void display_state(struct display *d, struct snapshot *s);

#endif
