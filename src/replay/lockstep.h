/*
 * Lockstep: the same guest on two engines, compared.
 *
 * Both machines count time by instructions (machine/counted.h), so that after the same
 * number of instructions they must be in the same state. They take turns in one thread:
 * each runs to the next point, then registers are compared, and at every MEMORY_EVERYth
 * point all of memory. Each pass, of two machines from their start, is a process of its
 * own, in a jail of its own.
 *
 * A difference at a point is searched for by running both again from their start, which
 * leads to the same state:
 *   1. to the last point where memory was the same as before; from there memory is
 *      compared at each point. This finds the first point where anything differs.
 *   2. to the point before it; from there one side goes a fragment at a time (a
 *      translator's fragments are executed whole, as they were the first time) and the
 *      other follows. This finds the fragment.
 *   3. to the beginning of that fragment in the same way; from there each instruction is
 *      a fragment of its own. This finds the instruction, unless it takes the whole
 *      fragment to go wrong.
 */
#ifndef REPLAY_LOCKSTEP_H
#define REPLAY_LOCKSTEP_H

#include "ctl/run_options.h"
#include "replay/recording.h"

#define LOCKSTEP_DIFFERENT 4 /* exit status */

struct lockstep {
    const struct run_options *o;
    char names[2][16];           /* engines */
    const struct recording *rec; /* or NULL */
    const uint8_t *typed;        /* or NULL */
    size_t typed_len;
};

/* The exit status. */
int lockstep_run(const struct lockstep *ls);

#endif
