/*
 * Several vCPUs of one machine without a board: one memory, a thread for each while they
 * run, on the interpreters or on translators that share a cache. 64-bit mode at CPL 0,
 * pages of 4 KiB for the first 2 MiB and of 2 MiB after, all at their own addresses;
 * every exception goes to a handler that halts. One a program.
 */
#ifndef LIB_MANY_H
#define LIB_MANY_H

#include "bt/bt.h"
#include "cpu/smp.h"
#include "cpu/vcpu.h"
#include "interp/interp.h"
#include "mem/mem.h"
#include "x86/pte.h"

#define MANY_MAX 4

enum {
    MANY_RAM = 16 << 20,
    MANY_IDT = 0x1000,
    MANY_PML4 = 0x2000,
    MANY_PDPT = 0x3000,
    MANY_PD = 0x4000,
    MANY_PT = 0x5000,
    MANY_GDT = 0x6000,
    MANY_HANDLER = 0x7000,
    MANY_CODE = 0x10000,
    MANY_STACK = 0x80000, /* and 0x1000 below for each */
    MANY_DATA = 0x100000,
};

struct many {
    unsigned cpus;
    struct vcpu_group group;
    struct vcpu *vcpu[MANY_MAX];
    struct counters cnt[MANY_MAX];
    struct interp *ip[MANY_MAX];
    struct bt *bt[MANY_MAX]; /* NULL: the interpreters run */
    struct mem *mem;
    uint8_t *ram;
};

/* OPT: on translators; NULL: on interpreters. SPLITS: vcpu_group.splits. */
void many_new(struct many *m, unsigned cpus, const struct bt_options *opt, bool splits);
void many_free(struct many *m);
/* After signals_remember(). RAM zeroed, tables and registers as at the beginning: rip at
 * MANY_CODE, rdi the number of the vCPU, and nothing derived. */
void many_start(struct many *m);
/* Each on a thread of its own, until it halts; meanwhile OTHER(M), if it is one, on the
 * caller's, as a device's worker. */
void many_run(struct many *m);
void many_run_with(struct many *m, void (*other)(struct many *m));

void many_put(struct many *m, uint64_t at, uint64_t value, unsigned len);
uint64_t many_get(const struct many *m, uint64_t at, unsigned len);
void many_write(struct many *m, uint64_t at, const void *p, size_t len);

#endif
