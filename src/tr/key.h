/*
 * The key of a fragment: what it depends on besides its address and its bytes. A fragment
 * is right for the vCPU whose key is the same.
 */
#ifndef TR_KEY_H
#define TR_KEY_H

#include "cpu/vcpu.h"
#include "x86/cr.h"

#define KEY_MODE(k) ((k)&3)
#define KEY_REAL 4u           /* of no fragment: see tr_translatable() */
#define KEY_VEC 8u            /* SSE usable: CR0.EM, TS clear, CR4.OSFXSR set */
#define KEY_AVX 16u           /* and AVX: CR4.OSXSAVE, XCR0 */
#define KEY_X87 32u           /* EM and TS clear */
#define KEY_AVX512 (1u << 29) /* AVX, and AVX-512's part of XCR0 */
#define KEY_STACK32 64u
#define KEY_USER 128u       /* CPL 3 */
#define KEY_CPL0 (1u << 27) /* CPL 0: simple privileged instructions are translated */
#define KEY_SINGLE                                                                       \
    (1u << 28) /* of a fragment: no groups, see bt_emulate(); never the current key */
#define KEY_TSC (1u << 26) /* RDTSC is allowed and the host's, but for an addend */
#define KEY_FLAT_R_SHIFT 8
#define KEY_FLAT_W_SHIFT 14
#define KEY_BASE_SHIFT 20 /* bits of segments whose base is not 0 */

static inline uint32_t tr_key(const struct vcpu *v) {
    uint32_t key = v->mode;
    bool fpu = !(v->cr0 & (X86_CR0_EM | X86_CR0_TS));

    if (vcpu_is_real(v))
        key |= KEY_REAL;
    if (fpu)
        key |= KEY_X87;
    if (fpu && (v->cr4 & X86_CR4_OSFXSR))
        key |= KEY_VEC;
    if (fpu && (v->cr4 & X86_CR4_OSXSAVE) &&
        (v->xcr0 & (X86_XCR0_SSE | X86_XCR0_AVX)) == (X86_XCR0_SSE | X86_XCR0_AVX))
        key |= KEY_AVX;
    if ((key & KEY_AVX) && (v->xcr0 & X86_XCR0_AVX512) == X86_XCR0_AVX512)
        key |= KEY_AVX512;
    if (v->stack32)
        key |= KEY_STACK32;
    if (v->cpl == 3)
        key |= KEY_USER;
    if (v->cpl == 0)
        key |= KEY_CPL0;
    if (v->tsc_host && (!(v->cr4 & X86_CR4_TSD) || v->cpl == 0))
        key |= KEY_TSC;
    key |= (uint32_t)v->seg_flat_r << KEY_FLAT_R_SHIFT;
    key |= (uint32_t)v->seg_flat_w << KEY_FLAT_W_SHIFT;
    if (v->mode == MODE_64)
        return key | (1u << SEG_FS | 1u << SEG_GS) << KEY_BASE_SHIFT;
    for (unsigned s = 0; s < SEG_COUNT; s++)
        if (v->segbase[s])
            key |= 1u << (KEY_BASE_SHIFT + s);
    return key;
}

/* 16-bit code, 32-bit code in real mode, and such whose segment is not flat, are the
 * interpreter's. */
static inline bool tr_translatable(const struct vcpu *v) {
    if (v->mode == MODE_64)
        return true;
    return v->mode == MODE_32 && !vcpu_is_real(v) && !(v->rflags & X86_FL_VM) &&
           v->seg[SEG_CS].limit == UINT32_MAX && !v->seg[SEG_CS].base;
}

#endif
