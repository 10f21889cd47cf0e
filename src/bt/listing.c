/*
 * Listings: guest code, IR and host code of everything that direct branches reach in a
 * piece of guest code, made by the translator itself.
 *
 * A list is worked off: each address gets a TU through bt_translate(), whose targets and
 * successor join the list. Then all exits are chained as the dispatcher would chain
 * them, and the units are printed by address. 16-bit code, which is the interpreter's,
 * gets guest code and IR alone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bt/bt_int.h"
#include "cpu/vec.h"
#include "decode/decode.h"
#include "list/list.h"

struct work {
    struct bt *bt;
    struct list l;
    size_t room;    /* for units */
    uint8_t *seen;  /* by offset from FROM: the address is in TODO or was */
    uint32_t *todo; /* offsets */
    size_t next, last;
};

static void want(struct work *w, uint64_t va) {
    uint64_t off = va - w->l.from;

    if (off >= w->l.len || w->seen[off])
        return;
    w->seen[off] = 1;
    w->todo[w->last++] = (uint32_t)off;
}

static struct list_unit *add_unit(struct work *w, uint64_t va) {
    struct list *l = &w->l;

    if (l->count == w->room) {
        size_t room = w->room ? 2 * w->room : 64;
        struct list_unit *units = realloc(l->units, room * sizeof(*units));

        if (!units)
            return NULL;
        l->units = units;
        w->room = room;
    }
    l->units[l->count] = (struct list_unit){.va = va};
    return &l->units[l->count++];
}

/* Whether the instruction behind I may run after it: after a call, when it returns. */
static bool goes_on(const struct insn *i) {
    switch (i->op) {
    case OP_jmp:
    case OP_ret:
    case OP_jmp_far:
    case OP_ret_far:
    case OP_iret:
    case OP_sysret:
    case OP_sysexit:
    case OP_ud:
    case OP_invalid:
    case OP_hlt:
    case OP_int3:
        return i->op == OP_hlt;
    default:
        return true;
    }
}

static uint64_t cut(const struct insn *i, uint64_t near, uint64_t va) {
    if (i->mode == MODE_64)
        return va;
    if (i->mode == MODE_32)
        return (uint32_t)va;
    return (near & ~0xffffull) | (va & 0xffff);
}

static void want_successors(struct work *w, const struct list_unit *u) {
    const struct tu_insn *last = &u->insn[u->n - 1];
    uint64_t next = last->va + last->i.len;

    for (unsigned k = 0; u->c && k < u->c->nlinks; k++)
        want(w, list_target(u->c, k));
    if (list_branches(&last->i))
        want(w, cut(&last->i, u->va, next + (uint64_t)last->i.imm));
    if (goes_on(&last->i))
        want(w, cut(&last->i, u->va, next));
}

static int copy_tu(struct list_unit *u, const struct tu_insn *insn, unsigned n) {
    u->insn = malloc(n * sizeof(*insn));
    if (!u->insn)
        return -ENOMEM;
    memcpy(u->insn, insn, n * sizeof(*insn));
    u->n = n;
    return 0;
}

static int translate_unit(struct work *w, uint64_t va) {
    struct bt *bt = w->bt;
    struct list_unit *u = add_unit(w, va);
    struct tr_made made;
    struct ccf *c;
    bool fault;

    if (!u)
        return -ENOMEM;
    bt->v->rip = va;
    for (;;) {
        c = bt_translate(bt, tr_key(bt->v), &fault);
        if (c || fault || tc_wraps(&bt->sh->tc))
            break;
        bt_make_room(bt); /* in a unit that has not been used */
    }
    vec_park(bt->v);
    if (!c)
        return fault ? 0 : -ENOSPC;
    u->c = &c->code;
    made = tr_made(bt->sh->tr);
    return copy_tu(u, made.insn, made.n);
}

/* 16-bit code: up to the end of a block, as the interpreter takes it. */
static int decode_unit(struct work *w, uint64_t va) {
    struct list_unit *u = add_unit(w, va);
    struct tu_insn tu[BT_TU_DEFAULT];
    const struct list *l = &w->l;
    unsigned n = 0, off = 0;

    if (!u)
        return -ENOMEM;
    while (n < BT_TU_DEFAULT && list_inside(l, va + off)) {
        uint8_t bytes[15] = {0};
        unsigned have = 0;

        while (have < sizeof(bytes) && list_inside(l, va + off + have)) {
            const uint8_t *p = mmu_fetch(w->bt->v, gva(va + off + have));

            if (!p)
                break;
            bytes[have++] = *p;
        }
        tu[n] = (struct tu_insn){.va = va + off};
        if (decode_insn(MODE_16, bytes, have, &tu[n].i) != DECODE_OK)
            break;
        off += tu[n].i.len;
        if (tu[n++].i.flags & INSN_ENDS_BLOCK)
            break;
    }
    return n ? copy_tu(u, tu, n) : 0;
}

static int by_address(const void *a, const void *b) {
    const struct list_unit *x = a, *y = b;

    return x->va < y->va ? -1 : x->va > y->va;
}

static const struct tr_code *fragment_at(const struct list *l, uint64_t va) {
    struct list_unit key = {.va = va};
    struct list_unit *u =
        bsearch(&key, l->units, l->count, sizeof(*l->units), by_address);

    return u ? u->c : NULL;
}

static int build(struct work *w) {
    bool real = w->bt->v->mode == MODE_16;
    struct list *l = &w->l;

    want(w, w->bt->v->rip);
    while (w->next < w->last) {
        uint64_t va = l->from + w->todo[w->next++];
        int rc = real ? decode_unit(w, va) : translate_unit(w, va);

        if (rc)
            return rc;
        if (l->units[l->count - 1].n)
            want_successors(w, &l->units[l->count - 1]);
    }
    qsort(l->units, l->count, sizeof(*l->units), by_address);
    for (size_t n = 0; n < l->count; n++) {
        const struct tr_code *c = l->units[n].c;

        for (unsigned k = 0; c && k < c->nlinks; k++) {
            const struct tr_code *to = fragment_at(l, list_target(c, k));

            if (to)
                tc_link(&w->bt->sh->tc, &c->links[k], tc_ccf(to));
        }
    }
    return 0;
}

int bt_list(struct bt *bt, uint64_t from, uint32_t len, const struct bt_listing *out) {
    struct work w = {.bt = bt,
                     .l = {.env = &bt->sh->env, .out = out, .from = from, .len = len}};
    int rc = -ENOMEM;

    vec_park(bt->v);
    bt_flush(bt);
    w.seen = calloc(len ? len : 1, 1);
    w.todo = malloc((size_t)(len ? len : 1) * sizeof(*w.todo));
    if (w.seen && w.todo)
        rc = build(&w);
    if (!rc && bt->sh->unsound)
        rc = -EBADMSG;
    if (!rc) {
        vec_park(bt->v);
        rc = list_print(&w.l);
    }
    for (size_t n = 0; n < w.l.count; n++)
        free(w.l.units[n].insn);
    free(w.l.units);
    free(w.todo);
    free(w.seen);
    return rc;
}
