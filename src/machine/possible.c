/*
 * What holds of a CPU's state whatever the guest does; see possible.h. Registers that a
 * guest may load with anything are anything here, too. AMD64 APM volume 2, "Control
 * Registers", "Extended Feature Enable Register", "Canonical Address Form".
 */
#include "machine/possible.h"

#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/vec_host.h"
#include "x86/cr.h"
#include "x86/desc.h"

#define CR0_DEFINED                                                                      \
    (X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE |       \
     X86_CR0_WP | X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)
#define MXCSR_AT 24u
#define MXCSR_MASK_AT 28u
#define HEADER_AT 512u
#define HEADER_SIZE 64u

static bool canonical(uint64_t a) {
    return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

/* What was read into a truth value is one. */
static bool is_bool(const bool *b) {
    return *(const uint8_t *)b <= 1;
}

static bool modes(const struct vcpu *v) {
    bool pe = v->cr0 & X86_CR0_PE, pg = v->cr0 & X86_CR0_PG;
    bool lme = v->efer & X86_EFER_LME, lma = v->efer & X86_EFER_LMA;
    bool vm = v->rflags & X86_FL_VM;

    if ((v->cr0 & ~(uint64_t)CR0_DEFINED) || (pg && !pe) || lma != (lme && pg) ||
        (lma && !(v->cr4 & X86_CR4_PAE)))
        return false;
    if (vm && (!pe || lma || v->cpl != 3))
        return false;
    return v->cpl <= 3 && (pe || !v->cpl);
}

static bool control(const struct vcpu *v) {
    uint64_t phys = (1ull << cpuid_phys_bits(v->cpuid)) - 1;

    return !(v->cr4 & ~cpuid_cr4_valid(v->cpuid)) &&
           !(v->efer & ~(cpuid_efer_valid(v->cpuid) | X86_EFER_LMA)) &&
           !(v->xcr0 & ~(cpuid_xcr0_valid(v->cpuid) | X86_XCR0_X87)) &&
           (v->xcr0 & X86_XCR0_X87) && !(v->cr3 & ~phys) && !(v->rflags >> 22) &&
           (v->rflags & 2) && !(v->dr[6] >> 32) && !(v->dr[7] >> 32);
}

static bool addresses(const struct vcpu *v) {
    return canonical(v->seg[SEG_FS].base) && canonical(v->seg[SEG_GS].base) &&
           canonical(v->kernel_gs_base) && canonical(v->lstar) && canonical(v->cstar) &&
           canonical(v->sysenter_esp) && canonical(v->sysenter_eip) &&
           canonical(v->gdtr.base) && canonical(v->idtr.base) && canonical(v->tr.base) &&
           canonical(v->ldtr.base);
}

/* XRSTOR raises a fault on what is reserved. */
static bool vector(struct vcpu *v) {
    uint32_t mxcsr, mask = vec_mxcsr_mask();
    uint64_t in_use = v->vec_mask ? v->vec_mask : 3;

    memcpy(&mxcsr, v->vec + MXCSR_AT, sizeof(mxcsr));
    memcpy(v->vec + MXCSR_MASK_AT, &mask, sizeof(mask));
    memset(v->vec + HEADER_AT, 0, HEADER_SIZE);
    memcpy(v->vec + HEADER_AT, &in_use, sizeof(in_use));
    v->x87_at = 0;
    return !(mxcsr & ~mask);
}

bool possible_vcpu(struct vcpu *v) {
    bool good =
        is_bool(&v->irq_shadow) && is_bool(&v->halted) && is_bool(&v->nmi_blocked);

    if (!good)
        v->irq_shadow = v->halted = v->nmi_blocked = false;
    return vector(v) && good && modes(v) && control(v) && addresses(v);
}
