/*
 * decode_host(), see host.h: what Zydis says of an instruction of emitted code, and the
 * lists of what may be there. The lists say what is allowed; they name neither what the
 * guest's CPU offers nor what the translator has expansions for.
 */
#include "decode/host.h"

#include <string.h>

#include <Zydis/Zydis.h>

#define M(name) ZYDIS_MNEMONIC_##name

/* What the checker looks at more closely. */
static const struct {
    uint16_t mnemonic;
    uint8_t op;
} special[] = {
    {M(MOV), HOST_MOV},     {M(LEA), HOST_LEA},     {M(ADD), HOST_ADD},
    {M(SUB), HOST_SUB},     {M(CMP), HOST_CMP},     {M(AND), HOST_AND},
    {M(OR), HOST_OR},       {M(XOR), HOST_XOR},     {M(SHL), HOST_SHL},
    {M(SHR), HOST_SHR},     {M(RORX), HOST_RORX},   {M(MOVZX), HOST_MOVZX},
    {M(NEG), HOST_NEG},     {M(RDTSC), HOST_RDTSC}, {M(JMP), HOST_JMP},
    {M(JRCXZ), HOST_JRCXZ}, {M(JECXZ), HOST_JRCXZ}, {M(MOVSB), HOST_MOVS},
    {M(MOVSW), HOST_MOVS},  {M(MOVSD), HOST_MOVS},  {M(MOVSQ), HOST_MOVS},
    {M(STOSB), HOST_STOS},  {M(STOSW), HOST_STOS},  {M(STOSD), HOST_STOS},
    {M(STOSQ), HOST_STOS},  {M(JO), HOST_JCC},      {M(JNO), HOST_JCC},
    {M(JB), HOST_JCC},      {M(JNB), HOST_JCC},     {M(JZ), HOST_JCC},
    {M(JNZ), HOST_JCC},     {M(JBE), HOST_JCC},     {M(JNBE), HOST_JCC},
    {M(JS), HOST_JCC},      {M(JNS), HOST_JCC},     {M(JP), HOST_JCC},
    {M(JNP), HOST_JCC},     {M(JL), HOST_JCC},      {M(JNL), HOST_JCC},
    {M(JLE), HOST_JCC},     {M(JNLE), HOST_JCC},
};

/* Arithmetic and moves on general registers and one memory operand. */
static const uint16_t plain[] = {
    M(ADC),        M(SBB),       M(TEST),  M(INC),    M(DEC),    M(NOT),    M(ADCX),
    M(ADOX),       M(ANDN),      M(MUL),   M(IMUL),   M(DIV),    M(IDIV),   M(MULX),
    M(CMPXCHG),    M(CMPXCHG8B), M(XADD),  M(ROL),    M(ROR),    M(RCL),    M(RCR),
    M(CMPXCHG16B), M(SAR),       M(SHLD),  M(SHRD),   M(SARX),   M(SHLX),   M(SHRX),
    M(BT),         M(BTS),       M(BTR),   M(BTC),    M(BSF),    M(BSR),    M(POPCNT),
    M(LZCNT),      M(TZCNT),     M(BEXTR), M(BLSI),   M(BLSMSK), M(BLSR),   M(BZHI),
    M(PDEP),       M(PEXT),      M(CRC32), M(MOVSX),  M(MOVSXD), M(MOVBE),  M(MOVNTI),
    M(XCHG),       M(BSWAP),     M(CBW),   M(CWDE),   M(CDQE),   M(CWD),    M(CDQ),
    M(CQO),        M(LAHF),      M(SAHF),  M(CLC),    M(STC),    M(CMC),    M(NOP),
    M(CMOVO),      M(CMOVNO),    M(CMOVB), M(CMOVNB), M(CMOVZ),  M(CMOVNZ), M(CMOVBE),
    M(CMOVNBE),    M(CMOVS),     M(CMOVP), M(CMOVNS), M(CMOVNP), M(CMOVL),  M(CMOVNL),
    M(CMOVLE),     M(CMOVNLE),   M(SETO),  M(SETNO),  M(SETB),   M(SETNB),  M(SETZ),
    M(SETNZ),      M(SETBE),     M(SETS),  M(SETNBE), M(SETNS),  M(SETP),   M(SETNP),
    M(SETL),       M(SETNL),     M(SETLE), M(SETNLE),
};

/* Everything in these extensions, but for what is in `not_vector`. */
static const uint16_t vector_sets[] = {
    ZYDIS_ISA_SET_X87,       ZYDIS_ISA_SET_FCMOV,      ZYDIS_ISA_SET_PENTIUMMMX,
    ZYDIS_ISA_SET_SSE,       ZYDIS_ISA_SET_SSE2,       ZYDIS_ISA_SET_SSE2MMX,
    ZYDIS_ISA_SET_SSEMXCSR,  ZYDIS_ISA_SET_SSE3,       ZYDIS_ISA_SET_SSE3X87,
    ZYDIS_ISA_SET_SSSE3,     ZYDIS_ISA_SET_SSSE3MMX,   ZYDIS_ISA_SET_SSE4,
    ZYDIS_ISA_SET_SSE42,     ZYDIS_ISA_SET_SSE4A,      ZYDIS_ISA_SET_AES,
    ZYDIS_ISA_SET_PCLMULQDQ, ZYDIS_ISA_SET_SHA,        ZYDIS_ISA_SET_GFNI,
    ZYDIS_ISA_SET_AVX,       ZYDIS_ISA_SET_AVX2,       ZYDIS_ISA_SET_AVX2GATHER,
    ZYDIS_ISA_SET_AVXAES,    ZYDIS_ISA_SET_AVX_GFNI,   ZYDIS_ISA_SET_F16C,
    ZYDIS_ISA_SET_FMA,       ZYDIS_ISA_SET_VPCLMULQDQ, ZYDIS_ISA_SET_VAES,
};

/* x87 environments and states name the host's addresses, and byte masks go to [rDI]. */
static const uint16_t not_vector[] = {
    M(FNSAVE), M(FNSTENV),  M(FRSTOR),     M(FLDENV),
    M(FWAIT),  M(MASKMOVQ), M(MASKMOVDQU), M(VMASKMOVDQU),
};

static bool among(const uint16_t *list, size_t n, unsigned what) {
    for (size_t k = 0; k < n; k++)
        if (list[k] == what)
            return true;
    return false;
}

static bool is_x87(const ZydisDecodedInstruction *zi) {
    return zi->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
           zi->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (zi->opcode & 0xf8) == 0xd8;
}

static uint8_t classify(const ZydisDecodedInstruction *zi) {
    if (zi->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
        zi->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return HOST_FORBIDDEN;
    /* MOVSD names a string and an SSE2 instruction; Zydis files some of the x87's under
     * the CPU that brought them. */
    if (is_x87(zi) || among(vector_sets, ARRAY_SIZE(vector_sets), zi->meta.isa_set))
        return among(not_vector, ARRAY_SIZE(not_vector), zi->mnemonic) ? HOST_FORBIDDEN
                                                                       : HOST_VECTOR;
    for (size_t k = 0; k < ARRAY_SIZE(special); k++)
        if (special[k].mnemonic == zi->mnemonic)
            return special[k].op;
    return among(plain, ARRAY_SIZE(plain), zi->mnemonic) ? HOST_PLAIN : HOST_FORBIDDEN;
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

static bool take_operand(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *zo,
                         struct host_insn *i) {
    struct host_operand *o = &i->opnd[i->nops++];

    o->size = (uint16_t)(zo->size / 8);
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
    if (other_flags(&zi) || bit_string(&zi, i) ||
        (memory_operands(i) > 1 && i->op != HOST_MOVS))
        i->op = HOST_FORBIDDEN;
    return true;
}
