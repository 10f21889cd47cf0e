/*
 * decode_insn(): flags, features, layout and text of single instructions, then sweeps
 * over the opcode maps and random bytes for invariants, lengths and truncation.
 */
#include "decode/decode.h"

#include <Zydis/Zydis.h>
#include <stdio.h>

#include "cpu/cpuid.h"
#include "lib/hex.h"
#include "lib/unit.h"

#define FL_STATUS 0x8d5

static void test_flags(void **state) {
    static const struct {
        const char *hex;
        uint16_t read, written, undefined;
    } table[] = {
        {"01d8", 0, FL_STATUS, 0},
        {"11d8", 1, FL_STATUS, 0},
        {"ffc0", 0, FL_STATUS & ~1, 0},
        {"21d8", 0, FL_STATUS & ~0x10, 0x10},
        {"7400", 0x40, 0, 0},
        {"0f96c0", 0x41, 0, 0},
        {"8d00", 0, 0, 0},
        {"fc", 0, 0x400, 0},
        {"a4", 0x400, 0, 0},
        /* A count of zero leaves the flags as they were. */
        {"d3e0", FL_STATUS, FL_STATUS & ~0x810, 0x810},
        {"f3a6", 0x400 | FL_STATUS, FL_STATUS, 0},
        {"a6", 0x400, FL_STATUS, 0},
    };
    for (size_t n = 0; n < ARRAY_SIZE(table); n++) {
        struct insn i = hex_decode(MODE_64, table[n].hex);
        if (i.fl_read != table[n].read || i.fl_written != table[n].written ||
            i.fl_undefined != table[n].undefined)
            fail_msg("%s: read %x written %x undefined %x", table[n].hex, i.fl_read,
                     i.fl_written, i.fl_undefined);
    }
    /* Shifts by an immediate define the flags, shifts by a masked zero do not. */
    assert_int_equal(hex_decode(MODE_64, "c1e004").fl_read, 0);
    assert_int_equal(hex_decode(MODE_64, "c1e020").fl_read & 1, 1);
    assert_int_equal(hex_decode(MODE_64, "48c1e020").fl_read, 0);
}

static void test_features(void **state) {
    static const struct {
        const char *hex;
        uint8_t feature;
    } table[] = {
        {"01d8", CPUID_F_NONE},
        {"0f58c1", CPUID_F_NONE},
        {"d9c9", CPUID_F_NONE},
        {"c5f858c1", CPUID_F_AVX},
        {"c5fdfec1", CPUID_F_AVX2},
        {"c4e270f2c3", CPUID_F_BMI1},
        {"c4e2fbf6c3", CPUID_F_BMI2},
        {"c4e271b8c2", CPUID_F_FMA},
        {"c4e27913c1", CPUID_F_F16C},
        {"0f38f001", CPUID_F_MOVBE},
        {"f30fb8c3", CPUID_F_POPCNT},
        {"f30fbcc3", CPUID_F_NONE},
        {"f30fbdc3", CPUID_F_NONE},
        {"f20fd0c1", CPUID_F_SSE3},
        {"660f3800c1", CPUID_F_SSSE3},
        {"0f3800c1", CPUID_F_SSSE3},
        {"660f3810c1", CPUID_F_SSE41},
        {"660f3837c1", CPUID_F_SSE42},
        {"f20f38f0c1", CPUID_F_SSE42},
        {"f20f79c1", CPUID_F_SSE4A},
        {"660f38dcc1", CPUID_F_AES},
        {"660f3a44c100", CPUID_F_PCLMUL},
        {"0f38c8c1", CPUID_F_SHA},
        {"c4e275dcc1", CPUID_F_VAES},
        {"c4e37544c100", CPUID_F_VPCLMUL},
        {"660f38cfc1", CPUID_F_GFNI},
        {"660f38f6c3", CPUID_F_ADX},
        {"0fc7f0", CPUID_F_RDRAND},
        {"0fc7f8", CPUID_F_RDSEED},
        {"0f01fc", CPUID_F_CLZERO},
        {"f30fc7f8", CPUID_F_RDPID},
        {"0f01d0", CPUID_F_XSAVE},
        {"0fae30", CPUID_F_XSAVEOPT},
        {"0fc721", CPUID_F_XSAVEC},
        {"0fc729", CPUID_F_XSAVES},
        {"480fc70e", CPUID_F_CX16},
        {"660fae38", CPUID_F_CLFLUSHOPT},
        {"660fae30", CPUID_F_CLWB},
        {"0f0e", CPUID_F_UNSUPPORTED},
        {"62f17c4858c0", CPUID_F_AVX512F},
        {"62f17c2858c0", CPUID_F_AVX512F},
        {"62f1f54855c0", CPUID_F_AVX512DQ},
        {"c5ec41c3", CPUID_F_AVX512F},    /* kandw */
        {"c4e1ed41c3", CPUID_F_AVX512BW}, /* kandd */
        {"62f2754050c2", CPUID_F_AVX512VNNI},
        {"c4e27150c2", CPUID_F_AVXVNNI},
    };
    for (size_t n = 0; n < ARRAY_SIZE(table); n++) {
        struct insn i = hex_decode(MODE_64, table[n].hex);
        if (i.feature != table[n].feature)
            fail_msg("%s: feature %d", table[n].hex, i.feature);
        assert_int_equal(i.op == OP_invalid, i.feature == CPUID_F_UNSUPPORTED);
    }
}

static void test_layout(void **state) {
    struct insn i = hex_decode(MODE_64, "66f2490f38f1c1"); /* crc32 rax, cx..., REX.WB */
    assert_true(i.flags & INSN_PREFIX66 && i.flags & INSN_REX && i.flags & INSN_REX_W);
    assert_int_equal(i.off_rex, 2);
    assert_int_equal(i.off_opcode, 3);
    assert_int_equal(i.off_modrm, 6);
    assert_int_equal(i.off_imm, 0);
    i = hex_decode(MODE_64, "480fc60107"); /* shufps with a useless REX.W at offset 0 */
    assert_true(i.flags & INSN_REX);
    assert_int_equal(i.off_rex, 0);
    assert_int_equal(i.off_opcode, 1);
    assert_int_equal(i.off_imm, 4);
    assert_int_equal(i.imm_len, 1);
    assert_memory_equal(i.bytes, "\x48\x0f\xc6\x01\x07", 5);
    i = hex_decode(MODE_64, "4866900f"); /* REX before 66 is ignored */
    assert_false(i.flags & (INSN_REX | INSN_REX_W));
    assert_int_equal(i.len, 3);
    i = hex_decode(MODE_64, "65c4e37d190001");
    assert_int_equal(i.off_vex, 1);
    assert_int_equal(i.vex_len, 3);
    assert_int_equal(i.off_opcode, 4);
    assert_int_equal(i.off_modrm, 5);
    assert_int_equal(i.off_imm, 6);
    assert_int_equal(hex_decode(MODE_64, "c5f858c1").vex_len, 2);
    i = hex_decode(MODE_64, "f20f78c10902");
    assert_int_equal(i.imm, 9);
    assert_int_equal(i.imm2, 2);
    assert_int_equal(i.imm_len, 2);
    assert_true(hex_decode(MODE_64, "0f58c1").flags & INSN_NO_MODRM_MEM);
    assert_true(hex_decode(MODE_64, "a4").flags & INSN_NO_MODRM_MEM);
    assert_true(hex_decode(MODE_32, "a100000000").flags & INSN_NO_MODRM_MEM);
    assert_true(hex_decode(MODE_64, "660ff7c8").flags & INSN_NO_MODRM_MEM);
    assert_false(hex_decode(MODE_64, "0f5801").flags & INSN_NO_MODRM_MEM);
    assert_false(hex_decode(MODE_64, "8d00").flags & INSN_NO_MODRM_MEM);
}

static void test_format(void **state) {
    char buf[64];
    struct insn i = hex_decode(MODE_64, "ebfe");
    assert_string_equal(decode_format(&i, 0x1000, buf, sizeof(buf)),
                        "jmp 0x0000000000001000");
    i = hex_decode(MODE_64, "4801c3");
    assert_string_equal(decode_format(&i, 0, buf, sizeof(buf)), "add rbx, rax");
    i = hex_decode(MODE_64, "06");
    assert_string_equal(decode_format(&i, 0, buf, sizeof(buf)), "(invalid)");
    i = hex_decode(MODE_64, "4801c3");
    for (size_t size = 1; size < 14; size++) {
        memset(buf, 'x', sizeof(buf));
        decode_format(&i, 0, buf, size);
        assert_non_null(memchr(buf, 0, size));
        assert_int_equal(buf[size], 'x');
    }
    assert_string_equal(decode_op_name(OP_native), "native");
    assert_string_equal(decode_op_name(OP_gather), "gather");
}

static void check_invariants(const struct insn *i, const uint8_t *bytes) {
    assert_in_range(i->len, 1, 15);
    assert_memory_equal(i->bytes, bytes, i->len);
    assert_true(i->op < OP_COUNT && i->nops <= 4 && !i->exec && !i->native);
    assert_true(i->feature < CPUID_F_COUNT && i->cond < 16 && i->rep <= REP_REPNE);
    assert_true(i->opsize == 1 || i->opsize == 2 || i->opsize == 4 || i->opsize == 8);
    assert_true(i->addrsize == 2 || i->addrsize == 4 || i->addrsize == 8);
    assert_true(i->mem.base < REG_COUNT && i->mem.scale <= 3 && i->mem.seg < SEG_COUNT);
    assert_true(i->mem.index <= REG_ZERO);
    assert_true(i->off_opcode < 15 && i->off_modrm < 15 && i->off_imm < 15);
    if (i->op != OP_invalid) {
        assert_true(i->off_opcode < i->len);
        assert_int_not_equal(i->feature, CPUID_F_UNSUPPORTED);
    } else {
        assert_int_equal(i->nops, 0);
    }
    for (unsigned n = 0; n < i->nops; n++) {
        const struct operand *o = &i->opnd[n];
        assert_in_range(o->kind, OPND_REG, OPND_VEC);
        assert_in_range(o->size, o->kind == OPND_MEM ? 0 : 1, 255);
        if (o->kind == OPND_REG)
            assert_true(o->reg < 16 && o->size <= 8 &&
                        (o->off == o->reg * 8 ||
                         (o->size == 1 && o->reg < 4 && o->off == o->reg * 8 + 1)));
        else if (o->kind == OPND_SEG)
            assert_true(o->reg < SEG_COUNT);
        else
            assert_true(o->reg < 32);
    }
    if (i->mode != MODE_64)
        for (unsigned n = 0; n < i->nops; n++)
            assert_true(i->opnd[n].kind != OPND_REG || i->opnd[n].reg < 8);
}

/* Decodes at every length: shorter than the instruction is truncated or invalid already;
 * never read are the bytes beyond. Returns the result for all of them. */
static enum decode_result check_bytes(enum cpu_mode mode, const uint8_t *bytes,
                                      bool every_length) {
    struct insn whole, part;
    enum decode_result rc = decode_insn(mode, bytes, 15, &whole);
    if (rc == DECODE_OK)
        check_invariants(&whole, bytes);
    else
        assert_int_equal(rc, DECODE_TOO_LONG);
    if (!every_length)
        return rc;
    size_t need = rc == DECODE_OK ? whole.len : 15;
    for (size_t len = 1; len < 15; len++) {
        uint8_t *copy = malloc(len); /* exactly: ASan sees a byte too many */
        memcpy(copy, bytes, len);
        enum decode_result prc = decode_insn(mode, copy, len, &part);
        free(copy);
        if (len >= need) {
            assert_int_equal(prc, DECODE_OK);
            assert_memory_equal(&part, &whole, sizeof(part));
        } else if (prc == DECODE_OK) {
            if (part.op != OP_invalid || whole.op != OP_invalid)
                fail_msg("mode %d %02x %02x %02x %02x: %d bytes make %d, all %d of %d",
                         mode, bytes[0], bytes[1], bytes[2], bytes[3], (int)len, part.op,
                         whole.op, whole.len);
        } else {
            assert_int_equal(prc, DECODE_TRUNCATED);
        }
    }
    return rc;
}

/* Every opcode with an EVEX prefix, and what its fields may be. */
static void test_evex(void **state) {
    static const uint8_t maps[] = {1, 2, 3, 5, 6};
    unsigned valid = 0;

    for (unsigned n = 0; n < 3u * 5 * 256 * 64; n++) {
        uint8_t b[16] = {0x62,
                         (uint8_t)(maps[n / 3 % 5] | (n * 7 & 0xf0)),
                         (uint8_t)(0x04 | (n * 11 & 0xfb)),
                         (uint8_t)(n * 13),
                         (uint8_t)(n / 15),
                         (uint8_t)(n * 17),
                         (uint8_t)(n * 19)};
        struct insn i;

        b[1] |= n & 1 ? 0xf0 : 0; /* 32-bit mode wants two of these */
        if (decode_insn((enum cpu_mode)(n % 3), b, 15, &i) != DECODE_OK)
            continue;
        check_invariants(&i, b);
        if (i.op == OP_invalid)
            continue;
        valid += (i.flags & INSN_AVX512) != 0;
        if (i.flags & INSN_MASKED)
            assert_true(i.mem.access && i.mem.size && i.mem.size <= 64 && i.mem.elem);
        if (i.op == OP_native && i.mem.access)
            assert_in_range(i.mem.size, 1, 64);
    }
    assert_true(valid > 3000);
    struct insn g = hex_decode(MODE_64, "62f27d41900c33"); /* index zmm22 */
    assert_int_equal(g.op, OP_gather);
    assert_int_equal(g.mem.index, 6);
}

static void test_opcode_maps(void **state) {
    static const uint8_t modrm[] = {0x00, 0x05, 0x0c, 0x14, 0x1e, 0x20, 0x2f,
                                    0x31, 0x38, 0x44, 0x86, 0xc0, 0xc9, 0xd1,
                                    0xda, 0xe0, 0xe8, 0xf0, 0xf8, 0xff};
    static const char *const prefixes[] = {
        "",       "0f",     "0f38", "0f3a",   "66",       "660f",  "660f38", "f3",
        "f30f",   "f20f",   "480f", "f0",     "f00f",     "c5f8",  "c5fd",   "c4e279",
        "c4e2fd", "c4e379", "67",   "660f3a", "62f17c48", "8fe978"};
    for (size_t p = 0; p < ARRAY_SIZE(prefixes); p++) {
        uint8_t b[16] = {0};
        size_t at = hex_bytes(prefixes[p], b);
        for (unsigned op = 0; op < 256; op++) {
            b[at] = (uint8_t)op;
            for (size_t m = 0; m < ARRAY_SIZE(modrm); m++) {
                b[at + 1] = modrm[m];
                for (int mode = MODE_16; mode <= MODE_64; mode++)
                    check_bytes((enum cpu_mode)mode, b, m % 8 == 0);
            }
        }
    }
}

static bool zydis_length(enum cpu_mode mode, const uint8_t *bytes, unsigned *len) {
    static const ZydisMachineMode machine[] = {ZYDIS_MACHINE_MODE_LEGACY_16,
                                               ZYDIS_MACHINE_MODE_LEGACY_32,
                                               ZYDIS_MACHINE_MODE_LONG_64};
    static const ZydisStackWidth stack[] = {ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32,
                                            ZYDIS_STACK_WIDTH_64};
    ZydisDecoder d;
    ZydisDecoderContext ctx;
    ZydisDecodedInstruction zi;
    ZydisDecoderInit(&d, machine[mode], stack[mode]);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_AMD_BRANCHES, __builtin_cpu_is("amd"));
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&d, &ctx, bytes, 15, &zi)))
        return false;
    *len = zi.length;
    return true;
}

static void test_random(void **state) {
    uint64_t seed = 0x9e3779b97f4a7c15ull;
    unsigned known = 0;
    for (unsigned n = 0; n < 100000; n++) {
        uint8_t b[16];
        for (unsigned k = 0; k < 16; k++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            b[k] = (uint8_t)(seed >> 32);
        }
        enum cpu_mode mode = (enum cpu_mode)(n % 3);
        unsigned zlen;
        struct insn i;
        enum decode_result rc = check_bytes(mode, b, n % 16 == 0);
        if (rc != DECODE_OK || !zydis_length(mode, b, &zlen))
            continue;
        decode_insn(mode, b, 15, &i);
        assert_int_equal(i.len, zlen);
        known += i.op != OP_invalid;
    }
    assert_true(known > 50000);
}

static void test_limits(void **state) {
    uint8_t b[16];
    struct insn i;
    memset(b, 0x66, sizeof(b));
    assert_int_equal(decode_insn(MODE_64, b, 0, &i), DECODE_TRUNCATED);
    for (size_t len = 1; len < 15; len++)
        assert_int_equal(decode_insn(MODE_64, b, len, &i), DECODE_TRUNCATED);
    assert_int_equal(decode_insn(MODE_64, b, 15, &i), DECODE_TOO_LONG);
    b[14] = 0x90;
    assert_int_equal(decode_insn(MODE_64, b, 16, &i), DECODE_OK);
    assert_int_equal(i.len, 15);
    b[13] = 0x0f; /* 14 bytes, then 0f and its opcode, then a ModRM that is the 16th */
    b[14] = 0xaf;
    assert_int_equal(decode_insn(MODE_64, b, 16, &i), DECODE_TOO_LONG);
    assert_int_equal(decode_insn(MODE_64, b, 14, &i), DECODE_TRUNCATED);
    /* #UD although the next byte is missing. */
    assert_int_equal(decode_insn(MODE_64, (const uint8_t *)"\x82", 1, &i), DECODE_OK);
    assert_int_equal(i.op, OP_invalid);
    assert_int_equal(decode_insn(MODE_32, (const uint8_t *)"\x82", 1, &i),
                     DECODE_TRUNCATED);
    assert_int_equal(decode_insn(MODE_32, (const uint8_t *)"\x0f\x04", 2, &i), DECODE_OK);
    assert_int_equal(i.op, OP_invalid);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_evex),     cmocka_unit_test(test_flags),
        cmocka_unit_test(test_features), cmocka_unit_test(test_layout),
        cmocka_unit_test(test_format),   cmocka_unit_test(test_opcode_maps),
        cmocka_unit_test(test_random),   cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
