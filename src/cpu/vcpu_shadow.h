/*
 * What the MMU tells of its shadow inside the vCPU, where emitted code reads it with one
 * load: which banks serve now.
 *
 * mmu/ writes all of it. One field has a second writer, `bank`: translated code moves it
 * itself at CLAC, STAC and the gates of system calls, and sets mmu.data after it before
 * it calls anything that reads that.
 *
 * Not here: the shadow itself (mmu/mmu.h).
 */
#ifndef CPU_VCPU_SHADOW_H
#define CPU_VCPU_SHADOW_H

#include "base/types.h"

struct shadow_bank;

struct vcpu_shadow {
    struct shadow_bank *bank; /* what mmu.data is, for explicit accesses now */
    /* What `bank` is after CLAC and STAC at CPL 0, and at CPL 3. */
    struct shadow_bank *bank_super, *bank_ac, *bank_user;
    struct shadow_bank *code;                   /* what mmu.code is, for fetches now */
    struct shadow_bank *code_user, *code_super; /* what mmu.code is at CPL 3, at 0 */
    uint64_t write_drops; /* write entries that a trace took away, ever */
};

#endif
