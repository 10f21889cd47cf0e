/* The cache as a whole: how it is made, and how room is made in it. */
#include "tc/tc_int.h"

int tc_create(struct tc *tc, const struct tr_env *env) {
    int rc;

    tc->v = env->v;
    tc->mem = env->v->mem;
    tc->env = env;
    tc->code = env->code;
    rc = tc_units_create(tc);
    if (!rc)
        rc = tc_again_create(tc);
    return rc ? rc : tc_fragments_create(tc);
}

void tc_destroy(struct tc *tc) {
    if (!tc->v) /* it never was made */
        return;
    tc_fragments_free(tc);
    tc_jumps_free(tc);
    tc_again_free(tc);
    tc_units_free(tc);
}

static void note_evicted(void *arg, struct ccf *c) {
    if (!c->dead)
        tc_note_dropped(arg, c, TC_WHY_EVICTED);
}

void tc_flush(struct tc *tc) {
    tc_each(tc, note_evicted, tc);
    for (unsigned u = 0; u < tc->nunits; u++)
        tc->fragments[u] = 0;
    tc_fragments_reset(tc);
    tc_unit_begin(tc, 0);
}

bool tc_wraps(const struct tc *tc) {
    return tc->unit + 1 == tc->nunits;
}

bool tc_next_is_free(const struct tc *tc) {
    return !tc->fragments[(tc->unit + 1) % tc->nunits];
}

void tc_evict(struct tc *tc) {
    struct counters *cnt = tc->v->cnt;
    unsigned next = (tc->unit + 1) % tc->nunits;
    size_t n = tc->fragments[next];

    if (n) {
        tc_forget(tc, tc_unit_fragments(tc, next), n);
        cnt->bt_evictions++;
        cnt->bt_evicted += n;
        tc->fragments[next] = 0;
    }
    tc_unit_begin(tc, next);
}
