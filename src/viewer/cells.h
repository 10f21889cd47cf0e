/*
 * The text screen as bytes for a terminal (ECMA-48): what has changed since the last
 * time, and where the cursor is. The guest's code page is taken for 437, the one in the
 * VGA's own font.
 *
 * A terminal that is smaller than the screen shows its upper left, or what is around the
 * cursor. What there is no room for in a buffer is left for the next time.
 */
#ifndef VIEWER_CELLS_H
#define VIEWER_CELLS_H

#include "dev/pc/vga.h"

struct cells {
    bool utf8;              /* the terminal understands it */
    unsigned columns, rows; /* the terminal's */
    bool known;             /* what follows is what it shows */
    unsigned top;           /* the first row of the screen that is shown */
    uint8_t cell[VGA_ROWS][VGA_COLUMNS];
    uint16_t attribute[VGA_ROWS][VGA_COLUMNS]; /* CELLS_NONE: nothing yet */
    bool cursor;
    unsigned column, row;
};

/* Before the first, and after the last. */
#define CELLS_ENTER "\033[?1049h\033[?7l\033[?25l\033[0m\033[2J"
#define CELLS_LEAVE "\033[0m\033[?25h\033[?7h\033[?1049l"

/* The terminal has another size, or shows something else. */
void cells_resize(struct cells *c, unsigned columns, unsigned rows);
/* At most SIZE bytes that make it show P, which is text; how many. *WHOLE: it is all. */
size_t cells_draw(struct cells *c, const struct vga_picture *p, char *out, size_t size,
                  bool *whole);
/* One line of ASCII in the place of all of it; the same, SIZE being 512 at least. */
size_t cells_say(struct cells *c, const char *text, char *out, size_t size);

#endif
