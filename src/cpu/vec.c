/*
 * The guest's vector state, parked in vcpu.vec or live in the host's registers.
 *
 * vcpu.vec is always an XSAVE image in the standard format whose data are exact for every
 * component, and whose XSTATE_BV says which components are in use (XSAVE writes initial
 * values for the others; whoever edits a component sets its bit). A host without XSAVE
 * uses FXSAVE for the legacy half of the same image.
 *
 * Invariants: after parking, no x87 exception is pending on the host (FNINIT), MXCSR and
 * the x87 control word are the C library's, and the upper halves of the YMM registers
 * are clear. Only non-waiting forms run here, so a guest's pending exception cannot trap
 * in the VMM. Which components are moved is the vCPU's: AVX-512's only if its CPU has it;
 * otherwise those are the host's own and are never touched.
 *
 * AMD64 APM volume 2, "Saving Media and x87 Execution Unit State".
 */
#include "cpu/vec.h"

#include "cpu/cpuid.h"
#include "cpu/vec_int.h"
#include "x86/cr.h"

#define XSAVE_HEADER 512u
#define FCW_INIT 0x37fu
#define MXCSR_INIT 0x1f80u

void vec_reset(struct vcpu *v) {
    uint16_t fcw = FCW_INIT;
    uint32_t mxcsr = MXCSR_INIT;

    vec_park(v);
    v->vec_mask = vec_host.mask & (X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX);
    if (v->cpuid && (cpuid_xcr0_valid(v->cpuid) & X86_XCR0_AVX512))
        v->vec_mask = vec_host.mask;
    __builtin_memset(v->vec, 0, sizeof(v->vec));
    __builtin_memcpy(v->vec, &fcw, sizeof(fcw));
    __builtin_memcpy(v->vec + 24, &mxcsr, sizeof(mxcsr));
    __builtin_memcpy(v->vec + 28, &vec_host.mxcsr_mask, sizeof(vec_host.mxcsr_mask));
    v->fip = v->fdp = 0;
    v->fcs = v->fds = v->fop = 0;
    v->x87_at = 0;
}

void vec_load_slow(struct vcpu *v) {
    if (vec_host.mask)
        __asm__ volatile("xrstor64 %0" ::"m"(v->vec), "a"(v->vec_mask), "d"(0)
                         : "memory");
    else
        __asm__ volatile("fxrstor64 %0" ::"m"(v->vec) : "memory");
    v->vec_live = true;
}

void vec_park_slow(struct vcpu *v) {
    uint32_t mxcsr = MXCSR_INIT;

    if (vec_host.mask) {
        __asm__ volatile("xsave64 %0"
                         : "+m"(v->vec)
                         : "a"(v->vec_mask), "d"(0)
                         : "memory");
        if (vec_host.mask & X86_XCR0_AVX)
            __asm__ volatile("vzeroupper");
    } else {
        uint64_t in_use = X86_XCR0_X87 | X86_XCR0_SSE;

        __asm__ volatile("fxsave64 %0" : "+m"(v->vec) : : "memory");
        __builtin_memcpy(v->vec + XSAVE_HEADER, &in_use, sizeof(in_use));
    }
    __asm__ volatile("fninit\n\tldmxcsr %0" ::"m"(mxcsr));
    v->vec_live = false;
}
