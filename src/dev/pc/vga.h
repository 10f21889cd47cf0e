/*
 * A VGA: what probing code writes it reads back, the retrace bits move, and what is on
 * the screen can be had as text and as a picture: text, 16 colours in planes, 256
 * colours, and what a display around it (dev/pci/display.h) shows of its own memory. Text
 * memory is RAM at 0xb8000 (mem/mem.h).
 */
#ifndef DEV_VGA_H
#define DEV_VGA_H

#include "bus/bus.h"
#include "bus/clock.h"
#include "mem/mem.h"

struct vga;
struct snapshot;

/* M is where its memory is seen; NULL: it has no planes. NULL when out of memory or of
 * places on the bus. */
struct vga *vga_new(struct bus *bus, struct vclock *clock, struct mem *m);
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

/* --- a display around it --- */

/* Memory that is shown instead of the VGA's own. */
struct vga_linear {
    bool on;
    unsigned width, height, depth; /* bits of a pixel: 8, 15, 16, 24 or 32 */
    const uint8_t *bytes;
    uint64_t size, start, pitch; /* in bytes */
};

void vga_show_linear(struct vga *v, const struct vga_linear *linear);
/* 64 KiB that are seen at 0xa0000; NULL: the VGA's own. */
void vga_show_bank(struct vga *v, uint8_t *bank);
/* The DAC has eight bits for each colour, or six. */
void vga_wide_dac(struct vga *v, bool on);
/* Its ports, by another way: 0x3b0 to 0x3df. */
uint8_t vga_port_read(struct vga *v, unsigned port);
void vga_port_write(struct vga *v, unsigned port, uint8_t value);

/* --- the picture --- */

#define VGA_WIDTH 2560u /* at most */
#define VGA_HEIGHT 1600u

/* What there is to be drawn, as it is now. */
struct vga_picture {
    enum vga_kind { VGA_TEXT, VGA_PLANES, VGA_BYTES, VGA_BYTE_PLANES, VGA_LINEAR } kind;
    unsigned width, height;
    uint32_t colour[256]; /* 0xRRGGBB */
    /* text */
    struct vga_text text;
    unsigned cell_width, cell_height, cursor_first, cursor_last;
    bool blinks, continues; /* attribute bit 7 is not a colour's; lines of frames join */
    bool has_font;
    uint8_t font[256 * 32];
    /* graphics */
    unsigned start, pitch;
    const uint8_t *plane[4];
    struct vga_linear linear;
};

void vga_look(const struct vga *v, const struct mem *m, struct vga_picture *p);
/* Without the board's lock. OUT has room for width * height pixels, 0xRRGGBB. */
void vga_draw(const struct vga_picture *p, const struct mem *m, uint32_t *out);

/* Its record of a snapshot (snapshot/snapshot.h). */
void vga_state(struct vga *v, struct snapshot *s);

#endif
