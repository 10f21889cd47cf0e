/*
 * System instructions: ports, interrupt flag, time, MSRs, CPUID, XCR0, hypercalls.
 * Control and debug registers are in control.c.
 *
 * Whatever leaves for the board parks the vector state first (cpu/vec.h) and answers
 * SEM_STOP, because the board may have raised an event.
 * AMD64 APM volume 3, "System Instruction Reference".
 */
#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "cpu/vec.h"
#include "sem/control_int.h"
#include "sem/operand.h"
#include "x86/msr.h"

static int gp0(struct vcpu *v) {
    return sem_fault_err(v, X86_GP, 0);
}

static unsigned iopl(const struct vcpu *v) {
    return (unsigned)v->rflags >> X86_FL_IOPL_SHIFT & 3;
}

static void leave(struct vcpu *v, struct exit *e) {
    if (v->hooks && v->hooks->exit)
        v->hooks->exit(v->hooks_arg, v, e);
}

/* --- flags --- */

void sem_write_flags(struct vcpu *v, uint64_t value, uint64_t mask) {
    uint64_t old = v->rflags;
    v->rflags = (old & ~mask) | (value & mask) | X86_FL_ONE;
    if ((old ^ v->rflags) & (X86_FL_AC | X86_FL_VM)) {
        vcpu_update_mode(v);
        mmu_context_changed(v);
    }
}

bool sem_interruptible(const struct vcpu *v) {
    return (v->rflags & X86_FL_IF) && !v->irq_shadow;
}

/* Which flag CLI and STI work on: IF, VIF, or none (#GP). AMD64 APM volume 2, "Virtual
 * Interrupts". */
static uint64_t interrupt_flag(const struct vcpu *v) {
    if (v->cpl <= iopl(v))
        return X86_FL_IF;
    if (v->rflags & X86_FL_VM)
        return v->cr4 & X86_CR4_VME ? X86_FL_VIF : 0;
    return v->cpl == 3 && (v->cr4 & X86_CR4_PVI) ? X86_FL_VIF : 0;
}

static int exec_cli(struct vcpu *v, const struct insn *i) {
    uint64_t flag = interrupt_flag(v);
    if (!flag)
        return gp0(v);
    v->rflags &= ~flag;
    return SEM_NEXT;
}

static int exec_sti(struct vcpu *v, const struct insn *i) {
    uint64_t flag = interrupt_flag(v);
    if (!flag || (flag == X86_FL_VIF && (v->rflags & X86_FL_VIP)))
        return gp0(v);
    if (flag == X86_FL_IF && !(v->rflags & X86_FL_IF))
        v->irq_shadow = true;
    v->rflags |= flag;
    return SEM_STOP;
}

static int exec_clac_stac(struct vcpu *v, const struct insn *i) {
    if (v->cpl)
        return sem_fault(v, X86_UD);
    sem_write_flags(v, i->op == OP_stac ? X86_FL_AC : 0, X86_FL_AC);
    return SEM_NEXT;
}

static int exec_hlt(struct vcpu *v, const struct insn *i) {
    if (v->cpl)
        return gp0(v);
    v->halted = true;
    return SEM_STOP;
}

/* --- ports --- */

/* AMD64 APM volume 2, "I/O-Permission Bitmap": a clear bit for every byte allows. Two
 * bytes are always read, so the map ends with a byte of ones. */
static int check_bitmap(struct vcpu *v, uint16_t port, unsigned size) {
    unsigned type = v->tr.ar & X86_AR_TYPE;
    uint64_t mask = v->long_mode ? ~0ull : 0xffffffffull;
    uint16_t map = 0, bits = 0;
    if (!(v->tr.ar & X86_AR_P) ||
        (type != X86_DESC_TSS32 && type != X86_DESC_TSS32_BUSY) || v->tr.limit < 103)
        return gp0(v);
    if (mmu_sys_read(v, gva((v->tr.base + 102) & mask), &map, 2))
        return SEM_FAULT;
    uint32_t off = map + (uint32_t)port / 8;
    if (off + 1 > v->tr.limit)
        return gp0(v);
    if (mmu_sys_read(v, gva((v->tr.base + off) & mask), &bits, 2))
        return SEM_FAULT;
    return (bits >> (port & 7)) & ((1u << size) - 1) ? gp0(v) : 0;
}

/* AMD64 APM volume 2, "Breakpoint-Address Registers": R/W 10b with CR4.DE. */
static void note_io_breakpoints(struct vcpu *v, uint16_t port, unsigned size) {
    for (unsigned n = 0; n < 4; n++) {
        unsigned control = (unsigned)(v->dr[7] >> (16 + 4 * n)) & 15;
        unsigned mask = control >> 2 == 2 ? 7 : control >> 2;
        uint64_t start = v->dr[n] & ~(uint64_t)mask;
        if ((control & 3) == 2 && (v->dr[7] >> (2 * n) & 3) && start < port + size &&
            port <= start + mask)
            v->pending_db |= 1u << n;
    }
}

int sem_io_check(struct vcpu *v, uint16_t port, unsigned size) {
    bool restricted =
        (v->cr0 & X86_CR0_PE) && ((v->rflags & X86_FL_VM) || v->cpl > iopl(v));
    if (restricted && check_bitmap(v, port, size))
        return SEM_FAULT;
    if ((v->dr[7] & 0xff) && (v->cr4 & X86_CR4_DE))
        note_io_breakpoints(v, port, size);
    return 0;
}

static int exec_in_out(struct vcpu *v, const struct insn *i) {
    bool out = i->op == OP_out;
    const struct operand *port = &i->opnd[out ? 0 : 1], *reg = &i->opnd[out ? 1 : 0];
    unsigned size = reg->size > 4 ? 4 : reg->size;
    struct exit e = {.reason = EXIT_io, .write = out, .size = (uint8_t)size};
    e.port = port->kind == OPND_IMM ? (uint8_t)i->imm : (uint16_t)v->gpr[REG_RDX];
    if (sem_io_check(v, e.port, size))
        return SEM_FAULT;
    if (out)
        e.data = sem_get(v, reg->off, size);
    leave(v, &e);
    if (!out)
        sem_put(v, reg->off, size, e.data);
    return SEM_STOP;
}

/* --- MSRs, time --- */

static uint64_t edx_eax(const struct vcpu *v) {
    return (uint32_t)v->gpr[REG_RAX] | v->gpr[REG_RDX] << 32;
}

static void set_edx_eax(struct vcpu *v, uint64_t value) {
    v->gpr[REG_RAX] = (uint32_t)value;
    v->gpr[REG_RDX] = value >> 32;
}

/* A device's register: true if the access went well. */
static bool device_msr(struct vcpu *v, uint32_t index, bool write, uint64_t *value) {
    struct exit e = {
        .reason = EXIT_msr, .write = write, .size = 8, .msr = index, .data = *value};
    if (!v->hooks || !v->hooks->exit)
        return false;
    leave(v, &e);
    *value = e.data;
    return !e.failed;
}

static int exec_rdmsr(struct vcpu *v, const struct insn *i) {
    uint32_t index = (uint32_t)v->gpr[REG_RCX];
    uint64_t value = 0;
    if (v->cpl)
        return gp0(v);
    enum msr_result r = msr_read(v, index, &value);
    if (r == MSR_FAULT || (r == MSR_NOT_OURS && !device_msr(v, index, false, &value)))
        return gp0(v);
    set_edx_eax(v, value);
    return SEM_NEXT;
}

static int exec_wrmsr(struct vcpu *v, const struct insn *i) {
    uint32_t index = (uint32_t)v->gpr[REG_RCX];
    uint64_t value = edx_eax(v), efer = v->efer;
    if (v->cpl)
        return gp0(v);
    sem_serialize(v);
    enum msr_result r = msr_write(v, index, value);
    if (r == MSR_FAULT || (r == MSR_NOT_OURS && !device_msr(v, index, true, &value)))
        return gp0(v);
    if ((efer ^ v->efer) & (X86_EFER_NXE | X86_EFER_LMA))
        mmu_mode_changed(v);
    return SEM_STOP;
}

static int exec_rdtsc(struct vcpu *v, const struct insn *i) {
    uint64_t tsc = 0;
    if (v->cpl && (v->cr4 & X86_CR4_TSD))
        return gp0(v);
    if (msr_read(v, X86_MSR_TSC, &tsc) != MSR_OK)
        return gp0(v);
    set_edx_eax(v, tsc);
    if (i->op == OP_rdtscp)
        v->gpr[REG_RCX] = (uint32_t)v->tsc_aux;
    return SEM_NEXT;
}

/* The model offers no performance monitoring; AMD's four old counters exist and stand
 * still. */
static int exec_rdpmc(struct vcpu *v, const struct insn *i) {
    if (v->cpl && !(v->cr4 & X86_CR4_PCE))
        return gp0(v);
    if (!cpuid_is_amd(v->cpuid) || (uint32_t)v->gpr[REG_RCX] > 3)
        return gp0(v);
    set_edx_eax(v, 0);
    return SEM_NEXT;
}

#define APIC_BASE_EN (1u << 11)
#define CPUID_1_EDX_APIC (1u << 9)

static int exec_cpuid(struct vcpu *v, const struct insn *i) {
    uint32_t leaf = (uint32_t)v->gpr[REG_RAX];
    struct exit e = {.reason = EXIT_cpuid, .data = APIC_BASE_EN};
    sem_serialize(v);
    leave(v, &e);
    struct cpuid_regs r = cpuid_query(v, leaf, (uint32_t)v->gpr[REG_RCX]);
    /* AMD64 APM volume 2, "Local APIC Enable": the feature bit follows the enable. */
    if (leaf == 1 && !(e.data & APIC_BASE_EN))
        r.edx &= ~CPUID_1_EDX_APIC;
    v->gpr[REG_RAX] = r.eax;
    v->gpr[REG_RBX] = r.ebx;
    v->gpr[REG_RCX] = r.ecx;
    v->gpr[REG_RDX] = r.edx;
    return SEM_NEXT;
}

/* --- XCR0 --- */

#define XGETBV_INUSE (1u << 2) /* leaf 0xD, subleaf 1, EAX */

/* Index 1: XCR0 & XINUSE. A component may always count as in use. */
static int exec_xgetbv(struct vcpu *v, const struct insn *i) {
    uint32_t index = (uint32_t)v->gpr[REG_RCX];
    if (!(v->cr4 & X86_CR4_OSXSAVE))
        return sem_fault(v, X86_UD);
    if (index > 1 || (index == 1 && !(cpuid_query(v, 0xd, 1).eax & XGETBV_INUSE)))
        return gp0(v);
    set_edx_eax(v, v->xcr0);
    return SEM_NEXT;
}

/* AVX builds on SSE; AVX-512's three come together, on AVX. Intel SDM volume 1, "Enabling
 * the XSAVE Feature Set". */
static bool xcr0_valid(const struct vcpu *v, uint64_t value) {
    uint64_t avx512 = value & X86_XCR0_AVX512;
    if ((value & ~cpuid_xcr0_valid(v->cpuid)) || !(value & X86_XCR0_X87))
        return false;
    if ((value & X86_XCR0_AVX) && !(value & X86_XCR0_SSE))
        return false;
    return !avx512 || (avx512 == X86_XCR0_AVX512 && (value & X86_XCR0_AVX));
}

static int exec_xsetbv(struct vcpu *v, const struct insn *i) {
    uint64_t value = edx_eax(v);
    if (!(v->cr4 & X86_CR4_OSXSAVE))
        return sem_fault(v, X86_UD);
    if (v->cpl || (uint32_t)v->gpr[REG_RCX] || !xcr0_valid(v, value))
        return gp0(v);
    sem_serialize(v);
    v->xcr0 = value;
    return SEM_STOP;
}

/* --- the rest --- */

static int exec_cache(struct vcpu *v, const struct insn *i) {
    if (v->cpl)
        return gp0(v);
    sem_serialize(v);
    return SEM_NEXT;
}

static int exec_undefined(struct vcpu *v, const struct insn *i) {
    return sem_fault(v, X86_UD);
}

#define KVM_ENOSYS 1000
#define KVM_EPERM 1

/* Linux, Documentation/virt/kvm/x86/hypercalls.rst. The board answers by clearing
 * `failed` and leaving the result in `data`. */
static int exec_hypercall(struct vcpu *v, const struct insn *i) {
    struct exit e = {.reason = EXIT_hypercall, .failed = true};
    if (!cpuid_paravirt(v->cpuid))
        return sem_fault(v, X86_UD);
    e.data = v->mode == MODE_64 ? v->gpr[REG_RAX] : (uint32_t)v->gpr[REG_RAX];
    uint64_t result = (uint64_t)-KVM_EPERM;
    if (!v->cpl) {
        leave(v, &e);
        result = e.failed ? (uint64_t)-KVM_ENOSYS : e.data;
    }
    v->gpr[REG_RAX] = v->mode == MODE_64 ? result : (uint32_t)result;
    return SEM_STOP;
}

insn_exec_fn *sem_bind_system(const struct insn *i) {
    static insn_exec_fn *const table[OP_COUNT] = {
        [OP_in] = exec_in_out,
        [OP_out] = exec_in_out,
        [OP_cli] = exec_cli,
        [OP_sti] = exec_sti,
        [OP_clac] = exec_clac_stac,
        [OP_stac] = exec_clac_stac,
        [OP_hlt] = exec_hlt,
        [OP_mov_from_cr] = sem_exec_mov_from_cr,
        [OP_mov_to_cr] = sem_exec_mov_to_cr,
        [OP_mov_from_dr] = sem_exec_mov_from_dr,
        [OP_mov_to_dr] = sem_exec_mov_to_dr,
        [OP_lmsw] = sem_exec_lmsw,
        [OP_smsw] = sem_exec_smsw,
        [OP_clts] = sem_exec_clts,
        [OP_invlpg] = sem_exec_invlpg,
        [OP_invpcid] = sem_exec_invpcid,
        [OP_invd] = exec_cache,
        [OP_wbinvd] = exec_cache,
        [OP_rdmsr] = exec_rdmsr,
        [OP_wrmsr] = exec_wrmsr,
        [OP_rdtsc] = exec_rdtsc,
        [OP_rdtscp] = exec_rdtsc,
        [OP_rdpmc] = exec_rdpmc,
        [OP_cpuid] = exec_cpuid,
        [OP_xgetbv] = exec_xgetbv,
        [OP_xsetbv] = exec_xsetbv,
        [OP_hypercall] = exec_hypercall,
        [OP_monitor] = exec_undefined,
        [OP_mwait] = exec_undefined,
        [OP_rsm] = exec_undefined,
    };
    return table[i->op];
}
