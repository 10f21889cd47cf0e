/*
 * The ways out of a fragment: links, the ends of a hot path and its sides, polls, and the
 * fuel that a counted run takes and gives back.
 */
#include "tr/tr_int.h"

/* --- counted runs --- */

/* tr_vcpu.fuel += BY, with the result in T1 too. Leaves the host's flags alone. */
static void add_fuel(struct tr *t, int32_t by) {
    e_gs(&t->e, W64, OPC_MOV_R_RM, T1, GS_TR(fuel));
    e_lea(&t->e, W64, T1, T1, REG_ZERO, 0, by);
    e_gs(&t->e, W64, OPC_MOV_RM_R, T1, GS_TR(fuel));
}

/* At the fragment's start: takes the fuel of all its instructions. With too little the
 * load hits the page in front of bt->fuel, and on_host_fault() leaves. */
void tr_take_fuel(struct tr *t) {
    if (!tr_counted(t))
        return;
    add_fuel(t, -(int32_t)t->n);
    tr_site(t, POLL_HERE, 0);
    if (!MUTANT(FUEL_UNSEEN))
        e_rm(&t->e, W32, OPC_MOV_R_RM, T1, T1, 0);
}

/* Does what leaves behind the instruction being translated have fuel to give back? */
static bool early(const struct tr *t) {
    return tr_counted(t) && t->k + 1 < t->n;
}

static void return_fuel(struct tr *t) {
    if (early(t))
        add_fuel(t, (int32_t)(t->n - t->k - 1) + 64 * MUTANT(FUEL_LONG));
}

/* --- exits --- */

void tr_poll(struct tr *t, enum poll_kind kind, unsigned n) {
    tr_site(t, kind, n);
    if (!MUTANT(NO_POLL))
        tr_emit_poll(t->env, &t->e);
}

static void link_init(struct tr *t, unsigned n, uint64_t target) {
    struct link *l = &t->c->links[n];

    if (KEY_MODE(t->key) != MODE_64)
        target = (uint32_t)target;
    *l = (struct link){.from = t->c,
                       .target = target,
                       .place = t->place,
                       .same_page = !((target ^ t->c->va) >> 12) && !t->c->page2};
    if (t->c->nlinks <= n)
        t->c->nlinks = (uint8_t)(n + 1);
}

/* The jump itself: to its stub, until it is chained. Into another page, T0 says where. */
static void link_jump(struct tr *t, unsigned n) {
    if (!t->c->links[n].same_page) {
        tr_address(t, T0, t->c->links[n].target);
        /* No indirect branch: not its business if the address is not canonical. */
        if (KEY_MODE(t->key) == MODE_64)
            e_gs_imm(&t->e, W32, GS_TR(site), 0);
    }
    tr_emit_align(t->env, &t->e, 1);
    t->c->links[n].rel32 = t->e.p + 1;
    e_jmp(&t->e, e_here(&t->e)); /* its stub's address comes later */
}

/* Another page's fragment is entered through entry_check, with the flags in memory. */
static void link_flags(struct tr *t, unsigned n) {
    if (!t->c->links[n].same_page)
        tr_flags_to_mem(t);
    t->c->links[n].place = t->place;
}

void tr_link(struct tr *t, unsigned n, uint64_t target) {
    link_init(t, n, target);
    link_flags(t, n);
    return_fuel(t);
    if (t->c->links[n].target <= tr_va(t))
        tr_poll(t, POLL_LINK, n);
    tr_borrow_swap(t);
    link_jump(t, n);
    t->ended = true;
}

/* Around the jump when it needs a poll (it goes back) or the flags in memory. */
void tr_jcc(struct tr *t, unsigned cond, unsigned n, uint64_t target) {
    enum flags_place place = t->place;
    bool back;

    link_init(t, n, target);
    back = t->c->links[n].target <= tr_va(t);
    if (back || !t->c->links[n].same_page || tr_borrows(t) || early(t)) {
        uint8_t *not_taken = e_jcc_fwd(&t->e, cond ^ 1);

        link_flags(t, n);
        return_fuel(t);
        if (back)
            tr_poll(t, POLL_LINK, n);
        tr_borrow_swap(t);
        link_jump(t, n);
        e_land(&t->e, not_taken);
        t->place = place;
    } else {
        tr_emit_align(t->env, &t->e, 2);
        t->c->links[n].rel32 = t->e.p + 2;
        e_jcc(&t->e, cond, e_here(&t->e));
    }
}

void tr_side_exit(struct tr *t, unsigned cond, uint64_t target) {
    unsigned n = t->c->nlinks;
    struct cold *c;

    link_init(t, n, target);
    if (t->c->links[n].target > tr_va(t) && t->c->links[n].same_page && !tr_borrows(t) &&
        !early(t)) {
        tr_emit_align(t->env, &t->e, 2);
        t->c->links[n].rel32 = t->e.p + 2;
        e_jcc(&t->e, cond, e_here(&t->e));
        return;
    }
    c = tr_cold_add(t, COLD_EXIT, e_jcc_fwd(&t->e, cond));
    c->site = n;
}

void tr_place_exit(struct tr *t, const struct cold *c) {
    e_land(&t->e, c->rel32);
    t->k = c->k;
    t->place = (enum flags_place)c->place;
    link_flags(t, c->site);
    return_fuel(t);
    if (t->c->links[c->site].target <= tr_va(t))
        tr_poll(t, POLL_LINK, c->site);
    tr_borrow_swap(t);
    link_jump(t, c->site);
}

/* Moves the flags to where the path's first instruction expects them. */
static void flags_to_head(struct tr *t) {
    if (t->head == FLAGS_MEM)
        tr_flags_to_mem(t);
    else if (t->head == FLAGS_REGS)
        tr_flags_restore(t);
}

void tr_loop(struct tr *t) {
    flags_to_head(t);
    e_jmp(&t->e, t->loop_head);
    t->ended = true;
}

void tr_loop_jcc(struct tr *t, unsigned cond, uint64_t rest) {
    if (t->head != FLAGS_MEM) {
        e_jcc(&t->e, cond, t->loop_head);
    } else {
        uint8_t *done = e_jcc_fwd(&t->e, cond ^ 1u);

        tr_loop(t);
        e_land(&t->e, done);
        t->place = FLAGS_REGS;
    }
    tr_link(t, t->c->nlinks, rest);
}

/* Where the branch goes (T0), for the hot path to come. Leaves the host's flags alone. */
static void note_target(struct tr *t) {
    uint64_t place = tr_insn_place(t, &t->insn[t->k]);

    e_gs(&t->e, W64, OPC_MOV_RM_R, T0, GS_COUNTS(guess[tr_guess_slot(place)]));
}

/* T0 holds the target; flags must be in memory. */
void tr_indirect(struct tr *t) {
    struct emit *e = &t->e;

    if (tr_heats(t))
        note_target(t);
    tr_flags_to_mem(t);
    return_fuel(t);
    tr_site(t, POLL_INDIRECT, 0);
    if (!MUTANT(NO_POLL_INDIRECT))
        tr_emit_poll(t->env, e);
    tr_borrow_swap(t);
    if (KEY_MODE(t->key) == MODE_64) /* who it was, if the target is not canonical */
        e_gs_imm(e, W32, GS_TR(site), (int32_t)(e_here(e) - t->env->code.rx));
    if (MUTANT(JUMP_WIDE))
        e_mov_rr(e, W32, T1, T0);
    else
        e_movzx16(e, T1, T0);
    e_shift(e, W32, EXT_SHL, T1, 3);
    e_gs(e, W64, OPC_ADD_R_RM, T1, GS_TR(jump));
    e_jmp_mem(e, T1);
    t->ended = true;
}

void tr_cold_ret(struct tr *t, uint8_t *rel32) {
    tr_cold_add(t, COLD_RET, rel32);
}

void tr_place_ret(struct tr *t, const struct cold *c) {
    e_land(&t->e, c->rel32);
    t->k = c->k;
    t->place = (enum flags_place)c->place;
    tr_indirect(t);
}

/* Where an unchained link goes. */
void tr_place_link(struct tr *t, unsigned n) {
    struct link *l = &t->c->links[n];

    l->stub = e_here(&t->e);
    e_mov_imm(&t->e, T0, tr_record_number(t->env, l) + MUTANT(LINK_OTHER));
    e_jmp(&t->e, l->place == FLAGS_REGS ? t->env->stub.link_regs : t->env->stub.link);
    if (!t->e.full)
        e_patch(&t->e, l->rel32, l->stub);
}
