/*
 * What the host's CPU has of vector state, and where in an XSAVE image.
 *
 * vec_host is a fact about the host, written once by vec_init().
 */
#include "cpu/vec_host.h"

#include "cpu/vcpu.h"
#include "cpu/vec_int.h"
#include "x86/cr.h"

struct vec_host vec_host;

static void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4]) {
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(sub));
}

/* Intel SDM volume 1, "Standard Format of the XSAVE Area": CPUID says where. */
static void find_components(void) {
    uint32_t r[4];

    for (unsigned n = 2; n < VEC_COMPONENTS; n++) {
        vec_host.offset[n] = vec_host.size[n] = 0;
        if (!(vec_host.mask & (1u << n)))
            continue;
        cpuid(0xd, n, r);
        if (r[0] > VCPU_XSAVE_SIZE || r[1] > VCPU_XSAVE_SIZE - r[0])
            vec_host.mask &= ~(1u << n);
        else
            vec_host.size[n] = (uint16_t)r[0], vec_host.offset[n] = (uint16_t)r[1];
    }
    if ((vec_host.mask & X86_XCR0_AVX512) != X86_XCR0_AVX512)
        vec_host.mask &= ~X86_XCR0_AVX512;
}

void vec_init(void) {
    _Alignas(64) uint8_t image[512] = {0};
    uint32_t r[4], lo, hi;
    uint64_t fip;

    vec_host.mask = 0;
    cpuid(1, 0, r);
    if (r[2] & (1u << 27)) { /* OSXSAVE: the host's kernel uses XSAVE */
        __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
        vec_host.mask =
            lo & (X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX | X86_XCR0_AVX512);
        find_components();
    }
    __asm__ volatile("fninit\n\tfldz\n\tfxsave64 %0\n\tfninit" : "=m"(image));
    __builtin_memcpy(&fip, image + 8, 8);
    vec_host.keeps_fip = fip;
    __builtin_memcpy(&vec_host.mxcsr_mask, image + 28, 4);
    if (!vec_host.mxcsr_mask) /* "0 means the default", AMD64 APM volume 2, FXSAVE */
        vec_host.mxcsr_mask = 0xffbf;
}

uint64_t vec_supported(void) {
    return vec_host.mask ? vec_host.mask : X86_XCR0_X87 | X86_XCR0_SSE;
}

unsigned vec_offset(unsigned component) {
    return component < VEC_COMPONENTS ? vec_host.offset[component] : 0;
}

unsigned vec_size(unsigned component) {
    return component < VEC_COMPONENTS ? vec_host.size[component] : 0;
}

uint32_t vec_mxcsr_mask(void) {
    return vec_host.mxcsr_mask;
}

bool vec_keeps_fip(void) {
    return vec_host.keeps_fip;
}
