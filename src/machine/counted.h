/*
 * Time of a counted run: a nanosecond for each instruction that the guest retires, and
 * what it sleeps through. The guest's TSC counts the same nanoseconds. Nothing here looks
 * at the host's clocks, so that the same guest with the same input does the same, on
 * either software engine, to the instruction.
 *
 * The engine stops exactly where something is due: a timer, a look at the console's
 * input, a pause that was asked for. An idle guest's time jumps to the next of these.
 */
#ifndef MACHINE_COUNTED_H
#define MACHINE_COUNTED_H

#include "bus/clock.h"
#include "cpu/vcpu.h"

#define COUNTED_TSC_HZ 1000000000u
/* 146 years: no guest sleeps until then, so that sums of times do not wrap. */
#define COUNTED_END (1ull << 62)

struct counted {
    struct vcpu *vcpu;
    struct vclock *clock[2]; /* the board's and the CPU's; NULL: not made yet */
    uint64_t slept;          /* ns, in halts */
    uint64_t input_at;       /* when to look for input */
    uint64_t until;          /* instructions retired: pause there */
    uint64_t reached;        /* the same: tell the debugger (machine/debug.c) */
    uint64_t mark;           /* the same: for a checkpoint (machine/checkpoints.c) */
    uint64_t keep;           /* the same: machine_config.marks */
};

/* Nothing is due yet. */
void counted_init(struct counted *c, struct vcpu *v);
uint64_t counted_now(const struct counted *c);
/* What is due may have changed: tells the engine where to stop. */
void counted_aim(struct counted *c);
/* How long a halted guest has to sleep; VCLOCK_NEVER: nothing is due before COUNTED_END.
 */
uint64_t counted_sleep_ns(const struct counted *c);

#endif
