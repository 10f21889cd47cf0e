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
 * The static below is a fact about the host CPU, written once by vec_init().
 *
 * AMD64 APM volume 2, "Saving Media and x87 Execution Unit State".
 */
#include "cpu/vec.h"

#include "cpu/cpuid.h"
#include "x86/cr.h"

#define XSAVE_HEADER 512u
#define FCW_INIT 0x37fu
#define MXCSR_INIT 0x1f80u

static struct {
    uint32_t mask; /* XSAVE components that we can keep; 0: no XSAVE, use FXSAVE */
    uint16_t offset[VEC_COMPONENTS], size[VEC_COMPONENTS];
    uint32_t mxcsr_mask;
    bool keeps_fip;
} host;

static void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4]) {
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(sub));
}

/* Intel SDM volume 1, "Standard Format of the XSAVE Area": CPUID says where. */
static void find_components(void) {
    uint32_t r[4];

    for (unsigned n = 2; n < VEC_COMPONENTS; n++) {
        host.offset[n] = host.size[n] = 0;
        if (!(host.mask & (1u << n)))
            continue;
        cpuid(0xd, n, r);
        if (r[0] > VCPU_XSAVE_SIZE || r[1] > VCPU_XSAVE_SIZE - r[0])
            host.mask &= ~(1u << n);
        else
            host.size[n] = (uint16_t)r[0], host.offset[n] = (uint16_t)r[1];
    }
    if ((host.mask & X86_XCR0_AVX512) != X86_XCR0_AVX512)
        host.mask &= ~X86_XCR0_AVX512;
}

void vec_init(void) {
    _Alignas(64) uint8_t image[512] = {0};
    uint32_t r[4], lo, hi;
    uint64_t fip;

    host.mask = 0;
    cpuid(1, 0, r);
    if (r[2] & (1u << 27)) { /* OSXSAVE: the host's kernel uses XSAVE */
        __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
        host.mask = lo & (X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX | X86_XCR0_AVX512);
        find_components();
    }
    __asm__ volatile("fninit\n\tfldz\n\tfxsave64 %0\n\tfninit" : "=m"(image));
    __builtin_memcpy(&fip, image + 8, 8);
    host.keeps_fip = fip;
    __builtin_memcpy(&host.mxcsr_mask, image + 28, 4);
    if (!host.mxcsr_mask) /* "0 means the default", AMD64 APM volume 2, FXSAVE */
        host.mxcsr_mask = 0xffbf;
}

uint64_t vec_supported(void) {
    return host.mask ? host.mask : X86_XCR0_X87 | X86_XCR0_SSE;
}

unsigned vec_offset(unsigned component) {
    return component < VEC_COMPONENTS ? host.offset[component] : 0;
}

unsigned vec_size(unsigned component) {
    return component < VEC_COMPONENTS ? host.size[component] : 0;
}

bool vec_keeps_fip(void) {
    return host.keeps_fip;
}

void vec_reset(struct vcpu *v) {
    uint16_t fcw = FCW_INIT;
    uint32_t mxcsr = MXCSR_INIT;

    vec_park(v);
    v->vec_mask = host.mask & (X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX);
    if (v->cpuid && (cpuid_xcr0_valid(v->cpuid) & X86_XCR0_AVX512))
        v->vec_mask = host.mask;
    __builtin_memset(v->vec, 0, sizeof(v->vec));
    __builtin_memcpy(v->vec, &fcw, sizeof(fcw));
    __builtin_memcpy(v->vec + 24, &mxcsr, sizeof(mxcsr));
    __builtin_memcpy(v->vec + 28, &host.mxcsr_mask, sizeof(host.mxcsr_mask));
    v->fip = v->fdp = 0;
    v->fcs = v->fds = v->fop = 0;
    v->x87_at = 0;
}

void vec_load_slow(struct vcpu *v) {
    if (host.mask)
        __asm__ volatile("xrstor64 %0" ::"m"(v->vec), "a"(v->vec_mask), "d"(0)
                         : "memory");
    else
        __asm__ volatile("fxrstor64 %0" ::"m"(v->vec) : "memory");
    v->vec_live = true;
}

void vec_park_slow(struct vcpu *v) {
    uint32_t mxcsr = MXCSR_INIT;

    if (host.mask) {
        __asm__ volatile("xsave64 %0"
                         : "+m"(v->vec)
                         : "a"(v->vec_mask), "d"(0)
                         : "memory");
        if (host.mask & X86_XCR0_AVX)
            __asm__ volatile("vzeroupper");
    } else {
        uint64_t in_use = X86_XCR0_X87 | X86_XCR0_SSE;

        __asm__ volatile("fxsave64 %0" : "+m"(v->vec) : : "memory");
        __builtin_memcpy(v->vec + XSAVE_HEADER, &in_use, sizeof(in_use));
    }
    __asm__ volatile("fninit\n\tldmxcsr %0" ::"m"(mxcsr));
    v->vec_live = false;
}
