/*
 * The translator against the interpreter: the same random programs on two identical
 * machines, compared register by register and byte by byte.
 *
 * A program is a few instructions, most of them with memory operands that are made to
 * land on the pages where it matters: present, read-only, absent, supervisor's, a page
 * end, the end of the 32-bit space, the program's own code. Every exception goes to a
 * handler on a stack of its own that halts; so does the #UD at a program's end. Each
 * program runs several times: with the fragments of the time before, with other segment
 * bases, with other pages absent or devices' instead. Programs at CPL 0 also change their
 * page tables on the way.
 *
 * Pages lie scattered in RAM, the first and the last of it among them, and the host pages
 * on either side of each are taken away: an access that is larger than what was checked,
 * or that goes on behind its page, ends the test.
 *
 * With arguments: SEED COUNT runs other programs than the standing ones.
 */
/* <signal.h> of _GNU_SOURCE has its own REG_RAX and so on. */
#undef _GNU_SOURCE
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "bt/bt.h"
#include "common/knots.h"
#include "common/templates.h"
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
    PML4 = 0x4000,
    PDPT = 0x5000,
    PD = 0x6000,
    PT = 0x7000,
    HANDLERS = 0x8000,
    EXC_STACK = 0xb000, /* top */
    PD3 = 0xc000,
    PT3 = 0xd000,
    CODE = 0x10000,
    DATA = 0x20000,
    DATA_END = 0x30000,
    CODE_END = CODE + 0x4000,
    DEVICE = 0xd0000000,
    MAX_INSNS = 24,
    STEPS = 3000,
    KNOT_RUNS = 12, /* each with other registers */
};
#define HIGH 0xffffff8000000000ull /* the low addresses once more */

static uint64_t seed_now;

static uint64_t rnd(void) {
    seed_now ^= seed_now << 13;
    seed_now ^= seed_now >> 7;
    seed_now ^= seed_now << 17;
    return seed_now * 0x2545f4914f6cdd1dull >> 8 | seed_now << 56;
}

static bool one_in(unsigned n) {
    return rnd() % n == 0;
}

static unsigned pick(unsigned n) {
    return (unsigned)(rnd() % n);
}

/* --- two machines --- */

struct guest {
    struct vcpu *v;
    struct counters cnt;
    struct interp *ip;
    struct bt *bt;
    uint8_t *ram;
    uint64_t tsc;
    uint64_t seen; /* of the devices' accesses */
};

static struct guest A, B;
static bool liveness;

static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
    struct guest *g = arg;

    vec_park(v);
    g->seen =
        (g->seen ^ e->reason ^ e->size << 8 ^ e->write << 16) * 0x100000001b3ull +
        e->gpa.a +
        (e->write ? e->data & (e->size < 8 ? (1ull << 8 * e->size) - 1 : ~0ull) : 0);
    if (!e->write)
        e->data = ++g->tsc * 0x9e3779b97f4a7c15ull;
}

static int on_irq_ack(void *arg) {
    return -1;
}

static uint64_t on_tsc(void *arg) {
    return ++((struct guest *)arg)->tsc;
}

static const struct vcpu_hooks hooks = {
    .exit = on_exit_hook, .irq_ack = on_irq_ack, .tsc = on_tsc};

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
    assert_int_equal(mem_create(RAM, &g->v->mem), 0);
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

static void guest_free(struct guest *g) {
    bt_free(g->bt);
    interp_free(g->ip);
    mmu_destroy(g->v);
    mem_destroy(g->v->mem);
    cpuid_model_free((struct cpuid_model *)g->v->cpuid);
    free(g->v);
}

static void poke(struct guest *g, uint64_t at, const void *p, unsigned len) {
    assert_true(mem_write(g->v->mem, gpa(at), p, len));
}

/* RAM behind the code or data at AT. No page's neighbour is used: those between, and
 * others that the guest cannot name, are taken from us too, and whoever touches them
 * dies. Beside the first page of RAM is what the engines need. */
static uint64_t phys(uint64_t at) {
    unsigned k = (unsigned)((at - DATA) >> 12);
    uint64_t page = DATA + 0x1000 + (15 - k) * 0x2000;

    if (at < CODE_END)
        page = CODE + 0x6000 - (at - CODE) / 0x1000 * 0x2000;
    else if (k < 2)
        page = k ? 0 : RAM - 0x1000;
    return page + (at & 0xfff);
}

static bool in_use(uint64_t page) {
    for (uint64_t at = CODE; at < CODE_END; at += 0x1000)
        if (page == phys(at))
            return true;
    for (uint64_t at = DATA; at < DATA_END; at += 0x1000)
        if (page == phys(at))
            return true;
    return page < CODE;
}

static void guard(struct guest *g) {
    for (uint64_t at = 0; at < RAM; at += 0x1000)
        if (!in_use(at))
            assert_int_equal(mprotect(g->ram + at, 0x1000, PROT_NONE), 0);
}

/* Code, which may lie across pages. */
static void poke_code(struct guest *g, uint64_t at, const uint8_t *p, unsigned len) {
    while (len) {
        unsigned n = 0x1000 - (unsigned)(at & 0xfff);

        n = n < len ? n : len;
        poke(g, phys(at), p, n);
        at += n;
        p += n;
        len -= n;
    }
}

static void poke64(struct guest *g, uint64_t at, uint64_t val) {
    poke(g, at, &val, 8);
}

struct start {
    struct vcpu v; /* only architectural fields count */
    uint64_t pte[512];
    uint8_t data[DATA_END - DATA];
};

static struct start S;

/* --- programs --- */

struct program {
    enum cpu_mode mode;
    uint64_t base; /* linear address of the first byte */
    uint8_t b[1024];
    unsigned len, n;
    unsigned at[4 * MAX_INSNS];
    unsigned fix[4 * MAX_INSNS][2], nfix; /* a displacement's place and its size */
    uint64_t segbase[SEG_COUNT];
    bool strict;      /* nothing in it leaves a flag undefined */
    bool x87;         /* it has an x87 instruction */
    unsigned tainted; /* flags that the manual does not define, at the end */
};

static struct program P;

static void put(const void *b, unsigned n) {
    memcpy(P.b + P.len, b, n);
    P.len += n;
}

static void put8(unsigned b) {
    P.b[P.len++] = (uint8_t)b;
}

/* An address that is worth an access of SIZE bytes. */
static uint64_t target(unsigned size) {
    uint64_t a = DATA + pick((DATA_END - DATA) >> 12) * 0x1000;

    switch (pick(9)) {
    case 0:
    case 1: /* about a page's end */
        a += 0x1000 - pick(size + 2);
        break;
    case 2:
        a += pick(0x1000);
        break;
    case 3: /* about the end of 32 bits */
        a = 0x100000000ull - pick(size + 2);
        break;
    case 4:
        if (one_in(3))
            a = P.base + pick(P.len + 64);
        else if (one_in(3))
            a = rnd();
        else if (one_in(2))
            a = 0x800000000000 - pick(size + 2);
        else
            a = rnd() & 0xffffffff;
        return a;
    default:
        a += pick(0x1000) & ~63u;
        break;
    }
    if (P.mode == MODE_64 && one_in(3))
        a |= HIGH;
    return a;
}

static void put_mov_imm(unsigned reg, uint64_t val) {
    if (P.mode == MODE_64)
        put8(0x48 | reg >> 3);
    put8(0xb8 | (reg & 7));
    put(&val, P.mode == MODE_64 ? 8 : 4);
}

/* Registers such that the operand of I lands on TO. */
static void aim(const struct insn *i, uint64_t to) {
    const struct mem_operand *m = &i->mem;
    uint64_t index = pick(8) - 2;

    to -= P.segbase[m->seg] + (uint64_t)m->disp;
    if (m->index < REG_ZERO && m->index != m->base && i->op != OP_gather) {
        put_mov_imm(m->index, index);
        to -= index << m->scale;
    }
    if (m->base < REG_ZERO)
        put_mov_imm(m->base, to);
}

static unsigned flag_bits(const struct insn *i) {
    return (i->fl_written | i->fl_undefined) & X86_FL_STATUS;
}

/* Flags that the manual does not define differ when flags that nothing needs are not
 * kept. A program with branches may come by any way, so that once is for ever. */
static void note_flags(const struct insn *i) {
    if (liveness)
        P.tainted |= i->fl_undefined & X86_FL_STATUS;
}

static void begin_insn(void) {
    if (P.n < ARRAY_SIZE(P.at))
        P.at[P.n++] = P.len;
}

/* Before a reader of flags that are not defined: cmp eax, ecx. */
static void define_flags(const struct insn *i) {
    if ((i->fl_read & P.tainted) || (i->op == OP_pushf && P.tainted))
        put("\x39\xc8", 2);
}

static void put_branch(void) {
    static const char *const rel8[] = {"\xeb", "\xe0", "\xe1", "\xe2", "\xe3"};
    unsigned kind = pick(16);
    struct insn cc = {.fl_read = X86_FL_STATUS};

    begin_insn();
    if (kind < 6 || kind == 8) /* jcc, loope, loopne read flags */
        define_flags(&cc);
    if (kind < 4) {
        put8(0x0f);
        put8(0x80 | pick(16));
    } else if (kind < 6) {
        put8(0x70 | pick(16));
    } else if (kind < 9) {
        if (kind == 8) {
            if (one_in(2))
                put_mov_imm(REG_RCX, pick(3));
            if (one_in(3))
                put8(0x67);
        }
        put(rel8[kind == 8 ? 1 + pick(4) : 0], 1);
    } else if (kind < 11) {
        put8(0xe9);
    } else {
        put8(0xe8);
    }
    P.fix[P.nfix][0] = P.len;
    P.fix[P.nfix++][1] = kind >= 4 && kind < 9 ? 1 : 4;
    put("\0\0\0", kind >= 4 && kind < 9 ? 1 : 4);
}

/* Indirect: the target is a place further on, known when the program is complete. It is
 * given by a call to the next instruction and an addition. */
static void put_indirect(void) {
    unsigned reg = P.mode == MODE_64 ? pick(16) : pick(8);
    unsigned skip = pick(3); /* nops that it jumps over */
    unsigned kind = pick(4);
    unsigned fix;

    if (reg == REG_RSP)
        reg = REG_RBX;
    begin_insn();
    put_mov_imm(REG_RSP, DATA + 0x800 + (pick(16) << 12));
    put_mov_imm(reg, 0);
    fix = P.len - (P.mode == MODE_64 ? 8 : 4);
    if (kind >= 2) { /* through memory, or by ret */
        if (reg >= 8)
            put8(0x41);
        put8(0x50 | (reg & 7));
    }
    if (kind == 3) {
        put8(0xc3);
    } else if (kind == 2) {
        put("\xff\x24\x24", 3); /* jmp [rsp] */
    } else {
        if (reg >= 8)
            put8(0x41);
        put8(0xff);
        put8((kind ? 0xd0 : 0xe0) | (reg & 7));
    }
    for (unsigned k = 0; k < skip; k++)
        put8(0x06 + pick(1)); /* not reached */
    {
        uint64_t to = P.base + P.len;

        memcpy(P.b + fix, &to, P.mode == MODE_64 ? 8 : 4);
    }
}

static const struct template *choose(void) {
    for (;;) {
        unsigned op = one_in(4) ? OP_native : one_in(6) ? TEMPLATE_EVEX : pick(OP_COUNT);
        unsigned n;
        const struct template *const *of = templates_of(P.mode, op, &n);

        if (n)
            return of[pick(n)];
    }
}

static bool put_random(const struct template *t, unsigned base) {
    static const uint8_t segs[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x64, 0x65};
    bool wide = P.mode == MODE_64;
    uint8_t b[32];
    unsigned n = 0;
    struct insn i;

    if (one_in(8))
        b[n++] = segs[pick(8)];
    if (one_in(12))
        b[n++] = 0x67;
    if (one_in(8) && t->mem && !(t->map & 4) && !t->evex)
        b[n++] = 0xf0;
    if (base < 16 && !t->mem && t->op != OP_push && t->op != OP_pop && !one_in(8))
        return false;
    n += template_put(t, b + n, wide && pick(2), wide && base == 16 && pick(2),
                      base < 16 ? base >> 3 : wide && pick(2),
                      t->v15              ? t->evex ? 0 : 15
                      : wide || one_in(8) ? pick(16)
                                          : 8 | pick(8));
    for (unsigned k = n; k < sizeof(b); k++)
        b[k] = (uint8_t)rnd();
    b[n] = (uint8_t)(t->mem ? (pick(3) << 6 | pick(8)) : (0xc0 | pick(8)));
    if (base < 16 && t->mem) {
        b[n] = (uint8_t)((one_in(4) ? 0x80 : 0x40) | (base & 7));
        if ((base & 7) == 4)
            b[n + 1] = 0x24;
        if (b[n] & 0x80) { /* some hundred bytes to either side */
            int32_t disp = (int32_t)pick(1200) - 600;

            memcpy(b + n + ((base & 7) == 4 ? 2 : 1), &disp, 4);
        }
    }
    b[n] |= (uint8_t)(t->reg << 3);
    if (decode_insn(P.mode, b, 15, &i) != DECODE_OK || !template_allows(&i))
        return false;
    if (i.op == OP_enter)
        b[3] = pick(4);
    if (i.op >= OP_movs && i.op <= OP_cmps && i.rep)
        put_mov_imm(REG_RCX, pick(40));
    /* Would store the x87 pointers, which the translator does not keep. */
    if ((i.op == OP_fxsave || i.op == OP_xsave) && P.x87)
        return false;
    P.x87 |= (i.flags & INSN_X87) != 0;
    if (liveness && P.strict && i.fl_undefined)
        return false;
    if (i.op == OP_div || i.op == OP_idiv)
        if (!one_in(3))
            put_mov_imm(REG_RDX, pick(3));
    if (i.op == OP_popf) {
        uint64_t fl = rnd() & (one_in(4) ? 0x44dd5 : 0xcd5);

        put_mov_imm(REG_RSP, DATA + 0x400);
        put8(0x68);
        put(&fl, 4);
    }
    if ((i.op == OP_push || i.op == OP_pop || i.op == OP_ret || i.op == OP_leave) &&
        base == 16 && one_in(2))
        put_mov_imm(i.op == OP_leave ? REG_RBP : REG_RSP, target(8));
    if (i.op >= OP_movs && i.op <= OP_cmps && one_in(2)) {
        put_mov_imm(REG_RDI, target(8));
        put_mov_imm(REG_RSI, target(8));
    }
    if (t->mem && base == 16 && !one_in(10)) {
        unsigned size = i.mem.size ? i.mem.size : 16;

        if (i.mem.base == REG_RIP ||
            (i.mem.base == REG_ZERO && i.mem.index == REG_ZERO && i.off_modrm)) {
            uint64_t to = target(size) - P.segbase[i.mem.seg];
            unsigned at = i.off_modrm + (i.mem.base == REG_RIP || !wide ? 1u : 2u);

            if (i.mem.base == REG_RIP)
                to = (to | (P.base & ~0xffffffull)) - (P.base + P.len + i.len);
            if (!wide && (b[i.off_modrm] & 7) == 4)
                at = i.off_modrm + 2u;
            if (i.addrsize != 2)
                memcpy(b + at, &to, 4);
        } else if (i.addrsize != 2) {
            aim(&i, target(size));
        }
    }
    begin_insn();
    define_flags(&i);
    put(b, i.len);
    note_flags(&i);
    if (flag_bits(&i) && one_in(12) && !P.tainted)
        put("\x9c", 1); /* pushf: they are looked at */
    return true;
}

/* Several accesses off one base register, as compilers make them. */
static void put_burst(void) {
    unsigned base = pick(P.mode == MODE_64 ? 16 : 8);

    put_mov_imm(base, target(64));
    for (unsigned k = 2 + pick(6); k && P.len < 900;)
        if (put_random(choose(), one_in(10) ? 16 : base))
            k--;
}

static bool knot_takes(const struct insn *i) {
    bool stores = i->op == OP_fxsave || i->op == OP_xsave;

    if (!template_allows(i) || (liveness && (i->fl_undefined & X86_FL_STATUS)) ||
        (stores && P.x87) || i->op == OP_popf || i->op == OP_enter)
        return false;
    P.x87 |= (i->flags & INSN_X87) != 0;
    return true;
}

static uint64_t knot_end(void) {
    uint64_t a = DATA + (pick(17) << 12);

    if (one_in(12))
        a = 0x100000000ull;
    return P.mode == MODE_64 && one_in(3) ? a | HIGH : a;
}

/* Behind three instructions that load its registers. */
static void put_knot(void) {
    unsigned load = P.mode == MODE_64 ? 10 : 5;
    uint64_t gpr[16];
    uint8_t code[400];
    struct knots k = {.mode = P.mode,
                      .at = P.base + P.len + 3 * load + 2,
                      .code = code,
                      .max = sizeof(code),
                      .data = DATA + 0x1000 + (pick(15) << 12),
                      .segment = P.segbase[SEG_FS],
                      .rnd = rnd,
                      .takes = knot_takes,
                      .end = knot_end};

    knots_make(&k);
    for (unsigned r = 0; r < 16; r++)
        gpr[r] = target(8);
    knots_registers(&k, gpr);
    begin_insn();
    put("\x39\xc8", 2); /* flags are defined */
    put_mov_imm(k.index < 16 ? k.index : k.base[0], gpr[k.index & 15]);
    put_mov_imm(k.base[1], gpr[k.base[1]]);
    put_mov_imm(k.base[0], gpr[k.base[0]]);
    put(code, k.len);
}

/* mov eax, VAL; mov [AT], eax; with REX.W in 64-bit code */
static void put_store(uint32_t at, uint64_t val) {
    put_mov_imm(REG_RAX, val);
    put(P.mode == MODE_64 ? "\x48\x89\x04\x25" : "\x89\x05", P.mode == MODE_64 ? 4 : 2);
    put(&at, 4);
}

/* Another page is where one was, or it is not there, or not to be written. */
static void put_remap(void) {
    static const uint64_t rw = X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A | X86_PTE_D;
    unsigned page = (DATA >> 12) + pick(16);
    uint64_t va = (uint64_t)page << 12, pte = phys(DATA + (pick(16) << 12)) | rw;

    if (one_in(3))
        pte &= one_in(2) ? ~X86_PTE_W : ~X86_PTE_P;
    if (one_in(12))
        pte = (DEVICE + va) | rw;
    begin_insn();
    put_store(PT + 8 * page, pte);
    if (one_in(3)) { /* mov eax, cr3; mov cr3, eax */
        put("\x0f\x20\xd8\x0f\x22\xd8", 6);
        return;
    }
    put_mov_imm(REG_RAX, va);
    put("\x0f\x01\x38", 3); /* invlpg [rax] */
    if (P.mode == MODE_64) {
        put_mov_imm(REG_RAX, va | HIGH);
        put("\x0f\x01\x38", 3);
    }
}

static bool knotted;       /* programs are knots and nothing else */
static struct knots alone; /* such a one */

static void make_knot(void) {
    alone = (struct knots){.mode = P.mode,
                           .at = P.base,
                           .code = P.b,
                           .max = 600,
                           .data = DATA + 0x1000 + (pick(15) << 12),
                           .segment = P.segbase[SEG_FS],
                           .rnd = rnd,
                           .takes = knot_takes,
                           .end = knot_end};
    knots_make(&alone);
    P.len = alone.len;
    put("\x0f\x0b", 2);
}

static void make_program(unsigned insns) {
    P.len = P.n = P.nfix = P.tainted = 0;
    P.x87 = false;
    if (knotted) {
        make_knot();
        return;
    }
    P.strict = insns > 1 && one_in(2);
    for (unsigned k = 0; k < insns && P.len < 900;) {
        if (insns > 1 && one_in(8))
            put_branch(), k++;
        else if (insns > 1 && one_in(16))
            put_indirect(), k++;
        else if (insns > 1 && one_in(6))
            put_burst(), k += 4;
        else if (insns > 1 && P.len < 500 && one_in(10))
            put_knot(), k += 6;
        else if (insns > 1 && one_in(S.v.cpl ? 200 : 14))
            put_remap(), k += 2;
        else if (put_random(choose(), 16))
            k++;
    }
    begin_insn();
    put("\x0f\x0b", 2);
    for (unsigned k = 0; k < P.nfix; k++) {
        unsigned at = P.fix[k][0], size = P.fix[k][1];
        int32_t rel = 0;

        for (unsigned j = 0; j < 8; j++) {
            int32_t r = (int32_t)P.at[pick(P.n)] - (int32_t)(at + size);

            if (r >= 0 && (size == 4 || r < 128)) {
                rel = r;
                break;
            }
        }
        memcpy(P.b + at, &rel, size);
    }
}

/* --- the state before a run --- */

static void random_pages(void) {
    static const uint64_t rw = X86_PTE_P | X86_PTE_W | X86_PTE_U;

    for (unsigned k = 0; k < 512; k++)
        if (k >= CODE >> 12 && k < CODE_END >> 12)
            S.pte[k] = phys(k << 12) | rw | (pick(4) ? X86_PTE_A | X86_PTE_D : 0);
        else if (k >= DATA >> 12 && k < DATA_END >> 12)
            S.pte[k] = phys(k << 12) | rw | (pick(4) ? X86_PTE_A | X86_PTE_D : 0);
        else /* tables, handlers and their stack */
            S.pte[k] = k > EXC_STACK >> 12 ? 0 : k << 12 | X86_PTE_P | X86_PTE_W;
    for (unsigned k = DATA >> 12; k < DATA_END >> 12; k++) {
        switch (pick(12)) {
        case 0:
            S.pte[k] &= ~X86_PTE_P;
            break;
        case 1:
            S.pte[k] &= ~X86_PTE_W;
            break;
        case 2:
            S.pte[k] &= ~X86_PTE_U;
            break;
        case 3: /* an alias of another page */
            S.pte[k] = (S.pte[k] & 0xfff) | phys(DATA + (pick(16) << 12));
            break;
        case 4:
            if (one_in(4)) /* of the code */
                S.pte[k] = (S.pte[k] & 0xfff) | phys(CODE);
            break;
        case 5:
            if (one_in(2)) /* a device's */
                S.pte[k] = (S.pte[k] & 0xfff) | (DEVICE + (k << 12));
            break;
        }
    }
}

static uint32_t mxcsr_mask; /* the host's */

static void random_vectors(uint8_t *x) {
    for (unsigned k = 0; k < VCPU_XSAVE_SIZE / 8; k++) {
        uint64_t r = rnd();

        memcpy(x + 8 * k, &r, 8);
    }
    for (unsigned k = 0; k < 32; k++) { /* some are ordinary numbers */
        double d = (double)(int64_t)(rnd() % 2000) - 1000;

        if (one_in(2))
            memcpy(x + 160 + 8 * k, &d, 8);
    }
    for (unsigned k = 0; k < 8; k++) {
        uint64_t man = rnd() | 1ull << 63;
        uint16_t exp = (uint16_t)(0x3fff - 8 + pick(16));

        memset(x + 32 + 16 * k, 0, 16);
        memcpy(x + 32 + 16 * k, &man, 8);
        memcpy(x + 32 + 16 * k + 8, &exp, 2);
    }
    memset(x, 0, 32);
    memset(x + 416, 0, 160);
    x[0] = one_in(8) ? 0x40 | pick(64) : 0x7f;
    x[1] = (uint8_t)(3 | pick(4) << 2);
    x[3] = (uint8_t)(pick(8) << 3);
    x[4] = (uint8_t)rnd();
    {
        uint32_t mxcsr = one_in(6) ? pick(0x2000) << 3 & 0xffc0 : 0x1f80;

        memcpy(x + 24, &mxcsr, 4);
        memcpy(x + 28, &mxcsr_mask, 4);
    }
    x[512] = (uint8_t)vec_supported();
    memset(x + 513, 0, 63);
}

static void random_segments(struct vcpu *v, bool user) {
    unsigned dpl = user ? 0x60 : 0;
    bool wide = P.mode == MODE_64;

    for (unsigned s = 0; s < SEG_COUNT; s++)
        v->seg[s] = (struct segment){.sel = (uint16_t)(user ? 0x23 : 0x10),
                                     .ar = (uint16_t)(0xc093 | dpl),
                                     .limit = 0xffffffff};
    v->seg[SEG_CS] = (struct segment){.sel = (uint16_t)(user ? 0x1b : 8),
                                      .ar = (uint16_t)((wide ? 0xa09b : 0xc09b) | dpl),
                                      .limit = 0xffffffff};
    v->seg[SEG_FS].base = pick(4) ? pick(0x2000) : wide ? rnd() >> 17 : pick(~0u);
    v->seg[SEG_GS].base = one_in(2) ? 0 : wide && one_in(2) ? HIGH : pick(0x2000);
    if (!wide && one_in(3)) {
        unsigned s = (unsigned[]){SEG_ES, SEG_SS, SEG_DS, SEG_FS, SEG_GS}[pick(5)];

        if (one_in(2))
            v->seg[s].base = one_in(2) ? pick(0x100) : (uint32_t)-pick(0x100);
        else if (one_in(2))
            v->seg[s].limit = DATA + pick(DATA_END - DATA);
        else if (one_in(3))
            v->seg[s].ar ^= X86_AR_WRITE;
        else if (one_in(2))
            v->seg[s].ar |= X86_AR_EXPDOWN;
        else if (s != SEG_SS)
            v->seg[s].ar = 0;
        if (s == SEG_SS && one_in(4))
            v->seg[s].ar &= (uint16_t)~X86_AR_DB;
    }
}

static void random_start(void) {
    struct vcpu *v = &S.v;
    bool user = one_in(2);

    for (unsigned r = 0; r < 16; r++) {
        v->gpr[r] = one_in(3) ? rnd() : one_in(2) ? DATA + pick(0x10000) : pick(256);
        if (P.mode != MODE_64)
            v->gpr[r] &= one_in(8) ? ~0ull : 0xffffffff;
    }
    v->gpr[REG_RSP] = DATA + 0x800 + (pick(16) << 12) - pick(2) * 8;
    v->rflags = X86_FL_ONE | (rnd() & X86_FL_STATUS) | (one_in(16) ? X86_FL_DF : 0) |
                (one_in(16) ? 0x40000 : 0) | (one_in(32) ? X86_FL_TF : 0);
    v->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP | X86_CR0_NE | X86_CR0_ET | X86_CR0_MP;
    v->cr0 |= one_in(8) ? X86_CR0_AM : 0;
    v->cr0 |= one_in(24) ? X86_CR0_TS : one_in(24) ? X86_CR0_EM : 0;
    v->cr0 &= one_in(24) ? ~(uint64_t)X86_CR0_WP : ~0ull;
    v->cr4 = X86_CR4_PAE | X86_CR4_FSGSBASE | X86_CR4_DE;
    v->cr4 |= one_in(24) ? 0 : X86_CR4_OSFXSR;
    v->cr4 |= one_in(12) ? 0 : X86_CR4_OSXMMEXCPT;
    v->cr4 |= one_in(24) ? 0 : X86_CR4_OSXSAVE;
    v->cr4 &= cpuid_cr4_valid(B.v->cpuid);
    v->xcr0 = one_in(24) ? 3 : one_in(24) ? 7 : ~0ull;
    v->xcr0 &= cpuid_xcr0_valid(B.v->cpuid);
    v->cpl = user ? 3 : 0;
    random_segments(v, user);
    random_vectors(v->vec);
}

static void load_start(struct guest *g) {
    struct vcpu *v = g->v;
    static const uint64_t all = X86_PTE_P | X86_PTE_W | X86_PTE_U;

    vec_park(v);
    vcpu_reset(v);
    memcpy(v->gpr, S.v.gpr, 16 * 8);
    memcpy(v->seg, S.v.seg, sizeof(v->seg));
    memcpy(v->vec, S.v.vec, sizeof(v->vec));
    v->rip = P.base;
    v->rflags = S.v.rflags;
    v->cpl = S.v.cpl;
    v->cr0 = S.v.cr0;
    v->cr4 = S.v.cr4;
    v->xcr0 = S.v.xcr0;
    v->cr3 = PML4;
    v->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    v->gdtr = (struct desc_table){GDT, 0x2f};
    v->idtr = (struct desc_table){IDT, 0xfff};
    v->tr = (struct segment){.sel = 0x28, .ar = 0x8b, .limit = 0x67, .base = TSS};
    v->halted = v->irq_shadow = v->nmi_blocked = false;
    v->pending_db = 0;
    v->fault = (struct fault){0};
    v->cr2 = 0;
    v->fip = v->fdp = v->fop = v->fcs = v->fds = 0;
    g->tsc = g->seen = 0;
    vcpu_clear(v, ~0u);
    for (unsigned k = 0; k < 512; k++)
        poke64(g, PT + 8 * k, S.pte[k]);
    poke64(g, PML4, PDPT | all);
    poke64(g, PML4 + 8 * 511, PDPT | all);
    poke64(g, PDPT, PD | all);
    poke64(g, PDPT + 8 * 3, PD3 | all);
    poke64(g, PD, PT | all);
    poke64(g, PD3 + 8 * 511, PT3 | all);
    poke64(g, PT3 + 8 * 511, phys(DATA + 0x3000) | all);
    for (unsigned at = 0; at < sizeof(S.data); at += 0x1000)
        poke(g, phys(DATA + at), S.data + at, 0x1000);
    vcpu_update_mode(v);
    mmu_mode_changed(v);
    mmu_context_changed(v);
    mmu_flush_all(v);
}

static void load_tables(struct guest *g) {
    static const uint8_t zeros[4096];
    static const uint64_t gdt[] = {
        0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00affb000000ffff, 0x00cff3000000ffff,
        0};

    for (unsigned at = 0; at < CODE; at += sizeof(zeros))
        poke(g, at, zeros, sizeof(zeros));
    poke(g, GDT, gdt, sizeof(gdt));
    for (unsigned n = 0; n < 256; n++) {
        poke64(g, IDT + 16 * n, (HANDLERS + (n & 63)) | 8ull << 16 | 0x8e01ull << 32);
        poke64(g, IDT + 16 * n + 8, 0);
        poke(g, HANDLERS + (n & 63), "\xf4", 1);
    }
    poke64(g, TSS + 36, EXC_STACK); /* IST1 */
    poke64(g, TSS + 4, EXC_STACK);
}

/* --- comparison --- */

static void normalize(uint8_t *x) {
    uint8_t bv = x[512];

    if (!(bv & 1)) {
        memset(x + 32, 0, 128);
        memset(x, 0, 24);
        x[0] = 0x7f;
        x[1] = 3;
    }
    if (!(bv & 2))
        memset(x + 160, 0, 256);
    for (unsigned n = 2; n < VEC_COMPONENTS; n++)
        if (!(bv & 1 << n))
            memset(x + vec_offset(n), 0, vec_size(n));
    for (unsigned k = 0; k < 8; k++) /* reserved */
        memset(x + 32 + 16 * k + 10, 0, 6);
    memset(x + 6, 0, 18); /* FOP, FIP, FDP */
    memset(x + 416, 0, 160);
}

static bool in_component(unsigned at) {
    for (unsigned n = 2; n < VEC_COMPONENTS; n++)
        if (at - vec_offset(n) < vec_size(n))
            return true;
    return false;
}

static char why[256];

/* Differences that are none, and how many of them there are: none of these may hide much.
 */
enum excuse {
    SLOT,      /* below the stack pointer: below_stack() */
    DEAD,      /* flags that nothing reads, in a frame, with liveness */
    REWRITTEN, /* the program has written over itself: what it leaves undefined is not
                  known */
    DICE,      /* and so that it rolls dice */
    ENDLESS,   /* the interpreter does not come to an end: not compared */
    EXCUSES
};
static const struct {
    const char *what;
    unsigned one_in; /* runs that it may be needed for */
} excuse[EXCUSES] = {
    [SLOT] = {"a return address below the stack pointer", 200},
    [DEAD] = {"dead flags in a frame", 10},
    [REWRITTEN] = {"rewritten by itself", 1000},
    [DICE] = {"random numbers", 10000},
    [ENDLESS] = {"no end", 40},
};
static unsigned excused[EXCUSES];

/* What the translator's CALL pushes before it finds out that the target is not canonical
 * lies below the stack pointer. */
static bool below_stack(unsigned at) {
    uint64_t rsp;

    memcpy(&rsp, A.ram + EXC_STACK - 16, 8);
    return A.v->rip - HANDLERS - 1 == X86_GP && P.mode == MODE_64 &&
           ((rsp - 1 - at) & 0xfff) < 8;
}

static bool same_page(unsigned at) {
    bool slot = false;

    if (!memcmp(A.ram + at, B.ram + at, 0x1000))
        return true;
    for (unsigned k = at; k < at + 0x1000; k++) {
        if (A.ram[k] == B.ram[k])
            continue;
        if (!below_stack(k))
            return sprintf(why, "memory at %x: %02x, bt's %02x", k, A.ram[k], B.ram[k]),
                   false;
        slot = true;
    }
    excused[SLOT] += slot;
    return true;
}

static bool same(uint64_t seed) {
    struct vcpu *a = A.v, *b = B.v;
    uint64_t mask = 0x3f7fd7;
    unsigned vector = (unsigned)(a->rip - HANDLERS - 1);
    unsigned frame = (unsigned)a->gpr[REG_RSP];

    vec_park(a);
    vec_park(b);
    for (unsigned r = 0; r < 16; r++)
        if (a->gpr[r] != b->gpr[r])
            return sprintf(why, "register %u", r), false;
    if (a->rip != b->rip)
        return sprintf(why, "vector %u, bt's %u", vector,
                       (unsigned)(b->rip - HANDLERS - 1)),
               false;
    if (vector < 64 && frame > EXC_STACK - 64 && frame < EXC_STACK) {
        unsigned at = frame + (EXC_STACK - frame == 48 ? 8 : 0);
        uint64_t fa, fb;

        memcpy(&fa, A.ram + at + 16, 8);
        memcpy(&fb, B.ram + at + 16, 8);
        mask = ~0ull;
        if (liveness) {
            /* Where nothing reads a flag before it is written, a fault shows another. */
            uint64_t rip;

            memcpy(&rip, A.ram + at, 8);
            mask &= ~(uint64_t)(rip == P.base + P.len - 2 ? P.tainted : X86_FL_STATUS);
        }
        if (memcmp(A.ram + at, B.ram + at, 8))
            return sprintf(why, "vector %u, other instruction pointers", vector), false;
        if ((fa ^ fb) & mask)
            return sprintf(why, "flags %llx, bt's %llx at vector %u",
                           (unsigned long long)fa, (unsigned long long)fb, vector),
                   false;
        excused[DEAD] += fa != fb;
        memcpy(B.ram + at + 16, &fa, 8);
    }
    if ((a->rflags ^ b->rflags) & ~(uint64_t)X86_FL_STATUS)
        return sprintf(why, "rflags"), false;
    if (a->cr2 != b->cr2)
        return sprintf(why, "cr2 %llx, bt's %llx", (unsigned long long)a->cr2,
                       (unsigned long long)b->cr2),
               false;
    if (memcmp(a->seg, b->seg, sizeof(a->seg)) || a->dr[6] != b->dr[6])
        return sprintf(why, "segments or DR6"), false;
    normalize(a->vec);
    normalize(b->vec);
    for (unsigned k = 0; k < VCPU_XSAVE_SIZE; k++)
        if (a->vec[k] != b->vec[k] && (k < 512 || in_component(k)))
            return sprintf(why, "vector state, byte %u: %02x, bt's %02x", k, a->vec[k],
                           b->vec[k]),
                   false;
    if (A.seen != B.seen)
        return sprintf(why, "other accesses to devices"), false;
    for (unsigned at = 0x1000; at < CODE; at += 0x1000)
        if ((at < PML4 || (at > PT && at < PD3) || at > PT3) && !same_page(at))
            return false;
    for (unsigned at = CODE; at < CODE_END; at += 0x1000)
        if (!same_page((unsigned)phys(at)))
            return false;
    for (unsigned at = DATA; at < DATA_END; at += 0x1000)
        if (!same_page((unsigned)phys(at)))
            return false;
    return true;
}

static void show(uint64_t seed, unsigned run) {
    char text[8192];
    uint8_t b[16];

    fprintf(stderr, "seed %llu, run %u: %s\n", (unsigned long long)seed, run, why);
    for (unsigned off = 0; off < P.len;) {
        struct insn i;

        memset(b, 0, sizeof(b));
        memcpy(b, P.b + off, P.len - off < 15 ? P.len - off : 15);
        if (decode_insn(P.mode, b, 15, &i) != DECODE_OK)
            break;
        fprintf(stderr, "  %llx: %s (", (unsigned long long)(P.base + off),
                decode_format(&i, P.base + off, text, sizeof(text)));
        for (unsigned k = 0; k < i.len; k++)
            fprintf(stderr, "%02x", i.bytes[k]);
        fprintf(stderr, ")\n");
        off += i.len;
    }
    for (unsigned r = 0; r < 16; r++)
        fprintf(stderr, "  r%-2u %016llx -> %016llx, bt %016llx\n", r,
                (unsigned long long)S.v.gpr[r], (unsigned long long)A.v->gpr[r],
                (unsigned long long)B.v->gpr[r]);
    fprintf(stderr, "  mode %u cpl %u cr0 %llx cr4 %llx flags %llx mxcsr %x cr2 %llx\n",
            P.mode, S.v.cpl, (unsigned long long)S.v.cr0, (unsigned long long)S.v.cr4,
            (unsigned long long)S.v.rflags, *(uint32_t *)(void *)(S.v.vec + 24),
            (unsigned long long)A.v->cr2);
    for (unsigned n = 0; n < SEG_COUNT; n++)
        fprintf(stderr, "  segment %u base %llx limit %x ar %x\n", n,
                (unsigned long long)S.v.seg[n].base, S.v.seg[n].limit, S.v.seg[n].ar);
    fprintf(stderr, "fault frame at %llx:", (unsigned long long)A.v->gpr[REG_RSP]);
    for (unsigned k = 0; k < 12; k++)
        fprintf(stderr, " %llx",
                (unsigned long long)((uint64_t *)(void *)((k < 6 ? A.ram : B.ram) +
                                                          EXC_STACK))[(int)(k % 6) - 6]);
    fprintf(stderr, "\n");
}

static uint64_t running;
static unsigned runs;

/* Says which program it is that does not end. */
static void *watchdog(void *arg) {
    unsigned last = 0, idle = 0;

    while (idle < 20) {
        unsigned now = __atomic_load_n(&runs, __ATOMIC_RELAXED);

        sleep(1);
        idle = now == last ? idle + 1 : 0;
        last = now;
    }
    strcpy(why, "does not end");
    show(running, 99);
    _exit(1);
}

/* The program has written RDRAND or RDSEED over itself. */
static bool rolls_dice(void) {
    for (unsigned at = CODE; at < CODE_END - 2; at++)
        if (A.ram[phys(at)] == 0x0f && A.ram[phys(at + 1)] == 0xc7 &&
            A.ram[phys(at + 2)] >= 0xf0)
            return true;
    return false;
}

/* It has written itself: what it leaves undefined is not known any more. */
static bool rewritten(void) {
    for (unsigned k = 0; k < P.len; k++)
        if (A.ram[phys((P.base & 0xfffff) + k)] != P.b[k])
            return true;
    return false;
}

/* Places the program, maybe over a page's end, and runs it. False: it differs. */
static bool one_program(uint64_t seed, unsigned insns) {
    static const unsigned offsets[] = {0, 0, 0x40, 0xff0, 0xfc0, 0xff9, 0xffe};

    running = seed;
    seed_now = seed * 0x9e3779b97f4a7c15ull + 1;
    for (unsigned k = 0; k < 4; k++)
        rnd();
    P.mode = one_in(3) ? MODE_32 : MODE_64;
    P.base = CODE + offsets[pick(ARRAY_SIZE(offsets))];
    if (P.mode == MODE_64 && one_in(3))
        P.base |= HIGH;
    load_tables(&A);
    load_tables(&B);
    random_pages();
    random_start();
    for (unsigned s = 0; s < SEG_COUNT; s++)
        P.segbase[s] =
            P.mode == MODE_64 && s != SEG_FS && s != SEG_GS ? 0 : S.v.seg[s].base;
    for (unsigned k = 0; k < sizeof(S.data); k++)
        S.data[k] = (uint8_t)rnd();
    make_program(insns);
    for (unsigned run = 0; run < (knotted ? KNOT_RUNS : 4); run++) {
        struct guest *const both[] = {&A, &B};

        if (run == 1)
            random_pages();
        if (run == 2 || knotted)
            random_start();
        if (knotted)
            knots_registers(&alone, S.v.gpr);
        if (run == 3)
            random_segments(&S.v, S.v.cpl == 3);
        for (unsigned k = 0; k < 2; k++) {
            if (run != 1)
                poke_code(both[k], P.base & 0xfffff, P.b, P.len);
            load_start(both[k]);
        }
        if (interp_step(A.ip, STEPS) != EXIT_halt) {
            excused[ENDLESS]++; /* it wrote itself a loop, or shut down */
            for (unsigned at = CODE; at < CODE_END; at += 0x1000)
                poke(&B, phys(at), A.ram + phys(at), 0x1000);
            return true;
        }
        __atomic_add_fetch(&runs, 1, __ATOMIC_RELAXED);
        if (soft_run(&(struct soft){.v = B.v, .ip = B.ip, .bt = B.bt}) != EXIT_halt) {
            strcpy(why, "bt did not halt");
            show(seed, run);
            return false;
        }
        if (!same(seed)) {
            bool dice = rolls_dice();

            if (dice || (liveness && rewritten())) {
                excused[dice ? DICE : REWRITTEN]++;
                return true;
            }
            show(seed, run);
            return false;
        }
    }
    return true;
}

static uint64_t first_seed = 1, count = 3000, wanted_failures = 1;

static struct sigaction fault_action;

/* cmocka puts its own signal handlers in place for each test: ours go over them. */
static void signals_back(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};

    for (size_t k = 0; k < ARRAY_SIZE(signals); k++)
        sigaction(signals[k], &fault_action, NULL);
}

static void programs(const struct bt_options *opt, unsigned insns) {
    unsigned bad = 0, before = runs;

    liveness = opt->tr.liveness;
    signals_back();
    guest_new(&A, NULL);
    guest_new(&B, opt);
    guard(&A);
    guard(&B);
    memset(excused, 0, sizeof(excused));
    for (uint64_t k = 0; k < count && bad < wanted_failures; k++)
        bad += !one_program(first_seed + k, insns);
    guest_free(&A);
    guest_free(&B);
    assert_int_equal(bad, 0);
    for (unsigned n = 0; n < EXCUSES; n++) {
        unsigned most = (runs - before) / excuse[n].one_in + 2;

        if (excused[n])
            fprintf(stderr, "# excused: %u of %u runs (at most %u), %s\n", excused[n],
                    runs - before, most, excuse[n].what);
        assert_true(excused[n] <= most);
    }
}

static void test_one(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.liveness = false;
    programs(&opt, 1);
}

static void test_one_live(void **state) {
    struct bt_options opt = bt_defaults();

    programs(&opt, 1);
}

static void test_sequences(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.liveness = false;
    programs(&opt, MAX_INSNS);
}

static void test_sequences_live(void **state) {
    struct bt_options opt = bt_defaults();

    programs(&opt, MAX_INSNS);
}

static void knots(struct bt_options *opt) {
    opt->tr.liveness = false;
    knotted = true;
    programs(opt, 1);
}

static void test_knots(void **state) {
    struct bt_options opt = bt_defaults();

    knots(&opt);
}

static void test_knots_hot(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.hot = 1;
    knots(&opt);
}

/* Everything that runs twice is retranslated as a hot path. */
static void test_sequences_hot(void **state) {
    struct bt_options opt = bt_defaults();

    opt.tr.hot = 1;
    programs(&opt, MAX_INSNS);
}

static int setup(void **state) {
    _Alignas(16) uint8_t image[512];
    pthread_t dog;

    vec_init();
    if (sem_init())
        return -1;
    sigaction(SIGSEGV, NULL, &fault_action);
    __asm__("fxsave %0" : "=m"(image));
    memcpy(&mxcsr_mask, image + 28, 4);
    pthread_create(&dog, NULL, watchdog, NULL);
    templates_scan();
    return 0;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),           cmocka_unit_test(test_one_live),
        cmocka_unit_test(test_sequences),     cmocka_unit_test(test_sequences_live),
        cmocka_unit_test(test_sequences_hot), cmocka_unit_test(test_knots),
        cmocka_unit_test(test_knots_hot),
    };
    if (argc > 2) {
        first_seed = strtoull(argv[1], NULL, 0);
        count = strtoull(argv[2], NULL, 0);
    }
    if (argc > 3)
        wanted_failures = strtoull(argv[3], NULL, 0);
    if (argc > 4)
        cmocka_set_test_filter(argv[4]);
    return cmocka_run_group_tests(tests, setup, NULL);
}
