/* What vec_host.c finds out, for vec.c. */
#ifndef CPU_VEC_INT_H
#define CPU_VEC_INT_H

#include "cpu/vec_host.h"

struct vec_host {
    uint32_t mask; /* XSAVE components that we can keep; 0: no XSAVE, use FXSAVE */
    uint16_t offset[VEC_COMPONENTS], size[VEC_COMPONENTS];
    uint32_t mxcsr_mask;
    bool keeps_fip;
};

extern struct vec_host vec_host;

#endif
