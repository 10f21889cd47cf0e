/*
 * Hot paths and the shared fragments that they are for. A fragment has a list of them,
 * the latest first: its head leads to the first, and each leads to the next when it is
 * not for where the guest is (tr/code.h).
 */
#include "tc/tc_int.h"

/* Lets the list be what the code does. */
static void string_up(struct tc *tc, struct ccf *c) {
    tr_head_turn(tc->env, &c->code, c->paths ? c->paths->code.select : NULL);
    for (struct ccf *p = c->paths; p; p = p->path_next)
        tr_past_turn(tc->env, &p->code, p->path_next ? p->path_next->code.select : NULL);
}

/* Other paths that lead to the fragment for that address are to find the new one. */
static void relink(struct tc *tc, struct ccf *c, uint64_t va) {
    struct link *next;

    for (struct link *l = c->in; l; l = next) {
        next = l->next_in;
        if (l->from->fixed && l->target == va)
            tc_unlink(tc, l);
    }
}

void tc_path_add(struct tc *tc, struct ccf *c, struct ccf *path) {
    uint64_t va = path->code.va;

    path->shared = c;
    path->path_next = c->paths;
    c->paths = path;
    string_up(tc, c);
    if (!path->code.fixed)
        return;
    relink(tc, c, va);
    if (tr_vcpu(tc->v)->jump && tc_jump_target(tc->v, va) == c->code.entry_jump)
        tc_jump_insert(tc, tc->v, va, path);
}

void tc_path_forget(struct tc *tc, struct ccf *c) {
    struct ccf **at;

    if (c->shared) {
        for (at = &c->shared->paths; *at != c;)
            at = &(*at)->path_next;
        *at = c->path_next;
        string_up(tc, c->shared);
        c->shared = NULL;
    }
    /* Nobody comes to their `select` any more. */
    for (struct ccf *p = c->paths; p; p = p->path_next)
        p->shared = NULL;
    c->paths = NULL;
}
