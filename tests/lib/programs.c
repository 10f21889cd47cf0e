#include "lib/programs.h"

#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "decode/decode.h"
#include "lib/rnd.h"
#include "lib/templates.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/pte.h"

struct program_how program_how;
struct program program;
struct program_start start;

uint64_t program_phys(uint64_t at) {
    unsigned k = (unsigned)((at - DATA) >> 12);
    uint64_t page = DATA + 0x1000 + (15 - k) * 0x2000;

    if (at < CODE_END)
        page = CODE + 0x6000 - (at - CODE) / 0x1000 * 0x2000;
    else if (k < 2)
        page = k ? 0 : RAM - 0x1000;
    return page + (at & 0xfff);
}

/* --- programs --- */

static void put(const void *b, unsigned n) {
    memcpy(program.b + program.len, b, n);
    program.len += n;
}

static void put8(unsigned b) {
    program.b[program.len++] = (uint8_t)b;
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
            a = program.base + pick(program.len + 64);
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
    if (program.mode == MODE_64 && one_in(3))
        a |= HIGH;
    return a;
}

static void put_mov_imm(unsigned reg, uint64_t val) {
    if (program.mode == MODE_64)
        put8(0x48 | reg >> 3);
    put8(0xb8 | (reg & 7));
    put(&val, program.mode == MODE_64 ? 8 : 4);
}

/* Registers such that the operand of I lands on TO. */
static void aim(const struct insn *i, uint64_t to) {
    const struct mem_operand *m = &i->mem;
    uint64_t index = pick(8) - 2;

    to -= program.segbase[m->seg] + (uint64_t)m->disp;
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
    if (program_how.liveness)
        program.tainted |= i->fl_undefined & X86_FL_STATUS;
}

static void begin_insn(void) {
    if (program.n < ARRAY_SIZE(program.at))
        program.at[program.n++] = program.len;
}

/* Before a reader of flags that are not defined: cmp eax, ecx. */
static void define_flags(const struct insn *i) {
    if ((i->fl_read & program.tainted) || (i->op == OP_pushf && program.tainted))
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
    program.fix[program.nfix][0] = program.len;
    program.fix[program.nfix++][1] = kind >= 4 && kind < 9 ? 1 : 4;
    put("\0\0\0", kind >= 4 && kind < 9 ? 1 : 4);
}

/* Indirect: the target is a place further on, known when the program is complete. It is
 * given by a call to the next instruction and an addition. */
static void put_indirect(void) {
    unsigned reg = program.mode == MODE_64 ? pick(16) : pick(8);
    unsigned skip = pick(3); /* nops that it jumps over */
    unsigned kind = pick(4);
    unsigned fix;

    if (reg == REG_RSP)
        reg = REG_RBX;
    begin_insn();
    put_mov_imm(REG_RSP, DATA + 0x800 + (pick(16) << 12));
    put_mov_imm(reg, 0);
    fix = program.len - (program.mode == MODE_64 ? 8 : 4);
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
        uint64_t to = program.base + program.len;

        memcpy(program.b + fix, &to, program.mode == MODE_64 ? 8 : 4);
    }
}

static const struct template *choose(void) {
    for (;;) {
        unsigned op = one_in(4) ? OP_native : one_in(6) ? TEMPLATE_EVEX : pick(OP_COUNT);
        unsigned n;
        const struct template *const *of = templates_of(program.mode, op, &n);

        if (n)
            return of[pick(n)];
    }
}

/* Random bytes at B, of 32, that begin with T's prefixes and opcode; its operand in
 * memory is off BASE when that is a register. False: T has none. */
static bool random_bytes(const struct template *t, unsigned base, uint8_t *b) {
    static const uint8_t segs[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x64, 0x65};
    bool wide = program.mode == MODE_64;
    unsigned n = 0;

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
    for (unsigned k = n; k < 32; k++)
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
    return true;
}

/* Registers and a stack that I can do with. */
static void put_registers(const struct insn *i, unsigned base) {
    if (i->op == OP_div || i->op == OP_idiv)
        if (!one_in(3))
            put_mov_imm(REG_RDX, pick(3));
    if (i->op == OP_popf) {
        uint64_t fl = rnd() & (one_in(4) ? 0x44dd5 : 0xcd5);

        put_mov_imm(REG_RSP, DATA + 0x400);
        put8(0x68);
        put(&fl, 4);
    }
    if ((i->op == OP_push || i->op == OP_pop || i->op == OP_ret || i->op == OP_leave) &&
        base == 16 && one_in(2))
        put_mov_imm(i->op == OP_leave ? REG_RBP : REG_RSP, target(8));
    if (i->op >= OP_movs && i->op <= OP_cmps && one_in(2)) {
        put_mov_imm(REG_RDI, target(8));
        put_mov_imm(REG_RSI, target(8));
    }
}

/* Aims the operand of I, whose bytes are at B: by registers, or its displacement. */
static void aim_operand(const struct insn *i, uint8_t *b) {
    unsigned size = i->mem.size ? i->mem.size : 16;
    bool wide = program.mode == MODE_64;

    if (i->mem.base == REG_RIP ||
        (i->mem.base == REG_ZERO && i->mem.index == REG_ZERO && i->off_modrm)) {
        uint64_t to = target(size) - program.segbase[i->mem.seg];
        unsigned at = i->off_modrm + (i->mem.base == REG_RIP || !wide ? 1u : 2u);

        if (i->mem.base == REG_RIP)
            to = (to | (program.base & ~0xffffffull)) -
                 (program.base + program.len + i->len);
        if (!wide && (b[i->off_modrm] & 7) == 4)
            at = i->off_modrm + 2u;
        if (i->addrsize != 2)
            memcpy(b + at, &to, 4);
    } else if (i->addrsize != 2) {
        aim(i, target(size));
    }
}

static bool put_random(const struct template *t, unsigned base) {
    uint8_t b[32];
    struct insn i;

    if (!random_bytes(t, base, b) || decode_insn(program.mode, b, 15, &i) != DECODE_OK ||
        !template_allows(&i))
        return false;
    if (i.op == OP_enter)
        b[3] = pick(4);
    if (i.op >= OP_movs && i.op <= OP_cmps && i.rep)
        put_mov_imm(REG_RCX, pick(40));
    /* Would store the x87 pointers, which the translator does not keep. */
    if ((i.op == OP_fxsave || i.op == OP_xsave) && program.x87)
        return false;
    program.x87 |= (i.flags & INSN_X87) != 0;
    if (program_how.liveness && program.strict && i.fl_undefined)
        return false;
    put_registers(&i, base);
    if (t->mem && base == 16 && !one_in(10))
        aim_operand(&i, b);
    begin_insn();
    define_flags(&i);
    put(b, i.len);
    note_flags(&i);
    if (flag_bits(&i) && one_in(12) && !program.tainted)
        put("\x9c", 1); /* pushf: they are looked at */
    return true;
}

/* Several accesses off one base register, as compilers make them. */
static void put_burst(void) {
    unsigned base = pick(program.mode == MODE_64 ? 16 : 8);

    put_mov_imm(base, target(64));
    for (unsigned k = 2 + pick(6); k && program.len < 900;)
        if (put_random(choose(), one_in(10) ? 16 : base))
            k--;
}

static bool knot_takes(const struct insn *i) {
    bool stores = i->op == OP_fxsave || i->op == OP_xsave;

    if (!template_allows(i) ||
        (program_how.liveness && (i->fl_undefined & X86_FL_STATUS)) ||
        (stores && program.x87) || i->op == OP_popf || i->op == OP_enter)
        return false;
    program.x87 |= (i->flags & INSN_X87) != 0;
    return true;
}

static uint64_t knot_end(void) {
    uint64_t a = DATA + (pick(17) << 12);

    if (one_in(12))
        a = 0x100000000ull;
    return program.mode == MODE_64 && one_in(3) ? a | HIGH : a;
}

/* Behind three instructions that load its registers. */
static void put_knot(void) {
    unsigned load = program.mode == MODE_64 ? 10 : 5;
    uint64_t gpr[16];
    uint8_t code[400];
    struct knots k = {.mode = program.mode,
                      .at = program.base + program.len + 3 * load + 2,
                      .code = code,
                      .max = sizeof(code),
                      .data = DATA + 0x1000 + (pick(15) << 12),
                      .segment = program.segbase[SEG_FS],
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
    put(program.mode == MODE_64 ? "\x48\x89\x04\x25" : "\x89\x05",
        program.mode == MODE_64 ? 4 : 2);
    put(&at, 4);
}

/* Another page is where one was, or it is not there, or not to be written. */
static void put_remap(void) {
    static const uint64_t rw = X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A | X86_PTE_D;
    unsigned page = (DATA >> 12) + pick(16);
    uint64_t va = (uint64_t)page << 12, pte = program_phys(DATA + (pick(16) << 12)) | rw;

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
    if (program.mode == MODE_64) {
        put_mov_imm(REG_RAX, va | HIGH);
        put("\x0f\x01\x38", 3);
    }
}

static void make_knot(void) {
    program.alone = (struct knots){.mode = program.mode,
                                   .at = program.base,
                                   .code = program.b,
                                   .max = 600,
                                   .data = DATA + 0x1000 + (pick(15) << 12),
                                   .segment = program.segbase[SEG_FS],
                                   .rnd = rnd,
                                   .takes = knot_takes,
                                   .end = knot_end};
    knots_make(&program.alone);
    program.len = program.alone.len;
    put("\x0f\x0b", 2);
}

void program_make(unsigned insns) {
    program.len = program.n = program.nfix = program.tainted = 0;
    program.x87 = false;
    if (program_how.knots) {
        make_knot();
        return;
    }
    program.strict = insns > 1 && one_in(2);
    for (unsigned k = 0; k < insns && program.len < 900;) {
        if (insns > 1 && one_in(8))
            put_branch(), k++;
        else if (insns > 1 && one_in(16))
            put_indirect(), k++;
        else if (insns > 1 && one_in(6))
            put_burst(), k += 4;
        else if (insns > 1 && program.len < 500 && one_in(10))
            put_knot(), k += 6;
        else if (insns > 1 && one_in(start.v.cpl ? 200 : 14))
            put_remap(), k += 2;
        else if (put_random(choose(), 16))
            k++;
    }
    begin_insn();
    put("\x0f\x0b", 2);
    for (unsigned k = 0; k < program.nfix; k++) {
        unsigned at = program.fix[k][0], size = program.fix[k][1];
        int32_t rel = 0;

        for (unsigned j = 0; j < 8; j++) {
            int32_t r = (int32_t)program.at[pick(program.n)] - (int32_t)(at + size);

            if (r >= 0 && (size == 4 || r < 128)) {
                rel = r;
                break;
            }
        }
        memcpy(program.b + at, &rel, size);
    }
}

/* --- the state before a run --- */

void program_random_pages(void) {
    static const uint64_t rw = X86_PTE_P | X86_PTE_W | X86_PTE_U;

    for (unsigned k = 0; k < 512; k++)
        if (k >= CODE >> 12 && k < CODE_END >> 12)
            start.pte[k] =
                program_phys(k << 12) | rw | (pick(4) ? X86_PTE_A | X86_PTE_D : 0);
        else if (k >= DATA >> 12 && k < DATA_END >> 12)
            start.pte[k] =
                program_phys(k << 12) | rw | (pick(4) ? X86_PTE_A | X86_PTE_D : 0);
        else /* tables, handlers and their stack */
            start.pte[k] = k > EXC_STACK >> 12 ? 0 : k << 12 | X86_PTE_P | X86_PTE_W;
    for (unsigned k = DATA >> 12; k < DATA_END >> 12; k++) {
        switch (pick(12)) {
        case 0:
            start.pte[k] &= ~X86_PTE_P;
            break;
        case 1:
            start.pte[k] &= ~X86_PTE_W;
            break;
        case 2:
            start.pte[k] &= ~X86_PTE_U;
            break;
        case 3: /* an alias of another page */
            start.pte[k] = (start.pte[k] & 0xfff) | program_phys(DATA + (pick(16) << 12));
            break;
        case 4:
            if (one_in(4)) /* of the code */
                start.pte[k] = (start.pte[k] & 0xfff) | program_phys(CODE);
            break;
        case 5:
            if (one_in(2)) /* a device's */
                start.pte[k] = (start.pte[k] & 0xfff) | (DEVICE + (k << 12));
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

void program_random_segments(struct vcpu *v, bool user) {
    unsigned dpl = user ? 0x60 : 0;
    bool wide = program.mode == MODE_64;

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

void program_random_start(void) {
    struct vcpu *v = &start.v;
    bool user = one_in(2);

    for (unsigned r = 0; r < 16; r++) {
        v->gpr[r] = one_in(3) ? rnd() : one_in(2) ? DATA + pick(0x10000) : pick(256);
        if (program.mode != MODE_64)
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
    v->cr4 &= cpuid_cr4_valid(program_how.model);
    v->xcr0 = one_in(24) ? 3 : one_in(24) ? 7 : ~0ull;
    v->xcr0 &= cpuid_xcr0_valid(program_how.model);
    v->cpl = user ? 3 : 0;
    program_random_segments(v, user);
    random_vectors(v->vec);
}

void programs_init(void) {
    _Alignas(16) uint8_t image[512];

    __asm__("fxsave %0" : "=m"(image));
    memcpy(&mxcsr_mask, image + 28, 4);
    templates_scan();
}
