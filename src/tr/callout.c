/*
 * Callouts: instructions that translated code leaves to their C functions in sem/. The
 * function runs between two fragments as far as flags, registers and what has been
 * checked are concerned.
 */
#include "tr/tr_int.h"

enum tr_gate tr_gate_of(const struct insn *i, unsigned mode) {
    switch (i->op) {
    case OP_syscall:
        return mode == MODE_64 ? TR_GATE_SYSCALL : TR_GATE_NONE;
    case OP_sysret:
        return mode == MODE_64 && (i->flags & INSN_REX_W) ? TR_GATE_SYSRET : TR_GATE_NONE;
    case OP_sysenter:
        return mode == MODE_32 ? TR_GATE_SYSENTER : TR_GATE_NONE;
    case OP_sysexit:
        return mode == MODE_32 ? TR_GATE_SYSEXIT : TR_GATE_NONE;
    default:
        return TR_GATE_NONE;
    }
}

static const uint8_t *callout_stub(const struct tr *t, const struct insn *i) {
    enum tr_gate gate = tr_gate_of(i, KEY_MODE(t->key));

    if (!t->env->opt.stay || tr_counted(t) || !tr_transfers(i))
        return t->env->stub.callout;
    return gate == TR_GATE_NONE ? t->env->stub.transfer : t->env->stub.gate[gate];
}

/* The instruction that the callout is to execute, kept with the code. */
static struct insn *record_insn(struct tr *t, const struct insn *i) {
    const struct tu_insn *u = &t->insn[t->k];
    struct insn *copy;

    if (u->trap) {
        copy =
            t->env->advice->trapping(t->env->arg, t->span, i, u->va, tr_ram_page(t, u));
        t->full |= !copy;
        return copy;
    }
    copy = tr_record(t, sizeof(*copy));
    if (copy)
        *copy = *i;
    return copy;
}

void tr_callout(struct tr *t, const struct insn *i) {
    struct emit *e = &t->e;
    uint64_t va = tr_va(t);
    struct insn *copy = record_insn(t, i);

    tr_flags_to_mem(t);
    if (!MUTANT(KEEPS_HELD))
        tr_forget_held(t);
    tr_borrow_swap(t);
    if (!copy) {
        e->full = true;
        return;
    }
    t->callouts++;
    if (tr_counted(t))
        e_gs_imm(e, W32, GS_TR(owed), (int32_t)(t->n - t->k));
    tr_address(t, T0, va);
    e_gs(e, W64, OPC_MOV_RM_R, T0, GS(rip));
    e_mov_imm(e, T0, (uint64_t)(uintptr_t)copy);
    tr_emit_lea_next(e, 5 + MUTANT(CALLOUT_BACK));
    e_jmp(e, callout_stub(t, i));
    tr_borrow_swap(t);
}

/* --- in the middle of an expansion --- */

void tr_cold_callout(struct tr *t, uint8_t *rel32) {
    tr_cold_add(t, COLD_CALLOUT, rel32);
}

void tr_cold_callout_end(struct tr *t) {
    for (unsigned n = t->ncold; n--;)
        if (t->cold[n].kind == COLD_CALLOUT && t->cold[n].k == t->k) {
            t->cold[n].cont = e_here(&t->e);
            t->cold[n].back = (uint8_t)t->place;
        }
}

void tr_place_callout(struct tr *t, const struct cold *c) {
    e_land(&t->e, c->rel32);
    t->k = c->k;
    t->place = (enum flags_place)c->place;
    tr_site(t, POLL_NONE, 0);
    tr_callout(t, &t->insn[t->k].i);
    if (c->back == FLAGS_REGS)
        tr_flags_restore(t);
    e_jmp(&t->e, c->cont);
}
