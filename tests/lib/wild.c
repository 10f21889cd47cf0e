#include "lib/wild.h"

#include <string.h>

#include "decode/decode.h"
#include "lib/hex.h"
#include "lib/rnd.h"

struct wild_program wild;
const void *wild_ram, *wild_vcpu;

static void put(const void *b, unsigned n) {
    memcpy(wild.b + wild.len, b, n);
    wild.len += n;
}

static void put8(unsigned b) {
    wild.b[wild.len++] = (uint8_t)b;
}

/* A number about which address arithmetic goes wrong. */
uint64_t wild_number(void) {
    static const uint64_t about[] = {0,          0,
                                     RAM,        RAM / 2,
                                     DATA,       0xa0000,
                                     0x100000,   0x200000,
                                     1ull << 31, 1ull << 32,
                                     1ull << 32, (1ull << 32) + RAM,
                                     1ull << 47, -(1ull << 47),
                                     1ull << 63, 0x1122334400000000ull};
    uint64_t a = about[pick(ARRAY_SIZE(about))];

    switch (pick(8)) {
    case 0: /* the VMM's own data, and what lies as far from RAM as that */
        a = (uint64_t)(one_in(3)   ? (uintptr_t)wild_ram
                       : one_in(2) ? (uintptr_t)wild_vcpu
                                   : (uintptr_t)&wild);
        break;
    case 1:
        a = (uintptr_t)wild_vcpu - (uintptr_t)wild_ram;
        break;
    case 2:
        a += (uint64_t)pick(16) << 12;
        break;
    case 3:
        a += rnd() >> (8 + pick(56));
        break;
    }
    return a + pick(200) - 100;
}

static uint32_t displacement(void) {
    static const uint32_t about[] = {0,   0,          0x7fffffff, 0x80000000,
                                     RAM, 0xffff0000, 0x1000};

    return one_in(8) ? (uint32_t)rnd() : about[pick(ARRAY_SIZE(about))] + pick(160) - 80;
}

struct access {
    const char *prefix, *opcode; /* hexadecimal; REX goes between */
    int reg;                     /* of the ModRM byte; -1: any */
    unsigned imm;                /* bytes of immediate */
    bool w;                      /* REX.W may be set */
};

static const struct access ops[] = {
    {"", "8a", -1, 0, false},     {"", "8b", -1, 0, true},
    {"66", "8b", -1, 0, false},   {"", "88", -1, 0, false},
    {"", "89", -1, 0, true},      {"66", "89", -1, 0, false},
    {"", "c6", 0, 1, false},      {"", "c7", 0, 4, true},
    {"", "01", -1, 0, true},      {"", "03", -1, 0, true},
    {"f0", "01", -1, 0, true},    {"", "31", -1, 0, true},
    {"", "39", -1, 0, true},      {"", "85", -1, 0, true},
    {"", "80", 4, 1, false},      {"", "ff", 0, 0, true},
    {"", "f7", 3, 0, true},       {"", "d1", 4, 0, true},
    {"", "0fb6", -1, 0, true},    {"", "0fbf", -1, 0, true},
    {"", "0fa3", -1, 0, true},    {"", "0fab", -1, 0, true},
    {"f0", "0fb3", -1, 0, true},  {"", "0fba", 7, 1, true},
    {"", "0fc1", -1, 0, true},    {"", "87", -1, 0, true},
    {"f0", "0fb1", -1, 0, true},  {"f0", "0fc7", 1, 0, true},
    {"", "0f90", 0, 0, false},    {"", "0f45", -1, 0, true},
    {"", "ff", 6, 0, false},      {"", "8f", 0, 0, false},
    {"", "ff", 2, 0, false},      {"", "ff", 4, 0, false},
    {"", "d9", 0, 0, false},      {"", "dd", 0, 0, false},
    {"", "db", 5, 0, false},      {"", "db", 7, 0, false},
    {"", "dd", 3, 0, false},      {"", "df", 5, 0, false},
    {"", "dd", 6, 0, false},      {"", "dd", 4, 0, false},
    {"", "0fae", 0, 0, false},    {"", "0fae", 1, 0, false},
    {"", "0fae", 4, 0, false},    {"", "0fae", 3, 0, false},
    {"", "0f10", -1, 0, false},   {"", "0f11", -1, 0, false},
    {"66", "0f6f", -1, 0, false}, {"66", "0f7f", -1, 0, false},
    {"f3", "0f6f", -1, 0, false}, {"f3", "0f7f", -1, 0, false},
    {"f2", "0f10", -1, 0, false}, {"f2", "0f11", -1, 0, false},
    {"", "0f6f", -1, 0, false},   {"", "0f7f", -1, 0, false},
    {"66", "0fd6", -1, 0, false}, {"66", "0ffe", -1, 0, false},
    {"", "0f18", 1, 0, false},    {"", "0f1f", 0, 0, false},
    {"", "8d", -1, 0, true},      {"", "0fae", 7, 0, false},
};

/* ModRM, SIB and displacement. */
static void put_modrm(unsigned reg, unsigned base, bool rip) {
    unsigned mod = pick(3);
    uint32_t disp = displacement();

    if (rip || one_in(12)) { /* absolute, or by rIP */
        put8(reg << 3 | 5);
        put(&disp, 4);
        return;
    }
    if (one_in(3) || base == 4) {
        put8(mod << 6 | reg << 3 | 4);
        put8(pick(4) << 6 | (base == 4 && one_in(2) ? 4 : pick(8)) << 3 | base);
    } else {
        put8(mod << 6 | reg << 3 | base);
    }
    if (mod == 1)
        put8(disp & 0xff);
    else if (mod == 2 || base == 5)
        put(&disp, 4);
}

/* The same with 16-bit addresses. */
static void put_modrm16(unsigned reg) {
    unsigned mod = pick(3), rm = pick(8);
    uint32_t disp = displacement();

    put8(mod << 6 | reg << 3 | rm);
    put(&disp, mod == 2 || (!mod && rm == 6) ? 2 : mod);
}

static void put_vex(unsigned base) {
    static const uint8_t gathers[][3] = {{0x90, 0, 0}, {0x92, 0, 1}, {0x8e, 0, 1},
                                         {0x2e, 0, 1}, {0x8c, 0, 1}, {0x2c, 0, 1}};
    const uint8_t *g = gathers[pick(6)];
    unsigned ymm = pick(2);

    if (one_in(3)) { /* vmovups, load and store */
        put8(0xc5);
        put8(0xf8 | ymm << 2);
        put8(0x10 + pick(2));
        put_modrm(pick(8), base, false);
        return;
    }
    put8(0xc4);
    put8(0xe2);
    put8((~5u & 15) << 3 | ymm << 2 | 1); /* vvvv: xmm5 */
    put8(g[0]);
    if (g[2]) {
        put_modrm(pick(8), base, false);
    } else {
        uint32_t disp = displacement();

        put8(0x84 | pick(4) << 3); /* not xmm5 or xmm7 */
        put8(pick(4) << 6 | 7 << 3 | base);
        put(&disp, 4);
    }
}

static void put_stack(void) {
    static const char *const forms[] = {
        "50",     "58",       "6a7f",     "9c",       "c9",   "e800000000", "c3",
        "c20800", "c8100000", "c8ff7f01", "c8081f03", "6650", "6658",       "54",
        "5c",     "ffd0",     "0fa0",     "0fa9",     "cb",   "60",         "61",
    };
    uint8_t b[8];
    unsigned k = pick(wild.wide ? 18 : 21);

    put(b, (unsigned)hex_bytes(forms[k], b));
}

static void put_string(void) {
    static const uint8_t opcodes[] = {0xa4, 0xa5, 0xaa, 0xab, 0xac,
                                      0xad, 0xa6, 0xa7, 0xae, 0xaf};

    if (one_in(3))
        put8(0x67);
    if (one_in(4))
        put8(0x64);
    if (one_in(3))
        put8(0x66);
    if (!one_in(3))
        put8(0xf2 + pick(2));
    if (wild.wide && one_in(2))
        put8(0x48);
    put8(opcodes[pick(10)]);
}

static void put_access(unsigned base) {
    const struct access *o = &ops[pick(ARRAY_SIZE(ops))];
    static const uint8_t segs[] = {0x26, 0x36, 0x3e, 0x64, 0x65, 0x64};
    uint8_t b[8];

    if (one_in(5))
        put8(segs[pick(6)]);
    bool other = one_in(10); /* the mode's other address size */
    if (other)
        put8(0x67);
    put(b, (unsigned)hex_bytes(o->prefix, b));
    if (wild.wide && one_in(2))
        put8(0x40 | (o->w && one_in(2) ? 8 : 0) | pick(8));
    put(b, (unsigned)hex_bytes(o->opcode, b));
    wild.environment |= o->reg == 6 && !strcmp(o->opcode, "dd");
    unsigned reg = o->reg < 0 ? pick(8) : (unsigned)o->reg;
    if (other && !wild.wide)
        put_modrm16(reg);
    else
        put_modrm(reg, base, false);
    for (unsigned k = 0; k < o->imm; k++)
        put8(pick(256));
}

static bool knot_takes(const struct insn *i) {
    wild.environment |= i->op == OP_fnsave;
    return i->op != OP_rdrand && i->op != OP_rdseed;
}

static uint64_t knot_end(void) {
    return one_in(3) ? wild_number() : DATA + 0x8000 + (pick(6) << 12);
}

void wild_make_knot(void) {
    wild.knots = (struct knots){.mode = wild.wide ? MODE_64 : MODE_32,
                                .at = CODE,
                                .code = wild.b,
                                .max = sizeof(wild.b) - 8,
                                .data = DATA + 0x9000 + (pick(4) << 12),
                                .rnd = rnd,
                                .takes = knot_takes,
                                .end = knot_end};
    wild.environment = false;
    knots_make(&wild.knots);
    wild.len = wild.knots.len;
    put("\x0f\x0b", 2);
}

void wild_make(void) {
    unsigned base = pick(8), n = 1 + pick(5);

    wild.len = 0;
    wild.environment = false;
    if (one_in(4))
        put8(0xfc + pick(2)); /* cld, std */
    for (unsigned k = 0; k < n; k++) {
        if (one_in(6))
            put_stack();
        else if (one_in(8))
            put_string();
        else if (one_in(8))
            put_vex(pick(8));
        else if (one_in(10))
            put(one_in(2) ? "\xd7" : "\x66\x0f\xf7\xc1", one_in(2) ? 1 : 4);
        else
            put_access(one_in(4) ? pick(8) : base);
        if (one_in(8)) { /* moves on, as loops do */
            put8(0x83);
            put8(0xc0 | base);
            put8(pick(256));
        }
    }
    put("\x0f\x0b", 2);
}

/* --- a run --- */
