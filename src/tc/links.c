/* Links between fragments: a jump that goes to its stub, or to what it is chained to. */
#include "tc/tc_int.h"

/* Has who comes by L, from a hot path, looked at all pages of TO, another of its kind? */
static bool looked(const struct link *l, const struct tr_code *to) {
    const struct tr_code *from = l->from;
    uint64_t page = from->fixed ? from->va & ~4095ull : 0;

    return from->hot && to->hot && from->fixed == to->fixed &&
           (l->target & ~4095ull) == page && from->page == to->page &&
           (!to->page2 ||
            (from->page2 == to->page2 &&
             from->va2 - (from->va & ~4095ull) == to->va2 - (to->va & ~4095ull)));
}

/* Where the link is to jump for that; NULL: it stays as it is. */
static const uint8_t *entry_for(const struct link *l, const struct tr_code *to) {
    if (!l->from->fixed && to->fixed)
        return NULL; /* the way there is through the shared fragment */
    if (!l->same_page)
        return looked(l, to) ? to->entry_mem : to->entry_check;
    if (!to->page2 && to->page == l->from->page)
        return l->place == FLAGS_REGS ? to->entry_regs : to->entry_mem;
    return l->place == FLAGS_REGS ? to->entry_save : to->entry_here;
}

void tc_link(struct tc *tc, struct link *l, struct ccf *to) {
    const uint8_t *rx = entry_for(l, &to->code);

    if (!tc->chain || l->to || tc_ccf(l->from)->dead || to->dead || !rx)
        return;
    tr_lead(tc->env, l->rel32, rx);
    tc->v->cnt->bt_chained++;
    l->to = &to->code;
    l->next_in = to->in;
    if (to->in)
        to->in->at_in = &l->next_in;
    l->at_in = &to->in;
    to->in = l;
}

void tc_unlink(struct tc *tc, struct link *l) {
    if (!l->to)
        return;
    *l->at_in = l->next_in;
    if (l->next_in)
        l->next_in->at_in = l->at_in;
    l->to = NULL;
    tr_lead(tc->env, l->rel32, l->stub);
    tc->v->cnt->bt_unchained++;
}

void tc_unlink_in(struct tc *tc, struct ccf *c) {
    while (c->in)
        tc_unlink(tc, c->in);
}
