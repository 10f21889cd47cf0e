/*
 * Borrowed registers: in a hot path, guest r14 and r15 live in host registers whose own
 * guest register the path does not use; that one waits in the memory of the other.
 *
 * While a register is borrowed, host X holds guest r14 (or r15) and vcpu.gpr[14] (or 15)
 * holds guest X. A path swaps them when it is entered and when it is left; callouts are
 * put between two swaps. What leaves in the middle (a slow path that ends in the
 * interpreter, a host fault) is put right by tr_give_back(), from tr_code.borrowed.
 */
#include "tr/tr_int.h"

/* Uses of r14 or r15 that are worth two swaps, where the path does not loop. */
#define WORTH_USES 6

/* General registers that I names or, more rather than fewer, uses without naming them. */
static uint32_t used(const struct insn *i) {
    const uint32_t wide = 1u << REG_RAX | 1u << REG_RCX | 1u << REG_RDX | 1u << REG_RBX;
    uint32_t regs = 1u << REG_RSP;

    for (unsigned k = 0; k < i->nops; k++) {
        if (i->opnd[k].kind == OPND_REG)
            regs |= 1u << i->opnd[k].reg;
        if (i->opnd[k].kind == OPND_MEM)
            regs |= 1u << i->mem.base | 1u << i->mem.index;
    }
    switch (i->op) {
    case OP_lea:
        return regs | 1u << i->mem.base | 1u << i->mem.index;
    case OP_leave:
        return regs | 1u << REG_RBP;
    case OP_movs:
    case OP_stos:
        return regs | wide | 1u << REG_RSI | 1u << REG_RDI;
    case OP_add:
    case OP_sub:
    case OP_cmp:
    case OP_and:
    case OP_or:
    case OP_xor:
    case OP_test:
    case OP_mov:
    case OP_movzx:
    case OP_movsx:
    case OP_movsxd:
    case OP_inc:
    case OP_dec:
    case OP_neg:
    case OP_not:
    case OP_push:
    case OP_pop:
    case OP_jcc:
    case OP_jmp:
    case OP_call:
    case OP_ret:
    case OP_nop:
    case OP_shl:
    case OP_shr:
    case OP_sar:
    case OP_rol:
    case OP_ror:
    case OP_cmovcc:
    case OP_setcc:
    case OP_bswap:
        return regs;
    case OP_imul:
        return i->nops > 1 ? regs : regs | wide;
    case OP_native:
        return i->flags & (INSN_GPR | INSN_X87 | INSN_MMX) ? regs | wide : regs;
    default:
        return regs | wide;
    }
}

/* A vector instruction with r14 or r15 as an operand cannot be told another register. */
static bool fixed_operand(const struct insn *i) {
    if (i->op != OP_native)
        return false;
    for (unsigned k = 0; k < i->nops; k++)
        if (i->opnd[k].kind == OPND_REG &&
            (i->opnd[k].reg == REG_R14 || i->opnd[k].reg == REG_R15))
            return true;
    return false;
}

void tr_borrow(struct tr *t) {
    uint32_t taken = 0;
    unsigned uses[2] = {0, 0};

    t->borrowed[0] = REG_R14;
    t->borrowed[1] = REG_R15;
    t->c->borrowed[0] = t->c->borrowed[1] = 0;
    if (!t->hot || !t->env->opt.borrow || KEY_MODE(t->key) != MODE_64)
        return;
    for (unsigned k = 0; k < t->n; k++) {
        uint32_t regs = used(&t->insn[k].i);

        if (fixed_operand(&t->insn[k].i))
            return;
        taken |= regs;
        uses[0] += regs >> REG_R14 & 1;
        uses[1] += regs >> REG_R15 & 1;
    }
    for (unsigned n = 0; n < 2; n++) {
        if (uses[n] < (tr_loops(t) ? 1 : WORTH_USES))
            continue;
        for (unsigned r = REG_RAX; r < REG_R14; r++) {
            if (taken >> r & 1)
                continue;
            taken |= 1u << r;
            t->borrowed[n] = (uint8_t)r;
            t->c->borrowed[n] = (uint8_t)(r + 1);
            break;
        }
    }
}

bool tr_borrows(const struct tr *t) {
    return t->c->borrowed[0] || t->c->borrowed[1];
}

void tr_borrow_swap(struct tr *t) {
    struct emit *e = &t->e;

    for (unsigned n = 0; n < 2; n++) {
        if (!t->c->borrowed[n])
            continue;
        e_gs(e, W64, OPC_MOV_R_RM, T1, GS_GPR(REG_R14 + n));
        e_gs(e, W64, OPC_MOV_RM_R, t->borrowed[n], GS_GPR(REG_R14 + n));
        e_mov_rr(e, W64, t->borrowed[n], T1);
    }
}

void tr_give_back(struct vcpu *v, const struct tr_code *c) {
    for (unsigned n = 0; n < 2; n++) {
        unsigned r = c->borrowed[n] - 1u;
        uint64_t held;

        if (!c->borrowed[n])
            continue;
        held = v->gpr[r];
        v->gpr[r] = v->gpr[REG_R14 + n];
        v->gpr[REG_R14 + n] = held;
    }
}
