/*
 * Warm code: what was hot where a snapshot was made is translated again where it is gone
 * on from, while the guest has nothing to do, before it comes to it.
 *
 * A snapshot carries no host code, for its file is anybody's. It carries hints: there, in
 * RAM, a fragment of that key has been, and so hot was it. A hint is worth what is there
 * now: the translator reads the page as it is, traced as for any other fragment, and what
 * it makes is found by the page, the offset and the key of a vCPU that comes there, or
 * never. So hints that are wrong, or somebody's invention, cost the time and the memory
 * of fragments that nobody wants, BT_WARM_MAX at most.
 *
 * Hot paths are not made again, since they follow how often their parts were executed:
 * those counts come back, so that code that was hot has a path soon.
 *
 * What is worth a hint is what was executed of late (recent.c): of a cache with what a
 * whole boot has executed, a command at the shell needs a tenth. The hints are written
 * while the guest runs, which waits for a look at one unit of the cache at most.
 */
#include <stdlib.h>

#include "base/bug.h"
#include "bt/bt_int.h"
#include "mem/mem.h"
#include "snapshot/snapshot.h"

/* A hint as a snapshot has it: bits 0 to 43 the place in the machine's memory, 44 to 49
 * the number of its key, 56 to 63 how hot it was. */
#define PLACE_BITS 44
#define KEY_BITS 6
#define HEAT_SHIFT 56
#define KEYS (1u << KEY_BITS)
_Static_assert(KEYS == BT_WARM_KEYS, "a number for each");

/* How hot: sixteenths of powers of two of executions. */
#define HEAT_STEPS 16u
#define HEAT_PATH 255u /* it has a hot path */
#define PATH_AFTER 64u /* executions until it has one again */

static unsigned heat_of(uint32_t executed) {
    unsigned power = 31 - (unsigned)__builtin_clz(executed | 1);
    uint64_t rest = ((uint64_t)executed << 4 >> power) & (HEAT_STEPS - 1);

    return executed ? power * HEAT_STEPS + (unsigned)rest + 1 : 0;
}

static uint32_t executed_of(unsigned heat) {
    unsigned power = heat ? (heat - 1) / HEAT_STEPS : 0;
    uint64_t steps = heat ? HEAT_STEPS + (heat - 1) % HEAT_STEPS : 0;

    return (uint32_t)(steps << power >> 4);
}

/* --- noting what there is --- */

struct note {
    struct bt *bt;
    size_t of_heat[HEAT_PATH + 1]; /* fragments */
    unsigned least;                /* colder ones are left out */
    size_t room;                   /* for those that are as cold as that */
    uint64_t *hint;                /* of BT_WARM_MAX; NULL: they are counted */
    size_t count;                  /* of hints there */
};

static unsigned slot_of(const struct bt *bt, const struct ccf *c) {
    return tr_heat_slot(tr_place(&bt->sh->env, c->code.page, c->code.va));
}

static unsigned heat(const struct bt *bt, const struct ccf *c) {
    unsigned slot = slot_of(bt, c);
    uint32_t hot = bt->sh->opt.tr.hot, executed = 0;

    if (c->paths)
        return HEAT_PATH;
    for (const struct bt *b = bt->sh->first; b; b = b->next) {
        uint32_t left = __atomic_load_n(&tr_counts(b->v)->heat[slot], __ATOMIC_RELAXED);

        executed += left > hot ? hot : hot - left;
    }
    executed = heat_of(executed);
    return executed < HEAT_PATH ? executed : HEAT_PATH - 1;
}

/* The number of KEY in the list; KEYS: it is full. */
static unsigned number_of(struct bt_warm *w, uint32_t key) {
    unsigned n = 0;

    while (n < w->keys && w->key[n] != key)
        n++;
    if (n == w->keys && n < KEYS)
        w->key[w->keys++] = key;
    return n;
}

static void keep(struct note *n, const struct ccf *c, unsigned how) {
    struct bt_warm *w = &n->bt->sh->warm;
    unsigned key;

    if (how < n->least || (how == n->least && !n->room) || n->count == BT_WARM_MAX)
        return;
    key = number_of(w, c->code.key);
    if (key == KEYS)
        return;
    n->room -= how == n->least;
    n->hint[n->count++] = tr_place(&n->bt->sh->env, c->code.page, c->code.va) |
                          (uint64_t)key << PLACE_BITS | (uint64_t)how << HEAT_SHIFT;
}

/* Code across two pages depends on the next one's address, and is rare. Executions of hot
 * paths are not counted: there are few, and they count as recent. */
static void look_at(void *arg, struct ccf *c) {
    struct note *n = arg;
    unsigned how;

    if (c->dead || c->code.hot || c->code.page2 || (c->code.key & KEY_SINGLE) ||
        (!c->paths && !bt_is_recent(n->bt, slot_of(n->bt, c))))
        return;
    how = heat(n->bt, c);
    if (n->hint)
        keep(n, c, how);
    else
        n->of_heat[how]++;
}

/* The latest first; who waits for the lock gets it between two units. */
static void look_at_all(struct note *n) {
    struct tc *tc = &n->bt->sh->tc;

    for (unsigned k = tc->nunits; k--;) {
        bt_lock(n->bt);
        tc_each_of(tc, (tc->unit + 1 + k) % tc->nunits, look_at, n);
        bt_unlock(n->bt);
    }
}

static void choose(struct note *n) {
    size_t left = BT_WARM_MAX;

    for (n->least = HEAT_PATH; n->least && n->of_heat[n->least] <= left; n->least--)
        left -= n->of_heat[n->least];
    n->room = left;
}

/* The hottest first, and of those that are as hot the latest: COUNT of them. */
static void sort(uint64_t *to, const uint64_t *from, size_t count) {
    size_t at[HEAT_PATH + 2] = {0}; /* of the next one of that heat */

    for (size_t n = 0; n < count; n++)
        at[HEAT_PATH - (from[n] >> HEAT_SHIFT) + 1]++;
    for (unsigned how = 1; how <= HEAT_PATH; how++)
        at[how] += at[how - 1];
    for (size_t n = 0; n < count; n++)
        to[at[HEAT_PATH - (from[n] >> HEAT_SHIFT)]++] = from[n];
}

static bool make_list(struct bt_warm *w) {
    if (!w->hint)
        w->hint = calloc(BT_WARM_MAX, sizeof(*w->hint));
    w->count = w->next = w->keys = 0;
    return w->hint;
}

static bool is_used(struct bt *bt) {
    const struct bt_warm *w = &bt->sh->warm;
    bool used;

    bt_lock(bt);
    used = w->next < w->count;
    bt_unlock(bt);
    return used;
}

/* Hints that have not been used yet are as good as any. */
void bt_warm_note(struct bt *bt) {
    struct bt_warm *w = &bt->sh->warm;
    struct note n = {.bt = bt};

    if (is_used(bt) || !make_list(w))
        return;
    look_at_all(&n);
    choose(&n);
    n.hint = calloc(BT_WARM_MAX, sizeof(*n.hint));
    if (!n.hint)
        return;
    look_at_all(&n);
    sort(w->hint, n.hint, n.count);
    w->count = w->next = n.count;
    free(n.hint);
}

/* --- the record --- */

void bt_warm_state(struct bt *bt, struct snapshot *s) {
    struct bt_warm *w = &bt->sh->warm;
    uint32_t count = (uint32_t)w->count, keys = w->keys;

    SNAPSHOT_UPTO(s, keys, KEYS);
    SNAPSHOT_UPTO(s, count, BT_WARM_MAX);
    if (snapshot_reading(s) && !make_list(w))
        return;
    snapshot_bytes(s, w->key, keys * sizeof(*w->key));
    snapshot_bytes(s, w->hint, count * sizeof(*w->hint));
    if (snapshot_reading(s) && snapshot_good(s)) {
        w->keys = keys;
        w->count = count < bt->sh->opt.warm ? count : bt->sh->opt.warm;
    }
}

/* --- using it --- */

static void forget(struct bt_warm *w) {
    free(w->hint);
    *w = (struct bt_warm){0};
}

static uint64_t place_of(uint64_t hint) {
    return hint & ((1ull << PLACE_BITS) - 1);
}

/* The page of RAM that AT is on; NULL: it is on none. */
static uint8_t *page_at(const struct bt *bt, uint64_t at) {
    const struct mem *mem = bt->v->mem;
    uint8_t *page = mem_ram_base(mem) + (at & ~4095ull);

    if (at >= mem_host_size(mem) || mem_gpa(mem, page).a == ~0ull)
        return NULL;
    return page;
}

/* Can a vCPU have it? What else is wrong with it finds nobody who has it. */
static bool is_possible(uint32_t key) {
    return (KEY_MODE(key) == MODE_64 || KEY_MODE(key) == MODE_32) &&
           !(key & (KEY_REAL | KEY_SINGLE));
}

/* False: the cache is full. */
static bool warm_one(struct bt *bt, uint64_t hint) {
    const struct bt_warm *w = &bt->sh->warm;
    unsigned key = hint >> PLACE_BITS & (KEYS - 1), how = (unsigned)(hint >> HEAT_SHIFT);
    uint64_t at = place_of(hint);
    uint32_t hot = bt->sh->opt.tr.hot, executed = executed_of(how);
    uint8_t *page = page_at(bt, at);
    enum tr_result r;
    struct ccf *c;

    if (!page || key >= w->keys || !is_possible(w->key[key]) ||
        tc_lookup(&bt->sh->tc, at & 4095, page, w->key[key]))
        return true;
    c = bt_make_at(bt, page, at & 4095, w->key[key], &r);
    if (!c)
        return r != TR_FULL;
    if (how == HEAT_PATH || executed + PATH_AFTER > hot)
        executed = hot < PATH_AFTER ? 0 : hot - PATH_AFTER;
    bt_set_heat(bt, c, hot - executed);
    bt_recent_not(bt, slot_of(bt, c));
    bt->warmed++;
    return true;
}

unsigned bt_cold(const struct bt *bt) {
    return bt->sh->opt.cold;
}

bool bt_warm_up(struct bt *bt) {
    struct bt_warm *w = &bt->sh->warm;
    bool more = false;

    bt_lock(bt);
    if (w->next < w->count) {
        more = warm_one(bt, w->hint[w->next++]) && w->next < w->count;
        if (!more)
            forget(w);
    }
    bt_unlock(bt);
    return more;
}
