/*
 * Instructions that were decoded before, by their bytes. Code repeats itself, and
 * decoding takes several times as long as looking.
 *
 * How long an instruction is, is guessed from its first three bytes: as long as the last
 * one that began with them. The guess cannot be wrong in what is found: bytes that were
 * decoded to an instruction of that length are one whatever follows them.
 */
#include "decode/memo.h"

#include <stdlib.h>
#include <string.h>

#define HINT_BITS 12
#define ENTRY_BITS 12
#define LEN_MAX 8u

struct entry {
    uint64_t bytes; /* behind its end: 0 */
    uint8_t len;    /* 0: none */
    struct insn insn;
};

struct decode_memo {
    uint8_t hint[1u << HINT_BITS];
    struct entry entry[1u << ENTRY_BITS];
};

struct decode_memo *decode_memo_new(void) {
    return calloc(1, sizeof(struct decode_memo));
}

void decode_memo_free(struct decode_memo *m) {
    free(m);
}

static unsigned hash(uint64_t bytes, unsigned bits) {
    return (unsigned)(bytes * 0x9e3779b97f4a7c15ull >> (64 - bits));
}

/* The first N of them; N is 1 to 8. */
static uint64_t first(uint64_t bytes, unsigned n) {
    return bytes & ~0ull >> (64 - 8 * n);
}

enum decode_result decode_memo_insn(struct decode_memo *m, enum cpu_mode mode,
                                    const uint8_t *bytes, size_t len, struct insn *i) {
    enum decode_result r;
    uint64_t ahead, key;
    struct entry *e;
    uint8_t *hint;

    if (len < LEN_MAX)
        return decode_insn(mode, bytes, len, i);
    memcpy(&ahead, bytes, sizeof(ahead));
    hint = &m->hint[hash(first(ahead, 3), HINT_BITS)];
    if (*hint) {
        key = first(ahead, *hint);
        e = &m->entry[hash(key, ENTRY_BITS)];
        if (e->bytes == key && e->len == *hint && e->insn.mode == mode) {
            *i = e->insn;
            return DECODE_OK;
        }
    }
    r = decode_insn(mode, bytes, len, i);
    if (r != DECODE_OK || i->len > LEN_MAX)
        return r;
    *hint = i->len;
    key = first(ahead, i->len);
    e = &m->entry[hash(key, ENTRY_BITS)];
    e->bytes = key;
    e->len = i->len;
    e->insn = *i;
    return r;
}
