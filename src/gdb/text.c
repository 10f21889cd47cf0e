/* Numbers and bytes in packets, and replies as they are made. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "gdb/gdb_int.h"

static int digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

size_t gdb_left(const struct gdb_text *t) {
    return (size_t)(t->end - t->at);
}

bool gdb_skip(struct gdb_text *t, char c) {
    if (t->at == t->end || *t->at != c)
        return false;
    t->at++;
    return true;
}

bool gdb_skip_word(struct gdb_text *t, const char *word) {
    size_t len = strlen(word);

    if (gdb_left(t) < len || memcmp(t->at, word, len))
        return false;
    t->at += len;
    return true;
}

bool gdb_number(struct gdb_text *t, uint64_t *out) {
    const char *from = t->at;
    uint64_t n = 0;

    for (; t->at < t->end && digit(*t->at) >= 0; t->at++) {
        if (n >> 60)
            return false;
        n = n << 4 | (unsigned)digit(*t->at);
    }
    *out = n;
    return t->at != from;
}

bool gdb_bytes(struct gdb_text *t, uint8_t *out, size_t len) {
    if (gdb_left(t) / 2 < len)
        return false;
    for (; len; len--, t->at += 2) {
        int high = digit(t->at[0]), low = digit(t->at[1]);

        if (high < 0 || low < 0)
            return false;
        *out++ = (uint8_t)(high << 4 | low);
    }
    return true;
}

void gdb_put(struct gdb_reply *r, const char *format, ...) {
    size_t room = sizeof(r->buf) - r->len;
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(r->buf + r->len, room, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= room)
        r->full = true;
    else
        r->len += (size_t)n;
}

void gdb_put_bytes(struct gdb_reply *r, const void *bytes, size_t len) {
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = bytes;

    if (len > (sizeof(r->buf) - r->len) / 2) {
        r->full = true;
        return;
    }
    for (; len; len--, p++) {
        r->buf[r->len++] = digits[*p >> 4];
        r->buf[r->len++] = digits[*p & 15];
    }
}

void gdb_put_binary(struct gdb_reply *r, const void *bytes, size_t len) {
    const char *p = bytes;

    for (; len; len--, p++) {
        bool escape = *p == '#' || *p == '$' || *p == '}' || *p == '*';

        if (sizeof(r->buf) - r->len < 2) {
            r->full = true;
            return;
        }
        if (escape)
            r->buf[r->len++] = '}';
        r->buf[r->len++] = escape ? (char)(*p ^ 0x20) : *p;
    }
}

void gdb_put_error(struct gdb_reply *r, unsigned number) {
    r->len = 0;
    gdb_put(r, "E%02x", number);
}
