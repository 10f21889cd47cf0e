#include "lib/hex.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "decode/decode.h"
#include "lib/need.h"

size_t hex_bytes(const char *text, uint8_t *out) {
    size_t n = 0;
    unsigned byte;

    while (*text) {
        if (*text == '#') {
            text += strcspn(text, "\n");
        } else if (isspace((unsigned char)*text)) {
            text++;
        } else {
            need(isxdigit((unsigned char)text[0]) && isxdigit((unsigned char)text[1]) &&
                     sscanf(text, "%2x", &byte) == 1,
                 "not hexadecimal");
            out[n++] = (uint8_t)byte;
            text += 2;
        }
    }
    return n;
}

struct insn hex_decode(enum cpu_mode mode, const char *text) {
    uint8_t bytes[16];
    struct insn i;

    need(strlen(text) <= 2 * sizeof(bytes), "more than an instruction");
    need(decode_insn(mode, bytes, hex_bytes(text, bytes), &i) == DECODE_OK, text);
    return i;
}
