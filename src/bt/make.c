/*
 * Fragments: the translator's work, proved if that is asked for, into the cache; what the
 * translator is told of guest code; and room in the cache.
 */
#include "base/bug.h"
#include "base/log.h"
#include "bt/bt_int.h"
#include "cpu/vec.h"
#include "mem/mem.h"
#include "verify/verify.h"

/* --- what the translator asks --- */

static bool is_hot(void *arg, uint64_t va, const uint8_t *ram, uint32_t key) {
    const struct bt *bt = arg;

    const struct ccf *c = tc_lookup(&bt->sh->tc, va, ram, key);

    return (c && c->paths && !c->paths->code.fixed) ||
           tc_lookup_path(&bt->sh->tc, va, ram, key);
}

static bool traps(void *arg, const struct insn *i, uint64_t va, const uint8_t *ram) {
    return bt_is_wait(arg, i) || bt_is_trap(arg, i, va, ram);
}

static struct insn *trapping(void *arg, struct tr_span *span, const struct insn *i,
                             uint64_t va, uint8_t *ram) {
    return bt_is_wait(arg, i) ? bt_wait_callout(span, i)
                              : bt_trap_callout(span, i, va, ram);
}

static bool no_group(void *arg, uint64_t va, const uint8_t *ram) {
    return bt_verdict_is(arg, va, ram, BT_VERDICT_NO_GROUP);
}

static bool no_anchor(void *arg, uint64_t va, const uint8_t *ram) {
    return bt_verdict_is(arg, va, ram, BT_VERDICT_NO_ANCHOR);
}

static bool breaks(void *arg, const uint8_t *code) {
    return bt_breaks_at(arg, code);
}

static bool division_faults(void *arg, uint64_t va) {
    return bt_division_faults(arg, va);
}

static void reads(void *arg, uint8_t *page) {
    struct bt_shared *sh = ((struct bt *)arg)->sh;

    BUG_ON(sh->nreading == ARRAY_SIZE(sh->reading));
    sh->reading[sh->nreading++] = page;
    tc_watch(&sh->tc, page);
}

static void reads_no_more(struct bt_shared *sh) {
    while (sh->nreading)
        tc_watch_end(&sh->tc, sh->reading[--sh->nreading]);
}

const struct tr_advice bt_advice = {.reads = reads,
                                    .is_hot = is_hot,
                                    .traps = traps,
                                    .trapping = trapping,
                                    .no_group = no_group,
                                    .no_anchor = no_anchor,
                                    .breaks = breaks,
                                    .division_faults = division_faults};

/* --- room --- */

static void forget_tables(struct bt_shared *sh) {
    for (struct bt *b = sh->first; b; b = b->next) {
        tr_vcpu(b->v)->jump = NULL;
        vcpu_forget_gates(b->v);
    }
    tc_jumps_reset(&sh->tc);
}

void bt_cool(struct bt *bt) {
    for (unsigned n = 0; n < 1u << TR_HEAT_BITS; n++)
        tr_counts(bt->v)->heat[n] = 0;
}

/* All others are stopped, or do not run. What no fragment has left anything in is not
 * touched: pages of zeros take no memory, nor the time to get them. */
static void flush(struct bt *bt) {
    struct bt_shared *sh = bt->sh;

    forget_tables(sh);
    tc_flush(&sh->tc);
    if (!sh->made)
        return;
    sh->made = false;
    for (struct bt *b = sh->first; b; b = b->next)
        bt_cool(b);
    bt_forget_verdicts(bt);
}

void bt_flush(struct bt *bt) {
    bt_stop(bt);
    flush(bt);
    bt_go_on(bt);
}

/* Nobody has anything of the cache in hand. */
static void evict(struct bt *bt) {
    struct bt_shared *sh = bt->sh;

    if (!sh->opt.evict && tc_wraps(&sh->tc)) {
        flush(bt);
        bt->v->cnt->bt_flushes++;
        return;
    }
    tc_evict(&sh->tc);
}

void bt_renew_tables(struct bt *bt) {
    bt_stop(bt);
    if (!tc_select_key(&bt->sh->tc, bt->v, tr_key(bt->v)))
        forget_tables(bt->sh);
    bt_go_on(bt);
}

/* On from UNIT to one that nobody has anything of; or somebody else has gone on. */
static bool take_free(struct bt *bt, unsigned unit) {
    struct tc *tc = &bt->sh->tc;
    bool gone, free;

    bt_lock(bt);
    gone = tc->unit != unit;
    free = !gone && tc_next_is_free(tc) && !tc_wraps(tc);
    if (free)
        tc_evict(tc);
    bt_unlock(bt);
    return gone || free;
}

void bt_make_room(struct bt *bt) {
    unsigned unit = bt->sh->tc.unit;

    if (take_free(bt, unit))
        return;
    bt_stop(bt);
    if (bt->sh->tc.unit == unit) /* else somebody else has by now */
        evict(bt);
    bt_go_on(bt);
}

/* --- the verifier --- */

static void to_log(void *arg, const char *text) {
    log_error("%s", text);
}

/* False, once reported: it is not proved, and nothing runs any more. */
static bool proved(struct bt *bt, const struct tr_code *c) {
    const struct bt_listing out = {.line = to_log};
    struct finding f;

    if (verify_code(&bt->sh->env, c, &f))
        return true;
    __atomic_store_n(&bt->sh->unsound, true, __ATOMIC_RELAXED);
    for (struct bt *b = bt->sh->first; b; b = b->next)
        bt_kick(b); /* what is in the cache goes no further than its next poll */
    log_error("the verifier does not accept what the translator has made; this run ends");
    verify_report(&bt->sh->env, c, &f, &out);
    return false;
}

bool bt_verify_common(struct bt *bt) {
    struct finding f;

    if (verify_stubs(&bt->sh->env, &f))
        return true;
    log_error("the verifier does not accept the translator's common code, at +%03x: %s",
              f.at ? (unsigned)(f.at - bt->sh->env.code.rx) : 0, f.why);
    return false;
}

/* --- translation --- */

void bt_set_heat(const struct bt *bt, const struct ccf *c, uint32_t n) {
    unsigned slot = tr_heat_slot(tr_place(&bt->sh->env, c->code.page, c->code.va));

    for (struct bt *b = bt->sh->first; b; b = b->next)
        __atomic_store_n(&tr_counts(b->v)->heat[slot], n, __ATOMIC_RELAXED);
}

static void count(struct bt *bt) {
    const struct tr_made made = tr_made(bt->sh->tr);
    struct counters *cnt = bt->v->cnt;

    cnt->bt_insns += made.n;
    cnt->bt_insns_ident += made.ident;
    cnt->bt_insns_operand += made.operand;
    cnt->bt_insns_callout += made.callouts;
}

/* The fragment at VA, on PAGE, in the cache: a hot path for SHARED, or if that is NULL a
 * shared one. NULL, and in *R why not. */
static struct ccf *make(struct bt *bt, uint64_t va, uint8_t *page, uint32_t key,
                        const struct ccf *shared, enum tr_result *r) {
    struct tr_span span;
    struct ccf *c;

    *r = TR_FULL;
    c = tc_reserve(&bt->sh->tc, &span);
    if (!c)
        return NULL;
    c->code.va = va;
    c->code.page = page;
    c->code.key = key;
    c->code.hot = shared;
    c->code.fixed = shared && !shared->paths;
    c->code.one_page = shared && shared->paths && !shared->paths->code.fixed;
    c->code.shared = shared ? &shared->code : NULL;
    reads(bt, c->code.page);
    tr_span_open(&bt->sh->env, &span);
    *r = tr_translate(bt->sh->tr, &span, &c->code);
    tr_span_close(&bt->sh->env);
    if (*r == TR_MADE && unlikely(bt->sh->opt.verify) && !proved(bt, &c->code))
        *r = TR_FAULT;
    if (*r != TR_MADE)
        return NULL;
    tc_insert(&bt->sh->tc, &span, c);
    bt->sh->made = true;
    return c;
}

/* At the guest's rip. */
static struct ccf *translate(struct bt *bt, uint32_t key, const struct ccf *shared,
                             enum tr_result *r) {
    struct vcpu *v = bt->v;
    uint8_t *code = (uint8_t *)(uintptr_t)mmu_fetch(v, gva(v->rip));
    struct ccf *c;

    *r = TR_FAULT;
    if (!code || mem_gpa(v->mem, code).a == ~0ull)
        return NULL;
    c = make(bt, v->rip, (uint8_t *)((uintptr_t)code & ~4095ul), key, shared, r);
    if (!c)
        return NULL;
    count(bt);
    if (shared || (key & KEY_SINGLE))
        return c;
    bt_set_heat(bt, c, bt->sh->opt.tr.hot);
    bt_recent_made(bt, tr_heat_slot(tr_place(&bt->sh->env, c->code.page, c->code.va)));
    return c;
}

/* With the time that it takes. */
static struct ccf *timed(struct bt *bt, uint32_t key, const struct ccf *shared,
                         enum tr_result *r) {
    uint64_t start = __builtin_ia32_rdtsc();
    struct ccf *c = translate(bt, key, shared, r);

    reads_no_more(bt->sh);
    bt->v->cnt->bt_translator_ticks += __builtin_ia32_rdtsc() - start;
    return c;
}

struct ccf *bt_translate(struct bt *bt, uint32_t key, bool *fault) {
    enum tr_result r;
    struct ccf *c = timed(bt, key, NULL, &r);

    *fault =
        r == TR_FAULT || (r == TR_FULL && tc_unit_empty(&bt->sh->tc)); /* never fits */
    return c;
}

struct ccf *bt_make_at(struct bt *bt, uint8_t *page, unsigned offset, uint32_t key,
                       enum tr_result *r) {
    struct bt_shared *sh = bt->sh;
    struct ccf *c;

    sh->env.nowhere = true;
    c = make(bt, offset, page, key, NULL, r);
    if (!c && *r == TR_FULL && tc_next_is_free(&sh->tc) && !tc_wraps(&sh->tc)) {
        reads_no_more(sh);
        tc_evict(&sh->tc);
        c = make(bt, offset, page, key, NULL, r);
    }
    reads_no_more(sh);
    sh->env.nowhere = false;
    return c;
}

/* Where C has a second page: does it follow here? NULL: it cannot be fetched from. */
static const uint8_t *second_page(struct bt *bt, const struct ccf *c) {
    const struct tr_code *code = &c->code;
    uint64_t va = code->va2;

    if (!code->fixed)
        va = tr_cut(code, va + (bt->v->rip & ~4095ull) - (code->va & ~4095ull));
    return (const uint8_t *)((uintptr_t)mmu_fetch(bt->v, gva(va)) & ~4095ul);
}

/* Does P, a path of C's, lead on from where the guest is? */
static bool applies(struct bt *bt, const struct ccf *p) {
    if (p->code.fixed)
        return p->code.va == bt->v->rip;
    return !p->code.page2 || second_page(bt, p) == p->code.page2;
}

static bool has_path(struct bt *bt, const struct ccf *c) {
    for (const struct ccf *p = c->paths; p; p = p->path_next)
        if (applies(bt, p))
            return true;
    return false;
}

/* The first path is for its address: the kernel has no other, nor has a program that runs
 * long. Code that is hot at another one, too, gets a path for all instead, since
 * processes come and go. If that goes on to a second page, which is not there everywhere,
 * the last one does without. */
static bool heat_up(struct bt *bt, struct ccf *c) {
    const uint8_t *code = mmu_fetch(bt->v, gva(bt->v->rip));
    struct ccf *path;
    enum tr_result r;

    /* Where there is no path to be had, it goes on counting below zero. */
    if (c->dead || !code || (uint8_t *)((uintptr_t)code & ~4095ul) != c->code.page ||
        c->code.page2 || has_path(bt, c))
        return true;
    path = timed(bt, c->code.key, c, &r);
    /* Of another address there may be more to come: C itself is executed next, once. */
    if (path || r == TR_FULL)
        bt_set_heat(bt, c, bt->sh->opt.tr.hot + 1);
    if (path) {
        bt->v->cnt->bt_hot_paths++;
        while (!path->code.fixed && c->paths)
            tc_drop(&bt->sh->tc, c->paths, TC_WHY_NONE);
        tc_path_add(&bt->sh->tc, c, path);
    }
    return r != TR_FULL;
}

void bt_heat_up(struct bt *bt, struct ccf *c) {
    bool full;

    bt_lock(bt);
    full = !heat_up(bt, c);
    bt_unlock(bt);
    if (full) /* C may be evicted: try again when what comes is hot */
        bt_make_room(bt);
}

/* --- what there is --- */

struct ccf *bt_find_shared(struct bt *bt, const uint8_t *page, uint32_t key,
                           bool *fault) {
    struct ccf *c = tc_lookup(&bt->sh->tc, bt->v->rip, page, key);
    const uint8_t *second;

    for (; c && c->code.page2; c = tc_lookup_next(c)) {
        second = second_page(bt, c);
        if (!second) {
            *fault = true;
            return NULL;
        }
        if (second == c->code.page2)
            break;
    }
    return c;
}

struct ccf *bt_find_path(struct bt *bt, const uint8_t *page, uint32_t key) {
    struct ccf *c = tc_lookup_path(&bt->sh->tc, bt->v->rip, page, key);

    return c && (!c->code.page2 || second_page(bt, c) == c->code.page2) ? c : NULL;
}
