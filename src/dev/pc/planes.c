/*
 * The VGA's four planes at 0xa0000: what a byte that is written does to them, and what
 * one that is read is made of. IBM VGA, "Graphics Controller Registers": read modes 0 and
 * 1, write modes 0 to 3.
 */
#include "dev/pc/vga_int.h"

enum { SET_RESET, ENABLE_SET_RESET, COMPARE, ROTATE, READ_MAP, MODE, MISC, CARE, BITS };

#define GRAPHICS 0x01u /* of MISC */
#define CHAIN4 0x08u   /* of the sequencer's memory mode */

/* In text modes programs reach the font with plain RAM; and so do modes that chain the
 * planes to one byte a pixel. */
void vga_update_window(struct vga *v) {
    bool planes = (v->gfx[MISC] & GRAPHICS) && !(v->seq[4] & CHAIN4) && !v->linear.on;
    bool wanted = v->mem && (planes || v->bank);

    if (wanted == v->hidden)
        return;
    if (!mem_set_kind(v->mem, gpa(VGA_WINDOW), VGA_PLANE, wanted ? MEM_NONE : MEM_RAM))
        v->hidden = wanted;
}

/* --- writing --- */

static uint8_t combine(uint8_t function, uint8_t value, uint8_t latch) {
    switch (function) {
    case 1:
        return value & latch;
    case 2:
        return value | latch;
    case 3:
        return value ^ latch;
    default:
        return value;
    }
}

static uint8_t rotate(const struct vga *v, uint8_t value) {
    unsigned by = v->gfx[ROTATE] & 7;

    return (uint8_t)(value >> by | value << (8 - by));
}

/* All bits of a plane's colour. */
static uint8_t spread(uint8_t colour, unsigned plane) {
    return colour >> plane & 1 ? 0xff : 0;
}

/* What VALUE brings to PLANE, before the bit mask. */
static uint8_t source(const struct vga *v, uint8_t value, unsigned plane) {
    switch (v->gfx[MODE] & 3) {
    case 2:
        return spread(value, plane);
    case 3:
        return spread(v->gfx[SET_RESET], plane);
    default:
        if (v->gfx[ENABLE_SET_RESET] >> plane & 1)
            return spread(v->gfx[SET_RESET], plane);
        return rotate(v, value);
    }
}

static void write_planes(struct vga *v, uint64_t at, uint8_t value) {
    uint8_t bits = v->gfx[BITS];

    if ((v->gfx[MODE] & 3) == 3)
        bits &= rotate(v, value);
    for (unsigned p = 0; p < 4; p++) {
        uint8_t latch = v->latch[p], out = latch;

        if (!(v->seq[2] >> p & 1))
            continue;
        if ((v->gfx[MODE] & 3) != 1) {
            out = combine(v->gfx[ROTATE] >> 3 & 3, source(v, value, p), latch);
            out = (uint8_t)((out & bits) | (latch & ~bits));
        }
        v->plane[p][at] = out;
    }
}

static void window_write(void *dev, uint64_t at, unsigned size, uint64_t value) {
    struct vga *v = dev;

    if (v->bank)
        mem_store(v->mem, v->bank + at, &(uint8_t){(uint8_t)value}, 1);
    else
        write_planes(v, at, (uint8_t)value);
}

/* --- reading --- */

static uint64_t window_read(void *dev, uint64_t at, unsigned size) {
    struct vga *v = dev;
    uint8_t differs = 0;

    if (v->bank)
        return v->bank[at];
    for (unsigned p = 0; p < 4; p++) {
        v->latch[p] = v->plane[p][at];
        if (v->gfx[CARE] >> p & 1)
            differs |= v->latch[p] ^ spread(v->gfx[COMPARE], p);
    }
    if (v->gfx[MODE] & 8)
        return (uint8_t)~differs;
    return v->latch[v->gfx[READ_MAP] & 3];
}

const struct bus_ops vga_window_ops = {
    .read = window_read, .write = window_write, .width = 1, .general = true};
