/* Links between fragments: a jump that goes to its stub, or to what it is chained to. */
#include "tc/tc_int.h"

static void aim(struct tc *tc, struct link *l, const uint8_t *rx) {
    int32_t rel = (int32_t)(rx - (l->rel32 + 4 + (tc->code.rx - tc->code.rw)));

    __atomic_store_n((int32_t *)(void *)l->rel32, rel, __ATOMIC_RELAXED);
}

void tc_link(struct tc *tc, struct link *l, struct ccf *to) {
    if (!tc->chain || l->to || tc_ccf(l->from)->dead || to->dead)
        return;
    if (l->same_page && !to->code.page2 && to->code.page == l->from->page)
        aim(tc, l, l->place == FLAGS_REGS ? to->code.entry_regs : to->code.entry_mem);
    else if (l->place == FLAGS_REGS && !to->code.entry_save)
        return; /* entry_check wants the flags in memory */
    else if (l->place == FLAGS_REGS)
        aim(tc, l, to->code.entry_save);
    else
        aim(tc, l, to->code.entry_check);
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
    aim(tc, l, l->stub);
    tc->v->cnt->bt_unchained++;
}

void tc_unlink_in(struct tc *tc, struct ccf *c) {
    while (c->in)
        tc_unlink(tc, c->in);
}
