/*
 * Precise exceptions at every memory access: each instruction form of lib/forms.def, with
 * its operands laid across page boundaries in every way, while one page or all of them
 * are missing, read-only or the supervisor's. At each fault nothing may have changed but
 * what the architecture lets change, and error code, CR2 and the saved rIP must be right;
 * then the page is made accessible, the form goes on, and its result must be what it is
 * when nothing faults. First while the code is new, then after it has run thousands of
 * times.
 *
 * The accessed and dirty bits that a run without faults leaves say which pages the form
 * reads and writes, and so which faults must come.
 */
#include "lib/forms.h"

const char guest_name[] = GUEST_NAME;

#define HOT 900 /* the translator's second look comes after some hundred rounds */

static struct snapshot want;
static unsigned faults;
static bool broken;      /* what a fault showed was wrong: said already */
static int only_page;    /* the page that may fault; -1: any */
static bool first_round; /* the loop has not gone round: registers are as loaded */
static uint64_t page_bits[RIG_PAGES]; /* rights, with A and D of the run without faults */
static const char *mode_name, *state_name;
static bool fetching;
static bool few; /* not all places */

static int page_of(ulong va) {
    for (unsigned p = 0; p < RIG_PAGES; p++) {
        if ((va & ~0xffful) == rig_page_va(p))
            return (int)p;
    }
    return -1;
}

static void complain(const char *what, const struct frame *f, ulong cr2) {
    broken = true;
    check(false,
          "%s %s, k %s%u, %s: %s (ip +%ld cr2 0x%lx error 0x%lx ax 0x%lx cx 0x%lx dx "
          "0x%lx bx 0x%lx si 0x%lx di 0x%lx bp 0x%lx)",
          mode_name, rig.f->what, rig.k < 0 ? "-" : "",
          (unsigned)(rig.k < 0 ? -rig.k : rig.k), state_name, what, f->ip - rig.at, cr2,
          f->error, f->ax, f->cx, f->dx, f->bx, f->si, f->di, f->bp);
}

/* What must not have changed when a fault comes. */
static void look(const struct frame *f, ulong cr2) {
    unsigned flags = rig.f->flags;
    if (f->ip != rig.at && !(flags & MULTI))
        complain("the saved ip is not the instruction's", f, cr2);
    else if (f->ip < rig.at || f->ip >= rig.end)
        complain("the saved ip is not in the form", f, cr2);
    else if (!(flags & (MULTI | REP)) && !rig_regs_loaded(f))
        complain("registers changed before the fault", f, cr2);
    else if (!(flags & (MULTI | REP | PARTIAL)) && first_round && !rig_untouched())
        complain("memory was written before the fault", f, cr2);
    if (flags & REP && !(flags & MULTI)) {
        /* Whole elements are done, and the registers agree how many. */
        ulong done = 3 - f->cx;
        ulong b = f->di - (rig_page_va(3) - (ulong)(long)rig.k - rig.base);
        ulong a = f->si - (rig_page_va(1) - (ulong)(long)rig.k - rig.base);
        if (done > 2 || (a && a % (done ? done : 99)) || (b && b % (done ? done : 99)))
            complain("rep: counts do not agree", f, cr2);
    }
}

static bool on_fault(struct frame *f) {
    ulong cr2 = read_cr2();
    int p = page_of(cr2);
    uint64_t now;
    faults++;
    digest_add(f->ip - rig.at), digest_add(f->error), digest_add(cr2);
    if (fetching) {
        /* The second page of the code, whose first byte is what is missed. */
        if (f->ip != rig.at || cr2 != RIG_CODE + 4096 ||
            f->error != (X86_PF_I | (rig.user ? X86_PF_U : 0)) || !rig_regs_loaded(f))
            complain("a fetch across the boundary", f, cr2);
        space_set(&rig.s, cr2, 1, (ulong)rig.code_page[1] | RWU);
        return faults < 3;
    }
    if (p < 0 || (only_page >= 0 && p != only_page) || faults > 8) {
        complain("a fault that should not come", f, cr2);
        return false;
    }
    now = rig_page_get((unsigned)p);
    bool write = f->error & X86_PF_W, dirty = page_bits[p] & X86_PTE_D;
    ulong error = (rig.user ? X86_PF_U : 0) | (now & X86_PTE_P ? X86_PF_P : 0) |
                  (f->error & X86_PF_W);
    bool either = rig.f->flags & (READS | MULTI);
    if (f->error != error || (!either && write != dirty) || (write && !dirty))
        complain("the error code is wrong", f, cr2);
    look(f, cr2);
    rig_page_set((unsigned)p, rig_page_rights());
    first_round = false;
    return true;
}

/* One run with pages in a state; `expected` faults, or at least one when it is ~0. */
static void faulting(const char *what, unsigned pages, uint64_t rights, unsigned expected,
                     unsigned count) {
    state_name = what;
    rig_fill();
    for (unsigned p = 0; p < RIG_PAGES; p++)
        rig_page_set(p, pages >> p & 1 ? rights : rig_page_rights());
    only_page = pages & (pages - 1) ? -1 : __builtin_ctz(pages | 1u << 31);
    faults = 0;
    broken = false;
    first_round = count == 1;
    unsigned v = rig_run(count);
    if (!broken && check(v == DONE && (expected == ~0u ? faults > 0 : faults == expected),
                         "%s %s, k %s%u, %s, pages 0x%x: vector %u cr2 0x%lx ip +%ld, %u "
                         "faults, want %u",
                         mode_name, rig.f->what, rig.k < 0 ? "-" : "",
                         (unsigned)(rig.k < 0 ? -rig.k : rig.k), what, pages, v, trap.cr2,
                         trap.r.ip - rig.at, faults, expected))
        rig_same(what, &want);
}

/* The run without faults, which says what the others must do. */
static bool reference(unsigned count) {
    rig_fill();
    for (unsigned p = 0; p < RIG_PAGES; p++)
        rig_page_set(p, rig_page_rights());
    only_page = RIG_PAGES;
    state_name = "accessible";
    faults = 0;
    broken = false;
    unsigned v = rig_run(count);
    if (!check(v == DONE, "%s %s, k %u: vector %u error 0x%lx ip +%ld cr2 0x%lx",
               mode_name, rig.f->what, (unsigned)rig.k, v, trap.error, trap.r.ip - rig.at,
               trap.cr2))
        return false;
    rig_save(&want);
    digest_snapshot(&want);
    for (unsigned p = 0; p < RIG_PAGES; p++)
        page_bits[p] = rig_page_get(p);
    return true;
}

/* A form's every page in every bad state. */
static void walk(unsigned count) {
    unsigned touched = 0, count_touched = 0,
             limit = LONG_MODE || rig.user ? RIG_PAGES : 4;
    for (unsigned p = 0; p < limit; p++)
        touched |= (page_bits[p] & X86_PTE_A ? 1u : 0) << p;
    for (unsigned p = 0; p < limit; p++) {
        if (!(touched >> p & 1))
            continue;
        count_touched++;
        faulting("missing", 1u << p, 0, 1, count);
        if (rig.user)
            faulting("the supervisor's", 1u << p, RW, 1, count);
        if (page_bits[p] & X86_PTE_D)
            faulting("read-only", 1u << p, rig_page_rights() & ~(uint64_t)X86_PTE_W, 1,
                     count);
    }
    if (touched & (touched - 1))
        faulting("all missing", touched, 0, count_touched, count);
    unsigned others = (limit == 4 ? 15u : 63u) & ~touched;
    faulting("what is not touched is missing", others, 0, 0, count);
}

static void fetches(const struct form *f) {
    for (ulong split = 1; split < rig.end - rig.at && split < 12; split++) {
        rig_build(f, 0, RIG_CODE + 4096 - split);
        if (!reference(1)) /* what it stores may depend on where it lies */
            return;
        fetching = true;
        state_name = "fetched across";
        for (int hot = 0; hot < 2; hot++) {
            rig_fill();
            space_set(&rig.s, RIG_CODE + 4096, 1, 0);
            invlpg(RIG_CODE + 4096);
            faults = 0;
            broken = false;
            unsigned v = rig_run(1);
            check(broken || (v == DONE && faults == 1),
                  "%s %s split at %lu: vector %u, %u faults", mode_name, f->what, split,
                  v, faults);
            if (f->flags & MULTI)
                break; /* the instruction at the boundary may be another one */
            rig_same("fetched across", &want);
        }
        fetching = false;
    }
}

static void form(const struct form *f) {
    static const int ks[] = {0, 2, 16, -8, 64, 1, 3, 4, 7, 12, -2, -4, -16, -40, 320};
    int straddling = 0;
    bool found = false, any = false;
    for (unsigned i = 0; i < (few ? 5 : COUNT(ks)); i++) {
        if (!rig_takes(f, ks[i]))
            continue;
        any = true;
        rig_build(f, ks[i], 0);
        if (!reference(1))
            return;
        for (unsigned w = 0; w < 3 && !found; w++) {
            found = page_bits[2 * w] & page_bits[2 * w + 1] & X86_PTE_A;
            straddling = found ? ks[i] : straddling;
        }
        walk(1);
    }
    if (!any)
        return;
    /* Hot: the same code, many times, and then the faults. */
    rig_build(f, straddling, 0);
    if (!reference(HOT) || !reference(3))
        return;
    walk(3);
    if (!(f->flags & MULTI) && rig_takes(f, 0))
        fetches(f);
}

static void all(const char *name, bool user, bool code32, ulong base) {
    unsigned n;
    const struct form *f = forms_get(code32 && LONG_MODE, &n);
    mode_name = name;
    few = base || code32;
    rig_mode(user, code32, base);
    in.flags = X86_FL_ONE | X86_FL_IOPL;
    for (unsigned i = 0; i < n; i++)
        form(&f[i]);
}

void guest_main(void) {
    hooks[X86_PF] = on_fault;
#ifdef __x86_64__
    rig_init(SPACE_LONG);
    all("user", true, false, 0);
    all("kernel", false, false, 0);
    all("compatibility", true, true, 0);
#else
    wrmsr(X86_MSR_EFER, X86_EFER_NXE);
    rig_init(SPACE_PAE);
    all("user", true, false, 0);
    all("kernel", false, false, 0);
    all("user, segments with a base", true, false, 0x12345678);
    all("user, segments with base and limit", true, false, 0x51041);
#endif
    digest_print();
}
