/*
 * Several vCPUs, one cache: who may change it, and what runs meanwhile (docs/bt.md, "Many
 * vCPUs").
 *
 * What is changed under the lock is changed in the name of the vCPU whose thread has it:
 * counters are its own, and the translator fetches through its MMU.
 */
#include "bt/bt_int.h"

/* The one that this thread runs translated code for. */
static __thread struct bt *running;

void bt_run_by_thread(struct bt *bt) {
    running = bt;
}

static void in_the_name_of(struct bt *bt) {
    struct bt_shared *sh = bt->sh;

    sh->env.v = sh->tc.v = bt->v;
    sh->env.arg = bt;
}

struct bt *bt_storing(struct bt_shared *sh) {
    return running && running->sh == sh ? running : sh->first;
}

void bt_lock(struct bt *bt) {
    in_the_name_of(bt);
}

void bt_unlock(struct bt *bt) {
}

void bt_stop(struct bt *bt) {
}

void bt_go_on(struct bt *bt) {
}
