/*
 * The virtual clock: nanoseconds since the machine started, the guest's TSC, and timers.
 *
 * Time comes from a source that machine/ installs: the host's monotonic clock and TSC,
 * or, for deterministic runs, the count of retired instructions. Timers fire from
 * vclock_run(), never from a signal.
 *
 * The board has a clock, and each CPU has one for its local APIC: the same time, but
 * timers and a TSC of its own. No locks: one thread at a time uses a clock, the board's
 * under the board's lock.
 */
#ifndef BUS_CLOCK_H
#define BUS_CLOCK_H

#include "base/types.h"

struct vclock;
struct snapshot;

struct vclock_source {
    uint64_t (*now_ns)(void *arg); /* monotonic */
    uint64_t (*ticks)(void *arg);  /* TSC before the guest's offset */
    uint64_t tick_hz;
    /* The earliest deadline changed to DEADLINE (UINT64_MAX: none); may be NULL. */
    void (*deadline_changed)(void *arg, uint64_t deadline);
    void *arg;
};

#define VCLOCK_NEVER UINT64_MAX

/* A timer is embedded in its device; zero-initialised is idle. */
struct vtimer {
    uint64_t deadline;
    void (*fire)(void *arg);
    void *arg;
    struct vtimer *next; /* list by deadline, the clock's */
    uint32_t rank;       /* among those of one deadline that came out of a snapshot */
    bool armed;
};

struct vclock *vclock_new(const struct vclock_source *src);
void vclock_free(struct vclock *c);

uint64_t vclock_now(const struct vclock *c);
uint64_t vclock_tsc(const struct vclock *c);
uint64_t vclock_tsc_hz(const struct vclock *c);
void vclock_tsc_set(struct vclock *c, uint64_t value);
void vclock_tsc_set_at(struct vclock *c, uint64_t ticks, uint64_t value);
/* The source's ticks now, and the guest's TSC at that many, to be set and to be told. */
uint64_t vclock_ticks(const struct vclock *c);
uint64_t vclock_tsc_at(const struct vclock *c, uint64_t ticks);
/* When the guest's TSC reaches VALUE, in clock nanoseconds (now or earlier: now). */
uint64_t vclock_ns_of_tsc(const struct vclock *c, uint64_t value);

/* Arms (or re-arms) a timer at an absolute time in ns; in the past means at once. */
void vtimer_arm(struct vclock *c, struct vtimer *t, uint64_t deadline);
void vtimer_cancel(struct vclock *c, struct vtimer *t);

uint64_t vclock_next(const struct vclock *c); /* earliest deadline or VCLOCK_NEVER */
void vclock_run(struct vclock *c);            /* fires what is due */

/* A timer's part of its device's record: whether it is armed, when it is due, and in
 * which order with others that are due then. Read while the clock's time is what it was.
 */
void vtimer_state(struct vclock *c, struct vtimer *t, struct snapshot *s);

#endif
