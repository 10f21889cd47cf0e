/*
 * Where a debugger wants the guest to stop, without the guest's noticing: breakpoints at
 * linear addresses of code, and ranges of linear addresses that are watched. The vCPUs of
 * a machine have one list (vcpu.stops; NULL where there is nothing in it). It is none of
 * the guest's debug registers, and nothing in the guest's memory.
 *
 * Who comes to a breakpoint leaves it unexecuted, who has touched a watched range has
 * executed the instruction: either way vcpu.hit says what it was, VCPU_EVENT_DEBUG is
 * raised, and the engine comes back to the run loop at that boundary.
 *
 * Locking: changed only while all vCPUs stand (machine/debug.c), which then drops what
 * was derived from it (mmu_stops_changed(), engine_ops.stops_changed).
 */
#ifndef CPU_STOPS_H
#define CPU_STOPS_H

#include "cpu/vcpu.h"

#define VCPU_BREAKS 256u
#define VCPU_WATCHES 32u
#define VCPU_WATCH_MAX (1u << 20) /* bytes */

struct vcpu_watch {
    uint64_t at, len; /* LEN is 1 to VCPU_WATCH_MAX, and there is no wrap */
    bool read, write; /* which accesses */
};

struct vcpu_stops {
    unsigned breaks, watches;
    uint64_t pages; /* bit (address >> 12) & 63 of each breakpoint */
    uint64_t at[VCPU_BREAKS];
    struct vcpu_watch watch[VCPU_WATCHES];
};

/* Of the instruction at V->rip, as breakpoints have it. */
static inline uint64_t vcpu_linear_rip(const struct vcpu *v) {
    return v->mode == MODE_64 ? v->rip : (uint32_t)(v->rip + v->seg[SEG_CS].base);
}

/* Is there a breakpoint in [AT, AT + LEN), which lies within a page? */
bool vcpu_breaks_within(const struct vcpu_stops *s, uint64_t at, unsigned len);
/* In the page that begins at PAGE: the next one from number *N on, which is moved behind
 * it. False: there is none. */
bool vcpu_breaks_next(const struct vcpu_stops *s, uint64_t page, unsigned *n,
                      uint64_t *at);
/* Is some of the page at PAGE watched, for reads or for writes? */
bool vcpu_watches_page(const struct vcpu_stops *s, uint64_t page, bool write);

/* V comes to the breakpoint at its rip. */
void vcpu_break_hit(struct vcpu *v);
/* V has touched [AT, AT + LEN), if that is watched; it has stops. */
void vcpu_watch_touched(struct vcpu *v, uint64_t at, unsigned len, bool write);

#endif
