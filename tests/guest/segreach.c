/*
 * What a loaded segment reaches: each readable type x G x D x limit x offset at its edges
 * x size x read, write and both, through each segment register, with the value and the
 * address that base and offset make; in 32-bit and compatibility code. In 64-bit code the
 * same descriptors must not matter, but for the bases of FS and GS. Null selectors.
 *
 * AMD64 APM volume 2, "Limit Checks", "Type Checks", "Segmentation in 64-Bit Mode". Left
 * out: accesses that wrap at 4 GiB, which processors treat each in their own way.
 */
#include "rings.h"

const char guest_name[] = GUEST_NAME;

#define SEL (RINGS_FREE | 3u)
#define BASE 0x1234567u
#define RAM 0x4000000u
#define FREE 0x800000u /* RAM from here on is nobody's */

enum kind { READ, WRITE, BOTH, KINDS };

struct access {
    uint8_t seg, size, kind; /* seg: index in struct regs */
    void *code;
};

struct test {
    const struct access *a;
    unsigned bits, cpl, ar;
    uint32_t limit; /* in bytes; for the descriptor it is cut as G says */
    uint32_t off;
    bool null;
};

static const char *const seg_names[] = {"ds", "es", "fs", "gs"};
static struct access accesses[48];
static unsigned naccesses;

#define IS_SS(a) ((a)->seg > 3)

/* --- the model --- */

static bool may_write(const struct test *t) {
    return (t->ar & (X86_AR_CODE | X86_AR_WRITE)) == X86_AR_WRITE;
}

static bool within(const struct test *t) {
    uint32_t last = t->off + t->a->size - 1;
    uint32_t top = t->ar & X86_AR_DB ? 0xffffffffu : 0xffffu;

    if (!(t->ar & X86_AR_CODE) && (t->ar & X86_AR_EXPDOWN))
        return t->off > t->limit && last <= top;
    return last <= t->limit;
}

static bool allowed(const struct test *t) {
    if (t->bits == 64)
        return true;
    return !t->null && (t->a->kind == READ || may_write(t)) && within(t);
}

static uint32_t address(const struct test *t) {
    bool based = t->bits != 64 || (!IS_SS(t->a) && t->a->seg >= 2);

    return t->off + (based && !t->null ? BASE : 0);
}

/* --- one case --- */

static void try(const struct test *t) {
    const struct access *a = t->a;
    uint32_t at = address(t), mask = a->size == 4 ? ~0u : (1u << 8 * a->size) - 1;
    uint32_t *mem = (uint32_t *)(ulong)at, before = 0x5a6b7c8d ^ at, want = before;
    bool real = at >= FREE && at < RAM - 4;
    struct ending w;

    regs_ring(t->bits, t->cpl);
    in.si = t->off;
    gdt_set(SEL, seg_desc(BASE, t->limit, t->ar));
    if (IS_SS(a))
        in.ss = SEL;
    else
        (&in.ds)[a->seg] = t->null ? 0 : SEL;
    if (real)
        *mem = before;
    ending_begin(&w, a->code);
    if (!allowed(t)) {
        ending_fault(&w, IS_SS(a) ? X86_SS : X86_GP, 0);
    } else {
        if (a->kind != READ)
            want = (before & ~mask) | (uint32_t)(in.ax & mask);
        if (a->kind != WRITE && real)
            w.r.ax = (in.ax & ~mask) | (before & mask);
    }
    run(a->code);
    if (!real && allowed(t) && a->kind != WRITE) /* whatever lies there */
        w.r.ax = trap.r.ax;
    if (IS_SS(a) && !(t->ar & X86_AR_DB)) { /* IRET to a 16-bit stack loads SP only */
        w.r.sp &= 0xffff;
        trap.r.sp &= 0xffff;
    }
    if (ending_judge(&w,
                     "%s, %u bytes, kind %u, %u-bit, CPL %u, type 0x%x, limit 0x%x, 0x%x",
                     IS_SS(a) ? "ss" : seg_names[a->seg], a->size, a->kind, t->bits,
                     t->cpl, t->ar, t->limit, t->off) &&
        real)
        ending_also(*mem == want, "memory 0x%x, want 0x%x, at offset 0x%x", *mem, want,
                    t->off);
}

/* --- the enumeration --- */

/* Offsets that lie near the limit, near 64 KiB, and at the start. */
static const int32_t near[] = {-4, -3, -1, 0, 1, 0x10000};

static void each_offset(struct test *t) {
    const uint32_t places[] = {t->limit, 0xffff, 0x10000, 0x8000};

    for (unsigned n = 0; n < COUNT(places) * COUNT(near); n++) {
        t->off = places[n / COUNT(near)] + (uint32_t)near[n % COUNT(near)];
        if (t->bits == 64)
            t->off = (t->off & 0xffffff) + 0x1000000;
        if (t->off > t->off + t->a->size - 1)
            continue;
        t->cpl = IS_SS(t->a) || (n & 1) ? 3 : 0;
        try(t);
    }
}

static void each_descriptor(struct test *t) {
    static const uint32_t limits[] = {0, 0xfff, 0xffff, 0x10000, 0xffffffff};
    static const uint8_t types[] = {0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 14, 15};

    for (unsigned n = 0; n < 4 * COUNT(types); n++) {
        unsigned type = types[n / 4];

        if (IS_SS(t->a) && (type & 10) != 2)
            continue;
        t->ar = X86_AR_P | X86_AR_S | X86_AR_DPL | type;
        t->ar |= (n & 1 ? X86_AR_DB : 0) | (n & 2 ? X86_AR_G : 0);
        /* 64-bit code does not look at limits: few of them. */
        for (unsigned k = 0; k < COUNT(limits); k += t->bits == 64 ? 3 : 1) {
            t->limit = n & 2 ? limits[k] | 0xfff : limits[k] & 0xfffff;
            each_offset(t);
        }
    }
}

#define SI BITS("[esi]", "[rsi]")
#define FORMS(seg, n)                                                                    \
    add(n, 1, READ, CODE("mov al, " seg ":" SI));                                        \
    add(n, 2, READ, CODE("mov ax, " seg ":" SI));                                        \
    add(n, 4, READ, CODE("mov eax, " seg ":" SI));                                       \
    add(n, 1, WRITE, CODE("mov " seg ":" SI ", al"));                                    \
    add(n, 2, WRITE, CODE("mov " seg ":" SI ", ax"));                                    \
    add(n, 4, WRITE, CODE("mov " seg ":" SI ", eax"));                                   \
    add(n, 1, BOTH, CODE("xchg " seg ":" SI ", al"));                                    \
    add(n, 2, BOTH, CODE("xchg " seg ":" SI ", ax"));                                    \
    add(n, 4, BOTH, CODE("xchg " seg ":" SI ", eax"))

static void add(unsigned seg, unsigned size, enum kind kind, void *code) {
    accesses[naccesses++] =
        (struct access){(uint8_t)seg, (uint8_t)size, (uint8_t)kind, code};
}

void guest_main(void) {
    rings_set();
    FORMS("ds", 0);
    FORMS("es", 1);
    FORMS("fs", 2);
    FORMS("gs", 3);
    FORMS("ss", 9);
    for (unsigned n = 0; n < naccesses; n++)
        for (unsigned bits = 32; bits <= (LONG_MODE ? 64 : 32); bits += 32) {
            struct test t = {.a = &accesses[n], .bits = bits};

            each_descriptor(&t);
            t.null = true;
            t.limit = 0xffff;
            if (!IS_SS(t.a))
                each_offset(&t);
        }
    rings_report();
}
