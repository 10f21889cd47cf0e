/*
 * What each operation is to the translator: one table, which says how it is expanded, or
 * that it is left to C; and what is known of an instruction before it is translated.
 */
#include "tr/tr_int.h"

/* The pointers that the vCPU has are to be 0 then, which sem/native.c sees to. */
static bool is_fninit(const struct insn *i) {
    return i->len >= 2 && i->bytes[i->len - 2] == 0xdb && i->bytes[i->len - 1] == 0xe3;
}

bool tr_native_ok(const struct tr *t, const struct insn *i) {
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

bool tr_division_faults(const struct tr *t, const struct insn *i) {
    uint64_t va = container_of(i, const struct tu_insn, i)->va;

    return t->env->advice->division_faults(t->env->arg, va);
}

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

static const uint8_t classes[OP_COUNT] = {
    [OP_movs] = CLASS_STRING,
    [OP_stos] = CLASS_STRING,
    [OP_native] = CLASS_IDENT,
    [OP_add] = CLASS_IDENT,
    [OP_adc] = CLASS_IDENT,
    [OP_sub] = CLASS_IDENT,
    [OP_sbb] = CLASS_IDENT,
    [OP_cmp] = CLASS_IDENT,
    [OP_and] = CLASS_IDENT,
    [OP_or] = CLASS_IDENT,
    [OP_xor] = CLASS_IDENT,
    [OP_test] = CLASS_IDENT,
    [OP_inc] = CLASS_IDENT,
    [OP_dec] = CLASS_IDENT,
    [OP_neg] = CLASS_IDENT,
    [OP_not] = CLASS_IDENT,
    [OP_adcx] = CLASS_IDENT,
    [OP_adox] = CLASS_IDENT,
    [OP_andn] = CLASS_IDENT,
    [OP_mul] = CLASS_IDENT,
    [OP_imul] = CLASS_IDENT,
    [OP_div] = CLASS_DIV,
    [OP_idiv] = CLASS_DIV,
    [OP_mulx] = CLASS_IDENT,
    [OP_cmpxchg] = CLASS_IDENT,
    [OP_cmpxchg8b] = CLASS_IDENT,
    [OP_cmpxchg16b] = CLASS_IDENT,
    [OP_xadd] = CLASS_IDENT,
    [OP_rol] = CLASS_IDENT,
    [OP_ror] = CLASS_IDENT,
    [OP_rcl] = CLASS_IDENT,
    [OP_rcr] = CLASS_IDENT,
    [OP_shl] = CLASS_IDENT,
    [OP_shr] = CLASS_IDENT,
    [OP_sar] = CLASS_IDENT,
    [OP_shld] = CLASS_IDENT,
    [OP_shrd] = CLASS_IDENT,
    [OP_rorx] = CLASS_IDENT,
    [OP_sarx] = CLASS_IDENT,
    [OP_shlx] = CLASS_IDENT,
    [OP_shrx] = CLASS_IDENT,
    [OP_bt] = CLASS_BIT,
    [OP_bts] = CLASS_BIT,
    [OP_btr] = CLASS_BIT,
    [OP_btc] = CLASS_BIT,
    [OP_bsf] = CLASS_IDENT,
    [OP_bsr] = CLASS_IDENT,
    [OP_popcnt] = CLASS_IDENT,
    [OP_lzcnt] = CLASS_IDENT,
    [OP_tzcnt] = CLASS_IDENT,
    [OP_bextr] = CLASS_IDENT,
    [OP_blsi] = CLASS_IDENT,
    [OP_blsmsk] = CLASS_IDENT,
    [OP_blsr] = CLASS_IDENT,
    [OP_bzhi] = CLASS_IDENT,
    [OP_pdep] = CLASS_IDENT,
    [OP_pext] = CLASS_IDENT,
    [OP_crc32] = CLASS_IDENT,
    [OP_mov] = CLASS_IDENT,
    [OP_movzx] = CLASS_IDENT,
    [OP_movsx] = CLASS_IDENT,
    [OP_movsxd] = CLASS_IDENT,
    [OP_movbe] = CLASS_IDENT,
    [OP_movnti] = CLASS_IDENT,
    [OP_xchg] = CLASS_IDENT,
    [OP_bswap] = CLASS_IDENT,
    [OP_cmovcc] = CLASS_IDENT,
    [OP_setcc] = CLASS_IDENT,
    [OP_cbw] = CLASS_IDENT,
    [OP_cwde] = CLASS_IDENT,
    [OP_cdqe] = CLASS_IDENT,
    [OP_cwd] = CLASS_IDENT,
    [OP_cdq] = CLASS_IDENT,
    [OP_cqo] = CLASS_IDENT,
    [OP_lahf] = CLASS_IDENT,
    [OP_sahf] = CLASS_IDENT,
    [OP_clc] = CLASS_IDENT,
    [OP_stc] = CLASS_IDENT,
    [OP_cmc] = CLASS_IDENT,
    [OP_nop] = CLASS_NOP,
    [OP_lea] = CLASS_LEA,
    [OP_push] = CLASS_PUSH,
    [OP_pop] = CLASS_POP,
    [OP_leave] = CLASS_LEAVE,
    [OP_jmp] = CLASS_JMP,
    [OP_call] = CLASS_CALL,
    [OP_ret] = CLASS_RET,
    [OP_jcc] = CLASS_JCC,
    [OP_jcxz] = CLASS_JCXZ,
    [OP_loop] = CLASS_JCXZ,
    [OP_cli] = CLASS_CLI,
    [OP_sti] = CLASS_STI,
    [OP_cld] = CLASS_CLD,
    [OP_std] = CLASS_CLD,
    [OP_clac] = CLASS_CLAC,
    [OP_stac] = CLASS_CLAC,
    [OP_swapgs] = CLASS_SWAPGS,
    [OP_pushf] = CLASS_PUSHF,
    [OP_popf] = CLASS_POPF,
    [OP_mov_from_seg] = CLASS_MOV_FROM_SEG,
    [OP_mov_from_cr] = CLASS_MOV_FROM_CR,
    [OP_rdtsc] = CLASS_RDTSC,
    [OP_rdtscp] = CLASS_RDTSC,
};

static bool names_both(const struct tr *t, const struct insn *i) {
    unsigned named = 0;

    for (unsigned k = 0; k < i->nops; k++)
        if (i->opnd[k].kind == OPND_REG && tr_in_memory(t, i->opnd[k].reg))
            named |= 1u << (i->opnd[k].reg - REG_R14);
    /* Vector instructions keep r14 where it is: their other fields name other things. */
    return named == 3 || (i->op == OP_native && (named & 1));
}

/* Masked operands are not copied: the check would be of all their bytes. */
enum tr_class tr_class_of(const struct insn *i) {
    enum tr_class class = (enum tr_class)classes[i->op];

    if ((i->flags & INSN_MASKED) && !MUTANT(COPY_MASKED))
        return CLASS_CALLOUT;
    return class || !MUTANT(COPY_ALL) ? class : CLASS_IDENT;
}

static bool copy_keeps_t0(const struct tr *t, const struct insn *i) {
    if (!tr_ident_ok(t, i) || (i->op == OP_native && !tr_native_ok(t, i)))
        return false;
    return tr_has_mem(i) ? tr_mem_ok(t, i) : !names_both(t, i);
}

bool tr_keeps_t0(const struct tr *t, const struct insn *i) {
    if (i->flags & INSN_MASKED)
        return false;
    switch ((enum tr_class)classes[i->op]) {
    case CLASS_IDENT:
        return copy_keeps_t0(t, i);
    case CLASS_DIV:
        return !tr_division_faults(t, i) && copy_keeps_t0(t, i);
    case CLASS_CLD:
    case CLASS_NOP:
        return true;
    case CLASS_PUSH:
    case CLASS_POP:
        return tr_stack_ok(t, i) && !tr_has_mem(i) && i->opsize != 2;
    case CLASS_CALL:
        return tr_stack_ok(t, i) && tr_branch_ok(t, i) && tr_is_direct(i);
    case CLASS_RET:
        return tr_stack_ok(t, i) && tr_branch_ok(t, i);
    case CLASS_JMP:
        return tr_is_direct(i) && tr_branch_ok(t, i);
    case CLASS_JCC:
        return tr_branch_ok(t, i);
    case CLASS_LEA:
        return i->opsize != 2 && i->addrsize != 2 &&
               !(tr_in_memory(t, i->mem.base) && tr_in_memory(t, i->mem.index));
    default:
        return false;
    }
}
