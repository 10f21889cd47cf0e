/*
 * decode_host(), see host.h: what Zydis says of an instruction of emitted code, and the
 * lists of what may be there. The lists say what is allowed; they name neither what the
 * guest's CPU offers nor what the translator has expansions for.
 */
#include "decode/host.h"

#include <string.h>

#include <Zydis/Zydis.h>

#include "decode/decode_int.h"

#define M(name) ZYDIS_MNEMONIC_##name

/* What may be there besides vectors; the first part the checker looks at more closely. */
static const uint8_t allowed[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
    [M(MOV)] = HOST_MOV,
    [M(LEA)] = HOST_LEA,
    [M(ADD)] = HOST_ADD,
    [M(SUB)] = HOST_SUB,
    [M(CMP)] = HOST_CMP,
    [M(AND)] = HOST_AND,
    [M(OR)] = HOST_OR,
    [M(XOR)] = HOST_XOR,
    [M(SHL)] = HOST_SHL,
    [M(SHR)] = HOST_SHR,
    [M(RORX)] = HOST_RORX,
    [M(MOVZX)] = HOST_MOVZX,
    [M(NEG)] = HOST_NEG,
    [M(RDTSC)] = HOST_RDTSC,
    [M(JMP)] = HOST_JMP,
    [M(JRCXZ)] = HOST_JRCXZ,
    [M(JECXZ)] = HOST_JRCXZ,
    [M(MOVSB)] = HOST_MOVS,
    [M(MOVSW)] = HOST_MOVS,
    [M(MOVSD)] = HOST_MOVS,
    [M(MOVSQ)] = HOST_MOVS,
    [M(STOSB)] = HOST_STOS,
    [M(STOSW)] = HOST_STOS,
    [M(STOSD)] = HOST_STOS,
    [M(STOSQ)] = HOST_STOS,
    [M(JO)] = HOST_JCC,
    [M(JNO)] = HOST_JCC,
    [M(JB)] = HOST_JCC,
    [M(JNB)] = HOST_JCC,
    [M(JZ)] = HOST_JCC,
    [M(JNZ)] = HOST_JCC,
    [M(JBE)] = HOST_JCC,
    [M(JNBE)] = HOST_JCC,
    [M(JS)] = HOST_JCC,
    [M(JNS)] = HOST_JCC,
    [M(JP)] = HOST_JCC,
    [M(JNP)] = HOST_JCC,
    [M(JL)] = HOST_JCC,
    [M(JNL)] = HOST_JCC,
    [M(JLE)] = HOST_JCC,
    [M(JNLE)] = HOST_JCC,

    /* arithmetic and moves on general registers and one memory operand */
    [M(ADC)] = HOST_PLAIN,
    [M(SBB)] = HOST_PLAIN,
    [M(TEST)] = HOST_TEST,
    [M(INC)] = HOST_PLAIN,
    [M(DEC)] = HOST_PLAIN,
    [M(NOT)] = HOST_PLAIN,
    [M(ADCX)] = HOST_PLAIN,
    [M(ADOX)] = HOST_PLAIN,
    [M(ANDN)] = HOST_PLAIN,
    [M(MUL)] = HOST_PLAIN,
    [M(IMUL)] = HOST_PLAIN,
    [M(DIV)] = HOST_PLAIN,
    [M(IDIV)] = HOST_PLAIN,
    [M(MULX)] = HOST_PLAIN,
    [M(CMPXCHG)] = HOST_PLAIN,
    [M(CMPXCHG8B)] = HOST_PLAIN,
    [M(XADD)] = HOST_PLAIN,
    [M(ROL)] = HOST_PLAIN,
    [M(ROR)] = HOST_PLAIN,
    [M(RCL)] = HOST_PLAIN,
    [M(RCR)] = HOST_PLAIN,
    [M(CMPXCHG16B)] = HOST_PLAIN,
    [M(SAR)] = HOST_PLAIN,
    [M(SHLD)] = HOST_PLAIN,
    [M(SHRD)] = HOST_PLAIN,
    [M(SARX)] = HOST_PLAIN,
    [M(SHLX)] = HOST_PLAIN,
    [M(SHRX)] = HOST_PLAIN,
    [M(BT)] = HOST_PLAIN,
    [M(BTS)] = HOST_PLAIN,
    [M(BTR)] = HOST_PLAIN,
    [M(BTC)] = HOST_PLAIN,
    [M(BSF)] = HOST_PLAIN,
    [M(BSR)] = HOST_PLAIN,
    [M(POPCNT)] = HOST_PLAIN,
    [M(LZCNT)] = HOST_PLAIN,
    [M(TZCNT)] = HOST_PLAIN,
    [M(BEXTR)] = HOST_PLAIN,
    [M(BLSI)] = HOST_PLAIN,
    [M(BLSMSK)] = HOST_PLAIN,
    [M(BLSR)] = HOST_PLAIN,
    [M(BZHI)] = HOST_PLAIN,
    [M(PDEP)] = HOST_PLAIN,
    [M(PEXT)] = HOST_PLAIN,
    [M(CRC32)] = HOST_PLAIN,
    [M(MOVSX)] = HOST_PLAIN,
    [M(MOVSXD)] = HOST_PLAIN,
    [M(MOVBE)] = HOST_PLAIN,
    [M(MOVNTI)] = HOST_PLAIN,
    [M(XCHG)] = HOST_PLAIN,
    [M(BSWAP)] = HOST_PLAIN,
    [M(CBW)] = HOST_PLAIN,
    [M(CWDE)] = HOST_PLAIN,
    [M(CDQE)] = HOST_PLAIN,
    [M(CWD)] = HOST_PLAIN,
    [M(CDQ)] = HOST_PLAIN,
    [M(CQO)] = HOST_PLAIN,
    [M(LAHF)] = HOST_PLAIN,
    [M(SAHF)] = HOST_PLAIN,
    [M(CLC)] = HOST_PLAIN,
    [M(STC)] = HOST_PLAIN,
    [M(CMC)] = HOST_PLAIN,
    [M(NOP)] = HOST_PLAIN,
    [M(PAUSE)] = HOST_PLAIN,
    [M(LFENCE)] = HOST_PLAIN,
    [M(MFENCE)] = HOST_PLAIN,
    [M(SFENCE)] = HOST_PLAIN,
    [M(CMOVO)] = HOST_PLAIN,
    [M(CMOVNO)] = HOST_PLAIN,
    [M(CMOVB)] = HOST_PLAIN,
    [M(CMOVNB)] = HOST_PLAIN,
    [M(CMOVZ)] = HOST_PLAIN,
    [M(CMOVNZ)] = HOST_PLAIN,
    [M(CMOVBE)] = HOST_PLAIN,
    [M(CMOVNBE)] = HOST_PLAIN,
    [M(CMOVS)] = HOST_PLAIN,
    [M(CMOVP)] = HOST_PLAIN,
    [M(CMOVNS)] = HOST_PLAIN,
    [M(CMOVNP)] = HOST_PLAIN,
    [M(CMOVL)] = HOST_PLAIN,
    [M(CMOVNL)] = HOST_PLAIN,
    [M(CMOVLE)] = HOST_PLAIN,
    [M(CMOVNLE)] = HOST_PLAIN,
    [M(SETO)] = HOST_PLAIN,
    [M(SETNO)] = HOST_PLAIN,
    [M(SETB)] = HOST_PLAIN,
    [M(SETNB)] = HOST_PLAIN,
    [M(SETZ)] = HOST_PLAIN,
    [M(SETNZ)] = HOST_PLAIN,
    [M(SETBE)] = HOST_PLAIN,
    [M(SETS)] = HOST_PLAIN,
    [M(SETNBE)] = HOST_PLAIN,
    [M(SETNS)] = HOST_PLAIN,
    [M(SETP)] = HOST_PLAIN,
    [M(SETNP)] = HOST_PLAIN,
    [M(SETL)] = HOST_PLAIN,
    [M(SETNL)] = HOST_PLAIN,
    [M(SETLE)] = HOST_PLAIN,
    [M(SETNLE)] = HOST_PLAIN,
};

/* An extension of AVX-512, at every length of vectors. */
#define AVX512(isa)                                                                      \
    [ZYDIS_ISA_SET_##isa##_128] = true, [ZYDIS_ISA_SET_##isa##_256] = true,              \
    [ZYDIS_ISA_SET_##isa##_512] = true

/* Everything in these extensions, but for what is in `not_vector`. */
static const bool vector_sets[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
    [ZYDIS_ISA_SET_X87] = true,
    [ZYDIS_ISA_SET_FCMOV] = true,
    [ZYDIS_ISA_SET_PENTIUMMMX] = true,
    [ZYDIS_ISA_SET_SSE] = true,
    [ZYDIS_ISA_SET_SSE2] = true,
    [ZYDIS_ISA_SET_SSE2MMX] = true,
    [ZYDIS_ISA_SET_SSEMXCSR] = true,
    [ZYDIS_ISA_SET_SSE3] = true,
    [ZYDIS_ISA_SET_SSE3X87] = true,
    [ZYDIS_ISA_SET_SSSE3] = true,
    [ZYDIS_ISA_SET_SSSE3MMX] = true,
    [ZYDIS_ISA_SET_SSE4] = true,
    [ZYDIS_ISA_SET_SSE42] = true,
    [ZYDIS_ISA_SET_SSE4A] = true,
    [ZYDIS_ISA_SET_AES] = true,
    [ZYDIS_ISA_SET_PCLMULQDQ] = true,
    [ZYDIS_ISA_SET_SHA] = true,
    [ZYDIS_ISA_SET_GFNI] = true,
    [ZYDIS_ISA_SET_AVX] = true,
    [ZYDIS_ISA_SET_AVX2] = true,
    [ZYDIS_ISA_SET_AVX2GATHER] = true,
    [ZYDIS_ISA_SET_AVXAES] = true,
    [ZYDIS_ISA_SET_AVX_GFNI] = true,
    [ZYDIS_ISA_SET_F16C] = true,
    [ZYDIS_ISA_SET_FMA] = true,
    [ZYDIS_ISA_SET_VPCLMULQDQ] = true,
    [ZYDIS_ISA_SET_VAES] = true,
    [ZYDIS_ISA_SET_AVX_VNNI] = true,
    AVX512(AVX512F),
    AVX512(AVX512BW),
    AVX512(AVX512CD),
    AVX512(AVX512DQ),
    AVX512(AVX512_BF16),
    AVX512(AVX512_BITALG),
    AVX512(AVX512_FP16),
    AVX512(AVX512_GFNI),
    AVX512(AVX512_IFMA),
    AVX512(AVX512_VAES),
    AVX512(AVX512_VBMI),
    AVX512(AVX512_VBMI2),
    AVX512(AVX512_VNNI),
    AVX512(AVX512_VP2INTERSECT),
    AVX512(AVX512_VPCLMULQDQ),
    AVX512(AVX512_VPOPCNTDQ),
    [ZYDIS_ISA_SET_AVX512F_128N] = true,
    [ZYDIS_ISA_SET_AVX512F_SCALAR] = true,
    [ZYDIS_ISA_SET_AVX512F_KOP] = true,
    [ZYDIS_ISA_SET_AVX512BW_128N] = true,
    [ZYDIS_ISA_SET_AVX512BW_KOP] = true,
    [ZYDIS_ISA_SET_AVX512DQ_128N] = true,
    [ZYDIS_ISA_SET_AVX512DQ_SCALAR] = true,
    [ZYDIS_ISA_SET_AVX512DQ_KOP] = true,
    [ZYDIS_ISA_SET_AVX512_FP16_128N] = true,
    [ZYDIS_ISA_SET_AVX512_FP16_SCALAR] = true,
};

/* x87 environments and states name the host's addresses, and byte masks go to [rDI]. */
static const bool not_vector[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
    [M(FNSAVE)] = true,     [M(FNSTENV)] = true,     [M(FRSTOR)] = true,
    [M(FLDENV)] = true,     [M(FWAIT)] = true,       [M(MASKMOVQ)] = true,
    [M(MASKMOVDQU)] = true, [M(VMASKMOVDQU)] = true,
};

static bool is_x87(const ZydisDecodedInstruction *zi) {
    return zi->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
           zi->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (zi->opcode & 0xf8) == 0xd8;
}

static uint8_t classify(const ZydisDecodedInstruction *zi) {
    if (zi->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
        return vector_sets[zi->meta.isa_set] ? HOST_VECTOR : HOST_FORBIDDEN;
    if (zi->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
        zi->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return HOST_FORBIDDEN;
    /* MOVSD names a string and an SSE2 instruction; Zydis files some of the x87's under
     * the CPU that brought them. */
    if (is_x87(zi) || vector_sets[zi->meta.isa_set])
        return not_vector[zi->mnemonic] ? HOST_FORBIDDEN : HOST_VECTOR;
    return allowed[zi->mnemonic];
}

static uint8_t number(ZydisRegister r) {
    if (r == ZYDIS_REGISTER_NONE)
        return HOST_NONE;
    return r == ZYDIS_REGISTER_RIP ? HOST_RIP : (uint8_t)ZydisRegisterGetId(r);
}

static bool is_general(ZydisRegister r) {
    return r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_R15;
}

/* The operand of a register that is neither general nor may be touched: false. */
static bool take_register(const ZydisDecodedOperand *zo, struct host_operand *o) {
    ZydisRegister r = zo->reg.value;

    if (is_general(r)) {
        bool high = r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH;

        o->kind = HOST_REG;
        o->high = high;
        o->reg =
            (uint8_t)(high ? r - ZYDIS_REGISTER_AH
                           : (ZyanU16)ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(
                                 ZYDIS_MACHINE_MODE_LONG_64, r)));
        return true;
    }
    if (r == ZYDIS_REGISTER_RFLAGS || r == ZYDIS_REGISTER_EFLAGS ||
        r == ZYDIS_REGISTER_FLAGS || r == ZYDIS_REGISTER_RIP) {
        o->kind = HOST_FLAGS;
        return true;
    }
    o->kind = HOST_VEC;
    switch (ZydisRegisterGetClass(r)) {
    case ZYDIS_REGCLASS_X87:
    case ZYDIS_REGCLASS_MMX:
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_ZMM:
    case ZYDIS_REGCLASS_MASK:
        return true;
    default:
        return r == ZYDIS_REGISTER_MXCSR || r == ZYDIS_REGISTER_X87CONTROL ||
               r == ZYDIS_REGISTER_X87STATUS || r == ZYDIS_REGISTER_X87TAG;
    }
}

static void take_memory(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *zo,
                        const struct host_operand *o, struct host_insn *i) {
    const bool agen = zo->mem.type == ZYDIS_MEMOP_TYPE_AGEN;
    ZydisRegister index = zo->mem.index;

    i->mem = (struct host_mem){
        .base = number(zo->mem.base),
        .index = number(index),
        .scale = (uint8_t)(zo->mem.scale ? __builtin_ctz(zo->mem.scale) : 0),
        .seg = zo->mem.segment == ZYDIS_REGISTER_FS   ? 'f'
               : zo->mem.segment == ZYDIS_REGISTER_GS ? 'g'
                                                      : 0,
        .access = agen ? 0 : o->access,
        .vector_index = index != ZYDIS_REGISTER_NONE && !is_general(index),
        .size = agen ? 0 : o->size,
        .disp = zo->mem.disp.value,
    };
    if (i->mem.base == HOST_RIP)
        i->mem.disp += zi->length;
}

/* To 16 bits, MOVSXD reads as many on Intel's CPUs (normalize_movsxd()). */
static uint16_t operand_size(const ZydisDecodedInstruction *zi,
                             const ZydisDecodedOperand *zo) {
    if (zi->mnemonic == M(MOVSXD) && zi->operand_width == 16 && !decode_host_is_amd())
        return 2;
    return (uint16_t)(zo->size / 8);
}

static bool take_operand(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *zo,
                         struct host_insn *i) {
    struct host_operand *o = &i->opnd[i->nops++];

    o->size = operand_size(zi, zo);
    if (zo->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
        o->access |= HOST_READ;
    if (zo->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
        o->access |= HOST_WRITE;
    switch (zo->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        return take_register(zo, o);
    case ZYDIS_OPERAND_TYPE_MEMORY:
        o->kind = HOST_MEM;
        take_memory(zi, zo, o, i);
        return true;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        o->kind = HOST_IMM;
        i->imm = zo->imm.value.s;
        return true;
    default:
        return false;
    }
}

static unsigned memory_operands(const struct host_insn *i) {
    unsigned n = 0;

    for (unsigned k = 0; k < i->nops; k++)
        n += i->opnd[k].kind == HOST_MEM;
    return n;
}

/* BT and kin: with the offset in a register the bit may lie far from the operand. */
static bool bit_string(const ZydisDecodedInstruction *zi, const struct host_insn *i) {
    return (zi->mnemonic == M(BT) || zi->mnemonic == M(BTS) || zi->mnemonic == M(BTR) ||
            zi->mnemonic == M(BTC)) &&
           i->opnd[0].kind == HOST_MEM && i->opnd[1].kind == HOST_REG;
}

/* Only selected elements of the memory operand count, and its size is not what is
 * accessed. */
static bool masked(const ZydisDecodedInstruction *zi, const struct host_insn *i) {
    return zi->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && memory_operands(i) &&
           zi->avx.mask.reg != ZYDIS_REGISTER_NONE &&
           zi->avx.mask.reg != ZYDIS_REGISTER_K0;
}

/* Flags other than those of arithmetic are changed. */
static bool other_flags(const ZydisDecodedInstruction *zi) {
    const unsigned status = ZYDIS_CPUFLAG_CF | ZYDIS_CPUFLAG_PF | ZYDIS_CPUFLAG_AF |
                            ZYDIS_CPUFLAG_ZF | ZYDIS_CPUFLAG_SF | ZYDIS_CPUFLAG_OF;
    const ZydisAccessedFlags *f = zi->cpu_flags;

    return f && ((f->modified | f->set_0 | f->set_1 | f->undefined) & ~status);
}

static void take_branch(const ZydisDecodedInstruction *zi, struct host_insn *i) {
    bool branch = i->op == HOST_JMP || i->op == HOST_JCC || i->op == HOST_JRCXZ;

    if (i->op == HOST_JCC)
        i->cond = zi->opcode & 15;
    i->direct = branch && i->opnd[0].kind == HOST_IMM;
    if (i->direct)
        i->target = i->imm + zi->length;
    if (zi->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        i->op = HOST_FORBIDDEN;
}

bool decode_host(const uint8_t *bytes, size_t len, struct host_insn *i) {
    ZydisDecodedOperand zops[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecodedInstruction zi;
    ZydisDecoder d;

    memset(i, 0, sizeof(*i));
    i->mem.base = i->mem.index = HOST_NONE;
    if (!ZYAN_SUCCESS(
            ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)) ||
        !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, bytes, len < 15 ? len : 15, &zi, zops)))
        return false;
    i->len = zi.length;
    i->addrsize = (uint8_t)(zi.address_width / 8);
    i->op = classify(&zi);
    i->rep = zi.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE);
    i->repne = zi.attributes & ZYDIS_ATTRIB_HAS_REPNE;
    i->flags = zi.cpu_flags && (zi.cpu_flags->modified | zi.cpu_flags->set_0 |
                                zi.cpu_flags->set_1 | zi.cpu_flags->undefined);
    for (unsigned k = 0; k < zi.operand_count; k++)
        if (!take_operand(&zi, &zops[k], i))
            i->op = HOST_FORBIDDEN;
    take_branch(&zi, i);
    if (other_flags(&zi) || bit_string(&zi, i) || masked(&zi, i) ||
        (memory_operands(i) > 1 && i->op != HOST_MOVS))
        i->op = HOST_FORBIDDEN;
    return true;
}
