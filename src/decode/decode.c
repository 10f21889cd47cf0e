/*
 * decode_insn(): Zydis finds length, mnemonic and operands; tables and normalize.c turn
 * them into struct insn.
 *
 * Zydis reads byte by byte, and asks for more bytes only when those so far can begin an
 * instruction: an opcode that is invalid is so whatever follows, and raises #UD although
 * the next page is absent.
 *
 * There is no state: a decoder is a few words built on the stack for each call.
 *
 * Not done here: #UD that depends on the machine's state (VEX in real mode, LLDT in
 * virtual-8086 mode, CR4 and CPUID gates) is sem's.
 */
#include "decode/decode_int.h"

#include "cpu/cpuid.h"

#include <stdio.h>
#include <string.h>

#define MAX_LEN 15u

/*
 * MPX, CET and CLDEMOTE reuse hint NOPs, which is what they are to a CPU without them.
 * F3 BSF and F3 BSR are TZCNT and LZCNT where the host has these.
 */
static ZydisDecoder make_decoder(enum cpu_mode mode) {
    static const struct {
        uint8_t machine, stack;
    } modes[] = {
        [MODE_16] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
        [MODE_32] = {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
        [MODE_64] = {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
    };
    ZydisDecoder d = {.machine_mode = (ZydisMachineMode)modes[mode].machine,
                      .stack_width = (ZydisStackWidth)modes[mode].stack};
    d.decoder_mode[ZYDIS_DECODER_MODE_AMD_BRANCHES] = decode_host_is_amd();
    d.decoder_mode[ZYDIS_DECODER_MODE_LZCNT] = !!__builtin_cpu_supports("lzcnt");
    d.decoder_mode[ZYDIS_DECODER_MODE_TZCNT] = !!__builtin_cpu_supports("bmi");
    return d;
}

void decode_hide(struct insn *i) {
    i->op = OP_invalid;
    i->flags = (uint16_t)((i->flags & (INSN_VEX | INSN_AVX512)) | INSN_ENDS_BLOCK |
                          INSN_NO_MODRM_MEM);
    i->feature = CPUID_F_UNSUPPORTED;
    i->also = CPUID_F_NONE;
    i->nops = 0;
    memset(i->opnd, 0, sizeof(i->opnd));
    i->mem = (struct mem_operand){.base = REG_ZERO, .index = REG_ZERO};
    i->fl_read = i->fl_written = i->fl_undefined = 0;
}

static void fill_layout(const struct decode_prefixes *p,
                        const ZydisDecodedInstruction *zi, struct insn *i) {
    i->off_opcode = p->count;
    if (zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        i->flags |= INSN_VEX;
        i->off_vex = p->count;
        i->vex_len = zi->raw.vex.size;
        i->off_opcode = (uint8_t)(i->off_vex + i->vex_len);
    }
    if (zi->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) {
        i->flags |= INSN_AVX512;
        i->off_vex = p->count;
        i->vex_len = 4;
        i->off_opcode = (uint8_t)(i->off_vex + i->vex_len);
    }
    if (p->rex) {
        i->flags |= INSN_REX;
        i->off_rex = (uint8_t)(p->count - 1);
        if (p->rex & 8)
            i->flags |= INSN_REX_W;
    }
    if (zi->attributes & ZYDIS_ATTRIB_HAS_MODRM)
        i->off_modrm = zi->raw.modrm.offset;
    if (zi->raw.imm[0].size) {
        i->off_imm = zi->raw.imm[0].offset;
        i->imm_len = (uint8_t)((zi->raw.imm[0].size + zi->raw.imm[1].size) / 8);
    }
}

static void fill_flags(const ZydisDecodedInstruction *zi, struct insn *i) {
    const ZydisAccessedFlags *f = zi->cpu_flags;
    if (!f)
        return;
    i->fl_read = (uint16_t)f->tested;
    i->fl_written = (uint16_t)(f->modified | f->set_0 | f->set_1);
    i->fl_undefined = (uint16_t)f->undefined;
}

/* Legacy SSE demands alignment of all 16-byte operands but a few, VEX only where the
 * instruction says so. Intel SDM volume 1, "Memory Alignment"; volume 2, "Exceptions Type
 * 1" to "Type 4". */
static bool needs_alignment(const ZydisDecodedInstruction *zi, const struct insn *i) {
    switch (zi->mnemonic) {
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVDQA32:
    case ZYDIS_MNEMONIC_VMOVDQA64:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
        return true;
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
        return false;
    default:
        return i->mem.size == 16 && !(i->flags & (INSN_VEX | INSN_AVX512 | INSN_X87));
    }
}

static bool is_gpr(ZydisRegister r) {
    return r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_R15;
}

static void fill_native(const ZydisDecodedInstruction *zi,
                        const ZydisDecodedOperand *zops, struct insn *i) {
    if (zi->mnemonic == ZYDIS_MNEMONIC_EMMS || zi->mnemonic == ZYDIS_MNEMONIC_CVTPI2PS)
        i->flags |= INSN_MMX;
    for (unsigned n = 0; n < zi->operand_count; n++) {
        const ZydisDecodedOperand *zo = &zops[n];
        if (zo->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        if (is_gpr(zo->reg.value))
            i->flags |= INSN_GPR;
        if (zo->reg.value >= ZYDIS_REGISTER_MM0 && zo->reg.value <= ZYDIS_REGISTER_MM7)
            i->flags |= INSN_MMX;
    }
    if (i->fl_read | i->fl_written | i->fl_undefined)
        i->flags |= INSN_FLAGS;
    if (i->mem.access && needs_alignment(zi, i))
        i->flags |= INSN_ALIGNED;
}

static bool is_compression(ZydisMnemonic m) {
    switch (m) {
    case ZYDIS_MNEMONIC_VCOMPRESSPD:
    case ZYDIS_MNEMONIC_VCOMPRESSPS:
    case ZYDIS_MNEMONIC_VPCOMPRESSB:
    case ZYDIS_MNEMONIC_VPCOMPRESSW:
    case ZYDIS_MNEMONIC_VPCOMPRESSD:
    case ZYDIS_MNEMONIC_VPCOMPRESSQ:
        return true;
    default:
        return false;
    }
}

/* Under a mask, an element of memory that is not selected is not accessed. A compressing
 * store is of this kind by itself: its accesses are the elements'. */
static void fill_mask(const ZydisDecodedInstruction *zi, struct insn *i) {
    if (zi->encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX || !i->mem.access)
        return;
    if ((zi->avx.mask.reg != ZYDIS_REGISTER_NONE &&
         zi->avx.mask.reg != ZYDIS_REGISTER_K0) ||
        is_compression(zi->mnemonic))
        i->flags |= INSN_MASKED;
}

/* Escape opcodes and FWAIT. Zydis files some under the CPU that brought them. */
static bool is_x87(const ZydisDecodedInstruction *zi) {
    return zi->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
           zi->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
           ((zi->opcode & 0xf8) == 0xd8 || zi->opcode == 0x9b);
}

/* Of opmask registers, with VEX prefixes. */
static bool is_avx512(const struct decode_isa *isa) {
    return isa->feature >= CPUID_F_AVX512F && isa->feature <= CPUID_F_AVX512BF16;
}

/* What it is, by the tables. False: not offered. */
static bool classify(const ZydisDecodedInstruction *zi, struct insn *i,
                     enum decode_norm *norm) {
    const struct decode_entry *e = &decode_ops[zi->mnemonic];
    const struct decode_isa *isa = &decode_isas[zi->meta.isa_set];
    if (zi->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
        zi->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX &&
        zi->encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX)
        return false;
    if (isa->exec == EXEC_NONE)
        return false;
    i->feature = isa->feature;
    i->also = isa->also;
    if (is_avx512(isa))
        i->flags |= INSN_AVX512;
    bool x87 = is_x87(zi);
    if (x87)
        i->flags |= INSN_X87;
    /* MOVSD and CMPSD name a string and an SSE2 instruction each. */
    bool sse_namesake = e->norm == NORM_STRING_SRC && isa->exec == EXEC_NATIVE;
    if (e->op == OP_invalid || sse_namesake) {
        i->op = OP_native;
        *norm = NORM_PLAIN;
        return isa->exec == EXEC_NATIVE || x87;
    }
    i->op = e->op;
    i->flags |= e->flags;
    *norm = (enum decode_norm)e->norm;
    if (i->op == OP_tzcnt)
        i->feature = CPUID_F_NONE;
    return true;
}

/* PREFETCHW and its kin have no register form on AMD; VPINSRD and VPEXTRD no W outside
 * 64-bit mode, where Intel's CPUs ignore it. */
static bool not_on_amd(const ZydisDecodedInstruction *zi, enum cpu_mode mode) {
    if (!decode_host_is_amd())
        return false;
    if (zi->meta.isa_set == ZYDIS_ISA_SET_PREFETCH_NOP)
        return zi->raw.modrm.mod == 3;
    return mode != MODE_64 && zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX &&
           zi->raw.vex.W &&
           (zi->mnemonic == ZYDIS_MNEMONIC_VPINSRD ||
            zi->mnemonic == ZYDIS_MNEMONIC_VPEXTRD);
}

/* I from what Zydis says; mode, len and bytes are set. */
static void translate(const ZydisDecoder *d, const ZydisDecoderContext *ctx,
                      const ZydisDecodedInstruction *zi, const struct decode_prefixes *p,
                      struct insn *i) {
    ZydisDecodedOperand zops[ZYDIS_MAX_OPERAND_COUNT];
    enum decode_norm norm;
    fill_layout(p, zi, i);
    i->opsize = (uint8_t)(zi->operand_width / 8);
    i->addrsize = (uint8_t)(zi->address_width / 8);
    i->flags |= INSN_NO_MODRM_MEM;
    if (p->opsize)
        i->flags |= INSN_PREFIX66;
    if (!classify(zi, i, &norm) || not_on_amd(zi, (enum cpu_mode)i->mode)) {
        decode_hide(i);
        return;
    }
    if (p->lock)
        i->flags |= INSN_LOCK;
    fill_flags(zi, i);
    unsigned count = i->op == OP_native ? zi->operand_count : zi->operand_count_visible;
    if (count > ARRAY_SIZE(zops) ||
        !ZYAN_SUCCESS(ZydisDecoderDecodeOperands(d, ctx, zi, zops, (ZyanU8)count))) {
        decode_hide(i);
        return;
    }
    for (unsigned n = 0; n < zi->operand_count_visible; n++) {
        struct operand o = {0};
        if (zops[n].encoding == ZYDIS_OPERAND_ENCODING_MASK)
            continue;
        if (i->nops == ARRAY_SIZE(i->opnd) || !decode_operand(p, zi, &zops[n], i, &o)) {
            decode_hide(i);
            return;
        }
        i->opnd[i->nops++] = o;
    }
    if (i->op == OP_native)
        fill_native(zi, zops, i);
    fill_mask(zi, i);
    decode_normalize(norm, p, zi, i);
}

/*
 * On AMD, PAUSE with REX.B is XCHG of r8 and rAX, as the NOP without F3 is. Decodes it as
 * if F3 were a segment override, which does nothing there.
 */
static bool decode_pause_r8(const ZydisDecoder *d, size_t len,
                            const struct decode_prefixes *p, struct insn *i) {
    uint8_t plain[MAX_LEN];
    ZydisDecoderContext ctx;
    ZydisDecodedInstruction zi;

    for (size_t n = 0; n < len; n++)
        plain[n] = n < p->count && (i->bytes[n] | 1) == 0xf3 ? 0x3e : i->bytes[n];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(d, &ctx, plain, len, &zi)))
        return false;
    translate(d, &ctx, &zi, p, i);
    return true;
}

/*
 * On AMD, LOCK MOV CR0 is how code outside 64-bit mode reaches CR8. AMD64 APM volume 3,
 * "MOV CRn". Decodes it as the plain MOV CR0 of the same length.
 */
static bool decode_alt_cr8(const ZydisDecoder *d, const uint8_t *bytes, size_t len,
                           const struct decode_prefixes *p, struct insn *i) {
    uint8_t plain[MAX_LEN];
    ZydisDecoderContext ctx;
    ZydisDecodedInstruction zi;
    struct decode_prefixes unlocked = *p;
    size_t op = p->count;
    if (!decode_host_is_amd() || op + 2 >= len || bytes[op] != 0x0f ||
        (bytes[op + 1] & 0xfd) != 0x20 || (bytes[op + 2] & 0x38) || (p->rex & 4))
        return false;
    for (size_t n = 0; n < len; n++)
        plain[n] = n < op && bytes[n] == 0xf0 ? 0x3e : bytes[n];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(d, &ctx, plain, len, &zi)))
        return false;
    unlocked.lock = 0;
    i->len = zi.length;
    memcpy(i->bytes, bytes, i->len);
    translate(d, &ctx, &zi, &unlocked, i);
    for (unsigned n = 0; n < i->nops; n++) {
        if (i->opnd[n].kind == OPND_CR)
            i->opnd[n].reg = 8;
    }
    return true;
}

/* Opcodes of which Zydis reads the ModRM byte before it says that they do not exist: 82
 * in 64-bit mode and those of VIA's PadLock. */
static bool undefined_opcode(enum cpu_mode mode, const uint8_t *bytes, size_t len,
                             const struct decode_prefixes *p) {
    if (p->count < len && bytes[p->count] == 0x82)
        return mode == MODE_64;
    return p->count + 1u < len && bytes[p->count] == 0x0f &&
           (bytes[p->count + 1] & 0xfe) == 0xa6;
}

/* How many of LEN bytes it takes to see that they are invalid. Zydis tells how many it
 * consumed, which leaves out one that it only looked at. */
static uint8_t invalid_length(const ZydisDecoder *d, enum cpu_mode mode,
                              const uint8_t *bytes, size_t len, size_t consumed,
                              const struct decode_prefixes *p) {
    ZydisDecoderContext ctx;
    ZydisDecodedInstruction zi;
    size_t n = consumed ? consumed : 1;
    while (n < len && !undefined_opcode(mode, bytes, n, p) &&
           ZydisDecoderDecodeInstruction(d, &ctx, bytes, n, &zi) ==
               ZYDIS_STATUS_NO_MORE_DATA)
        n++;
    return (uint8_t)n;
}

static enum decode_result decode_with(ZydisDecoder d, enum cpu_mode mode,
                                      const uint8_t *bytes, size_t len, struct insn *i) {
    ZydisDecoderContext ctx;
    ZydisDecodedInstruction zi;
    memset(i, 0, sizeof(*i));
    i->mode = (uint8_t)mode;
    i->mem.base = i->mem.index = REG_ZERO;
    if (len > MAX_LEN)
        len = MAX_LEN;
    if (!len)
        return DECODE_TRUNCATED;

    ZyanStatus st = ZydisDecoderDecodeInstruction(&d, &ctx, bytes, len, &zi);
    struct decode_prefixes p = decode_scan_prefixes(mode, bytes, len);
    if (st == ZYDIS_STATUS_NO_MORE_DATA && !undefined_opcode(mode, bytes, len, &p))
        return DECODE_TRUNCATED;
    if (st == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return DECODE_TOO_LONG;

    if (st == ZYDIS_STATUS_ILLEGAL_LOCK && decode_alt_cr8(&d, bytes, len, &p, i))
        return DECODE_OK;
    i->len = ZYAN_SUCCESS(st) ? zi.length
                              : invalid_length(&d, mode, bytes, len, zi.length, &p);
    memcpy(i->bytes, bytes, i->len);
    if (ZYAN_SUCCESS(st) && zi.mnemonic == ZYDIS_MNEMONIC_PAUSE && (p.rex & 1) &&
        decode_host_is_amd() && decode_pause_r8(&d, i->len, &p, i))
        return DECODE_OK;
    if (ZYAN_SUCCESS(st)) {
        translate(&d, &ctx, &zi, &p, i);
    } else {
        i->opsize = i->addrsize = mode == MODE_16 ? 2 : mode == MODE_32 ? 4 : 8;
        decode_hide(i);
    }
    return DECODE_OK;
}

enum decode_result decode_insn(enum cpu_mode mode, const uint8_t *bytes, size_t len,
                               struct insn *i) {
    return decode_with(make_decoder(mode), mode, bytes, len, i);
}

void decode_as_scan(struct insn *i) {
    ZydisDecoder d = make_decoder((enum cpu_mode)i->mode);
    uint8_t bytes[sizeof(i->bytes)];

    memcpy(bytes, i->bytes, sizeof(bytes));
    d.decoder_mode[ZYDIS_DECODER_MODE_LZCNT] = false;
    d.decoder_mode[ZYDIS_DECODER_MODE_TZCNT] = false;
    decode_with(d, (enum cpu_mode)i->mode, bytes, i->len, i);
}

const char *decode_op_name(enum op op) {
    static const char *const names[] = {
#define OP(name) #name,
#include "decode/op.def"
#undef OP
    };
    return (unsigned)op < OP_COUNT ? names[op] : "?";
}

char *decode_format(const struct insn *i, uint64_t addr, char *buf, size_t size) {
    ZydisDecodedInstruction zi;
    ZydisDecodedOperand zops[ZYDIS_MAX_OPERAND_COUNT];
    ZydisFormatter fmt;
    if (!size)
        return buf;
    ZydisDecoder d = make_decoder((enum cpu_mode)i->mode);
    if (i->op == OP_invalid ||
        !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, i->bytes, i->len, &zi, zops)) ||
        !ZYAN_SUCCESS(ZydisFormatterInit(&fmt, ZYDIS_FORMATTER_STYLE_INTEL)) ||
        !ZYAN_SUCCESS(ZydisFormatterFormatInstruction(
            &fmt, &zi, zops, zi.operand_count_visible, buf, size, addr, NULL)))
        snprintf(buf, size, "(%s)", decode_op_name((enum op)i->op));
    return buf;
}
