/*
 * Divisions that raise #DE.
 *
 * A division is copied, and a #DE of the host's becomes the guest's. That costs a signal.
 * Where it has happened, the fragments are made again with the division as a callout,
 * whose function looks at the divisor first; a program that divides by zero in a loop
 * pays the signal once. After many divisions without a fault the place is trusted again.
 *
 * Places are guest addresses in a direct-mapped table: one that is pushed out of it by
 * another is copied again, until it faults again.
 */
#include "bt/bt_int.h"

static struct division *entry(const struct bt *bt, uint64_t va) {
    return &bt->sh->divisions[(va ^ va >> 10) & (BT_DIVISIONS - 1)];
}

bool bt_division_faults(const struct bt *bt, uint64_t va) {
    const struct division *g = entry(bt, va &= 4095);

    return bt->sh->opt.adapt && g->faults && g->va == va;
}

void bt_division_faulted(struct bt *bt, struct ccf *c) {
    uint64_t va = bt->v->rip & 4095;

    if (!bt->sh->opt.adapt)
        return;
    bt_lock(bt);
    if (!c->dead) {
        *entry(bt, va) = (struct division){.va = va, .faults = true};
        tc_drop(&bt->sh->tc, c, TC_WHY_TRAPS);
    }
    bt_unlock(bt);
}

/* True: it is trusted again. */
static bool count_good(struct division *g) {
    if (g->faults && ++g->good < BT_DIVISION_TRUST)
        return false;
    g->faults = false;
    return true;
}

static void division_done(struct bt *bt, uint64_t va, bool fault) {
    struct division *g = entry(bt, va);
    struct ccf *c;

    if (g->va != va)
        return; /* a callout for another reason */
    if (fault) {
        g->faults = true;
        g->good = 0;
        return;
    }
    if (!count_good(g))
        return;
    /* Each fragment with this callout goes when it gets here. It may be a loop. */
    c = tc_find(&bt->sh->tc, (const uint8_t *)(uintptr_t)tr_vcpu(bt->v)->resume - 1);
    if (c && !c->dead)
        tc_drop(&bt->sh->tc, c, TC_WHY_TRAPS);
    bt_leave_fragment(bt->v);
}

void bt_division_done(struct bt *bt, uint64_t va, bool fault) {
    bt_lock(bt);
    division_done(bt, va & 4095, fault);
    bt_unlock(bt);
}
