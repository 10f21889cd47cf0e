/*
 * What expansions are made of: operands in memory, the stack, and the flags that a copy
 * of an instruction needs.
 */
#include "tr/tr_int.h"

static bool reads_flags(const struct insn *i) {
    return (i->fl_read & FLAGS_ALL) != 0;
}

static bool writes_flags(const struct insn *i) {
    return ((i->fl_written | i->fl_undefined) & FLAGS_ALL) != 0;
}

void tr_copy_flags(struct tr *t, const struct insn *i) {
    const struct tu_insn *u = &t->insn[t->k];
    /* Undefined flags come from the host; with liveness off they come out as they do in
     * the interpreter, where the host sees the flags from before. */
    unsigned clobbered = i->fl_written | (t->env->opt.liveness ? i->fl_undefined : 0u);
    unsigned kept = ~clobbered & FLAGS_ALL;
    unsigned live = (u->live_out & ~2u) | (u->live_out & 2 ? X86_FL_OF : 0);

    if (reads_flags(i) || (writes_flags(i) && (kept & live)))
        tr_flags_restore(t);
}

void tr_copied_flags(struct tr *t, const struct insn *i) {
    if (writes_flags(i))
        t->place = FLAGS_REGS;
}

int32_t tr_operand(struct tr *t, const struct insn *i, unsigned size, bool write) {
    struct tr_ref ref = tr_ref_mem(t, i, tr_va(t));

    return tr_access(t, &ref, size, write);
}

int32_t tr_push_slot(struct tr *t, unsigned size) {
    struct tr_ref ref = tr_ref_stack(t, -(int32_t)size);

    return tr_access(t, &ref, size, true);
}

int32_t tr_pop_slot(struct tr *t, unsigned size) {
    struct tr_ref ref = tr_ref_stack(t, 0);

    return tr_access(t, &ref, size, false);
}

int tr_stack_w(const struct tr *t) {
    return KEY_MODE(t->key) == MODE_64 ? W64 : W32;
}

void tr_move_sp(struct tr *t, int32_t by) {
    e_lea(&t->e, tr_stack_w(t), REG_RSP, REG_RSP, REG_ZERO, 0, by);
}

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
