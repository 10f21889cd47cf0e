/*
 * Several vCPUs, one cache: who may change it, and what runs meanwhile (docs/bt.md, "Many
 * vCPUs").
 *
 * What is changed under the lock is changed in the name of the vCPU whose thread has it:
 * counters are its own, and the translator fetches through its MMU. With one vCPU there
 * still are other threads: what devices store may be code.
 *
 * A vCPU HOLDS the cache from when it enters code until it lets go at a quiet place, with
 * its vector state parked: so long it may have addresses of code or records in hand, also
 * while it is out of its engine in the middle of something (cpu/smp.h). Memory of the
 * cache is taken back while all others are out and none of them holds it.
 */
#include "bt/bt_int.h"
#include "cpu/smp.h"

static struct vcpu_group *group_of(const struct bt *bt) {
    return vcpu_group_of(bt->v);
}

void bt_lock(struct bt *bt) {
    struct bt_shared *sh = bt->sh;

    vcpu_lock(group_of(bt), VCPU_LOCK_CODE);
    sh->env.v = sh->tc.v = bt->v;
    sh->env.arg = bt;
}

void bt_unlock(struct bt *bt) {
    vcpu_unlock(group_of(bt), VCPU_LOCK_CODE);
}

bool bt_select_key(struct bt *bt, uint32_t key) {
    bool found = tc_select_again(&bt->sh->tc, bt->v, key);

    if (likely(found))
        return true;
    bt_lock(bt);
    found = tc_select_key_slow(&bt->sh->tc, bt->v, key);
    bt_unlock(bt);
    return found;
}

/* --- who holds it --- */

void bt_hold(struct bt *bt) {
    __atomic_store_n(&bt->holds, 1, __ATOMIC_RELAXED);
}

void bt_let_go(struct bt *bt) {
    bt_x87_settle(bt->v);
    __atomic_store_n(&bt->holds, 0, __ATOMIC_SEQ_CST);
    if (unlikely(__atomic_load_n(&bt->sh->closed, __ATOMIC_SEQ_CST)))
        os_word_wake(&bt->holds, INT32_MAX);
}

void bt_serve(struct bt *bt) {
    bt_let_go(bt);
    vcpu_serve(bt->v);
}

/* Out of the engine while *WORD is VALUE. */
static void sleep_while(uint32_t *word, uint32_t value) {
    bool paused = vcpu_pause();

    while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == value)
        os_word_wait(word, value);
    vcpu_resume(paused);
}

void bt_stay_out(struct bt *bt) {
    bt_let_go(bt);
    sleep_while(&bt->sh->closed, 1);
}

static struct bt *holder(const struct bt *but) {
    struct bt *b = but->sh->first;

    while (b && (b == but || !__atomic_load_n(&b->holds, __ATOMIC_SEQ_CST)))
        b = b->next;
    return b;
}

/* Only one at a time. */
static void close_door(struct bt *bt) {
    uint32_t open = 0;

    while (!__atomic_compare_exchange_n(&bt->sh->closed, &open, 1, false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        sleep_while(&bt->sh->closed, 1);
        open = 0;
    }
}

/* With the door closed, whoever comes to a quiet place stays there. One that went by it
 * just before, and entered code since, comes once more. */
void bt_stop(struct bt *bt) {
    struct bt *b;

    bt_let_go(bt);
    close_door(bt);
    for (;;) {
        while ((b = holder(bt))) {
            bt_kick(b);
            sleep_while(&b->holds, 1);
        }
        bt_lock(bt);
        vcpu_stop(group_of(bt));
        if (!holder(bt))
            return;
        vcpu_go(group_of(bt));
        bt_unlock(bt);
    }
}

void bt_go_on(struct bt *bt) {
    vcpu_go(group_of(bt));
    bt_unlock(bt);
    __atomic_store_n(&bt->sh->closed, 0, __ATOMIC_SEQ_CST);
    os_word_wake(&bt->sh->closed, INT32_MAX);
}

struct bt *bt_storing(struct bt_shared *sh) {
    const struct vcpu *v = vcpu_current();

    if (!sh->first->v->member) /* nobody else is there */
        v = sh->first->v;
    return v && bt_of(v) && bt_of(v)->sh == sh ? bt_of(v) : NULL;
}
