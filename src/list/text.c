/* Lines of a listing. (lint: no guest runs here) */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "decode/decode.h"
#include "list/list_int.h"

void list_line(const struct list *l, const char *fmt, ...) {
    char text[LIST_LINE];
    size_t end;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    end = strlen(text);
    while (end && text[end - 1] == ' ')
        text[--end] = '\0';
    l->out->line(l->out->arg, text);
}

bool list_inside(const struct list *l, uint64_t va) {
    return va - l->from < l->len;
}

char *list_guest_text(const struct insn *i, uint64_t va, char *buf, size_t size) {
    char *number = strstr(decode_format(i, va, buf, size), "0x00");

    if (number) {
        char *digit = number + 2;

        while (*digit == '0' && digit[1] && strchr("0123456789ABCDEF", digit[1]))
            digit++;
        memmove(number + 2, digit, strlen(digit) + 1);
    }
    return buf;
}
