/*
 * x87, MMX, SSE, AVX and AVX-512 by running the same instruction on the host.
 *
 * Each distinct re-encoded instruction (native_encode.c) has a stub in an arena that is
 * mapped twice, writable and executable. A stub is one slot of 64 bytes:
 *
 *   0..7   header: enum native_kind bits
 *   8..    light: insn; xor eax,eax; ret
 *          full:  load rax, rcx, rdx (and flags, if the instruction uses them) from
 *                 [rsi] (struct native_regs); insn; store them back; xor eax,eax; ret
 *
 * with the memory operand at [rdi]. Slot 0 is the fault exit, a bare `ret`: when the
 * host CPU faults in the arena, the signal handler puts 0x100 + vector in rax and goes on
 * there. Pushes and pops in a stub are balanced around the instruction, so the return
 * address is on top of the stack at any point that can fault. The instruction has changed
 * nothing then, and the guest gets the fault.
 *
 * A hash table of slot numbers finds a stub by its contents, so equal instructions share
 * one. When the arena is full the last slot is rewritten at each use and nothing points
 * to it; earlier stubs stay valid for ever, since decoded code keeps pointers to them.
 *
 * Invariants: popfq in a stub sees status flags only, never TF, AC or DF. No GPR of the
 * guest is live in the host here. Guest memory is touched only through a pointer that
 * came from mmu_hit() or a window. Windows keep the address modulo 64, so the host's
 * alignment checks are the guest's. The one exception is a masked load, which may run on
 * guard pages: whether it touches them is for the host's CPU to say (native_evex.c).
 *
 * The arena is a static: it is host code that belongs to no VM, and the signal handler
 * has no other way to it. docs/native.md has the rest.
 */
#include <errno.h>

#include "base/os.h"
#include "cpu/cpuid.h"
#include "sem/native_int.h"

#define SLOT 64u
#define CODE_AT 8u
#define ARENA_SIZE (4u << 20)
#define SLOTS (ARENA_SIZE / SLOT)
#define SCRATCH (SLOTS - 1)
#define HASH_SIZE (SLOTS * 2)
#define MXCSR_MM (1u << 17)
#define STUB_FAULT 0x100 /* + vector: what a stub returns after a host fault */

struct native_regs {
    uint64_t rax, rcx, rdx, flags;
};

typedef int stub_fn(void *mem, struct native_regs *regs);

static struct {
    struct os_code code;
    uint8_t *guarded;    /* a page between guard pages */
    uint64_t fault_addr; /* where a stub touched one */
    uint32_t used;       /* slots; 0: not set up */
    uint32_t hash[HASH_SIZE];
} arena;

/* --- host faults --- */

static bool on_guard(uint64_t addr) {
    return addr - (uint64_t)(uintptr_t)(arena.guarded - 4096) < 4 * 4096;
}

static bool on_fault(void *arg, struct os_fault *f) {
    switch (f->trapno) {
    case X86_PF:
        if (!on_guard(f->addr))
            return false;
        arena.fault_addr = f->addr;
        /* fallthrough */
    case X86_UD:
    case X86_GP:
    case X86_MF:
    case X86_XM:
        f->regs.gpr[REG_RAX] = STUB_FAULT + f->trapno;
        f->regs.rip = (uint64_t)(uintptr_t)arena.code.rx;
        return true;
    default:
        return false;
    }
}

int sem_init(void) {
    int rc;

    if (arena.used)
        return 0;
    if (!arena.guarded && (rc = os_guarded_page(&arena.guarded)))
        return rc;
    rc = os_code_map(ARENA_SIZE, &arena.code);
    if (rc)
        return rc;
    arena.code.rw[0] = 0xc3;
    rc = os_fault_range(arena.code.rx, arena.code.rx + ARENA_SIZE, on_fault, NULL);
    if (rc) {
        os_code_unmap(&arena.code);
        return rc;
    }
    arena.used = 1;
    return 0;
}

uint8_t *native_guarded_page(void) {
    return arena.guarded;
}

/* The guest's view of a fault that the host CPU raised in a stub. */
static int stub_fault(struct vcpu *v, int rc) {
    switch (rc - STUB_FAULT) {
    case X86_GP:
        return sem_fault_err(v, X86_GP, 0);
    case X86_MF:
        return sem_fault(v, X86_MF);
    case X86_XM:
        /* AMD64 APM volume 2, "SIMD Floating-Point Exception": #UD without OSXMMEXCPT */
        return sem_fault(v, v->cr4 & X86_CR4_OSXMMEXCPT ? X86_XM : X86_UD);
    default:
        return sem_fault(v, X86_UD);
    }
}

/* --- building stubs --- */

static unsigned put(uint8_t *slot, unsigned at, const void *bytes, unsigned len) {
    native_copy(slot + at, bytes, len);
    return at + len;
}

/* SLOT is 64 zero bytes. */
static void assemble(uint8_t *slot, uint32_t kind, const uint8_t *insn, unsigned len) {
    static const uint8_t load[] = {
        0x48, 0x8b, 0x06,       /* mov rax, [rsi] */
        0x48, 0x8b, 0x4e, 0x08, /* mov rcx, [rsi+8] */
        0x48, 0x8b, 0x56, 0x10, /* mov rdx, [rsi+16] */
    };
    static const uint8_t load_flags[] = {
        0xff, 0x76, 0x18, 0x9d, /* push qword [rsi+24]; popfq */
    };
    static const uint8_t store_flags[] = {
        0x9c, 0x8f, 0x46, 0x18, /* pushfq; pop qword [rsi+24] */
    };
    static const uint8_t store[] = {
        0x48, 0x89, 0x06,       /* mov [rsi], rax */
        0x48, 0x89, 0x4e, 0x08, /* mov [rsi+8], rcx */
        0x48, 0x89, 0x56, 0x10, /* mov [rsi+16], rdx */
    };
    static const uint8_t leave[] = {0x31, 0xc0, 0xc3}; /* xor eax, eax; ret */
    bool full =
        kind & (NATIVE_GPR_READ | NATIVE_GPR_WRITE | NATIVE_IMPLICIT | NATIVE_FLAGS);
    unsigned n = CODE_AT;

    _Static_assert(CODE_AT + sizeof(load) + sizeof(load_flags) + NATIVE_CODE_MAX +
                           sizeof(store_flags) + sizeof(store) + sizeof(leave) <=
                       SLOT,
                   "a full stub fits a slot");
    __builtin_memcpy(slot, &kind, sizeof(kind));
    if (full)
        n = put(slot, n, load, sizeof(load));
    if (kind & NATIVE_FLAGS)
        n = put(slot, n, load_flags, sizeof(load_flags));
    n = put(slot, n, insn, len);
    if (kind & NATIVE_FLAGS)
        n = put(slot, n, store_flags, sizeof(store_flags));
    if (full)
        n = put(slot, n, store, sizeof(store));
    put(slot, n, leave, sizeof(leave));
}

static uint32_t hash_slot(const uint8_t *slot) {
    uint64_t h = 0, x;

    for (unsigned k = 0; k < SLOT; k += 8) {
        __builtin_memcpy(&x, slot + k, 8);
        h = (h ^ x) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 29;
    }
    return (uint32_t)(h >> 32) & (HASH_SIZE - 1);
}

static bool same_slot(const uint8_t *a, const uint8_t *b) {
    uint64_t x, y;

    for (unsigned k = 0; k < SLOT; k += 8) {
        __builtin_memcpy(&x, a + k, 8);
        __builtin_memcpy(&y, b + k, 8);
        if (x != y)
            return false;
    }
    return true;
}

/* Code was written through another mapping: the CPU must not run what it prefetched.
 * AMD64 APM volume 2, "Cross-Modifying Code": execute a serializing instruction. */
static void serialize(void) {
    uint32_t a = 0, b, c = 0, d;

    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
}

/* Finds or makes the stub. *KEEP: the address stays valid for ever. */
static stub_fn *intern(struct vcpu *v, uint32_t kind, const uint8_t *insn, unsigned len,
                       bool *keep) {
    _Alignas(8) uint8_t slot[SLOT] = {0};
    uint32_t h, n;

    assemble(slot, kind, insn, len);
    *keep = true;
    for (h = hash_slot(slot); (n = arena.hash[h]); h = (h + 1) & (HASH_SIZE - 1))
        if (same_slot(arena.code.rw + n * SLOT, slot))
            return (stub_fn *)(arena.code.rx + n * SLOT + CODE_AT);
    if (arena.used < SCRATCH) {
        n = arena.used++;
        arena.hash[h] = n;
        v->cnt->native_stubs++;
    } else {
        n = SCRATCH;
        *keep = false;
    }
    __builtin_memcpy(arena.code.rw + n * SLOT, slot, SLOT);
    serialize();
    return (stub_fn *)(arena.code.rx + n * SLOT + CODE_AT);
}

/* VZEROUPPER and VZEROALL outside 64-bit mode leave registers 8 to 15 alone (Intel SDM
 * volume 2, their pages), and stubs run in 64-bit mode: one instruction for each of the
 * others. */
#define ZERO_LOW_LEN 32u
static unsigned zero_low(bool all, uint8_t *code) {
    for (unsigned r = 0; r < 8; r++) {
        uint8_t *b = code + 4 * r;

        b[0] = 0xc5;
        b[1] = (uint8_t)(all ? 0xf8 - 8 * r : 0xf8); /* vvvv, inverted */
        b[2] = all ? 0x57 : 0x28;                    /* vxorps, vmovaps */
        b[3] = (uint8_t)(0xc0 | r << 3 | r);
    }
    return ZERO_LOW_LEN;
}

/* NULL for bytes that we do not run. */
static stub_fn *make_stub(struct vcpu *v, const struct insn *i) {
    struct native_form f;
    uint8_t code[NATIVE_CODE_MAX > ZERO_LOW_LEN ? NATIVE_CODE_MAX : ZERO_LOW_LEN];
    stub_fn *stub;
    unsigned len;
    bool keep;

    if (!native_parse(i, &f))
        return NULL;
    if (i->mode != MODE_64 && f.vex && f.map == 1 && f.opcode == 0x77)
        len = zero_low(f.l, code);
    else
        len = native_encode(&f, i->mode, code);
    stub = intern(v, native_classify(&f), code, len, &keep);
    if (keep) /* the decoded instruction's own cache of the lookup */
        ((struct insn *)i)->native = (void *)stub;
    return stub;
}

static inline stub_fn *stub_of(struct vcpu *v, const struct insn *i) {
    return likely(i->native != NULL) ? (stub_fn *)i->native : make_stub(v, i);
}

static inline uint32_t stub_kind(stub_fn *stub) {
    uint32_t kind;

    __builtin_memcpy(&kind, (const uint8_t *)stub - CODE_AT, sizeof(kind));
    return kind;
}

int native_run_bytes(struct vcpu *v, const uint8_t *code, unsigned len) {
    bool keep;
    stub_fn *stub = intern(v, 0, code, len, &keep);
    int rc;

    vec_load(v);
    rc = stub(NULL, NULL);
    return rc ? stub_fault(v, rc) : 0;
}

/* What the instruction's stub returns for P; for bytes that we do not run, #UD. */
static int run_stub(struct vcpu *v, const struct insn *i, void *p) {
    stub_fn *stub = stub_of(v, i);

    if (!stub)
        return STUB_FAULT + X86_UD;
    vec_load(v);
    return stub(p, NULL);
}

int native_run_at(struct vcpu *v, const struct insn *i, void *p) {
    int rc = run_stub(v, i, p);

    return rc ? stub_fault(v, rc) : 0;
}

int native_run_guarded(struct vcpu *v, const struct insn *i, void *p, uint64_t *addr) {
    int rc = run_stub(v, i, p);

    if (rc == STUB_FAULT + X86_PF) {
        *addr = arena.fault_addr;
        return NATIVE_TOUCHED;
    }
    if (rc)
        return stub_fault(v, rc);
    v->cnt->native_runs++;
    return 0;
}

/* --- what comes before the instruction ---
 * AMD64 APM volume 2, "SSE, MMX, and x87 Programming", "Enabling ... Instructions" and
 * the exception tables of volumes 4 and 5. */

int native_check_x87(struct vcpu *v) {
    return v->cr0 & (X86_CR0_EM | X86_CR0_TS) ? sem_fault(v, X86_NM) : 0;
}

int native_check_mmx(struct vcpu *v) {
    if (v->cr0 & X86_CR0_EM)
        return sem_fault(v, X86_UD);
    return v->cr0 & X86_CR0_TS ? sem_fault(v, X86_NM) : 0;
}

int native_check_sse(struct vcpu *v) {
    if ((v->cr0 & X86_CR0_EM) || !(v->cr4 & X86_CR4_OSFXSR))
        return sem_fault(v, X86_UD);
    return v->cr0 & X86_CR0_TS ? sem_fault(v, X86_NM) : 0;
}

int native_check_avx(struct vcpu *v) {
    const uint64_t need = X86_XCR0_SSE | X86_XCR0_AVX;

    if (sem_check_vex(v))
        return SEM_FAULT;
    if (!(v->cr4 & X86_CR4_OSXSAVE) || (v->xcr0 & need) != need)
        return sem_fault(v, X86_UD);
    return v->cr0 & X86_CR0_TS ? sem_fault(v, X86_NM) : 0;
}

int native_check_avx512(struct vcpu *v) {
    const uint64_t need = X86_XCR0_SSE | X86_XCR0_AVX | X86_XCR0_AVX512;

    if (sem_check_vex(v))
        return SEM_FAULT;
    if (!(v->cr4 & X86_CR4_OSXSAVE) || (v->xcr0 & need) != need)
        return sem_fault(v, X86_UD);
    return v->cr0 & X86_CR0_TS ? sem_fault(v, X86_NM) : 0;
}

static inline int check(struct vcpu *v, const struct insn *i) {
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

int native_mem_fault(struct vcpu *v, const struct insn *i) {
    if (v->mode == MODE_64 && i->mem.seg == SEG_SS && v->fault.vector == X86_GP)
        v->fault.vector = X86_SS;
    return SEM_FAULT;
}

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
    struct native_form f;

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

static int run_full(struct vcpu *v, const struct insn *i, stub_fn *stub, uint32_t kind,
                    void *p) {
    struct native_regs r = {.flags = v->rflags & X86_FL_STATUS};
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
        v->gpr[gpr] = r.rax;
    }
    if (kind & NATIVE_FLAGS)
        v->rflags = (v->rflags & ~(uint64_t)X86_FL_STATUS) | (r.flags & X86_FL_STATUS);
    return 0;
}

static inline int run(struct vcpu *v, const struct insn *i, stub_fn *stub, void *p,
                      uint64_t off) {
    uint32_t kind = stub_kind(stub);
    int rc;

    vec_load(v);
    if (likely(!(kind & ~(uint32_t)(NATIVE_CONTROL | NATIVE_FNINIT))))
        rc = stub(p, NULL);
    else
        rc = run_full(v, i, stub, kind, p);
    if (unlikely(rc))
        return stub_fault(v, rc);
    v->cnt->native_runs++;
    if (i->flags & INSN_X87)
        track_pointers(v, i, kind, off);
    return SEM_NEXT;
}

/* --- execution --- */

static int exec_reg(struct vcpu *v, const struct insn *i) {
    stub_fn *stub;
    int rc = check(v, i);

    if (unlikely(rc))
        return rc;
    stub = stub_of(v, i);
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
                                                 stub_fn *stub, struct gva at,
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

/* VCVTPH2PS and VCVTPS2PH raise no #AC on Intel's CPUs. Intel SDM volume 2, "Exceptions
 * Type 11"; AMD64 APM volume 4, "VCVTPH2PS". */
static bool never_ac(const struct vcpu *v, const struct insn *i) {
    return i->feature == CPUID_F_F16C && !cpuid_is_amd(v->cpuid);
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
    stub_fn *stub;
    uint64_t off;
    struct gva at;
    uint8_t *p;
    int rc = check(v, i);

    if (unlikely(rc))
        return rc;
    stub = stub_of(v, i);
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
    struct native_form f;

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
