/*
 * Real and virtual-8086 mode at their edges: every segment register with limits that
 * protected mode left behind, accesses of each size around the limit and the ends of 64
 * KiB and 1 MiB, stacks that wrap, transfers, flags, and an interrupt table of any base
 * and limit. Each case against a model.
 *
 * AMD64 APM volume 2, "Real Mode", "Virtual-8086 Mode", "Real-Mode Interrupt Control
 * Transfers"; Intel SDM volume 3, "Real-Address Mode", "Switching Back to Real-Address
 * Mode" (limits stay) and "Virtual-8086 Mode".
 */
#include "lib/realmode.h"

const char guest_name[] = GUEST_NAME;

#define SUBJECT FREE_SEL
#define WIDE (FREE_SEL + 8) /* 4 GiB */
#define PLAIN 0x98          /* 64 KiB, as the library has it */
#define DATA_SEG 0x3000u
#define GOAL 0x3800u /* int 0x81, for transfers */
#define IO_A20 "in al, 0x92\nand al, 0xfd\nout 0x92, al\n"
#define IO_OPEN "in al, 0x92\nor al, 2\nout 0x92, al\n"

static unsigned cases, bad;

static bool judge(bool ok, const char *what) {
    cases++;
    digest_add(trap.vector ^ trap.r.ip << 8 ^ trap.r.sp << 24);
    digest_add(trap.r.ax ^ (trap.r.flags & 0xffff) << 16);
    if (!ok && bad++ < 20)
        printf(
            "# %s from %lx:%lx bx %lx bp %lx ss %lx:%lx: vector %u error %lx at %lx:%lx "
            "ax %lx cx %lx sp %lx flags %lx",
            what, in.cs, in.ip, in.bx, in.bp, in.ss, in.sp, trap.vector, trap.error,
            trap.r.cs, trap.r.ip, trap.r.ax, trap.r.cx, trap.r.sp, trap.r.flags);
    if (!ok && bad <= 20)
        printf("\n");
    return ok;
}

/* Stacks, bases and transfers are the same in virtual-8086 mode with IOPL 3. */
static bool virtual;

static void regs_mode(void) {
    regs_real();
    if (virtual)
        in.flags |= X86_FL_VM | X86_FL_IOPL;
}

static unsigned run_mode(const void *code) {
    return virtual ? run_v86(code) : run_real(code);
}

/* --- data at the edges --- */

static const char *const seg_names[] = {"ds", "es", "fs", "gs", "ss"};

struct reach {
    uint8_t seg, size; /* in the order of real_selectors */
    bool store, wide;  /* address of 32 bits */
    void *code;
};

/* Loads put what they read into eax, or (8 and 10 bytes) on the x87 stack; stores write
 * ecx, or the top of it. Addresses are in [bx]; the stack's in [bp]. */
#define FORMS(seg, prefix, at16, at32)                                                   \
    {prefix, 1, false, false, CODE16("mov al, " seg "[" at16 "]")},                      \
        {prefix, 2, false, false, CODE16("mov ax, " seg "[" at16 "]")},                  \
        {prefix, 4, false, false, CODE16("mov eax, " seg "[" at16 "]")},                 \
        {prefix, 8, false, false, CODE16("fild qword ptr " seg "[" at16 "]")},           \
        {prefix, 10, false, false, CODE16("fld tbyte ptr " seg "[" at16 "]")},           \
        {prefix, 1, true, false, CODE16("mov " seg "[" at16 "], cl")},                   \
        {prefix, 2, true, false, CODE16("mov " seg "[" at16 "], cx")},                   \
        {prefix, 4, true, false, CODE16("mov " seg "[" at16 "], ecx")},                  \
        {prefix, 8, true, false, CODE16("fistp qword ptr " seg "[" at16 "]")},           \
        {prefix, 10, true, false, CODE16("fstp tbyte ptr " seg "[" at16 "]")},           \
        {prefix, 1, false, true, CODE16("mov al, " seg "[" at32 "]")},                   \
        {prefix, 2, false, true, CODE16("mov ax, " seg "[" at32 "]")},                   \
        {prefix, 4, false, true, CODE16("mov eax, " seg "[" at32 "]")},                  \
        {prefix, 1, true, true, CODE16("mov " seg "[" at32 "], cl")},                    \
        {prefix, 2, true, true, CODE16("mov " seg "[" at32 "], cx")}, {                  \
        prefix, 4, true, true, CODE16("mov " seg "[" at32 "], ecx")                      \
    }

static uint8_t pattern(ulong at) {
    return (uint8_t)(at * 5 + (at >> 8) * 3 + (at >> 16));
}

static void reach(const struct reach *r, ulong base, uint32_t limit, ulong value,
                  unsigned (*run_it)(const void *)) {
    ulong off = r->wide ? value : value & 0xffff, at = base + off;
    bool fits = (uint64_t)off + r->size - 1 <= limit;
    uint32_t want = 0, store = 0x71625344, low = r->size < 4 ? r->size : 4;
    bool ok = true;
    in.bx = in.bp = value;
    in.ax = 0, in.cx = store;
    for (unsigned k = 0; fits && k < r->size; k++)
        ((volatile uint8_t *)at)[k] = pattern(at + k);
    for (unsigned k = 0; fits && k < low; k++)
        want |= (uint32_t)pattern(at + k) << 8 * k;
    run_it(r->code);
    unsigned fault = r->seg == 4 ? X86_SS : X86_GP;
    if (!fits)
        ok = trap.vector == fault && trap.r.ip == 0 && trap.error == 0 &&
             trap.r.sp == in.sp;
    else if (r->store && r->size <= 4)
        ok = trap.vector == DONE && !memcmp((void *)at, &store, r->size);
    else if (r->store)
        ok = trap.vector == DONE;
    else
        ok = trap.vector == DONE && (r->size > 4 || trap.r.ax == want);
    judge(ok, seg_names[r->seg]);
}

static void reach_all(const struct reach *r, ulong base, uint32_t limit,
                      unsigned (*run_it)(const void *)) {
    for (unsigned d = 0; d < 14; d++) {
        reach(r, base, limit, limit + 3 - d, run_it);
        reach(r, base, limit, (0x10003u - d), run_it);
    }
    reach(r, base, limit, 0, run_it);
    if (limit == ~0u) /* and far away; above the image lies RAM of nobody */
        reach(r, base, limit, 0x1800000, run_it);
}

static void ready_x87(void) {
    __asm__ volatile("fninit; fldz; fldz; fldz; fldz");
}

/* With 4 GiB, `limit + 3 - d` would wrap into nothing: only the ends of 64 KiB. */
static void limits(const struct reach *rows, unsigned n) {
    static const uint32_t sizes[] = {0x5fff, 0x7fff,  0x8000, 0xfffe,
                                     0xffff, 0x10fff, 0x3ffff};
    for (unsigned k = 0; k < n; k++) {
        for (unsigned l = 0; l < COUNT(sizes); l++) {
            unsigned seg = rows[k].seg;
            uint32_t ar = X86_AR_P | X86_AR_S | X86_AR_WRITE;
            gdt_set(SUBJECT, seg_desc(0, sizes[l], ar));
            for (unsigned s = 0; s < 5; s++)
                real_selectors[s] = PLAIN;
            real_selectors[seg] = SUBJECT;
            regs_real();
            in.sp = 0x4000;
            in.ds = in.es = in.fs = in.gs = DATA_SEG;
            ready_x87();
            reach_all(&rows[k], (seg == 4 ? STACK_SEG : DATA_SEG) * 16, sizes[l],
                      run_real);
            if (l || seg == 4)
                continue;
            real_selectors[seg] = WIDE;
            ready_x87();
            for (unsigned d = 0; d < 14; d++)
                reach(&rows[k], DATA_SEG * 16, ~0u, 0x10003 - d, run_real);
            reach(&rows[k], DATA_SEG * 16, ~0u, 0x1800000, run_real);
        }
    }
}

static void virtual_limits(const struct reach *rows, unsigned n) {
    for (unsigned k = 0; k < n; k++) {
        regs_real();
        in.flags |= X86_FL_VM | X86_FL_IOPL;
        in.ds = in.es = in.fs = in.gs = DATA_SEG;
        ready_x87();
        reach_all(&rows[k], (rows[k].seg == 4 ? STACK_SEG : DATA_SEG) * 16, 0xffff,
                  run_v86);
    }
}

static void edges(void) {
    const struct reach rows[] = {
        FORMS("ds:", 0, "bx", "ebx"), FORMS("es:", 1, "bx", "ebx"),
        FORMS("fs:", 2, "bx", "ebx"), FORMS("gs:", 3, "bx", "ebx"),
        FORMS("", 4, "bp", "ebp"),
    };
    real_selectors[0] = PLAIN;
    limits(rows, COUNT(rows));
    virtual_limits(rows, COUNT(rows));
    for (unsigned s = 0; s < 5; s++)
        real_selectors[s] = PLAIN;
}

/* --- bases: every selector, and the end of the first MiB --- */

static void bases(void) {
    void *open = CODE16("mov es, dx\nmov al, es:[bx]");
    void *closed = CODE16(IO_A20 "mov es, dx\nmov cl, es:[bx]\n" IO_OPEN "mov al, cl");
    for (unsigned sel = 0; sel < 0x10000; sel += sel >= 0xff00 ? 0x0f : 0x3a7) {
        static const uint16_t offs[] = {0, 0x10, 0x7ff, 0x8001, 0xffef, 0xfff0, 0xffff};
        for (unsigned k = 0; k < 2 * COUNT(offs); k++) {
            bool shut = k & 1;
            if (shut && virtual)
                continue; /* the ports are not its own */
            ulong at = sel * 16 + offs[k / 2];
            if (shut)
                at &= ~0x100000ul;
            if (at >= 0xa0000 && at < 0x100000)
                continue; /* devices and ROM */
            if (at < 0xa0000 && at >= 0x20000)
                *(volatile uint8_t *)at = (uint8_t)(sel + k);
            uint8_t want = *(volatile uint8_t *)at;
            regs_mode();
            in.bx = offs[k / 2], in.dx = sel;
            run_mode(shut ? closed : open);
            judge(trap.vector == DONE && (trap.r.ax & 0xff) == want && trap.r.es == sel,
                  shut ? "base, A20 closed" : "base");
        }
    }
}

/* --- stacks --- */

struct stack_form {
    const char *what;
    void *code;
    int8_t pushes, size; /* negative: pops */
};

/* Word or doubleword SIZE bytes wide at SP crosses the end of the segment? */
static bool crosses(unsigned sp, unsigned size) {
    return (sp & 0xffff) + size - 1 > 0xffff;
}

static void stack_case(const struct stack_form *f, unsigned sp) {
    bool fits = true;
    unsigned at = sp, n = f->pushes < 0 ? -f->pushes : f->pushes, size = f->size;
    for (unsigned k = 0; k < n; k++) {
        if (f->pushes > 0)
            at -= size;
        fits = fits && !crosses(at, size);
        if (f->pushes < 0)
            at += size;
    }
    regs_mode();
    in.sp = sp;
    in.ax = 0xa1a2a3a4, in.cx = 0xc1c2c3c4;
    /* What is popped, where a stack of 16 bits has it. */
    for (unsigned k = 0; k < 64; k++)
        ((volatile uint8_t *)(STACK_SEG * 16))[(sp + k) & 0xffff] = 0;
    run_mode(f->code);
    bool ok = fits
                  ? trap.vector == DONE && trap.r.sp == (at & 0xffff)
                  : trap.vector == X86_SS && trap.r.sp == (sp & 0xffff) && trap.r.ip == 0;
    judge(ok && trap.r.ss == STACK_SEG, f->what);
}

static void stacks(void) {
    const struct stack_form rows[] = {
        {"push ax", CODE16("push ax"), 1, 2},
        {"push eax", CODE16("push eax"), 1, 4},
        {"push es", CODE16("push es"), 1, 2},
        {"push imm", CODE16("push 0x1234"), 1, 2},
        {"pushf", CODE16("pushf"), 1, 2},
        {"pushfd", CODE16("pushfd"), 1, 4},
        {"pusha", CODE16("pusha"), 8, 2},
        {"pushad", CODE16("pushad"), 8, 4},
        {"call", CODE16("call 1f\n1:"), 1, 2},
        {"call 32", CODE16("data32 call 1f\n1:"), 1, 4},
        {"pop ax", CODE16("pop ax"), -1, 2},
        {"pop eax", CODE16("pop eax"), -1, 4},
        {"pop es", CODE16("pop es"), -1, 2},
        {"popf", CODE16("popf"), -1, 2},
        {"popfd", CODE16("popfd"), -1, 4},
        {"popa", CODE16("popa"), -8, 2},
        {"popad", CODE16("popad"), -8, 4},
    };
    for (unsigned k = 0; k < COUNT(rows); k++) {
        for (unsigned sp = 0xffc0; sp < 0x10040; sp += 2)
            stack_case(&rows[k], sp & 0xffff);
        stack_case(&rows[k], 0x8001); /* odd is nothing special */
    }
}

/* A stack pointer of 32 bits, which protected mode left: it wraps nowhere. */
static void big_stack(void) {
    static const uint32_t sps[] = {0x8000, 0xfffe, 0x10000, 0x10002, 0x18000, 0x1fffe};
    void *push =
        CODE16("push ax\npush eax\nmov ebx, esp\nmov dx, es:[ebx + 4]\npop ecx\npop si");
    void *call = CODE16("call 1f\nmov bx, 7\njmp 2f\n1: pop cx\npush cx\nret\n2:");
    gdt_set(SUBJECT,
            seg_desc(0, ~0u, X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_G | X86_AR_DB));
    real_selectors[4] = SUBJECT;
    real_selectors[1] = WIDE;
    for (unsigned k = 0; k < COUNT(sps); k++) {
        regs_real();
        in.sp = sps[k], in.ax = 0xa1a2a3a4;
        in.es = STACK_SEG;
        run_real(push);
        judge(trap.vector == DONE && trap.r.bx == sps[k] - 6 && trap.r.sp == sps[k] &&
                  trap.r.cx == 0xa1a2a3a4 && (trap.r.dx & 0xffff) == 0xa3a4 &&
                  (trap.r.si & 0xffff) == 0xa3a4,
              "push with B");
        run_real(call);
        judge(trap.vector == DONE && trap.r.sp == sps[k] && trap.r.bx == 7,
              "call with B");
    }
    real_selectors[4] = real_selectors[1] = PLAIN;
}

/* --- transfers --- */

#define FAR_AT 0x6000u

struct far_form {
    const char *what;
    void *code;
    uint8_t size, pops; /* slots: 2 far return, 3 IRET */
    bool call;
};

static void far_case(const struct far_form *f, unsigned sel, ulong off) {
    bool fits = f->size == 2 || off <= 0xffff;
    unsigned w = f->size;
    regs_mode();
    in.bx = FAR_AT;
    ulong stack = STACK_SEG * 16 + in.sp;
    memcpy((void *)FAR_AT, &off, w);
    memcpy((void *)(FAR_AT + w), &sel, 2);
    if (f->pops) {
        ulong flags = X86_FL_ONE | X86_FL_CF;
        memcpy((void *)stack, &off, w);
        memcpy((void *)(stack + w), &sel, w);
        memcpy((void *)(stack + 2 * w), &flags, w);
    }
    run_mode(f->code);
    ulong sp = in.sp + w * f->pops - (f->call ? 2 * w : 0);
    uint32_t back = 0, cs = 0;
    bool ok;
    if (fits) {
        ok = trap.vector == DONE && trap.r.cs == sel && trap.r.ip == (off & 0xffff) + 2 &&
             trap.r.sp == sp;
        memcpy(&back, (void *)(STACK_SEG * 16 + sp), w);
        memcpy(&cs, (void *)(STACK_SEG * 16 + sp + w), 2);
        ok = ok && (!f->call || (back == CODE_LEN(f->code) - 4 && cs == CODE_AT >> 4));
        ok = ok && (f->pops < 3 || (trap.r.flags & 0xcfff) == (X86_FL_ONE | X86_FL_CF));
    } else {
        ok = trap.vector == X86_GP && trap.r.cs == in.cs && trap.r.ip == 0 &&
             trap.r.sp == in.sp;
    }
    judge(ok, f->what);
}

static void transfers(void) {
    const struct far_form rows[] = {
        {"jmp m16:16", CODE16("jmp dword ptr [bx]"), 2, 0, false},
        {"jmp m16:32", CODE16("jmp fword ptr [bx]"), 4, 0, false},
        {"call m16:16", CODE16("call dword ptr [bx]"), 2, 0, true},
        {"call m16:32", CODE16("call fword ptr [bx]"), 4, 0, true},
        {"retf", CODE16("retf"), 2, 2, false},
        {"retfd", CODE16("data32 retf"), 4, 2, false},
        {"iret", CODE16("iret"), 2, 3, false},
        {"iretd", CODE16("data32 iret"), 4, 3, false},
    };
    memcpy((void *)GOAL, "\xcd\x81", 2);
    for (unsigned k = 0; k < COUNT(rows); k++) {
        for (unsigned sel = 0; sel <= GOAL >> 4; sel += 0x1c) {
            ulong off = GOAL - sel * 16;
            far_case(&rows[k], sel, off);
            far_case(&rows[k], sel, off | 0x10000);
            far_case(&rows[k], sel, off | 0xffff0000);
        }
    }
}

/* Code at the end of its 64 KiB. CS 4000h. */
static void code_end(void) {
    static const struct {
        const char *what;
        uint16_t at;
        uint8_t text[4], len;
        unsigned vector;
        uint16_t ip;
    } rows[] = {
        {"nop, nop to the end", 0xfffe, {0x90, 0x90}, 2, X86_GP, 0},
        {"an instruction across", 0xffff, {0xb0, 0x12}, 2, X86_GP, 0xffff},
        {"its operand across", 0xfffd, {0x66, 0xb8, 0x12}, 3, X86_GP, 0xfffd},
        {"int at the end", 0xfffe, {0xcd, 0x81}, 2, DONE, 0},
        {"jmp forward wraps", 0xfff0, {0xeb, 0x20}, 2, DONE, 0x14},
        {"jmp near wraps", 0xfff0, {0xe9, 0x1f, 0x00}, 3, DONE, 0x14},
        {"jmp back wraps", 0x0000, {0xeb, 0xee}, 2, DONE, 0xfff2},
        {"jmp near 32 does not", 0xfff0, {0x66, 0xe9, 0x1c, 0}, 4, X86_GP, 0xfff0},
    };
    volatile uint8_t *seg = (uint8_t *)0x40000;
    void *go = CODE16("push 0x4000\npush bx\nretf");
    for (unsigned k = 0; k < COUNT(rows); k++) {
        memset((void *)0x40000, 0, 0x10010);
        seg[0x12] = seg[0xfff0] = 0xcd;
        seg[0x13] = seg[0xfff1] = DONE;
        for (unsigned n = 0; n < rows[k].len; n++)
            seg[rows[k].at + n] = rows[k].text[n];
        regs_real();
        in.bx = rows[k].at;
        run_real(go);
        judge(trap.vector == rows[k].vector && trap.r.ip == rows[k].ip &&
                  trap.r.cs == 0x4000,
              rows[k].what);
    }
}

/* A code segment that protected mode left with 4 GiB goes on beyond them. */
static void code_beyond(void) {
    volatile uint8_t *seg = (uint8_t *)0x40000;
    static const uint8_t jump[] = {0x66, 0xe9, 0x1c, 0, 0, 0}; /* to 10012h */
    void *go = CODE16("push 0x4000\npush bx\nretf");
    void *far_ = CODE16("jmp fword ptr [bx]");
    uint64_t plain = gdt[0x90 >> 3];
    gdt_set(0x90, seg_desc(0, ~0u,
                           X86_AR_P | X86_AR_S | X86_AR_CODE | X86_AR_WRITE | X86_AR_G));
    memset((void *)0x40000, 0, 0x10020);
    memcpy((void *)0x4fff0, jump, sizeof(jump));
    seg[0x10012] = 0xcd, seg[0x10013] = DONE;
    seg[0x12] = 0x0f, seg[0x13] = 0x0b; /* UD2, were it to wrap */
    regs_real();
    in.bx = 0xfff0;
    run_real(go);
    judge(trap.vector == DONE && trap.r.ip == 0x14 && trap.r.cs == 0x4000,
          "near jump beyond 64 KiB");
    const uint32_t off = 0x10012;
    memcpy((void *)FAR_AT, &off, 4);
    ((volatile uint16_t *)FAR_AT)[2] = 0x4000;
    in.bx = FAR_AT;
    run_real(far_);
    judge(trap.vector == DONE && trap.r.ip == 0x14 && trap.r.cs == 0x4000,
          "far jump beyond 64 KiB");
    gdt_set(0x90, plain);
}

/* --- the interrupt table --- */

static void table_case(unsigned vector, unsigned limit, uint32_t base, void *code) {
    /* Beyond the limit is #GP; if that is beyond, too, a double fault. */
    unsigned want = vector, ip = 2;
    if (4 * want + 3 > limit)
        want = X86_GP, ip = 0;
    if (4 * want + 3 > limit)
        want = X86_DF;
    if (4 * want + 3 > limit)
        return; /* shutdown */
    memcpy((void *)base, (void *)0, base ? 0x400 : 0);
    real_idt_base = base, real_idt_limit = limit;
    regs_real();
    in.flags |= X86_FL_IF | X86_FL_CF | X86_FL_DF | X86_FL_NT | X86_FL_IOPL;
    run_real(code);
    judge(trap.vector == want && trap.r.ip == ip && trap.r.sp == in.sp &&
              trap.r.flags == in.flags,
          "int n by a table");
}

static void tables(void) {
    static const uint32_t bases_[] = {0, 0x60000, 0x60003, 0x1810000};
    void *ints[] = {CODE16("int 0"),    CODE16("int 1"),    CODE16("int 0x10"),
                    CODE16("int 0x42"), CODE16("int 0x7f"), CODE16("int 0xff")};
    static const uint8_t vectors[] = {0, 1, 0x10, 0x42, 0x7f, 0xff};
    for (unsigned k = 0; k < COUNT(vectors); k++) {
        for (unsigned b = 0; b < COUNT(bases_); b++) {
            unsigned end = 4 * vectors[k] + 3;
            for (unsigned l = 0; l < 6; l++)
                table_case(vectors[k], end - 3 + l, bases_[b], ints[k]);
            table_case(vectors[k], 4 * X86_GP + 3, bases_[b], ints[k]);
            table_case(vectors[k], 4 * X86_GP + 2, bases_[b], ints[k]);
            table_case(vectors[k], 4 * X86_DF + 3, bases_[b], ints[k]);
            table_case(vectors[k], 0xffff, bases_[b], ints[k]);
        }
    }
    real_idt_base = 0, real_idt_limit = 0x3ff;
}

/* LIDT in real mode: with 16-bit operands the base has 24 bits. */
static void lidt(void) {
    void *narrow = CODE16("lidt [bx]\nint 0x42");
    void *wide = CODE16("data32 lidt [bx]\nint 0x42");
    for (unsigned k = 0; k < 4; k++) {
        uint32_t base = k & 1 ? 0x60000 : 0x70000;
        uint32_t given = k & 2 ? base : base | 0xab000000;
        memcpy((void *)base, (void *)0, 0x400);
        ((volatile uint32_t *)base)[0x42] = ((volatile uint32_t *)0)[0x43 + (k & 1)];
        ((volatile uint16_t *)FAR_AT)[0] = 0x3ff;
        memcpy((void *)(FAR_AT + 2), &given, 4);
        regs_real();
        in.bx = FAR_AT;
        run_real(k & 2 ? wide : narrow);
        judge(trap.vector == 0x43 + (k & 1), "lidt");
    }
}

/* --- flags --- */

static void flags_case(void *code, unsigned size, ulong before, ulong image, bool iret) {
    ulong mask = X86_FL_STATUS | X86_FL_DF | X86_FL_NT | X86_FL_IF | X86_FL_IOPL;
    if (size == 4)
        mask |= X86_FL_AC | X86_FL_ID;
    ulong want = (before & ~mask) | (image & mask) | X86_FL_ONE;
    regs_real();
    in.ax = before, in.cx = image;
    run_real(code);
    judge(trap.vector == DONE && trap.r.ax == want, iret ? "iret" : "popf");
}

static void flags(void) {
#define SET "push eax\npopfd\n"
#define GET "\npushfd\npop eax\npush 2\npopfd"
    void *forms[] = {
        CODE16(SET "push cx\npopf" GET),
        CODE16(SET "push ecx\npopfd" GET),
        CODE16(SET "push cx\npush cs\npush offset 1f - 888b\niret\n1:" GET),
        CODE16(SET
               "push ecx\npush 0\npush cs\npushd offset 1f - 888b\ndata32 iret\n1:" GET),
    };
    for (unsigned bit = 0; bit < 22; bit++) {
        for (unsigned other = 0; other < 22; other++) {
            static const ulong settable = X86_FL_STATUS | X86_FL_DF | X86_FL_NT |
                                          X86_FL_IF | X86_FL_IOPL | X86_FL_AC | X86_FL_ID;
            ulong before = ((1ul << other) & settable) | X86_FL_ONE;
            ulong image =
                1ul << bit & ~(ulong)X86_FL_TF; /* a step is the debug guest's */
            for (unsigned k = 0; k < COUNT(forms); k++) {
                flags_case(forms[k], k & 1 ? 4 : 2, before, image, k & 2);
                flags_case(forms[k], k & 1 ? 4 : 2, before, ~image & ~(ulong)X86_FL_TF,
                           k & 2);
            }
        }
    }
}

void guest_main(void) {
    real_init();
    gdt_set(WIDE, seg_desc(0, ~0u, X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_G));
    edges();
    for (unsigned k = 0; k < 2; k++) {
        virtual = k;
        bases();
        stacks();
        transfers();
    }
    big_stack();
    code_end();
    code_beyond();
    tables();
    lidt();
    flags();
    check(!bad, "%u of %u cases", bad, cases);
    note("%u cases", cases);
    digest_print();
}
