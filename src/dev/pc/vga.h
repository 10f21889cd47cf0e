/*
 * The registers of a VGA in text mode, without a picture: what probing code writes it
 * reads back, and the retrace bits move. Text memory is RAM at 0xb8000 (mem/mem.h).
 */
#ifndef DEV_VGA_H
#define DEV_VGA_H

#include "bus/bus.h"
#include "bus/clock.h"

struct vga;

/* NULL when out of memory or of places on the bus. */
struct vga *vga_new(struct bus *bus, struct vclock *clock);
void vga_free(struct vga *v);
/* Mode 3: 80x25 colour text. */
void vga_reset(struct vga *v);

#endif
