/*
 * Which programs are run directly. An address space that is found in user code at several
 * looks at events computes, and gets a cell. In the cell it is watched: whoever comes out
 * more often than it is worth is translated again, each time for longer.
 *
 * Break-even: user code that runs T between two exits takes T + C in a cell, C being what
 * an exit costs there, and T * S translated, S being 1.4 for loops and 10 for big code
 * that is executed once. A program that is young, and executes most of its code for the
 * first time, is taken for one of S = 5, for which a cell saves 4 * T - C; later for one
 * of S = 7/3, unless it still comes to new code all the time. Where a quarter of the time
 * has gone into the translator one look is enough.
 *
 * To be translated for nothing is dear, too: a compiler that fills fresh memory comes out
 * for each page, for a millisecond, and computes again. So what a cell has saved is kept
 * in a balance, and the program is translated when a cell has lost more than that.
 *
 * Programs are executed again and again, and their code lies in the same pages of the
 * guest's page cache. A page knows whether those that were found in it proved to compute;
 * who is found there is taken for one more of them.
 */
#include "base/os.h"
#include "direct/direct_int.h"
#include "x86/cr.h"

#define ENOUGH 3u /* looks */
/* The same where there can be no cells before memory has been copied (struct cell_gate),
 * all within as many parts of a second: that takes as long as a command at a shell, and
 * as much memory as the guest uses. */
#define ENOUGH_TO_OPEN 32u
#define PARTS 10u
#define LOOKS_A_SECOND 1000u /* that count: one interrupt makes several */
#define WINDOW 64u           /* exits that a program is judged by */
#define EARLY 16u            /* windows in which it is young */
#define GROWS 8u /* pages of code that were new in a window, as if it were young */
#define MUCH 4u  /* such a part of the time */
#define WAY_BACK                                                                         \
    5 / 4 /* of what an exit costs, with what the engine does before it goes on */
#define MOST_FAILURES 6u
#define CREDIT_NS 1500000  /* that a cell may lose before it has saved anything */
#define BALANCE_NS 8000000 /* of what it has saved, that counts */

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

    if (p->cr3 == root(d->v) && p->splits_until > __builtin_ia32_rdtsc())
        return false;
    if (d->mode != DIRECT_ON && (p->cr3 != root(d->v) || p->seen < ENOUGH ||
                                 p->not_until > __builtin_ia32_rdtsc()))
        return false;
    if (d->gate->closed && p->looks >= ENOUGH_TO_OPEN)
        __atomic_store_n(&d->gate->wanted, true, __ATOMIC_RELAXED);
    return !d->gate->closed;
}

/* --- what is remembered of code --- */

/* Programs that were found in a page: so many more that computed than others, at most. */
#define SURE 3

/* The page that it is found in: PAGES of the machine's memory, or none. */
static uint64_t page_found(const struct direct *d) {
    const uint8_t *host = mmu_hit(d->v->mmu->code, gva(d->v->rip), 1, MMU_EXEC);
    uint64_t page;

    if (!host)
        return UINT64_MAX;
    page = (uint64_t)(host - mem_ram_base(d->v->mem)) >> 12;
    return page < d->sh->pages ? page : UINT64_MAX;
}

/* By any vCPU; one that is lost does not matter. */
static void remember(struct direct *d, struct program *p, bool computes) {
    for (unsigned n = 0; n < p->nfound; n++) {
        int8_t *known = &d->sh->page[p->found[n]].computes;
        int now = __atomic_load_n(known, __ATOMIC_RELAXED) + (computes ? 1 : -1);

        if (now <= SURE && now >= -SURE)
            __atomic_store_n(known, (int8_t)now, __ATOMIC_RELAXED);
    }
    p->nfound = 0;
    p->proved = true;
}

/* A look at a program that has not proved anything yet. */
static void found(struct direct *d, struct program *p) {
    uint64_t page = p->proved ? UINT64_MAX : page_found(d);

    if (page == UINT64_MAX)
        return;
    if (p->nfound < ARRAY_SIZE(p->found))
        p->found[p->nfound++] = (uint32_t)page;
    if (d->opt.remember && p->seen < ENOUGH &&
        __atomic_load_n(&d->sh->page[page].computes, __ATOMIC_RELAXED) > 0) {
        p->seen = ENOUGH;
        d->n.remembered++;
    }
}

/* Much of the time since the last look went into translating. */
static bool translates(struct direct *d, uint64_t now) {
    uint64_t ticks = d->v->cnt->bt_translator_ticks;
    bool much = (ticks - d->translator_ticks) * MUCH > now - d->looked_at;

    d->translator_ticks = ticks;
    d->looked_at = now;
    return much;
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

/* A program's threads have their variables in a few regions, of which each is met sooner
 * or later: its first thread's, the others', Go's heap. Those of another program, whose
 * page tables are where the last one's were, are at a random place; it cannot begin
 * without a flush. */
static bool is_another(struct program *p, const struct vcpu *v) {
    uint64_t base = v->seg[SEG_FS].base;

    for (unsigned n = 0; n < p->nthread; n++)
        if (base - p->thread[n] + NEAR <= 2 * NEAR) {
            p->thread[n] = base;
            return false;
        }
    if (p->doubtful)
        return true;
    p->thread[p->nthread % THREAD_REGIONS] = base;
    p->nthread += p->nthread < THREAD_REGIONS;
    return false;
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
    if (p->cr3 != root(v) || is_another(p, v)) {
        remember(d, p, false);
        *p = (struct program){.cr3 = root(v),
                              .balance_ns = CREDIT_NS,
                              .thread = {v->seg[SEG_FS].base},
                              .nthread = 1};
    }
    p->doubtful = false;
    if (now - p->seen_at > d->patience / LOOKS_A_SECOND) {
        p->looks = now - p->seen_at > d->patience / PARTS ? 1 : p->looks + 1;
        p->seen_at = now;
        p->seen += p->seen < ENOUGH;
        found(d, p);
        if (translates(d, now) && d->opt.cold) {
            d->n.cold += p->seen < ENOUGH;
            p->seen = ENOUGH;
        }
    }
    direct_look(d);
}

void direct_set_rewrites(struct direct *d) {
    struct program *p = program_of(d);

    if (p->cr3 == root(d->v))
        p->rewrites = true;
}

bool direct_rewrites(struct direct *d) {
    const struct program *p = program_of(d);

    return p->cr3 == root(d->v) && p->rewrites;
}

void direct_program_flushed(struct direct *d) {
    program_of(d)->doubtful = true;
}

/* A new program in the tables of an old one, or one that has forked, or changed its
 * addresses: it is less likely to compute than it was, and what it maps comes again. */
void direct_program_changed(struct direct *d) {
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

/* What the window has saved, by the cell's own CPU time: that of the clock has in it what
 * others of the host's did meanwhile. */
static int64_t saved_ns(const struct direct *d, const struct program *p) {
    int64_t had = (int64_t)(cell_cpu_ns(p->cell) - d->orders_ns - p->since_ns),
            going = (int64_t)(p->turns * d->cell_ns);
    int64_t user = had > going ? had - going : 0; /* what orders took is an estimate */
    bool cold = p->windows < EARLY || p->new_code >= GROWS;

    return (cold ? 4 * user : user * 4 / 3) - (int64_t)(WINDOW * d->exit_ns) * WAY_BACK;
}

/* It is translated from now on, for a time. */
static void demote(struct direct *d, struct program *p) {
    d->n.demoted++;
    p->seen = 0;
    p->failures += p->failures < MOST_FAILURES;
    p->balance_ns = CREDIT_NS >> p->failures;
    p->not_until =
        __builtin_ia32_rdtsc() + (d->exit_ns * (os_tsc_hz() / 1000000) << p->failures);
}

#define SPLITS_SECONDS 10u

void direct_set_splits(struct direct *d) {
    struct program *p = program_of(d);

    d->n.splits++;
    if (p->cr3 == root(d->v))
        p->splits_until = __builtin_ia32_rdtsc() + os_tsc_hz() * SPLITS_SECONDS;
    direct_rest(d);
}

/* Turns that end for a page that is then mapped come once for each page, and would cost
 * more than they do here if its code were translated: they are not held against it. A
 * page that comes again and again, as one that is written and executed in turn, is. */
bool direct_judge(struct direct *d, const struct cell *c, bool mapped) {
    struct program *p = program_of(d);
    int64_t saved;

    if (d->mode == DIRECT_ON || p->cr3 != root(d->v))
        return false;
    if (p->cell != c)
        begin_window(d, p, c);
    p->turns++;
    p->new_code += d->new_code;
    p->exits += (!mapped || p->flushed) + d->comes_back;
    if (p->exits < WINDOW)
        return false;
    saved = saved_ns(d, p);
    p->windows++;
    p->balance_ns += saved;
    if (p->balance_ns > BALANCE_NS)
        p->balance_ns = BALANCE_NS;
    begin_window(d, p, c);
    if (saved > 0) {
        remember(d, p, true);
        p->failures = 0;
    }
    if (p->balance_ns > 0 || !d->opt.demote)
        return false;
    demote(d, p);
    return true;
}
