/*
 * A VGA's registers, as its parts share them: the ports (vga.c), the planes of its memory
 * (planes.c), what is on its screen (picture.c).
 *
 * Its memory is at two places. In text modes, and in those with a byte a pixel, the
 * 128 KiB from 0xa0000 on are RAM (mem/mem.h), and what the guest writes costs nothing; a
 * font that it loads "into plane 2" lies at 0xa0000 then. In modes with planes, and for
 * banks of a display's memory, 0xa0000 to 0xaffff are hidden, and each access comes here.
 */
#ifndef DEV_VGA_INT_H
#define DEV_VGA_INT_H

#include "dev/pc/vga.h"

#define VGA_PLANE 0x10000u
#define VGA_WINDOW 0xa0000u

struct vga {
    struct vclock *clock;
    struct mem *mem;
    uint8_t misc, feature;
    uint8_t crtc_index, seq_index, gfx_index, attr_index;
    uint8_t crtc[0x20], seq[8], gfx[16], attr[0x20];
    bool attr_data; /* the next write to 0x3c0 is data */
    uint8_t dac[768];
    uint8_t dac_mask;
    uint16_t dac_read, dac_write; /* position in dac[] */
    uint8_t dac_state;            /* 3 after setting the read address, 0 the write one */
    uint8_t dac_max;              /* 0x3f, or 0xff: eight bits a colour */
    bool hidden;                  /* the window at VGA_WINDOW is ours, not RAM */
    struct vga_linear linear;
    uint8_t *bank; /* VGA_PLANE bytes of the linear memory in the window; NULL: none */
    uint8_t latch[4];
    uint8_t *plane[4]; /* VGA_PLANE bytes each */
};

/* planes.c: the window is RAM or ours, as the registers say now. */
void vga_update_window(struct vga *v);
extern const struct bus_ops vga_window_ops;

#endif
