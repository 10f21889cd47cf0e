/*
 * Letters; see font.h. Each row of a letter is five bits, the leftmost dot the highest.
 *
 * Frames are made, not drawn: for each character of code page 437 that has lines, which
 * of the four directions they go to from the middle.
 */
#include "dev/pc/font.h"

#define FIRST 0x20u
#define LAST 0x7eu
#define ROWS 7u

/* clang-format off */
static const uint8_t letters[LAST - FIRST + 1][ROWS] = {
    {0, 0, 0, 0, 0, 0, 0}, /* space */
    {4, 4, 4, 4, 4, 0, 4}, /* ! */
    {10, 10, 10, 0, 0, 0, 0}, /* " */
    {10, 10, 31, 10, 31, 10, 10}, /* # */
    {4, 15, 20, 14, 5, 30, 4}, /* $ */
    {24, 25, 2, 4, 8, 19, 3}, /* % */
    {12, 18, 20, 8, 21, 18, 13}, /* & */
    {4, 4, 8, 0, 0, 0, 0}, /* ' */
    {2, 4, 8, 8, 8, 4, 2}, /* ( */
    {8, 4, 2, 2, 2, 4, 8}, /* ) */
    {0, 4, 21, 14, 21, 4, 0}, /* star */
    {0, 4, 4, 31, 4, 4, 0}, /* + */
    {0, 0, 0, 0, 12, 4, 8}, /* , */
    {0, 0, 0, 31, 0, 0, 0}, /* - */
    {0, 0, 0, 0, 0, 12, 12}, /* . */
    {0, 1, 2, 4, 8, 16, 0}, /* slash */
    {14, 17, 19, 21, 25, 17, 14}, /* 0 */
    {4, 12, 4, 4, 4, 4, 14}, /* 1 */
    {14, 17, 1, 2, 4, 8, 31}, /* 2 */
    {31, 2, 4, 2, 1, 17, 14}, /* 3 */
    {2, 6, 10, 18, 31, 2, 2}, /* 4 */
    {31, 16, 30, 1, 1, 17, 14}, /* 5 */
    {6, 8, 16, 30, 17, 17, 14}, /* 6 */
    {31, 1, 2, 4, 8, 8, 8}, /* 7 */
    {14, 17, 17, 14, 17, 17, 14}, /* 8 */
    {14, 17, 17, 15, 1, 2, 12}, /* 9 */
    {0, 12, 12, 0, 12, 12, 0}, /* : */
    {0, 12, 12, 0, 12, 4, 8}, /* ; */
    {2, 4, 8, 16, 8, 4, 2}, /* < */
    {0, 0, 31, 0, 31, 0, 0}, /* = */
    {8, 4, 2, 1, 2, 4, 8}, /* > */
    {14, 17, 1, 2, 4, 0, 4}, /* ? */
    {14, 17, 1, 13, 21, 21, 14}, /* @ */
    {14, 17, 17, 17, 31, 17, 17}, /* A */
    {30, 17, 17, 30, 17, 17, 30}, /* B */
    {14, 17, 16, 16, 16, 17, 14}, /* C */
    {28, 18, 17, 17, 17, 18, 28}, /* D */
    {31, 16, 16, 30, 16, 16, 31}, /* E */
    {31, 16, 16, 30, 16, 16, 16}, /* F */
    {14, 17, 16, 23, 17, 17, 15}, /* G */
    {17, 17, 17, 31, 17, 17, 17}, /* H */
    {14, 4, 4, 4, 4, 4, 14}, /* I */
    {7, 2, 2, 2, 2, 18, 12}, /* J */
    {17, 18, 20, 24, 20, 18, 17}, /* K */
    {16, 16, 16, 16, 16, 16, 31}, /* L */
    {17, 27, 21, 21, 17, 17, 17}, /* M */
    {17, 17, 25, 21, 19, 17, 17}, /* N */
    {14, 17, 17, 17, 17, 17, 14}, /* O */
    {30, 17, 17, 30, 16, 16, 16}, /* P */
    {14, 17, 17, 17, 21, 18, 13}, /* Q */
    {30, 17, 17, 30, 20, 18, 17}, /* R */
    {15, 16, 16, 14, 1, 1, 30}, /* S */
    {31, 4, 4, 4, 4, 4, 4}, /* T */
    {17, 17, 17, 17, 17, 17, 14}, /* U */
    {17, 17, 17, 17, 17, 10, 4}, /* V */
    {17, 17, 17, 21, 21, 27, 17}, /* W */
    {17, 17, 10, 4, 10, 17, 17}, /* X */
    {17, 17, 10, 4, 4, 4, 4}, /* Y */
    {31, 1, 2, 4, 8, 16, 31}, /* Z */
    {14, 8, 8, 8, 8, 8, 14}, /* [ */
    {0, 16, 8, 4, 2, 1, 0}, /* backslash */
    {14, 2, 2, 2, 2, 2, 14}, /* ] */
    {4, 10, 17, 0, 0, 0, 0}, /* ^ */
    {0, 0, 0, 0, 0, 0, 31}, /* _ */
    {8, 4, 2, 0, 0, 0, 0}, /* ` */
    {0, 0, 14, 1, 15, 17, 15}, /* a */
    {16, 16, 22, 25, 17, 17, 30}, /* b */
    {0, 0, 14, 16, 16, 17, 14}, /* c */
    {1, 1, 13, 19, 17, 17, 15}, /* d */
    {0, 0, 14, 17, 31, 16, 14}, /* e */
    {6, 9, 8, 28, 8, 8, 8}, /* f */
    {0, 15, 17, 17, 15, 14, 0}, /* g */
    {16, 16, 22, 25, 17, 17, 17}, /* h */
    {4, 0, 12, 4, 4, 4, 14}, /* i */
    {2, 0, 2, 2, 18, 12, 0}, /* j */
    {16, 16, 18, 20, 24, 20, 18}, /* k */
    {12, 4, 4, 4, 4, 4, 14}, /* l */
    {0, 0, 26, 21, 21, 21, 21}, /* m */
    {0, 0, 22, 25, 17, 17, 17}, /* n */
    {0, 0, 14, 17, 17, 17, 14}, /* o */
    {0, 30, 17, 17, 30, 16, 0}, /* p */
    {0, 15, 17, 17, 15, 1, 0}, /* q */
    {0, 0, 22, 25, 16, 16, 16}, /* r */
    {0, 0, 15, 16, 14, 1, 30}, /* s */
    {8, 8, 28, 8, 8, 9, 6}, /* t */
    {0, 0, 17, 17, 17, 19, 13}, /* u */
    {0, 0, 17, 17, 17, 10, 4}, /* v */
    {0, 0, 17, 17, 21, 21, 10}, /* w */
    {0, 0, 17, 10, 4, 10, 17}, /* x */
    {0, 17, 17, 17, 15, 14, 0}, /* y */
    {0, 0, 31, 2, 4, 8, 31}, /* z */
    {2, 4, 4, 8, 4, 4, 2}, /* { */
    {4, 4, 4, 4, 4, 4, 4}, /* | */
    {8, 4, 4, 2, 4, 4, 8}, /* } */
    {0, 0, 8, 21, 2, 0, 0}, /* ~ */
};
/* clang-format on */

enum { UP = 1, DOWN = 2, LEFT = 4, RIGHT = 8 };

/* 0xb3 to 0xda; double lines as single ones, shades (0) by font_row(). */
static const uint8_t frames[] = {
    UP | DOWN,                /* b3 */
    UP | DOWN | LEFT,         /* b4 */
    UP | DOWN | LEFT,         /* b5 */
    UP | DOWN | LEFT,         /* b6 */
    DOWN | LEFT,              /* b7 */
    DOWN | LEFT,              /* b8 */
    UP | DOWN | LEFT,         /* b9 */
    UP | DOWN,                /* ba */
    DOWN | LEFT,              /* bb */
    UP | LEFT,                /* bc */
    UP | LEFT,                /* bd */
    UP | LEFT,                /* be */
    DOWN | LEFT,              /* bf */
    UP | RIGHT,               /* c0 */
    UP | LEFT | RIGHT,        /* c1 */
    DOWN | LEFT | RIGHT,      /* c2 */
    UP | DOWN | RIGHT,        /* c3 */
    LEFT | RIGHT,             /* c4 */
    UP | DOWN | LEFT | RIGHT, /* c5 */
    UP | DOWN | RIGHT,        /* c6 */
    UP | DOWN | RIGHT,        /* c7 */
    UP | RIGHT,               /* c8 */
    DOWN | RIGHT,             /* c9 */
    UP | LEFT | RIGHT,        /* ca */
    DOWN | LEFT | RIGHT,      /* cb */
    UP | DOWN | RIGHT,        /* cc */
    LEFT | RIGHT,             /* cd */
    UP | DOWN | LEFT | RIGHT, /* ce */
    UP | LEFT | RIGHT,        /* cf */
    UP | LEFT | RIGHT,        /* d0 */
    DOWN | LEFT | RIGHT,      /* d1 */
    DOWN | LEFT | RIGHT,      /* d2 */
    UP | RIGHT,               /* d3 */
    UP | RIGHT,               /* d4 */
    DOWN | RIGHT,             /* d5 */
    DOWN | RIGHT,             /* d6 */
    UP | DOWN | LEFT | RIGHT, /* d7 */
    UP | DOWN | LEFT | RIGHT, /* d8 */
    UP | LEFT,                /* d9 */
    DOWN | RIGHT,             /* da */
};

static uint8_t frame_row(uint8_t ways, unsigned y, unsigned height) {
    unsigned middle = height / 2;
    uint8_t row = 0;

    if ((y <= middle && ways & UP) || (y >= middle && ways & DOWN))
        row |= 0x10;
    if (y == middle)
        row |= (uint8_t)((ways & LEFT ? 0xf0 : 0) | (ways & RIGHT ? 0x1f : 0));
    return row;
}

/* Bars and shades. */
static uint8_t block_row(uint8_t c, unsigned y, unsigned height) {
    switch (c) {
    case 0xb0:
        return y % 2 ? 0x22 : 0x88;
    case 0xb1:
        return y % 2 ? 0x55 : 0xaa;
    case 0xb2:
        return y % 2 ? 0xdd : 0x77;
    case 0xdb:
        return 0xff;
    case 0xdc:
        return y >= height / 2 ? 0xff : 0;
    case 0xdd:
        return 0xf0;
    case 0xde:
        return 0x0f;
    case 0xdf:
        return y < height / 2 ? 0xff : 0;
    default:
        return 0;
    }
}

/* Letters that go below the line are drawn a dot too high. */
static bool drops(uint8_t c) {
    return c == 'g' || c == 'j' || c == 'p' || c == 'q' || c == 'y';
}

/* A dot has as many rows as make seven fit with one above; what is left is below. */
static uint8_t letter_row(uint8_t c, unsigned y, unsigned height) {
    unsigned dot = height / (ROWS + 1) ? height / (ROWS + 1) : 1;
    unsigned row = y / dot - (drops(c) && y >= dot);

    if (row < 1 || row > ROWS)
        return 0;
    return (uint8_t)(letters[c - FIRST][row - 1] << 2);
}

uint8_t font_row(uint8_t c, unsigned y, unsigned height) {
    if (c >= FIRST && c <= LAST)
        return letter_row(c, y, height);
    if (c >= 0xb3 && c <= 0xda)
        return frame_row(frames[c - 0xb3], y, height);
    return block_row(c, y, height);
}
