/*
 * Where the guest's x87, SSE, AVX and AVX-512 state is.
 *
 * It lives either in vcpu.vec (an XSAVE image, standard format; "parked") or in the
 * host's own registers ("live"). The core rooms, `snapshot cpu mem mmu sem interp tr tc
 * list verify bt soft bus dev` (CORE_ROOMS in the Makefile), are compiled with
 * -mgeneral-regs-only and call nothing outside these rooms while the state is live: so
 * running one vector instruction after another costs no save and restore. Whoever goes
 * further (the host's clock, the decoder, the run loop, libc) calls vec_park() first.
 *
 * While parked, the host's MXCSR and x87 control word have the C library's values.
 */
#ifndef CPU_VEC_H
#define CPU_VEC_H

#include "cpu/vcpu.h"
#include "cpu/vec_host.h"

#define VEC_FIP 8u /* in the image: the address of the last x87 instruction */

/* Initial state (FNINIT, MXCSR 0x1f80, registers 0) into the parked image. */
void vec_reset(struct vcpu *v);

void vec_load_slow(struct vcpu *v);
void vec_park_slow(struct vcpu *v);

static inline void vec_load(struct vcpu *v) {
    if (!v->vec_live)
        vec_load_slow(v);
}

static inline void vec_park(struct vcpu *v) {
    if (v->vec_live)
        vec_park_slow(v);
}

#endif
