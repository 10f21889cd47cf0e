#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "program.h"

int text_wrap(const char *text, int width, char *out, size_t size) {
    int column = 0, lines = 1;
    size_t used = 0;
    while (*text) {
        while (isspace((unsigned char)*text))
            text++;
        int length = 0;
        while (text[length] && !isspace((unsigned char)text[length]))
            length++;
        if (!length)
            break;
        if (column && column + 1 + length > width) {
            used += snprintf(out + used, size - used, "\n");
            column = 0;
            lines++;
        }
        used +=
            snprintf(out + used, size - used, "%s%.*s", column ? " " : "", length, text);
        column += length + (column > 0);
        text += length;
    }
    return lines;
}
