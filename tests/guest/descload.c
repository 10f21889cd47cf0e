/*
 * Every descriptor in every place: all values of the descriptor's type byte (type, S,
 * DPL, P) x RPL x CPL, for each instruction that loads a segment register (MOV, POP, LDS
 * and the like), for CS by far JMP, CALL, RET and IRET, for LLDT and LTR, and for LAR,
 * LSL, VERR and VERW; in 32-bit, compatibility and 64-bit code, from the GDT and from an
 * LDT. Then null selectors, selectors beyond a table or half in it, L and D, limits. Each
 * outcome, with all registers, is held against a model:
 *
 * AMD64 APM volume 2, "Segmented Virtual Memory" ("Data-Access Privilege Checks",
 * "Control-Transfer Privilege Checks", "Limit Checks", "Type Checks"), and volume 3, the
 * instructions' own pages; Intel SDM volume 2 the same.
 */
#include "rings.h"

const char guest_name[] = GUEST_NAME;

#define TEST_SEL 0x170u  /* the last 16 bytes of the GDT */
#define LOCAL_SEL 0x1cu  /* in the LDT */
#define TARGET_OFF 0x100 /* of the code that a far transfer reaches, but for L = 1 */

enum kind {
    K_DATA,
    K_SS,
    K_JMP,
    K_CALL,
    K_RET,
    K_IRET,
    K_LLDT,
    K_LTR,
    K_LAR,
    K_LSL,
    K_VERR,
    K_VERW
};
enum form { MOV, POP, POP_LONG, FAR };

struct op {
    const char *name;
    enum kind kind;
    enum form form;
    uint8_t seg; /* index in struct regs: ds, es, fs, gs */
    bool not64;
    void *code;
};

struct test {
    const struct op *op;
    unsigned bits, cpl;
    uint16_t sel;
    uint64_t desc, upper; /* upper: of a 16-byte descriptor */
    bool found;           /* the table has it */
};

static struct op ops[32];
static unsigned nops;
static uint64_t ldt[8] __attribute__((aligned(16)));
static struct {
    uint32_t off;
    uint16_t sel;
} __attribute__((packed)) far_pointer;
static void *target;
static bool tcg;

static unsigned type_of(const struct test *t) {
    return (unsigned)(t->desc >> 40) & 0x1f;
}

static bool bit_of(const struct test *t, unsigned ar) {
    return t->desc >> 40 & ar;
}

static unsigned dpl_of(const struct test *t) {
    return (unsigned)(t->desc >> 45) & 3;
}

static uint32_t limit_of(const struct test *t) {
    uint32_t raw = (uint32_t)(t->desc & 0xffff) | (uint32_t)(t->desc >> 32 & 0xf0000);

    return bit_of(t, X86_AR_G) ? raw << 12 | 0xfff : raw;
}

static bool is_code(const struct test *t) {
    return bit_of(t, X86_AR_S) && bit_of(t, X86_AR_CODE);
}

static bool is_conforming(const struct test *t) {
    return is_code(t) && bit_of(t, X86_AR_EXPDOWN);
}

static bool is_code64(const struct test *t) {
    return LONG_MODE && bit_of(t, X86_AR_L);
}

/* Where a transfer through the descriptor goes. */
static uint32_t target_off(const struct test *t) {
    return is_code64(t) ? (uint32_t)(ulong)target : TARGET_OFF;
}

/* --- the model --- */

static void model_data(const struct test *t, struct ending *w) {
    unsigned rpl = t->sel & 3, err = t->sel & 0xfffc;

    if (err) {
        bool readable =
            bit_of(t, X86_AR_S) && (!bit_of(t, X86_AR_CODE) || bit_of(t, X86_AR_WRITE));

        if (!t->found || !readable ||
            (!is_conforming(t) && (rpl > dpl_of(t) || t->cpl > dpl_of(t)))) {
            ending_fault(w, X86_GP, err);
            return;
        }
        if (!bit_of(t, X86_AR_P)) {
            ending_fault(w, X86_NP, err);
            return;
        }
    }
    (&w->r.ds)[t->op->seg] = t->sel;
}

static void model_ss(const struct test *t, struct ending *w) {
    unsigned rpl = t->sel & 3, err = t->sel & 0xfffc;

    if (!err) {
        if (t->bits != 64 || t->cpl == 3 || rpl != t->cpl) {
            ending_fault(w, X86_GP, 0);
            return;
        }
    } else if (!t->found || rpl != t->cpl || dpl_of(t) != t->cpl ||
               (type_of(t) & 0x1a) != 0x12) { /* S, not code, writable */
        ending_fault(w, X86_GP, err);
        return;
    } else if (!bit_of(t, X86_AR_P)) {
        ending_fault(w, X86_SS, err);
        return;
    }
    w->r.dx = t->sel; /* the code stores it there, and restores SS */
}

/* What a jump or a call makes of a system descriptor: gates lead to the null selector,
 * TSSs are too short. */
static void model_system(const struct test *t, struct ending *w) {
    unsigned rpl = t->sel & 3, err = t->sel & 0xfffc, type = type_of(t);
    bool gate = type == X86_DESC_CALLGATE32, is_tss = false;

    if (!LONG_MODE) {
        gate = gate || type == X86_DESC_CALLGATE16 || type == X86_DESC_TASKGATE;
        is_tss = type == X86_DESC_TSS16 || type == X86_DESC_TSS32;
    }
    if ((!gate && !is_tss) || dpl_of(t) < t->cpl || dpl_of(t) < rpl)
        ending_fault(w, X86_GP, err);
    else if (!bit_of(t, X86_AR_P))
        ending_fault(w, X86_NP, err);
    else if ((LONG_MODE && (t->upper >> 40 & 0x1f)) || (is_tss && (t->sel & X86_SEL_TI)))
        ending_fault(w, X86_GP, err);
    else if (gate)
        ending_fault(w, X86_GP, 0);
    else
        ending_fault(w, X86_TS, err);
}

static void model_transfer(const struct test *t, struct ending *w) {
    unsigned rpl = t->sel & 3, err = t->sel & 0xfffc, dpl = dpl_of(t);
    bool back = t->op->kind == K_RET || t->op->kind == K_IRET;
    unsigned cpl = back ? rpl : t->cpl;
    bool allowed = is_conforming(t) ? dpl <= cpl : dpl == cpl && rpl <= cpl;

    if (!err || !t->found) {
        ending_fault(w, X86_GP, err);
        return;
    }
    if (!back && !bit_of(t, X86_AR_S)) {
        model_system(t, w);
        return;
    }
    if (!is_code(t) || !allowed || cpl < t->cpl ||
        (is_code64(t) && bit_of(t, X86_AR_DB))) {
        ending_fault(w, X86_GP, err);
        return;
    }
    if (!bit_of(t, X86_AR_P)) {
        ending_fault(w, X86_NP, err);
        return;
    }
    if (!is_code64(t) && target_off(t) > limit_of(t)) {
        ending_fault(w, X86_GP, 0);
        return;
    }
    w->r.ip = target_off(t);
    w->r.cs = err | cpl;
    if (t->op->kind == K_CALL) {
        w->r.sp -= 8;
    } else if (back && (cpl > t->cpl || (t->op->kind == K_IRET && t->bits == 64))) {
        w->r.sp += 0x40; /* as the frame says */
        w->r.ss = RING_DATA(cpl);
        if (cpl > t->cpl)
            w->r.ds = w->r.es = 0;
    } else if (back) {
        w->r.sp += t->op->kind == K_IRET ? 12 : 8;
    }
    /* Then INT, if all of it lies within the limit. */
    if (is_code64(t) || limit_of(t) > TARGET_OFF) {
        w->r.ip += 2;
    } else {
        ending_fault(w, X86_GP, 0);
        w->r.ip = TARGET_OFF;
    }
}

static void model_table(const struct test *t, struct ending *w) {
    unsigned err = t->sel & 0xfffc, type = type_of(t);
    bool lldt = t->op->kind == K_LLDT;
    bool right = lldt ? type == X86_DESC_LDT
                      : type == X86_DESC_TSS32 || (!LONG_MODE && type == X86_DESC_TSS16);
    int64_t high = (int64_t)(t->upper << 32 | t->desc >> 56 << 24);
    bool canonical = high << 16 >> 16 == high || tcg;

    if (t->cpl)
        ending_fault(w, X86_GP, 0);
    else if (!err && lldt)
        w->r.dx = t->sel; /* SLDT */
    else if (!err || !t->found || (t->sel & X86_SEL_TI) || !right)
        ending_fault(w, X86_GP, err);
    else if (!bit_of(t, X86_AR_P))
        ending_fault(w, X86_NP, err);
    else if (LONG_MODE && (!canonical || (t->upper >> 40 & 0x1f && !(tcg && lldt))))
        ending_fault(w, X86_GP, err);
    else
        w->r.dx = t->sel;
}

/* LAR, LSL, VERR and VERW: ZF, and a register. */
static void model_question(const struct test *t, struct ending *w) {
    static const uint16_t lar = LONG_MODE ? 0x1a04 : 0x1a3e;
    static const uint16_t lsl = LONG_MODE ? 0x0a04 : 0x0a0e;
    unsigned rpl = t->sel & 3, type = type_of(t);
    bool ok = (t->sel & 0xfffc) && t->found;

    if (!is_conforming(t) && (dpl_of(t) < t->cpl || dpl_of(t) < rpl))
        ok = false;
    switch (t->op->kind) {
    case K_LAR:
        ok = ok && (type >= 16 || lar >> type & 1);
        if (ok)
            w->r.dx = t->desc >> 32 & 0xf0ff00;
        break;
    case K_LSL:
        ok = ok && (type >= 16 || lsl >> type & 1);
        if (ok)
            w->r.dx = limit_of(t);
        break;
    case K_VERR:
        ok = ok && type >= 16 && (!is_code(t) || bit_of(t, X86_AR_WRITE));
        break;
    default:
        ok = ok && type >= 16 && !is_code(t) && bit_of(t, X86_AR_WRITE);
    }
    if (ok)
        w->r.flags |= X86_FL_ZF;
}

static void model(const struct test *t, struct ending *w) {
    switch (t->op->kind) {
    case K_DATA:
        model_data(t, w);
        break;
    case K_SS:
        model_ss(t, w);
        break;
    case K_LLDT:
    case K_LTR:
        model_table(t, w);
        break;
    case K_JMP:
    case K_CALL:
    case K_RET:
    case K_IRET:
        model_transfer(t, w);
        break;
    default:
        model_question(t, w);
    }
    if (w->vector != DONE)
        return;
    if (t->op->form == POP)
        w->r.sp += 4;
    if (t->op->form == POP_LONG)
        w->r.sp += t->bits == 64 ? 8 : 4;
    if (t->op->form == FAR)
        w->r.si = far_pointer.off;
}

/* --- one case --- */

static uint64_t *entry_of(uint16_t sel) {
    return sel & X86_SEL_TI ? &ldt[sel >> 3 & 7] : &gdt[sel >> 3];
}

/* The stack and registers that the instruction wants. */
static void prepare(const struct test *t) {
    uint32_t frame[5] = {target_off(t), t->sel};
    unsigned n = 2;

    regs_ring(t->bits, t->cpl);
    in.ax = t->sel;
    in.cx = in.ss;
    in.bx = (ulong)&far_pointer;
    far_pointer.off = target_off(t);
    far_pointer.sel = t->sel;
    if (t->op->form == POP || t->op->form == POP_LONG)
        frame[0] = t->sel;
    if (t->op->kind == K_IRET)
        frame[n++] = (uint32_t)in.flags;
    frame[n++] = (uint32_t)in.sp + 0x40;
    frame[n] = RING_DATA(t->sel & 3);
    memcpy((void *)in.sp, frame, sizeof(frame));
}

/* What becomes of the descriptor when it has been loaded. */
static uint64_t marked(const struct test *t) {
    if (!(t->sel & 0xfffc) || t->op->kind >= K_LAR)
        return t->desc;
    if (t->op->kind == K_LTR)
        return t->desc | 2ull << 40;
    return t->desc | (bit_of(t, X86_AR_S) ? 1ull << 40 : 0);
}

static void restore_tables(const struct test *t) {
    if (t->op->kind == K_LTR) {
        gdt[TSS_SEL >> 3] &= ~(2ull << 40);
        __asm__ volatile("ltr %w0" ::"r"(TSS_SEL));
    } else if (t->op->kind == K_LLDT) {
        __asm__ volatile("lldt %w0" ::"r"(LDT_SEL));
    }
}

static const char *table_note(const struct test *t) {
    return t->found ? "" : " (not there)";
}

static bool is_transfer(const struct test *t) {
    return t->op->kind >= K_JMP && t->op->kind <= K_IRET;
}

/* The descriptor, and what a call has pushed. */
static void judge_memory(const struct test *t, const struct ending *w) {
    uint64_t *e = entry_of(t->sel), after = e[0], want = t->desc;

    if (tcg && is_transfer(t)) /* does not mark code segments */
        want = after;
    else if (w->vector == DONE || w->r.cs != in.cs)
        want = marked(t);
    else if (is_transfer(t) && !w->error) /* a bad target: the mark may have come first */
        want |= after & 1ull << 40;
    ending_also(after == want, "%s: descriptor 0x%08x%08x, want 0x%08x%08x", t->op->name,
                (uint32_t)(after >> 32), (uint32_t)after, (uint32_t)(want >> 32),
                (uint32_t)want);
    if (t->op->kind == K_CALL && w->r.cs != in.cs) {
        uint32_t *pushed = (uint32_t *)w->r.sp;

        ending_also(pushed[0] == w->start + 2 && pushed[1] == in.cs,
                    "call pushed 0x%x 0x%x", pushed[0], pushed[1]);
    }
}

/* TCG takes L together with D, checks a call's offset against the limit although L is set
 * (and no fetch against any limit), looks at a TSS of an LDT, and LTR takes a null
 * selector and a 16-bit TSS in long mode. LAR and LSL answer there as in legacy mode. */
static bool tcg_errs(const struct test *t) {
    if (t->upper == 1ull << 44)
        return true;
    if (t->op->kind == K_LTR)
        return !(t->sel & 0xfffc) || (LONG_MODE && type_of(t) == X86_DESC_TSS16);
    if (t->op->kind == K_SS && t->bits == 64) /* any null selector will do */
        return !(t->sel & 0xfffc);
    if (t->op->kind == K_LAR || t->op->kind == K_LSL)
        return LONG_MODE && type_of(t) < 16;
    if (!is_transfer(t))
        return false;
    if (is_code(t))
        return (is_code64(t) && (bit_of(t, X86_AR_DB) || t->op->kind == K_CALL)) ||
               limit_of(t) <= TARGET_OFF;
    return t->sel & X86_SEL_TI;
}

static void try(const struct test *t) {
    uint64_t *e = entry_of(t->sel);
    struct ending w;

    if (tcg && tcg_errs(t))
        return;
    prepare(t);
    if (t->sel & 0xfffc) {
        e[0] = t->desc;
        if (e == &gdt[TEST_SEL >> 3])
            e[1] = t->upper;
    }
    ending_begin(&w, t->op->code);
    model(t, &w);
    run(t->op->code);
    if (t->op->kind == K_LAR) { /* bits 19:16 are undefined */
        trap.r.dx &= ~0xf0000ul;
        w.r.dx &= ~0xf0000ul;
    }
    if (ending_judge(&w,
                     "%s, %u-bit, CPL %u, selector 0x%x%s, descriptor 0x%08x%08x, 0x%x",
                     t->op->name, t->bits, t->cpl, t->sel, table_note(t),
                     (uint32_t)(t->desc >> 32), (uint32_t)t->desc, (uint32_t)t->upper))
        judge_memory(t, &w);
    if (trap.vector == DONE)
        restore_tables(t);
}

/* --- the enumeration --- */

/* A descriptor with BYTE as its type byte and FLAGS (G, D, L, AVL); a code segment that
 * contains the target, a system segment of 0x20 bytes whose base ends in zeros. */
static uint64_t descriptor(unsigned byte, unsigned flags) {
    uint32_t base = random32() & 0xff0000, limit = 0x20;

    if (!(byte & X86_AR_S)) {
        flags &= 7; /* no G */
    } else {
        limit = random32() | 0x200;
        if (byte & X86_AR_CODE)
            base = (uint32_t)(ulong)target - TARGET_OFF;
    }
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)byte << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 |
           (uint64_t)(base >> 24) << 56;
}

static bool usable(const struct op *op, unsigned bits) {
    return bits != 64 || !op->not64;
}

/* Calls EACH for every instruction, mode, level and RPL. */
static void for_each(uint16_t sel, void (*each)(struct test *t)) {
    for (unsigned n = 0; n < nops; n++)
        for (unsigned bits = 32; bits <= (LONG_MODE ? 64 : 32); bits += 32)
            for (unsigned k = 0; k < 16 && usable(&ops[n], bits); k++) {
                struct test t = {
                    .op = &ops[n], .bits = bits, .cpl = k / 4, .found = true};

                t.sel = (uint16_t)(sel | (k & 3));
                each(&t);
            }
}

/* Code segments with every combination of L and D where that matters. */
static void each_type(struct test *t) {
    for (unsigned byte = 0; byte < 256; byte++) {
        bool code = is_transfer(t) && (byte & X86_AR_S) && (byte & X86_AR_CODE);
        unsigned flags = random32() & 15;

        for (unsigned k = 0; k < (code ? 4 : 1); k++) {
            t->desc = descriptor(byte, flags ^ k << 1);
            try(t);
        }
    }
}

static void each_null(struct test *t) {
    try(t);
}

/* Selectors beyond the table, by so many bytes that a part of the descriptor is in it. */
static void each_missing(struct test *t) {
    static const uint8_t bytes[] = {0xf2, 0x93, 0xfa, 0x9b, 0xff,
                                    0x82, 0x89, 0xe2, 0xe9, 0x8c};

    for (unsigned n = 0; n < COUNT(bytes); n++) {
        bool wide = LONG_MODE && !(bytes[n] & X86_AR_S);

        for (unsigned part = 0; part <= (wide ? 16 : 8); part++) {
            t->desc = descriptor(bytes[n], bytes[n] & 8 && LONG_MODE ? 2 : 4);
            t->found = part == (wide ? 16 : 8);
            /* Whether a question needs the upper half, the manuals do not say. */
            if (wide && part >= 8 && part < 16 && t->op->kind >= K_LAR)
                continue;
            gdt_limit(TEST_SEL + part - 1);
            try(t);
        }
    }
    gdt_limit(sizeof(gdt) - 1);
}

static void each_missing_local(struct test *t) {
    static const uint8_t bytes[] = {0xf2, 0x93, 0xfa, 0x9b, 0xff};

    for (unsigned n = 0; n < COUNT(bytes); n++)
        for (unsigned part = 0; part <= 9; part++) {
            t->desc = descriptor(bytes[n], 4);
            t->found = part == 8;
            gdt_set_sys(LDT_SEL, (ulong)ldt, (LOCAL_SEL & ~7u) + part - 1,
                        X86_AR_P | X86_DESC_LDT);
            __asm__ volatile("lldt %w0" ::"r"(part == 9 ? 0 : LDT_SEL)); /* 9: no LDT */
            try(t);
        }
    gdt_set_sys(LDT_SEL, (ulong)ldt, sizeof(ldt) - 1, X86_AR_P | X86_DESC_LDT);
    __asm__ volatile("lldt %w0" ::"r"(LDT_SEL));
}

/* LSL's answers, and targets at a limit. */
static void each_limit(struct test *t) {
    static const uint32_t limits[] = {0, 0xff, 0x100, 0x101, 0xffff, 0x10000, 0xfffff};

    for (unsigned n = 0; n < 4 * COUNT(limits); n++) {
        uint64_t limit = limits[n / 4];
        unsigned byte = (n & 1 ? 0x93 : 0x9b) | (t->sel & 3) << 5;

        t->desc = descriptor(byte, n & 2 ? 12 : 4) & ~0x000f00000000ffffull;
        t->desc |= (limit & 0xffff) | limit >> 16 << 48;
        try(t);
    }
}

/* The second half of system descriptors of long mode: base and type. */
static void each_upper(struct test *t) {
    static const uint64_t uppers[] = {1,          0x7fff,       0x8000,     0xffff8000,
                                      0xffff7fff, 0x8000ffff,   1ull << 40, 1ull << 43,
                                      1ull << 44, 0x1full << 40};
    static const uint8_t bytes[] = {0xe2, 0xe9, 0xeb, 0xec};

    for (unsigned n = 0; n < COUNT(uppers) * COUNT(bytes); n++) {
        t->upper = uppers[n % COUNT(uppers)];
        t->desc = descriptor(bytes[n / COUNT(uppers)], 0);
        try(t);
    }
}

/* --- the instructions; the same bytes in 32-bit and in 64-bit code --- */

#define SEG(reg) (uint8_t)(offsetof(struct regs, reg) / sizeof(ulong))
#define BX BITS("[ebx]", "[rbx]")

static void add(const char *name, enum kind kind, enum form form, uint8_t seg, bool not64,
                void *code) {
    ops[nops++] = (struct op){name, kind, form, seg, not64, code};
}

#define TAIL_SS "\nmov edx, ss\nmov ss, ecx"

static void add_loads(void) {
    add("mov ds", K_DATA, MOV, SEG(ds), false, CODE("mov ds, eax"));
    add("mov es", K_DATA, MOV, SEG(es), false, CODE("mov es, eax"));
    add("mov fs", K_DATA, MOV, SEG(fs), false, CODE("mov fs, eax"));
    add("mov gs", K_DATA, MOV, SEG(gs), false, CODE("mov gs, eax"));
    add("pop ds", K_DATA, POP, SEG(ds), true, CODE(".byte 0x1f"));
    add("pop es", K_DATA, POP, SEG(es), true, CODE(".byte 0x07"));
    add("pop fs", K_DATA, POP_LONG, SEG(fs), false, CODE("pop fs"));
    add("pop gs", K_DATA, POP_LONG, SEG(gs), false, CODE("pop gs"));
    add("lds", K_DATA, FAR, SEG(ds), true, CODE(".byte 0xc5, 0x33"));
    add("les", K_DATA, FAR, SEG(es), true, CODE(".byte 0xc4, 0x33"));
    add("lfs", K_DATA, FAR, SEG(fs), false, CODE("lfs esi, " BX));
    add("lgs", K_DATA, FAR, SEG(gs), false, CODE("lgs esi, " BX));
    add("mov ss", K_SS, MOV, SEG(ss), false, CODE("mov ss, eax" TAIL_SS));
    add("pop ss", K_SS, POP, SEG(ss), true, CODE(".byte 0x17" TAIL_SS));
    add("lss", K_SS, FAR, SEG(ss), false, CODE("lss esi, " BX TAIL_SS));
}

static void add_others(void) {
    add("far jmp", K_JMP, MOV, 0, false, CODE(".byte 0xff, 0x2b"));
    add("far call", K_CALL, MOV, 0, false, CODE(".byte 0xff, 0x1b"));
    add("far ret", K_RET, MOV, 0, false, CODE(".byte 0xcb"));
    add("iret", K_IRET, MOV, 0, false, CODE(".byte 0xcf"));
    add("lldt", K_LLDT, MOV, 0, false, CODE("lldt ax\nsldt edx"));
    add("ltr", K_LTR, MOV, 0, false, CODE("ltr ax\nstr edx"));
    add("lar", K_LAR, MOV, 0, false, CODE("lar edx, eax"));
    add("lsl", K_LSL, MOV, 0, false, CODE("lsl edx, eax"));
    add("verr", K_VERR, MOV, 0, false, CODE("verr ax"));
    add("verw", K_VERW, MOV, 0, false, CODE("verw ax"));
}

void guest_main(void) {
    tcg = cpu_is_tcg();
    target = CODE("");
    rings_set();
    add_loads();
    add_others();
    gdt_set_sys(LDT_SEL, (ulong)ldt, sizeof(ldt) - 1, X86_AR_P | X86_DESC_LDT);
    __asm__ volatile("lldt %w0" ::"r"(LDT_SEL));
    for_each(TEST_SEL, each_type);
    for_each(LOCAL_SEL, each_type);
    for_each(0, each_null);
    for_each(TEST_SEL, each_missing);
    for_each(LOCAL_SEL, each_missing_local);
    for_each(TEST_SEL, each_limit);
    if (LONG_MODE)
        for_each(TEST_SEL, each_upper);
    rings_report();
}
