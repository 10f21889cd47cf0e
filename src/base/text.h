/* Values with commas in them, as options have. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stddef.h>

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

#endif
