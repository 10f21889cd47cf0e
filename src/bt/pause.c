/*
 * PAUSE, where the machine has more CPUs than the host gives it: what the guest's loop
 * waits for may be held by a vCPU whose thread does not run, because this one does. So
 * PAUSE is a callout there, and after some of them the thread gives its CPU away.
 *
 * A processor that pauses takes about as long as the callout. Who has waited that long in
 * vain (a few microseconds) waits for more than another processor's next store.
 */
#include "bt/bt_int.h"
#include "cpu/smp.h"
#include "sem/sem.h"

#define PATIENCE 64u

bool bt_is_wait(const struct bt *bt, const struct insn *i) {
    return bt->sh->yields && tr_is_pause(i);
}

static int exec_pause(struct vcpu *v, const struct insn *i) {
    struct bt *bt = bt_of(v);

    if (++bt->pauses % PATIENCE == 0) {
        bt->waits = true;
        bt_leave_fragment(v);
    }
    return SEM_NEXT;
}

static void tell(const struct vcpu *v, bool away) {
    if (v->hooks && v->hooks->away)
        v->hooks->away(v->hooks_arg, away);
}

void bt_yield(struct bt *bt) {
    bool paused;

    bt->waits = false;
    bt->v->cnt->bt_yields++;
    bt_let_go(bt);
    tell(bt->v, true);
    paused = vcpu_pause();
    os_yield();
    vcpu_resume(paused);
    tell(bt->v, false);
}

struct insn *bt_wait_callout(struct tr_span *span, const struct insn *i) {
    struct insn *copy = tr_span_record(span, sizeof(*copy));

    if (!copy)
        return NULL;
    *copy = *i;
    copy->exec = exec_pause;
    return copy;
}
