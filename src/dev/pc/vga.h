/*
 * The registers of a VGA in text mode, without a picture: what probing code writes it
 * reads back, and the retrace bits move. Text memory is RAM at 0xb8000 (mem/mem.h).
 */
#ifndef DEV_VGA_H
#define DEV_VGA_H

#include "bus/bus.h"
#include "bus/clock.h"
#include "mem/mem.h"

struct vga;

/* NULL when out of memory or of places on the bus. */
struct vga *vga_new(struct bus *bus, struct vclock *clock);
void vga_free(struct vga *v);
/* Mode 3: 80x25 colour text. */
void vga_reset(struct vga *v);

#define VGA_COLUMNS 132u /* at most */
#define VGA_ROWS 60u

struct vga_text {
    unsigned columns, rows;
    unsigned column, row; /* the cursor's place, which may be off the screen */
    bool cursor;          /* it is shown */
    uint8_t cell[VGA_ROWS][VGA_COLUMNS];      /* characters, in the guest's code page */
    uint8_t attribute[VGA_ROWS][VGA_COLUMNS]; /* their colours */
};

/* What is on the screen. False: it shows no text. */
bool vga_read_text(const struct vga *v, const struct mem *m, struct vga_text *out);

#endif
