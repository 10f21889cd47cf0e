/*
 * From guest bytes to a fragment: builds the TU, finds out which status flags are needed
 * where, expands each instruction, and places entries, exits and out-of-line code.
 */
#include "cpu/vec.h"
#include "decode/decode.h"
#include "mem/mem.h"
#include "sem/sem.h"
#include <stdlib.h>

#include "tr/tr_int.h"

/* --- status flags --- */

static bool clobbers_by_callout(const struct insn *i) {
    return tr_class_of(i) == CLASS_CALLOUT;
}

/* A way out in the middle: whatever is there needs all flags, for all we know. */
static bool may_leave(const struct tu_insn *u) {
    return u->i.op == OP_jcc || u->follow == FOLLOW_EXPECTED;
}

/* The handler of a fault sees the flags, even those that nothing reads otherwise. A hot
 * path does not pay for that: docs/bt.md, "Precise state". */
static bool may_fault(const struct insn *i) {
    switch (i->op) {
    case OP_push:
    case OP_pop:
    case OP_call:
    case OP_ret:
    case OP_leave:
    case OP_movs:
    case OP_stos:
    case OP_div:
    case OP_idiv:
    case OP_native:
        return true;
    default:
        return i->mem.access;
    }
}

/* Backwards over the TU: what is needed before each instruction. */
static void find_liveness(struct tr *t) {
    const uint8_t all = tr_pack_flags(FLAGS_ALL);
    uint8_t live = tr_loops(t) ? t->live_loop : t->live_exit;

    for (unsigned k = t->n; k--;) {
        struct tu_insn *u = &t->insn[k];
        uint8_t read = tr_pack_flags(u->i.fl_read);
        uint8_t written = tr_pack_flags(u->i.fl_written | u->i.fl_undefined);

        u->live_out = live;
        if (!t->env->opt.liveness || clobbers_by_callout(&u->i) || u->trap ||
            may_leave(u) || (!t->hot && may_fault(&u->i)))
            live = all;
        else
            live = (uint8_t)(read | (live & ~written));
        u->live_in = live;
    }
}

/* --- entries --- */

/* Expansions of ours that use the host's flags for something else. */
static bool spoils_flags(const struct insn *i) {
    return i->op == OP_rdtsc || i->op == OP_rdtscp || i->op == OP_cli ||
           i->op == OP_sti || i->op == OP_clac || i->op == OP_stac || i->op == OP_pushf ||
           i->op == OP_popf;
}

/* Where the flags should be when the body starts: where its first need of them is. */
static enum flags_place start_place(const struct tr *t) {
    if (!t->insn[0].live_in)
        return FLAGS_DEAD;
    if (tr_heats(t))
        return FLAGS_MEM;
    for (unsigned k = 0; k < t->n; k++) {
        const struct insn *i = &t->insn[k].i;
        bool mem = i->op == OP_call || i->op == OP_ret || i->op == OP_push ||
                   i->op == OP_pop || i->op == OP_leave || spoils_flags(i);

        for (unsigned j = 0; j < i->nops; j++)
            mem |= i->opnd[j].kind == OPND_MEM && i->mem.size;
        if (mem || clobbers_by_callout(i))
            return FLAGS_MEM;
        if (tr_pack_flags(i->fl_read | i->fl_written | i->fl_undefined))
            return FLAGS_REGS;
    }
    return FLAGS_REGS;
}

/* gs:[OFF] += N, without touching the flags. Spoils T1. */
static void emit_count(struct tr *t, size_t off, unsigned n) {
    e_gs(&t->e, W64, OPC_MOV_R_RM, T1, off);
    e_lea(&t->e, W64, T1, T1, REG_ZERO, 0, (int32_t)n);
    e_gs(&t->e, W64, OPC_MOV_RM_R, T1, off);
}

/* A path that has gone back on its way, by a branch that is none in the fragment, may end
 * with a link forward to its own start: then it is the path that has to poll. */
static bool goes_back(const struct tr *t) {
    for (unsigned k = 1; k < t->n; k++)
        if (t->insn[k].va <= t->insn[k - 1].va)
            return true;
    return false;
}

static void emit_entries(struct tr *t) {
    struct tr_code *c = t->c;
    enum flags_place start = start_place(t);
    uint8_t *over = NULL;

    t->place = FLAGS_MEM;
    t->k = 0;
    tr_emit_checks(t);
    c->entry_mem = e_here(&t->e);
    if (start == FLAGS_MEM) {
        over = e_jmp8(&t->e);
        c->entry_regs = e_here(&t->e);
        tr_emit_save(&t->e);
        e_land8(&t->e, over);
    } else {
        if (start == FLAGS_REGS)
            tr_emit_restore(&t->e);
        c->entry_regs = e_here(&t->e);
    }
    t->place = start;
    t->head = start;
    tr_borrow_swap(t);
    t->loop_head = e_here(&t->e);
    if (tr_heats(t))
        tr_count_heat(t);
    tr_take_fuel(t);
    if (tr_loops(t) || goes_back(t))
        tr_poll(t, POLL_HERE, 0);
    if (t->env->opt.count)
        emit_count(t, GS_TR(count), t->n);
}

static void emit_cold(struct tr *t) {
    for (unsigned n = 0; n < t->ncold; n++) {
        const struct cold *c = &t->cold[n];

        switch (c->kind) {
        case COLD_SLOW:
        case COLD_ANCHOR:
        case COLD_FIXED:
            tr_place_slow(t, c);
            break;
        case COLD_EXIT:
            tr_place_exit(t, c);
            break;
        case COLD_RET:
            tr_place_ret(t, c);
            break;
        case COLD_CALLOUT:
            tr_place_callout(t, c);
            break;
        case COLD_HOT:
            tr_place_hot(t, c);
            break;
        case COLD_WRONG:
            tr_place_wrong(t, c);
            break;
        }
    }
    tr_place_entries(t);
    for (unsigned n = 0; n < t->c->nlinks; n++)
        tr_place_link(t, n);
}

/* --- the TU --- */

static bool sti_last(const struct tr *t) {
    return t->n < TR_TU_MAX && t->insn[t->n - 1].i.op == OP_sti;
}

/* Decodes from the page at C->page; the first instruction may cross into page2.
 * False: fault. */
static bool build_tu(struct tr *t) {
    struct vcpu *v = t->env->v;
    struct tr_code *c = t->c;
    unsigned at = c->va & 4095;
    uint8_t bytes[15];
    unsigned off = 0;

    while (t->n < t->env->opt.tu_limit || sti_last(t)) {
        struct tu_insn *u = &t->insn[t->n];
        unsigned room = 4096 - at - off;
        enum decode_result r;

        if (!room)
            break;
        if (t->env->advice->breaks(t->env->arg, c->page + at + off)) {
            if (t->n)
                break;
            return false;
        }
        r = decode_memo_insn(t->memo, KEY_MODE(t->key), c->page + at + off,
                             room < 15 ? room : 15, &u->i);
        if (r != DECODE_OK) {
            const uint8_t *rest;

            if (t->n)
                break;
            if (r == DECODE_TOO_LONG)
                return false;
            /* Beyond the end of the linear space is the limit, or page 0 by a wrap. */
            if (KEY_MODE(t->key) != MODE_64 && (c->va | 4095) >= UINT32_MAX)
                return false;
            /* Crosses: the fault, if any, is that of the next page's first byte. */
            if (t->env->nowhere)
                return false;
            rest = mmu_fetch(v, gva(tr_next_page(c->key, c->va)));
            if (!rest || mem_gpa(v->mem, rest).a == ~0ull)
                return false;
            c->page2 = (uint8_t *)((uintptr_t)rest & ~4095ul);
            t->env->advice->reads(t->env->arg, c->page2);
            vec_park(v);
            __builtin_memcpy(bytes, c->page + at, room);
            __builtin_memcpy(bytes + room, rest, 15 - room);
            r = decode_insn(KEY_MODE(t->key), bytes, 15, &u->i);
            if (r != DECODE_OK)
                return false;
        }
        sem_bind(v, &u->i);
        u->va = c->va + off;
        u->follow = FOLLOW_NONE;
        off += u->i.len;
        t->n++;
        /* The shadow of STI covers the next instruction: keep them together. */
        if (((u->i.flags & INSN_ENDS_BLOCK) && u->i.op != OP_sti) || c->page2 ||
            off > 200)
            break;
    }
    c->guest_len = (uint16_t)off;
    return true;
}

static void expand(struct tr *t) {
    for (t->k = 0; t->k < t->n && !t->ended; t->k++) {
        const struct insn *i = &t->insn[t->k].i;

        tr_site(t, POLL_NONE, 0);
        if (t->insn[t->k].trap)
            tr_callout(t, i);
        else
            tr_expand(t, i);
        tr_group_step(t, &t->insn[t->k]);
    }
    if (!t->ended) {
        t->k = t->n - 1;
        tr_link(t, t->c->nlinks, tr_next_va(t));
    }
}

/* Copies what the code keeps; false: it does not fit. */
static bool finish(struct tr *t) {
    struct tr_code *c = t->c;

    t->full |= t->e.full;
    if (t->e.full)
        return false;
    if (t->span->records == (uint8_t *)t->links_end) /* those that are not used */
        t->span->records = (uint8_t *)&c->links[c->nlinks];
    c->sites = tr_record(t, t->nsites * sizeof(struct site));
    if (!c->sites)
        return false;
    __builtin_memcpy(c->sites, t->sites, t->nsites * sizeof(struct site));
    c->nsites = (uint16_t)t->nsites;
    c->ninsns = (uint8_t)t->n;
    c->end = e_here(&t->e);
    for (unsigned n = 0; !c->fixed && n < c->nlinks; n++)
        c->links[n].target -= c->va & ~4095ull;
    t->span->code = t->e.p;
    return true;
}

/* Room for every exit that the instructions may have: two at the end, and a path's. */
static bool alloc_links(struct tr *t) {
    unsigned n = 2;

    for (unsigned k = 0; k < t->n; k++)
        n += t->insn[k].i.op == OP_jcc && t->insn[k].follow != FOLLOW_NONE;
    t->c->links = tr_record(t, n * sizeof(struct link));
    t->links_end = t->c->links ? &t->c->links[n] : NULL;
    return t->c->links;
}

static bool alloc_pieces(struct tr *t) {
    struct tr_code *c = t->c;

    if (!t->npieces)
        return true;
    c->pieces = tr_record(t, t->npieces * sizeof(struct piece));
    if (!c->pieces)
        return false;
    __builtin_memcpy(c->pieces, t->pieces, t->npieces * sizeof(struct piece));
    c->npieces = (uint8_t)t->npieces;
    for (unsigned n = 0; n < t->npieces; n++)
        c->guest_len += t->pieces[n].to - t->pieces[n].from;
    return true;
}

/* Everything but the instructions. */
static void begin(struct tr *t, struct tr_span *span, struct tr_code *c) {
    const struct tr_env *env = t->env;

    t->c = c;
    t->span = span;
    t->key = c->key;
    t->ident = t->operand = t->callouts = 0;
    t->n = t->k = t->ncold = t->nsites = t->nnamed = t->npieces = 0;
    t->ended = t->full = false;
    t->hot = c->hot;
    tr_forget_held(t);
    t->groups = env->opt.groups && !(c->key & KEY_SINGLE);
    t->alone = t->plain = t->sole = t->ours = false;
    t->live_loop = t->live_exit = tr_pack_flags(FLAGS_ALL);
    __builtin_memset(t->version, 0, sizeof(t->version));
    t->e = (struct emit){.p = span->code, .end = span->code_end, .delta = tr_delta(env)};
    c->start = e_here(&t->e);
}

/* The instructions, and the pages that they lie on. */
static enum tr_result build(struct tr *t) {
    struct tr_code *c = t->c;

    vec_park(t->env->v);
    if (t->hot)
        return tr_build_path(t) ? TR_MADE : TR_NONE;
    if (!build_tu(t))
        return TR_FAULT;
    if (c->page2)
        c->va2 = tr_next_page(c->key, c->va);
    return TR_MADE;
}

/* What is asked of each instruction more than once; those that are known to trap become
 * callouts. */
static void look_at_all(struct tr *t) {
    const struct tr_env *env = t->env;

    for (unsigned k = 0; k < t->n; k++) {
        struct tu_insn *u = &t->insn[k];

        u->written = tr_written(&u->i);
        u->trap = env->advice->traps(env->arg, &u->i, u->va, tr_ram_page(t, u));
    }
}

enum tr_result tr_translate(struct tr *t, struct tr_span *span, struct tr_code *c) {
    enum tr_result r;

    begin(t, span, c);
    r = build(t);
    if (r != TR_MADE)
        return r == TR_NONE && t->full ? TR_FULL : r;
    if (!alloc_links(t) || !alloc_pieces(t))
        return TR_FULL;
    look_at_all(t);
    find_liveness(t);
    if (tr_loops(t)) { /* less is needed at its start than was assumed */
        t->live_loop = t->insn[0].live_in;
        find_liveness(t);
    }
    tr_borrow(t);
    emit_entries(t);
    expand(t);
    emit_cold(t);
    return finish(t) ? TR_MADE : TR_FULL;
}

struct tr_made tr_made(const struct tr *t) {
    return (struct tr_made){.insn = t->insn,
                            .n = t->n,
                            .ident = t->ident,
                            .operand = t->operand,
                            .callouts = t->callouts};
}

struct tr *tr_new(const struct tr_env *env) {
    struct tr *t = malloc(sizeof(*t));

    if (!t)
        return NULL;
    t->env = env;
    t->next_anchor = 0;
    t->memo = decode_memo_new();
    if (!t->memo) {
        free(t);
        return NULL;
    }
    return t;
}

void tr_free(struct tr *t) {
    if (t)
        decode_memo_free(t->memo);
    free(t);
}
