/*
 * What is on the VGA's screen. vga_look() takes down the registers, quickly and with the
 * board's lock; vga_draw() makes pixels of what they say and of memory that the guest may
 * be writing meanwhile, without it.
 *
 * Everything the guest says is taken modulo what there is: no register leads out of the
 * planes, the linear memory or guest RAM.
 */
#include "dev/pc/font.h"
#include "dev/pc/vga_int.h"

#define FONT_ROWS 32u /* of a glyph in memory */
#define PIXEL_DOUBLE 0x40u

/* --- looking --- */

static uint32_t dac_colour(const struct vga *v, unsigned index) {
    const uint8_t *c = &v->dac[(index & v->dac_mask) * 3];
    unsigned shift = v->dac_max == 0x3f ? 2 : 0;
    uint32_t r = c[0], g = c[1], b = c[2];

    if (!shift)
        return r << 16 | g << 8 | b;
    return (r << 2 | r >> 4) << 16 | (g << 2 | g >> 4) << 8 | (b << 2 | b >> 4);
}

/* The attribute controller's sixteen. */
static uint32_t attribute_colour(const struct vga *v, unsigned n) {
    unsigned index = v->attr[n] & 0x3f, select = v->attr[0x14];

    if (v->attr[0x10] & 0x80)
        index = (index & 0x0f) | (select & 3) << 4;
    return dac_colour(v, index | (select & 0x0c) << 4);
}

static unsigned lines_of(const struct vga *v) {
    return (v->crtc[0x12] | (v->crtc[7] & 0x02u) << 7 | (v->crtc[7] & 0x40u) << 3) + 1u;
}

static unsigned least(unsigned a, unsigned b) {
    return a < b ? a : b;
}

static void look_at_text(const struct vga *v, const struct mem *m,
                         struct vga_picture *p) {
    unsigned set = v->seq[3], place = (set >> 2 & 3) | (set & 0x20) >> 3;
    uint8_t any = 0;

    p->kind = VGA_TEXT;
    p->cell_width = v->seq[1] & 1 ? 8 : 9;
    p->cell_height = (v->crtc[9] & 0x1f) + 1u;
    p->width = p->text.columns * p->cell_width;
    p->height = p->text.rows * p->cell_height;
    p->blinks = v->attr[0x10] & 8;
    p->continues = v->attr[0x10] & 4;
    p->cursor_first = v->crtc[0x0a] & 0x1f;
    p->cursor_last = v->crtc[0x0b] & 0x1f;
    for (unsigned n = 0; n < 16; n++)
        p->colour[n] = attribute_colour(v, n);
    /* Sets are 16 KiB apart, the second four between the first. */
    place = (place & 3) * 0x4000 + (place & 4) * 0x800;
    if (!mem_read(m, gpa(VGA_WINDOW + place), p->font, sizeof(p->font)))
        return;
    for (unsigned n = 'A' * FONT_ROWS; n < ('Z' + 1) * FONT_ROWS; n++)
        any |= p->font[n];
    p->has_font = any;
}

static void look_at_graphics(const struct vga *v, struct vga_picture *p) {
    unsigned start = (unsigned)v->crtc[0x0c] << 8 | v->crtc[0x0d];
    unsigned repeat = ((v->crtc[9] & 0x1f) + 1u) << (v->crtc[9] >> 7);
    bool bytes = v->gfx[5] & 0x40;

    p->kind = !bytes ? VGA_PLANES : v->seq[4] & 8 ? VGA_BYTES : VGA_BYTE_PLANES;
    p->width = (v->crtc[1] + 1u) * 8;
    if (bytes && (v->attr[0x10] & PIXEL_DOUBLE))
        p->width /= 2;
    p->height = lines_of(v) / repeat;
    p->start = start;
    p->pitch = v->crtc[0x13] * 2u;
    for (unsigned n = 0; n < 256; n++)
        p->colour[n] = bytes || n > 15 ? dac_colour(v, n) : attribute_colour(v, n);
    for (unsigned n = 0; n < 4; n++)
        p->plane[n] = v->plane[n];
}

static void look_at_linear(const struct vga *v, struct vga_picture *p) {
    p->kind = VGA_LINEAR;
    p->linear = v->linear;
    p->width = v->linear.width;
    p->height = v->linear.height;
    for (unsigned n = 0; n < 256; n++)
        p->colour[n] = dac_colour(v, n);
}

void vga_look(const struct vga *v, const struct mem *m, struct vga_picture *p) {
    p->has_font = false;
    if (v->linear.on)
        look_at_linear(v, p);
    else if (vga_read_text(v, m, &p->text))
        look_at_text(v, m, p);
    else
        look_at_graphics(v, p);
    p->width = least(p->width ? p->width : 1, VGA_WIDTH);
    p->height = least(p->height ? p->height : 1, VGA_HEIGHT);
}

/* --- text --- */

static unsigned glyph_row(const struct vga_picture *p, unsigned c, unsigned y) {
    if (p->has_font)
        return p->font[c * FONT_ROWS + y];
    return font_row((uint8_t)c, y, p->cell_height);
}

static void draw_cell(const struct vga_picture *p, unsigned column, unsigned row,
                      uint32_t *out) {
    unsigned c = p->text.cell[row][column], a = p->text.attribute[row][column];
    uint32_t ink = p->colour[a & 15], paper = p->colour[a >> 4 & (p->blinks ? 7 : 15)];
    bool here = p->text.cursor && column == p->text.column && row == p->text.row;

    for (unsigned y = 0; y < p->cell_height; y++) {
        unsigned bits = glyph_row(p, c, y) << 1;

        if (p->continues && c >= 0xc0 && c <= 0xdf)
            bits |= bits >> 1 & 1;
        if (here && y >= p->cursor_first && y <= p->cursor_last)
            bits = 0x1ff;
        for (unsigned x = 0; x < p->cell_width; x++)
            out[y * p->width + x] = bits << x & 0x100 ? ink : paper;
    }
}

static void draw_text(const struct vga_picture *p, uint32_t *out) {
    for (unsigned row = 0; row < p->text.rows; row++)
        for (unsigned column = 0; column < p->text.columns; column++)
            draw_cell(p, column, row,
                      out + row * p->cell_height * p->width + column * p->cell_width);
}

/* --- graphics --- */

static void draw_planes(const struct vga_picture *p, uint32_t *out) {
    for (unsigned y = 0; y < p->height; y++)
        for (unsigned x = 0; x < p->width; x++) {
            unsigned at = (p->start + y * p->pitch + x / 8) % VGA_PLANE, n = 0;

            for (unsigned k = 0; k < 4; k++)
                n |= (unsigned)(p->plane[k][at] >> (7 - x % 8) & 1) << k;
            out[y * p->width + x] = p->colour[n];
        }
}

static void draw_byte_planes(const struct vga_picture *p, uint32_t *out) {
    for (unsigned y = 0; y < p->height; y++)
        for (unsigned x = 0; x < p->width; x++) {
            unsigned at = (p->start + y * p->pitch + x / 4) % VGA_PLANE;

            out[y * p->width + x] = p->colour[p->plane[x % 4][at]];
        }
}

static void draw_bytes(const struct vga_picture *p, const struct mem *m, uint32_t *out) {
    uint8_t line[VGA_WIDTH];

    for (unsigned y = 0; y < p->height; y++) {
        unsigned at = (p->start + y * p->pitch) * 4 % VGA_PLANE;
        unsigned len = least(p->width, VGA_PLANE - at);

        if (!mem_read(m, gpa(VGA_WINDOW + at), line, len))
            len = 0;
        for (unsigned x = 0; x < p->width; x++)
            out[y * p->width + x] = p->colour[x < len ? line[x] : 0];
    }
}

static uint32_t pixel(const struct vga_picture *p, const uint8_t *at) {
    uint32_t v = at[0], r, g, b;

    switch (p->linear.depth) {
    case 8:
        return p->colour[v];
    case 15:
    case 16:
        v |= (uint32_t)at[1] << 8;
        b = v & 31;
        g = p->linear.depth == 15 ? v >> 5 & 31 : v >> 6 & 31;
        r = v >> (p->linear.depth == 15 ? 10 : 11) & 31;
        return (r << 3 | r >> 2) << 16 | (g << 3 | g >> 2) << 8 | (b << 3 | b >> 2);
    default:
        return v | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16;
    }
}

static void draw_linear(const struct vga_picture *p, uint32_t *out) {
    const struct vga_linear *l = &p->linear;
    unsigned bytes = (l->depth + 7) / 8;

    for (unsigned y = 0; y < p->height; y++) {
        uint64_t at = l->start + (uint64_t)y * l->pitch;

        for (unsigned x = 0; x < p->width; x++, at += bytes)
            out[y * p->width + x] = at + bytes <= l->size ? pixel(p, l->bytes + at) : 0;
    }
}

void vga_draw(const struct vga_picture *p, const struct mem *m, uint32_t *out) {
    switch (p->kind) {
    case VGA_TEXT:
        draw_text(p, out);
        break;
    case VGA_PLANES:
        draw_planes(p, out);
        break;
    case VGA_BYTE_PLANES:
        draw_byte_planes(p, out);
        break;
    case VGA_BYTES:
        draw_bytes(p, m, out);
        break;
    default:
        draw_linear(p, out);
    }
}
