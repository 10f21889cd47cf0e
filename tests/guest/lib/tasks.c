/* The harness and the model of task switches; see tasks.h. */
#include "lib/tasks.h"

#ifndef __x86_64__
const char *const task_how[HOW_COUNT] = {"jmp",   "call",  "jmp gate",        "call gate",
                                         "int n", "fault", "fault with code", "iret"};
void *task_code[HOW_COUNT];
static unsigned length[HOW_COUNT];

uint8_t task_old_tss[128] __attribute__((aligned(128)));
uint8_t task_new_tss[128] __attribute__((aligned(128)));
static uint8_t want_old[128] __attribute__((aligned(4)));
static uint8_t want_new[128] __attribute__((aligned(4)));
struct task task_in;
struct task_pointer task_far;
struct task_want task_want;
struct task_left task_left;
unsigned task_cases, task_bad;
static bool old_wide, new_wide, tcg;

uint64_t task_ldt[9] __attribute__((aligned(16)));
unsigned task_ldt_size, task_old_ldt;

static uint64_t descriptor(unsigned sel) {
    return sel & X86_SEL_TI ? task_ldt[(sel >> 3) % COUNT(task_ldt)] : gdt[sel >> 3];
}

unsigned task_ar_of(unsigned sel) {
    return descriptor(sel) >> 40 & 0xf0ff;
}

static unsigned dpl_of(unsigned ar) {
    return (ar & X86_AR_DPL) >> X86_AR_DPL_SHIFT;
}

static uint32_t limit_of(unsigned sel) {
    uint64_t d = descriptor(sel);
    uint32_t limit = (uint32_t)(d & 0xffff) | (uint32_t)(d >> 32 & 0xf0000);
    return d >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

static bool named(unsigned sel) {
    return (sel | 7) < (sel & X86_SEL_TI ? task_ldt_size : BEYOND);
}

/* TSSs and LDTs are in the GDT. */
static bool global(unsigned sel) {
    return !(sel & X86_SEL_TI) && named(sel);
}

/* --- TSSs --- */

void task_put(uint8_t *image, unsigned at, uint32_t v, unsigned width) {
    if (width == 4)
        *(uint32_t *)(image + at) = v;
    else
        *(uint16_t *)(image + at) = (uint16_t)v;
}

/* Intel SDM volume 3, "Task-State Segment (TSS)" and "16-Bit Task-State Segment". */
static void tss_write(uint8_t *image, bool wide, const struct task *t) {
    unsigned w = wide ? 4 : 2, at = wide ? 0x20 : 0x0e;
    memset(image, 0xee, 128);
    task_put(image, 0, t->link, 2);
    task_put(image, wide ? 4 : 2, TASK_SP0, w);
    task_put(image, wide ? 8 : 4, KDS, 2);
    task_put(image, at, t->ip, w);
    task_put(image, at + w, t->flags, w);
    for (unsigned k = 0; k < 8; k++)
        task_put(image, at + (2 + k) * w, t->reg[k], w);
    for (unsigned k = 0; k < (wide ? 6 : 4); k++)
        task_put(image, at + (10 + k) * w, t->seg[k], 2);
    task_put(image, wide ? 0x60 : 0x2a, t->ldt, 2);
    if (wide) {
        task_put(image, 0x1c, (uint32_t)read_cr3(), 4);
        task_put(image, 0x64, t->trap, 2);
    }
}

/* What a switch saves of `in` into a copy of the old TSS. */
static void model_save(uint8_t *image, bool wide, ulong ip, ulong flags) {
    const uint32_t regs[] = {in.ax, in.cx, in.dx, in.bx, in.sp, in.bp, in.si, in.di};
    const uint32_t segs[] = {in.es, in.cs, in.ss, in.ds, in.fs, in.gs};
    unsigned w = wide ? 4 : 2, at = wide ? 0x20 : 0x0e;
    task_put(image, at, ip, w);
    task_put(image, at + w, flags, w);
    for (unsigned k = 0; k < 8; k++)
        task_put(image, at + (2 + k) * w, regs[k], w);
    for (unsigned k = 0; k < (wide ? 6 : 4); k++)
        task_put(image, at + (10 + k) * w, segs[k], 2);
}

static unsigned tss_type(bool wide) {
    return wide ? X86_DESC_TSS32 : X86_DESC_TSS16;
}

/* --- the model --- */

static bool fails(unsigned vector, unsigned error) {
    task_want.vector = vector;
    task_want.error = error;
    return false;
}

/* The error code of something wrong with SEL. */
static unsigned about(unsigned sel, enum how how) {
    return (sel & ~3u) | (how == FAULT || how == FAULT_ERR ? EXT : 0);
}

/* The TSS itself; by a gate its DPL does not count. */
static bool model_tss(unsigned sel, enum how how, unsigned cpl) {
    unsigned e = about(sel, how), vector = how == IRET ? X86_TS : X86_GP;
    unsigned ar = task_ar_of(sel), type = ar & 0x1f, busy = how == IRET ? 2 : 0;
    if (!global(sel) || (type != (1u | busy) && type != (9u | busy)))
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
    ar = task_ar_of(sel), dpl = dpl_of(ar);
    *target = gdt[sel >> 3] >> 16 & 0xffff;
    if (dpl < cpl || dpl < (sel & 3))
        return fails(X86_GP, sel & ~3u);
    return ar & X86_AR_P ? true : fails(X86_NP, sel & ~3u);
}

bool task_is_code(unsigned ar) {
    return (ar & X86_AR_S) && (ar & X86_AR_CODE);
}

static bool model_ldt(unsigned sel, enum how how) {
    if (sel < 4)
        return true;
    if (!global(sel) || (task_ar_of(sel) & 0x9f) != (X86_AR_P | X86_DESC_LDT))
        return fails(X86_TS, about(sel, how));
    return true;
}

static bool model_cs(unsigned sel, enum how how) {
    unsigned ar = task_ar_of(sel), rpl = sel & 3, dpl = dpl_of(ar);
    if (sel < 4 || !named(sel) || !task_is_code(ar) ||
        (ar & X86_AR_EXPDOWN ? dpl > rpl : dpl != rpl))
        return fails(X86_TS, about(sel, how));
    return ar & X86_AR_P ? true : fails(X86_NP, about(sel, how));
}

static bool model_ss(unsigned sel, unsigned cpl, enum how how) {
    unsigned ar = task_ar_of(sel);
    if (sel < 4 || !named(sel) || (sel & 3) != cpl || dpl_of(ar) != cpl ||
        (ar & (X86_AR_S | X86_AR_CODE | X86_AR_WRITE)) != (X86_AR_S | X86_AR_WRITE))
        return fails(X86_TS, about(sel, how));
    return ar & X86_AR_P ? true : fails(X86_SS, about(sel, how));
}

static bool model_data(unsigned sel, unsigned cpl, enum how how) {
    unsigned ar = task_ar_of(sel), dpl = dpl_of(ar);
    bool conforming = task_is_code(ar) && (ar & X86_AR_EXPDOWN);
    if (sel < 4)
        return true;
    if (!named(sel) || !(ar & X86_AR_S) || (task_is_code(ar) && !(ar & X86_AR_WRITE)) ||
        (!conforming && (dpl < cpl || dpl < (sel & 3))))
        return fails(X86_TS, about(sel, how));
    return ar & X86_AR_P ? true : fails(X86_NP, about(sel, how));
}

static void model_new_regs(enum how how) {
    const struct task *t = &task_in;
    uint32_t m = new_wide ? ~0u : 0xffff;
    uint32_t fs = new_wide ? t->seg[FS] : 0, gs = new_wide ? t->seg[GS] : 0;
    task_want.r = (struct regs){t->seg[DS],
                                t->seg[ES],
                                fs,
                                gs,
                                t->reg[7] & m,
                                t->reg[6] & m,
                                t->reg[5] & m,
                                t->reg[3] & m,
                                t->reg[2] & m,
                                t->reg[1] & m,
                                t->reg[0] & m,
                                t->reg[4] & m,
                                t->ip & m,
                                t->seg[CS],
                                t->flags & m,
                                t->seg[SS]};
    task_want.r.flags |= X86_FL_ONE;
    if (how != JMP && how != JMP_GATE && how != IRET)
        task_want.r.flags |= X86_FL_NT;
}

static void model_new(enum how how) {
    const struct task *t = &task_in;
    unsigned cpl = t->seg[CS] & 3;
    model_new_regs(how);
    if (!model_ldt(t->ldt, how))
        return;
    if (!(task_want.r.flags & X86_FL_VM)) {
        if (!model_cs(t->seg[CS], how) || !model_ss(t->seg[SS], cpl, how) ||
            !model_data(t->seg[ES], cpl, how) || !model_data(t->seg[DS], cpl, how) ||
            !model_data((unsigned)task_want.r.fs, cpl, how) ||
            !model_data((unsigned)task_want.r.gs, cpl, how))
            return;
        if (t->ip > limit_of(t->seg[CS])) {
            task_want.vector = X86_GP;
            task_want.error = how == FAULT || how == FAULT_ERR ? EXT : 0;
            return;
        }
    }
    if (how == FAULT_ERR) {
        task_want.pushed = true;
        task_want.r.sp -= new_wide ? 4 : 2;
    }
    task_want.vector = DONE;
    task_want.r.ip += 2;
}

/* From the state in `in`, the tables, and what `incoming` has become in the new TSS. */
static void model(enum how how) {
    unsigned cpl = in.cs & 3, target = task_far.sel;
    memset(&task_want, 0, sizeof(task_want));
    memcpy(want_old, task_old_tss, 128);
    memcpy(want_new, task_new_tss, 128);
    task_want.r = in;
    task_want.r.ip = (ulong)task_code[how];
    task_want.tr = OLD_SEL;
    if (how == IRET)
        target = *(uint16_t *)task_old_tss;
    else if (how >= JMP_GATE && !model_gate(task_far.sel, how, cpl, &target))
        return;
    if (!model_tss(target, how, cpl))
        return;
    task_want.switched = true;
    task_want.tr = target & ~3u;
    ulong next = (ulong)task_code[how] + length[how];
    model_save(want_old, old_wide,
               how == FAULT || how == FAULT_ERR ? task_want.r.ip : next,
               how == IRET ? in.flags & ~(ulong)X86_FL_NT : in.flags);
    if (how != JMP && how != JMP_GATE && how != IRET)
        task_put(want_new, 0, OLD_SEL, 2);
    model_new(how);
}

/* --- cases --- */

void task_from(unsigned cpl) {
    regs_kernel();
    in.cs = CODE_SEL(cpl);
    in.ss = in.es = DATA_SEL(cpl);
    in.ds = DATA_SEL(3);
    in.fs = DATA_SEL(3), in.gs = 0;
    in.sp = FRAME;
    in.ax = 0xa1a2a3a4, in.bx = (ulong)&task_far, in.cx = 0x3458, in.dx = 0xd1d2d3d4;
    in.si = 0x51525354, in.di = 0xd5d6d7d8, in.bp = 0xb5b6b7b8;
    in.flags = X86_FL_ONE | X86_FL_CF | X86_FL_DF | X86_FL_ID;
}

/* A task of level CPL that lands. */
void task_to(unsigned cpl) {
    task_in = (struct task){
        .link = 0xbbbb,
        .ip = LAND,
        .flags = X86_FL_ONE | X86_FL_ZF | X86_FL_SF,
        .reg = {0x1a1a1a1a, 0x1c1c1c1c, 0x1d1d1d1d, 0x1b1b1b1b, NEW_SP, 0x15151515,
                0x16161616, 0x17171717},
        .seg = {DATA_SEL(3), CODE_SEL(cpl), DATA_SEL(cpl), DATA_SEL(cpl), 0, DATA_SEL(3)},
    };
}

/* The tables as most cases want them, with TSSs of these widths. */
void task_prepare(bool from_wide, bool to_wide, enum how how) {
    struct task t = {.ip = 0x1234, .flags = 0x5678};
    old_wide = from_wide, new_wide = to_wide;
    t.link = NEW_SEL;
    tss_write(task_old_tss, from_wide, &t);
    tss_write(task_new_tss, to_wide, &task_in);
    gdt_set_sys(OLD_SEL, (ulong)task_old_tss, 0x67, X86_AR_P | tss_type(from_wide));
    __asm__ volatile("ltr %w0" ::"r"(OLD_SEL));
    gdt_set_sys(NEW_SEL, (ulong)task_new_tss, 0x67,
                X86_AR_P | X86_AR_DPL | tss_type(to_wide) | (how == IRET ? 2 : 0));
    gdt_set(GATE_SEL, (uint64_t)NEW_SEL << 16 |
                          (uint64_t)(X86_AR_P | X86_AR_DPL | X86_DESC_TASKGATE) << 40);
    task_far.off = 0x87654321;
    task_far.sel = how == JMP_GATE || how == CALL_GATE ? GATE_SEL | 3 : NEW_SEL | 3;
    idt_set(VECTOR, NEW_SEL, NULL, X86_DESC_TASKGATE, 3);
    if (how == IRET)
        in.flags |= X86_FL_NT;
}

/* The plain case of a way. */
void task_begin(enum how how, unsigned from, unsigned to) {
    task_from(from);
    task_to(to);
    task_prepare(true, true, how);
}

/* What causes the switch goes by the same gate as INT n. */
void task_arm(enum how how) {
    if (how == FAULT || how == FAULT_ERR)
        idt[how == FAULT ? X86_UD : X86_GP] = idt[VECTOR];
}

/* Back to the guest's own task. Reads what the switch left before it does. */
void task_leave(void) {
    uint16_t sel, local;
    __asm__ volatile("str %0" : "=r"(sel));
    __asm__ volatile("sldt %0" : "=r"(local));
    task_left.tr = sel & ~3u, task_left.ldt = local;
    task_left.ts = read_cr0() & X86_CR0_TS;
    gdt[TSS_SEL >> 3] &= ~(2ull << 40);
    __asm__ volatile("ltr %w0; clts; lldt %w1" ::"r"(TSS_SEL), "r"(0));
    idt_reset(X86_UD);
    idt_reset(X86_GP);
    idt_reset(VECTOR);
}

static bool same(ulong a, ulong b) {
    return new_wide || !task_want.switched ? a == b : (a & 0xffff) == (b & 0xffff);
}

/* The upper halves of registers and flags after a 16-bit TSS are a processor's own. */
static bool regs_agree(void) {
    const struct regs *a = &trap.r, *b = &task_want.r;
    bool faulted = task_want.vector != DONE;
    ulong flags = new_wide || !task_want.switched ? ~(ulong)X86_FL_RF : 0xffff;
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
        task_old_tss[0x26] = want_old[0x26] = (uint8_t)(want_old[0x26] & ~1);
    return tss_same(task_old_tss, want_old) && tss_same(task_new_tss, want_new);
}

static bool descriptors_agree(enum how how, uint64_t old0, uint64_t new0) {
    uint64_t busy = 2ull << 40, old1 = old0, new1 = new0;
    if (task_want.switched && (how == JMP || how == JMP_GATE || how == IRET))
        old1 &= ~busy;
    if (task_want.switched && how != IRET)
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
           task_how[how], in.cs, task_in.seg[CS], task_in.ip, task_in.flags,
           task_in.seg[SS], task_in.ldt, task_ar_of(NEW_SEL), task_ar_of(GATE_SEL),
           task_ar_of(SUBJECT));
    tell_end(" got", trap.vector, trap.error, &trap.r);
    tell_end("want", task_want.vector, task_want.error, &task_want.r);
    for (unsigned k = 0; k < 128; k++) {
        if (task_old_tss[k] != want_old[k] || task_new_tss[k] != want_new[k])
            printf("#  TSS +%x: old %x want %x, new %x want %x\n", k, task_old_tss[k],
                   want_old[k], task_new_tss[k], want_new[k]);
    }
}

/* A fault in a new task of level 0 before it has a stack would be a triple fault. */
static bool no_stack(enum how how) {
    if (!task_want.switched || task_want.vector == DONE || (task_want.r.cs & 3) ||
        (task_want.r.flags & X86_FL_VM))
        return false;
    return !model_ldt(task_in.ldt, how) || !model_cs((unsigned)task_want.r.cs, how) ||
           !model_ss((unsigned)task_want.r.ss, 0, how);
}

void task_attempt(enum how how) {
    unsigned pushed = 0;
    task_arm(how);
    model(how);
    if (no_stack(how)) {
        task_leave();
        return;
    }
    uint64_t old0 = gdt[OLD_SEL >> 3], new0 = gdt[NEW_SEL >> 3];
    run(task_code[how]);
    bool ok = descriptors_agree(how, old0, new0);
    task_leave();
    if (task_want.pushed && trap.vector == DONE)
        memcpy(&pushed, (void *)trap.r.sp, new_wide ? 4 : 2);
    ok = ok && trap.vector == task_want.vector && trap.error == task_want.error &&
         regs_agree() && tss_agree(how) && task_left.tr == task_want.tr &&
         task_left.ts == task_want.switched &&
         task_left.ldt == (task_want.switched ? task_in.ldt : task_old_ldt) &&
         (!task_want.pushed || pushed == 0x3458);
    task_cases++;
    digest_add(trap.vector << 16 | trap.error);
    digest_add(trap.r.cs << 16 | task_left.tr);
    digest_add(trap.r.flags & ~(ulong)X86_FL_RF);
    uint32_t sum = 0;
    for (unsigned k = 0; k < 32; k++)
        sum = sum * 31 + ((uint32_t *)task_old_tss)[k];
    digest_add(sum);
    if (!ok && task_bad++ < 12) {
        printf("# tr %x ldt %x ts %u pushed %x\n", task_left.tr, task_left.ldt,
               task_left.ts, pushed);
        tell(how);
    }
}

/* Of a run that the model does not speak of. */
void task_verdict(bool ok, const char *what, enum how how, ulong x, ulong y) {
    task_cases++;
    digest_add(trap.vector << 16 ^ trap.error ^ trap.r.ax);
    if (!ok && task_bad++ < 12)
        printf("# %s by %s: vector %u at %lx, %lx %lx\n", what, task_how[how],
               trap.vector, trap.r.ip, x, y);
}

void task_setup(void) {
    tcg = cpu_is_tcg();
    uint32_t ar = X86_AR_P | X86_AR_S | X86_AR_G | X86_AR_DB | X86_AR_WRITE;
    for (unsigned n = 0; n < 4; n++) {
        gdt_set(CODE_SEL(n), seg_desc(0, ~0u, ar | X86_AR_CODE | n << 5));
        gdt_set(DATA_SEL(n), seg_desc(0, ~0u, ar | n << 5));
    }
    memcpy((void *)LAND, "\xcd\x81", 2);
    task_code[JMP] = task_code[JMP_GATE] = CODE("jmp fword ptr [ebx]");
    task_code[CALL] = task_code[CALL_GATE] = CODE("call fword ptr [ebx]");
    task_code[INT_N] = CODE("int 0x50");
    task_code[FAULT] = CODE("ud2");
    task_code[FAULT_ERR] = CODE("mov es, ecx");
    task_code[IRET] = CODE("iretd");
    for (unsigned k = 0; k < HOW_COUNT; k++)
        length[k] = CODE_LEN(task_code[k]) - 2;
}

void task_report(void) {
    check(!task_bad, "%u of %u cases", task_bad, task_cases);
    note("%u cases", task_cases);
    digest_print();
}
#endif
