/* KVM's steal time: how long a CPU could have run and did not; and its TLB's flush, left
 * for it by others meanwhile. */
#ifndef DEV_STEAL_H
#define DEV_STEAL_H

#include "base/counters.h"
#include "bus/clock.h"
#include "mem/mem.h"

struct steal;
struct snapshot;

struct steal_host {
    /* Nanoseconds, ever since; never less than before. */
    uint64_t (*waited_ns)(void *arg);
    void *arg;
};

/* Of a CPU whose clock is CLOCK. NULL when out of memory. */
struct steal *steal_new(struct mem *mem, struct vclock *clock,
                        const struct steal_host *host, struct counters *cnt);
void steal_free(struct steal *s); /* S may be NULL */
/* Power-up, and INIT: there is no record. */
void steal_reset(struct steal *s);

/* All of these on the CPU's thread. */

/* RDMSR or WRMSR of X86_MSR_KVM_STEAL_TIME; false: #GP. Parked (cpu/vec.h). */
bool steal_msr(struct steal *s, bool write, uint64_t *value);
/* The record tells how it is now, if it has not for a while. Parked. */
void steal_update(struct steal *s);
/* The CPU executes nothing from here on; and does again: then true says that its TLB is
 * to be flushed, with global entries and those of all PCIDs. */
void steal_away(struct steal *s);
bool steal_back(struct steal *s);

/* Its record of a snapshot (snapshot/snapshot.h). */
void steal_state(struct steal *s, struct snapshot *snap);

#endif
