/*
 * Which programs are run directly. An address space that is found in user code at several
 * looks at events computes, and gets a cell. In the cell it is watched: whoever comes out
 * more often than it is worth is translated again, each time for longer.
 *
 * Break-even: user code that runs T between two exits takes T + C in a cell, C being what
 * an exit costs there, and T * S translated, S being 1.4 for loops and 10 for big code
 * that is executed once. A program that is young, and executes most of its code for the
 * first time, is taken for one of S = 5, for which cells win when T > C / 4; later for
 * one of S = 7/3, and T > C * 3/4, unless it still comes to new code all the time.
 */
#include "base/os.h"
#include "cpu/stops.h"
#include "direct/direct_int.h"
#include "x86/cr.h"

#define ENOUGH 3u            /* looks */
#define LOOKS_A_SECOND 1000u /* that count: one interrupt makes several */
#define WINDOW 64u           /* exits that a program is judged by */
#define EARLY 16u            /* windows in which it is young */
#define GROWS 8u /* pages of code that were new in a window, as if it were young */
#define MOST_FAILURES 6u

static uint64_t root(const struct vcpu *v) {
    return v->cr3 & 0x000ffffffffff000ull;
}

static struct program *program_of(struct direct *d) {
    return &d->program[(root(d->v) >> 12) * 0x9e3779b97f4a7c15ull >> 58];
}

/* Instructions of the x87 and of vectors fault for the guest's kernel where the host's
 * has no reason to. */
static bool vectors_fault(const struct vcpu *v) {
    return v->cr0 & (X86_CR0_TS | X86_CR0_EM) ||
           ~v->cr4 & (X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT);
}

/* What a cell can run at all. */
static bool suits(const struct direct *d) {
    const struct vcpu *v = d->v;

    if (d->sh->xcr0 && d->sh->xcr0 != v->xcr0) /* code was scanned for another */
        return false;
    return v->cpl == 3 && v->mode == MODE_64 && v->seg[SEG_CS].sel == 0x33 &&
           v->seg[SEG_SS].sel == 0x2b && !v->seg[SEG_DS].sel && !v->seg[SEG_ES].sel &&
           !v->seg[SEG_FS].sel && !v->seg[SEG_GS].sel && !v->counted && !v->step &&
           (v->cr4 & X86_CR4_FSGSBASE) && v->tsc_host &&
           !(v->rflags & (X86_FL_IOPL | X86_FL_TF | X86_FL_RF)) &&
           (v->rflags & X86_FL_IF) && !(v->dr[7] & 0xff) && !vectors_fault(v);
}

static bool qualifies(struct direct *d) {
    const struct program *p = program_of(d);

    if (d->v->stops && d->v->stops->breaks) /* a debugger's, that a cell does not see */
        return false;

    if (d->mode == DIRECT_ON)
        return true;
    return p->cr3 == root(d->v) && p->seen >= ENOUGH &&
           p->not_until <= __builtin_ia32_rdtsc();
}

void direct_look(struct direct *d) {
    bool away = !d->rest && qualifies(d);

    if (away != d->v->away)
        vcpu_forget_gates(d->v);
    d->v->away = away;
}

void direct_stops_changed(struct direct *d) {
    direct_look(d);
}

#define NEAR (16ull << 30)

/* A program's threads have their variables near each other; those of another program,
 * whose page tables are where the last one's were, are at a random place. */
static bool is_another(const struct program *p, const struct vcpu *v) {
    return v->seg[SEG_FS].base - p->thread + NEAR > 2 * NEAR;
}

void direct_sample(struct direct *d) {
    uint64_t now = __builtin_ia32_rdtsc();
    struct vcpu *v = d->v;
    struct program *p;

    d->rest = false;
    if (d->cpu >= 0 && now - d->ran_at > d->patience)
        direct_unpin(d);
    if (v->cpl != 3 || v->mode != MODE_64)
        return;
    p = program_of(d);
    if (p->cr3 != root(v) || is_another(p, v))
        *p = (struct program){.cr3 = root(v)};
    p->thread = v->seg[SEG_FS].base;
    if (now - p->seen_at > d->patience / LOOKS_A_SECOND) {
        p->seen_at = now;
        p->seen += p->seen < ENOUGH;
    }
    direct_look(d);
}

/* A new program in the tables of an old one, or one that has forked, or changed its
 * addresses: it is less likely to compute than it was, and what it maps comes again. */
void direct_program_flushed(struct direct *d) {
    struct program *p = program_of(d);

    if (p->cr3 != root(d->v))
        return;
    p->seen /= 2;
    p->flushed = true;
    direct_look(d);
}

/* There is no room to note where pages are: nobody has any. */
void direct_begin_anew(struct direct *d) {
    for (unsigned n = 0; n < MMU_SPACES_MAX; n++)
        d->space[n].all_stale = true;
    codes_clear(&d->codes);
    codes_clear(&d->kept);
}

/* Whoever has a copy of it mapped lets go of it; see direct_catch_up(). */
void direct_page_read(struct direct *d, const uint8_t *host) {
    struct direct_shared *sh = d->sh;
    uint64_t page = (uint64_t)(host - mem_ram_base(d->v->mem)) >> 12;

    if (page >= sh->pages ||
        __atomic_exchange_n(&sh->page[page].read, 1, __ATOMIC_SEQ_CST))
        return;
    if (sh->page[page].verdict != VERDICT_NONE)
        __atomic_add_fetch(&sh->reads, 1, __ATOMIC_SEQ_CST);
}

bool direct_wanted(struct direct *d) {
    return d->v->away && suits(d);
}

void direct_rest(struct direct *d) {
    d->rest = true;
    direct_look(d);
}

static void begin_window(const struct direct *d, struct program *p,
                         const struct cell *c) {
    p->cell = c;
    p->since_ns = cell_cpu_ns(c) - d->orders_ns;
    p->turns = p->exits = p->new_code = 0;
    p->flushed = false;
}

/* By the cell's own CPU time: that of the clock has in it what others of the host's did
 * meanwhile. */
static bool is_worth_it(const struct direct *d, const struct program *p) {
    uint64_t had = cell_cpu_ns(p->cell) - d->orders_ns - p->since_ns,
             going = p->turns * d->cell_ns;
    uint64_t user = had > going ? had - going : 0, c = d->exit_ns;

    bool cold = p->windows < EARLY || p->new_code >= GROWS;

    return user > WINDOW * (cold ? c / 4 : c * 3 / 4);
}

/* Turns that end for a page that is then mapped come once for each page, and would cost
 * more than they do here if its code were translated: they are not held against it. A
 * page that comes again and again, as one that is written and executed in turn, is. */
bool direct_judge(struct direct *d, const struct cell *c, bool mapped) {
    struct program *p = program_of(d);
    bool good;

    if (d->mode == DIRECT_ON || p->cr3 != root(d->v))
        return false;
    if (p->cell != c)
        begin_window(d, p, c);
    p->turns++;
    p->new_code += d->new_code;
    p->exits += (!mapped || p->flushed) + d->comes_back;
    if (p->exits < WINDOW)
        return false;
    good = is_worth_it(d, p);
    p->windows++;
    begin_window(d, p, c);
    if (good) {
        p->failures = 0;
        return false;
    }
    d->n.demoted++;
    p->seen = 0;
    p->failures += p->failures < MOST_FAILURES;
    p->not_until =
        __builtin_ia32_rdtsc() + (d->exit_ns * (os_tsc_hz() / 1000000) << p->failures);
    return true;
}
