/*
 * Gates: every call, interrupt and trap gate (DPL, P, type, the selector's RPL, IST) x
 * CPL x every target descriptor, by far CALL and JMP, INT n, INT3, INTO, INT1 and
 * exceptions with an error code and without; parameters; and what may be wrong with the
 * stack of the inner level. Each outcome, with all registers and the frame in memory, is
 * held against a model:
 *
 * AMD64 APM volume 2, "Control-Transfer Privilege Checks", "Stack Switching", "Legacy
 * Protected-Mode Interrupt Control Transfers", "Long-Mode Interrupt Control Transfers";
 * Intel SDM volume 2, "CALL", "INT n/INTO/INT3/INT1" (their pseudocode has the error
 * codes), volume 3, "Error Code". Task gates: see taskmatrix.
 */
#include "rings.h"

const char guest_name[] = GUEST_NAME;

#define NP_SEL RINGS_FREE /* of a segment that is not present */
#define LDT_SS 0x0cu      /* no LDT is there */
#define SS_SEL 0xf8u      /* of a stack that a case defines, in low memory: */
#define LOW_SP 0x9000u
#define GATE_SEL 0x160u /* 16 bytes */
#define TARGET_SEL 0x170u
#define BEYOND (GDT_COUNT * 8u)
#define TARGET_OFF 0x100u
#define VECTOR 0x50u
#define EXT 1u
#define IDT_BIT 2u
#define FLAGS (X86_FL_ONE | X86_FL_CF | X86_FL_IF | X86_FL_NT)

enum how { CALL, JMP, INT_N, INT3, INTO, INT1, EXCEPTION, WITH_CODE, HOW_COUNT };
static const char *const names[] = {"call", "jmp",  "int n", "int3",
                                    "into", "int1", "#ud",   "#np"};
static const uint8_t vectors[] = {0, 0, VECTOR, X86_BP, X86_OF, X86_DB, X86_UD, X86_NP};
static void *code[HOW_COUNT];

struct test {
    enum how how;
    unsigned bits, cpl, rpl;
    unsigned gate;  /* type byte */
    unsigned extra; /* parameters, or IST */
    uint64_t off, gate_upper;
    uint16_t sel; /* of the target */
    uint64_t desc;
    const char *what;
    unsigned stack_vector; /* the fault that the inner stack leads to; 0: none */
    uint16_t stack_error;
};

static void *target;
static uint8_t stacks[4][1024] __attribute__((aligned(1024)));
static struct {
    uint32_t off;
    uint16_t sel;
} __attribute__((packed)) far_pointer;
static struct {
    ulong slot[40];
    unsigned n, size; /* slot 0 is pushed first */
} frame;
static uint16_t tss_ss[3]; /* what the TSS says */
static ulong tss_sp[3], stack_mask = ~0ul;
static bool tcg;

static uint64_t make_desc(ulong base, uint32_t limit, unsigned byte, unsigned flags) {
    return seg_desc((uint32_t)base, limit, byte) | (uint64_t)flags << 52;
}

static bool is_event(const struct test *t) {
    return t->how > JMP;
}

static bool is_fault(const struct test *t) {
    return t->how >= EXCEPTION;
}

static unsigned byte_of(const struct test *t) {
    return (unsigned)(t->desc >> 40) & 0xff;
}

/* --- the model --- */

static void push(ulong value) {
    frame.slot[frame.n++] = value;
}

/* A refusal. Hardware events say so in the error code; after #NP it is a double fault. */
static void refuse(const struct test *t, struct ending *w, unsigned vector, ulong error) {
    if (t->how == WITH_CODE)
        ending_fault(w, X86_DF, 0);
    else
        ending_fault(w, vector, error | (t->how >= INT1 ? EXT : 0));
}

/* The gate itself; false: it is refused. */
static bool model_gate(const struct test *t, struct ending *w) {
    unsigned dpl = t->gate >> 5 & 3, type = t->gate & 0x1f;
    ulong error = is_event(t) ? vectors[t->how] * 8u + IDT_BIT : GATE_SEL;
    bool good, allowed = dpl >= t->cpl;

    if (is_event(t)) {
        good =
            type == X86_DESC_INTGATE32 || type == X86_DESC_TRAPGATE32 ||
            (!LONG_MODE && (type == X86_DESC_INTGATE16 || type == X86_DESC_TRAPGATE16));
        allowed = allowed || t->how >= INT1;
    } else {
        good = type == X86_DESC_CALLGATE32 || (!LONG_MODE && type == X86_DESC_CALLGATE16);
        allowed = allowed && dpl >= t->rpl;
    }
    if (!good || !allowed) {
        refuse(t, w, X86_GP, error);
        return false;
    }
    if (!(t->gate & X86_AR_P)) {
        refuse(t, w, X86_NP, error);
        return false;
    }
    if (!is_event(t) && LONG_MODE && (t->gate_upper >> 40 & 0x1f)) {
        refuse(t, w, X86_GP, error);
        return false;
    }
    return true;
}

/* Its target; false: refused. */
static bool model_target(const struct test *t, struct ending *w, unsigned *cpl) {
    unsigned byte = byte_of(t), dpl = byte >> 5 & 3, err = t->sel & 0xfffc;
    bool is_code = (byte & 0x18) == 0x18, conforming = is_code && (byte & X86_AR_EXPDOWN);

    *cpl = conforming ? t->cpl : dpl;
    if (!err || err >= BEYOND || (err & X86_SEL_TI) || !is_code || dpl > t->cpl ||
        (t->how == JMP && *cpl != t->cpl) || (LONG_MODE && (t->desc >> 53 & 3) != 1)) {
        refuse(t, w, X86_GP, err);
        return false;
    }
    if (!(byte & X86_AR_P)) {
        refuse(t, w, X86_NP, err);
        return false;
    }
    return true;
}

/* Where the frame begins, and the stack segment of the handler. */
static void model_stack(const struct test *t, struct ending *w, unsigned cpl) {
    bool inner = cpl < t->cpl;

    if (LONG_MODE && is_event(t) && t->extra) {
#ifdef __x86_64__
        w->r.sp = tss.ist[t->extra - 1];
#endif
    } else if (inner) {
        w->r.sp = tss_sp[cpl];
    }
    if (inner)
        w->r.ss = LONG_MODE ? cpl : tss_ss[cpl];
    if (LONG_MODE && is_event(t))
        w->r.sp &= ~15ul;
}

static void model_frame(const struct test *t, unsigned cpl) {
    bool inner = cpl < t->cpl;
    uint8_t *old = (uint8_t *)in.sp;
    ulong next = (ulong)code[t->how] + CODE_LEN(code[t->how]) - 2;

    frame.size = LONG_MODE ? 8 : t->gate & 8 ? 4 : 2;
    if (inner || (LONG_MODE && is_event(t))) {
        push(in.ss);
        push(in.sp);
    }
    if (is_event(t)) {
        push(in.flags | (is_fault(t) && !tcg ? X86_FL_RF : 0));
    } else if (inner && !LONG_MODE) {
        for (unsigned k = t->extra; k-- > 0;) {
            ulong val = 0;

            memcpy(&val, old + k * frame.size, frame.size);
            push(val);
        }
    }
    if (t->how != JMP) {
        push(in.cs);
        push(is_fault(t) ? (ulong)code[t->how] : next);
    }
    if (t->how == WITH_CODE)
        push(NP_SEL);
}

static void model(const struct test *t, struct ending *w) {
    unsigned cpl;

    frame.n = 0;
    if (!model_gate(t, w) || !model_target(t, w, &cpl))
        return;
    if (t->stack_vector) {
        refuse(t, w, t->stack_vector, t->stack_error);
        return;
    }
    if (LONG_MODE ? !canonical(t->off) : t->off > (t->desc & 0xffff)) {
        refuse(t, w, X86_GP, 0);
        return;
    }
    model_frame(t, cpl);
    model_stack(t, w, cpl);
    w->r.sp -= frame.n * frame.size;
    w->r.cs = (t->sel & 0xfffcu) | cpl;
    w->r.ip = (ulong)t->off + 2;
    if (is_event(t))
        w->r.flags &= ~(ulong)(X86_FL_NT | (t->gate & 1 ? 0 : X86_FL_IF));
}

/* --- one case --- */

static void set_gate(const struct test *t) {
    uint64_t g[2];
    /* A gate of 16 bits has no upper half of the offset, but TCG takes one. */
    uint64_t high = !LONG_MODE && !(t->gate & 8) && !tcg ? 0xdead : t->off >> 16 & 0xffff;

    g[0] = (t->off & 0xffff) | (uint64_t)t->sel << 16 | (uint64_t)t->extra << 32 |
           (uint64_t)t->gate << 40 | high << 48;
    g[1] = t->off >> 32 | t->gate_upper;
    if (is_event(t))
        memcpy(&idt[vectors[t->how]], g, sizeof(idt[0]));
    else
        memcpy(&gdt[GATE_SEL >> 3], g, LONG_MODE ? 16 : 8);
}

static bool frame_ok(const struct ending *w) {
    const uint8_t *p = (const uint8_t *)(w->r.sp & stack_mask);

    for (unsigned k = frame.n; k-- > 0; p += frame.size) {
        ulong got = 0, want = 0;

        memcpy(&got, p, frame.size);
        memcpy(&want, &frame.slot[k], frame.size);
        if (!ending_also(got == want, "frame, %u from its start: 0x%lx, want 0x%lx", k,
                         got, want))
            return false;
    }
    return true;
}

#ifndef __x86_64__
/* Where #TS and #SS go when the stack of level 0 is bad: to a handler of the same level,
 * which mends it. Its frame is then what the trap would have been. */
static void *escape[3];
static const uint8_t escape_vectors[] = {X86_TS, X86_SS, X86_DF};

static void unwrap(void) {
    const uint32_t *f = (const uint32_t *)trap.r.sp;

    for (unsigned k = 0; k < COUNT(escape); k++)
        if (trap.vector == DONE && trap.r.ip == (ulong)escape[k] + CODE_LEN(escape[k])) {
            trap.vector = escape_vectors[k];
            trap.error = f[0];
            trap.r.ip = f[1];
            trap.r.cs = f[2];
            trap.r.flags = f[3];
            trap.r.sp += 16;
        }
}

static void set_escape(unsigned cpl, bool on) {
    for (unsigned k = 0; k < COUNT(escape); k++)
        if (on)
            idt_set(escape_vectors[k], RING_CODE(32, cpl), escape[k], X86_DESC_INTGATE32,
                    3);
        else
            idt_reset(escape_vectors[k]);
}
#endif

/* TCG takes L together with D, and a call gate to a conforming segment to its DPL. */
static bool tcg_errs(const struct test *t) {
    unsigned byte = byte_of(t);

    return (t->desc >> 53 & 3) == 3 || (!is_event(t) && (byte & 0x1c) == 0x1c);
}

static void try(const struct test *t) {
    struct ending w;

    if (tcg && tcg_errs(t))
        return;
    set_gate(t);
    gdt[TARGET_SEL >> 3] = t->desc;
    regs_ring(t->bits, t->cpl);
    in.flags = FLAGS | (t->how == INTO ? X86_FL_OF : 0);
    in.bx = (ulong)&far_pointer;
    in.sp -= 132; /* for the alignment that events of long mode make */
    for (unsigned k = 0; k < 32; k++)
        ((uint32_t *)in.sp)[k] = 0x10001000 + k * 0x30003;
    far_pointer.off = 0x12345678;
    far_pointer.sel = (uint16_t)(GATE_SEL | t->rpl);
    if (t->how == WITH_CODE)
        in.ax = NP_SEL;
    ending_begin(&w, code[t->how]);
    model(t, &w);
    run(code[t->how]);
#ifndef __x86_64__
    unwrap();
#endif
    if (trap.vector == X86_DF) /* an abort, of whose RF nothing is said */
        trap.r.flags |= X86_FL_RF;
    if (is_event(t))
        idt_reset(vectors[t->how]);
    if (ending_judge(
            &w, "%s%s, %u-bit, CPL %u, RPL %u, gate 0x%x, %u, to 0x%x, 0x%08x%08x",
            names[t->how], t->what ? t->what : "", t->bits, t->cpl, t->rpl, t->gate,
            t->extra, t->sel, (uint32_t)(t->desc >> 32), (uint32_t)t->desc) &&
        w.vector == DONE && !frame_ok(&w))
        note("that was %s%s", names[t->how], t->what ? t->what : "");
}

/* --- the enumeration --- */

/* A target of type BYTE; LD: L and D. Where a code segment of long mode is right its base
 * does not count; elsewhere it does. */
static void set_target(struct test *t, unsigned byte, unsigned ld) {
    t->sel = (uint16_t)(TARGET_SEL | (random32() & 3));
    t->off = LONG_MODE ? (ulong)target : TARGET_OFF;
    t->desc = make_desc((ulong)target - TARGET_OFF, 0xffff, byte, ld << 1);
}

static const uint8_t call_types[] = {X86_DESC_CALLGATE32, X86_DESC_CALLGATE16};
static const uint8_t event_types[] = {X86_DESC_INTGATE32, X86_DESC_TRAPGATE32,
                                      X86_DESC_INTGATE16, X86_DESC_TRAPGATE16};

static unsigned gate_types(const struct test *t) {
    return (is_event(t) ? 4 : 2) / (LONG_MODE ? 2 : 1);
}

static unsigned gate_type(const struct test *t, unsigned n) {
    return is_event(t) ? event_types[n] : call_types[n];
}

/* How, mode and CPL. */
static void for_each(void (*each)(struct test *t)) {
    for (unsigned how = 0; how < HOW_COUNT; how++)
        for (unsigned bits = 32; bits <= (LONG_MODE ? 64 : 32); bits += 32)
            for (unsigned cpl = 0; cpl < 4; cpl++) {
                struct test t = {.how = how, .bits = bits, .cpl = cpl};

                if (code[how] && !(bits == 64 && how == INTO))
                    each(&t);
            }
}

/* Gate type, DPL and P, and with a call the selector's RPL, x all targets. */
static void each_target(struct test *t) {
    for (unsigned n = 0; n < gate_types(t) * 4; n++)
        for (unsigned byte = 0; byte < 256; byte++) {
            /* Of L and D against P the manuals give no order for events. */
            bool fixed = is_event(t) && !(byte & X86_AR_P);
            unsigned lds = LONG_MODE && (byte & 0x18) == 0x18 && !fixed ? 4 : 1;

            for (unsigned ld = 0; ld < lds; ld++) {
                t->gate = X86_AR_P | (n & 3) << 5 | gate_type(t, n / 4);
                t->extra = is_event(t) ? 0 : random32() & 31;
                t->rpl = random32() & 3;
                set_target(t, byte, lds > 1 ? ld : LONG_MODE ? 1 : random32() & 3);
                try(t);
            }
        }
    t->extra = 0;
}

/* All types of gates of all kinds in the IDT, not all of a kind that can be called. */
static void each_gate(struct test *t) {
    for (unsigned n = 0; n < 256 * 4; n++) {
        unsigned type = n & 0x1f;
        bool callable = type == X86_DESC_CALLGATE32 || type == X86_DESC_CALLGATE16;

        t->rpl = n >> 8;
        t->gate = n & 0xff;
        if (is_event(t) ? (n >= 256 || (!LONG_MODE && type == X86_DESC_TASKGATE))
                        : !callable)
            continue;
        set_target(t, 0x9b | t->cpl << 5, LONG_MODE ? 1 : 2);
        try(t);
    }
    t->rpl = 0;
}

/* Selectors that lead nowhere, offsets that do; inner and same level. */
static void each_place(struct test *t) {
    static const uint16_t sels[] = {0, 1, 3, BEYOND, BEYOND | 3, LDT_SS, 0xfff8};
    static const uint64_t offs[] = {1ull << 47,      0xffff7fffffffffff, 1ull << 63,
                                    0x8000ull << 36, ~0ull << 40 >> 1,   1ull << 48};

    for (unsigned n = 0; n < gate_types(t) * (t->cpl + 1); n++) {
        t->gate = X86_AR_P | 3 << 5 | gate_type(t, n % gate_types(t));
        for (unsigned k = 0; k < COUNT(sels); k++) {
            set_target(t, 0x9b | (n / gate_types(t)) << 5, LONG_MODE ? 1 : 2);
            t->sel = sels[k];
            if (t->sel == LDT_SS && LONG_MODE)
                continue;
            try(t);
        }
        for (unsigned k = 0; k < COUNT(offs); k++) {
            set_target(t, 0x9b | (n / gate_types(t)) << 5, LONG_MODE ? 1 : 2);
            if (LONG_MODE)
                t->off = offs[k];
            else
                t->desc = make_desc((ulong)target - TARGET_OFF,
                                    TARGET_OFF - 1 + (k & 1) * 2, byte_of(t), 4);
            try(t);
        }
    }
}

/* --- stacks of inner levels --- */

static void tss_stack(unsigned level, uint16_t ss, ulong sp) {
    tss_ss[level] = ss;
    tss_sp[level] = sp;
#ifdef __x86_64__
    tss.rsp[level] = sp;
#else
    (&tss.esp0)[2 * level] = sp;
    (&tss.ss0)[2 * level] = ss;
#endif
}

/* As they are when nothing is wrong; long mode's are not aligned. */
static void tss_good(void) {
    tss_stack(0, KDS, (ulong)trap_stack + sizeof(trap_stack));
    for (unsigned n = 1; n < 3; n++)
        tss_stack(n, (uint16_t)RING_DATA(n), (ulong)stacks[n] + sizeof(stacks[n]) - 8);
}

static void load_tss(void *at, unsigned limit, unsigned type) {
    gdt_set_sys(TSS_SEL, (ulong)at, limit, X86_AR_P | type);
    __asm__ volatile("ltr %w0" ::"r"(TSS_SEL));
}

/* A gate that leads to LEVEL, N of them. */
static void gate_to(struct test *t, unsigned level, unsigned n) {
    t->gate = X86_AR_P | 3 << 5 | gate_type(t, n);
    set_target(t, 0x9b | level << 5, LONG_MODE ? 1 : 2);
    t->stack_vector = 0;
}

static void ends(struct test *t, const char *what, unsigned vector, unsigned error) {
    t->what = what;
    t->stack_vector = vector;
    t->stack_error = (uint16_t)error;
    try(t);
}

#ifndef __x86_64__
/* The stack segment is BYTE, with LIMIT and FLAGS; its selector SS. */
static void stack_case(struct test *t, const char *what, unsigned level, uint16_t ss,
                       unsigned byte, uint32_t limit, unsigned flags, unsigned vector) {
    bool marks = !vector && !(byte & 1);

    gdt[SS_SEL >> 3] = make_desc(0, limit, byte, flags);
    tss_stack(level, ss, LOW_SP | (flags & 4 ? 0 : 0xabcd0000));
    stack_mask = flags & 4 ? ~0ul : 0xffff;
    ends(t, what, vector, ss & 0xfffc);
    stack_mask = ~0ul;
    ending_also(!marks || (gdt[SS_SEL >> 3] >> 40 & 1), "%s: the stack is not accessed",
                names[t->how]);
}

static void bad_segments(struct test *t, unsigned level) {
    uint16_t ss = (uint16_t)(SS_SEL | level);
    unsigned dpl = level << 5, good = 0x93 | dpl;

    stack_case(t, ", null SS", level, 0, good, ~0u, 4, X86_TS);
    stack_case(t, ", null SS with RPL", level, (uint16_t)level, good, ~0u, 4, X86_TS);
    stack_case(t, ", SS beyond", level, (uint16_t)(BEYOND | level), good, ~0u, 4, X86_TS);
    stack_case(t, ", SS in no LDT", level, (uint16_t)(LDT_SS | level), good, ~0u, 4,
               X86_TS);
    for (unsigned n = 1; n < 4; n++) {
        stack_case(t, ", RPL of SS", level, ss ^ n, good, 0xfffff, 4, X86_TS);
        stack_case(t, ", DPL of SS", level, ss, good ^ n << 5, 0xfffff, 4, X86_TS);
    }
    for (unsigned type = 0; type < 32; type++) {
        bool fits = (type & 0x1a) == 0x12; /* data, writable */
        bool down = fits && (type & X86_AR_EXPDOWN);
        uint32_t limit = down ? 0x1000 : 0xfffff;

        stack_case(t, ", type of SS", level, ss, 0x80 | dpl | type, limit, 4,
                   fits ? 0 : X86_TS);
        stack_case(t, ", SS not present", level, ss, dpl | type, limit, 4,
                   fits ? X86_SS : X86_TS);
    }
}

/* The frame fits to the byte, or is a byte too long. */
static void narrow_segments(struct test *t, unsigned level) {
    uint16_t ss = (uint16_t)(SS_SEL | level);
    unsigned good = 0x93 | level << 5, down = good | X86_AR_EXPDOWN;
    unsigned size = t->gate & 8 ? 4 : 2;
    uint32_t bottom =
        LOW_SP - (is_event(t) ? 5 + (t->how == WITH_CODE) : 4 + t->extra) * size;

    stack_case(t, ", SS just right", level, ss, good, LOW_SP - 1, 4, 0);
    stack_case(t, ", SS too short", level, ss, good, LOW_SP - 2, 4, X86_SS);
    stack_case(t, ", SS ends in the frame", level, ss, good, bottom + 1, 4, X86_SS);
    stack_case(t, ", SS begins in the frame", level, ss, down, bottom, 4, X86_SS);
    if (level) { /* where the trap that tells of it needs no more of this stack */
        stack_case(t, ", SS begins at the frame", level, ss, down, bottom - 1, 4, 0);
        stack_case(t, ", 16-bit SS", level, ss, good, LOW_SP - 1, 0, 0);
        stack_case(t, ", 16-bit SS begins in the frame", level, ss, down, bottom, 0,
                   X86_SS);
    }
}

static void short_tss(struct test *t, unsigned level) {
    static uint16_t tss16[22];

    tss_good();
    if (level) {
        load_tss(&tss, 4 + 8 * level + 4, X86_DESC_TSS32);
        ends(t, ", short TSS", X86_TS, TSS_SEL);
        load_tss(&tss, 4 + 8 * level + 7, X86_DESC_TSS32);
        ends(t, ", TSS just right", 0, 0);
    }
    for (unsigned n = 0; n < 3; n++) {
        tss16[1 + 2 * n] = n == level ? LOW_SP : 0xf000;
        tss16[2 + 2 * n] = (uint16_t)(n ? RING_DATA(n) : KDS);
    }
    tss_stack(level, tss16[2 + 2 * level], LOW_SP);
    load_tss(tss16, sizeof(tss16) - 1, X86_DESC_TSS16);
    ends(t, ", 16-bit TSS", 0, 0);
    if (level) {
        load_tss(tss16, 2 + 4 * level + 2, X86_DESC_TSS16);
        ends(t, ", short 16-bit TSS", X86_TS, TSS_SEL);
        load_tss(tss16, 2 + 4 * level + 3, X86_DESC_TSS16);
        ends(t, ", 16-bit TSS just right", 0, 0);
    }
    load_tss(&tss, sizeof(tss) + 8192, X86_DESC_TSS32);
}

static void each_stack(struct test *t) {
    for (unsigned level = 0; level < t->cpl && t->how != JMP; level++)
        for (unsigned n = 0; n < gate_types(t); n++)
            for (unsigned k = 0; k < (is_event(t) ? 1 : 32); k++) {
                gate_to(t, level, n);
                t->extra = k;
                set_escape(t->cpl, level == 0);
                if (k < 4)
                    bad_segments(t, level);
                narrow_segments(t, level);
                set_escape(t->cpl, false);
                short_tss(t, level);
                tss_good();
            }
    t->extra = t->stack_vector = 0;
    t->what = NULL;
}
#else
static const ulong bad_sp[] = {(1ul << 47) + 4096, 0xffff7ffffffffff8, 1ul << 63,
                               0x8000000000000, 0x5555555555555555};

/* #TS and #SS on a stack that is good. */
static void use_ist(unsigned n) {
    idt[X86_TS].ist = idt[X86_SS].ist = idt[X86_DF].ist = (uint8_t)n;
}

static void each_stack(struct test *t) {
    for (unsigned level = 0; level < t->cpl && t->how != JMP; level++)
        for (unsigned n = 0; n < gate_types(t); n++) {
            gate_to(t, level, n);
            use_ist(1);
            for (unsigned k = 0; k < COUNT(bad_sp); k++) {
                tss_stack(level, 0, bad_sp[k]);
                ends(t, ", RSP not canonical", X86_SS, 0);
            }
            tss_good();
            for (unsigned k = 0; k < 16; k++) {
                tss_stack(level, 0, tss_sp[level] - 1);
                ends(t, ", RSP not aligned", 0, 0);
            }
            tss_good();
            use_ist(0);
            if (!level)
                continue;
            load_tss(&tss, 4 + 8 * level + 6, X86_DESC_TSS32);
            ends(t, ", short TSS", X86_TS, TSS_SEL);
            load_tss(&tss, 4 + 8 * level + 7, X86_DESC_TSS32);
            ends(t, ", TSS just right", 0, 0);
            load_tss(&tss, sizeof(tss) - 1, X86_DESC_TSS32);
        }
    t->stack_vector = 0;
    t->what = NULL;
}

static void each_ist(struct test *t) {
    for (unsigned n = 0; n < 2 * 7 * (t->cpl + 1) && is_event(t); n++) {
        ulong good = tss.ist[n % 7];

        gate_to(t, n / 14, n / 7 & 1);
        t->extra = n % 7 + 1;
        for (unsigned k = 0; k < 16; k++) {
            ends(t, ", IST", 0, 0);
            tss.ist[n % 7]--;
        }
        for (unsigned k = 0; k < COUNT(bad_sp); k++) {
            tss.ist[n % 7] = bad_sp[k];
            ends(t, ", IST not canonical", X86_SS, 0);
        }
        tss.ist[n % 7] = good;
        load_tss(&tss, 0x24 + 8 * (n % 7) + 6, X86_DESC_TSS32);
        ends(t, ", IST beyond the TSS", X86_TS, TSS_SEL);
        load_tss(&tss, 0x24 + 8 * (n % 7) + 7, X86_DESC_TSS32);
        ends(t, ", IST at the TSS's end", 0, 0);
        load_tss(&tss, sizeof(tss) - 1, X86_DESC_TSS32);
    }
    t->extra = t->stack_vector = 0;
    t->what = NULL;
}
#endif

static void make_code(void) {
    code[CALL] = CODE(".byte 0xff, 0x1b");
    code[JMP] = CODE(".byte 0xff, 0x2b");
    code[INT_N] = CODE("int 0x50");
    code[INT3] = CODE(".byte 0xcc");
    code[INTO] = CODE(".byte 0xce");
    code[INT1] = CODE(".byte 0xf1");
    code[EXCEPTION] = CODE("ud2");
    code[WITH_CODE] = CODE("mov fs, eax");
    gdt_set(NP_SEL, make_desc(0, 0, X86_AR_S | X86_AR_DPL, 0));
    target = CODE("");
#ifndef __x86_64__
#define MEND                                                                             \
    "mov dword ptr [tss + 8], 0x10\nmov dword ptr [tss + 4], offset trap_stack + "       \
    "16384\n"
    escape[0] = CODE(MEND);
    escape[1] = CODE(MEND);
    escape[2] = CODE(MEND);
#endif
}

void guest_main(void) {
    tcg = cpu_is_tcg();
    make_code();
    rings_set();
    tss_good();
    for_each(each_target);
    for_each(each_gate);
    for_each(each_place);
    for_each(each_stack);
#ifdef __x86_64__
    for (unsigned n = 0; n < 7; n++)
        tss.ist[n] = (ulong)ist_stack + sizeof(ist_stack) - 256 - 8 * n;
    for_each(each_ist);
#endif
    rings_report();
}
