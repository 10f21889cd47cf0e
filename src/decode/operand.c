/*
 * Prefixes and operands: Zydis's view into ours.
 *
 * Segments, REP and the operand-size prefix are taken from the prefix bytes rather than
 * from Zydis: what the last prefix of a group does, and which overrides 64-bit mode
 * ignores, is then said here once. AMD64 APM volume 3, "Instruction Prefixes".
 */
#include "decode/decode_int.h"

static int prefix_segment(uint8_t b) {
    switch (b) {
    case 0x26:
        return SEG_ES;
    case 0x2e:
        return SEG_CS;
    case 0x36:
        return SEG_SS;
    case 0x3e:
        return SEG_DS;
    case 0x64:
        return SEG_FS;
    case 0x65:
        return SEG_GS;
    default:
        return -1;
    }
}

struct decode_prefixes decode_scan_prefixes(enum cpu_mode mode, const uint8_t *bytes,
                                            size_t len) {
    struct decode_prefixes p = {.seg = -1};
    size_t n;
    for (n = 0; n < len && n < 15; n++) {
        uint8_t b = bytes[n];
        int seg = prefix_segment(b);
        bool is_rex = mode == MODE_64 && (b & 0xf0) == 0x40;
        if (seg >= 0) {
            if (mode != MODE_64 || seg == SEG_FS || seg == SEG_GS)
                p.seg = (int8_t)seg;
        } else if (b == 0xf2 || b == 0xf3) {
            p.rep = b;
        } else if (b == 0xf0) {
            p.lock = (uint8_t)(n + 1);
        } else if (b == 0x66) {
            p.opsize = true;
        } else if (b != 0x67 && !is_rex) {
            break;
        }
        /* A REX prefix counts only right before the opcode. */
        p.rex = is_rex ? b : 0;
    }
    p.count = (uint8_t)n;
    return p;
}

/* Zydis numbers the registers of a class consecutively. */
static const struct reg_class {
    uint16_t first, last;
    uint8_t kind, size, base, off;
} reg_classes[] = {
    {ZYDIS_REGISTER_RAX, ZYDIS_REGISTER_R15, OPND_REG, 8, 0, 0},
    {ZYDIS_REGISTER_EAX, ZYDIS_REGISTER_R15D, OPND_REG, 4, 0, 0},
    {ZYDIS_REGISTER_AL, ZYDIS_REGISTER_BL, OPND_REG, 1, 0, 0},
    {ZYDIS_REGISTER_AH, ZYDIS_REGISTER_BH, OPND_REG, 1, 0, 1},
    {ZYDIS_REGISTER_SPL, ZYDIS_REGISTER_R15B, OPND_REG, 1, 4, 0},
    {ZYDIS_REGISTER_AX, ZYDIS_REGISTER_R15W, OPND_REG, 2, 0, 0},
    {ZYDIS_REGISTER_XMM0, ZYDIS_REGISTER_XMM31, OPND_VEC, 16, 0, 0},
    {ZYDIS_REGISTER_YMM0, ZYDIS_REGISTER_YMM31, OPND_VEC, 32, 0, 0},
    {ZYDIS_REGISTER_ZMM0, ZYDIS_REGISTER_ZMM31, OPND_VEC, 64, 0, 0},
    {ZYDIS_REGISTER_K0, ZYDIS_REGISTER_K7, OPND_VEC, 8, 0, 0},
    {ZYDIS_REGISTER_ST0, ZYDIS_REGISTER_ST7, OPND_VEC, 10, 0, 0},
    {ZYDIS_REGISTER_MM0, ZYDIS_REGISTER_MM7, OPND_VEC, 8, 0, 0},
    {ZYDIS_REGISTER_ES, ZYDIS_REGISTER_GS, OPND_SEG, 2, 0, 0},
    {ZYDIS_REGISTER_CR0, ZYDIS_REGISTER_CR15, OPND_CR, 8, 0, 0},
    {ZYDIS_REGISTER_DR0, ZYDIS_REGISTER_DR15, OPND_DR, 8, 0, 0},
};

static bool convert_reg(ZydisRegister zr, struct operand *o) {
    for (size_t n = 0; n < ARRAY_SIZE(reg_classes); n++) {
        const struct reg_class *c = &reg_classes[n];
        if ((unsigned)zr < c->first || (unsigned)zr > c->last)
            continue;
        o->kind = c->kind;
        o->size = c->size;
        o->reg = (uint8_t)(c->base + ((unsigned)zr - c->first));
        o->off = c->kind == OPND_REG ? (uint8_t)(o->reg * 8 + c->off) : 0;
        return true;
    }
    return false;
}

static uint8_t address_reg(ZydisRegister zr) {
    struct operand o;
    if (zr == ZYDIS_REGISTER_RIP || zr == ZYDIS_REGISTER_EIP)
        return REG_RIP;
    if (zr == ZYDIS_REGISTER_NONE || !convert_reg(zr, &o))
        return REG_ZERO;
    return o.kind == OPND_VEC ? o.reg & 15 : o.reg;
}

static uint8_t access_of(ZydisOperandActions a) {
    return (uint8_t)((a & ZYDIS_OPERAND_ACTION_MASK_READ ? OPND_READ : 0) |
                     (a & ZYDIS_OPERAND_ACTION_MASK_WRITE ? OPND_WRITE : 0));
}

/* SIB's base 5 with mod 0 is no base but a displacement, whatever REX.B says: Zydis takes
 * r13d for it under an address-size prefix. AMD64 APM volume 3, "SIB Byte Format". */
static bool is_r13d_misread(const ZydisDecodedInstruction *zi,
                            const ZydisDecodedOperand *zo) {
    return zo->mem.base == ZYDIS_REGISTER_R13D && zi->raw.modrm.mod == 0;
}

static void convert_mem(const struct decode_prefixes *p,
                        const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *zo,
                        struct insn *i, struct operand *o) {
    struct mem_operand *m = &i->mem;
    m->base = address_reg(zo->mem.base);
    m->index = address_reg(zo->mem.index);
    m->scale = (uint8_t)(zo->mem.scale ? __builtin_ctz(zo->mem.scale) : 0);
    m->disp = zo->mem.disp.value;
    if (is_r13d_misread(zi, zo)) {
        m->base = REG_ZERO;
        m->disp = zi->raw.disp.value;
    }
    if (m->base == REG_RIP)
        m->disp += zi->length;
    if (zo->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64) {
        /* moffs: an unsigned address. */
        if (i->addrsize < 8)
            m->disp &= i->addrsize == 4 ? 0xffffffffll : 0xffffll;
    } else {
        i->flags &= (uint16_t)~INSN_NO_MODRM_MEM;
    }
    m->seg = p->seg >= 0                                ? (uint8_t)p->seg
             : m->base == REG_RSP || m->base == REG_RBP ? SEG_SS
                                                        : SEG_DS;
    m->size = zo->size / 8 <= UINT8_MAX ? (uint8_t)(zo->size / 8) : 0;
    m->elem = (uint8_t)(zo->element_size / 8);
    m->access = access_of(zo->actions);
    if (zo->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
        m->size = m->access = 0;
    o->kind = OPND_MEM;
    o->size = m->size;
    o->access = m->access;
}

bool decode_operand(const struct decode_prefixes *p, const ZydisDecodedInstruction *zi,
                    const ZydisDecodedOperand *zo, struct insn *i, struct operand *o) {
    switch (zo->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        if (!convert_reg(zo->reg.value, o))
            return false;
        o->access = access_of(zo->actions);
        if (zo->size && zo->size / 8 < o->size)
            o->size = (uint8_t)(zo->size / 8);
        return true;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        convert_mem(p, zi, zo, i, o);
        return true;
    case ZYDIS_OPERAND_TYPE_POINTER:
        o->kind = OPND_IMM;
        o->size = i->opsize;
        i->imm = zo->ptr.offset;
        i->far_sel = zo->ptr.segment;
        return true;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE: {
        uint64_t val = zo->imm.value.u;
        o->kind = OPND_IMM;
        o->size = (uint8_t)(zo->size / 8);
        o->access = OPND_READ;
        for (unsigned n = 0; n < i->nops; n++) {
            if (i->opnd[n].kind == OPND_IMM) {
                i->imm2 = val;
                return true;
            }
        }
        i->imm = (int64_t)val;
        return true;
    }
    default:
        return false;
    }
}
