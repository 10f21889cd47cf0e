/*
 * What the MMU tells of its shadow inside the vCPU, where emitted code reads it with one
 * load: which banks serve now, and when translations of code were last dropped.
 *
 * mmu/ writes all of it. One field has a second writer, `bank`: translated code moves it
 * itself at CLAC, STAC and the gates of system calls, and sets mmu.data after it before
 * it calls anything that reads that.
 *
 * Epochs: each drop of translations begins a new one, numbered by `epoch_clock` from 1
 * on. Who has checked that a page of code is still mapped as it was notes the epoch, and
 * knows that it still is as long as that one lasts: `epoch_user`, or for a page that all
 * spaces share (mmu_code_is_global()) `epoch_global`. An INVLPG begins one only for a
 * page that was named to mmu_code_watch().
 *
 * Not here: the shadow itself (mmu/mmu.h).
 */
#ifndef CPU_VCPU_SHADOW_H
#define CPU_VCPU_SHADOW_H

#include "base/types.h"

struct shadow_bank;

#define VCPU_CODE_FILTER 64 /* words: 4096 bits */

struct vcpu_shadow {
    struct shadow_bank *bank; /* what mmu.data is, for explicit accesses now */
    /* What `bank` is after CLAC and STAC at CPL 0, and at CPL 3. */
    struct shadow_bank *bank_super, *bank_ac, *bank_user;
    struct shadow_bank *code_user, *code_super; /* what mmu.code is at CPL 3, at 0 */
    uint64_t epoch_user, epoch_global, epoch_clock;
    uint64_t write_drops; /* write entries that a trace took away, ever */
    /* Pages with code, by their number; and code in large pages, by number of 2 MiB. */
    uint64_t code_filter[VCPU_CODE_FILTER];
    uint64_t large_filter[VCPU_CODE_FILTER];
};

#endif
