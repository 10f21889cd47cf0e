/*
 * Translated code reaches guest RAM and nothing else, whatever address the guest
 * computes.
 *
 * Random programs of memory accesses (all addressing forms, stack, string and bit-string
 * operations, gathers, FXSAVE and XSAVE areas, bursts off one register) run with
 * registers, displacements and segment bases where arithmetic goes wrong: about 0, 2^31,
 * 2^32, 2^47, -2^47 and 2^64, about the ends of RAM, and the very addresses of the VMM's
 * own data. Modes: 32-bit with paging off and on, with and without segment bases and
 * limits, compatibility, 64-bit; A20 on and off; CPL 0 and 3. Each program runs first
 * with tame registers until its code is hot, then with wild ones. Other programs are
 * knots (common/knots.h). With paging, no two pages of data are neighbours in RAM.
 *
 * Guest RAM lies in the middle of 16 GiB that nobody may touch: what goes astray kills
 * the process, and the parent says which program it was. What strays further or into the
 * VMM's data shows as a difference: the interpreter runs the same programs, and
 * registers, all of RAM, the devices' accesses and the outcome have to be the same.
 *
 * With arguments: SEED COUNT [TEST] runs other programs than the standing ones.
 */
/* <signal.h> of _GNU_SOURCE has its own REG_RAX and so on. */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "bt/bt.h"
#include "common/knots.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "decode/decode.h"
#include "interp/interp.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "soft/soft.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/exception.h"
#include "x86/pte.h"

enum {
    RAM = 4 << 20,
    GDT = 0x1000,
    IDT = 0x2000,
    TSS = 0x3000,
    TABLES = 0x4000, /* page tables, up to CODE */
    HANDLERS = 0xe000,
    STACK = 0xd800, /* top of the handlers' */
    CODE = 0x10000,
    DATA = 0x20000,
    EDGES = 16, /* pages that the edges of the linear space map */
    STEPS = 400,
};
#define RESERVE (16ull << 30)

enum kind { FLAT32, BASED32, PAGED32, COMPAT, LONG, KINDS };
static const char *const kind_names[] = {"32-bit, no paging", "32-bit, segments",
                                         "32-bit, paging", "compatibility", "64-bit"};

static uint64_t seed_now;

static uint64_t rnd(void) {
    seed_now ^= seed_now << 13;
    seed_now ^= seed_now >> 7;
    seed_now ^= seed_now << 17;
    return seed_now * 0x2545f4914f6cdd1dull >> 8 | seed_now << 56;
}

static unsigned pick(unsigned n) {
    return (unsigned)(rnd() % n);
}

static bool one_in(unsigned n) {
    return pick(n) == 0;
}

/* --- two machines --- */

struct guest {
    struct vcpu *v;
    struct counters cnt;
    struct interp *ip;
    struct bt *bt;
    uint8_t *ram;
    uint64_t seen; /* of the devices' accesses */
    bool a20;
};

static struct guest A, B;

static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
    struct guest *g = arg;

    vec_park(v);
    g->seen =
        (g->seen ^ e->reason ^ e->size << 8 ^ e->write << 16) * 0x100000001b3ull +
        e->gpa.a +
        (e->write ? e->data & (e->size < 8 ? (1ull << 8 * e->size) - 1 : ~0ull) : 0);
    if (!e->write)
        e->data = g->seen;
}

static int on_irq_ack(void *arg) {
    return -1;
}

static uint64_t on_tsc(void *arg) {
    return 1;
}

static bool on_a20(void *arg) {
    return ((struct guest *)arg)->a20;
}

static const struct vcpu_hooks hooks = {
    .exit = on_exit_hook, .irq_ack = on_irq_ack, .tsc = on_tsc, .a20 = on_a20};

/* Takes what nobody has of the address space from AT on. */
static void reserve(uintptr_t at, uint64_t size) {
    void *p =
        mmap((void *)at, size, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

    if (p == MAP_FAILED && size > 2 << 20) {
        reserve(at, size / 2);
        reserve(at + size / 2, size / 2);
    }
}

/* RAM in the middle of a reservation. */
static int create_ram(struct mem **out) {
    int rc = mem_create(RAM, out);

    if (rc)
        return rc;
    for (unsigned at = 0; at < RAM; at += 8) { /* no two places are alike */
        uint64_t x = (at + 8) * 0x9e3779b97f4a7c15ull;

        memcpy(mem_ram_base(*out) + at, &x, 8);
    }
    reserve(((uintptr_t)mem_ram_base(*out) & ~0x1fffffull) - RESERVE / 2, RESERVE);
    return 0;
}

static void guest_new(struct guest *g, const struct bt_options *opt) {
    static const struct cpuid_config cfg = {.model = "host", .tsc_hz = 1000000000};
    struct mem_hooks *h;

    memset(g, 0, sizeof(*g));
    g->v = aligned_alloc(64, sizeof(*g->v));
    memset(g->v, 0, sizeof(*g->v));
    g->v->cnt = &g->cnt;
    g->v->hooks = &hooks;
    g->v->hooks_arg = g;
    g->v->cpuid = cpuid_model_new(&cfg);
    assert_int_equal(create_ram(&g->v->mem), 0);
    assert_int_equal(mmu_create(g->v, MMU_PCID), 0);
    g->ram = mem_ram_base(g->v->mem);
    g->ip = interp_new(g->v);
    h = mem_hooks(g->v->mem);
    h->on_write[__builtin_ctz(MEM_TRACE_CODE)] = interp_code_written;
    h->on_write_arg[__builtin_ctz(MEM_TRACE_CODE)] = g->ip;
    if (opt) {
        struct bt_options verified = *opt;

        verified.verify = true; /* a finding ends the run */
        assert_int_equal(bt_new(g->v, g->ip, &verified, &g->bt), 0);
    }
}

static void poke(struct guest *g, uint64_t at, const void *p, unsigned len) {
    assert_true(mem_write(g->v->mem, gpa(at), p, len));
}

static void poke64(struct guest *g, uint64_t at, uint64_t val) {
    poke(g, at, &val, 8);
}

static void poke32(struct guest *g, uint64_t at, uint32_t val) {
    poke(g, at, &val, 4);
}

/* --- programs --- */

struct program {
    enum kind kind;
    bool wide;
    uint8_t b[512];
    unsigned len;
    struct knots knots; /* without code: it is none */
    bool environment;   /* FNSAVE is in it */
};

static struct program P;

static void put(const void *b, unsigned n) {
    memcpy(P.b + P.len, b, n);
    P.len += n;
}

static void put8(unsigned b) {
    P.b[P.len++] = (uint8_t)b;
}

/* A number about which address arithmetic goes wrong. */
static uint64_t wild(void) {
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
        a = (uint64_t)(one_in(3)   ? (uintptr_t)B.ram
                       : one_in(2) ? (uintptr_t)B.v
                                   : (uintptr_t)&P);
        break;
    case 1:
        a = (uintptr_t)B.v - (uintptr_t)B.ram;
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

static unsigned hex(const char *s, uint8_t *to) {
    unsigned n = 0, b;

    for (; sscanf(s, "%2x", &b) == 1; s += 2)
        to[n++] = (uint8_t)b;
    return n;
}

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
    unsigned k = pick(P.wide ? 18 : 21);

    put(b, hex(forms[k], b));
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
    if (P.wide && one_in(2))
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
    put(b, hex(o->prefix, b));
    if (P.wide && one_in(2))
        put8(0x40 | (o->w && one_in(2) ? 8 : 0) | pick(8));
    put(b, hex(o->opcode, b));
    P.environment |= o->reg == 6 && !strcmp(o->opcode, "dd");
    unsigned reg = o->reg < 0 ? pick(8) : (unsigned)o->reg;
    if (other && !P.wide)
        put_modrm16(reg);
    else
        put_modrm(reg, base, false);
    for (unsigned k = 0; k < o->imm; k++)
        put8(pick(256));
}

static bool knot_takes(const struct insn *i) {
    P.environment |= i->op == OP_fnsave;
    return i->op != OP_rdrand && i->op != OP_rdseed;
}

static uint64_t knot_end(void) {
    return one_in(3) ? wild() : DATA + 0x8000 + (pick(6) << 12);
}

static bool knotted; /* programs are knots */

static void make_knot(void) {
    P.knots = (struct knots){.mode = P.wide ? MODE_64 : MODE_32,
                             .at = CODE,
                             .code = P.b,
                             .max = sizeof(P.b) - 8,
                             .data = DATA + 0x9000 + (pick(4) << 12),
                             .rnd = rnd,
                             .takes = knot_takes,
                             .end = knot_end};
    P.environment = false;
    knots_make(&P.knots);
    P.len = P.knots.len;
    put("\x0f\x0b", 2);
}

static void make_program(void) {
    unsigned base = pick(8), n = 1 + pick(5);

    P.len = 0;
    P.environment = false;
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

static uint32_t mxcsr_mask; /* the host's */
static struct vcpu S;
static uint64_t edges[EDGES];
static bool a20;

static void segments(bool user, bool tame) {
    unsigned dpl = user ? 0x60 : 0;

    for (unsigned s = 0; s < SEG_COUNT; s++)
        S.seg[s] = (struct segment){.sel = (uint16_t)(user ? 0x23 : 0x10),
                                    .ar = (uint16_t)(0xc093 | dpl),
                                    .limit = 0xffffffff};
    S.seg[SEG_CS] = (struct segment){.sel = (uint16_t)(user ? 0x1b : 8),
                                     .ar = (uint16_t)((P.wide ? 0xa09b : 0xc09b) | dpl),
                                     .limit = 0xffffffff};
    for (unsigned s = SEG_FS; s <= SEG_GS; s++) {
        uint64_t base = tame ? pick(0x1000) : wild();

        if (P.wide)
            S.seg[s].base = (uint64_t)((int64_t)(base << 16) >> 16);
        else if (P.kind == BASED32 || P.kind == COMPAT)
            S.seg[s].base = (uint32_t)base;
    }
    if (P.kind != BASED32 && (P.kind != COMPAT || one_in(2)))
        return;
    for (unsigned k = 0; k < 3; k++) {
        struct segment *g = &S.seg[(unsigned[]){SEG_ES, SEG_SS, SEG_DS}[k]];

        if (one_in(2))
            g->base = (uint32_t)(tame ? pick(0x1000) : wild());
        if (one_in(3))
            g->limit = (uint32_t)(tame ? 0x7fffffff : wild());
        if (one_in(6))
            g->ar |= X86_AR_EXPDOWN;
        if (one_in(6))
            g->ar &= (uint16_t)~X86_AR_DB;
    }
}

static void random_start(bool tame) {
    bool user = S.cpl == 3;

    for (unsigned r = 0; r < 16; r++) {
        S.gpr[r] = tame ? DATA + 0x8000 + pick(0x4000) : one_in(4) ? pick(300) : wild();
        if (!P.wide && !one_in(8))
            S.gpr[r] &= 0xffffffff;
    }
    /* Counts that end: what lies behind RAM answers everywhere without paging. */
    if (!one_in(8) || P.kind <= BASED32)
        S.gpr[REG_RCX] = pick(tame ? 40 : 0x2100);
    if (P.knots.code) {
        knots_registers(&P.knots, S.gpr);
        S.gpr[REG_RCX] %= 0x2100;
    }
    S.rflags = X86_FL_ONE;
    for (unsigned k = 0; k < VCPU_XSAVE_SIZE / 8; k++) {
        uint64_t r = one_in(2) ? wild() : rnd();

        memcpy(S.vec + 8 * k, &r, 8);
    }
    memset(S.vec, 0, 32);
    S.vec[0] = 0x7f, S.vec[1] = 3, S.vec[24] = 0x80, S.vec[25] = 0x1f;
    memcpy(S.vec + 28, &mxcsr_mask, 4);
    memset(S.vec + 416, 0, 160);
    S.vec[512] = (uint8_t)vec_supported();
    for (unsigned k = 0; k < 8; k++)
        memset(S.vec + 32 + 16 * k + 10, 0, 6);
    segments(user, tame);
}

/* Where the ends of the linear space lie: first and last pages of RAM, others, none. */
static void random_edges(void) {
    for (unsigned k = 0; k < EDGES; k++) {
        uint64_t page = one_in(3)   ? RAM - 0x1000
                        : one_in(3) ? DATA + (pick(16) << 12)
                        : one_in(4) ? RAM + (pick(4) << 12)
                                    : DATA + 0x100000;

        edges[k] =
            page | X86_PTE_P | (one_in(6) ? 0 : X86_PTE_W) | (one_in(6) ? 0 : X86_PTE_U);
        if (one_in(5))
            edges[k] = 0;
    }
}

static const uint64_t all = X86_PTE_P | X86_PTE_W | X86_PTE_U;

/* The page table at AT: edges at both ends. */
static void edge_table(struct guest *g, uint64_t at, unsigned size) {
    unsigned n = 4096 / size;

    for (unsigned k = 0; k < n; k++) {
        uint64_t e = k < EDGES / 2        ? edges[k]
                     : k >= n - EDGES / 2 ? edges[k - n + EDGES]
                                          : 0;

        if (size == 8)
            poke64(g, at + 8 * k, e);
        else
            poke32(g, at + 4 * k, (uint32_t)e);
    }
}

/* Pages of data in another order, every other page; the first and the last page of RAM
 * are among them. All others are where their addresses say. */
static uint64_t phys(uint64_t page) {
    uint64_t k = page - (DATA >> 12);

    if (k >= 16)
        return page << 12;
    return k == 9 ? RAM - 0x1000 : k == 10 ? 0 : 0x180000 - (k << 13);
}

static void load_paging(struct guest *g) {
    uint64_t top = TABLES, t = TABLES + 0x1000;

    if (P.kind == PAGED32) {
        poke32(g, top, (uint32_t)(t | all));
        poke32(g, top + 4 * 1023, (uint32_t)((t + 0x1000) | all));
        poke32(g, top + 4 * 512, (uint32_t)((t + 0x1000) | all));
        poke32(g, top + 4 * 511, (uint32_t)((t + 0x1000) | all));
        for (unsigned k = 0; k < 1024; k++)
            poke32(g, t + 4 * k, (uint32_t)(phys(k) | all));
        edge_table(g, t + 0x1000, 4);
        return;
    }
    /* PDPT of 0, PD of 0, table of 0; then those of the edges. */
    poke64(g, top, t | all);
    poke64(g, t, (t + 0x1000) | all);
    poke64(g, t + 8 * 3, (t + 0x4000) | all);
    poke64(g, t + 8 * 4, (t + 0x4000) | all);
    poke64(g, t + 8 * 2, (t + 0x4000) | all);
    poke64(g, t + 8 * 1, (t + 0x4000) | all);
    poke64(g, t + 0x1000, (t + 0x2000) | all);
    poke64(g, t + 0x1008, 0x200000 | all | X86_PTE_PS);
    for (unsigned k = 0; k < 512; k++)
        poke64(g, t + 0x2000 + 8 * k, phys(k) | all);
    static const unsigned slots[] = {255, 256, 511};
    for (unsigned k = 0; k < 3; k++)
        poke64(g, top + 8 * slots[k], (t + 0x3000) | all);
    poke64(g, t + 0x3000, (t + 0x4000) | all);
    poke64(g, t + 0x3000 + 8 * 511, (t + 0x4000) | all);
    poke64(g, t + 0x4000, (t + 0x5000) | all);
    poke64(g, t + 0x4000 + 8 * 511, (t + 0x5000) | all);
    edge_table(g, t + 0x5000, 8);
}

static void load_tables(struct guest *g) {
    static const uint8_t zeros[4096];
    static const uint64_t gdt[] = {0, 0, 0x00cf93000000ffff, 0, 0x00cff3000000ffff, 0};
    bool wide = P.kind >= COMPAT;

    for (unsigned at = 0; at < CODE; at += sizeof(zeros))
        poke(g, at, zeros, sizeof(zeros));
    poke(g, GDT, gdt, sizeof(gdt));
    poke64(g, GDT + 8, wide ? 0x00af9b000000ffff : 0x00cf9b000000ffff);
    poke64(g, GDT + 24, P.wide ? 0x00affb000000ffff : 0x00cffb000000ffff);
    for (unsigned n = 0; n < 32; n++) {
        unsigned at = IDT + n * (wide ? 16 : 8);

        poke64(g, at, (HANDLERS + n) | 8ull << 16 | (wide ? 0x8e01ull : 0x8e00ull) << 32);
        poke(g, HANDLERS + n, "\xf4", 1);
    }
    if (wide) {
        poke64(g, TSS + 36, STACK);
        poke64(g, TSS + 4, STACK);
    } else {
        poke32(g, TSS + 4, STACK);
        poke32(g, TSS + 8, 0x10);
    }
    load_paging(g);
    poke(g, CODE, P.b, P.len);
}

static void load_start(struct guest *g) {
    struct vcpu *v = g->v;

    vec_park(v);
    vcpu_reset(v);
    memcpy(v->gpr, S.gpr, 16 * 8);
    memcpy(v->seg, S.seg, sizeof(v->seg));
    memcpy(v->vec, S.vec, sizeof(v->vec));
    v->rip = CODE;
    v->rflags = S.rflags;
    v->cpl = S.cpl;
    v->cr0 = X86_CR0_PE | X86_CR0_WP | X86_CR0_NE | X86_CR0_ET | X86_CR0_MP;
    v->cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    v->cr4 &= cpuid_cr4_valid(v->cpuid);
    v->xcr0 = cpuid_xcr0_valid(v->cpuid);
    if (P.kind >= PAGED32)
        v->cr0 |= X86_CR0_PG;
    if (P.kind >= COMPAT) {
        v->cr4 |= X86_CR4_PAE;
        v->efer = X86_EFER_LME | X86_EFER_LMA;
    }
    v->cr3 = TABLES;
    v->gdtr = (struct desc_table){GDT, 0x2f};
    v->idtr = (struct desc_table){IDT, 0xfff};
    v->tr = (struct segment){.sel = 0x28, .ar = 0x8b, .limit = 0x67, .base = TSS};
    v->halted = v->irq_shadow = v->nmi_blocked = false;
    v->pending_db = 0;
    v->fault = (struct fault){0};
    v->cr2 = 0;
    v->fip = v->fdp = v->fop = v->fcs = v->fds = 0;
    g->seen = 0;
    g->a20 = a20;
    vcpu_clear(v, ~0u);
    vcpu_update_mode(v);
    mmu_mode_changed(v);
    mmu_context_changed(v);
    mmu_flush_all(v);
}

static char why[200];

/* Accessed and dirty bits: a walk for an access that then faults may set them. */
static unsigned may_differ(unsigned at) {
    return at >= TABLES && at < TABLES + 0x7000 && !(at & 3) ? X86_PTE_A | X86_PTE_D : 0;
}

/* An indirect CALL whose target is not canonical: the translator's has written its return
 * address, below the stack pointer, when it faults (docs/bt.md). */
static bool return_slot(unsigned at) {
    if (!P.wide || A.v->rip != HANDLERS + X86_GP + 1 || at + 8 > RAM)
        return false;
    memcpy(B.ram + at, A.ram + at, 8);
    return true;
}

static bool same(enum exit_reason a, enum exit_reason b) {
    if (a != b)
        return sprintf(why, "exit %s, bt's %s", exit_name(a), exit_name(b)), false;
    for (unsigned r = 0; r < 16; r++)
        if (A.v->gpr[r] != B.v->gpr[r])
            return sprintf(why, "register %u: %llx, bt's %llx", r,
                           (unsigned long long)A.v->gpr[r],
                           (unsigned long long)B.v->gpr[r]),
                   false;
    if (A.v->rip != B.v->rip || A.v->cr2 != B.v->cr2)
        return sprintf(why, "rip %llx cr2 %llx, bt's %llx %llx",
                       (unsigned long long)A.v->rip, (unsigned long long)A.v->cr2,
                       (unsigned long long)B.v->rip, (unsigned long long)B.v->cr2),
               false;
    if (A.seen != B.seen)
        return sprintf(why, "other accesses to devices"), false;
    vec_park(A.v);
    vec_park(B.v);
    if (!(A.v->vec[512] & 2)) /* in the initial state: nothing is stored */
        memset(A.v->vec + 160, 0, 256);
    if (!(B.v->vec[512] & 2))
        memset(B.v->vec + 160, 0, 256);
    for (unsigned k = 160; k < 160 + (P.wide ? 256 : 128); k++)
        if (A.v->vec[k] != B.v->vec[k])
            return sprintf(why, "byte %u of the vector state: %02x, bt's %02x", k,
                           A.v->vec[k], B.v->vec[k]),
                   false;
    if (memcmp(A.ram, B.ram, RAM)) {
        bool slot = false;
        for (unsigned k = 0; k < RAM; k++)
            if ((A.ram[k] ^ B.ram[k]) & ~may_differ(k) &&
                (slot || !(slot = return_slot(k))))
                return sprintf(why, "memory at %x: %02x, bt's %02x", k, A.ram[k],
                               B.ram[k]),
                       false;
    }
    return true;
}

/* x87's pointers, which the translator does not keep, may be stored and read back. */
static bool stores_x87(void) {
    struct insn i;
    bool x87 = false, stores = P.environment;

    for (unsigned off = 0; off < P.len; off += i.len) {
        uint8_t b[16] = {0};

        memcpy(b, P.b + off, P.len - off < 15 ? P.len - off : 15);
        if (decode_insn(P.wide ? MODE_64 : MODE_32, b, 15, &i) != DECODE_OK)
            return true;
        x87 |= (i.flags & INSN_X87) != 0;
        stores |= i.op == OP_fxsave || i.op == OP_xsave;
    }
    return x87 && stores;
}

static void show(uint64_t seed, unsigned run) {
    char text[256];

    fprintf(stderr, "seed %llu, run %u, %s, CPL %u, A20 %s: %s\n",
            (unsigned long long)seed, run, kind_names[P.kind], S.cpl, a20 ? "on" : "off",
            why);
    for (unsigned off = 0; off < P.len;) {
        struct insn i;
        uint8_t b[16] = {0};

        memcpy(b, P.b + off, P.len - off < 15 ? P.len - off : 15);
        if (decode_insn(P.wide ? MODE_64 : MODE_32, b, 15, &i) != DECODE_OK)
            break;
        fprintf(stderr, "  %x: %s\n", CODE + off,
                decode_format(&i, CODE + off, text, sizeof(text)));
        off += i.len;
    }
    for (unsigned r = 0; r < 16; r++)
        fprintf(stderr, "  r%-2u %016llx\n", r, (unsigned long long)S.gpr[r]);
    for (unsigned n = 0; n < SEG_COUNT; n++)
        fprintf(stderr, "  segment %u base %llx limit %x ar %x\n", n,
                (unsigned long long)S.seg[n].base, S.seg[n].limit, S.seg[n].ar);
}

/* Makes the two equal behind the engines' backs. */
static void level(void) {
    memcpy(B.ram, A.ram, RAM);
    bt_flush(B.bt);
    interp_flush(B.ip);
}

static bool one_program(uint64_t seed, bool run_it, unsigned upto) {
    seed_now = seed * 0x9e3779b97f4a7c15ull + 1;
    for (unsigned k = 0; k < 4; k++)
        rnd();
    P.kind = (enum kind)pick(KINDS);
    P.wide = P.kind == LONG;
    S.cpl = one_in(2) ? 3 : 0;
    a20 = P.kind > PAGED32 || !one_in(4);
    P.knots.code = NULL;
    if (knotted)
        make_knot();
    else
        make_program();
    for (unsigned run = 0; run < 8 && run <= upto; run++) {
        struct guest *const both[] = {&A, &B};
        enum exit_reason a, b;

        random_edges();
        random_start(run < 4 && run != 1);
        if (!run_it)
            continue;
        for (unsigned k = 0; k < 2; k++) {
            load_tables(both[k]);
            load_start(both[k]);
        }
        a = interp_step(A.ip, STEPS);
        if (a == EXIT_kick) { /* it has written or jumped itself into a loop */
            level();
            return true;
        }
        b = soft_run(&(struct soft){.v = B.v, .ip = B.ip, .bt = B.bt});
        if (!same(a, b)) {
            if (stores_x87()) {
                level();
                return true;
            }
            show(seed, run);
            return false;
        }
    }
    return true;
}

/* --- the tests --- */

static uint64_t first_seed = 1, count = 700;
static volatile uint64_t *running; /* shared: the program that the child is at */

static struct sigaction fault_action;

/* cmocka puts its own signal handlers in place for each test: ours go over them. */
static void signals_back(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};

    for (size_t k = 0; k < ARRAY_SIZE(signals); k++)
        sigaction(signals[k], &fault_action, NULL);
}

/* In a child of its own, since what goes astray dies. */
static void programs_of(const struct bt_options *opt, bool knots) {
    int status = 0;
    pid_t child;

    knotted = knots;
    child = fork();
    if (!child) {
        bool ok = true;

        signals_back();
        guest_new(&A, NULL);
        guest_new(&B, opt);
        alarm(240);
        for (uint64_t k = 0; k < count && ok; k++) {
            *running = first_seed + k;
            ok = one_program(first_seed + k, true, 7);
        }
        _exit(!ok);
    }
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
        sprintf(why, "died of signal %d", WTERMSIG(status));
        B.ram = NULL; /* the registers shown are those of a process without guests */
        one_program(*running, false, 7);
        show(*running, 7);
    }
    assert_int_equal(status, 0);
}

static void programs(const struct bt_options *opt) {
    programs_of(opt, false);
}

static void test_reach(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.liveness = false;
    programs(&opt);
}

static void test_reach_hot(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.liveness = false;
    opt.tr.hot = 1;
    programs(&opt);
}

/* PUSH at 0x8000000000000e50 with an anchor that holds nothing: the host's #GP, which
 * came with the flags of the address check. */
static void test_no_anchor(void **state) {
    struct bt_options opt = bt_defaults();
    uint64_t first = first_seed, all_of = count;

    opt.tr.liveness = false;
    first_seed = 102935, count = 1;
    programs(&opt);
    first_seed = first, count = all_of;
}

static void test_knots(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.liveness = false;
    programs_of(&opt, true);
}

static void test_knots_hot(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.liveness = false;
    opt.tr.hot = 1;
    programs_of(&opt, true);
}

static void test_reach_plain(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.liveness = opt.tr.groups = opt.tr.anchors = opt.chain = false;
    opt.tr.hot = 0;
    programs(&opt);
}

static int setup(void **state) {
    _Alignas(16) uint8_t image[512];

    __asm__("fxsave %0" : "=m"(image));
    memcpy(&mxcsr_mask, image + 28, 4);
    running = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    vec_init();
    if (sem_init())
        return -1;
    sigaction(SIGSEGV, NULL, &fault_action);
    return 0;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reach),       cmocka_unit_test(test_reach_hot),
        cmocka_unit_test(test_knots),       cmocka_unit_test(test_knots_hot),
        cmocka_unit_test(test_reach_plain), cmocka_unit_test(test_no_anchor),
    };
    if (argc > 3)
        cmocka_set_test_filter(argv[3]);
    if (argc > 2) {
        first_seed = strtoull(argv[1], NULL, 0);
        count = strtoull(argv[2], NULL, 0);
    }
    return cmocka_run_group_tests(tests, setup, NULL);
}
