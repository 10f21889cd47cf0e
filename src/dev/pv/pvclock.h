/* KVM's paravirtual clock: wall clock and system time in pages that the guest names. */
#ifndef DEV_PVCLOCK_H
#define DEV_PVCLOCK_H

#include "base/counters.h"
#include "bus/clock.h"
#include "mem/mem.h"

struct pvclock;
struct snapshot;

struct pvclock_config {
    uint64_t (*realtime_ns)(void *arg); /* since 1970, UTC; NULL: the host's clock */
    void *arg;
};

/* For CPUS of them; CLOCK is the board's. NULL when out of memory. */
struct pvclock *pvclock_new(struct mem *mem, struct vclock *clock, unsigned cpus,
                            const struct pvclock_config *cfg, struct counters *cnt);
void pvclock_free(struct pvclock *p);
void pvclock_reset(struct pvclock *p);

/* 0x4b564d00, 0x4b564d01, and the old numbers 0x11, 0x12. */
bool pvclock_owns_msr(uint32_t msr);
/* RDMSR or WRMSR by CPU N, whose clock is CLOCK, of one that pvclock_owns_msr(); false:
 * #GP. */
bool pvclock_msr(struct pvclock *p, unsigned n, const struct vclock *clock, uint32_t msr,
                 bool write, uint64_t *value);

/* CPU N's TSC was set: its page must say so. */
void pvclock_tsc_changed(struct pvclock *p, unsigned n, const struct vclock *clock);

/* Its record of a snapshot (snapshot/snapshot.h). When it is read the clock and the
 * counter are what they were, or the counter has another pace: then the guest has to be
 * told (pvclock_tsc_changed()). */
void pvclock_state(struct pvclock *p, struct snapshot *s);

#endif
