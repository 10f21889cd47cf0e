/*
 * The operand conventions at the head of decode/insn.h: what differs from the operands
 * that Zydis lists, and what follows from them (operand size, condition, REP, flags).
 *
 * In and out: i->op from decode_ops[], i->opnd[] as Zydis shows them.
 */
#include "decode/decode_int.h"

static void drop_operands(struct insn *i) {
    __builtin_memset(i->opnd, 0, sizeof(i->opnd));
    i->nops = 0;
}

/*
 * In 64-bit mode near branches are 64 bits wide; AMD lets a 66 prefix make them 16,
 * Intel ignores it. AMD64 APM volume 3, "Operand-Size Override Prefix"; Intel SDM volume
 * 2, "JMP".
 */
static void near_branch_size(const struct decode_prefixes *p, struct insn *i) {
    if (i->mode != MODE_64)
        return;
    bool narrow = p->opsize && !(p->rex & 8) && decode_host_is_amd();
    i->opsize = narrow ? 2 : 8;
}

/* On AMD's CPUs the last of F2 and F3 says which of LOOPNE and LOOPE it is. */
static void loop_condition(const struct decode_prefixes *p, struct insn *i) {
    if (p->rep && (i->op == OP_loope || i->op == OP_loopne) && decode_host_is_amd())
        i->op = p->rep == 0xf2 ? OP_loopne : OP_loope;
}

static void branch_target(const struct decode_prefixes *p, struct insn *i) {
    near_branch_size(p, i);
    loop_condition(p, i);
    if (i->nops && i->opnd[0].kind == OPND_IMM)
        drop_operands(i); /* imm stays */
    else if (i->nops && i->opnd[0].kind == OPND_REG)
        i->opnd[0].size = i->opsize;
    else if (i->nops)
        i->opnd[0].size = i->mem.size = i->opsize;
}

/* The CPUs of AMD know no 16:64 pointers: REX.W does not widen them. */
static uint8_t far_offset_size(const struct insn *i) {
    return i->opsize == 8 && decode_host_is_amd() ? 4 : i->opsize;
}

/* The operand size stays: of a call, it is what is pushed. */
static void far_pointer_size(struct insn *i) {
    for (unsigned n = 0; n < i->nops; n++) {
        if (i->opnd[n].kind == OPND_MEM)
            i->opnd[n].size = i->mem.size = (uint8_t)(far_offset_size(i) + 2);
    }
}

static void normalize_jmpcall(const struct decode_prefixes *p,
                              const ZydisDecodedInstruction *zi, struct insn *i) {
    if (zi->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR) {
        branch_target(p, i);
        return;
    }
    i->op = i->op == OP_jmp ? OP_jmp_far : OP_call_far;
    if (i->opnd[0].kind == OPND_MEM)
        far_pointer_size(i);
    else
        drop_operands(i);
}

/* MOV to SS delays interrupts and may change the stack's width. */
static void ss_load(struct insn *i, unsigned seg) {
    if (seg == SEG_SS)
        i->flags |= INSN_ENDS_BLOCK;
}

/* With a 16-bit destination Intel's CPUs read 16 bits: a plain MOV. Intel SDM volume 2,
 * "MOVSX/MOVSXD". */
static void normalize_movsxd(struct insn *i) {
    if (i->opsize != 2 || decode_host_is_amd())
        return;
    i->op = OP_mov;
    i->opnd[1].size = 2;
    if (i->opnd[1].kind == OPND_MEM)
        i->mem.size = 2;
}

static void normalize_mov(struct insn *i) {
    const struct operand *dst = &i->opnd[0], *src = &i->opnd[1];
    uint8_t width = i->mode == MODE_64 ? 8 : 4;
    if (dst->kind == OPND_SEG) {
        i->op = OP_mov_to_seg;
        ss_load(i, dst->reg);
    } else if (src->kind == OPND_SEG) {
        i->op = OP_mov_from_seg;
    } else if (dst->kind == OPND_CR || dst->kind == OPND_DR) {
        i->op = dst->kind == OPND_CR ? OP_mov_to_cr : OP_mov_to_dr;
        i->flags |= INSN_PRIVILEGED | INSN_ENDS_BLOCK;
        i->opsize = i->opnd[0].size = i->opnd[1].size = width;
    } else if (src->kind == OPND_CR || src->kind == OPND_DR) {
        i->op = src->kind == OPND_CR ? OP_mov_from_cr : OP_mov_from_dr;
        i->flags |= INSN_PRIVILEGED;
        i->opsize = i->opnd[0].size = i->opnd[1].size = width;
    }
}

static void normalize_pushpop(struct insn *i) {
    if (i->opnd[0].kind != OPND_SEG)
        return;
    i->op = i->op == OP_push ? OP_push_seg : OP_pop_seg;
    if (i->op == OP_pop_seg)
        ss_load(i, i->opnd[0].reg);
}

static void normalize_segload(const ZydisDecodedInstruction *zi, struct insn *i) {
    static const struct {
        uint16_t mnemonic;
        uint8_t seg;
    } loads[] = {{ZYDIS_MNEMONIC_LDS, SEG_DS},
                 {ZYDIS_MNEMONIC_LES, SEG_ES},
                 {ZYDIS_MNEMONIC_LFS, SEG_FS},
                 {ZYDIS_MNEMONIC_LGS, SEG_GS},
                 {ZYDIS_MNEMONIC_LSS, SEG_SS}};
    i->opsize = far_offset_size(i);
    far_pointer_size(i);
    i->opnd[0].size = i->opsize;
    for (size_t n = 0; n < ARRAY_SIZE(loads); n++) {
        if (loads[n].mnemonic != (unsigned)zi->mnemonic)
            continue;
        i->opnd[2] = (struct operand){
            .kind = OPND_SEG, .size = 2, .reg = loads[n].seg, .access = OPND_WRITE};
        i->nops = 3;
        ss_load(i, loads[n].seg);
    }
}

/* A memory operand that no ModRM byte names. */
static void fixed_mem(const struct decode_prefixes *p, struct insn *i, uint8_t base,
                      uint8_t size, uint8_t access) {
    i->mem = (struct mem_operand){.base = base,
                                  .index = REG_ZERO,
                                  .seg = p->seg >= 0 ? (uint8_t)p->seg : SEG_DS,
                                  .size = size,
                                  .access = access};
    i->flags |= INSN_NO_MODRM_MEM;
}

/* A string operation of count zero changes nothing: the flags pass through. */
static void flags_pass_through(struct insn *i) {
    i->fl_read |= i->fl_written | i->fl_undefined;
}

static void normalize_string(bool src, const struct decode_prefixes *p, struct insn *i) {
    bool compares = i->op == OP_cmps || i->op == OP_scas;
    drop_operands(i);
    if (src) {
        fixed_mem(p, i, REG_RSI, i->opsize, OPND_READ);
    } else {
        fixed_mem(p, i, REG_RDI, i->opsize, i->op == OP_scas ? OPND_READ : OPND_WRITE);
        i->mem.seg = SEG_ES;
    }
    if (p->rep)
        i->rep = compares && p->rep == 0xf2 ? REP_REPNE : REP_REPE;
    if (compares && p->rep)
        flags_pass_through(i);
}

static void normalize_shift(struct insn *i) {
    const struct operand *count = &i->opnd[i->nops - 1];
    uint64_t mask = i->opsize == 8 ? 63 : 31;
    if (count->kind == OPND_REG || ((uint64_t)i->imm & mask) == 0)
        flags_pass_through(i);
}

void decode_normalize(enum decode_norm norm, const struct decode_prefixes *p,
                      const ZydisDecodedInstruction *zi, struct insn *i) {
    switch (norm) {
    case NORM_PLAIN:
        break;
    case NORM_NONE:
        drop_operands(i);
        i->flags |= INSN_NO_MODRM_MEM;
        break;
    case NORM_NOMEM:
        for (unsigned n = 0; n < i->nops; n++) {
            if (i->opnd[n].kind == OPND_MEM)
                i->opnd[n].size = i->opnd[n].access = 0;
        }
        i->mem.size = i->mem.access = 0;
        break;
    case NORM_BRANCH:
        branch_target(p, i);
        break;
    case NORM_JMPCALL:
        normalize_jmpcall(p, zi, i);
        break;
    case NORM_RET:
        if (zi->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
            i->op = OP_ret_far;
        else
            near_branch_size(p, i);
        i->imm &= 0xffff;
        break;
    case NORM_MOV:
        normalize_mov(i);
        break;
    case NORM_PUSHPOP:
        normalize_pushpop(i);
        break;
    case NORM_SEGLOAD:
        normalize_segload(zi, i);
        break;
    case NORM_ENTER:
        drop_operands(i);
        i->imm = (uint16_t)zi->raw.imm[0].value.u;
        i->imm2 = (uint8_t)zi->raw.imm[1].value.u;
        i->far_sel = (uint16_t)i->imm2;
        break;
    case NORM_STRING_SRC:
        normalize_string(true, p, i);
        break;
    case NORM_STRING_DST:
        normalize_string(false, p, i);
        break;
    case NORM_AT_RAX:
        drop_operands(i);
        if (i->op == OP_clzero)
            fixed_mem(p, i, REG_RAX, 64, OPND_WRITE);
        else
            fixed_mem(p, i, REG_RAX, 1, OPND_READ);
        break;
    case NORM_AT_RBX:
        drop_operands(i);
        fixed_mem(p, i, REG_RBX, 1, OPND_READ);
        i->opsize = 1;
        break;
    case NORM_AT_RDI:
        fixed_mem(p, i, REG_RDI, i->opnd[0].size, OPND_WRITE);
        break;
    case NORM_CC:
        i->cond = zi->opcode & 15;
        break;
    case NORM_SHIFT:
        normalize_shift(i);
        break;
    case NORM_CRC32:
        i->opsize = i->opnd[1].size;
        break;
    case NORM_MOVSXD:
        normalize_movsxd(i);
        break;
    }
    if (i->op == OP_jcc)
        i->cond = zi->opcode & 15;
}
