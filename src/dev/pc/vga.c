/*
 * A VGA's registers. IBM VGA register set as chips document it: miscellaneous output,
 * sequencer, graphics controller, attribute controller, CRTC, DAC.
 *
 * What is on the screen is picture.c's. Index registers wrap to the size of their file;
 * all data registers keep what is written. Input status 1 shows retrace for a tenth of
 * each sixtieth of a second, from the clock, so that code that waits for either edge goes
 * on.
 */
#include "dev/pc/vga_int.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_PORT 0x3b0
#define PORT_COUNT 0x30

#define FRAME_NS 16666667u
#define LINE_NS 31778u

static uint8_t input_status(struct vga *v) {
    uint64_t now = vclock_now(v->clock);
    uint8_t s = 0;

    v->attr_data = false;
    if (now % FRAME_NS < FRAME_NS / 10)
        s |= 0x09; /* vertical retrace, and display off with it */
    else if (now % LINE_NS < LINE_NS / 5)
        s |= 0x01;
    return s;
}

static uint8_t dac_next(uint16_t *pos, const uint8_t *dac) {
    uint8_t v = dac[*pos];

    *pos = (uint16_t)((*pos + 1) % 768);
    return v;
}

/* The CRTC and status registers answer at 0x3bx or 0x3dx as MISC bit 0 says. */
static bool hidden(const struct vga *v, unsigned port) {
    if (port >= 0x3d0)
        return !(v->misc & 1);
    return port < 0x3c0 && (v->misc & 1);
}

static uint64_t io_read(void *dev, uint64_t addr, unsigned size) {
    struct vga *v = dev;
    unsigned port = FIRST_PORT + (unsigned)addr;

    if (hidden(v, port))
        return 0xff;
    switch (port) {
    case 0x3b4:
    case 0x3d4:
        return v->crtc_index;
    case 0x3b5:
    case 0x3d5:
        return v->crtc[v->crtc_index];
    case 0x3ba:
    case 0x3da:
        return input_status(v);
    case 0x3c0:
        return v->attr_index;
    case 0x3c1:
        return v->attr[v->attr_index & 0x1f];
    case 0x3c2: /* input status 0: a colour monitor */
        return 0x10;
    case 0x3c4:
        return v->seq_index;
    case 0x3c5:
        return v->seq[v->seq_index];
    case 0x3c6:
        return v->dac_mask;
    case 0x3c7:
        return v->dac_state;
    case 0x3c8:
        return v->dac_write / 3u;
    case 0x3c9:
        return dac_next(&v->dac_read, v->dac);
    case 0x3ca:
        return v->feature;
    case 0x3cc:
        return v->misc;
    case 0x3ce:
        return v->gfx_index;
    case 0x3cf:
        return v->gfx[v->gfx_index];
    default:
        return 0xff;
    }
}

static void write_crtc(struct vga *v, uint8_t value) {
    /* Bit 7 of register 0x11 protects registers 0 to 7, but for one bit. */
    if ((v->crtc[0x11] & 0x80) && v->crtc_index <= 7) {
        if (v->crtc_index == 7)
            v->crtc[7] = (uint8_t)((v->crtc[7] & ~0x10) | (value & 0x10));
        return;
    }
    v->crtc[v->crtc_index] = value;
}

static void write_attr(struct vga *v, uint8_t value) {
    if (v->attr_data)
        v->attr[v->attr_index & 0x1f] = value;
    else
        v->attr_index = value & 0x3f;
    v->attr_data = !v->attr_data;
}

static void io_write(void *dev, uint64_t addr, unsigned size, uint64_t data) {
    struct vga *v = dev;
    unsigned port = FIRST_PORT + (unsigned)addr;
    uint8_t value = (uint8_t)data;

    if (hidden(v, port))
        return;
    switch (port) {
    case 0x3b4:
    case 0x3d4:
        v->crtc_index = value & 0x1f;
        break;
    case 0x3b5:
    case 0x3d5:
        write_crtc(v, value);
        break;
    case 0x3ba:
    case 0x3da:
        v->feature = value;
        break;
    case 0x3c0:
        write_attr(v, value);
        break;
    case 0x3c2:
        v->misc = value;
        break;
    case 0x3c4:
        v->seq_index = value & 7;
        break;
    case 0x3c5:
        v->seq[v->seq_index] = value;
        vga_update_window(v);
        break;
    case 0x3c6:
        v->dac_mask = value;
        break;
    case 0x3c7:
        v->dac_read = (uint16_t)(value * 3);
        v->dac_state = 3;
        break;
    case 0x3c8:
        v->dac_write = (uint16_t)(value * 3);
        v->dac_state = 0;
        break;
    case 0x3c9:
        v->dac[v->dac_write] = value & v->dac_max;
        v->dac_write = (uint16_t)((v->dac_write + 1) % 768);
        break;
    case 0x3ce:
        v->gfx_index = value & 15;
        break;
    case 0x3cf:
        v->gfx[v->gfx_index] = value;
        vga_update_window(v);
        break;
    default:
        break;
    }
}

static const struct bus_ops ops = {.read = io_read, .write = io_write, .width = 1};

/* The palette of BIOS mode 3: two bits for each of red, green and blue. */
static void reset_dac(struct vga *v) {
    for (unsigned n = 0; n < 64; n++) {
        uint8_t *c = &v->dac[n * 3];

        c[0] = (uint8_t)(((n >> 1 & 2) | (n >> 5 & 1)) * 21);
        c[1] = (uint8_t)(((n & 2) | (n >> 4 & 1)) * 21);
        c[2] = (uint8_t)(((n << 1 & 2) | (n >> 3 & 1)) * 21);
    }
}

/* BIOS mode 3. Memory's own reset has made RAM of the window. */
/* What is blank is not written to: that would take memory of the host's. */
static void blank(uint8_t *plane) {
    const uint64_t *words = (const uint64_t *)(const void *)plane;

    for (unsigned n = 0; n < VGA_PLANE / sizeof(*words); n++)
        if (words[n]) {
            mem_fill(plane, 0, VGA_PLANE);
            return;
        }
}

void vga_reset(struct vga *v) {
    static const uint8_t crtc[25] = {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00,
                                     0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c, 0x8e,
                                     0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff};
    static const uint8_t attr[21] = {0,    1,    2,    3,    4,    5,    0x14,
                                     7,    0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d,
                                     0x3e, 0x3f, 0x0c, 0,    0x0f, 8,    0};
    static const uint8_t seq[5] = {3, 0, 3, 0, 2};
    static const uint8_t gfx[9] = {0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff};
    const struct vga old = *v;

    *v = (struct vga){.clock = old.clock,
                      .mem = old.mem,
                      .misc = 0x67,
                      .dac_mask = 0xff,
                      .dac_max = 0x3f,
                      .attr_index = 0x20};
    for (unsigned n = 0; n < 4; n++) {
        v->plane[n] = old.plane[n];
        blank(v->plane[n]);
    }
    reset_dac(v);
    memcpy(v->crtc, crtc, sizeof(crtc));
    memcpy(v->attr, attr, sizeof(attr));
    memcpy(v->seq, seq, sizeof(seq));
    memcpy(v->gfx, gfx, sizeof(gfx));
}

/* --- the text --- */

#define TEXT_WINDOW 0x8000u /* bytes at 0xb0000, or 0xb8000 */

/* Where text is: as the graphics controller maps it; 0: it is a picture. */
static uint64_t text_base(const struct vga *v) {
    if (v->gfx[6] & 1)
        return 0;
    return (v->gfx[6] >> 2 & 3) == 2 ? 0xb0000 : 0xb8000;
}

static void text_size(const struct vga *v, struct vga_text *out) {
    unsigned lines =
        v->crtc[0x12] | (v->crtc[7] & 0x02u) << 7 | (v->crtc[7] & 0x40u) << 3;
    unsigned height = (v->crtc[9] & 0x1f) + 1u;

    out->columns = v->crtc[1] + 1u;
    out->columns = out->columns < VGA_COLUMNS ? out->columns : VGA_COLUMNS;
    out->rows = (lines + 1) / height;
    out->rows = out->rows < VGA_ROWS ? out->rows : VGA_ROWS;
}

/* The CRTC's addresses count cells; they wrap at the window's end. */
bool vga_read_text(const struct vga *v, const struct mem *m, struct vga_text *out) {
    unsigned start = (unsigned)v->crtc[0x0c] << 8 | v->crtc[0x0d];
    unsigned cursor = (unsigned)v->crtc[0x0e] << 8 | v->crtc[0x0f];
    unsigned pitch = v->crtc[0x13] * 2u, at;
    uint64_t base = text_base(v);
    uint8_t pair[2];

    *out = (struct vga_text){.columns = 0};
    if (!base)
        return false;
    text_size(v, out);
    pitch = pitch ? pitch : out->columns;
    out->cursor = !(v->crtc[0x0a] & 0x20);
    out->row = (cursor - start) / pitch;
    out->column = (cursor - start) % pitch;
    for (unsigned y = 0; y < out->rows; y++) {
        for (unsigned x = 0; x < out->columns; x++) {
            at = (start + y * pitch + x) * 2 % TEXT_WINDOW;
            if (!mem_read(m, gpa(base + at), pair, sizeof(pair)))
                return false;
            out->cell[y][x] = pair[0];
            out->attribute[y][x] = pair[1];
        }
    }
    return true;
}

/* --- a display around it --- */

void vga_show_linear(struct vga *v, const struct vga_linear *linear) {
    v->linear = *linear;
    vga_update_window(v);
}

void vga_show_bank(struct vga *v, uint8_t *bank) {
    v->bank = bank;
    vga_update_window(v);
}

void vga_wide_dac(struct vga *v, bool on) {
    v->dac_max = on ? 0xff : 0x3f;
}

uint8_t vga_port_read(struct vga *v, unsigned port) {
    return (uint8_t)io_read(v, port - FIRST_PORT, 1);
}

void vga_port_write(struct vga *v, unsigned port, uint8_t value) {
    io_write(v, port - FIRST_PORT, 1, value);
}

/* --- life --- */

static bool attach(struct vga *v, struct bus *bus) {
    return bus_attach_pio(bus, FIRST_PORT, PORT_COUNT, &ops, v, "vga") &&
           (!v->mem || bus_attach_mmio(bus, gpa(VGA_WINDOW), VGA_PLANE, &vga_window_ops,
                                       v, "vga planes"));
}

static void registers_state(struct vga *v, struct snapshot *s) {
    SNAPSHOT(s, v->misc);
    SNAPSHOT(s, v->feature);
    SNAPSHOT_UPTO(s, v->crtc_index, sizeof(v->crtc) - 1);
    SNAPSHOT_UPTO(s, v->seq_index, sizeof(v->seq) - 1);
    SNAPSHOT_UPTO(s, v->gfx_index, sizeof(v->gfx) - 1);
    SNAPSHOT(s, v->attr_index);
    snapshot_bytes(s, v->crtc, sizeof(v->crtc));
    snapshot_bytes(s, v->seq, sizeof(v->seq));
    snapshot_bytes(s, v->gfx, sizeof(v->gfx));
    snapshot_bytes(s, v->attr, sizeof(v->attr));
    SNAPSHOT(s, v->attr_data);
}

/* What is shown of a display's memory, and in the window of it, the display says when its
 * own record is read. */
void vga_state(struct vga *v, struct snapshot *s) {
    registers_state(v, s);
    snapshot_bytes(s, v->dac, sizeof(v->dac));
    SNAPSHOT(s, v->dac_mask);
    SNAPSHOT_UPTO(s, v->dac_read, sizeof(v->dac) - 1);
    SNAPSHOT_UPTO(s, v->dac_write, sizeof(v->dac) - 1);
    SNAPSHOT(s, v->dac_state);
    SNAPSHOT(s, v->dac_max);
    snapshot_bytes(s, v->latch, sizeof(v->latch));
    for (unsigned n = 0; n < 4; n++)
        snapshot_sparse(s, v->plane[n], VGA_PLANE);
    if (snapshot_reading(s))
        vga_update_window(v);
}

struct vga *vga_new(struct bus *bus, struct vclock *clock, struct mem *m) {
    struct vga *v = calloc(1, sizeof(*v));
    bool good = v;

    for (unsigned n = 0; good && n < 4; n++)
        good = (v->plane[n] = calloc(1, VGA_PLANE));
    if (good) {
        v->clock = clock;
        v->mem = m;
    }
    if (!good || !attach(v, bus)) {
        vga_free(v);
        return NULL;
    }
    vga_reset(v);
    return v;
}

void vga_free(struct vga *v) {
    for (unsigned n = 0; v && n < 4; n++)
        free(v->plane[n]);
    free(v);
}
