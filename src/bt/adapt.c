/*
 * What keeps trapping is translated again with the trap designed in, and may come back.
 *
 * A memory access is translated as if it hit plain memory. When the inline check at an
 * instruction has failed FAIL_LIMIT times in short order, a verdict is found:
 *   - the instruction itself touches a device, stores to a traced page or crosses a page:
 *     it becomes a callout, and the rest of the fragment stays as good as it was;
 *   - it does not, but the range that was checked for it and others (tr/group.c) does, or
 *     a store is to a traced page, which one by itself may go to (access.c): no group
 *     starts there any more;
 *   - it raises a fault that the guest's page tables want: there is none.
 * A pointer of a loop has an anchor; when samples say that it misses all the time, for it
 * goes from page to page, it is looked up by the hash instead.
 *
 * Such a callout counts how often it traps. One that mostly does not (code that everybody
 * uses, and somebody for traced pages) is translated plainly again, and its traps are
 * tolerated for a time.
 *
 * A verdict holds for some time; then (bt_review(), from the dispatcher) what was made
 * under it is dropped, and what comes in its place is translated plainly. Each time that
 * the same verdict is found again soon after, it holds twice as long. So what has changed
 * its ways is fast again after a while, and what has not costs less and less.
 *
 * Places are kept by address and RAM page, in sets of WAYS; while a verdict holds, nobody
 * else gets its entry. (The paper's word for all this: innocent until proven guilty.)
 */
#include "bt/bt_int.h"
#include "cpu/vec.h"
#include "decode/decode.h"
#include "sem/sem.h"

#define FAIL_LIMIT 16

/* TSC ticks in which that many are too many: rarer ones cost less than what a check for
 * each access, or a callout, costs more. */
#define FAIL_TICKS_GROUP 20000000u
#define FAIL_TICKS_TRAP 1000000u

/* A miss of an anchor costs some thirty cycles more than the hash would, and the hash
 * some five each time. So what matters is when a vCPU does little else than miss: when it
 * gets to the next sample (BT_ANCHOR_SAMPLE) within MISS_TICKS of the TSC for each miss.
 * Whose misses so many of such samples were, in MISS_TERM, misses all the time. */
#define MISS_SAMPLES 16u
#define MISS_TICKS 80u
#define MISS_TERM (1ull << 28)

/* Of so many executions of a callout a share has to trap. */
#define TRIAL_RUNS 256u
#define TRIAL_SHARE 16u

/* In TSC ticks: how long the first verdict holds, tenths of a second, for anchors some
 * seconds, and for a group half a minute, for that is worth little beside being made
 * again; and how often at the most is looked for those whose time is over. */
#define TERM_SHIFT 29
#define TERM_SHIFT_ANCHOR 33
#define TERM_SHIFT_GROUP 36
#define REVIEW_TICKS (1ull << 26)
#define IN_A_ROW_MAX 12u

#define WAYS 4u

static struct bt_place *set_of(const struct bt *bt, uint64_t va, const uint8_t *page) {
    uint64_t h = va ^ (uint64_t)(uintptr_t)page << 12;

    return &bt->sh->places[(h * 0x9e3779b97f4a7c15ull >> (64 - BT_PLACE_BITS)) &
                           ~(uint64_t)(WAYS - 1)];
}

/* Most code has no verdicts: a bit for each 64 bytes of it, by hash, is set by the first.
 */
static uint32_t spot_of(uint64_t va, const uint8_t *page) {
    uint64_t at = ((uint64_t)(uintptr_t)page | (va & 4095)) >> 6;

    return (uint32_t)(at * 0x9e3779b97f4a7c15ull >> (64 - BT_SPOT_BITS));
}

static bool any_at(const struct bt *bt, uint64_t va, const uint8_t *page) {
    uint32_t bit = spot_of(va, page);

    return bt->sh->spots[bit / 64] >> (bit % 64) & 1;
}

static struct bt_place *find(const struct bt *bt, uint64_t va, const uint8_t *page) {
    struct bt_place *set = set_of(bt, va, page);

    for (unsigned n = 0; n < WAYS; n++)
        if (set[n].va == va && set[n].page == page)
            return &set[n];
    return NULL;
}

/* The bytes that I accesses, when it is not a branch; 0: cannot tell, or none. */
static unsigned own_access(const struct insn *i, bool *write) {
    switch (i->op) {
    case OP_push:
    case OP_pushf:
        *write = true;
        return tr_has_mem(i) ? 0 : i->opsize;
    case OP_pop:
    case OP_popf:
    case OP_leave:
        *write = false;
        return tr_has_mem(i) ? 0 : i->opsize;
    case OP_jmp:
    case OP_call:
    case OP_ret:
        return 0;
    default:
        *write = i->mem.access & OPND_WRITE;
        return tr_has_mem(i) ? i->mem.size : 0;
    }
}

bool bt_verdict_is(const struct bt *bt, uint64_t va, const uint8_t *page,
                   enum bt_verdict verdict) {
    const struct bt_place *s = any_at(bt, va, page) ? find(bt, va & 4095, page) : NULL;

    return s && s->verdict == verdict;
}

/* Code may have changed since the verdict: only what can trap becomes a callout. */
bool bt_is_trap(const struct bt *bt, const struct insn *i, uint64_t va,
                const uint8_t *page) {
    bool write;

    return bt_verdict_is(bt, va, page, BT_VERDICT_CALLOUT) && own_access(i, &write);
}

void bt_forget_verdicts(struct bt *bt) {
    for (unsigned n = 0; n < 1u << BT_PLACE_BITS; n++)
        if (bt->sh->places[n].page) /* what is not used takes no memory */
            bt->sh->places[n] = (struct bt_place){0};
    for (size_t n = 0; n < ARRAY_SIZE(bt->sh->spots); n++)
        bt->sh->spots[n] = 0;
}

static void decide(struct bt *bt, struct bt_place *s, enum bt_verdict verdict) {
    uint64_t now = __builtin_ia32_rdtsc(), term = 1ull << TERM_SHIFT;

    if (verdict == BT_VERDICT_NO_GROUP)
        term = 1ull << TERM_SHIFT_GROUP;
    else if (verdict == BT_VERDICT_NO_ANCHOR)
        term = 1ull << TERM_SHIFT_ANCHOR;
    if (s->due && now < s->due + (term << s->in_a_row)) {
        if (s->in_a_row < IN_A_ROW_MAX)
            s->in_a_row++;
    } else {
        s->in_a_row = 0;
    }
    s->due = now + (term << s->in_a_row);
    s->verdict = (uint8_t)verdict;
    bt->sh->spots[spot_of(s->va, s->page) / 64] |= 1ull << (spot_of(s->va, s->page) % 64);
    if (s->due < bt->sh->next_review)
        __atomic_store_n(&bt->sh->next_review, s->due, __ATOMIC_RELAXED);
}

/* The entry of VA, whose failures are counted; NULL: verdicts are in all that it may
 * have.
 */
static struct bt_place *place_at(struct bt *bt, uint64_t va, uint8_t *page) {
    struct bt_place *set = set_of(bt, va, page), *s = find(bt, va, page);

    if (s)
        return s;
    for (unsigned n = 0; n < WAYS; n++) /* the one that has not failed for longest */
        if (set[n].verdict == BT_VERDICT_NONE && (!s || set[n].since < s->since))
            s = &set[n];
    if (s)
        *s = (struct bt_place){.va = va, .page = page};
    return s;
}

/* Is it the instruction at VA itself, and not what is checked together with it? */
static bool itself(const struct bt *bt, const struct ccf *c, const uint8_t *bytes,
                   const struct bt_trap *trap) {
    unsigned room = 4096 - ((uintptr_t)bytes & 4095), own;
    struct insn i;
    bool write = false;

    vec_park(bt->v);
    if (decode_insn(KEY_MODE(c->code.key), bytes, room < 15 ? room : 15, &i) != DECODE_OK)
        return false;
    own = own_access(&i, &write);
    if (!own)
        return false;
    /* By itself it may be let through: beside_code(). */
    if (trap->why == BT_TRAP_TRACED && !(trap->site & SITE_ALONE) &&
        SITE_SIZE(trap->site) != 4096)
        return false;
    if (trap->why == BT_TRAP_RANGE || trap->why == BT_TRAP_FAULT)
        return SITE_SIZE(trap->site) <= own || SITE_SIZE(trap->site) == 4096;
    return write || SITE_ACCESS(trap->site) != MMU_WRITE;
}

static void count_trap(struct bt *bt, struct ccf *c, const struct site *site,
                       const struct bt_trap *trap) {
    uint8_t *page = site->guest & SITE_PAGE2 ? c->code.page2 : c->code.page;
    uint64_t va = site->guest & 4095, now = __builtin_ia32_rdtsc();
    struct bt_place *s;

    if (c->dead)
        return;
    s = place_at(bt, va, page);
    if (!s || s->verdict == BT_VERDICT_TOLERATED)
        return;
    if (!s->failed++)
        s->since = now;
    if (s->failed < FAIL_LIMIT)
        return;
    s->failed = 0;
    if (now - s->since > FAIL_TICKS_GROUP)
        return;
    if (s->verdict == BT_VERDICT_CALLOUT) { /* C was made before the verdict */
        tc_drop_at(&bt->sh->tc, page, (unsigned)va, TC_WHY_TRAPS);
    } else if (!itself(bt, c, page + va, trap)) {
        if (s->verdict != BT_VERDICT_NO_GROUP)
            decide(bt, s, BT_VERDICT_NO_GROUP);
        tc_drop_at(&bt->sh->tc, page, (unsigned)va, TC_WHY_CHECKS);
    } else if (now - s->since <= FAIL_TICKS_TRAP && trap->why != BT_TRAP_FAULT &&
               trap->why != BT_TRAP_DROPS) {
        decide(bt, s, BT_VERDICT_CALLOUT);
        tc_drop_at(&bt->sh->tc, page, (unsigned)va, TC_WHY_TRAPS);
    }
}

void bt_trapped(struct bt *bt, struct ccf *c, const struct site *site,
                const struct bt_trap *trap) {
    if (!bt->sh->opt.adapt)
        return;
    bt_lock(bt);
    count_trap(bt, c, site, trap);
    bt_unlock(bt);
}

/* --- anchors that miss --- */

static bool count_miss(struct bt *bt, const struct ccf *c, uint8_t *page, uint64_t va,
                       uint64_t now) {
    struct bt_place *s = c->dead ? NULL : place_at(bt, va, page);

    if (!s || s->verdict != BT_VERDICT_NONE)
        return c->dead;
    if (!s->missed || now - s->missed_since > MISS_TERM) {
        s->missed = 0;
        s->since = now;
        s->missed_since = now;
    }
    if (++s->missed < MISS_SAMPLES)
        return false;
    s->missed = 0;
    decide(bt, s, BT_VERDICT_NO_ANCHOR);
    tc_drop_at(&bt->sh->tc, page, (unsigned)va, TC_WHY_CHECKS);
    return true;
}

bool bt_anchor_missed(struct bt *bt, struct ccf *c, const struct site *site) {
    uint8_t *page = site->guest & SITE_PAGE2 ? c->code.page2 : c->code.page;
    uint64_t now = __builtin_ia32_rdtsc(), took = now - bt->missed_at;
    bool leave;

    bt->missed_at = now;
    if (!bt->sh->opt.adapt || took > BT_ANCHOR_SAMPLE * MISS_TICKS)
        return false;
    bt_lock(bt);
    leave = count_miss(bt, c, page, site->guest & 4095, now);
    bt_unlock(bt);
    return leave;
}

/* --- callouts on trial --- */

struct trapper {
    struct insn i;
    int (*exec)(struct vcpu *v, const struct insn *i);
    uint8_t *page;
    uint64_t va;
    uint32_t runs, traps;
};

static uint64_t traps_so_far(const struct counters *cnt) {
    return cnt->mmio_slow + cnt->page_crossings + cnt->trace_hits_code +
           cnt->trace_hits_pt;
}

/* The trial is over. True: it is innocent, and what it is in is not to run any more. */
static bool acquit(struct bt *bt, const struct trapper *t) {
    bool yes;

    bt_lock(bt);
    yes = t->traps < TRIAL_RUNS / TRIAL_SHARE &&
          bt_verdict_is(bt, t->va, t->page, BT_VERDICT_CALLOUT);
    if (yes) {
        decide(bt, find(bt, t->va, t->page), BT_VERDICT_TOLERATED);
        tc_drop_at(&bt->sh->tc, t->page, (unsigned)t->va, TC_WHY_REVIEW);
        bt->v->cnt->bt_verdicts_over++;
    }
    bt_unlock(bt);
    return yes;
}

/* Several vCPUs may count at once, and miss some: it decides about speed alone. */
static int exec_trapper(struct vcpu *v, const struct insn *i) {
    struct trapper *t = container_of(i, struct trapper, i);
    uint64_t before = traps_so_far(v->cnt);
    int rc = t->exec(v, i);

    t->runs++;
    t->traps += rc == SEM_FAULT || traps_so_far(v->cnt) != before;
    if (unlikely(t->runs >= TRIAL_RUNS)) {
        if (acquit(bt_of(v), t))
            bt_leave_fragment(v); /* it may be a loop */
        t->runs = t->traps = 0;
    }
    return rc;
}

struct insn *bt_trap_callout(struct tr_span *span, const struct insn *i, uint64_t va,
                             uint8_t *page) {
    struct trapper *t = tr_span_record(span, sizeof(*t));

    if (!t)
        return NULL;
    *t = (struct trapper){.i = *i, .exec = i->exec, .page = page, .va = va & 4095};
    t->i.exec = exec_trapper;
    return &t->i;
}

/* --- the way back --- */

static void review(struct bt *bt, uint64_t now) {
    struct bt_shared *sh = bt->sh;
    uint64_t next = UINT64_MAX;

    if (now < sh->next_review)
        return;
    for (unsigned n = 0; n < 1u << BT_PLACE_BITS; n++) {
        struct bt_place *s = &sh->places[n];

        if (s->verdict != BT_VERDICT_NONE && now < s->due && s->due < next)
            next = s->due;
        if (s->verdict == BT_VERDICT_NONE || now < s->due)
            continue;
        if (s->verdict != BT_VERDICT_TOLERATED)
            tc_drop_at(&sh->tc, s->page, (unsigned)s->va, TC_WHY_REVIEW);
        s->verdict = BT_VERDICT_NONE;
        bt->v->cnt->bt_verdicts_over++;
    }
    if (next < now + REVIEW_TICKS)
        next = now + REVIEW_TICKS;
    __atomic_store_n(&sh->next_review, next, __ATOMIC_RELAXED);
}

void bt_review(struct bt *bt, uint64_t now) {
    if (likely(now < __atomic_load_n(&bt->sh->next_review, __ATOMIC_RELAXED)))
        return;
    bt_lock(bt);
    review(bt, now);
    bt_unlock(bt);
}
