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
    if (uses_stack(i) && p->mode != MODE_64 && (uint32_t)o->gpr[REG_RSP] - 32u > 0u - 64u)
        return true;
    /* PUSH and CALL may have an operand in memory besides. */
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

/* It runs over the end of what 32 bits address. */
static bool on_edge_32(const struct insn *i, const uint64_t *gpr) {
    return i->addrsize == 4 && (uint32_t)offset_of(i, gpr) > 0u - 32;
}

/* A masked store of nothing, or elements left out beyond the end of a canonical half, or
 * on AMD's CPUs of 4 GiB. */
static bool masked_none(const struct facts *f) {
    /* In a loop ours may have come to the same place once more. */
    if (!f->h || (f->host->rip == f->got->rip &&
                  !memcmp(f->host->gpr, f->got->gpr, sizeof(f->host->gpr))))
        return false;
    if (f->h->op == OP_vmaskmov)
        return of_memory(f->host->vector) &&
               (on_edge(f, f->h) ||
                (__builtin_cpu_is("amd") && on_edge_32(f->h, f->host->gpr)));
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
    return f->h && f->host->rip == f->got->rip &&
           (f->h->flags & (INSN_VEX | INSN_AVX512)) &&
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

/* What is behind the prefixes at RIP, how many these are in *N. NULL: less than 15 bytes
 * there. */
static const uint8_t *behind_prefixes(const struct program *p, uint64_t rip,
                                      unsigned *n) {
    uint64_t off = rip - p->base;
    const uint8_t *b = p->code + off;

    if (off >= FID_CODE_MAX - 15)
        return NULL;
    for (*n = 0; *n < 13; ++*n)
        if (!(p->mode == MODE_64 && (b[*n] & 0xf0) == 0x40) &&
            !(b[*n] && strchr("\x66\x67\xf0\xf2\xf3\x2e\x36\x3e\x26\x64\x65", b[*n])))
            break;
    return b + *n;
}

/* EVEX or VEX behind prefixes in 64-bit mode. */
static bool prefixed_evex(const struct facts *f) {
    unsigned n;
    const uint8_t *b = behind_prefixes(f->p, f->host->rip, &n);

    return b && f->p->mode == MODE_64 && f->host->rip == f->got->rip &&
           f->host->vector == X86_GP && f->got->vector == X86_UD && n &&
           (b[0] == 0x62 || b[0] == 0xc4 || b[0] == 0xc5);
}

/* --- CPUs of AMD's --- */

static bool is_amd(void) {
    return __builtin_cpu_is("amd");
}

/* Here #DB comes behind INT1, there at it: a hypervisor has passed it on. */
static bool int1(const struct facts *f) {
    return is_amd() && f->h && f->h->op == OP_int1 && f->host->vector == X86_DB &&
           f->got->vector == X86_DB && f->got->rip == f->host->rip + f->h->len;
}

/* #UD here, of what the CPU takes. */
static const uint8_t *not_offered(const struct facts *f) {
    unsigned n;

    if (!is_amd() || f->got->vector != X86_UD ||
        (f->host->rip == f->got->rip && f->host->vector == X86_UD))
        return NULL;
    return behind_prefixes(f->p, f->got->rip, &n);
}

/* VMRUN and its kin: SVM is on for as long as a hypervisor runs the host. */
static bool svm(const struct facts *f) {
    const uint8_t *b = not_offered(f);

    return b && b[0] == 0x0f && b[1] == 0x01 && (b[2] & 0xf8) == 0xd8 &&
           f->host->rip == f->got->rip && f->host->vector == X86_GP;
}

/* MOV CR0 with LOCK: another name of CR8. */
static bool alt_cr8(const struct facts *f) {
    const uint8_t *b = not_offered(f);

    return b && f->p->mode == MODE_32 && b[0] == 0x0f && (b[1] & 0xfd) == 0x20 &&
           f->host->rip == f->got->rip && f->host->vector == X86_GP;
}

/* VERW with LOCK, which it ignores. */
static bool lock_verw(const struct facts *f) {
    const uint8_t *b = not_offered(f);

    return b && b[0] == 0x0f && b[1] == 0x00 && (b[2] & 0x38) == 0x28;
}

/* Mask registers with bits set that would extend their numbers, which the CPU ignores. */
static bool mask_registers(const struct facts *f) {
    const uint8_t *b = not_offered(f);
    bool three = b && b[0] == 0xc4;
    unsigned map = three ? b[1] & 31u : 1;

    if (!b || (!three && b[0] != 0xc5))
        return false;
    b += three ? 3 : 2;
    if (map == 3)
        return (b[0] & 0xfc) == 0x30;
    return map == 1 && b[0] &&
           strchr("\x41\x42\x44\x45\x46\x47\x4a\x4b\x90\x91\x92\x93\x98\x99", b[0]);
}

/* C6 and C7 with a digit that means nothing, and so many prefixes that they and the
 * operands of digit 0 are more than 15 bytes: #GP there, #UD here. */
static bool undefined_long(const struct facts *f) {
    unsigned n;
    const uint8_t *b = behind_prefixes(f->p, f->host->rip, &n);

    return is_amd() && b && n >= 5 && (b[0] & 0xfe) == 0xc6 && (b[1] & 0x38) &&
           f->host->rip == f->got->rip && f->host->vector == X86_GP &&
           f->got->vector == X86_UD;
}

/* Within LEN of 4 GiB, on either side. */
static bool near_4g(uint64_t off, unsigned len) {
    return (uint32_t)off + len < 2 * len;
}

/* Accesses that go on beyond 4 GiB fault in 32-bit code, whatever the limit. */
static bool wrap_32(const struct facts *f) {
    const struct insn *i = f->h;
    const uint64_t *gpr = f->host->gpr;
    uint64_t off;

    if (!is_amd() || !i || f->p->mode == MODE_64 || f->host->rip != f->got->rip ||
        (f->host->vector != X86_SS && f->host->vector != X86_GP))
        return false;
    if (f->host->vector == X86_SS && near_4g(gpr[REG_RSP], 32))
        return true;
    if (i->op == OP_leave || i->op == OP_enter)
        return near_4g(gpr[REG_RBP], 8);
    if (i->op >= OP_movs && i->op <= OP_outs)
        return near_4g(gpr[REG_RSI], 8) || near_4g(gpr[REG_RDI], 8);
    off = offset_of(i, gpr);
    if (i->nops == 2 && i->opnd[1].kind == OPND_REG) /* bit strings */
        off += (uint64_t)((int64_t)(int32_t)gpr[i->opnd[1].off / 8] >> 3);
    return i->mem.access && near_4g(off, 64);
}

/* The same, where CALL far leads to 32-bit code. */
static bool far_wrap_32(const struct facts *f) {
    return is_amd() && f->h && f->p->mode == MODE_64 && f->h->op == OP_call_far &&
           f->host->vector == X86_SS && near_4g(f->host->gpr[REG_RSP], 32);
}

static bool canonical(uint64_t a) {
    return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

/* An offset that is not canonical faults, though with FS's or GS's base the address is.
 */
static bool offset(const struct facts *f) {
    const struct insn *i = f->h;
    uint64_t off;

    if (!is_amd() || !i || f->p->mode != MODE_64 || f->host->vector != X86_GP ||
        (i->mem.seg != SEG_FS && i->mem.seg != SEG_GS) || i->addrsize != 8)
        return false;
    off = offset_of(i, f->host->gpr);
    if (i->op == OP_xlat)
        off += (uint8_t)f->host->gpr[REG_RAX];
    return !canonical(off) || !canonical(off + (i->mem.size ? i->mem.size - 1u : 0));
}

/* CALL to a target that is not canonical has stored the return address here. */
static bool call_store(const struct facts *f) {
    return is_amd() && f->h && f->p->mode == MODE_64 && f->h->op == OP_call &&
           f->host->rip == f->got->rip && f->host->vector == X86_GP;
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
    {"int1", FID_MAY_NEXT, int1},
    {"svm", FID_MAY_EXCEPTION, svm},
    {"alt-cr8", FID_MAY_EXCEPTION, alt_cr8},
    {"lock-verw", FID_MAY_GO_ELSEWHERE, lock_verw},
    {"mask-registers", FID_MAY_GO_ELSEWHERE, mask_registers},
    {"undefined-long", FID_MAY_EXCEPTION, undefined_long},
    {"wrap-32", FID_MAY_EXCEPTION | FID_MAY_MEMORY, wrap_32},
    {"far-wrap-32", FID_MAY_GO_ELSEWHERE, far_wrap_32},
    {"offset", FID_MAY_GO_ELSEWHERE, offset},
    {"call-store", FID_MAY_EXCEPTION | FID_MAY_MEMORY, call_store},
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
