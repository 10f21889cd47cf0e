/*
 * Returns: IRET, far RET and POPF of every operand size from every level to every kind of
 * code and stack segment, and which flags they change. Each case is one instruction with
 * a frame made for it; a model says how it must end and what every register must be.
 *
 * AMD64 APM volume 3, "IRET, IRETD, IRETQ", "RET (Far)", "POPF"; Intel SDM volume 2, the
 * same and "Effect of POPF/POPFD on the EFLAGS Register"; null stack selectors: AMD64 APM
 * volume 2, "Interrupt Returns" of "Long-Mode Interrupt Control Transfers".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

/* Flat segments of each level, RPL included; and those that cases define. */
#define CODE_SEL(n) (FREE_SEL + 9u * (n))           /* 32-bit; in long mode 64-bit */
#define COMPAT_SEL(n) (FREE_SEL + 0x20u + 9u * (n)) /* 32-bit code in long mode */
#define DATA_SEL(n) (FREE_SEL + 0x40u + 9u * (n))
#define CONF_SEL (FREE_SEL + 0x60u)
#define SUBJECT_CS (FREE_SEL + 0x68u)
#define SUBJECT_SS (FREE_SEL + 0x70u)
#define BEYOND (GDT_COUNT * 8u)

/* In low memory, for instruction and stack pointers of 16 bits. */
#define LAND 0x8000ul /* int 0x81 */
#define OUTER_SP 0x9f00ul
#define FRAME 0x1b000ul

#define FL_ALWAYS (X86_FL_STATUS | X86_FL_TF | X86_FL_DF | X86_FL_NT)
#define FL_ALL                                                                           \
    (FL_ALWAYS | X86_FL_IF | X86_FL_IOPL | X86_FL_AC | X86_FL_ID | X86_FL_VIF |          \
     X86_FL_VIP)

struct form {
    const char *name;
    uint8_t size, imm;
    bool iret, in64, in32; /* in which kind of code it can be run */
    void *code;
};

static struct form forms[] = {
    {"iret32", 4, 0, true, true, true, NULL},
    {"iret16", 2, 0, true, true, true, NULL},
    {"retf32", 4, 0, false, true, true, NULL},
    {"retf16", 2, 0, false, true, true, NULL},
    {"retf32 8", 4, 8, false, true, true, NULL},
    {"iret64", 8, 0, true, true, false, NULL},
    {"retf64", 8, 0, false, true, false, NULL},
    {"retf64 16", 8, 16, false, true, false, NULL},
};

struct image {
    ulong ip, cs, flags, sp, ss;
};

/* How a case must end. */
struct outcome {
    unsigned vector;
    ulong error;
    struct regs r;
};

static unsigned cases, bad;
static bool rf_of_tcg; /* QEMU's TCG sets no RF in a fault's image */

static uint64_t flat(unsigned ar, unsigned dpl) {
    return seg_desc(0, ~0u, X86_AR_P | X86_AR_S | X86_AR_G | ar | dpl << 5);
}

/* Code of DPL 0 to 3, then data. Selectors 4 to 7 name its first entry, not nothing. */
static uint64_t ldt[8] __attribute__((aligned(16)));
static unsigned ldt_size;

static uint64_t descriptor(unsigned sel) {
    return sel & X86_SEL_TI ? ldt[sel >> 3 & 7] : gdt[sel >> 3];
}

static unsigned ar_of(unsigned sel) {
    return descriptor(sel) >> 40 & 0xf0ff;
}

static void tables(void) {
    for (unsigned n = 0; n < 4; n++) {
        unsigned code = X86_AR_CODE | X86_AR_WRITE;
        gdt_set(CODE_SEL(n), flat(code | BITS(X86_AR_DB, X86_AR_L), n));
        gdt_set(COMPAT_SEL(n), flat(code | X86_AR_DB, n));
        gdt_set(DATA_SEL(n), flat(X86_AR_WRITE | X86_AR_DB, n));
    }
    gdt_set(CONF_SEL, flat(X86_AR_CODE | X86_AR_EXPDOWN | X86_AR_WRITE, 0));
    memcpy((void *)LAND, "\xcd\x81", 2);
    forms[0].code = CODE(".byte 0xcf");
    forms[1].code = CODE(".byte 0x66, 0xcf");
    forms[2].code = CODE(".byte 0xcb");
    forms[3].code = CODE(".byte 0x66, 0xcb");
    forms[4].code = CODE(".byte 0xca, 8, 0");
#ifdef __x86_64__
    forms[5].code = CODE(".byte 0x48, 0xcf");
    forms[6].code = CODE(".byte 0x48, 0xcb");
    forms[7].code = CODE(".byte 0x48, 0xca, 16, 0");
#endif
}

/* --- the model --- */

/* Does SEL name a descriptor at all? */
static bool named(unsigned sel) {
    return (sel | 7) < (sel & X86_SEL_TI ? ldt_size : BEYOND);
}

static void fails(struct outcome *o, unsigned vector, unsigned sel) {
    o->vector = vector;
    o->error = sel & ~3u;
}

static unsigned dpl_of(unsigned ar) {
    return (ar & X86_AR_DPL) >> X86_AR_DPL_SHIFT;
}

static bool is_code(unsigned ar) {
    return (ar & X86_AR_S) && (ar & X86_AR_CODE);
}

static bool model_cs(struct outcome *o, unsigned sel, unsigned cpl) {
    unsigned ar = ar_of(sel), rpl = sel & 3, dpl = dpl_of(ar);
    if (sel < 4 || !named(sel) || !is_code(ar) || rpl < cpl ||
        (ar & X86_AR_EXPDOWN ? dpl > rpl : dpl != rpl) ||
        (LONG_MODE && (ar & X86_AR_L) && (ar & X86_AR_DB)))
        return fails(o, X86_GP, sel), false;
    if (!(ar & X86_AR_P))
        return fails(o, X86_NP, sel), false;
    return true;
}

static bool model_ss(struct outcome *o, unsigned sel, unsigned cpl, bool to64) {
    unsigned ar = ar_of(sel);
    if (sel < 4) {
        if (to64 && cpl != 3 && sel == cpl)
            return true;
        return fails(o, X86_GP, 0), false;
    }
    if (!named(sel) || (sel & 3) != cpl || dpl_of(ar) != cpl ||
        (ar & (X86_AR_S | X86_AR_CODE | X86_AR_WRITE)) != (X86_AR_S | X86_AR_WRITE))
        return fails(o, X86_GP, sel), false;
    if (!(ar & X86_AR_P))
        return fails(o, X86_SS, sel), false;
    return true;
}

/* Which flags a return or POPF of SIZE at CPL changes. */
static ulong model_mask(unsigned size, unsigned cpl, ulong flags, bool popf) {
    ulong mask = FL_ALWAYS;
    if (size > 2)
        mask |= X86_FL_AC | X86_FL_ID;
    if (cpl <= (flags & X86_FL_IOPL) >> X86_FL_IOPL_SHIFT)
        mask |= X86_FL_IF;
    if (cpl == 0)
        mask |= X86_FL_IOPL;
    if (cpl == 0 && size > 2 && !popf)
        mask |= X86_FL_VIF | X86_FL_VIP;
    return mask;
}

static ulong limit_of(unsigned sel) {
    uint64_t d = descriptor(sel);
    ulong limit = (ulong)(d & 0xffff) | (ulong)(d >> 32 & 0xf0000);
    return d >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

/* A segment register that lost its right to be there. Of null selectors the RPL goes,
 * too.
 */
static ulong kept(ulong sel, unsigned cpl) {
    if (sel < 4)
        return 0;
    unsigned ar = ar_of((unsigned)sel);
    bool conforming = is_code(ar) && (ar & X86_AR_EXPDOWN);
    return !conforming && dpl_of(ar) < cpl ? 0 : sel;
}

static ulong model_sp(const struct form *f, const struct image *i, unsigned ar_ss,
                      bool to64) {
    ulong sp = i->sp + f->imm;
    if (to64)
        return sp;
    return ar_ss & X86_AR_DB ? (uint32_t)sp : (FRAME & ~0xfffful) | (sp & 0xffff);
}

static void model(struct outcome *o, const struct form *f, const struct image *i) {
    unsigned cs = (unsigned)i->cs & 0xffff, ss = (unsigned)i->ss & 0xffff;
    unsigned cpl = in.cs & 3, rpl = cs & 3;
    bool from64 = LONG_MODE && (ar_of((unsigned)in.cs) & X86_AR_L);
    memset(o, 0, sizeof(*o));
    o->r = in;
    o->r.ip = (ulong)f->code;
    if (f->iret && LONG_MODE && (in.flags & X86_FL_NT))
        return fails(o, X86_GP, 0);
    if (!model_cs(o, cs, cpl))
        return;
    bool to64 = LONG_MODE && (ar_of(cs) & X86_AR_L);
    bool pops = rpl > cpl || (f->iret && from64);
    if (pops && !model_ss(o, ss, rpl, to64))
        return;
    /* Intel's CPUs drop the upper half, AMD's hold it against the limit. */
    ulong ip = to64 || cpu_is_amd() ? i->ip : (uint32_t)i->ip;
    if (to64 ? !canonical(ip) : ip > limit_of(cs))
        return fails(o, X86_GP, 0);
    o->vector = DONE;
    o->r.ip = ip + 2;
    o->r.cs = cs;
    o->r.sp = in.sp + (f->iret ? 3u : 2u) * f->size + f->imm;
    if (pops) {
        o->r.ss = ss;
        o->r.sp = model_sp(f, i, ar_of(ss), to64);
    }
    if (f->iret) {
        ulong mask = model_mask(f->size, cpl, in.flags, false);
        o->r.flags = (in.flags & ~mask) | (i->flags & mask);
    }
    if (rpl > cpl) {
        o->r.ds = kept(in.ds, rpl), o->r.es = kept(in.es, rpl);
        o->r.fs = kept(in.fs, rpl), o->r.gs = kept(in.gs, rpl);
    }
}

/* --- cases --- */

static void put_slot(unsigned *at, unsigned size, ulong v) {
    memcpy((void *)(FRAME + *at), &v, size);
    *at += size;
}

static void frame_write(const struct form *f, const struct image *i) {
    unsigned at = 0;
    put_slot(&at, f->size, i->ip);
    put_slot(&at, f->size, i->cs);
    if (f->iret)
        put_slot(&at, f->size, i->flags);
    at += f->imm;
    put_slot(&at, f->size, i->sp);
    put_slot(&at, f->size, i->ss);
}

/* As form F truncates it, because the model reads what lies in the frame. */
static struct image as_popped(const struct form *f, const struct image *i) {
    struct image t = *i;
    ulong mask = f->size == 8 ? ~0ul : f->size == 4 ? 0xfffffffful : 0xffff;
    t.ip &= mask, t.sp &= mask, t.flags &= mask;
    return t;
}

static void from_level(unsigned cpl, bool code64) {
    regs_kernel();
    in.cs = code64 || !LONG_MODE ? CODE_SEL(cpl) : COMPAT_SEL(cpl);
    in.ss = in.es = DATA_SEL(cpl);
    in.ds = DATA_SEL(3);
    in.fs = CONF_SEL;
    in.gs = DATA_SEL(cpl < 3 ? cpl + 1 : 3);
    in.sp = FRAME;
    in.ax = 0xa1, in.bx = 0xb2, in.cx = 0xc3, in.dx = 0xd4, in.si = 0x51, in.di = 0xd2;
}

/* RF in what the landing INT pushes is left to the processor; a fault sets it. */
static bool agrees(const struct outcome *o) {
    const struct regs *a = &trap.r, *b = &o->r;
    bool outer = LONG_MODE || (a->cs & 3);
    return trap.vector == o->vector && trap.error == o->error && a->ip == b->ip &&
           a->cs == b->cs && ((a->flags ^ b->flags) & ~(ulong)X86_FL_RF) == 0 &&
           (o->vector == DONE || rf_of_tcg || (a->flags & X86_FL_RF)) && a->sp == b->sp &&
           (!outer || a->ss == b->ss) && a->ds == b->ds && a->es == b->es &&
           a->fs == b->fs && a->gs == b->gs && a->ax == b->ax && a->bx == b->bx &&
           a->cx == b->cx && a->dx == b->dx && a->si == b->si && a->di == b->di;
}

static void judge(const char *name, const struct image *i, const struct outcome *o) {
    cases++;
    digest_add(trap.vector);
    digest_add(trap.error);
    digest_add(trap.r.cs << 16 | trap.r.ss);
    digest_add(trap.r.sp);
    digest_add(trap.r.flags & ~(ulong)X86_FL_RF);
    digest_add(trap.r.ds ^ trap.r.es << 16 ^ trap.r.fs << 8 ^ trap.r.gs << 24);
    if (agrees(o) || bad++ >= 20)
        return;
    printf("# %s from %lx:%lx ss %lx flags %lx to %lx:%lx (%x) flags %lx %lx:%lx (%x)\n",
           name, in.cs, in.ip, in.ss, in.flags, i->cs, i->ip, ar_of((unsigned)i->cs),
           i->flags, i->ss, i->sp, ar_of((unsigned)i->ss));
    printf("#  got %u error %lx %lx:%lx flags %lx %lx:%lx segs %lx %lx %lx %lx\n",
           trap.vector, trap.error, trap.r.cs, trap.r.ip, trap.r.flags, trap.r.ss,
           trap.r.sp, trap.r.ds, trap.r.es, trap.r.fs, trap.r.gs);
    printf("# want %u error %lx %lx:%lx flags %lx %lx:%lx segs %lx %lx %lx %lx\n",
           o->vector, o->error, o->r.cs, o->r.ip, o->r.flags, o->r.ss, o->r.sp, o->r.ds,
           o->r.es, o->r.fs, o->r.gs);
}

static void attempt(const struct form *f, const struct image *i) {
    struct outcome o;
    struct image t = as_popped(f, i);
    frame_write(f, i);
    model(&o, f, &t);
    run(f->code);
    judge(f->name, i, &o);
}

/* Runs EACH for every form from every level. */
static void everywhere(void (*each)(const struct form *f, unsigned cpl)) {
    for (unsigned k = 0; k < COUNT(forms); k++) {
        for (unsigned cpl = 0; cpl < 4; cpl++) {
            if (LONG_MODE && forms[k].in64) {
                from_level(cpl, true);
                each(&forms[k], cpl);
            }
            if (forms[k].in32) {
                from_level(cpl, false);
                each(&forms[k], cpl);
            }
        }
    }
}

static struct image good(unsigned rpl) {
    return (struct image){LAND, CODE_SEL(rpl), X86_FL_ONE | X86_FL_CF | X86_FL_ZF,
                          OUTER_SP, DATA_SEL(rpl)};
}

/* Bits 0 to 4 type and S, 5 and 6 DPL, 7 P: an access byte. LD: L and D or B. */
static void one_cs(const struct form *f, unsigned access, unsigned ld) {
    static const unsigned sizes[] = {X86_AR_DB, 0, X86_AR_L, X86_AR_L | X86_AR_DB};
    for (unsigned rpl = 0; rpl < 4; rpl++) {
        struct image i = good(rpl);
        i.cs = SUBJECT_CS | rpl;
        gdt_set(SUBJECT_CS, seg_desc(0, ~0u, access | X86_AR_G | sizes[ld]));
        attempt(f, &i);
        bool accessed = gdt[SUBJECT_CS >> 3] >> 40 & 1;
        if (trap.vector == DONE && !accessed && bad++ < 20)
            printf("# %s: no accessed bit in CS\n", f->name);
    }
}

static void each_cs(const struct form *f, unsigned cpl) {
    for (unsigned access = 0; access < 256; access++) {
        bool code = is_code(access) && (access & X86_AR_P);
        for (unsigned ld = 0; ld < (code && LONG_MODE ? 4 : code ? 2 : 1); ld++)
            one_cs(f, access, ld);
    }
}

static void each_ss(const struct form *f, unsigned cpl) {
    for (unsigned to = cpl; to < 4; to++) {
        struct image i = good(to);
        for (unsigned access = 0; access < 256; access++) {
            for (unsigned rpl = 0; rpl < 4; rpl++) {
                gdt_set(SUBJECT_SS, seg_desc(0, ~0u, access | X86_AR_G | X86_AR_DB));
                i.ss = SUBJECT_SS | rpl;
                attempt(f, &i);
            }
        }
        /* A stack of 16 bits takes only SP. */
        gdt_set(SUBJECT_SS, seg_desc(0, 0xffff, ar_of(DATA_SEL(to)) & ~0xc000u));
        i.ss = SUBJECT_SS | to;
        i.sp = 0x29f00;
        attempt(f, &i);
    }
}

static void each_selector(const struct form *f, unsigned cpl) {
    static const unsigned odd[] = {0, 1, 2, 3, 4, 7, BEYOND, BEYOND + 3, 0xfff8, 0xffff};
    static const ulong ips[] = {LAND, LAND + 1, 0x7fff, 0x10000, 0x100000};
    for (unsigned to = 0; to < 4; to++) {
        for (unsigned k = 0; k < COUNT(odd); k++) {
            struct image i = good(to);
            i.cs = odd[k];
            attempt(f, &i);
            i.ss = odd[k];
            attempt(f, &i);
            i.cs = CODE_SEL(to);
            attempt(f, &i);
            i.cs = COMPAT_SEL(to);
            attempt(f, &i);
        }
        /* A limit just behind, at and before where it goes. */
        for (unsigned k = 0; k < 3; k++) {
            struct image i = good(to);
            i.cs = SUBJECT_CS | to;
            gdt_set(SUBJECT_CS, seg_desc(0, (uint32_t)LAND + 2 - 2 * k,
                                         (ar_of(COMPAT_SEL(to)) & ~(unsigned)X86_AR_G)));
            if (k != 1) /* where the INT itself would not fit */
                attempt(f, &i);
        }
        for (unsigned k = 2; k < COUNT(ips); k++) {
            struct image i = good(to);
            i.cs = SUBJECT_CS | to;
            i.ip = ips[k];
            gdt_set(SUBJECT_CS, seg_desc(0, 0x7ffe, ar_of(COMPAT_SEL(to)) & ~0x8000u));
            if (f->size > 2 || i.ip < 0x10000) /* else to 0 */
                attempt(f, &i);
        }
    }
}

static void each_local(const struct form *f, unsigned cpl) {
    for (unsigned sel = 4; sel < 8 * (COUNT(ldt) + 1); sel += (sel & 7) == 7 ? 5 : 1) {
        struct image i = good(sel & 3);
        i.cs = sel;
        attempt(f, &i);
        i = good(sel & 3);
        i.ss = sel;
        attempt(f, &i);
        i.cs = (sel & 3) << 3 | 4 | (sel & 3);
        attempt(f, &i);
    }
}

/* The same with code and stacks of an LDT, and with only half of it. */
static void local(void) {
    for (unsigned n = 0; n < 4; n++) {
        ldt[n] = gdt[CODE_SEL(n) >> 3];
        ldt[4 + n] = gdt[DATA_SEL(n) >> 3];
    }
    for (ldt_size = sizeof(ldt); ldt_size; ldt_size -= sizeof(ldt) / 4) {
        gdt_set_sys(LDT_SEL, (ulong)ldt, ldt_size - 1, X86_AR_P | X86_DESC_LDT);
        __asm__ volatile("lldt %w0" ::"r"(LDT_SEL));
        everywhere(each_local);
    }
    __asm__ volatile("lldt %w0" ::"r"(0));
}

#ifdef __x86_64__
/* Instruction and stack pointers beyond 32 bits and beyond canonical. */
static void each_wide(const struct form *f, unsigned cpl) {
    static const ulong edges[] = {1ul << 32 | LAND, 1ul << 47,        (1ul << 47) - 1,
                                  ~0ul << 47,       (~0ul << 47) - 1, 1ul << 63 | LAND};
    for (unsigned to = cpl; to < 4; to++) {
        for (unsigned k = 0; k < COUNT(edges); k++) {
            struct image i = good(to);
            i.ip = edges[k];
            ulong popped = as_popped(f, &i).ip;
            /* Other canonical ones: nothing is mapped there. */
            if (popped == LAND || !canonical(popped))
                attempt(f, &i);
            i.cs = COMPAT_SEL(to);
            popped = cpu_is_amd() ? popped : (uint32_t)popped;
            if (popped == LAND || popped >> 32)
                attempt(f, &i);
            i = good(to);
            i.sp = edges[k];
            if (to) /* at level 0 the INT pushes there */
                attempt(f, &i);
        }
    }
    in.flags |= X86_FL_NT;
    struct image i = good(cpl);
    attempt(f, &i);
    i = good(3);
    attempt(f, &i);
}
#endif

/* --- null selectors, and bases without one --- */

#define SUBJECT_DATA (FREE_SEL + 0x78u) /* with a base, DPL as the case wants it */
#define SUBJECT_BASE 0x12345000u
#define LOADER 0xa000ul
#define WIDE_BASE 0x7654ul /* upper half of what goes into FS.base and GS.base */

/* mov ds, ax; mov es, cx; mov fs, dx; mov gs, si; then both bases become BP:DI, if they
 * are there and the level is 0; then the return. */
static void loader(const struct form *f, bool bases) {
    static const uint8_t loads[] = {0x8e, 0xd8, 0x8e, 0xc1, 0x8e, 0xe2, 0x8e, 0xee};
    static const uint8_t wrmsrs[] = {0x89, 0xf8, 0x89, 0xea, 0xb9, 0x00,
                                     0x01, 0x00, 0xc0, 0x0f, 0x30, 0xb9,
                                     0x01, 0x01, 0x00, 0xc0, 0x0f, 0x30};
    uint8_t *at = (uint8_t *)LOADER;

    memcpy(at, loads, sizeof(loads));
    at += sizeof(loads);
    if (bases) {
        memcpy(at, wrmsrs, sizeof(wrmsrs));
        at += sizeof(wrmsrs);
    }
    memcpy(at, f->code, CODE_LEN(f->code));
}

static bool bases_kept(unsigned fs, unsigned gs, bool bases) {
#ifdef __x86_64__
    ulong wide = WIDE_BASE << 32 | SUBJECT_BASE;
    ulong want_fs = bases ? wide : fs >> 3 == SUBJECT_DATA >> 3 ? SUBJECT_BASE : 0;
    ulong want_gs = bases ? wide : gs >> 3 == SUBJECT_DATA >> 3 ? SUBJECT_BASE : 0;

    digest_add(rdmsr(X86_MSR_FS_BASE));
    digest_add(rdmsr(X86_MSR_GS_BASE));
    return rdmsr(X86_MSR_FS_BASE) == want_fs && rdmsr(X86_MSR_GS_BASE) == want_gs;
#else
    return true;
#endif
}

/* A return to level TO with SEL[0..3] in DS, ES, FS and GS. */
static void null_case(const struct form *f, unsigned to, const unsigned sel[4],
                      bool bases) {
    unsigned cpl = in.cs & 3;
    struct image i = good(to);
    struct outcome o;

    loader(f, bases);
    in.ax = sel[0], in.cx = sel[1], in.dx = sel[2], in.si = sel[3];
    in.di = SUBJECT_BASE, in.bp = WIDE_BASE;
    frame_write(f, &i);
    model(&o, f, &i);
    o.r.ds = to > cpl ? kept(sel[0], to) : sel[0];
    o.r.es = to > cpl ? kept(sel[1], to) : sel[1];
    o.r.fs = to > cpl ? kept(sel[2], to) : sel[2];
    o.r.gs = to > cpl ? kept(sel[3], to) : sel[3];
    if (bases)
        o.r.ax = in.di, o.r.dx = in.bp, o.r.cx = X86_MSR_GS_BASE;
    run((void *)LOADER);
    judge(f->name, &i, &o);
    if (!bases_kept(sel[2], sel[3], bases) && bad++ < 20)
        printf("# %s from %u to %u, fs %x gs %x: the base is lost\n", f->name, cpl, to,
               sel[2], sel[3]);
}

static void each_null(const struct form *f, unsigned cpl) {
    const unsigned sels[] = {
        0, 1, 2, 3, SUBJECT_DATA | cpl, DATA_SEL(3), DATA_SEL(cpl), CONF_SEL,
    };

    gdt_set(SUBJECT_DATA, seg_desc(SUBJECT_BASE, 0xffff,
                                   X86_AR_P | X86_AR_S | X86_AR_WRITE | cpl << 5));
    in.ds = in.es = in.fs = in.gs = DATA_SEL(3);
    for (unsigned to = cpl; to < 4; to++)
        for (unsigned n = 0; n < COUNT(sels); n++) {
            unsigned sel[4];
            for (unsigned s = 0; s < 4; s++)
                sel[s] = sels[(n + 3 * s) % COUNT(sels)];
            null_case(f, to, sel, false);
            if (LONG_MODE && cpl == 0)
                null_case(f, to, sel, true);
        }
}

/* --- flags --- */

static const ulong patterns[] = {
    0,
    FL_ALL,
    X86_FL_IF,
    X86_FL_IOPL,
    1u << 12,
    X86_FL_NT,
    X86_FL_AC,
    X86_FL_ID,
    X86_FL_VIF,
    X86_FL_VIP,
    X86_FL_TF,
    X86_FL_DF,
    X86_FL_RF,
    0xffffffff & ~(ulong)X86_FL_VM,
    X86_FL_STATUS,
};

static struct image with_flags(unsigned to, ulong flags) {
    struct image i = good(to);
    i.flags = flags;
    return i;
}

static void each_flags(const struct form *f, unsigned cpl) {
    struct regs saved = in;
    for (unsigned old = 0; old < COUNT(patterns) - 1 && f->iret; old++) {
        for (unsigned k = 0; k < COUNT(patterns); k++) {
            in = saved;
            in.flags =
                X86_FL_ONE | (patterns[old] & FL_ALL & ~(ulong)(X86_FL_TF | X86_FL_NT));
            struct image i = with_flags(3, patterns[k]);
            attempt(f, &i);
            i = with_flags(cpl, patterns[k]);
            attempt(f, &i);
            if (LONG_MODE || cpl) { /* VM is not for them */
                i.flags |= X86_FL_VM;
                attempt(f, &i);
            }
        }
    }
}

static void popf_case(void *code, unsigned size, unsigned cpl, ulong image) {
    struct outcome o;
    struct image i = {(ulong)code, in.cs, image, FRAME, in.ss};
    ulong mask = model_mask(size, cpl, in.flags, true);
    ulong value = size == 2 ? image & 0xffff : image;
    memset(&o, 0, sizeof(o));
    memcpy((void *)FRAME, &image, sizeof(image));
    o.vector = DONE;
    o.r = in;
    o.r.sp = in.sp + size;
    o.r.ip = (ulong)code + CODE_LEN(code);
    o.r.flags = (in.flags & ~mask) | (value & mask);
    run(code);
    judge("popf", &i, &o);
}

static void popf(void *code, unsigned size, bool code64) {
    for (unsigned cpl = 0; cpl < 4; cpl++) {
        for (unsigned old = 0; old < COUNT(patterns) - 1; old++) {
            for (unsigned k = 0; k < COUNT(patterns); k++) {
                from_level(cpl, code64);
                in.flags = X86_FL_ONE | (patterns[old] & FL_ALL & ~(ulong)X86_FL_TF);
                popf_case(code, size, cpl, patterns[k]);
                popf_case(code, size, cpl, patterns[k] | X86_FL_VM);
            }
        }
    }
}

/* --- to and in virtual-8086 mode --- */

#ifndef __x86_64__
#define V86_CS 0x700ul  /* 700:1000 is LAND */
#define V86_SS 0x1a00ul /* 1a00:1000 is FRAME */

static void judge_v86(const char *what, const struct outcome *o) {
    struct image i = {o->r.ip, o->r.cs, o->r.flags, o->r.sp, o->r.ss};
    judge(what, &i, o);
}

static void to_v86(ulong ip, ulong flags) {
    uint32_t frame[9] = {ip,         0x45550700u, flags | X86_FL_VM,
                         0x12345678, 0x1a00,      0xffff1111,
                         0x2222,     0x3333,      0x4444};
    struct outcome o = {.r = in};
    memcpy((void *)FRAME, frame, sizeof(frame));
    o.r.ip = (ulong)forms[0].code;
    if (ip > 0xffff) {
        fails(&o, X86_GP, 0);
    } else {
        o.vector = DONE;
        o.r.ip = ip + 2;
        o.r.cs = V86_CS, o.r.ss = 0x1a00, o.r.sp = 0x12345678;
        o.r.es = 0x1111, o.r.ds = 0x2222, o.r.fs = 0x3333, o.r.gs = 0x4444;
        o.r.flags = (flags & (FL_ALL)) | X86_FL_VM | X86_FL_ONE;
    }
    run(forms[0].code);
    judge_v86("iret to v86", &o);
}

/* IOPL 3, or INT n faults in virtual-8086 mode. */
static void enter_v86(void) {
    static const ulong ips[] = {0x1000, 0x10000, 0x1001000, 0xffff1000};
    for (unsigned k = 0; k < COUNT(patterns); k++) {
        from_level(0, false);
        to_v86(0x1000, patterns[k] | X86_FL_IOPL);
    }
    for (unsigned k = 0; k < COUNT(ips); k++) {
        from_level(0, false);
        to_v86(ips[k], X86_FL_IOPL);
    }
}

static void regs_v86(unsigned iopl) {
    regs_kernel();
    in.cs = 0, in.ss = V86_SS, in.sp = 0x1000;
    in.ds = 0x1111, in.es = 0x2222, in.fs = 0x3333, in.gs = 0x4444;
    in.flags = X86_FL_ONE | X86_FL_VM | iopl << X86_FL_IOPL_SHIFT;
}

/* CODE_AT: in the first 64 KiB, with an `int 0x81` behind. */
#define CODE_AT 0x9000ul

static void v86_case(const struct form *f, unsigned iopl, ulong old, ulong image) {
    struct image i = {0x1000, V86_CS, image, 0, 0};
    struct outcome o;
    regs_v86(iopl);
    in.flags |= old;
    frame_write(f, &i);
    memset(&o, 0, sizeof(o));
    memcpy((void *)CODE_AT, f->code, CODE_LEN(f->code));
    o.r = in;
    o.r.ip = CODE_AT;
    if (f->iret && iopl < 3) {
        fails(&o, X86_GP, 0);
    } else {
        ulong mask = FL_ALWAYS | X86_FL_IF | (f->size > 2 ? X86_FL_AC | X86_FL_ID : 0);
        ulong value = f->size == 2 ? image & 0xffff : image;
        o.vector = iopl < 3 ? X86_GP : DONE; /* the INT's */
        o.error = 0;
        o.r.cs = V86_CS;
        o.r.ip = 0x1000 + (iopl < 3 ? 0 : 2);
        o.r.sp += (f->iret ? 3u : 2u) * f->size + f->imm;
        if (f->iret)
            o.r.flags = (in.flags & ~mask) | (value & mask);
    }
    run((void *)CODE_AT);
    judge_v86(f->name, &o);
}

static void popf_v86(unsigned size, unsigned iopl, ulong old, ulong image) {
    struct outcome o;
    ulong mask = FL_ALWAYS | X86_FL_IF | (size > 2 ? X86_FL_AC | X86_FL_ID : 0);
    ulong value = size == 2 ? image & 0xffff : image;
    regs_v86(iopl);
    in.flags |= old;
    memset(&o, 0, sizeof(o));
    o.r = in;
    o.r.ip = CODE_AT;
    memcpy((void *)FRAME, &image, 4);
    memcpy((void *)CODE_AT, size == 4 ? "\x66\x9d\xcd\x81" : "\x9d\xcd\x81\x90", 4);
    if (iopl < 3) {
        fails(&o, X86_GP, 0);
    } else {
        o.vector = DONE;
        o.r.ip += size == 4 ? 4 : 3;
        o.r.sp += size;
        o.r.flags = (in.flags & ~mask) | (value & mask);
    }
    run((void *)CODE_AT);
    judge_v86("popf in v86", &o);
}

/* In 16-bit code the prefix means 32 bits: forms 1 and 0 change places. */
static void in_v86(void) {
    for (unsigned iopl = 0; iopl < 4; iopl++) {
        for (unsigned old = 0; old < COUNT(patterns) - 1; old++) {
            ulong before = patterns[old] & FL_ALL & ~(ulong)(X86_FL_TF | X86_FL_IOPL);
            for (unsigned k = 0; k < COUNT(patterns); k++) {
                for (unsigned n = 0; n < 4; n++) {
                    struct form f = forms[n];
                    f.size = f.size == 2 ? 4 : 2;
                    v86_case(&f, iopl, before, patterns[k]);
                }
                popf_v86(2, iopl, before, patterns[k]);
                popf_v86(4, iopl, before, patterns[k]);
            }
        }
    }
}

/* --- frames that the stack segment holds in part only --- */

static unsigned needs(const struct form *f, bool outer, bool to_vm) {
    return f->size * (to_vm     ? 9u
                      : f->iret ? 3u
                                : 2u) +
           f->imm + (outer && !to_vm ? 2u * f->size : 0);
}

static void each_short(const struct form *f, unsigned cpl) {
    for (unsigned room = 0; room < 40; room += 2) {
        for (unsigned to = cpl; to < 4; to++) {
            struct image i = good(to);
            struct outcome o;
            uint64_t d = seg_desc(0, (uint32_t)FRAME + room - 1,
                                  (ar_of(DATA_SEL(cpl)) & ~(unsigned)X86_AR_G));
            gdt_set(SUBJECT_SS, d);
            in.ss = SUBJECT_SS | cpl;
            frame_write(f, &i);
            model(&o, f, &i);
            /* What RET releases is not read: only the pops are checked. */
            unsigned read = needs(f, to > cpl, false) - (to > cpl ? 0u : f->imm);
            /* Of the last slot, CS's, Intel's CPUs read the selector alone. */
            if (!f->iret && to == cpl && !cpu_is_amd())
                read -= f->size - 2u;
            if (room < read) {
                memset(&o.r, 0, sizeof(o.r));
                o.r = in;
                o.r.ip = (ulong)f->code;
                fails(&o, X86_SS, 0);
            }
            if (room >= read && room < 16 && !cpl && to == cpl)
                continue; /* the INT could not push */
            run(f->code);
            judge(f->name, &i, &o);
        }
    }
}
#endif

void guest_main(void) {
    rf_of_tcg = cpu_is_tcg();
    tables();
    everywhere(each_cs);
    everywhere(each_ss);
    everywhere(each_selector);
    everywhere(each_flags);
    local();
    if (!cpu_is_tcg()) /* which leaves null selectors alone */
        everywhere(each_null);
    popf(CODE(".byte 0x66, 0x9d"), 2, LONG_MODE);
    popf(CODE(".byte 0x9d"), sizeof(ulong), LONG_MODE);
#ifdef __x86_64__
    everywhere(each_wide);
    popf(CODE(".byte 0x9d"), 4, false);
#else
    enter_v86();
    in_v86();
    everywhere(each_short);
#endif
    check(!bad, "%u of %u cases", bad, cases);
    note("%u cases", cases);
    digest_print();
}
