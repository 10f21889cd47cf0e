/* What may differ, and why: docs/errata.md, by the same names. */
#include <string.h>

#include "decode/decode.h"
#include "fidelity.h"

/* The instruction at RIP; false: none of the program. */
static bool insn_at(const struct program *p, uint64_t rip, struct insn *i) {
    uint64_t off = rip - p->base;
    uint8_t b[16];

    if (off >= p->len)
        return false;
    memset(b, 0xf4, sizeof(b));
    memcpy(b, p->code + off, p->len - off < 15 ? p->len - off : 15);
    return decode_insn(p->mode, b, 15, i) == DECODE_OK;
}

static bool is_whole_state(const struct insn *i) {
    return i->op >= OP_fxsave && i->op <= OP_fldenv;
}

static bool is_masked(const struct insn *i) {
    return i->op == OP_maskmov || i->op == OP_vmaskmov || i->op == OP_gather;
}

static bool is_far(const struct insn *i) {
    return i->op == OP_ret_far || i->op == OP_iret || i->op == OP_load_far ||
           i->op == OP_jmp_far || i->op == OP_call_far;
}

static bool of_memory(unsigned vector) {
    return vector == X86_PF || vector == X86_GP || vector == X86_SS || vector == X86_AC;
}

/* The operand goes on beyond offset 4 GiB - 1. */
static bool wraps(const struct program *p, const struct insn *i, const uint64_t *gpr) {
    uint64_t off = (uint64_t)i->mem.disp;

    if (p->mode == MODE_64 || !i->mem.access)
        return false;
    if (i->mem.base < REG_ZERO)
        off += gpr[i->mem.base];
    if (i->mem.index < REG_ZERO)
        off += gpr[i->mem.index] << i->mem.scale;
    if (i->op == OP_push || i->op == OP_call || i->op == OP_push_seg)
        off = gpr[REG_RSP] - 8;
    return (uint32_t)off > 0u - 600;
}

/* The exceptions differ, in kind or place. */
static enum fid_erratum other_exception(const struct program *p,
                                        const struct outcome *host,
                                        const struct outcome *got) {
    unsigned fsw = host->image[2];
    struct insn i;

    if (insn_at(p, got->rip, &i) && (i.flags & INSN_X87) && (i.mem.access & OPND_WRITE) &&
        of_memory(got->vector) && (fsw & 0x80))
        return FID_ERRATUM_X87_STORE;
    if (insn_at(p, got->rip, &i) && of_memory(got->vector) && wraps(p, &i, got->gpr))
        return FID_ERRATUM_WRAP;
    if (!insn_at(p, host->rip, &i))
        return FID_ERRATUM_NONE;
    if (of_memory(host->vector) && wraps(p, &i, host->gpr))
        return FID_ERRATUM_WRAP;
    if (i.op == OP_maskmov && (host->vector == X86_PF || host->vector == X86_AC))
        return FID_ERRATUM_MASK;
    if (i.op == OP_bound && host->rip == got->rip)
        return FID_ERRATUM_BOUND;
    if (i.op == OP_cmps && host->rip == got->rip)
        return FID_ERRATUM_CMPS_KIND;
    if ((i.flags & INSN_VEX) && i.bytes[i.off_opcode] == 0x1d && host->vector == X86_XM)
        return FID_ERRATUM_CVTPS2PH;
    if ((is_whole_state(&i) || is_far(&i) || is_masked(&i)) && host->rip == got->rip &&
        (host->vector == X86_AC || got->vector == X86_AC))
        return FID_ERRATUM_AC;
    return FID_ERRATUM_NONE;
}

enum fid_erratum fid_erratum(const struct program *p, const struct outcome *host,
                             const struct outcome *got) {
    struct insn i;

    if (host->vector != got->vector || host->rip != got->rip)
        return other_exception(p, host, got);
    if (!insn_at(p, host->rip, &i))
        return FID_ERRATUM_NONE;
    if ((i.op == OP_cmps || i.op == OP_scas) &&
        (of_memory(host->vector) || host->vector == X86_DB))
        return FID_ERRATUM_CMPS;
    if (!of_memory(host->vector))
        return FID_ERRATUM_NONE;
    if (is_whole_state(&i) || is_masked(&i) || is_far(&i) || i.op == OP_pusha ||
        i.op == OP_bound)
        return FID_ERRATUM_CR2;
    if (i.op == OP_popa)
        return FID_ERRATUM_POPA;
    if (i.op == OP_enter)
        return FID_ERRATUM_ENTER;
    if ((i.flags & INSN_VEX) && i.bytes[i.off_opcode] == 0x1d)
        return FID_ERRATUM_MXCSR;
    return i.flags & INSN_MMX ? FID_ERRATUM_TOP : FID_ERRATUM_NONE;
}

bool fid_repeats32(const struct program *p, uint64_t rip) {
    struct insn i;

    return insn_at(p, rip, &i) && i.op >= OP_movs && i.op <= OP_outs && i.rep &&
           i.addrsize == 4;
}
