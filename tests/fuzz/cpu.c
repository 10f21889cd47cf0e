/*
 * Guests made of bytes. A header of 8 bytes says how the CPU stands: mode, rings, control
 * registers, and a number from which the rest (registers, descriptors, tables) follows,
 * so that a few bytes make a guest in which much can happen. Then up to 15 patches of
 * memory, 12 bytes each, then code; before it, a knot (lib/knots.h) from the same
 * number, if the bit 4 of the count of patches says so.
 *
 *     0x1000 GDT, 0x2000 IDT, 0x3000 LDT, 0x4000 TSS, 0x6000 handlers, 0x8000 code,
 *     0x10000 page tables of each format, 0x20000 data and stacks
 *
 * With paging, the pages of data lie scattered in RAM: no two that the guest sees side by
 * side are neighbours, the first and the last page of RAM are among them, and beside each
 * is a pattern.
 */
#include "fuzz/cpu.h"

#include "cpu/cpuid.h"
#include "lib/knots.h"
#include "mmu/mmu.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/pte.h"

enum {
    GDT = 0x1000,
    IDT = 0x2000,
    LDT = 0x3000,
    TSS = 0x4000,
    HANDLERS = 0x6000,
    CODE = 0x8000,
    TABLES = CPU_TABLES,
    DATA = 0x20000,
    CODE_MAX = 0x1c00,
    SCATTERED = 0x40000, /* pages from DATA to here */
    BESIDE = 1024,       /* bytes of pattern on either side of each */
};

/* Bits of the header's first two bytes. */
enum {
    HOW_PE = 1 << 0,
    HOW_PG = 1 << 1,
    HOW_LONG = 1 << 2, /* with PG */
    HOW_PAE = 1 << 3,
    HOW_USER = 1 << 4,
    HOW_V86 = 1 << 5,
    HOW_CODE_LD = 1 << 6,    /* CS.L in long mode, else CS.D */
    HOW_RANDOM = 1 << 7,     /* descriptors of any kind */
    HOW_TABLES = 1 << 8,     /* page tables of any kind */
    HOW_SEGMENTS = 1 << 9,   /* segments with bases and limits */
    HOW_REGISTERS = 1 << 10, /* registers of any value; else most point to data */
    HOW_VECTOR = 1 << 11,    /* SSE and AVX may be used */
    HOW_FLAGS = 1 << 12,     /* RFLAGS of any value */
    HOW_DEBUG = 1 << 13,     /* breakpoints */
    HOW_EVENTS = 1 << 14,
    HOW_CR = 1 << 15, /* CR0 and CR4 of any value */
};

struct seed {
    uint64_t s;
};

static uint64_t rnd(struct seed *r) {
    r->s ^= r->s << 13;
    r->s ^= r->s >> 7;
    r->s ^= r->s << 17;
    return r->s * 0x2545f4914f6cdd1dull;
}

static bool one_in(struct seed *r, unsigned n) {
    return (rnd(r) >> 8) % n == 0;
}

static void put64(struct guest *vm, uint32_t at, uint64_t v) {
    memcpy(vm->ram + at, &v, 8);
}

/* --- memory --- */

/* Where the page of data at AT lies. */
static uint32_t place(uint32_t at) {
    uint32_t k = (at - DATA) >> 12;

    if (at < DATA || at >= SCATTERED)
        return at & ~0xfffu;
    return k == 0 ? CPU_RAM - 0x1000 : k == 1 ? 0 : 0x300000 - (k << 13);
}

static void pattern(struct guest *vm, uint32_t from, uint32_t to) {
    for (uint32_t at = from; at < to; at += 8)
        put64(vm, at, (at + 1) * 0x9e3779b97f4a7c15ull);
}

static void scatter(struct guest *vm) {
    for (uint32_t at = DATA; at < SCATTERED; at += 0x1000) {
        uint32_t page = place(at);

        if (page >= CPU_USED)
            pattern(vm, page - BESIDE, page);
        if (page >= CPU_USED && page + 0x1000 < CPU_RAM)
            pattern(vm, page + 0x1000, page + 0x1000 + BESIDE);
    }
}

static uint64_t random_desc(struct seed *r) {
    uint64_t d = rnd(r);

    if (one_in(r, 4))
        return d;
    d = (d & ~(0xffull << 40)) | (0x80 | (rnd(r) & 0x7f)) << 40;
    if (one_in(r, 2)) /* low base, wide limit */
        d = (d & 0x0000ff00000fffffull) | 0x00c000000000ffffull | (rnd(r) & 3) << 53;
    return d;
}

/* Flat segments: 8 code, 16 data, 24 and 32 for ring 3, 40 (two slots) the TSS, 56 LDT,
 * 72 16-bit code, 80 16-bit data, 88 a call gate to ring 0. */
static void descriptors(struct guest *vm, bool long_mode, bool code_ld, bool any,
                        struct seed *r) {
    uint64_t code = long_mode && code_ld ? 0x00af9b000000ffff
                    : code_ld            ? 0x00cf9b000000ffff
                                         : 0x008f9b000000ffff;
    const uint64_t gdt[16] = {
        0,
        code,
        0x00cf93000000ffff,
        code | 3ull << 45,
        0x00cff3000000ffff,
        0x00008b0040002fff,
        0,
        0x0000820030000fff,
        0,
        0x00009b000000ffff,
        0x000093000000ffff,
        long_mode ? 0x0000ec0000086000 : 0x0000ec0000086000,
        0,
        0x00cf97000000ffff,
        0x00cf9f000000ffff,
        0x0000850000080000,
    };
    unsigned gate = long_mode ? 16 : 8;

    for (unsigned k = 0; k < 0x1000 / 8; k++) {
        put64(vm, GDT + k * 8, any && k > 4 ? random_desc(r) : k < 16 ? gdt[k] : 0);
        put64(vm, LDT + k * 8, any ? random_desc(r) : gdt[k & 15]);
    }
    for (unsigned n = 0; n < 256; n++) {
        uint64_t type = one_in(r, 4) ? 0x8f : 0x8e, at = HANDLERS + (n & 31) * 16;

        if (n >= 0x80)
            type |= 0x60;
        if (any && one_in(r, 3))
            put64(vm, IDT + n * gate, random_desc(r));
        else
            put64(vm, IDT + n * gate, at | 8ull << 16 | type << 40);
    }
    if (vm->v->cr0 & X86_CR0_PE)
        return;
    for (unsigned n = 0; n < 256; n++) { /* real mode's */
        uint32_t e = HANDLERS + (n & 31) * 16;

        memcpy(vm->ram + n * 4, &e, 4);
    }
}

/* iret, hlt, or a return to what faulted, in turn. */
static void handlers(struct guest *vm, bool long_code, struct seed *r) {
    static const char *const text[] = {"\xf4",     "\xcf", "\x58\xcf", "\x83\xc4\x04\xcf",
                                       "\x0f\x0b", "\xf4"};

    for (unsigned n = 0; n < 32; n++) {
        const char *t = text[(rnd(r) >> 8) % ARRAY_SIZE(text)];
        uint8_t *p = vm->ram + HANDLERS + n * 16;

        if (long_code && !one_in(r, 4))
            *p++ = 0x48;
        memcpy(p, t, strlen(t) + 1);
    }
}

static uint64_t random_address(struct seed *r) {
    switch ((rnd(r) >> 8) % 8) {
    case 0:
        return rnd(r);
    case 1:
        return (rnd(r) & 0xfffff000) - rnd(r) % 16;
    case 2:
        return 0x7fffffffffff - rnd(r) % 32;
    case 3:
        return CPU_RAM - (rnd(r) & 63);
    case 4:
        return 0xfee00000 + (rnd(r) & 0x3f0);
    default:
        return rnd(r) % CPU_USED;
    }
}

static void task_state(struct guest *vm, struct seed *r, bool any) {
    for (unsigned k = 0; k < 0x1000 / 8; k++)
        put64(vm, TSS + k * 8, any ? random_address(r) : 0);
    if (any)
        return;
    for (unsigned k = 1; k < 13; k++) /* stacks, of either format */
        put64(vm, TSS + 4 + 8 * k - 8, 0x0000001000030000ull - k * 0x400);
    for (unsigned k = 0; k < 6; k++)
        memcpy(vm->ram + TSS + 4 + 8 * k, "\x00\xf0\x02\x00\x10\x00\x00\x00", 8);
}

static uint64_t random_pte(struct seed *r) {
    uint64_t e = rnd(r) % (CPU_USED >> 12) << 12 | (rnd(r) & 0x1ff) | X86_PTE_P;

    if (one_in(r, 8))
        e = rnd(r);
    return one_in(r, 16) ? e & ~(uint64_t)X86_PTE_P : e;
}

/* TABLES: 4 levels of long mode, the third of which serves PAE; at +0x4000 plain 32-bit
 * ones. The first 2 (4) MiB: identity, with some pages odd. */
static void page_tables(struct guest *vm, bool any, struct seed *r) {
    uint64_t all = X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A;

    for (unsigned k = 0; any && k < CPU_TABLES_SIZE / 8; k++)
        put64(vm, TABLES + k * 8, random_pte(r));
    for (unsigned k = 0; k < 3; k++)
        put64(vm, TABLES + k * 0x1000, (TABLES + (k + 1) * 0x1000) | all);
    put64(vm, TABLES + 0x2008, (2u << 20) | all | X86_PTE_PS);
    /* PAE's four pointers are the first of a table of their own. */
    for (unsigned k = 0; k < 4; k++)
        put64(vm, TABLES + 0x6000 + k * 8, k && !any ? 0 : (TABLES + 0x2000) | X86_PTE_P);
    for (uint32_t k = 0; k < 512; k++) {
        uint64_t e = place(k << 12) | all | (one_in(r, 4) ? X86_PTE_G : 0);

        if (k >= DATA >> 12 && one_in(r, 4))
            e = any ? random_pte(r) : e ^ (1ull << (rnd(r) >> 8) % 3);
        put64(vm, TABLES + 0x3000 + k * 8, e);
        memcpy(vm->ram + TABLES + 0x5000 + k * 4, &e, 4);
    }
    put64(vm, TABLES + 0x4000, (TABLES + 0x5000) | all);
}

/* --- the CPU --- */

static void control(struct vcpu *v, unsigned how, struct seed *r) {
    bool pe = how & HOW_PE, pg = pe && (how & HOW_PG), lm = pg && (how & HOW_LONG);

    v->cr0 = X86_CR0_ET | (pe ? X86_CR0_PE : 0) | (pg ? X86_CR0_PG | X86_CR0_WP : 0);
    v->cr4 = lm || (how & HOW_PAE) ? X86_CR4_PAE | X86_CR4_PGE : X86_CR4_PSE;
    v->efer = X86_EFER_SCE | (lm ? X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE : 0);
    if (how & HOW_VECTOR) {
        v->cr4 |= X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
        v->xcr0 = cpuid_xcr0_valid(v->cpuid);
    }
    if (how & HOW_CR) {
        v->cr0 ^= rnd(r) & (X86_CR0_WP | X86_CR0_AM | X86_CR0_TS | X86_CR0_EM |
                            X86_CR0_MP | X86_CR0_NE);
        v->cr4 ^= rnd(r) & cpuid_cr4_valid(v->cpuid) &
                  ~(uint64_t)(X86_CR4_PCIDE | (lm ? X86_CR4_PAE : 0));
        v->efer ^= rnd(r) & (X86_EFER_SCE | X86_EFER_NXE);
    }
    v->cr3 = TABLES + (lm ? 0 : v->cr4 & X86_CR4_PAE ? 0x6000 : 0x4000);
    v->rflags = X86_FL_ONE;
    if (how & HOW_FLAGS)
        v->rflags |= rnd(r) & 0x3f7fd5 & ~(uint64_t)X86_FL_VM;
    if (pe && !lm && (how & HOW_V86))
        v->rflags |= X86_FL_VM;
    v->star = one_in(r, 2) ? rnd(r) : 0x0010000800000000;
    v->lstar = v->cstar = v->sysenter_eip = CODE + rnd(r) % 64;
    v->sysenter_cs = one_in(r, 4) ? rnd(r) & 0xff : 8;
    v->sysenter_esp = DATA + 0x8000;
    v->sfmask = rnd(r);
    for (unsigned k = 0; k < 4 && (how & HOW_DEBUG); k++)
        v->dr[k] = random_address(r);
    if (how & HOW_DEBUG)
        v->dr[7] |= rnd(r) & 0xffff23ff;
}

static void segments(struct vcpu *v, unsigned how, struct seed *r) {
    bool pe = v->cr0 & X86_CR0_PE, lm = v->efer & X86_EFER_LMA;
    bool vm86 = v->rflags & X86_FL_VM;
    unsigned dpl = pe && ((how & HOW_USER) || vm86) ? 3 : 0;
    uint16_t code = lm && (how & HOW_CODE_LD) ? 0xa09b
                    : how & HOW_CODE_LD       ? 0xc09b
                                              : 0x009b;

    for (unsigned s = 0; s < SEG_COUNT; s++) {
        struct segment *g = &v->seg[s];

        *g = (struct segment){
            .sel = (uint16_t)((s == SEG_CS ? 8 : 16) + (dpl ? 16 + dpl : 0)),
            .ar = (uint16_t)((s == SEG_CS ? code : 0xc093) | dpl << X86_AR_DPL_SHIFT),
            .limit = UINT32_MAX};
        if ((how & HOW_SEGMENTS) && s != SEG_CS && one_in(r, 2)) {
            g->base = rnd(r) % CPU_USED;
            g->limit = one_in(r, 2) ? (uint32_t)rnd(r) : UINT32_MAX;
            if (one_in(r, 3))
                g->ar = (uint16_t)(0x4090 | (rnd(r) & 0x6f)) | X86_AR_P;
            if (one_in(r, 8))
                g->ar = 0;
        }
        if (!pe || vm86)
            *g = (struct segment){.sel = (uint16_t)(s == SEG_CS ? 0 : 0x2000 - s),
                                  .ar = vm86          ? 0xf3
                                        : s == SEG_CS ? 0x9b
                                                      : 0x93,
                                  .limit = 0xffff};
        if (!pe || vm86)
            g->base = g->sel << 4;
    }
    if (v->seg[SEG_SS].ar) /* the CPL is SS's */
        v->seg[SEG_SS].ar = (uint16_t)((v->seg[SEG_SS].ar & ~X86_AR_DPL) | 0x10 |
                                       dpl << X86_AR_DPL_SHIFT);
    v->cpl = (uint8_t)dpl;
    v->gdtr = (struct desc_table){GDT, (uint16_t)(one_in(r, 8) ? rnd(r) : 0x0fff)};
    v->idtr =
        (struct desc_table){pe ? IDT : 0, (uint16_t)(one_in(r, 8) ? rnd(r) : 0x0fff)};
    v->ldtr = (struct segment){.sel = 56, .ar = 0x82, .limit = 0xfff, .base = LDT};
    v->tr = (struct segment){.sel = 40,
                             .ar = !lm && one_in(r, 4) ? 0x83 : 0x8b,
                             .limit = one_in(r, 4) ? (uint32_t)rnd(r) : 0x2fff,
                             .base = TSS};
}

static void registers(struct vcpu *v, unsigned how, struct seed *r) {
    for (unsigned k = 0; k < 16; k++) {
        bool any = (how & HOW_REGISTERS) && one_in(r, 2);

        v->gpr[k] = any ? random_address(r) : DATA + rnd(r) % 0x8000;
        if (!any && one_in(r, 4)) /* at a page's end */
            v->gpr[k] = (v->gpr[k] | 0xfff) - (rnd(r) >> 8) % 40;
        if (!any && one_in(r, 8))
            v->gpr[k] = rnd(r) & 0xff;
    }
    if (!(how & HOW_REGISTERS))
        v->gpr[REG_RSP] = DATA + 0xf00 + (rnd(r) & 0x1ff) * 8;
    if (!(v->cr0 & X86_CR0_PE) || (v->rflags & X86_FL_VM))
        for (unsigned k = 0; k < 16; k++)
            v->gpr[k] = (uint16_t)v->gpr[k];
    v->rip = CODE;
}

/* --- knots --- */

static struct seed *knot_seed;

static uint64_t knot_rnd(void) {
    return rnd(knot_seed) >> 8;
}

static bool knot_takes(const struct insn *i) {
    return i->op != OP_rdrand && i->op != OP_rdseed;
}

static uint64_t knot_end(void) {
    return one_in(knot_seed, 8) ? random_address(knot_seed)
                                : DATA + (knot_rnd() % 33 << 12);
}

/* At the start of the code; its length. */
static unsigned put_knot(struct guest *vm, struct seed *r) {
    struct vcpu *v = vm->v;
    struct knots k = {.mode = v->mode,
                      .at = CODE,
                      .code = vm->ram + CODE,
                      .max = 480,
                      .data = DATA + 0x1000 + (rnd(r) >> 8) % 16 * 0x1000,
                      .segment = v->segbase[SEG_FS],
                      .rnd = knot_rnd,
                      .takes = knot_takes,
                      .end = knot_end};

    if (v->mode == MODE_16)
        return 0;
    knot_seed = r;
    knots_make(&k);
    knots_registers(&k, v->gpr);
    for (unsigned n = 0; n < 16 && v->mode != MODE_64; n++)
        v->gpr[n] = (uint32_t)v->gpr[n];
    return k.len;
}

/* Random numbers of the host's would make two runs differ. */
static void no_rdrand(uint8_t *p, unsigned len) {
    for (unsigned k = 0; k + 2 < len; k++)
        if (p[k] == 0x0f && p[k + 1] == 0xc7 && p[k + 2] >= 0xf0)
            p[k + 1] = 0x0b;
}

void cpu_guest(struct guest *vm, const uint8_t *data, size_t size, struct cpu_how *out) {
    struct fuzz_in in = {data, size};
    unsigned how = (unsigned)fuzz_get(&in, 2);
    struct seed r = {.s = fuzz_get(&in, 4) * 0x9e3779b97f4a7c15ull + 0x1234567};
    unsigned patches, len, knot = 0;
    bool knotted;
    struct vcpu *v = vm->v;

    out->options = (uint8_t)fuzz_get(&in, 1);
    out->events = how & HOW_EVENTS;
    patches = (unsigned)fuzz_get(&in, 1);
    knotted = patches & 16;
    patches &= 15;
    /* What no CPU could have loaded is not loaded: the pointers of the guest before. */
    memset(v->pdpte, 0, sizeof(v->pdpte));
    control(v, how, &r);
    segments(v, how, &r);
    registers(v, how, &r);
    descriptors(vm, v->efer & X86_EFER_LMA, how & HOW_CODE_LD, how & HOW_RANDOM, &r);
    handlers(vm, v->efer & X86_EFER_LMA, &r);
    task_state(vm, &r, how & HOW_RANDOM);
    page_tables(vm, how & HOW_TABLES, &r);
    if (v->cr0 & X86_CR0_PG)
        scatter(vm);
    for (unsigned k = 0; k < patches && in.left; k++) {
        uint32_t at = (uint32_t)fuzz_get(&in, 4) % (CPU_USED - 8);
        uint64_t bytes = fuzz_get(&in, 8);

        if (v->cr0 & X86_CR0_PG) /* an address of the guest's */
            at = place(at) | (at & 0xff8);
        memcpy(vm->ram + at, &bytes, 8);
    }
    len = (unsigned)(in.left < CODE_MAX ? in.left : CODE_MAX);
    guest_state_changed(vm);
    if (knotted)
        knot = put_knot(vm, &r);
    memcpy(vm->ram + CODE + knot, in.p, len);
    no_rdrand(vm->ram + CODE, len + knot);
    memset(vm->ram + CODE + len + knot, 0xf4, 16); /* hlt */
    if ((v->cr0 & X86_CR0_PG) && (v->cr4 & X86_CR4_PAE) && !(v->efer & X86_EFER_LMA))
        HOLDS(!mmu_load_pdptrs(v, v->cr3) || patches);
    guest_state_changed(vm);
}

void cpu_guest_new(struct guest *g, enum mmu_policy policy,
                   const struct bt_options *opt) {
    struct bt_options verified = opt ? *opt : (struct bt_options){0};
    const struct guest_config cfg = {.ram = CPU_RAM,
                                     .policy = policy,
                                     .cpuid = {.model = "host", .paravirt = true},
                                     .hooks = &guest_fickle_hooks,
                                     .interp = true,
                                     .bt = opt ? &verified : NULL};

    verified.verify = true;
    guest_new(g, &cfg);
}
