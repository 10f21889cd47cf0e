/* Runs at every level, and how they end; see rings.h. */
#include "rings.h"

#define PRINTED 12

static unsigned cases, bad;
static bool tcg;
static uint8_t ring_stack[8192] __attribute__((aligned(4096)));
static struct {
    const char *field;
    ulong got, want;
} difference;

void rings_set(void) {
    const uint32_t data = X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED | X86_AR_G;
    const uint32_t code = data | X86_AR_CODE;

    tcg = cpu_is_tcg();
    for (uint32_t n = 0; n < 4; n++) {
        uint32_t dpl = n << X86_AR_DPL_SHIFT;

        gdt_set(RING_CODE(16, n), seg_desc(0, ~0u, code | dpl));
        gdt_set(RING_CODE(32, n), seg_desc(0, ~0u, code | dpl | X86_AR_DB));
        gdt_set(RING_CODE(64, n), seg_desc(0, ~0u, code | dpl | X86_AR_L));
        gdt_set(RING_DATA(n), seg_desc(0, ~0u, data | dpl | X86_AR_DB));
    }
}

void regs_ring(unsigned bits, unsigned cpl) {
    __asm__ volatile("mov %0, %%fs\nmov %0, %%gs" ::"r"(0));
    memset(&in, 0, sizeof(in));
    in.ax = 0xa0a1a2a3;
    in.cx = 0xc0c1c2c3;
    in.dx = 0xd0d1d2d3;
    in.bx = 0xb0b1b2b3;
    in.bp = 0xe0e1e2e3;
    in.si = 0x50515253;
    in.di = 0x70717273;
#ifdef __x86_64__
    in.r8 = 0x8888888888888888;
    in.r9 = 0x9999999999999999;
    in.r10 = 0x1010101010101010;
    in.r11 = 0x1111111111111111;
    in.r12 = 0x1212121212121212;
    in.r13 = 0x1313131313131313;
    in.r14 = 0x1414141414141414;
    in.r15 = 0x1515151515151515;
#endif
    in.cs = RING_CODE(bits, cpl);
    in.ds = in.es = in.ss = RING_DATA(cpl);
    in.flags = X86_FL_ONE;
    in.sp = (ulong)ring_stack + sizeof(ring_stack) - 256;
}

void ending_begin(struct ending *w, void *code) {
    w->vector = DONE;
    w->error = 0;
    w->r = in;
    w->start = (ulong)code;
    w->r.ip = (ulong)code + CODE_LEN(code);
}

void ending_fault(struct ending *w, unsigned vector, ulong error) {
    w->vector = vector;
    w->error = error;
    w->r.ip = w->start;
    w->r.flags |= X86_FL_RF;
}

static bool same(const char *field, ulong got, ulong want) {
    if (got == want)
        return true;
    difference.field = field;
    difference.got = got;
    difference.want = want;
    return false;
}

bool ending_met(const struct ending *w) {
    const struct regs *g = &trap.r, *r = &w->r;
    /* TCG does not set RF in frames. */
    ulong flags = tcg ? ~(ulong)X86_FL_RF : ~0ul;

    cases++;
    digest_bytes(&trap.vector, sizeof(trap.vector));
    digest_bytes(&trap.error, sizeof(trap.error));
    digest_bytes(&trap.r.ip, 3 * sizeof(ulong));
    return same("vector", trap.vector, w->vector) &&
           same("error", trap.error, w->error) && same("ip", g->ip, r->ip) &&
           same("cs", g->cs, r->cs) &&
           same("flags", g->flags & flags, r->flags & flags) &&
           same("sp", g->sp, r->sp) &&
           ((!LONG_MODE && !(r->cs & 3)) || same("ss", g->ss, r->ss)) &&
           same("ds", g->ds, r->ds) && same("es", g->es, r->es) &&
           same("fs", g->fs, r->fs) && same("gs", g->gs, r->gs) &&
           same("ax", g->ax, r->ax) && same("cx", g->cx, r->cx) &&
           same("dx", g->dx, r->dx) && same("bx", g->bx, r->bx) &&
           same("bp", g->bp, r->bp) && same("si", g->si, r->si) &&
           same("di", g->di, r->di) &&
#ifdef __x86_64__
           same("r8", g->r8, r->r8) && same("r9", g->r9, r->r9) &&
           same("r10", g->r10, r->r10) && same("r11", g->r11, r->r11) &&
           same("r12", g->r12, r->r12) && same("r13", g->r13, r->r13) &&
           same("r14", g->r14, r->r14) && same("r15", g->r15, r->r15) &&
#endif
           true;
}

static void complain(const char *format, va_list ap) {
    if (bad++ >= PRINTED)
        return;
    vprintf(format, ap);
    printf("\n");
}

bool ending_judge(const struct ending *w, const char *format, ...) {
    va_list ap;

    if (ending_met(w))
        return true;
    if (bad < PRINTED)
        printf("%s 0x%lx, want 0x%lx (vector %u error 0x%lx at %lx:0x%lx): ",
               difference.field, difference.got, difference.want, trap.vector, trap.error,
               trap.r.cs, trap.r.ip);
    va_start(ap, format);
    complain(format, ap);
    va_end(ap);
    return false;
}

bool ending_also(bool ok, const char *format, ...) {
    va_list ap;

    if (ok)
        return true;
    va_start(ap, format);
    complain(format, ap);
    va_end(ap);
    return false;
}

void rings_report(void) {
    check(!bad, "%u cases went wrong", bad);
    printf("%u cases\n", cases);
    digest_print();
}

void gdt_limit(unsigned limit) {
    struct {
        uint16_t limit;
        ulong base;
    } __attribute__((packed)) r = {(uint16_t)limit, (ulong)gdt};

    __asm__ volatile("lgdt %0" ::"m"(r));
}
