/*
 * Expansions: how each operation that is not a callout becomes host code. Nothing
 * architectural changes in an expansion before its last access that can fault.
 */
#include "tr/tr_int.h"

#include "cpu/vec.h"
#include "sem/sem.h"

static bool reads_flags(const struct insn *i) {
    return (i->fl_read & FLAGS_ALL) != 0;
}

static bool writes_flags(const struct insn *i) {
    return ((i->fl_written | i->fl_undefined) & FLAGS_ALL) != 0;
}

/* Before the host's copy of an instruction: flags that it reads or passes through. */
static void flags_for_copy(struct tr *t, const struct insn *i) {
    const struct tu_insn *u = &t->insn[t->k];
    /* Undefined flags come from the host; with liveness off they come out as they do in
     * the interpreter, where the host sees the flags from before. */
    unsigned clobbered = i->fl_written | (t->bt->opt.liveness ? i->fl_undefined : 0u);
    unsigned kept = ~clobbered & FLAGS_ALL;
    unsigned live = (u->live_out & ~2u) | (u->live_out & 2 ? X86_FL_OF : 0);

    if (reads_flags(i) || (writes_flags(i) && (kept & live)))
        tr_flags_restore(t);
}

void tr_bit_flags(struct tr *t, const struct insn *i) {
    flags_for_copy(t, i);
}

static bool mem_form(const struct insn *i) {
    for (unsigned k = 0; k < i->nops; k++)
        if (i->opnd[k].kind == OPND_MEM)
            return true;
    return false;
}

bool tr_has_mem(const struct insn *i) {
    return mem_form(i);
}

/* The memory operand is at [T0 + what this returns]. */
static int32_t mem_access(struct tr *t, const struct insn *i, unsigned size, bool write) {
    struct tr_ref ref = tr_ref_mem(t, i, tr_va(t));

    return tr_access(t, &ref, size, write);
}

/* The pointers that the vCPU has are to be 0 then, which sem/native.c sees to. */
static bool is_fninit(const struct insn *i) {
    return i->len >= 2 && i->bytes[i->len - 2] == 0xdb && i->bytes[i->len - 1] == 0xe3;
}

static bool native_allowed(const struct tr *t, const struct insn *i) {
    if (i->flags & INSN_X87)
        return (t->key & KEY_X87) && !is_fninit(i);
    if (i->flags & INSN_MMX)
        return t->key & KEY_X87;
    if (i->flags & INSN_AVX512)
        return t->key & KEY_AVX512;
    if (i->flags & INSN_VEX)
        return t->key & KEY_AVX;
    return t->key & KEY_VEC;
}

static void xl_ident(struct tr *t, const struct insn *i) {
    if (!tr_ident_ok(t, i) || (i->op == OP_native && !native_allowed(t, i))) {
        tr_callout(t, i);
        return;
    }
    int32_t off = 0;

    if (mem_form(i)) {
        if (!tr_mem_ok(t, i)) {
            tr_callout(t, i);
            return;
        }
        t->plain = i->op != OP_native; /* which may raise #NM, #MF, #GP for alignment */
        off = mem_access(t, i, i->mem.size, i->mem.access & OPND_WRITE);
        t->plain = false;
    }
    flags_for_copy(t, i);
    tr_ident_emit(t, i, off); /* it may fault: only then do the flags move */
    if (i->op == OP_native && sem_sets_fip(i) && !vec_keeps_fip())
        e_gs_imm(&t->e, W32, GS(x87_at), (int32_t)(e_here(&t->e) - t->bt->code.rx));
    if (writes_flags(i))
        t->place = FLAGS_REGS;
}

/* See adapt.c. I is one of T's instructions. */
static bool guilty(const struct tr *t, const struct insn *i) {
    return bt_division_guilty(t->bt, container_of(i, const struct tu_insn, i)->va);
}

static void xl_div(struct tr *t, const struct insn *i) {
    if (guilty(t, i))
        tr_callout(t, i);
    else
        xl_ident(t, i);
}

/* Bit strings: with a register offset the operand may lie anywhere. */
static void xl_bit(struct tr *t, const struct insn *i) {
    if (mem_form(i) && i->opnd[1].kind == OPND_REG && !MUTANT(BIT_STRING))
        tr_xl_bit_string(t, i);
    else
        xl_ident(t, i);
}

static void xl_nop(struct tr *t, const struct insn *i) {
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
    if (m->base == REG_RIP || (m->base == REG_ZERO && m->index == REG_ZERO)) {
        uint64_t a = (uint64_t)m->disp + (m->base == REG_RIP ? tr_va(t) : 0);

        e_mov_imm(&t->e, to, w ? a : (uint32_t)a);
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

bool tr_stack_ok(const struct tr *t, const struct insn *i) {
    unsigned ss = 1u << SEG_SS;

    /* In 64-bit mode a segment is not flat while alignment is checked. */
    if (i->opsize == 1 || !(t->key >> KEY_FLAT_W_SHIFT & ss) ||
        !(t->key >> KEY_FLAT_R_SHIFT & ss))
        return false;
    if (KEY_MODE(t->key) == MODE_64)
        return true;
    return (t->key & KEY_STACK32) && !(t->key >> KEY_BASE_SHIFT & ss);
}

static int stack_w(const struct tr *t) {
    return KEY_MODE(t->key) == MODE_64 ? W64 : W32;
}

/* [T0 + result]: SIZE bytes below rSP, or at it. */
int32_t tr_push_slot(struct tr *t, unsigned size) {
    struct tr_ref ref = tr_ref_stack(t, -(int32_t)size);

    return tr_access(t, &ref, size, true);
}

int32_t tr_pop_slot(struct tr *t, unsigned size) {
    struct tr_ref ref = tr_ref_stack(t, 0);

    return tr_access(t, &ref, size, false);
}

void tr_move_sp(struct tr *t, int32_t by) {
    e_lea(&t->e, stack_w(t), REG_RSP, REG_RSP, REG_ZERO, 0, by);
}

/* mov [T0 + off], reg of SIZE bytes, and back */
void tr_store(struct tr *t, unsigned size, unsigned reg, int32_t off) {
    off += MUTANT(STORE_ASTRAY) << 12;
    if (size == 2)
        e8(&t->e, 0x66);
    e_rm(&t->e, size == 8 || MUTANT(STORE_WIDE) ? W64 : W32,
         size == 1 ? 0x88 : OPC_MOV_RM_R, reg, T0, off);
}

void tr_load(struct tr *t, unsigned size, unsigned reg, int32_t off) {
    if (size == 2)
        e8(&t->e, 0x66);
    e_rm(&t->e, size == 8 ? W64 : W32, size == 1 ? 0x8a : OPC_MOV_R_RM, reg, T0, off);
}

static void xl_push(struct tr *t, const struct insn *i) {
    unsigned size = i->opsize, src = T1;

    if (!tr_stack_ok(t, i) || (mem_form(i) && !tr_mem_ok(t, i))) {
        tr_callout(t, i);
        return;
    }
    int32_t off;

    if (mem_form(i)) {
        tr_lose_t0(t);
        off = mem_access(t, i, size, false);
        tr_load(t, size, T1, off);
        e_gs(&t->e, W64, OPC_MOV_RM_R, T1, GS(bt.tmp));
        tr_lose_t0(t);
    }
    off = tr_push_slot(t, size);
    if (mem_form(i))
        e_gs(&t->e, W64, OPC_MOV_R_RM, T1, GS(bt.tmp));
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

    if (!tr_stack_ok(t, i) || mem_form(i) || size == 2) {
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
    e_mov_rr(&t->e, stack_w(t), T0, REG_RBP);
    tr_lookup(t, i->opsize, MMU_READ);
    e_lea(&t->e, stack_w(t), REG_RSP, REG_RBP, REG_ZERO, 0, i->opsize);
    tr_load(t, i->opsize, REG_RBP, 0);
}

/* --- branches --- */

bool tr_branch_ok(const struct tr *t, const struct insn *i) {
    if (KEY_MODE(t->key) == MODE_64)
        return i->opsize == 8;
    return i->opsize == 4 && !(t->key >> KEY_BASE_SHIFT & 1u << SEG_CS);
}

uint64_t tr_target(const struct tr *t, const struct insn *i) {
    uint64_t va = container_of(i, const struct tu_insn, i)->va;

    va += i->len + (uint64_t)i->imm;
    return KEY_MODE(t->key) == MODE_64 ? va : (uint32_t)va;
}

bool tr_is_direct(const struct insn *i) {
    return i->nops == 0 || i->opnd[0].kind == OPND_IMM;
}

/* T0 holds the target; flags must be in memory. */
void tr_indirect(struct tr *t) {
    struct emit *e = &t->e;

    if (tr_heats(t)) /* for the hot path to come */
        e_abs(e, W64, OPC_MOV_RM_R, T0, bt_guess(t->bt, tr_va(t)));
    tr_flags_to_mem(t);
    tr_return_fuel(t);
    tr_site(t, POLL_INDIRECT, 0);
    if (!MUTANT(NO_POLL_INDIRECT))
        bt_emit_poll(t->bt, e);
    tr_lend_swap(t);
    if (KEY_MODE(t->key) == MODE_64) /* who it was, if the target is not canonical */
        e_gs_imm(e, W32, GS(bt.site), (int32_t)(e_here(e) - t->bt->code.rx));
    if (MUTANT(JUMP_WIDE))
        e_mov_rr(e, W32, T1, T0);
    else
        e_movzx16(e, T1, T0);
    e_shift(e, W32, EXT_SHL, T1, 3);
    e_gs(e, W64, OPC_ADD_R_RM, T1, GS(bt.jump));
    e_jmp_mem(e, T1);
    t->ended = true;
}

/* T0 = the operand of an indirect jump or call. */
static void load_target(struct tr *t, const struct insn *i) {
    if (mem_form(i)) {
        int32_t off = mem_access(t, i, i->opsize, false);

        tr_load(t, i->opsize, T0, off);
        tr_lose_t0(t);
    } else if (tr_in_memory(t, i->opnd[0].reg)) {
        e_gs(&t->e, W64, OPC_MOV_R_RM, T0, GS_GPR(i->opnd[0].reg));
    } else {
        e_mov_rr(&t->e, stack_w(t), T0, tr_host(t, i->opnd[0].reg));
    }
}

/* jrcxz over the next bytes, until jrcxz_land(). */
static uint8_t *jrcxz(struct emit *e) {
    e8(e, 0xe3);
    e8(e, 0);
    return e->p - 1;
}

static void jrcxz_land(struct emit *e, uint8_t *rel8) {
    ptrdiff_t over = e->p - rel8 - 1;

    if (over > INT8_MAX)
        e->full = true; /* never seen; such a fragment is not made */
    else if (!e->full)
        *rel8 = (uint8_t)over;
}

/* T0 is where an indirect branch goes; the hot path goes on at VA. Leaves the flags where
 * they are: when they are the host's, RCX tells what a comparison would. */
static void expect_target(struct tr *t, uint64_t va) {
    struct emit *e = &t->e;
    uint8_t *same;

    if (t->place != FLAGS_REGS) {
        e_mov_imm(e, T1, va);
        e_rr(e, W64, OPC_CMP_R_RM, T0, T1);
        tr_cold_ret(t, e_jcc_fwd(e, CC_NE));
        return;
    }
    e_mov_imm(e, T1, 0 - va);
    e_lea(e, W64, T0, T0, T1, 0, 0);
    e_mov_rr(e, W64, T1, REG_RCX);
    e_mov_rr(e, W64, REG_RCX, T0);
    same = jrcxz(e);
    e_mov_rr(e, W64, REG_RCX, T1);
    e_mov_imm(e, T1, va);
    e_lea(e, W64, T0, T0, T1, 0, 0);
    tr_cold_ret(t, e_jmp_fwd(e));
    jrcxz_land(e, same);
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
    if (!tr_branch_ok(t, i) || (mem_form(i) && !tr_mem_ok(t, i))) {
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
    if (!tr_branch_ok(t, i) || !tr_stack_ok(t, i) || (mem_form(i) && !tr_mem_ok(t, i))) {
        tr_callout(t, i);
        return;
    }
    int32_t off;

    if (!tr_is_direct(i)) {
        tr_lose_t0(t);
        load_target(t, i);
        e_gs(&t->e, W64, OPC_MOV_RM_R, T0, GS(bt.tmp));
    }
    off = tr_push_slot(t, i->opsize);
    e_mov_imm(&t->e, T1, tr_next_va(t));
    tr_store(t, i->opsize, T1, off);
    tr_move_sp(t, -(int32_t)i->opsize);
    if (tr_is_direct(i)) {
        go_to(t, i, tr_target(t, i));
        return;
    }
    e_gs(&t->e, W64, OPC_MOV_R_RM, T0, GS(bt.tmp));
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
    skip = jrcxz(e);
    /* rCX is not zero: loop goes back, jcxz goes on. */
    tr_link(t, exit, i->op == OP_loop ? tr_target(t, i) : tr_next_va(t));
    jrcxz_land(e, skip);
    t->place = place; /* the first link may have moved the flags: not on this way */
    tr_link(t, exit + 1, i->op == OP_loop ? tr_next_va(t) : tr_target(t, i));
}

static xl_fn *const table[OP_COUNT] = {
    [OP_movs] = tr_xl_string, [OP_stos] = tr_xl_string,  [OP_native] = xl_ident,
    [OP_add] = xl_ident,      [OP_adc] = xl_ident,       [OP_sub] = xl_ident,
    [OP_sbb] = xl_ident,      [OP_cmp] = xl_ident,       [OP_and] = xl_ident,
    [OP_or] = xl_ident,       [OP_xor] = xl_ident,       [OP_test] = xl_ident,
    [OP_inc] = xl_ident,      [OP_dec] = xl_ident,       [OP_neg] = xl_ident,
    [OP_not] = xl_ident,      [OP_adcx] = xl_ident,      [OP_adox] = xl_ident,
    [OP_andn] = xl_ident,     [OP_mul] = xl_ident,       [OP_imul] = xl_ident,
    [OP_div] = xl_div,        [OP_idiv] = xl_div,        [OP_mulx] = xl_ident,
    [OP_cmpxchg] = xl_ident,  [OP_cmpxchg8b] = xl_ident, [OP_cmpxchg16b] = xl_ident,
    [OP_xadd] = xl_ident,     [OP_rol] = xl_ident,       [OP_ror] = xl_ident,
    [OP_rcl] = xl_ident,      [OP_rcr] = xl_ident,       [OP_shl] = xl_ident,
    [OP_shr] = xl_ident,      [OP_sar] = xl_ident,       [OP_shld] = xl_ident,
    [OP_shrd] = xl_ident,     [OP_rorx] = xl_ident,      [OP_sarx] = xl_ident,
    [OP_shlx] = xl_ident,     [OP_shrx] = xl_ident,      [OP_bt] = xl_bit,
    [OP_bts] = xl_bit,        [OP_btr] = xl_bit,         [OP_btc] = xl_bit,
    [OP_bsf] = xl_ident,      [OP_bsr] = xl_ident,       [OP_popcnt] = xl_ident,
    [OP_lzcnt] = xl_ident,    [OP_tzcnt] = xl_ident,     [OP_bextr] = xl_ident,
    [OP_blsi] = xl_ident,     [OP_blsmsk] = xl_ident,    [OP_blsr] = xl_ident,
    [OP_bzhi] = xl_ident,     [OP_pdep] = xl_ident,      [OP_pext] = xl_ident,
    [OP_crc32] = xl_ident,    [OP_mov] = xl_ident,       [OP_movzx] = xl_ident,
    [OP_movsx] = xl_ident,    [OP_movsxd] = xl_ident,    [OP_movbe] = xl_ident,
    [OP_movnti] = xl_ident,   [OP_xchg] = xl_ident,      [OP_bswap] = xl_ident,
    [OP_cmovcc] = xl_ident,   [OP_setcc] = xl_ident,     [OP_cbw] = xl_ident,
    [OP_cwde] = xl_ident,     [OP_cdqe] = xl_ident,      [OP_cwd] = xl_ident,
    [OP_cdq] = xl_ident,      [OP_cqo] = xl_ident,       [OP_lahf] = xl_ident,
    [OP_sahf] = xl_ident,     [OP_clc] = xl_ident,       [OP_stc] = xl_ident,
    [OP_cmc] = xl_ident,      [OP_nop] = xl_nop,         [OP_lea] = xl_lea,
    [OP_push] = xl_push,      [OP_pop] = xl_pop,         [OP_leave] = xl_leave,
    [OP_jmp] = xl_jmp,        [OP_call] = xl_call,       [OP_ret] = xl_ret,
    [OP_jcc] = xl_jcc,        [OP_jcxz] = xl_jcxz,       [OP_loop] = xl_jcxz,
};

static bool names_both(const struct tr *t, const struct insn *i) {
    unsigned named = 0;

    for (unsigned k = 0; k < i->nops; k++)
        if (i->opnd[k].kind == OPND_REG && tr_in_memory(t, i->opnd[k].reg))
            named |= 1u << (i->opnd[k].reg - REG_R14);
    /* Vector instructions keep r14 where it is: their other fields name other things. */
    return named == 3 || (i->op == OP_native && (named & 1));
}

bool tr_keeps_t0(const struct tr *t, const struct insn *i) {
    xl_fn *fn = i->flags & INSN_MASKED ? NULL : table[i->op];

    if (fn == xl_div && !guilty(t, i))
        fn = xl_ident;
    if (fn == xl_ident) {
        if (!tr_ident_ok(t, i) || (i->op == OP_native && !native_allowed(t, i)))
            return false;
        return mem_form(i) ? tr_mem_ok(t, i) : !names_both(t, i);
    }
    if (i->op == OP_cld || i->op == OP_std)
        return true;
    if (fn == xl_push || fn == xl_pop)
        return tr_stack_ok(t, i) && !mem_form(i) && i->opsize != 2;
    if (fn == xl_call)
        return tr_stack_ok(t, i) && tr_branch_ok(t, i) && tr_is_direct(i);
    if (fn == xl_ret)
        return tr_stack_ok(t, i) && tr_branch_ok(t, i);
    if (fn == xl_jcc || (fn == xl_jmp && tr_is_direct(i)))
        return tr_branch_ok(t, i);
    if (fn == xl_lea)
        return i->opsize != 2 && i->addrsize != 2 &&
               !(tr_in_memory(t, i->mem.base) && tr_in_memory(t, i->mem.index));
    return fn == xl_nop;
}

/* Masked operands are not: the check would be of all their bytes. */
xl_fn *tr_expansion(const struct insn *i) {
    xl_fn *fn = table[i->op];

    if ((i->flags & INSN_MASKED) && !MUTANT(COPY_MASKED))
        return NULL;
    if (!fn)
        fn = tr_system_expansion(i);
    return fn || !MUTANT(COPY_ALL) ? fn : xl_ident;
}
