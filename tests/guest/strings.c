/*
 * String instructions with repeat prefixes: a fault in the middle leaves cx, si and di
 * at the element that faulted, ip at the instruction, and the elements before it done;
 * run again after the page appears it goes on as if nothing had happened.
 * AMD64 APM volume 3, "Repeat Prefixes".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

/* Two mapped pages around a missing one, twice. */
#define SRC 0x40000000ul
#define DST 0x48000000ul
#define GAP 0x1000

static struct space s;
static uint8_t *src[3], *dst[3];

static void map(ulong va, uint8_t *page, uint64_t flags) {
    space_map(&s, va, (ulong)page, flags, 1);
    invlpg(va);
}

static void gaps(bool open) {
    map(SRC + GAP, src[1], open ? RWU : 0);
    map(DST + GAP, dst[1], open ? RWU : 0);
}

static void fill(void) {
    gaps(true);
    for (unsigned i = 0; i < 3 * 4096; i++) {
        ((volatile uint8_t *)SRC)[i] = (uint8_t)(i * 7 + (i >> 8));
        ((volatile uint8_t *)DST)[i] = 0xee;
    }
    gaps(false);
}

static void *string_code(unsigned op, unsigned size) {
    switch (op * 16 + size) {
    case 0x01:
        return CODE("rep movsb");
    case 0x02:
        return CODE("rep movsw");
    case 0x04:
        return CODE("rep movsd");
    case 0x11:
        return CODE("rep stosb");
    case 0x12:
        return CODE("rep stosw");
    case 0x14:
        return CODE("rep stosd");
    case 0x21:
        return CODE("rep lodsb");
    case 0x22:
        return CODE("rep lodsw");
    case 0x24:
        return CODE("rep lodsd");
    case 0x31:
        return CODE("repne scasb");
    case 0x32:
        return CODE("repne scasw");
    case 0x34:
        return CODE("repne scasd");
    case 0x41:
        return CODE("repe cmpsb");
    case 0x42:
        return CODE("repe cmpsw");
    case 0x44:
        return CODE("repe cmpsd");
#ifdef __x86_64__
    case 0x08:
        return CODE("rep movsq");
    case 0x18:
        return CODE("rep stosq");
    case 0x28:
        return CODE("rep lodsq");
    case 0x38:
        return CODE("repne scasq");
    case 0x48:
        return CODE("repe cmpsq");
#endif
    }
    return NULL;
}

static const char *const op_names[] = {"movs", "stos", "lods", "scas", "cmps"};

/*
 * `n` elements, the fault expected at element `at` of the source or the destination.
 * Forward runs end in the gap from below, backward ones from above; `skew` bytes make an
 * element straddle the gap's edge.
 */
static void faulting(unsigned op, unsigned size, bool down, unsigned skew, bool user) {
    void *code = string_code(op, size);
    bool reads = op != 1 && op != 3, writes = op <= 1;
    for (int where = 0; where < 2; where++) { /* 0: the source faults, 1: di */
        if (where ? op == 2 : !reads)
            continue;
        fill();
        if (op == 4)
            memcpy(dst[0], src[0], 4096), memcpy(dst[2], src[2], 4096),
                memcpy(dst[1], src[1], 4096);
        unsigned at = 20, n = 50;
        /* Element `at` is the first to touch the gap: it begins `skew` bytes before it,
         * or going down ends `skew` bytes after it. */
        long edge =
            down ? (long)GAP * 2 - (long)size + (long)skew : (long)GAP - (long)skew;
        long first = edge + (down ? (long)(at * size) : -(long)(at * size));
        /* The other pointer stays on its outer page: page 0 from its start. */
        long other = down ? 0x800 : 0x100;
        if (user)
            regs_user();
        else
            regs_kernel();
        in.flags |= down ? X86_FL_DF : 0;
        in.cx = n;
        in.ax = op == 3 ? 0x5a5a5a5aul : 0xa1b2c3d4ul; /* scas: not to be found */
        in.si = SRC + (ulong)(where == 0 ? first : other);
        in.di = DST + (ulong)(where == 1 ? first : other);
        if (op == 4) /* equal elements: both at the same offset */
            in.si = SRC + (ulong)first, in.di = DST + (ulong)first;
        if (op == 4 && where == 0)
            map(DST + GAP, dst[1], RWU);
        if (op == 4 && where == 1)
            map(SRC + GAP, src[1], RWU);
        if (op == 3)
            for (int i = 0; i < 3; i++)
                memset(dst[i], 0xee, 4096);
        struct regs start = in;
        run(code);
        long step = down ? -(long)size : (long)size;
        ulong si = start.si + (reads ? (ulong)(step * (long)at) : 0);
        ulong di = start.di + (op != 2 ? (ulong)(step * (long)at) : 0);
        ulong base = where ? DST : SRC;
        ulong ea = where ? di : si;
        ulong cr2 = (ea & ~0xffful) == base + GAP ? ea : base + GAP;
        ulong error = (where && writes ? X86_PF_W : 0) | (user ? X86_PF_U : 0);
        check(trap.vector == X86_PF && trap.error == error && trap.cr2 == cr2 &&
                  trap.r.ip == (ulong)code && trap.r.cx == n - at && trap.r.si == si &&
                  trap.r.di == di,
              "%s%u %s skew %u ring %u, %s: vector %u error 0x%lx cr2 0x%lx cx %lu "
              "si 0x%lx di 0x%lx, want error 0x%lx cr2 0x%lx cx %lu si 0x%lx di 0x%lx",
              op_names[op], size * 8, down ? "down" : "up", skew, user ? 3 : 0,
              where ? "di" : "si", trap.vector, trap.error, trap.cr2, trap.r.cx,
              trap.r.si, trap.r.di, error, cr2, (ulong)(n - at), si, di);
        if (writes && where && skew) /* no part of the straddling element is there */
            check(((uint8_t *)dst[down ? 2 : 0])[down ? 0 : 4095] == 0xee,
                  "%s%u: nothing of the faulting element was written", op_names[op],
                  size * 8);
        /* Make the gap go away and go on from what was saved. */
        gaps(true);
        in = trap.r;
        in.ss = start.ss;
        in.sp = start.sp;
        unsigned v = run(code);
        si = start.si + (reads ? (ulong)(step * (long)n) : 0);
        di = start.di + (op != 2 ? (ulong)(step * (long)n) : 0);
        check(v == DONE && trap.r.cx == 0 && trap.r.si == si && trap.r.di == di,
              "%s%u resumed: vector %u cx %lu", op_names[op], size * 8, v, trap.r.cx);
        if (op == 0) {
            ulong lo = down ? (ulong)(step * (long)(n - 1)) : 0;
            check(!memcmp((void *)(start.di + lo), (void *)(start.si + lo), n * size),
                  "movs%u copied", size * 8);
        }
        if (op == 1) {
            ulong lo = down ? (ulong)(step * (long)(n - 1)) : 0;
            bool ok = true;
            for (unsigned i = 0; i < n; i++)
                ok &= !memcmp((void *)(start.di + lo + i * size), &start.ax, size);
            check(ok, "stos%u filled", size * 8);
        }
        if (op == 4)
            check(trap.r.flags & X86_FL_ZF, "cmps%u equal", size * 8);
        if (op == 3)
            check(!(trap.r.flags & X86_FL_ZF), "scas%u not found", size * 8);
    }
}

static void results(void) {
    gaps(true);
    uint8_t *a = (uint8_t *)SRC, *b = (uint8_t *)DST;
    /* Nothing at all with cx = 0: no access, no flags, no pointers. */
    static void *zero[8];
    zero[0] = CODE("rep movsb");
    zero[1] = CODE("rep stosd");
    zero[2] = CODE("rep lodsb");
    zero[3] = CODE("repe cmpsb");
    zero[4] = CODE("repne scasb");
    for (int i = 0; i < 5; i++) {
        regs_kernel();
        in.si = in.di = 0xdead0000;
        in.flags |= X86_FL_CF | X86_FL_ZF | X86_FL_OF;
        run(zero[i]);
        check(trap.vector == DONE && trap.r.si == in.si && trap.r.di == in.di &&
                  trap.r.flags == in.flags,
              "cx = 0, row %u", (unsigned)i);
    }
    /* Overlap: bytes propagate, as a byte at a time would. */
    for (unsigned i = 0; i < 64; i++)
        a[i] = (uint8_t)i;
    regs_kernel();
    in.si = SRC, in.di = SRC + 1, in.cx = 63;
    RUN("rep movsb");
    bool ok = true;
    for (unsigned i = 0; i < 64; i++)
        ok &= a[i] == 0;
    check(ok, "overlapping movsb fills");
    for (unsigned i = 0; i < 64; i++)
        a[i] = (uint8_t)i;
    in.si = SRC, in.di = SRC + 3, in.cx = 10;
    RUN("rep movsd");
    uint8_t m[64];
    for (unsigned i = 0; i < 64; i++)
        m[i] = (uint8_t)i;
    for (unsigned e = 0; e < 10; e++) {
        uint8_t t[4];
        memcpy(t, m + 4 * e, 4);
        memcpy(m + 3 + 4 * e, t, 4);
    }
    check(!memcmp(a, m, 64), "overlapping movsd by 3 bytes");
    for (unsigned i = 0; i < 64; i++)
        a[i] = (uint8_t)i;
    in.si = SRC + 49, in.di = SRC + 50, in.cx = 50, in.flags |= X86_FL_DF;
    RUN("rep movsb");
    ok = a[0] == 0;
    for (unsigned i = 1; i < 51; i++)
        ok &= a[i] == i - 1;
    check(ok, "backward movsb moves up by one");
    /* Long copies, odd offsets, over several pages. */
    fill();
    gaps(true);
    regs_kernel();
    in.si = SRC + 3, in.di = DST + 5, in.cx = 12000;
    RUN("rep movsb");
    check(!memcmp(a + 3, b + 5, 12000) && b[4] == 0xee && b[12005] == 0xee,
          "movsb of 12000 bytes");
    in.di = DST + 1, in.cx = 3000, in.ax = 0x44332211;
    RUN("rep stosd");
    ok = true;
    for (unsigned i = 0; i < 12000; i++)
        ok &= b[1 + i] == (i % 4 + 1) * 0x11;
    check(ok && trap.r.di == DST + 12001, "stosd of 12000 bytes");
    /* scas and cmps stop where they should, with the flags of that comparison. */
    memset(b, 1, 100);
    b[57] = 9;
    regs_kernel();
    in.di = DST, in.cx = 100, in.ax = 9;
    RUN("repne scasb");
    check(trap.r.cx == 42 && trap.r.di == DST + 58 && (trap.r.flags & X86_FL_ZF),
          "repne scasb: cx %lu", trap.r.cx);
    in.ax = 1;
    RUN("repe scasb");
    check(trap.r.cx == 42 && trap.r.di == DST + 58 && !(trap.r.flags & X86_FL_ZF) &&
              (trap.r.flags & X86_FL_CF),
          "repe scasb: cx %lu flags 0x%lx", trap.r.cx, trap.r.flags);
    memset(a, 1, 100);
    a[57] = 0x80;
    in.si = SRC;
    RUN("repe cmpsb");
    check(trap.r.cx == 42 && trap.r.si == SRC + 58 && trap.r.di == DST + 58 &&
              !(trap.r.flags & X86_FL_ZF) && (trap.r.flags & X86_FL_OF),
          "repe cmpsb: cx %lu flags 0x%lx", trap.r.cx, trap.r.flags);
    a[20] = 2;
    b[20] = 3;
    RUN("mov al, 0\nrepe cmpsb");
    check(trap.r.cx == 79 && (trap.r.flags & X86_FL_CF), "repe cmpsb below");
    a[0] = 5;
    RUN("repne cmpsb");
    check(trap.r.cx == 98 && (trap.r.flags & X86_FL_ZF),
          "repne cmpsb stops at equal: %lu", trap.r.cx);
    /* lods: the last element stays; the upper part of eax too. */
    a[9] = 0x5c;
    in.si = SRC, in.cx = 10, in.ax = 0x12345600;
    RUN("rep lodsb");
    check_eq("rep lodsb", trap.r.ax, 0x1234565c);
    /* Write to a read-only destination in the middle. */
    ulong cr0 = read_cr0();
    write_cr0(cr0 | X86_CR0_WP);
    map(DST + GAP, dst[1], X86_PTE_P | X86_PTE_U);
    in.si = SRC, in.di = DST + GAP - 40, in.cx = 100;
    RUN("rep movsb");
    check(trap.vector == X86_PF && trap.error == (X86_PF_W | X86_PF_P) &&
              trap.cr2 == DST + GAP && trap.r.cx == 60 && trap.r.si == SRC + 40,
          "movsb to read-only: %u 0x%lx cx %lu", trap.vector, trap.error, trap.r.cx);
    write_cr0(cr0);
    RUN("rep movsb");
    check(trap.vector == DONE, "without WP it goes on");
    gaps(true);
    /* Address size: 16-bit cx, si, di in 32-bit code; 32-bit ones in 64-bit code. */
#ifdef __x86_64__
    regs_kernel();
    in.cx = 0x700000003ul;
    in.di = DST;
    in.ax = 0x77;
    RUN("addr32 rep stosb");
    check(trap.vector == DONE && trap.r.di == DST + 3 && trap.r.cx == 0,
          "addr32 rep stosb: rcx 0x%lx rdi 0x%lx", trap.r.cx, trap.r.di);
#else
    uint8_t *low = (uint8_t *)0x5000;
    memset(low, 0, 16);
    regs_kernel();
    in.cx = 0x70003;
    in.di = 0xab5000;
    in.ax = 0x77;
    RUN("addr16 rep stosb");
    check(trap.vector == DONE && trap.r.di == 0xab5003 && trap.r.cx == 0x70000 &&
              low[2] == 0x77 && low[3] == 0,
          "addr16 rep stosb: ecx 0x%lx edi 0x%lx", trap.r.cx, trap.r.di);
#endif
}

/* Single-stepping a repeated string stops after every element. */
static unsigned steps;
static ulong step_ip[64], step_cx[64];

static bool on_step(struct frame *f) {
    if (steps < COUNT(step_ip)) {
        step_ip[steps] = f->ip;
        step_cx[steps] = f->cx;
    }
    if (++steps > 60)
        f->flags &= ~(ulong)X86_FL_TF;
    return true;
}

static void stepping(void) {
    void *code = CODE("rep movsb\nnop");
    hooks[X86_DB] = on_step;
    steps = 0;
    regs_user();
    in.flags |= X86_FL_TF;
    in.cx = 5, in.si = SRC, in.di = DST;
    run(code);
    hooks[X86_DB] = NULL;
    check(steps >= 6 && step_ip[0] == (ulong)code && step_cx[0] == 4 &&
              step_ip[3] == (ulong)code && step_cx[3] == 1 &&
              step_ip[4] == (ulong)code + 2 && step_cx[4] == 0,
          "single-step of rep movsb: %u steps, first ip +%lu cx %lu, fifth ip +%lu",
          steps, step_ip[0] - (ulong)code, step_cx[0], step_ip[4] - (ulong)code);
}

/* Port strings: a fault on the memory side leaves the registers at that element. */
static void ports(void) {
    gaps(false);
    regs_kernel();
    in.cx = 30, in.si = SRC + GAP - 10, in.dx = 0x80;
    RUN("rep outsb");
    check(trap.vector == X86_PF && trap.cr2 == SRC + GAP && trap.r.cx == 20 &&
              trap.r.si == SRC + GAP && trap.error == 0,
          "rep outsb: %u cx %lu", trap.vector, trap.r.cx);
    regs_kernel();
    in.cx = 30, in.di = DST + GAP - 10, in.dx = 0x80;
    RUN("rep insb");
    check(trap.vector == X86_PF && trap.cr2 == DST + GAP && trap.r.cx == 20 &&
              trap.r.di == DST + GAP && trap.error == X86_PF_W,
          "rep insb: %u cx %lu", trap.vector, trap.r.cx);
    gaps(true);
}

void guest_main(void) {
    space_new(&s, BITS(SPACE_32, SPACE_LONG), RWU);
    for (int i = 0; i < 3; i++) {
        src[i] = page_alloc();
        dst[i] = page_alloc();
        space_map(&s, SRC + (ulong)i * 4096, (ulong)src[i], RWU, 1);
        space_map(&s, DST + (ulong)i * 4096, (ulong)dst[i], RWU, 1);
    }
    space_load(&s);
    for (unsigned op = 0; op < 5; op++) {
        for (unsigned size = 1; size <= (LONG_MODE ? 8 : 4); size *= 2) {
            for (unsigned skew = 0; skew < size; skew++) {
                faulting(op, size, false, skew, false);
                faulting(op, size, true, skew, true);
            }
        }
    }
    results();
    stepping();
    ports();
}
