/*
 * What may differ, and why: docs/errata.md has the reasons, by the same names. Each entry
 * is a condition on the instruction and on the two outcomes, and what it then excuses;
 * everything else is still compared.
 */
#include <string.h>

#include "decode/decode.h"
#include "fidelity.h"

struct facts {
    const struct program *p;
    const struct outcome *host, *got;
    const struct insn *h, *g; /* where they end; NULL: behind the program */
};

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
    return i->op == OP_maskmov || i->op == OP_vmaskmov || i->op == OP_gather ||
           i->op == OP_scatter || (i->flags & INSN_MASKED);
}

static bool is_far(const struct insn *i) {
    return i->op == OP_ret_far || i->op == OP_iret || i->op == OP_load_far ||
           i->op == OP_jmp_far || i->op == OP_call_far;
}

static bool of_memory(unsigned vector) {
    return vector == X86_PF || vector == X86_GP || vector == X86_SS || vector == X86_AC;
}

/* Both end with a fault of memory at the same instruction. */
static bool same_place(const struct facts *f) {
    return f->h && f->host->rip == f->got->rip && of_memory(f->host->vector) &&
           of_memory(f->got->vector);
}

/* The offset of I's operand, not cut to its address size. */
static uint64_t offset_of(const struct insn *i, const uint64_t *gpr) {
    uint64_t off = (uint64_t)i->mem.disp;

    if (i->mem.base < REG_ZERO)
        off += gpr[i->mem.base];
    if (i->mem.index < REG_ZERO)
        off += gpr[i->mem.index] << i->mem.scale;
    return off;
}

static bool uses_stack(const struct insn *i) {
    return i->op == OP_push || i->op == OP_call || i->op == OP_push_seg ||
           i->op == OP_ret_far || i->op == OP_iret;
}

/* I ends O with a fault of its operand, which goes on beyond the last offset. */
static bool wraps_at(const struct program *p, const struct insn *i,
                     const struct outcome *o) {
    uint64_t off;

    if (!i || !of_memory(o->vector))
        return false;
    if (uses_stack(i) && p->mode != MODE_64)
        return (uint32_t)o->gpr[REG_RSP] - 32u > 0u - 64u;
    if (!i->mem.access || i->addrsize == 8)
        return false;
    if (p->mode == MODE_64 && !is_whole_state(i) && i->op != OP_maskmov &&
        i->mem.size != 10)
        return false;
    off = offset_of(i, o->gpr);
    if (i->addrsize == 2)
        return (is_whole_state(i) || is_masked(i)) && (uint16_t)off > 0xffffu - 600;
    return (uint32_t)off > 0u - 600;
}

static bool wrap(const struct facts *f) {
    return wraps_at(f->p, f->h, f->host) || wraps_at(f->p, f->g, f->got);
}

static bool x87_store(const struct facts *f) {
    return f->g && (f->g->flags & INSN_X87) && (f->g->mem.access & OPND_WRITE) &&
           of_memory(f->got->vector) && (~f->got->image[0] & 0x1b);
}

static bool x87_m80(const struct facts *f) {
    return same_place(f) && (f->h->flags & INSN_X87) && f->h->mem.size == 10;
}

static bool whole_state(const struct facts *f) {
    return same_place(f) && is_whole_state(f->h);
}

static bool far(const struct facts *f) {
    return same_place(f) && is_far(f->h);
}

static bool masked(const struct facts *f) {
    return same_place(f) && is_masked(f->h);
}

/* I's operand of up to 32 bytes runs over the end of the canonical halves. */
static bool on_edge(const struct facts *f, const struct insn *i) {
    uint64_t at = offset_of(i, f->host->gpr);

    if (i->addrsize == 4)
        at = (uint32_t)at;
    at += i->mem.seg == SEG_FS   ? f->host->fs_base
          : i->mem.seg == SEG_GS ? f->host->gs_base
                                 : 0;
    return f->p->mode == MODE_64 && (at ^ (at + 31)) >> 47;
}

/* A masked store of nothing, or elements left out beyond the end of a canonical half. */
static bool masked_none(const struct facts *f) {
    /* In a loop ours may have come to the same place once more. */
    if (!f->h || (f->host->rip == f->got->rip &&
                  !memcmp(f->host->gpr, f->got->gpr, sizeof(f->host->gpr))))
        return false;
    if (f->h->op == OP_vmaskmov)
        return of_memory(f->host->vector) && on_edge(f, f->h);
    return f->h->op == OP_maskmov &&
           (f->host->vector == X86_PF || f->host->vector == X86_AC);
}

static bool bound(const struct facts *f) {
    return f->h && f->host->rip == f->got->rip && f->h->op == OP_bound;
}

static bool compare_string(const struct facts *f) {
    return f->h && f->host->rip == f->got->rip &&
           (f->h->op == OP_cmps || f->h->op == OP_scas) &&
           (of_memory(f->host->vector) || f->host->vector == X86_DB);
}

static bool cvtps2ph(const struct facts *f) {
    return f->h && f->host->rip == f->got->rip && (f->h->flags & INSN_VEX) &&
           f->h->bytes[f->h->off_opcode] == 0x1d && of_memory(f->got->vector) &&
           (of_memory(f->host->vector) || f->host->vector == X86_XM);
}

static bool push_all(const struct facts *f) {
    return same_place(f) && (f->h->op == OP_pusha || f->h->op == OP_enter);
}

static bool pop_all(const struct facts *f) {
    return same_place(f) && f->h->op == OP_popa;
}

static bool mmx_top(const struct facts *f) {
    return same_place(f) && (f->h->flags & INSN_MMX);
}

static bool repeats32(const struct facts *f) {
    return f->p->mode == MODE_64 && f->h && f->host->rip == f->got->rip &&
           f->h->op >= OP_movs && f->h->op <= OP_outs && f->h->rep && f->h->addrsize == 4;
}

/* EVEX or VEX behind prefixes in 64-bit mode. */
static bool prefixed_evex(const struct facts *f) {
    uint64_t off = f->host->rip - f->p->base;
    const uint8_t *b = f->p->code + off;
    unsigned n = 0;

    if (f->p->mode != MODE_64 || f->host->rip != f->got->rip ||
        off + 15 >= FID_CODE_MAX || f->host->vector != X86_GP || f->got->vector != X86_UD)
        return false;
    while (n < 14 && ((b[n] & 0xf0) == 0x40 || (b[n] && strchr("\x66\x67\xf0\xf2\xf3"
                                                               "\x2e\x36\x3e\x26\x64\x65",
                                                               b[n]))))
        n++;
    return n && (b[n] == 0x62 || b[n] == 0xc4 || b[n] == 0xc5);
}

/* No campaign has run on AMD's CPUs. */
static bool amd_order(const struct facts *f) {
    return __builtin_cpu_is("amd") && f->h && f->host->rip == f->got->rip;
}

static const struct erratum {
    const char *name;
    unsigned excuses;
    bool (*is)(const struct facts *f);
} errata[FID_ERRATA] = {
    {"wrap", FID_MAY_GO_ELSEWHERE, wrap},
    {"x87-store", FID_MAY_GO_ELSEWHERE, x87_store},
    {"x87-m80", FID_MAY_EXCEPTION | FID_MAY_MEMORY, x87_m80},
    {"whole-state", FID_MAY_EXCEPTION | FID_MAY_MEMORY, whole_state},
    {"far", FID_MAY_EXCEPTION, far},
    {"masked", FID_MAY_EXCEPTION, masked},
    {"masked-none", FID_MAY_GO_ELSEWHERE, masked_none},
    {"bound", FID_MAY_EXCEPTION, bound},
    {"compare-string", FID_MAY_EXCEPTION | FID_MAY_FLAGS, compare_string},
    {"vcvtps2ph", FID_MAY_EXCEPTION | FID_MAY_MXCSR, cvtps2ph},
    {"push-all", FID_MAY_CR2 | FID_MAY_MEMORY, push_all},
    {"pop-all", FID_MAY_REGISTERS, pop_all},
    {"mmx-top", FID_MAY_TOP, mmx_top},
    {"repeat-32", FID_MAY_UPPER, repeats32},
    {"prefixed-evex", FID_MAY_EXCEPTION, prefixed_evex},
    {"amd-order", FID_MAY_EXCEPTION, amd_order},
};

unsigned fid_errata(const struct program *p, const struct outcome *host,
                    const struct outcome *got) {
    struct insn h, g;
    struct facts f = {.p = p, .host = host, .got = got};
    unsigned set = 0;

    f.h = insn_at(p, host->rip, &h) ? &h : NULL;
    f.g = insn_at(p, got->rip, &g) ? &g : NULL;
    for (unsigned n = 0; n < FID_ERRATA; n++)
        if (errata[n].is(&f))
            set |= 1u << n;
    return set;
}

unsigned fid_erratum_excuses(unsigned n) {
    return errata[n].excuses;
}

const char *fid_erratum_name(unsigned n) {
    return errata[n].name;
}
