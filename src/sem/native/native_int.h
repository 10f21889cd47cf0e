/*
 * Shared by the files that run x87, MMX, SSE, AVX and AVX-512 on the host: the parsed
 * form of an instruction, and the entry points of each family. Never leaves sem/.
 */
#ifndef SEM_NATIVE_INT_H
#define SEM_NATIVE_INT_H

#include "cpu/vec.h"
#include "decode/encoding.h"
#include "sem/sem_int.h"

/* Where things are in vcpu.vec. AMD64 APM volume 2, "XSAVE/XRSTOR". */
enum {
    IMG_FCW = 0,
    IMG_FSW = 2,
    IMG_FTW = 4, /* abridged: a bit for each physical register, 1 = in use */
    IMG_FOP = 6,
    IMG_FIP = 8,
    IMG_FDP = 16,
    IMG_MXCSR = 24,
    IMG_MXCSR_MASK = 28,
    IMG_ST = 32, /* ST(0) first, 16 bytes each */
    IMG_XMM = 160,
    IMG_LEGACY_END = 416,
    IMG_HEADER = 512, /* XSTATE_BV, XCOMP_BV */
    IMG_HEADER_END = 576,
    IMG_YMMH = 576, /* cpu/vec.h says where the others are */
};

/* Numbers of XSAVE components. */
enum { XC_YMMH = 2, XC_OPMASK = 5, XC_ZMMH = 6, XC_HI16 = 7 };

#define FSW_ES 0x0080u
#define FSW_B 0x8000u
#define FSW_TOP 0x3800u
#define FSW_TOP_SHIFT 11
#define FX_EXCEPTIONS 0x3fu /* in FSW: flags; in FCW: their masks */

/* How a native instruction touches what is not vector state. */
enum native_kind {
    NATIVE_GPR_RM = 1u << 0,   /* the register form's r/m is a general register */
    NATIVE_GPR_REG = 1u << 1,  /* modrm.reg is a general register */
    NATIVE_GPR_READ = 1u << 2, /* that register is read */
    NATIVE_GPR_WRITE = 1u << 3,
    NATIVE_IMPLICIT = 1u << 4, /* uses rAX, rCX, rDX without naming them */
    NATIVE_FLAGS = 1u << 5,    /* reads or writes the status flags */
    NATIVE_CONTROL = 1u << 6,  /* x87 control: leaves FIP, FDP and FOP alone */
    NATIVE_FNINIT = 1u << 7,
};

#define NATIVE_CODE_MAX 16

/* --- encode.c --- */
/* False when the bytes are not of a form that we run on the host. */
bool native_parse(const struct insn *i, struct encoding *f);
unsigned native_classify(const struct encoding *f); /* enum native_kind bits */
/* The same instruction for 64-bit host mode: memory operand at [rdi], an explicit
 * general register in eax. Writes at most NATIVE_CODE_MAX bytes, returns how many. */
unsigned native_encode(const struct encoding *f, enum cpu_mode mode, uint8_t *out);

/* --- stub.c --- */
struct native_regs {
    uint64_t rax, rcx, rdx, flags;
};

/* Host code for an instruction: its memory operand is MEM; REGS may be NULL when it uses
 * none of them. 0, or what native_stub_fault() takes. The header is before it. */
typedef int native_stub(void *mem, struct native_regs *regs);
#define NATIVE_STUB_CODE 8u /* where the code is in a slot */

/* Finds or makes I's stub; NULL for bytes that we do not run. */
native_stub *native_make_stub(struct vcpu *v, const struct insn *i);
/* The guest's view of a fault that the host CPU raised in a stub, which returned RC.
 * Returns SEM_FAULT. */
int native_stub_fault(struct vcpu *v, int rc);

static inline native_stub *native_stub_of(struct vcpu *v, const struct insn *i) {
    return likely(i->native != NULL) ? (native_stub *)i->native : native_make_stub(v, i);
}

static inline uint32_t native_stub_kind(native_stub *stub) {
    uint32_t kind;

    __builtin_memcpy(&kind, (const uint8_t *)stub - NATIVE_STUB_CODE, sizeof(kind));
    return kind;
}

/* Runs parameterless host code (at most NATIVE_CODE_MAX bytes). 0, or SEM_FAULT. */
int native_run_bytes(struct vcpu *v, const uint8_t *code, unsigned len);
/* Runs I's instruction on host memory P, with no general register. 0, or SEM_FAULT. */
int native_run_at(struct vcpu *v, const struct insn *i, void *p);
/* The same of a load that may touch a guard page: 0, SEM_FAULT, or NATIVE_TOUCHED and
 * where (*ADDR). */
#define NATIVE_TOUCHED (-1)
int native_run_guarded(struct vcpu *v, const struct insn *i, void *p, uint64_t *addr);
/* A page that can be accessed, between one before and two behind that cannot. */
uint8_t *native_guarded_page(void);

/* --- what comes before the instruction, and what follows a failed access ---
 * AMD64 APM volume 2, "SSE, MMX, and x87 Programming", "Enabling ... Instructions" and
 * the exception tables of volumes 4 and 5. */

static inline int native_check_x87(struct vcpu *v) {
    return v->cr0 & (X86_CR0_EM | X86_CR0_TS) ? sem_fault(v, X86_NM) : 0;
}

static inline int native_check_mmx(struct vcpu *v) {
    if (v->cr0 & X86_CR0_EM)
        return sem_fault(v, X86_UD);
    return v->cr0 & X86_CR0_TS ? sem_fault(v, X86_NM) : 0;
}

static inline int native_check_sse(struct vcpu *v) {
    if ((v->cr0 & X86_CR0_EM) || !(v->cr4 & X86_CR4_OSFXSR))
        return sem_fault(v, X86_UD);
    return v->cr0 & X86_CR0_TS ? sem_fault(v, X86_NM) : 0;
}

static inline int native_check_avx(struct vcpu *v) {
    const uint64_t need = X86_XCR0_SSE | X86_XCR0_AVX;

    if (sem_check_vex(v))
        return SEM_FAULT;
    if (!(v->cr4 & X86_CR4_OSXSAVE) || (v->xcr0 & need) != need)
        return sem_fault(v, X86_UD);
    return v->cr0 & X86_CR0_TS ? sem_fault(v, X86_NM) : 0;
}

static inline int native_check_avx512(struct vcpu *v) {
    const uint64_t need = X86_XCR0_SSE | X86_XCR0_AVX | X86_XCR0_AVX512;

    if (sem_check_vex(v))
        return SEM_FAULT;
    if (!(v->cr4 & X86_CR4_OSXSAVE) || (v->xcr0 & need) != need)
        return sem_fault(v, X86_UD);
    return v->cr0 & X86_CR0_TS ? sem_fault(v, X86_NM) : 0;
}

/* After a failed access of the memory operand: #GP of a non-canonical address through SS
 * is #SS (AMD64 APM volume 2). Returns SEM_FAULT. */
static inline int native_mem_fault(struct vcpu *v, const struct insn *i) {
    if (v->mode == MODE_64 && i->mem.seg == SEG_SS && v->fault.vector == X86_GP)
        v->fault.vector = X86_SS;
    return SEM_FAULT;
}

/* Copies of a size that the compiler does not know: libc's would use vector registers. */
static inline void native_copy(void *to, const void *from, size_t len) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len) : : "memory");
}
static inline void native_clear(void *to, size_t len) {
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(len) : "a"(0) : "memory");
}

/* --- accessors of the parked image --- */
static inline uint16_t img16(const struct vcpu *v, unsigned off) {
    uint16_t x;
    __builtin_memcpy(&x, v->vec + off, 2);
    return x;
}
static inline uint32_t img32(const struct vcpu *v, unsigned off) {
    uint32_t x;
    __builtin_memcpy(&x, v->vec + off, 4);
    return x;
}
static inline uint64_t img64(const struct vcpu *v, unsigned off) {
    uint64_t x;
    __builtin_memcpy(&x, v->vec + off, 8);
    return x;
}
static inline void img_set16(struct vcpu *v, unsigned off, uint16_t x) {
    __builtin_memcpy(v->vec + off, &x, 2);
}
static inline void img_set32(struct vcpu *v, unsigned off, uint32_t x) {
    __builtin_memcpy(v->vec + off, &x, 4);
}
static inline void img_set64(struct vcpu *v, unsigned off, uint64_t x) {
    __builtin_memcpy(v->vec + off, &x, 8);
}
/* Marks components as in use. */
static inline void img_touch(struct vcpu *v, uint64_t components) {
    img_set64(v, IMG_HEADER, img64(v, IMG_HEADER) | components);
}
/* The summary bits follow from flags and masks, as the hardware has them. */
static inline uint16_t fsw_summary(uint16_t fsw, uint16_t fcw) {
    fsw &= (uint16_t) ~(FSW_ES | FSW_B);
    return fsw & ~fcw & FX_EXCEPTIONS ? fsw | FSW_ES | FSW_B : fsw;
}

/* --- mask.c --- */
insn_exec_fn native_exec_maskmov, native_exec_vmaskmov, native_exec_gather;

/* --- evex.c --- */
insn_exec_fn native_exec_evex_masked, native_exec_evex_gather, native_exec_scatter;

/* --- xstate.c --- */
insn_exec_fn native_exec_fxsave, native_exec_fxrstor, native_exec_xsave,
    native_exec_xrstor;

/* --- x87.c --- */
/* The state is parked: brings the vCPU's x87 pointers up to date. */
static inline void native_sync_pointers(struct vcpu *v) {
    uint64_t host_ip = img64(v, IMG_FIP);

    if ((host_ip || v->x87_at) && v->x87_ran)
        v->x87_ran(v, host_ip);
}
/* They are what the vCPU says, whatever was executed before. */
static inline void native_set_pointers(struct vcpu *v) {
    img_set64(v, IMG_FIP, 0);
    v->x87_at = 0;
}
insn_exec_fn native_exec_fnsave, native_exec_frstor, native_exec_fnstenv,
    native_exec_fldenv, native_exec_fwait;

#endif
