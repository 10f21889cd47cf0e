/*
 * Frames: `$TEXT#NN`, where NN is the sum of TEXT's characters, and characters between
 * them: + and -, and Ctrl-C. In TEXT, } escapes the next character.
 *
 * GDB's manual, "GDB Remote Serial Protocol", "Overview".
 */
#include <string.h>

#include "gdb/gdb_int.h"

static enum gdb_input outside(struct gdb_frame *f, uint8_t byte) {
    switch (byte) {
    case '$':
        f->state = FRAME_TEXT;
        f->len = 0;
        f->sum = 0;
        f->too_long = false;
        return GDB_NOTHING;
    case '+':
        return GDB_ACK;
    case '-':
        return GDB_AGAIN;
    case 3:
        return GDB_BREAK;
    default:
        return GDB_NOTHING;
    }
}

static void take(struct gdb_frame *f, uint8_t byte) {
    if (f->len == GDB_PACKET_MAX)
        f->too_long = true;
    else
        f->buf[f->len++] = (char)byte;
}

static int digit(uint8_t c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* A $ in the middle begins a packet anew: what came before has lost its end. */
static enum gdb_input text(struct gdb_frame *f, uint8_t byte) {
    if (byte == '$' && f->state == FRAME_TEXT)
        return outside(f, byte);
    if (byte == '#' && f->state == FRAME_TEXT) {
        f->state = FRAME_SUM1;
        return GDB_NOTHING;
    }
    f->sum = (uint8_t)(f->sum + byte);
    if (f->state == FRAME_ESCAPED) {
        take(f, byte ^ 0x20);
        f->state = FRAME_TEXT;
    } else if (byte == '}') {
        f->state = FRAME_ESCAPED;
    } else {
        take(f, byte);
    }
    return GDB_NOTHING;
}

enum gdb_input gdb_frame_byte(struct gdb_frame *f, uint8_t byte) {
    switch (f->state) {
    case FRAME_NONE:
        return outside(f, byte);
    case FRAME_TEXT:
    case FRAME_ESCAPED:
        return text(f, byte);
    case FRAME_SUM1:
        f->told = (uint8_t)(digit(byte) << 4);
        f->too_long |= digit(byte) < 0;
        f->state = FRAME_SUM2;
        return GDB_NOTHING;
    default:
        f->state = FRAME_NONE;
        if (f->too_long || digit(byte) < 0 || (f->told | digit(byte)) != f->sum)
            return GDB_BAD;
        f->buf[f->len] = 0;
        return GDB_PACKET;
    }
}

size_t gdb_frame_make(char *out, const char *from, size_t len) {
    static const char digits[] = "0123456789abcdef";
    uint8_t sum = 0;

    out[0] = '$';
    memcpy(out + 1, from, len);
    for (size_t n = 0; n < len; n++)
        sum = (uint8_t)(sum + (uint8_t)from[n]);
    out[len + 1] = '#';
    out[len + 2] = digits[sum >> 4];
    out[len + 3] = digits[sum & 15];
    return len + 4;
}
