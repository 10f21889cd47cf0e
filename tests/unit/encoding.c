/*
 * decode/encoding.h: what is taken apart and put together again is the same instruction;
 * too few bytes are refused; code of 32-bit mode means in 64-bit mode what it meant.
 */
#include "decode/encoding.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "decode/decode.h"

#define TRIES 300000u

static uint64_t seed = 0x9e3779b97f4a7c15ull;

static uint32_t rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32);
}

/* Random bytes, of which most are an instruction of some length. */
static void make_bytes(uint8_t b[15]) {
    static const uint8_t prefix[] = {0x66, 0xf2, 0xf3, 0x48, 0x4f,
                                     0x41, 0x64, 0x2e, 0x67};
    static const uint8_t start[] = {0x0f, 0xc5, 0xc4, 0x62};
    unsigned n = 0;

    for (unsigned k = 0; k < 15; k++)
        b[k] = (uint8_t)rnd();
    for (unsigned k = rnd() % 4; k; k--)
        b[n++] = prefix[rnd() % sizeof(prefix)];
    if (rnd() % 2) {
        b[n] = start[rnd() % sizeof(start)];
        if (b[n] == 0xc4)
            b[n + 1] = (uint8_t)((b[n + 1] & 0xe0) | (1 + rnd() % 3));
        if (b[n] == 0x62) {
            b[n + 1] = (uint8_t)((b[n + 1] & 0xf0) | (1 + rnd() % 3));
            b[n + 2] |= 4;
        }
        if (b[n] == 0x62 && rnd() % 2) { /* one operand less */
            b[n + 2] |= 0x78;
            b[n + 3] = (uint8_t)(8 | (rnd() % 3) << 5 | rnd() % 8);
        }
    }
}

/* What encoding_put_head() leaves out. */
static unsigned put_others(const struct insn *i, uint8_t *out) {
    unsigned n = 0;

    for (unsigned k = 0; k < i->len; k++) {
        uint8_t b = i->bytes[k];

        if (b == 0x67 || b == 0xf0 || b == 0x64 || b == 0x65 || (b & 0xe7) == 0x26)
            out[n++] = b;
        else if (b != 0x66 && b != 0xf2 && b != 0xf3 && (b & 0xf0) != 0x40)
            break;
    }
    return n;
}

/* The instruction once more, of E; returns its length. */
static unsigned rebuild(const struct insn *i, const struct encoding *e, uint8_t out[64]) {
    unsigned n = put_others(i, out);

    n += encoding_put_head(e, out + n);
    out[n++] = e->opcode;
    if (e->has_modrm) {
        unsigned from = i->off_modrm + 1u, len = i->len - from - e->nimm;

        out[n++] = e->modrm;
        memcpy(out + n, i->bytes + from, len);
        n += len;
    }
    memcpy(out + n, e->imm, e->nimm);
    return n + e->nimm;
}

static void same(const struct insn *a, const struct insn *b) {
    struct mem_operand ma = a->mem;

    assert_int_equal(a->op, b->op);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->opsize, b->opsize);
    assert_int_equal(a->addrsize, b->addrsize);
    assert_int_equal(a->cond, b->cond);
    assert_int_equal(a->rep, b->rep);
    assert_int_equal(a->nops, b->nops);
    assert_memory_equal(a->opnd, b->opnd, sizeof(a->opnd));
    if (b->mem.base == REG_RIP) /* counted from where the instruction ends */
        ma.disp += b->len - a->len;
    assert_memory_equal(&ma, &b->mem, sizeof(ma));
    assert_int_equal(a->imm, b->imm);
    assert_int_equal(a->imm2, b->imm2);
    assert_int_equal(a->far_sel, b->far_sel);
    assert_int_equal(a->imm_len, b->imm_len);
}

static void test_round_trip(void **state) {
    static const enum cpu_mode modes[] = {MODE_64, MODE_64, MODE_32, MODE_16};
    unsigned done = 0, vex = 0, evex = 0;

    for (unsigned t = 0; t < TRIES; t++) {
        enum cpu_mode mode = modes[rnd() % ARRAY_SIZE(modes)];
        uint8_t bytes[15], again[64];
        struct encoding e;
        struct insn a, b;
        unsigned len;

        make_bytes(bytes);
        if (decode_insn(mode, bytes, sizeof(bytes), &a) != DECODE_OK ||
            a.op == OP_invalid)
            continue;
        assert_true(encoding_parse(&a, &e));
        len = rebuild(&a, &e, again);
        if (len > 15)
            continue;
        assert_int_equal(decode_insn(mode, again, len, &b), DECODE_OK);
        assert_int_equal(b.len, len);
        same(&a, &b);
        done++;
        vex += e.vex;
        evex += e.evex;
    }
    assert_in_range(done, TRIES / 4, TRIES);
    assert_in_range(vex, TRIES / 300, TRIES);
    assert_in_range(evex, TRIES / 1000, TRIES);
}

static struct insn decoded(enum cpu_mode mode, const uint8_t *bytes, size_t len) {
    struct insn i;

    assert_int_equal(decode_insn(mode, bytes, len, &i), DECODE_OK);
    assert_int_equal(i.len, len);
    return i;
}

/* An instruction whose length does not hold what its bytes begin, each length in turn. */
static void test_too_short(void **state) {
    static const struct {
        uint8_t bytes[15], len, fewest; /* which are enough for the parser */
    } cases[] = {
        {{0x66, 0x48, 0x0f, 0x6e, 0x44, 0x24, 0x10}, 7, 7},
        {{0xc5, 0xf9, 0x6f, 0x84, 0x24, 1, 2, 3, 4}, 9, 9},
        {{0xc4, 0xe3, 0x61, 0x4a, 0xc2, 0xf0}, 6, 5},
        {{0x62, 0xf1, 0x7c, 0x48, 0x28, 0x00}, 6, 6},
        {{0xd9, 0x04, 0x25, 1, 2, 3, 4}, 7, 7},
    };

    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        struct insn i = decoded(MODE_64, cases[n].bytes, cases[n].len);
        struct encoding e;

        for (unsigned len = 0; len <= cases[n].len; len++) {
            i.len = (uint8_t)len;
            assert_int_equal(encoding_parse(&i, &e), len >= cases[n].fewest);
        }
        i.len = 200;
        assert_false(encoding_parse(&i, &e));
    }
}

/* What is no prefix of the kind that the flags say is refused. */
static void test_not_what_it_says(void **state) {
    static const uint8_t vex[] = {0xc5, 0xf9, 0x6f, 0xc1}, add[] = {0x01, 0xc8};
    struct insn i = decoded(MODE_64, vex, sizeof(vex));
    struct encoding e;

    i.bytes[0] = 0x62;
    assert_false(encoding_parse(&i, &e));
    i = decoded(MODE_64, add, sizeof(add));
    i.flags |= INSN_AVX512;
    assert_false(encoding_parse(&i, &e));
}

/* Bits that 32-bit mode ignores go: registers above 7, W of an integer operand. */
static void test_widen(void **state) {
    static const struct {
        uint8_t bytes[8], len, want[8], want_len;
    } cases[] = {
        /* vpaddd xmm0, xmm7, xmm2: vvvv says 15 */
        {{0xc4, 0xe1, 0x01, 0xfe, 0xc2}, 5, {0xc4, 0xe1, 0x41, 0xfe, 0xc2}, 5},
        /* vmovd xmm0, eax: W would make it vmovq */
        {{0xc4, 0xe1, 0xf9, 0x6e, 0xc0}, 5, {0xc4, 0xe1, 0x79, 0x6e, 0xc0}, 5},
        /* vpermq's W stays */
        {{0xc4, 0xe3, 0xfd, 0x00, 0xc1, 0x1b},
         6,
         {0xc4, 0xe3, 0xfd, 0x00, 0xc1, 0x1b},
         6},
        /* vblendvps xmm0, xmm3, xmm2, xmm7: the immediate says 15 */
        {{0xc4, 0xe3, 0x61, 0x4a, 0xc2, 0xf0},
         6,
         {0xc4, 0xe3, 0x61, 0x4a, 0xc2, 0x70},
         6},
        /* vpaddd zmm0, zmm7, zmm2: vvvv says 15 */
        {{0x62, 0xf1, 0x05, 0x48, 0xfe, 0xc2},
         6,
         {0x62, 0xf1, 0x45, 0x48, 0xfe, 0xc2},
         6},
    };

    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        struct insn i = decoded(MODE_32, cases[n].bytes, cases[n].len);
        uint8_t out[64];
        struct encoding e;

        assert_true(encoding_parse(&i, &e));
        encoding_widen(&e);
        assert_int_equal(rebuild(&i, &e, out), cases[n].want_len);
        assert_memory_equal(out, cases[n].want, cases[n].want_len);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_too_short),
        cmocka_unit_test(test_not_what_it_says),
        cmocka_unit_test(test_widen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
