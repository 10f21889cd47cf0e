/*
 * Task switches: by JMP, CALL, INT n, exceptions and IRET, directly and through task
 * gates, between 16-bit and 32-bit TSSs; every check on the way with its error code, and
 * when it succeeds every byte of both TSSs, both descriptors and the new task's state.
 *
 * Intel SDM volume 3, "Task Management", its table "Exception Conditions Checked During a
 * Task Switch"; AMD64 APM volume 2, "Task Management". Cases have one thing wrong at a
 * time, because the order of checks in the new task is a processor's own.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define CODE_SEL(n) (FREE_SEL + 9u * (n))
#define DATA_SEL(n) (FREE_SEL + 0x20u + 9u * (n))
#define OLD_SEL (FREE_SEL + 0x40u)
#define NEW_SEL (FREE_SEL + 0x48u)
#define GATE_SEL (FREE_SEL + 0x50u)
#define SUBJECT (FREE_SEL + 0x58u)
#define BEYOND (GDT_COUNT * 8u)

#define LAND 0x8000ul /* int 0x81 */
#define NEW_SP 0x9f00ul
#define TASK_SP0 0xf000ul
#define FRAME 0x1b000ul
#define VECTOR 0x50u

#define EXT 1u
#define IDT_BIT 2u

enum how { JMP, CALL, JMP_GATE, CALL_GATE, INT_N, FAULT, FAULT_ERR, IRET, HOW_COUNT };
static const char *const how_names[] = {"jmp",   "call",  "jmp gate",        "call gate",
                                        "int n", "fault", "fault with code", "iret"};
static void *code[HOW_COUNT];
static unsigned length[HOW_COUNT];

/* A TSS of either width in one shape. Order of `reg`: ax cx dx bx sp bp si di. */
struct task {
    uint32_t link, ip, flags, reg[8], seg[6], ldt; /* es cs ss ds fs gs */
    uint16_t trap;
};
enum { ES, CS, SS, DS, FS, GS };

static uint8_t old_tss[128] __attribute__((aligned(128)));
static uint8_t new_tss[128] __attribute__((aligned(128)));
static uint8_t want_old[128] __attribute__((aligned(4)));
static uint8_t want_new[128] __attribute__((aligned(4)));
static struct task incoming;
static struct {
    uint32_t off;
    uint16_t sel;
} __attribute__((packed)) far_ptr;

/* How a case must end. */
static struct {
    unsigned vector;
    ulong error;
    bool switched, pushed;
    unsigned tr;
    struct regs r;
} want;

/* What the last one left behind; of TR the RPL is a processor's own. */
static struct {
    unsigned tr, ldt;
    bool ts;
} left;

static unsigned cases, bad;
static uint64_t digest = 0xcbf29ce484222325;
static bool old_wide, new_wide, tcg;

static void digest_add(uint64_t v) {
    digest = (digest ^ v) * 0x100000001b3;
}

static unsigned ar_of(unsigned sel) {
    return gdt[sel >> 3] >> 40 & 0xf0ff;
}

static unsigned dpl_of(unsigned ar) {
    return (ar & X86_AR_DPL) >> X86_AR_DPL_SHIFT;
}

static uint32_t limit_of(unsigned sel) {
    uint64_t d = gdt[sel >> 3];
    uint32_t limit = (uint32_t)(d & 0xffff) | (uint32_t)(d >> 32 & 0xf0000);
    return d >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

static bool named(unsigned sel) {
    return !(sel & X86_SEL_TI) && (sel | 7) < BEYOND;
}

/* --- TSSs --- */

static void put(uint8_t *image, unsigned at, uint32_t v, unsigned width) {
    if (width == 4)
        *(uint32_t *)(image + at) = v;
    else
        *(uint16_t *)(image + at) = (uint16_t)v;
}

/* Intel SDM volume 3, "Task-State Segment (TSS)" and "16-Bit Task-State Segment". */
static void tss_write(uint8_t *image, bool wide, const struct task *t) {
    unsigned w = wide ? 4 : 2, at = wide ? 0x20 : 0x0e;
    memset(image, 0xee, 128);
    put(image, 0, t->link, 2);
    put(image, wide ? 4 : 2, TASK_SP0, w);
    put(image, wide ? 8 : 4, KDS, 2);
    put(image, at, t->ip, w);
    put(image, at + w, t->flags, w);
    for (unsigned k = 0; k < 8; k++)
        put(image, at + (2 + k) * w, t->reg[k], w);
    for (unsigned k = 0; k < (wide ? 6 : 4); k++)
        put(image, at + (10 + k) * w, t->seg[k], 2);
    put(image, wide ? 0x60 : 0x2a, t->ldt, 2);
    if (wide) {
        put(image, 0x1c, (uint32_t)read_cr3(), 4);
        put(image, 0x64, t->trap, 2);
    }
}

/* What a switch saves of `in` into a copy of the old TSS. */
static void model_save(uint8_t *image, bool wide, ulong ip, ulong flags) {
    const uint32_t regs[] = {in.ax, in.cx, in.dx, in.bx, in.sp, in.bp, in.si, in.di};
    const uint32_t segs[] = {in.es, in.cs, in.ss, in.ds, in.fs, in.gs};
    unsigned w = wide ? 4 : 2, at = wide ? 0x20 : 0x0e;
    put(image, at, ip, w);
    put(image, at + w, flags, w);
    for (unsigned k = 0; k < 8; k++)
        put(image, at + (2 + k) * w, regs[k], w);
    for (unsigned k = 0; k < (wide ? 6 : 4); k++)
        put(image, at + (10 + k) * w, segs[k], 2);
}

static unsigned tss_type(bool wide) {
    return wide ? X86_DESC_TSS32 : X86_DESC_TSS16;
}

/* --- the model --- */

static bool fails(unsigned vector, unsigned error) {
    want.vector = vector;
    want.error = error;
    return false;
}

/* The error code of something wrong with SEL. */
static unsigned about(unsigned sel, enum how how) {
    return (sel & ~3u) | (how == FAULT || how == FAULT_ERR ? EXT : 0);
}

/* The TSS itself; by a gate its DPL does not count. */
static bool model_tss(unsigned sel, enum how how, unsigned cpl) {
    unsigned e = about(sel, how), vector = how == IRET ? X86_TS : X86_GP;
    unsigned ar = ar_of(sel), type = ar & 0x1f, busy = how == IRET ? 2 : 0;
    if (!named(sel) || (type != (1u | busy) && type != (9u | busy)))
        return fails(vector, e);
    if ((how == JMP || how == CALL) && (dpl_of(ar) < cpl || dpl_of(ar) < (sel & 3)))
        return fails(X86_GP, e);
    if (!(ar & X86_AR_P))
        return fails(X86_NP, e);
    if (limit_of(sel) < (type & 8 ? 0x67u : 0x2bu))
        return fails(X86_TS, e);
    return true;
}

static bool model_gate(unsigned sel, enum how how, unsigned cpl, unsigned *target) {
    unsigned dpl, ar;
    if (how == INT_N || how >= FAULT) {
        unsigned v = how == INT_N ? VECTOR : how == FAULT ? X86_UD : X86_GP;
        unsigned e = v * 8 + IDT_BIT + (how == INT_N ? 0 : EXT);
        ar = idt[v].ar, dpl = dpl_of(ar);
        *target = idt[v].sel;
        if (how == INT_N && dpl < cpl)
            return fails(X86_GP, e);
        return ar & X86_AR_P ? true : fails(X86_NP, e);
    }
    ar = ar_of(sel), dpl = dpl_of(ar);
    *target = gdt[sel >> 3] >> 16 & 0xffff;
    if (dpl < cpl || dpl < (sel & 3))
        return fails(X86_GP, sel & ~3u);
    return ar & X86_AR_P ? true : fails(X86_NP, sel & ~3u);
}

static bool is_code(unsigned ar) {
    return (ar & X86_AR_S) && (ar & X86_AR_CODE);
}

static bool model_ldt(unsigned sel, enum how how) {
    if (sel < 4)
        return true;
    if (!named(sel) || (ar_of(sel) & 0x9f) != (X86_AR_P | X86_DESC_LDT))
        return fails(X86_TS, about(sel, how));
    return true;
}

static bool model_cs(unsigned sel, enum how how) {
    unsigned ar = ar_of(sel), rpl = sel & 3, dpl = dpl_of(ar);
    if (sel < 4 || !named(sel) || !is_code(ar) ||
        (ar & X86_AR_EXPDOWN ? dpl > rpl : dpl != rpl))
        return fails(X86_TS, about(sel, how));
    return ar & X86_AR_P ? true : fails(X86_NP, about(sel, how));
}

static bool model_ss(unsigned sel, unsigned cpl, enum how how) {
    unsigned ar = ar_of(sel);
    if (sel < 4 || !named(sel) || (sel & 3) != cpl || dpl_of(ar) != cpl ||
        (ar & (X86_AR_S | X86_AR_CODE | X86_AR_WRITE)) != (X86_AR_S | X86_AR_WRITE))
        return fails(X86_TS, about(sel, how));
    return ar & X86_AR_P ? true : fails(X86_SS, about(sel, how));
}

static bool model_data(unsigned sel, unsigned cpl, enum how how) {
    unsigned ar = ar_of(sel), dpl = dpl_of(ar);
    bool conforming = is_code(ar) && (ar & X86_AR_EXPDOWN);
    if (sel < 4)
        return true;
    if (!named(sel) || !(ar & X86_AR_S) || (is_code(ar) && !(ar & X86_AR_WRITE)) ||
        (!conforming && (dpl < cpl || dpl < (sel & 3))))
        return fails(X86_TS, about(sel, how));
    return ar & X86_AR_P ? true : fails(X86_NP, about(sel, how));
}

static void model_new_regs(enum how how) {
    const struct task *t = &incoming;
    uint32_t m = new_wide ? ~0u : 0xffff;
    want.r = (struct regs){
        .ax = t->reg[0] & m,
        .cx = t->reg[1] & m,
        .dx = t->reg[2] & m,
        .bx = t->reg[3] & m,
        .sp = t->reg[4] & m,
        .bp = t->reg[5] & m,
        .si = t->reg[6] & m,
        .di = t->reg[7] & m,
        .ip = t->ip & m,
        .flags = (t->flags & m) | X86_FL_ONE,
        .es = t->seg[ES],
        .cs = t->seg[CS],
        .ss = t->seg[SS],
        .ds = t->seg[DS],
        .fs = new_wide ? t->seg[FS] : 0,
        .gs = new_wide ? t->seg[GS] : 0,
    };
    if (how != JMP && how != JMP_GATE && how != IRET)
        want.r.flags |= X86_FL_NT;
}

static void model_new(enum how how) {
    const struct task *t = &incoming;
    unsigned cpl = t->seg[CS] & 3;
    model_new_regs(how);
    if (!model_ldt(t->ldt, how))
        return;
    if (!(want.r.flags & X86_FL_VM)) {
        if (!model_cs(t->seg[CS], how) || !model_ss(t->seg[SS], cpl, how) ||
            !model_data(t->seg[ES], cpl, how) || !model_data(t->seg[DS], cpl, how) ||
            !model_data((unsigned)want.r.fs, cpl, how) ||
            !model_data((unsigned)want.r.gs, cpl, how))
            return;
        if (t->ip > limit_of(t->seg[CS])) {
            want.vector = X86_GP;
            want.error = how == FAULT || how == FAULT_ERR ? EXT : 0;
            return;
        }
    }
    if (how == FAULT_ERR) {
        want.pushed = true;
        want.r.sp -= new_wide ? 4 : 2;
    }
    want.vector = DONE;
    want.r.ip += 2;
}

/* From the state in `in`, the tables, and what `incoming` has become in the new TSS. */
static void model(enum how how) {
    unsigned cpl = in.cs & 3, target = far_ptr.sel;
    memset(&want, 0, sizeof(want));
    memcpy(want_old, old_tss, 128);
    memcpy(want_new, new_tss, 128);
    want.r = in;
    want.r.ip = (ulong)code[how];
    want.tr = OLD_SEL;
    if (how == IRET)
        target = *(uint16_t *)old_tss;
    else if (how >= JMP_GATE && !model_gate(far_ptr.sel, how, cpl, &target))
        return;
    if (!model_tss(target, how, cpl))
        return;
    want.switched = true;
    want.tr = target & ~3u;
    ulong next = (ulong)code[how] + length[how];
    model_save(want_old, old_wide, how == FAULT || how == FAULT_ERR ? want.r.ip : next,
               how == IRET ? in.flags & ~(ulong)X86_FL_NT : in.flags);
    if (how != JMP && how != JMP_GATE && how != IRET)
        put(want_new, 0, OLD_SEL, 2);
    model_new(how);
}

/* --- cases --- */

static void from_level(unsigned cpl) {
    regs_kernel();
    in.cs = CODE_SEL(cpl);
    in.ss = in.es = DATA_SEL(cpl);
    in.ds = DATA_SEL(3);
    in.fs = DATA_SEL(3), in.gs = 0;
    in.sp = FRAME;
    in.ax = 0xa1a2a3a4, in.bx = (ulong)&far_ptr, in.cx = 0x3458, in.dx = 0xd1d2d3d4;
    in.si = 0x51525354, in.di = 0xd5d6d7d8, in.bp = 0xb5b6b7b8;
    in.flags = X86_FL_ONE | X86_FL_CF | X86_FL_DF | X86_FL_ID;
}

/* A task of level CPL that lands. */
static void to_level(unsigned cpl) {
    incoming = (struct task){
        .link = 0xbbbb,
        .ip = LAND,
        .flags = X86_FL_ONE | X86_FL_ZF | X86_FL_SF,
        .reg = {0x1a1a1a1a, 0x1c1c1c1c, 0x1d1d1d1d, 0x1b1b1b1b, NEW_SP, 0x15151515,
                0x16161616, 0x17171717},
        .seg = {DATA_SEL(3), CODE_SEL(cpl), DATA_SEL(cpl), DATA_SEL(cpl), 0, DATA_SEL(3)},
    };
}

/* The tables as most cases want them, with TSSs of these widths. */
static void prepare(bool from_wide, bool to_wide, enum how how) {
    struct task t = {.ip = 0x1234, .flags = 0x5678};
    old_wide = from_wide, new_wide = to_wide;
    t.link = NEW_SEL;
    tss_write(old_tss, from_wide, &t);
    tss_write(new_tss, to_wide, &incoming);
    gdt_set_sys(OLD_SEL, (ulong)old_tss, 0x67, X86_AR_P | tss_type(from_wide));
    __asm__ volatile("ltr %w0" ::"r"(OLD_SEL));
    gdt_set_sys(NEW_SEL, (ulong)new_tss, 0x67,
                X86_AR_P | X86_AR_DPL | tss_type(to_wide) | (how == IRET ? 2 : 0));
    gdt_set(GATE_SEL, (uint64_t)NEW_SEL << 16 |
                          (uint64_t)(X86_AR_P | X86_AR_DPL | X86_DESC_TASKGATE) << 40);
    far_ptr.off = 0x87654321;
    far_ptr.sel = how == JMP_GATE || how == CALL_GATE ? GATE_SEL | 3 : NEW_SEL | 3;
    idt_set(VECTOR, NEW_SEL, NULL, X86_DESC_TASKGATE, 3);
    if (how == IRET)
        in.flags |= X86_FL_NT;
}

/* What causes the switch goes by the same gate as INT n. */
static void arm(enum how how) {
    if (how == FAULT || how == FAULT_ERR)
        idt[how == FAULT ? X86_UD : X86_GP] = idt[VECTOR];
}

/* Back to the guest's own task. Reads what the switch left before it does. */
static void leave(void) {
    uint16_t sel, local;
    __asm__ volatile("str %0" : "=r"(sel));
    __asm__ volatile("sldt %0" : "=r"(local));
    left.tr = sel & ~3u, left.ldt = local;
    left.ts = read_cr0() & X86_CR0_TS;
    gdt[TSS_SEL >> 3] &= ~(2ull << 40);
    __asm__ volatile("ltr %w0; clts; lldt %w1" ::"r"(TSS_SEL), "r"(0));
    idt_reset(X86_UD);
    idt_reset(X86_GP);
    idt_reset(VECTOR);
}

static bool same(ulong a, ulong b) {
    return new_wide || !want.switched ? a == b : (a & 0xffff) == (b & 0xffff);
}

/* The upper halves of registers and flags after a 16-bit TSS are a processor's own. */
static bool regs_agree(void) {
    const struct regs *a = &trap.r, *b = &want.r;
    bool faulted = want.vector != DONE;
    ulong flags = new_wide || !want.switched ? ~(ulong)X86_FL_RF : 0xffff;
    return a->ip == b->ip && a->cs == b->cs && ((a->flags ^ b->flags) & flags) == 0 &&
           (!faulted || tcg || (a->flags & X86_FL_RF)) && same(a->sp, b->sp) &&
           (!(a->cs & 3) || a->ss == b->ss) && a->ds == b->ds && a->es == b->es &&
           a->fs == b->fs && a->gs == b->gs && same(a->ax, b->ax) && same(a->bx, b->bx) &&
           same(a->cx, b->cx) && same(a->dx, b->dx) && same(a->si, b->si) &&
           same(a->di, b->di) && same(a->bp, b->bp);
}

static bool tss_same(const uint8_t *a, const uint8_t *b) {
    uint32_t differ = 0;
    for (unsigned k = 0; k < 32; k++)
        differ |= ((const uint32_t *)a)[k] ^ ((const uint32_t *)b)[k];
    return !differ;
}

/* RF in the flags saved of a fault: set, says Intel's "Resume flag"; others differ. */
static bool tss_agree(enum how how) {
    if (how == FAULT || how == FAULT_ERR)
        old_tss[0x26] = want_old[0x26] = (uint8_t)(want_old[0x26] & ~1);
    return tss_same(old_tss, want_old) && tss_same(new_tss, want_new);
}

static bool descriptors_agree(enum how how, uint64_t old0, uint64_t new0) {
    uint64_t busy = 2ull << 40, old1 = old0, new1 = new0;
    if (want.switched && (how == JMP || how == JMP_GATE || how == IRET))
        old1 &= ~busy;
    if (want.switched && how != IRET)
        new1 |= busy;
    return gdt[OLD_SEL >> 3] == old1 && gdt[NEW_SEL >> 3] == new1;
}

static void tell_end(const char *what, unsigned vector, ulong error,
                     const struct regs *r) {
    printf("# %s %u error %lx %lx:%lx %lx:%lx fl %lx seg %lx %lx %lx %lx ax %lx\n", what,
           vector, error, r->cs, r->ip, r->ss, r->sp, r->flags, r->es, r->ds, r->fs,
           r->gs, r->ax);
}

static void tell(enum how how) {
    printf("# %s from %lx to %x:%x flags %x ss %x ldt %x; tss %x gate %x subject %x\n",
           how_names[how], in.cs, incoming.seg[CS], incoming.ip, incoming.flags,
           incoming.seg[SS], incoming.ldt, ar_of(NEW_SEL), ar_of(GATE_SEL),
           ar_of(SUBJECT));
    tell_end(" got", trap.vector, trap.error, &trap.r);
    tell_end("want", want.vector, want.error, &want.r);
    for (unsigned k = 0; k < 128; k++) {
        if (old_tss[k] != want_old[k] || new_tss[k] != want_new[k])
            printf("#  TSS +%x: old %x want %x, new %x want %x\n", k, old_tss[k],
                   want_old[k], new_tss[k], want_new[k]);
    }
}

/* A fault in a new task of level 0 before it has a stack would be a triple fault. */
static bool no_stack(enum how how) {
    if (!want.switched || want.vector == DONE || (want.r.cs & 3) ||
        (want.r.flags & X86_FL_VM))
        return false;
    return !model_ldt(incoming.ldt, how) || !model_cs((unsigned)want.r.cs, how) ||
           !model_ss((unsigned)want.r.ss, 0, how);
}

static void attempt(enum how how) {
    unsigned pushed = 0;
    arm(how);
    model(how);
    if (no_stack(how)) {
        leave();
        return;
    }
    uint64_t old0 = gdt[OLD_SEL >> 3], new0 = gdt[NEW_SEL >> 3];
    run(code[how]);
    bool ok = descriptors_agree(how, old0, new0);
    leave();
    if (want.pushed && trap.vector == DONE)
        memcpy(&pushed, (void *)trap.r.sp, new_wide ? 4 : 2);
    ok = ok && trap.vector == want.vector && trap.error == want.error && regs_agree() &&
         tss_agree(how) && left.tr == want.tr && left.ts == want.switched &&
         left.ldt == (want.switched ? incoming.ldt : 0) &&
         (!want.pushed || pushed == 0x3458);
    cases++;
    digest_add(trap.vector << 16 | trap.error);
    digest_add(trap.r.cs << 16 | left.tr);
    digest_add(trap.r.flags & ~(ulong)X86_FL_RF);
    uint32_t sum = 0;
    for (unsigned k = 0; k < 32; k++)
        sum = sum * 31 + ((uint32_t *)old_tss)[k];
    digest_add(sum);
    if (!ok && bad++ < 12) {
        printf("# tr %x ldt %x ts %u pushed %x\n", left.tr, left.ldt, left.ts, pushed);
        tell(how);
    }
}

/* Every way, between every two levels and TSSs of either width. */
static void all_ways(void) {
    for (unsigned how = 0; how < HOW_COUNT; how++) {
        for (unsigned k = 0; k < 64; k++) {
            from_level(k >> 2 & 3);
            to_level(k & 3);
            prepare(k & 16, k & 32, how);
            attempt(how);
        }
    }
}

/* What the incoming flags may hold. */
static void new_flags(void) {
    static const uint32_t flags[] = {X86_FL_IF,     X86_FL_IOPL, X86_FL_NT,
                                     X86_FL_AC,     X86_FL_ID,   X86_FL_DF,
                                     X86_FL_OF,     X86_FL_VIF,  X86_FL_VIP,
                                     X86_FL_STATUS, 1u << 12,    X86_FL_IF | X86_FL_NT};
    for (unsigned k = 0; k < COUNT(flags); k++) {
        for (unsigned how = 0; how < HOW_COUNT; how++) {
            from_level(k & 3);
            in.flags |= flags[COUNT(flags) - 1 - k] & ~X86_FL_NT;
            to_level(how & 3);
            incoming.flags = X86_FL_ONE | flags[k];
            prepare(true, true, how);
            attempt(how);
        }
    }
}

/* A task in virtual-8086 mode: 700:1000 is LAND. IOPL 3 lets it use INT. */
static void to_v86(void) {
    for (unsigned how = 0; how < HOW_COUNT; how++) {
        for (unsigned cpl = 0; cpl < 4; cpl++) {
            from_level(cpl);
            to_level(0);
            incoming.ip = 0x1000;
            incoming.flags = X86_FL_ONE | X86_FL_VM | X86_FL_IOPL;
            incoming.seg[CS] = 0x700;
            incoming.seg[SS] = 0x900, incoming.seg[DS] = 0x1111;
            incoming.seg[ES] = 0x2222, incoming.seg[FS] = 0x3333;
            incoming.seg[GS] = 0xffff;
            prepare(cpl & 1, true, how);
            if (how != FAULT_ERR) /* pushes at 900:NEW_SP */
                attempt(how);
        }
    }
}

/* The TSS descriptor named by the instruction: access byte, RPL, CPL. */
static void direct(void) {
    for (unsigned access = 0; access < 256; access++) {
        unsigned type = access & 0x1f;
        /* Gates and code are other transfers. */
        if (type == 4 || type == 5 || type == 12 || type >= 24)
            continue;
        for (unsigned k = 0; k < 32; k++) {
            enum how how = k & 16 ? CALL : JMP;
            from_level(k >> 2 & 3);
            to_level((k & 3) ^ 1);
            prepare(true, type & 8, how);
            gdt_set_sys(NEW_SEL, (ulong)new_tss, 0x67, access);
            far_ptr.sel = NEW_SEL | (k & 3);
            attempt(how);
        }
    }
}

/* What a gate, an IDT entry or a link can name. */
static void named_tss(enum how how, unsigned sel) {
    gdt_set(GATE_SEL, (gdt[GATE_SEL >> 3] & ~0xffff0000ull) | (uint64_t)sel << 16);
    idt[VECTOR].sel = (uint16_t)sel;
    if (how == IRET)
        put(old_tss, 0, sel, 2);
}

static void indirect(void) {
    static const unsigned odd[] = {0,      3,          7,   NEW_SEL | 4, NEW_SEL | 3,
                                   BEYOND, BEYOND + 7, KDS, 0xffff};
    for (unsigned how = JMP_GATE; how < HOW_COUNT; how++) {
        for (unsigned cpl = 0; cpl < 4; cpl++) {
            if (how == FAULT_ERR)
                continue; /* a fault of a fault */
            for (unsigned access = 0; access < 256; access++) {
                from_level(cpl);
                to_level(access & 3);
                prepare(true, access & 8, how);
                gdt_set_sys(NEW_SEL, (ulong)new_tss, 0x67, access);
                attempt(how);
            }
            for (unsigned k = 0; k < COUNT(odd); k++) {
                from_level(cpl);
                to_level(3);
                prepare(true, true, how);
                named_tss(how, odd[k]);
                attempt(how);
            }
        }
    }
}

static void gates(void) {
    for (unsigned how = JMP_GATE; how <= FAULT; how++) {
        for (unsigned k = 0; k < 128; k++) {
            unsigned ar = (k & 64 ? X86_AR_P : 0) | X86_DESC_TASKGATE | (k & 3) << 5;
            from_level(k >> 2 & 3);
            to_level(3);
            prepare(true, true, how);
            gdt_set(GATE_SEL, (uint64_t)NEW_SEL << 16 | (uint64_t)ar << 40);
            idt[VECTOR].ar = (uint8_t)ar;
            far_ptr.sel = (how <= CALL_GATE ? GATE_SEL : NEW_SEL) | (k >> 4 & 3);
            attempt(how);
        }
    }
}

static void limits(void) {
    static const uint32_t edges[] = {0, 0x2a, 0x2b, 0x2c, 0x66, 0x67, 0x68, 0xfffff};
    for (unsigned how = 0; how < HOW_COUNT; how++) {
        for (unsigned k = 0; k < COUNT(edges) * 4; k++) {
            if (how == FAULT_ERR && edges[k / 4] < 0x67)
                continue;
            from_level(3);
            to_level(3);
            prepare(true, k & 1, how);
            /* With G, a limit of 0 is 4095. */
            unsigned g = k & 2 ? 12 : 0, ar = ar_of(NEW_SEL) & 0xff;
            gdt_set_sys(NEW_SEL, (ulong)new_tss, edges[k / 4] << g,
                        ar | (g ? X86_AR_G : 0));
            attempt(how);
        }
    }
}

/* Selector register N of the new task names SUBJECT with this access byte. */
static void new_segment(unsigned n, unsigned access, unsigned rpl, unsigned cpl,
                        enum how how) {
    from_level(0);
    to_level(cpl);
    if (n < 6)
        incoming.seg[n] = SUBJECT | rpl;
    else
        incoming.ldt = SUBJECT | rpl;
    if (n == CS && rpl) /* its level is the task's */
        incoming.seg[SS] = incoming.seg[DS] = DATA_SEL(rpl);
    prepare(true, true, how);
    /* What expands down is good above its limit. */
    bool down = !is_code(access) && (access & X86_AR_EXPDOWN);
    gdt_set(SUBJECT, seg_desc(0, down ? 0 : ~0u, access | X86_AR_G | X86_AR_DB));
    attempt(how);
    bool loaded = want.switched && want.vector == DONE && (access & X86_AR_S);
    if (loaded && !(gdt[SUBJECT >> 3] >> 40 & 1) && bad++ < 12)
        printf("# selector %u: no accessed bit\n", n);
}

static void new_segments(void) {
    static const enum how ways[] = {JMP, CALL_GATE, INT_N, FAULT, IRET};
    for (unsigned n = 0; n < 7; n++) {
        for (unsigned access = 0; access < 256; access++) {
            for (unsigned k = 0; k < 16; k++)
                new_segment(n, access, k & 3, n == CS ? k & 3 : k >> 2,
                            ways[(access + k) % COUNT(ways)]);
        }
    }
}

static void new_selectors(void) {
    static const unsigned odd[] = {0, 3, 4, 7, BEYOND, BEYOND + 3, 0xffff};
    static const enum how ways[] = {JMP, CALL, INT_N, FAULT, IRET};
    for (unsigned n = 0; n < 7; n++) {
        for (unsigned k = 0; k < COUNT(odd) * COUNT(ways); k++) {
            enum how how = ways[k % COUNT(ways)];
            from_level(3);
            to_level(3);
            if (n < 6)
                incoming.seg[n] = odd[k / COUNT(ways)];
            else
                incoming.ldt = odd[k / COUNT(ways)];
            prepare(true, true, how);
            attempt(how);
        }
    }
    /* An instruction pointer beyond the new code segment. */
    for (unsigned k = 0; k < COUNT(ways); k++) {
        from_level(3);
        to_level(3);
        incoming.seg[CS] = SUBJECT | 3;
        gdt_set(SUBJECT, seg_desc(0, LAND - 1, ar_of(CODE_SEL(3)) & ~0x8000u));
        prepare(true, true, ways[k]);
        attempt(ways[k]);
    }
}

/* The T bit: #DB in the new task before its first instruction. Local breakpoints go. */
static void trap_bit(void) {
    for (unsigned how = 0; how < HOW_COUNT; how++) {
        from_level(3);
        to_level(how & 3);
        incoming.trap = 0xffff;
        prepare(true, true, how);
        arm(how);
        write_dr6(0);
        write_dr7(0x3ff); /* all on, on addresses that nobody executes */
        run(code[how]);
        ulong dr7 = read_dr7();
        leave();
        write_dr7(0);
        cases++;
        digest_add(trap.vector);
        bool ok = trap.vector == X86_DB && (trap.dr6 & 0xe00f) == X86_DR6_BT &&
                  trap.r.ip == LAND && trap.r.cs == incoming.seg[CS] &&
                  (dr7 & 0x3ff) == 0x2aa && left.tr == NEW_SEL;
        if (!ok && bad++ < 12)
            printf("# T by %s: vector %u ip %lx dr6 %lx dr7 %lx\n", how_names[how],
                   trap.vector, trap.r.ip, trap.dr6, dr7);
        write_dr6(0);
    }
}

/* --- with paging: CR3, and pages that are not there --- */

#define WINDOW 0x7000000ul /* beyond the identity map */

static void paged(enum space_kind kind) {
    struct space a, b;
    uint32_t *pages[2] = {page_alloc(), page_alloc()};
    void *look = CODE("mov eax, [0x7000000]");
    space_new(&a, kind, RWU);
    space_new(&b, kind, RWU);
    space_map(&a, WINDOW, (ulong)pages[0], RWU, 1);
    space_map(&b, WINDOW, (ulong)pages[1], RWU, 1);
    pages[0][0] = 0xaaaa0001, pages[1][0] = 0xbbbb0002;
    space_load(&a);
    for (unsigned how = 0; how < HOW_COUNT; how++) {
        from_level(how & 3);
        to_level(3);
        incoming.ip = (uint32_t)(ulong)look;
        prepare(true, true, how);
        put(new_tss, 0x1c, (uint32_t)b.root, 4);
        arm(how);
        run(code[how]);
        ulong cr3 = read_cr3();
        uint32_t saved;
        memcpy(&saved, old_tss + 0x1c, 4);
        leave();
        space_load(&a);
        cases++;
        digest_add(trap.r.ax);
        bool ok = trap.vector == DONE && trap.r.ax == 0xbbbb0002 && cr3 == b.root &&
                  saved == a.root;
        if (!ok && bad++ < 12)
            printf("# CR3 by %s: vector %u eax %lx cr3 %lx\n", how_names[how],
                   trap.vector, trap.r.ax, cr3);
    }
    paging_off();
}

/* Each page of what a switch touches is missing in turn: #PF, and nothing has changed. */
static void missing(enum space_kind kind) {
    static const enum how ways[] = {JMP, CALL, INT_N, IRET};
    struct space s;
    uint8_t *area = page_alloc();
    space_new(&s, kind, RWU);
    for (unsigned k = 0; k < COUNT(ways) * 3; k++) {
        enum how how = ways[k % COUNT(ways)];
        unsigned what = k / COUNT(ways);
        space_map(&s, WINDOW, (ulong)area, what == 2 ? X86_PTE_P | X86_PTE_U : RWU, 1);
        space_load(&s);
        from_level(3);
        to_level(3);
        prepare(true, true, how);
        /* 0: the new TSS; 1, 2: the old one, not there or not to be written. */
        if (what == 0) {
            gdt_set_sys(NEW_SEL, WINDOW, 0x67, ar_of(NEW_SEL));
        } else {
            memcpy(area, old_tss, 128);
            gdt_set_sys(OLD_SEL, WINDOW, 0x67, X86_AR_P | X86_DESC_TSS32);
            __asm__ volatile("ltr %w0" ::"r"(OLD_SEL));
        }
        uint64_t old0 = gdt[OLD_SEL >> 3], new0 = gdt[NEW_SEL >> 3];
        /* The stack that level 3 would take its fault on is in the old TSS. */
        if (what)
            from_level(0);
        if (how == IRET)
            in.flags |= X86_FL_NT;
        if (what != 2)
            space_set(&s, WINDOW, 1, 0);
        write_cr0(read_cr0() | X86_CR0_WP);
        write_cr3(s.root);
        run(code[how]);
        bool kept = gdt[OLD_SEL >> 3] == old0 && gdt[NEW_SEL >> 3] == new0;
        leave();
        write_cr0(read_cr0() & ~(ulong)X86_CR0_WP);
        cases++;
        digest_add(trap.vector << 8 | trap.error);
        ulong page = trap.cr2 & ~0xffful;
        bool ok = trap.vector == X86_PF && page == WINDOW && kept && left.tr == OLD_SEL &&
                  !left.ts && trap.r.ip == (ulong)code[how] && trap.r.ax == in.ax &&
                  !(trap.error & X86_PF_U);
        if (!ok && bad++ < 12)
            printf("# missing %u by %s: vector %u error %lx cr2 %lx ip %lx tr %x\n", what,
                   how_names[how], trap.vector, trap.error, trap.cr2, trap.r.ip, left.tr);
        paging_off();
    }
}

static void setup(void) {
    tcg = cpu_is_tcg();
    uint32_t ar = X86_AR_P | X86_AR_S | X86_AR_G | X86_AR_DB | X86_AR_WRITE;
    for (unsigned n = 0; n < 4; n++) {
        gdt_set(CODE_SEL(n), seg_desc(0, ~0u, ar | X86_AR_CODE | n << 5));
        gdt_set(DATA_SEL(n), seg_desc(0, ~0u, ar | n << 5));
    }
    memcpy((void *)LAND, "\xcd\x81", 2);
    code[JMP] = code[JMP_GATE] = CODE("jmp fword ptr [ebx]");
    code[CALL] = code[CALL_GATE] = CODE("call fword ptr [ebx]");
    code[INT_N] = CODE("int 0x50");
    code[FAULT] = CODE("ud2");
    code[FAULT_ERR] = CODE("mov es, ecx");
    code[IRET] = CODE("iretd");
    for (unsigned k = 0; k < HOW_COUNT; k++)
        length[k] = CODE_LEN(code[k]) - 2;
}

void guest_main(void) {
    setup();
    all_ways();
    new_flags();
    to_v86();
    direct();
    indirect();
    gates();
    limits();
    new_segments();
    new_selectors();
    trap_bit();
    paged(SPACE_32);
    paged(SPACE_PAE);
    missing(SPACE_32);
    missing(SPACE_PAE);
    check(!bad, "%u of %u cases", bad, cases);
    note("%u cases", cases);
    printf("DIGEST %llx\n", (unsigned long long)digest);
}
