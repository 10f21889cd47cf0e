/*
 * What waits behind MOV SS and POP SS: a data breakpoint that the load has hit, TF, and a
 * code breakpoint, against each instruction that raises an event of its own or goes
 * elsewhere, in 64-bit, compatibility, 32-bit and 16-bit protected, virtual-8086 and real
 * mode. A model says which exceptions come, where, and with what in DR6.
 *
 * Intel SDM volume 3, "Masking Exceptions and Interrupts When Switching Stacks", "Debug
 * Exceptions". AMD's processors take a code breakpoint on the second instruction, and
 * lose for it, as for every fault, what waits.
 */
#include "lib/realmode.h"

const char guest_name[] = GUEST_NAME;

#define BUFFER 0x9000ul /* of the code, within reach of 16-bit code */
#define LANDING 0x9800ul
#define CELL 0xb000ul /* the selector for MOV SS */
#define DATA 0xb100ul
#define STACK 0xc000ul
#define USER_STACK 0xd000ul
#define OTHER_SEG (STACK_SEG + 0x100) /* what POP SS loads in real mode */
#define HOLE BITS(0ul, 0x200000000ul)
#define PORT 0x80
#define KCS16 FREE_SEL
#define UCS16 (FREE_SEL + 8 + 3)
#define DR6_KNOWN 0xe00fu
#define EVENTS 8

enum kind {
    PLAIN,    /* goes on behind itself, or branches there */
    SHADOW,   /* another load of SS */
    REPEAT,   /* a string of several iterations */
    INT1,     /* a #DB of its own */
    SOFTWARE, /* enters the handler of VECTOR, which returns */
    FAULT,    /* VECTOR; its handler goes on behind it */
    SYSTEM,   /* goes to LANDING */
    DETECT,   /* general detect */
};

/* What an instruction needs. */
enum {
    W16 = 1,
    W32 = 2,
    W64 = 4,
    KERNEL = 8, /* CPL 0 or 3 only */
    USER = 16,
    PROTECTED = 32, /* not in virtual-8086 or real mode */
    NOT_V86 = 64,
    NOT_REAL = 128,
    MEM = 256,     /* the last byte is ModRM: the operand is at DATA */
    HITS = 512,    /* DATA is watched by DR1 */
    PORTS = 1024,  /* PORT is watched by DR1 */
    REX_W = 2048,  /* in 64-bit code */
    WAKES = 4096,  /* has to be woken up */
    PUSHES = 8192, /* on the same stack, if only at LANDING */
    ANY_WIDTH = W16 | W32 | W64,
};

enum frame_kind {
    NO_FRAME,
    IRET,
    IRET_OUTER,
    RETF,
    RETF_OUTER,
    POPF,
    FAR_POINTER,
    BOUNDS
};

struct follower {
    const char *name;
    uint8_t len, bytes[4];
    enum kind kind;
    uint8_t vector;
    unsigned needs;
    enum frame_kind frame;
    unsigned flags; /* set at the start */
};

static const struct follower followers[] = {
    {"nop", 1, {0x90}, PLAIN, 0, ANY_WIDTH, NO_FRAME, 0},
    {"cpuid", 2, {0x0f, 0xa2}, PLAIN, 0, ANY_WIDTH, NO_FRAME, 0},
    {"load", 2, {0x8a, 0}, PLAIN, 0, ANY_WIDTH | MEM, NO_FRAME, 0},
    {"load that hits", 2, {0x8a, 0}, PLAIN, 0, ANY_WIDTH | MEM | HITS, NO_FRAME, 0},
    {"store that hits", 2, {0x88, 0}, PLAIN, 0, ANY_WIDTH | MEM | HITS, NO_FRAME, 0},
    {"out", 2, {0xe6, PORT}, PLAIN, 0, ANY_WIDTH | NOT_V86, NO_FRAME, 0},
    {"out that hits",
     2,
     {0xe6, PORT},
     PLAIN,
     0,
     ANY_WIDTH | NOT_V86 | PORTS,
     NO_FRAME,
     0},
    {"jmp", 2, {0xeb, 0}, PLAIN, 0, ANY_WIDTH, NO_FRAME, 0},
    {"popf", 1, {0x9d}, PLAIN, 0, ANY_WIDTH, POPF, 0},
    {"hlt", 1, {0xf4}, PLAIN, 0, ANY_WIDTH | KERNEL | NOT_V86 | WAKES, NO_FRAME, 0},
    {"iret", 1, {0xcf}, PLAIN, 0, ANY_WIDTH | REX_W, IRET, 0},
    {"iret to level 3",
     1,
     {0xcf},
     PLAIN,
     0,
     ANY_WIDTH | REX_W | KERNEL | PROTECTED,
     IRET_OUTER,
     0},
    {"far ret", 1, {0xcb}, PLAIN, 0, ANY_WIDTH | REX_W, RETF, 0},
    {"far ret to level 3",
     1,
     {0xcb},
     PLAIN,
     0,
     ANY_WIDTH | REX_W | KERNEL | PROTECTED,
     RETF_OUTER,
     0},
    {"far jmp", 2, {0xff, 5 << 3}, PLAIN, 0, ANY_WIDTH | MEM, FAR_POINTER, 0},
    {"far jmp that hits",
     2,
     {0xff, 5 << 3},
     PLAIN,
     0,
     ANY_WIDTH | MEM | HITS,
     FAR_POINTER,
     0},
    {"far call", 2, {0xff, 3 << 3}, PLAIN, 0, ANY_WIDTH | MEM | PUSHES, FAR_POINTER, 0},
    {"mov ss", 2, {0x8e, 0xd0}, SHADOW, 0, ANY_WIDTH, NO_FRAME, 0},
    {"rep movsb", 2, {0xf3, 0xa4}, REPEAT, 0, ANY_WIDTH, NO_FRAME, 0},
    {"int1", 1, {0xf1}, INT1, 0, ANY_WIDTH, NO_FRAME, 0},
    {"int3", 1, {0xcc}, SOFTWARE, X86_BP, ANY_WIDTH, NO_FRAME, 0},
    {"int n", 2, {0xcd, 0x42}, SOFTWARE, 0x42, ANY_WIDTH, NO_FRAME, 0},
    {"int 1", 2, {0xcd, 1}, SOFTWARE, X86_DB, ANY_WIDTH, NO_FRAME, 0},
    {"into", 1, {0xce}, SOFTWARE, X86_OF, W16 | W32, NO_FRAME, X86_FL_OF},
    {"into without OF", 1, {0xce}, PLAIN, 0, W16 | W32, NO_FRAME, 0},
    {"int n of DPL 0", 2, {0xcd, 0x44}, SOFTWARE, 0x44, ANY_WIDTH | KERNEL, NO_FRAME, 0},
    {"int n of DPL 0", 2, {0xcd, 0x44}, FAULT, X86_GP, ANY_WIDTH | USER, NO_FRAME, 0},
    {"bound", 2, {0x62, 5 << 3}, PLAIN, 0, W16 | W32 | MEM, BOUNDS, 0},
    {"bound that hits", 2, {0x62, 5 << 3}, PLAIN, 0, W16 | W32 | MEM | HITS, BOUNDS, 0},
    {"bound outside", 2, {0x62, 1 << 3}, FAULT, X86_BR, W16 | W32 | MEM, BOUNDS, 0},
    {"bound outside that hits",
     2,
     {0x62, 1 << 3},
     FAULT,
     X86_BR,
     W16 | W32 | MEM | HITS,
     BOUNDS,
     0},
    {"ud2", 2, {0x0f, 0x0b}, FAULT, X86_UD, ANY_WIDTH, NO_FRAME, 0},
    {"hlt", 1, {0xf4}, FAULT, X86_GP, ANY_WIDTH | USER, NO_FRAME, 0},
    {"div", 2, {0xf7, 0xf5}, FAULT, X86_DE, ANY_WIDTH, NO_FRAME, 0},
#ifdef __x86_64__
    {"load that faults", 3, {0x8b, 0x45, 0}, FAULT, X86_PF, W64, NO_FRAME, 0},
#endif
    {"mov from dr7",
     3,
     {0x0f, 0x21, 0xf8},
     DETECT,
     0,
     ANY_WIDTH | KERNEL | NOT_V86,
     NO_FRAME,
     0},
    {"syscall", 2, {0x0f, 0x05}, SYSTEM, 0, ANY_WIDTH | PROTECTED | PUSHES, NO_FRAME, 0},
    {"sysenter", 2, {0x0f, 0x34}, SYSTEM, 0, ANY_WIDTH | PROTECTED, NO_FRAME, 0},
};

struct place {
    const char *name;
    unsigned width; /* W16, W32, W64 */
    uint16_t cs, outer_cs, ss;
    bool v86, real;
};

static const struct place places[] = {
#ifdef __x86_64__
    {"64-bit code at level 0", W64, KCS, UCS64, KDS, false, false},
    {"64-bit code at level 3", W64, UCS64, 0, UDS, false, false},
#endif
    {"32-bit code at level 0", W32, KCS32, UCS32, KDS, false, false},
    {"32-bit code at level 3", W32, UCS32, 0, UDS, false, false},
    {"16-bit code at level 0", W16, KCS16, UCS16, KDS, false, false},
    {"16-bit code at level 3", W16, UCS16, 0, UDS, false, false},
#ifndef __x86_64__
    {"virtual-8086 mode", W16, CODE_AT >> 4, 0, STACK_SEG, true, false},
    {"real mode", W16, CODE_AT >> 4, 0, STACK_SEG, false, true},
#endif
};

/* One run. */
struct scene {
    const struct place *p;
    const struct follower *f;
    bool pop;      /* POP SS, not MOV SS */
    bool hit;      /* the load hits DR0 */
    bool tf;       /* single-step */
    unsigned code; /* DR2 on nothing, on the follower, behind it */
    ulong at, mark;
};
enum { CODE_NONE, CODE_ON, CODE_BEHIND };

struct event {
    unsigned vector;
    ulong ip, dr6;
};
static struct event seen[EVENTS], want[EVENTS];
static unsigned seen_count, want_count, cases, bad;
static const struct scene *now;

static bool user(const struct place *p) {
    return p->v86 || (!p->real && (p->cs & 3));
}

/* --- the model --- */

static void expects(unsigned vector, ulong ip, ulong dr6) {
    want[want_count++] = (struct event){vector, ip, dr6};
}

/* How this processor and mode take SYSCALL and SYSENTER: not at all, or what becomes of
 * TF. */
static bool enters(const struct scene *s) {
    bool syscall = s->f->bytes[1] == 0x05;
    return syscall ? s->p->width == W64 || cpu_is_amd() : !LONG_MODE || !cpu_is_amd();
}

static bool system_keeps_tf(const struct scene *s) {
    return s->f->bytes[1] != 0x05 || !LONG_MODE;
}

/* All #DB hooks clear TF, so that BS comes once. */
static void model(const struct scene *s) {
    const struct follower *f = s->f;
    bool tf = s->tf, breaks = cpu_is_amd();
    ulong dr6 = s->hit ? 1 : 0;
    enum kind kind = f->kind == SYSTEM && !enters(s) ? FAULT : f->kind;

    want_count = 0;
    if (s->code == CODE_ON && breaks) {
        expects(X86_DB, s->at, 4);
        tf = false, dr6 = 0;
    }
    if (kind == PLAIN) {
        dr6 |= (f->needs & (HITS | PORTS) ? 2u : 0) | (tf ? X86_DR6_BS : 0);
        if (dr6)
            expects(X86_DB, s->mark, dr6);
    } else if (kind == SHADOW && s->code == CODE_BEHIND && breaks) {
        expects(X86_DB, s->mark, 4);
    } else if (kind == SHADOW) {
        dr6 |= tf ? X86_DR6_BS : 0;
        if (dr6)
            expects(X86_DB, s->mark + 1, dr6);
    } else if (kind == REPEAT) {
        dr6 |= tf ? X86_DR6_BS : 0;
        if (dr6)
            expects(X86_DB, s->at, dr6);
    } else if (kind == INT1) {
        expects(X86_DB, s->mark, dr6);
    } else if (kind == SOFTWARE) {
        if (dr6)
            expects(X86_DB, (ulong)idt_stub(f->vector), dr6);
        expects(f->vector, s->mark, 0);
    } else if (kind == FAULT) {
        expects(f->kind == SYSTEM ? X86_UD : f->vector, s->at, 0);
    } else if (kind == SYSTEM) {
        dr6 |= tf && system_keeps_tf(s) ? X86_DR6_BS : 0;
        if (dr6)
            expects(X86_DB, LANDING, dr6);
    } else if (!want_count) { /* #DB clears GD */
        expects(X86_DB, s->at, X86_DR6_BD);
    }
    if (s->code == CODE_BEHIND && kind != SYSTEM && kind != SHADOW)
        expects(X86_DB, s->mark, 4);
}

/* --- what happens --- */

static void saw(unsigned vector, ulong ip, ulong dr6) {
    if (seen_count < EVENTS)
        seen[seen_count] = (struct event){vector, ip, vector == X86_DB ? dr6 : 0};
    seen_count++;
}

static bool on_event(struct frame *f) {
    ulong dr6 = read_dr6() & DR6_KNOWN;
    bool fault = f->vector == X86_GP || f->vector == X86_UD || f->vector == X86_DE ||
                 f->vector == X86_PF || f->vector == X86_BR;

    saw((unsigned)f->vector, f->ip, dr6);
    write_dr6(X86_DR6_FIXED);
    f->flags &= ~(ulong)X86_FL_TF;
    if (fault) {
        f->ip = now->mark;
        f->flags &= ~(ulong)X86_FL_RF;
    }
    if (f->vector == X86_DB && (dr6 & 4))
        f->flags |= X86_FL_RF;
    return seen_count < EVENTS;
}

static const uint8_t hooked[] = {X86_DE, X86_DB, X86_BP, X86_OF, X86_BR,
                                 X86_UD, X86_GP, X86_PF, 0x42,   0x44};

static void hook(trap_hook h) {
    for (unsigned k = 0; k < COUNT(hooked); k++)
        hooks[hooked[k]] = h;
}

static unsigned slot_size(const struct place *p) {
    return p->width == W16 ? 2 : p->width == W32 ? 4 : 8;
}

static uint8_t *put(uint8_t *at, unsigned size, ulong v) {
    memcpy(at, &v, size);
    return at + size;
}

/* What the follower finds on the stack or at DATA. */
static void frame_write(const struct scene *s) {
    unsigned size = slot_size(s->p);
    enum frame_kind k = s->f->frame;
    bool outer = k == IRET_OUTER || k == RETF_OUTER;
    bool low = s->p->v86 || s->p->real;
    uint8_t *at = (uint8_t *)(low ? STACK_SEG * 16ul + in.sp : in.sp);

    memset((void *)DATA, 0, 32);
    put((void *)CELL, 2, s->p->ss);
    if (s->pop)
        at = put(at, size, low ? OTHER_SEG : s->p->ss);
    if (s->pop && low)
        at += (OTHER_SEG - STACK_SEG) * 16;
    if (k == POPF)
        put(at, size, in.flags & ~(ulong)X86_FL_TF);
    if (k == FAR_POINTER)
        put(put((void *)DATA, size == 2 ? 2 : 4, s->mark), 2, s->p->cs);
    if (k == BOUNDS)
        put((void *)(DATA + (size == 2 ? 2 : 4)), 2, 9);
    if (k != IRET && k != RETF && !outer)
        return;
    at = put(at, size, s->mark);
    at = put(at, size, outer ? s->p->outer_cs : s->p->cs);
    if (k == IRET || k == IRET_OUTER)
        at = put(at, size, in.flags & ~(ulong)X86_FL_TF);
    if (outer || size == 8) {
        at = put(at, size, outer ? USER_STACK : in.sp);
        put(at, size, outer ? UDS : s->p->ss);
    }
}

/* The load, the follower, some NOPs, and the end. */
static void code_write(struct scene *s, ulong start) {
    uint8_t *at = (uint8_t *)BUFFER, *begin = at;
    unsigned width = s->p->width;

    if (s->pop) {
        *at++ = 0x17;
    } else {
        *at++ = 0x8e; /* mov ss, [bx] */
        *at++ = 2 << 3 | (width == W16 ? 7 : 3);
    }
    s->at = start + (ulong)(at - begin);
    if ((s->f->needs & REX_W) && width == W64)
        *at++ = 0x48;
    memcpy(at, s->f->bytes, s->f->len);
    at += s->f->len;
    if (s->f->needs & MEM)
        at[-1] |= width == W16 ? 5 : 7; /* [di] */
    s->mark = start + (ulong)(at - begin);
    memcpy(at, "\x90\x90\x90\xcd\x81", 5);
    ((uint32_t *)BUFFER)[-1] = (uint32_t)(at + 5 - begin);
}

static void regs(const struct scene *s) {
    bool low = s->p->v86 || s->p->real;

    if (low) {
#ifndef __x86_64__
        regs_real();
#endif
        in.flags |= s->p->v86 ? X86_FL_VM : 0;
    } else {
        regs_kernel();
        in.cs = s->p->cs;
        in.ds = in.es = in.ss = s->p->ss;
        in.sp = STACK;
    }
    in.flags |= s->f->flags | (s->p->real ? 0 : X86_FL_IOPL) | (s->tf ? X86_FL_TF : 0);
    in.bx = CELL;
    in.di = DATA;
    in.si = DATA + 64;
    in.ax = s->pop && low ? OTHER_SEG : s->p->ss;
    in.cx = s->f->kind == REPEAT ? 3 : 100;
    in.bp = s->f->vector == X86_PF ? HOLE : 0;
}

static void breakpoints(const struct scene *s) {
    bool low = s->p->v86 || s->p->real;
    ulong top = low ? STACK_SEG * 16ul + in.sp : in.sp;
    ulong dr7 = X86_DR7_FIXED;

    write_dr0(s->pop ? top : CELL);
    write_dr1(s->f->needs & PORTS ? PORT : DATA);
    write_dr2((s->code == CODE_ON ? s->at : s->mark) + (low ? CODE_AT : 0));
    dr7 |= s->hit ? 2 | 7u << 16 : 0; /* two bytes, read or written */
    dr7 |= s->f->needs & (HITS | PORTS) ? 8u : 0;
    dr7 |= s->f->needs & PORTS ? 2u << 20 : 3u << 20; /* a byte */
    dr7 |= s->code ? 0x20 : 0;
    dr7 |= s->f->kind == DETECT ? X86_DR7_GD : 0;
    write_dr6(X86_DR6_FIXED);
    write_dr7(dr7);
}

/* In real mode every vector ends the run. */
static void run_in_real(const struct scene *s) {
#ifndef __x86_64__
    run_real((void *)BUFFER);
    if (trap.vector != DONE)
        saw(trap.vector, trap.r.ip, read_dr6() & DR6_KNOWN);
    if (want_count > 1)
        want_count = 1;
    if (want_count && want[0].ip == (ulong)idt_stub(s->f->vector))
        want[0].ip = 0x8000 + 4 * s->f->vector; /* realmode.c */
#endif
}

static void judge(const struct scene *s) {
    bool ok = seen_count == want_count;

    for (unsigned k = 0; ok && k < seen_count; k++)
        ok = seen[k].vector == want[k].vector && seen[k].ip == want[k].ip &&
             /* whether general detect tells of what waited is not said */
             (seen[k].dr6 == want[k].dr6 ||
              (s->f->kind == DETECT && seen[k].dr6 == (X86_DR6_BD | 1)));
    if (!s->p->real)
        ok = ok && trap.vector == DONE;
    cases++;
    digest_add(seen_count);
    for (unsigned k = 0; k < seen_count && k < EVENTS; k++)
        digest_add(seen[k].vector << 16 ^ seen[k].dr6);
    if (ok || bad++ >= 30)
        return;
    printf("# %s, %s, %s%s%s%s, ends with %u\n", s->p->name, s->pop ? "pop ss" : "mov ss",
           s->f->name, s->hit ? ", hit" : "", s->tf ? ", TF" : "",
           s->code == CODE_ON       ? ", code breakpoint on it"
           : s->code == CODE_BEHIND ? ", code breakpoint behind it"
                                    : "",
           trap.vector);
    for (unsigned k = 0; k < seen_count && k < EVENTS; k++)
        printf("#  got %u at 0x%lx dr6 0x%lx\n", seen[k].vector, seen[k].ip, seen[k].dr6);
    for (unsigned k = 0; k < want_count; k++)
        printf("# want %u at 0x%lx dr6 0x%lx\n", want[k].vector, want[k].ip, want[k].dr6);
}

static void play(struct scene *s) {
    bool low = s->p->v86 || s->p->real;

    code_write(s, low ? 0 : BUFFER);
    regs(s);
    frame_write(s);
    model(s);
    now = s;
    seen_count = 0;
    hook(on_event);
    breakpoints(s);
    if (s->p->real) {
        run_in_real(s);
    } else {
#ifndef __x86_64__
        if (low)
            run_v86((void *)BUFFER);
        else
#endif
            run((void *)BUFFER);
    }
    write_dr7(X86_DR7_FIXED);
    hook(NULL);
    judge(s);
}

static bool fits(const struct scene *s) {
    const struct place *p = s->p;
    unsigned needs = s->f->needs;

    return (needs & p->width) && (!(needs & KERNEL) || !user(p)) &&
           (!(needs & USER) || (p->cs & 3 && !p->v86 && !p->real)) &&
           (!(needs & PROTECTED) || (!p->v86 && !p->real)) &&
           (!(needs & NOT_V86) || !p->v86) && (!(needs & NOT_REAL) || !p->real) &&
           (!(needs & WAKES) || ((s->hit || s->tf) && s->code != CODE_ON)) &&
           (!s->pop || p->width != W64) &&
           /* a frame at the same level would hit the breakpoint, too */
           (!s->pop || !s->hit || (user(p) && !(needs & PUSHES)) || p->real);
}

static void setup(void) {
    unsigned code = X86_AR_P | X86_AR_S | X86_AR_CODE | X86_AR_WRITE;

    gdt_set(KCS16, seg_desc(0, 0xffff, code));
    gdt_set(UCS16, seg_desc(0, 0xffff, code | X86_AR_DPL));
    idt_set(0x44, KCS, idt_stub(0x44), BITS(X86_DESC_INTGATE32, X86_DESC_INTGATE32), 0);
    memcpy((void *)LANDING, "\xcd\x81", 2);
    write_cr4(read_cr4() | X86_CR4_DE);
    if (LONG_MODE || cpu_is_amd()) {
        wrmsr(X86_MSR_EFER, rdmsr(X86_MSR_EFER) | X86_EFER_SCE);
        wrmsr(X86_MSR_STAR, 0x1bull << 48 | (uint64_t)KCS << 32 | LANDING);
    }
    if (LONG_MODE) {
        wrmsr(X86_MSR_LSTAR, LANDING);
        wrmsr(X86_MSR_CSTAR, LANDING);
        wrmsr(X86_MSR_SFMASK, X86_FL_TF | X86_FL_IF);
    }
    wrmsr(X86_MSR_SYSENTER_CS, KCS);
    wrmsr(X86_MSR_SYSENTER_EIP, LANDING);
    wrmsr(X86_MSR_SYSENTER_ESP, (ulong)run_stack + 4096);
#ifndef __x86_64__
    real_init();
#endif
}

void guest_main(void) {
    struct scene s;

    if (cpu_is_tcg()) {
        note("TCG looks for no data breakpoint behind MOV SS");
        return;
    }
    setup();
    for (unsigned p = 0; p < COUNT(places); p++)
        for (unsigned f = 0; f < COUNT(followers); f++)
            for (unsigned n = 0; n < 24; n++) {
                s = (struct scene){.p = &places[p],
                                   .f = &followers[f],
                                   .pop = n & 1,
                                   .hit = n & 2,
                                   .tf = n & 4,
                                   .code = n / 8};
                if (fits(&s))
                    play(&s);
            }
    check(!bad, "%u of %u cases", bad, cases);
    note("%u cases", cases);
    digest_print();
}
