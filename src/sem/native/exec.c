/*
 * Executes an instruction by its stub (stub.c): checks, the operand's place in memory,
 * general registers and flags in and out, and the x87's pointers. The instructions whose
 * operand is more than a piece of memory are of the other files of this folder; the table
 * at the end says which.
 */
#include "cpu/cpuid.h"
#include "sem/native/native_int.h"

#define MXCSR_MM (1u << 17)

/* --- the x87's pointers --- */

/* AMD64 APM volume 1, "Pointers and Opcode State": set by all but control
 * instructions. OFF is the memory operand's offset, used only when there is one. */
static void track_pointers(struct vcpu *v, const struct insn *i, uint32_t kind,
                           uint64_t off) {
    const uint8_t *b = i->bytes;
    unsigned n = 0;

    if (kind & NATIVE_FNINIT) {
        v->fip = v->fdp = 0;
        v->fcs = v->fds = v->fop = 0;
        v->x87_at = 0;
    }
    if (kind & NATIVE_CONTROL)
        return;
    v->x87_at = 0;
    while (n + 2u < i->len && (b[n] & 0xf8) != 0xd8)
        n++;
    v->fop = (uint16_t)((b[n] & 7) << 8 | b[n + 1]);
    v->fip = v->rip;
    /* In a counted run engines agree, and the translator does not follow these. */
    if (v->counted)
        return;
    v->fcs = v->seg[SEG_CS].sel;
    if (i->mem.access) {
        v->fdp = off;
        v->fds = v->seg[i->mem.seg].sel;
    }
}

bool sem_sets_fip(const struct insn *i) {
    struct encoding f;

    return (i->flags & INSN_X87) && native_parse(i, &f) &&
           !(native_classify(&f) & NATIVE_CONTROL);
}

/* --- general registers and flags --- */

/* The explicit general register's number. */
static unsigned gpr_of(const struct insn *i) {
    for (unsigned k = 0; k < i->nops && k < ARRAY_SIZE(i->opnd); k++)
        if (i->opnd[k].kind == OPND_REG)
            return i->opnd[k].off / 8u & 15;
    return 0;
}

static int run_full(struct vcpu *v, const struct insn *i, native_stub *stub,
                    uint32_t kind, void *p) {
    /* Where we are at CPL 0 (docs/svm.md), what is loaded is the host's IF, too. */
    struct native_regs r = {.flags = (v->rflags & X86_FL_STATUS) | X86_FL_IF};
    unsigned gpr = 0;
    int rc;

    if (kind & NATIVE_IMPLICIT) {
        r.rax = v->gpr[REG_RAX];
        r.rcx = v->gpr[REG_RCX];
        r.rdx = v->gpr[REG_RDX];
    } else if (kind & (NATIVE_GPR_READ | NATIVE_GPR_WRITE)) {
        gpr = gpr_of(i);
        r.rax = v->gpr[gpr];
    }
    rc = stub(p, &r);
    if (rc)
        return rc;
    if (kind & NATIVE_IMPLICIT) {
        v->gpr[REG_RAX] = r.rax;
        v->gpr[REG_RCX] = r.rcx;
        v->gpr[REG_RDX] = r.rdx;
    } else if (kind & NATIVE_GPR_WRITE) {
        /* Outside 64-bit mode W does not make it wider. */
        v->gpr[gpr] = v->mode == MODE_64 ? r.rax : (uint32_t)r.rax;
    }
    if (kind & NATIVE_FLAGS)
        v->rflags = (v->rflags & ~(uint64_t)X86_FL_STATUS) | (r.flags & X86_FL_STATUS);
    return 0;
}

static inline int run(struct vcpu *v, const struct insn *i, native_stub *stub, void *p,
                      uint64_t off) {
    uint32_t kind = native_stub_kind(stub);
    int rc;

    vec_load(v);
    if (likely(!(kind & ~(uint32_t)(NATIVE_CONTROL | NATIVE_FNINIT))))
        rc = stub(p, NULL);
    else
        rc = run_full(v, i, stub, kind, p);
    if (unlikely(rc))
        return native_stub_fault(v, rc);
    v->cnt->native_runs++;
    if (i->flags & INSN_X87)
        track_pointers(v, i, kind, off);
    return SEM_NEXT;
}

/* --- execution --- */

static inline __attribute__((always_inline)) int check(struct vcpu *v,
                                                       const struct insn *i) {
    if (i->flags & INSN_AVX512)
        return native_check_avx512(v);
    if (i->flags & INSN_VEX)
        return native_check_avx(v);
    if (i->flags & INSN_X87)
        return native_check_x87(v);
    if (i->flags & INSN_MMX)
        return native_check_mmx(v);
    return native_check_sse(v);
}

static int exec_reg(struct vcpu *v, const struct insn *i) {
    native_stub *stub;
    int rc = check(v, i);

    if (unlikely(rc))
        return rc;
    stub = native_stub_of(v, i);
    if (unlikely(!stub))
        return sem_fault(v, X86_UD);
    return run(v, i, stub, NULL, 0);
}

/* With an unmasked exception an x87 store leaves memory as it is: a bounce buffer must
 * hold what is there. */
static bool may_skip_store(const struct vcpu *v, const struct insn *i) {
    uint16_t fcw = img16(v, IMG_FCW);

    if (!(i->flags & INSN_X87))
        return false;
    if (v->vec_live)
        __asm__ volatile("fnstcw %0" : "=m"(fcw));
    return (fcw & FX_EXCEPTIONS) != FX_EXCEPTIONS;
}

/* An x87 exception is pending and I waits: #MF then comes before any fault of its
 * operand. Intel SDM volume 3, "Priority Among Simultaneous Exceptions and Interrupts".
 */
static bool mf_comes_first(const struct vcpu *v, const struct insn *i) {
    uint16_t fcw = img16(v, IMG_FCW), fsw = img16(v, IMG_FSW);
    uint8_t op = i->bytes[i->off_opcode], digit = i->bytes[i->off_modrm] >> 3 & 7;

    if (!(i->flags & (INSN_X87 | INSN_MMX)))
        return false;
    /* CVTPI2PS from memory reads no MMX register. */
    if (!(i->flags & INSN_X87) && i->bytes[i->off_modrm - 1] == 0x2a)
        return false;
    if ((i->flags & INSN_X87) && (op == 0xd9 || op == 0xdd) && digit == 7)
        return false; /* FNSTCW, FNSTSW; FNSTENV and FNSAVE do not come here */
    if (v->vec_live) {
        __asm__ volatile("fnstcw %0" : "=m"(fcw));
        __asm__ volatile("fnstsw %0" : "=m"(fsw));
    }
    return (fsw & ~fcw & FX_EXCEPTIONS) != 0;
}

static int operand_fault(struct vcpu *v, const struct insn *i) {
    return mf_comes_first(v, i) ? sem_fault(v, X86_MF) : SEM_FAULT;
}

/* The slow half of exec_mem(): MMIO, page crossings, traced pages, first touch. */
static __attribute__((noinline)) int exec_window(struct vcpu *v, const struct insn *i,
                                                 native_stub *stub, struct gva at,
                                                 uint64_t off) {
    struct mmu_window w;
    bool wr = i->mem.access & OPND_WRITE;
    bool rd = i->mem.access & OPND_READ || (wr && may_skip_store(v, i));
    int rc;

    if (mmu_window_open(v, &w, at, i->mem.size, rd, wr)) {
        native_mem_fault(v, i);
        return operand_fault(v, i);
    }
    rc = run(v, i, stub, w.p, off);
    if (rc == SEM_NEXT && wr)
        mmu_window_commit(v, &w);
    return rc;
}

/* Is a misaligned operand left to the host's own check? MXCSR.MM (AMD's misaligned
 * exception mask) makes it depend on the instruction; the SHA instructions ask for
 * alignment on Intel's CPUs and not on AMD's. Otherwise #GP comes before any #PF. */
static bool host_checks_alignment(struct vcpu *v, const struct insn *i) {
    uint32_t mxcsr = img32(v, IMG_MXCSR);

    if (v->vec_live)
        __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    return (mxcsr & MXCSR_MM) || (i->feature == CPUID_F_SHA && cpuid_is_amd(v->cpuid));
}

/* EVEX.66.0F38.W0 13 and EVEX.66.0F3A.W0 1D: the same two. */
static bool is_evex_f16c(const struct insn *i) {
    const uint8_t *op = i->bytes + i->off_opcode;
    unsigned map = op[-3] & 7;

    return i->flags & INSN_AVX512 && (op[-2] & 3) == 1 &&
           ((map == 2 && *op == 0x13) || (map == 3 && *op == 0x1d));
}

/* VCVTPH2PS and VCVTPS2PH raise no #AC on Intel's CPUs. Intel SDM volume 2, "Exceptions
 * Type 11"; AMD64 APM volume 4, "VCVTPH2PS". */
static bool never_ac(const struct vcpu *v, const struct insn *i) {
    return (i->feature == CPUID_F_F16C || is_evex_f16c(i)) && !cpuid_is_amd(v->cpuid);
}

/* Where I's operand lies. #GP for a misaligned one comes before any other fault. */
static int operand_linear(struct vcpu *v, const struct insn *i, uint64_t off,
                          struct gva *at) {
    unsigned size = i->mem.size;

    *at = gva((off + v->segbase[i->mem.seg]) & v->lin_mask);
    if (unlikely((i->flags & INSN_ALIGNED) && (at->a & (size - 1)) &&
                 !host_checks_alignment(v, i)))
        return sem_fault_err(v, X86_GP, 0);
    if (likely(!sem_linear(v, i->mem.seg, off, size, i->mem.access & OPND_WRITE, at)))
        return 0;
    return v->fault.vector == X86_AC && never_ac(v, i) ? 0 : SEM_FAULT;
}

static int exec_mem(struct vcpu *v, const struct insn *i) {
    unsigned size = i->mem.size;
    bool wr = i->mem.access & OPND_WRITE;
    native_stub *stub;
    uint64_t off;
    struct gva at;
    uint8_t *p;
    int rc = check(v, i);

    if (unlikely(rc))
        return rc;
    stub = native_stub_of(v, i);
    if (unlikely(!stub))
        return sem_fault(v, X86_UD);
    off = sem_ea(v, i);
    if (unlikely(operand_linear(v, i, off, &at)))
        return operand_fault(v, i);
    p = mmu_hit(v->mmu->data, at, size, wr ? MMU_WRITE : MMU_READ);
    if (unlikely(!p))
        return exec_window(v, i, stub, at, off);
    return run(v, i, stub, p, off);
}

insn_exec_fn *sem_bind_native(const struct vcpu *v, const struct insn *i) {
    static insn_exec_fn *const special[OP_COUNT] = {
        [OP_fxsave] = native_exec_fxsave,     [OP_fxrstor] = native_exec_fxrstor,
        [OP_xsave] = native_exec_xsave,       [OP_xsaveopt] = native_exec_xsave,
        [OP_xsavec] = native_exec_xsave,      [OP_xsaves] = native_exec_xsave,
        [OP_xrstor] = native_exec_xrstor,     [OP_xrstors] = native_exec_xrstor,
        [OP_fnsave] = native_exec_fnsave,     [OP_frstor] = native_exec_frstor,
        [OP_fnstenv] = native_exec_fnstenv,   [OP_fldenv] = native_exec_fldenv,
        [OP_fwait] = native_exec_fwait,       [OP_maskmov] = native_exec_maskmov,
        [OP_vmaskmov] = native_exec_vmaskmov, [OP_gather] = native_exec_gather,
        [OP_scatter] = native_exec_scatter,
    };
    struct encoding f;

    if (i->op >= OP_COUNT)
        return NULL;
    if (i->op == OP_gather && (i->flags & INSN_AVX512))
        return native_exec_evex_gather;
    if (i->op != OP_native)
        return special[i->op];
    if (!native_parse(i, &f))
        return sem_exec_ud;
    if (!f.is_mem)
        return exec_reg;
    if (i->mem.size && i->mem.size <= 64 && (i->flags & INSN_MASKED))
        return native_exec_evex_masked;
    /* A memory operand of a size that no window takes is none of ours. */
    return i->mem.size && i->mem.size <= 64 && i->mem.access ? exec_mem : sem_exec_ud;
}
