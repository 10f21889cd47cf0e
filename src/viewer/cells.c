/* The text screen for a terminal; see cells.h. */
#include "viewer/cells.h"

#include <stdio.h>
#include <string.h>

#define NONE 0xffffu /* no attribute */
#define CELL_MAX 48u /* bytes that a cell needs at most, with where it is */

/* Code page 437: the characters below the space, and from 0x7f on. */
static const uint16_t low[] = {
    0x0020, 0x263a, 0x263b, 0x2665, 0x2666, 0x2663, 0x2660, 0x2022,
    0x25d8, 0x25cb, 0x25d9, 0x2642, 0x2640, 0x266a, 0x266b, 0x263c,
    0x25ba, 0x25c4, 0x2195, 0x203c, 0x00b6, 0x00a7, 0x25ac, 0x21a8,
    0x2191, 0x2193, 0x2192, 0x2190, 0x221f, 0x2194, 0x25b2, 0x25bc,
};
static const uint16_t high[] = {
    0x2302, 0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea,
    0x00eb, 0x00e8, 0x00ef, 0x00ee, 0x00ec, 0x00c4, 0x00c5, 0x00c9, 0x00e6, 0x00c6,
    0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9, 0x00ff, 0x00d6, 0x00dc, 0x00a2, 0x00a3,
    0x00a5, 0x20a7, 0x0192, 0x00e1, 0x00ed, 0x00f3, 0x00fa, 0x00f1, 0x00d1, 0x00aa,
    0x00ba, 0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb, 0x2591,
    0x2592, 0x2593, 0x2502, 0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551,
    0x2557, 0x255d, 0x255c, 0x255b, 0x2510, 0x2514, 0x2534, 0x252c, 0x251c, 0x2500,
    0x253c, 0x255e, 0x255f, 0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c,
    0x2567, 0x2568, 0x2564, 0x2565, 0x2559, 0x2558, 0x2552, 0x2553, 0x256b, 0x256a,
    0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580, 0x03b1, 0x00df, 0x0393,
    0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4, 0x03a6, 0x0398, 0x03a9, 0x03b4, 0x221e,
    0x03c6, 0x03b5, 0x2229, 0x2261, 0x00b1, 0x2265, 0x2264, 0x2320, 0x2321, 0x00f7,
    0x2248, 0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2, 0x25a0, 0x00a0,
};

/* Frames for a terminal that has no others. */
static char plain(unsigned c) {
    if (c == 0xb3 || c == 0xba)
        return '|';
    if (c == 0xc4 || c == 0xcd)
        return '-';
    return c > 0xb3 && c < 0xdb ? '+' : c == 0xff ? ' ' : '?';
}

static size_t put_char(const struct cells *t, unsigned c, char *out) {
    unsigned u = c < ' ' ? low[c] : c < 0x7f ? c : high[c - 0x7f];

    if (u < 0x80) {
        *out = (char)u;
        return 1;
    }
    if (!t->utf8) {
        *out = plain(c);
        return 1;
    }
    if (u < 0x800) {
        out[0] = (char)(0xc0 | u >> 6);
        out[1] = (char)(0x80 | (u & 0x3f));
        return 2;
    }
    out[0] = (char)(0xe0 | u >> 12);
    out[1] = (char)(0x80 | (u >> 6 & 0x3f));
    out[2] = (char)(0x80 | (u & 0x3f));
    return 3;
}

/* The terminal's number of a colour: red and blue have changed places. */
static unsigned colour(unsigned c) {
    return (c & 1) << 2 | (c & 2) | (c & 4) >> 2;
}

static size_t put_attribute(unsigned a, bool blinks, char *out, size_t size) {
    unsigned ink = (a & 8 ? 90 : 30) + colour(a & 7);
    unsigned paper = (a & 0x80 && !blinks ? 100 : 40) + colour(a >> 4 & 7);

    return (size_t)snprintf(out, size, "\033[0;%s%u;%um", a & 0x80 && blinks ? "5;" : "",
                            ink, paper);
}

void cells_resize(struct cells *c, unsigned columns, unsigned rows) {
    c->columns = columns;
    c->rows = rows;
    c->known = false;
}

/* --- drawing --- */

struct drawing {
    struct cells *c;
    const struct vga_picture *p;
    char *out;
    size_t size, len;
    unsigned x, y;      /* where the terminal's cursor is; beyond all: unknown */
    unsigned attribute; /* that it has now; NONE: unknown */
};

static unsigned least(unsigned a, unsigned b) {
    return a < b ? a : b;
}

/* All that is shown is not any more. */
static void forget(struct drawing *d) {
    struct cells *c = d->c;

    for (unsigned y = 0; y < VGA_ROWS; y++)
        for (unsigned x = 0; x < VGA_COLUMNS; x++)
            c->attribute[y][x] = NONE;
    d->len += (size_t)snprintf(d->out + d->len, d->size - d->len, "\033[0m\033[2J");
    c->known = true;
    c->cursor = false;
}

static void go_to(struct drawing *d, unsigned x, unsigned y) {
    if (d->x != x || d->y != y)
        d->len += (size_t)snprintf(d->out + d->len, d->size - d->len, "\033[%u;%uH",
                                   y + 1, x + 1);
    d->x = x;
    d->y = y;
}

/* False: there is no room. */
static bool draw_cell(struct drawing *d, unsigned x, unsigned y) {
    const struct vga_text *t = &d->p->text;
    unsigned row = y + d->c->top, cell = t->cell[row][x];
    unsigned attribute = t->attribute[row][x] | (d->p->blinks ? 0x100u : 0);

    if (d->c->attribute[y][x] == attribute && d->c->cell[y][x] == cell)
        return true;
    if (d->size - d->len < CELL_MAX)
        return false;
    go_to(d, x, y);
    if (d->attribute != attribute)
        d->len += put_attribute(attribute & 0xff, d->p->blinks, d->out + d->len,
                                d->size - d->len);
    d->attribute = attribute;
    d->len += put_char(d->c, cell, d->out + d->len);
    d->x = x + 1;
    d->c->cell[y][x] = (uint8_t)cell;
    d->c->attribute[y][x] = (uint16_t)attribute;
    return true;
}

static bool draw_rows(struct drawing *d) {
    unsigned rows = least(d->p->text.rows, d->c->rows);
    unsigned columns = least(d->p->text.columns, d->c->columns);

    for (unsigned y = 0; y < rows; y++)
        for (unsigned x = 0; x < columns; x++)
            if (!draw_cell(d, x, y))
                return false;
    return true;
}

/* Where it is to be seen, it is. */
static void draw_cursor(struct drawing *d) {
    const struct vga_text *t = &d->p->text;
    struct cells *c = d->c;
    unsigned y = t->row - c->top;
    bool shown = t->cursor && t->row >= c->top && y < c->rows && t->column < c->columns;
    bool moved = d->len || t->column != c->column || y != c->row;

    if (shown == c->cursor && (!shown || !moved))
        return;
    if (shown)
        go_to(d, t->column, y);
    d->len += (size_t)snprintf(d->out + d->len, d->size - d->len,
                               shown ? "\033[?25h" : "\033[?25l");
    c->cursor = shown;
    c->column = t->column;
    c->row = y;
}

/* The first row that is shown, so that the cursor is seen. */
static unsigned first_row(const struct cells *c, const struct vga_text *t) {
    if (t->rows <= c->rows)
        return 0;
    return t->row < c->rows ? 0 : least(t->row - c->rows + 1, t->rows - c->rows);
}

size_t cells_draw(struct cells *c, const struct vga_picture *p, char *out, size_t size,
                  bool *whole) {
    struct drawing d = {
        .c = c, .p = p, .out = out, .size = size, .x = UINT32_MAX, .attribute = NONE};
    unsigned top = first_row(c, &p->text);

    *whole = false;
    if (size < 2 * CELL_MAX)
        return 0;
    if (!c->known)
        forget(&d);
    c->top = top;
    *whole = draw_rows(&d) && d.size - d.len >= CELL_MAX;
    if (*whole)
        draw_cursor(&d);
    return d.len;
}

size_t cells_say(struct cells *c, const char *text, char *out, size_t size) {
    c->known = false;
    return (size_t)snprintf(out, size, "\033[0m\033[?25l\033[2J\033[1;1H%.*s",
                            (int)least(c->columns, 256), text);
}
