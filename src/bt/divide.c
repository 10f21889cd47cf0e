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
    return &bt->divisions[(va ^ va >> 10) & (BT_DIVISIONS - 1)];
}

bool bt_division_faults(const struct bt *bt, uint64_t va) {
    const struct division *g = entry(bt, va &= 4095);

    return bt->opt.adapt && g->faults && g->va == va;
}

void bt_division_faulted(struct bt *bt, struct ccf *c) {
    uint64_t va = bt->v->rip & 4095;

    if (!bt->opt.adapt || c->dead)
        return;
    *entry(bt, va) = (struct division){.va = va, .faults = true};
    tc_drop(&bt->tc, c, TC_WHY_TRAPS);
}

void bt_division_done(struct bt *bt, uint64_t va, bool fault) {
    struct division *g = entry(bt, va &= 4095);
    struct ccf *c;

    if (g->va != va)
        return; /* a callout for another reason */
    if (fault) {
        g->faults = true;
        g->good = 0;
        return;
    }
    if (g->faults && ++g->good < BT_DIVISION_TRUST)
        return;
    /* Trusted again: each fragment with this callout goes when it gets here. It may be a
     * loop. */
    g->faults = false;
    c = tc_find(&bt->tc, (const uint8_t *)(uintptr_t)tr_vcpu(bt->v)->resume - 1);
    if (c && !c->dead)
        tc_drop(&bt->tc, c, TC_WHY_TRAPS);
    bt_leave_fragment(bt->v);
}
