/*
 * Expansions: how each operation that is not a callout becomes host code. Nothing
 * architectural changes in an expansion before its last access that can fault.
 */
#include "tr/tr_int.h"

#include "cpu/vec.h"
#include "sem/sem.h"

static bool is_locked(const struct insn *i) {
    return (i->flags & INSN_LOCK) || (i->op == OP_xchg && tr_has_mem(i));
}

/* A locked access at [T0 + OFF] that is not aligned, and may cross a cache line, is C's:
 * the host would slow it down, by much (sem/locked.c, cpu/smp.h). True: there may be a
 * callout, which may do anything. */
static bool line_check(struct tr *t, const struct insn *i, int32_t off) {
    uint32_t rest = i->mem.size - 1u;
    unsigned reg = T0;

    if (!t->env->no_splits || !is_locked(i) || !rest)
        return false;
    tr_flags_save(t);
    if ((uint32_t)off & rest) {
        reg = T1;
        e_lea(&t->e, W32, T1, T0, REG_ZERO, 0, off);
    }
    e_test_imm(&t->e, reg, rest);
    tr_cold_callout(t, e_jcc_fwd(&t->e, CC_NE));
    if (!MUTANT(SPLIT_HELD))
        tr_forget_held(t);
    return true;
}

static void xl_ident(struct tr *t, const struct insn *i) {
    if (!tr_ident_ok(t, i) || (i->op == OP_native && !tr_native_ok(t, i))) {
        tr_callout(t, i);
        return;
    }
    bool checked = false;
    int32_t off = 0;

    if (tr_has_mem(i)) {
        if (!tr_mem_ok(t, i)) {
            tr_callout(t, i);
            return;
        }
        t->plain = i->op != OP_native; /* which may raise #NM, #MF, #GP for alignment */
        off = tr_operand(t, i, i->mem.size, i->mem.access & OPND_WRITE);
        t->plain = false;
        checked = line_check(t, i, off);
    }
    tr_copy_flags(t, i);
    if (i->op == OP_native && sem_sets_fip(i) && !t->c->fixed) { /* for x87_ran() */
        e_gs(&t->e, W64, OPC_MOV_R_RM, T1, GS_TR(here));
        e_gs(&t->e, W64, OPC_MOV_RM_R, T1, GS_TR(x87_here));
    }
    tr_ident_emit(t, i, off); /* it may fault: only then do the flags move */
    if (i->op == OP_native && sem_sets_fip(i) && !vec_keeps_fip())
        e_gs_imm(&t->e, W32, GS(x87_at), (int32_t)(e_here(&t->e) - t->env->code.rx));
    tr_copied_flags(t, i);
    if (checked)
        tr_cold_callout_end(t);
}

static void xl_div(struct tr *t, const struct insn *i) {
    if (tr_division_faults(t, i))
        tr_callout(t, i);
    else
        xl_ident(t, i);
}

/* Bit strings: with a register offset the operand may lie anywhere. */
static void xl_bit(struct tr *t, const struct insn *i) {
    if (tr_has_mem(i) && i->opnd[1].kind == OPND_REG && !MUTANT(BIT_STRING))
        tr_xl_bit_string(t, i);
    else
        xl_ident(t, i);
}

/* The last two bytes: AE /5, /6, /7. */
static bool is_fence(const struct insn *i) {
    const uint8_t *end = i->bytes + i->len;

    return i->off_modrm && end[-2] == 0xae && end[-1] >= 0xe8;
}

/* With several vCPUs, fences and PAUSE are what they are. */
static void xl_nop(struct tr *t, const struct insn *i) {
    struct emit *e = &t->e;

    if (!t->env->smp)
        return;
    if (is_fence(i)) {
        e8(e, 0x0f);
        e_bytes(e, i->bytes + i->len - 2, 2);
    } else if (tr_is_pause(i)) {
        e8(e, 0xf3);
        e8(e, 0x90);
    }
}

static void xl_lea(struct tr *t, const struct insn *i) {
    const struct mem_operand *m = &i->mem;
    unsigned dst = i->opnd[0].reg;
    int w = i->opsize == 8 && i->addrsize == 8 ? W64 : W32;
    unsigned to = tr_in_memory(t, dst) ? T1 : tr_host(t, dst);

    if (i->opsize == 2 || i->addrsize == 2) {
        tr_callout(t, i);
        return;
    }
    if (m->base == REG_RIP) {
        tr_address(t, to, tr_va(t) + (uint64_t)m->disp);
        if (w == W32)
            e_mov_rr(&t->e, W32, to, to);
    } else if (m->base == REG_ZERO && m->index == REG_ZERO) {
        e_mov_imm(&t->e, to, w ? (uint64_t)m->disp : (uint32_t)m->disp);
    } else {
        unsigned base = tr_host(t, m->base), index = tr_host(t, m->index);

        /* T1, unless there are two: T0 may be in use (group.c). */
        if (tr_in_memory(t, m->base)) {
            unsigned in = tr_in_memory(t, m->index) ? T0 : T1;

            e_gs(&t->e, W64, OPC_MOV_R_RM, in, GS_GPR(base));
            base = in;
        }
        if (tr_in_memory(t, m->index)) {
            e_gs(&t->e, W64, OPC_MOV_R_RM, T1, GS_GPR(index));
            index = T1;
        }
        e_lea(&t->e, w, to, base, index, m->scale, (int32_t)m->disp);
    }
    if (tr_in_memory(t, dst))
        e_gs(&t->e, W64, OPC_MOV_RM_R, T1, GS_GPR(dst));
}

/* --- the stack --- */

static void xl_push(struct tr *t, const struct insn *i) {
    unsigned size = i->opsize, src = T1;

    if (!tr_stack_ok(t, i) || (tr_has_mem(i) && !tr_mem_ok(t, i))) {
        tr_callout(t, i);
        return;
    }
    int32_t off;

    if (tr_has_mem(i)) {
        tr_lose_t0(t);
        off = tr_operand(t, i, size, false);
        tr_load(t, size, T1, off);
        e_gs(&t->e, W64, OPC_MOV_RM_R, T1, GS_TR(tmp));
        tr_lose_t0(t);
    }
    off = tr_push_slot(t, size);
    if (tr_has_mem(i))
        e_gs(&t->e, W64, OPC_MOV_R_RM, T1, GS_TR(tmp));
    else if (i->opnd[0].kind == OPND_IMM)
        e_mov_imm(&t->e, T1, (uint64_t)i->imm);
    else if (tr_in_memory(t, i->opnd[0].reg))
        e_gs(&t->e, W64, OPC_MOV_R_RM, T1, GS_GPR(i->opnd[0].reg));
    else
        src = tr_host(t, i->opnd[0].reg);
    tr_store(t, size, src, off);
    tr_move_sp(t, -(int32_t)size);
}

static void xl_pop(struct tr *t, const struct insn *i) {
    unsigned size = i->opsize, dst = i->opnd[0].reg;

    if (!tr_stack_ok(t, i) || tr_has_mem(i) || size == 2) {
        tr_callout(t, i);
        return;
    }
    int32_t off = tr_pop_slot(t, size);

    if (tr_in_memory(t, dst)) {
        tr_load(t, size, T1, off);
        e_gs(&t->e, W64, OPC_MOV_RM_R, T1, GS_GPR(dst));
    } else {
        tr_load(t, size, tr_host(t, dst), off);
    }
    if (dst != REG_RSP)
        tr_move_sp(t, (int32_t)size);
}

static void xl_leave(struct tr *t, const struct insn *i) {
    if (!tr_stack_ok(t, i) || i->opsize == 2) {
        tr_callout(t, i);
        return;
    }
    tr_lose_t0(t);
    tr_flags_save(t);
    e_mov_rr(&t->e, tr_stack_w(t), T0, REG_RBP);
    tr_lookup(t, i->opsize, MMU_READ);
    e_lea(&t->e, tr_stack_w(t), REG_RSP, REG_RBP, REG_ZERO, 0, i->opsize);
    tr_load(t, i->opsize, REG_RBP, 0);
}

/* --- branches --- */

/* T0 = the operand of an indirect jump or call. */
static void load_target(struct tr *t, const struct insn *i) {
    if (tr_has_mem(i)) {
        int32_t off = tr_operand(t, i, i->opsize, false);

        tr_load(t, i->opsize, T0, off);
        tr_lose_t0(t);
    } else if (tr_in_memory(t, i->opnd[0].reg)) {
        e_gs(&t->e, W64, OPC_MOV_R_RM, T0, GS_GPR(i->opnd[0].reg));
    } else {
        e_mov_rr(&t->e, tr_stack_w(t), T0, tr_host(t, i->opnd[0].reg));
    }
}

/* T0 is where an indirect branch goes; the hot path goes on at VA. Leaves the flags where
 * they are: when they are the host's, RCX tells what a comparison would. */
static void expect_target(struct tr *t, uint64_t va) {
    struct emit *e = &t->e;
    uint8_t *same;

    if (!t->c->fixed) /* a number would do without them */
        tr_flags_save(t);
    if (t->place != FLAGS_REGS) {
        tr_address(t, T1, va);
        e_rr(e, W64, OPC_CMP_R_RM, T0, T1);
        tr_cold_ret(t, e_jcc_fwd(e, CC_NE));
        return;
    }
    e_mov_imm(e, T1, 0 - va);
    e_lea(e, W64, T0, T0, T1, 0, 0);
    e_mov_rr(e, W64, T1, REG_RCX);
    e_mov_rr(e, W64, REG_RCX, T0);
    same = e_jrcxz(e);
    e_mov_rr(e, W64, REG_RCX, T1);
    e_mov_imm(e, T1, va);
    e_lea(e, W64, T0, T0, T1, 0, 0);
    tr_cold_ret(t, e_jmp_fwd(e));
    e_land8(e, same);
    e_mov_rr(e, W64, REG_RCX, T1);
}

/* T0 is where I goes: along the hot path, if that is expected, or out. */
static void go_indirect(struct tr *t, const struct insn *i) {
    tr_lose_t0(t);
    if (tr_follow(i) == FOLLOW_EXPECTED)
        expect_target(t, container_of(i, const struct tu_insn, i)->expect);
    else
        tr_indirect(t);
}

/* A direct branch: leaves the fragment, or goes on along the hot path. */
static void go_to(struct tr *t, const struct insn *i, uint64_t target) {
    switch (tr_follow(i)) {
    case FOLLOW_TARGET:
        return;
    case FOLLOW_LOOP_TARGET:
        tr_loop(t);
        return;
    default:
        tr_link(t, t->c->nlinks, target);
    }
}

static void xl_jmp(struct tr *t, const struct insn *i) {
    if (!tr_branch_ok(t, i) || (tr_has_mem(i) && !tr_mem_ok(t, i))) {
        tr_callout(t, i);
        return;
    }
    if (tr_is_direct(i)) {
        go_to(t, i, tr_target(t, i));
        return;
    }
    load_target(t, i);
    go_indirect(t, i);
}

static void xl_call(struct tr *t, const struct insn *i) {
    if (!tr_branch_ok(t, i) || !tr_stack_ok(t, i) ||
        (tr_has_mem(i) && !tr_mem_ok(t, i))) {
        tr_callout(t, i);
        return;
    }
    int32_t off;

    if (!tr_is_direct(i)) {
        tr_lose_t0(t);
        load_target(t, i);
        e_gs(&t->e, W64, OPC_MOV_RM_R, T0, GS_TR(tmp));
    }
    off = tr_push_slot(t, i->opsize);
    tr_address(t, T1, tr_next_va(t));
    tr_store(t, i->opsize, T1, off);
    tr_move_sp(t, -(int32_t)i->opsize);
    if (tr_is_direct(i)) {
        go_to(t, i, tr_target(t, i));
        return;
    }
    e_gs(&t->e, W64, OPC_MOV_R_RM, T0, GS_TR(tmp));
    go_indirect(t, i);
}

static void xl_ret(struct tr *t, const struct insn *i) {
    if (!tr_branch_ok(t, i) || !tr_stack_ok(t, i)) {
        tr_callout(t, i);
        return;
    }
    int32_t off = tr_pop_slot(t, i->opsize);

    tr_load(t, i->opsize, T0, off);
    tr_move_sp(t, (int32_t)i->opsize + (i->nops ? (int32_t)(uint16_t)i->imm : 0));
    go_indirect(t, i);
}

static void xl_jcc(struct tr *t, const struct insn *i) {
    unsigned exit;

    if (!tr_branch_ok(t, i)) {
        tr_callout(t, i);
        return;
    }
    tr_flags_restore(t);
    switch (tr_follow(i)) {
    case FOLLOW_NEXT:
        tr_side_exit(t, i->cond, tr_target(t, i));
        break;
    case FOLLOW_TARGET:
        tr_side_exit(t, i->cond ^ 1u, tr_next_va(t));
        break;
    case FOLLOW_LOOP_TARGET:
        tr_loop_jcc(t, i->cond, tr_next_va(t));
        break;
    case FOLLOW_LOOP_NEXT:
        tr_loop_jcc(t, i->cond ^ 1u, tr_target(t, i));
        break;
    default:
        exit = t->c->nlinks;
        tr_jcc(t, i->cond, exit + 1, tr_target(t, i));
        tr_link(t, exit, tr_next_va(t));
    }
}

/* jrcxz exists on the host; loop is lea and jrcxz. Flags are not touched. */
static void xl_jcxz(struct tr *t, const struct insn *i) {
    struct emit *e = &t->e;
    enum flags_place place = t->place;
    uint8_t *skip;
    unsigned exit = t->c->nlinks;

    if (!tr_branch_ok(t, i) || i->addrsize == 2) {
        tr_callout(t, i);
        return;
    }
    if (i->op == OP_loop)
        e_lea(e, i->addrsize == 8 ? W64 : W32, REG_RCX, REG_RCX, REG_ZERO, 0, -1);
    if (i->addrsize == 4)
        e8(e, 0x67);
    skip = e_jrcxz(e);
    /* rCX is not zero: loop goes back, jcxz goes on. */
    tr_link(t, exit, i->op == OP_loop ? tr_target(t, i) : tr_next_va(t));
    e_land8(e, skip);
    t->place = place; /* the first link may have moved the flags: not on this way */
    tr_link(t, exit + 1, i->op == OP_loop ? tr_next_va(t) : tr_target(t, i));
}

static xl_fn *const expansions[CLASSES] = {
    [CLASS_IDENT] = xl_ident,
    [CLASS_DIV] = xl_div,
    [CLASS_BIT] = xl_bit,
    [CLASS_NOP] = xl_nop,
    [CLASS_LEA] = xl_lea,
    [CLASS_PUSH] = xl_push,
    [CLASS_POP] = xl_pop,
    [CLASS_LEAVE] = xl_leave,
    [CLASS_JMP] = xl_jmp,
    [CLASS_CALL] = xl_call,
    [CLASS_RET] = xl_ret,
    [CLASS_JCC] = xl_jcc,
    [CLASS_JCXZ] = xl_jcxz,
    [CLASS_STRING] = tr_xl_string,
    [CLASS_RDTSC] = tr_xl_rdtsc,
    [CLASS_CLI] = tr_xl_cli,
    [CLASS_STI] = tr_xl_sti,
    [CLASS_CLD] = tr_xl_cld,
    [CLASS_CLAC] = tr_xl_clac,
    [CLASS_SWAPGS] = tr_xl_swapgs,
    [CLASS_PUSHF] = tr_xl_pushf,
    [CLASS_POPF] = tr_xl_popf,
    [CLASS_MOV_FROM_SEG] = tr_xl_mov_from_seg,
    [CLASS_MOV_FROM_CR] = tr_xl_mov_from_cr,
    [CLASS_CALLOUT] = tr_callout,
};

void tr_expand(struct tr *t, const struct insn *i) {
    expansions[tr_class_of(i)](t, i);
}
