/*
 * A CPU with SVM, in software: a VMRUN that interprets the guest by itself, so that what
 * the engine svm/ does can be seen where there is no hardware, and where hardware (or
 * an emulator) would hide it. It shares nothing with the rooms but the decoder.
 *
 * Its TLB is tagged by ASID and never forgets on its own: an entry stays until INVLPG, a
 * load of CR3, TLB_CONTROL or a fault on it takes it away, for as long as the CPU lives.
 * So does what it keeps of upper levels. A VMM that leaves out a flush is found.
 *
 * Long mode only, with flat segments, and the instructions that tests/unit/svm_model.c is
 * made of; any other ends the run as a failure of the CPU (`trouble`). Interrupts of the
 * host's come after SLICE instructions. Physical addresses are pointers.
 * AMD64 APM volume 2, "Secure Virtual Machine" and "Page Translation and Protection".
 */
#ifndef LIB_SVMCPU_H
#define LIB_SVMCPU_H

#include "base/types.h"
#include "x86/svm.h"

#define SVMCPU_TLB 2048u
#define SVMCPU_UPPER 256u

struct svmcpu_page { /* a page's translation */
    uint32_t asid;
    bool write, user, exec, global;
    uint64_t page, frame;
};
struct svmcpu_upper { /* the last level's table for 2 MiB */
    uint32_t asid;
    bool write, user, exec;
    uint64_t at, table; /* TABLE is as the guest has it: nested paging comes after it */
};

struct svmcpu {
    unsigned asids;    /* there are, 0 among them */
    uint32_t features; /* X86_SVM_* of leaf 0x8000000a */
    unsigned slice;    /* 0: the host has no interrupts */
    uint64_t budget;   /* instructions, until it gives up */
    struct x86_vmcb *b;
    uint64_t *gpr;
    unsigned pages, uppers;
    struct svmcpu_page tlb[SVMCPU_TLB];
    struct svmcpu_upper upper[SVMCPU_UPPER];
    /* The instruction that is executed, and its fault. */
    uint8_t bytes[15];
    unsigned fetched, pauses; /* PAUSEs until one leaves */
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t addr;
    uint64_t insns;
    unsigned flushes; /* entries that TLB_CONTROL emptied the TLB for */
    const char *trouble;
};

/* VMRUN: until #VMEXIT. */
void svmcpu_run(struct svmcpu *c, struct x86_vmcb *b, uint64_t *gpr);

#endif
