/* Values with commas in them, as options have; and characters of UTF-8. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Cuts TEXT at its first comma, makes one of two, and returns the rest or NULL. */
static inline char *text_cut(char *text) {
    char *to = text;

    for (char *from = text; *from; from++) {
        if (*from == ',' && from[1] != ',') {
            *to = 0;
            return from + 1;
        }
        if (*from == ',')
            from++;
        *to++ = *from;
    }
    *to = 0;
    return NULL;
}

/* The bytes of the character at P, of which LEN may be looked at; 0: it is none. The
 * Unicode Standard, table "Well-Formed UTF-8 Byte Sequences". */
static inline size_t text_character(const uint8_t *p, size_t len) {
    uint8_t lo = 0x80, hi = 0xbf;
    size_t n;

    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (p[0] == 0xe0)
        lo = 0xa0;
    if (p[0] == 0xed)
        hi = 0x9f;
    if (p[0] == 0xf0)
        lo = 0x90;
    if (p[0] == 0xf4)
        hi = 0x8f;
    if (n > len || p[1] < lo || p[1] > hi)
        return 0;
    for (size_t k = 2; k < n; k++)
        if ((p[k] & 0xc0) != 0x80)
            return 0;
    return n;
}

#endif
