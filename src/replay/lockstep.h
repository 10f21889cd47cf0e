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

#include "base/jail.h"
#include "machine/machine.h"
#include "replay/recording.h"

struct lockstep {
    struct machine_config machine; /* but for the engine, the console and its input */
    bool no_reboot;                /* ends where the guest would reboot */
    enum jail_want jail;
    uint64_t every;     /* instructions between two comparisons */
    uint64_t inject;    /* for tests: spoil something after so many; 0: do not */
    uint64_t inject_at; /* the byte of RAM there, or a register if there is none */
    char names[2][16];  /* engines */
    const struct recording *rec; /* or NULL */
    const uint8_t *typed;        /* or NULL */
    size_t typed_len;
    uint64_t limit; /* ends after so many instructions; 0: at the guest's end */
    /* Both go on from a snapshot: puts its memory into M, before the jail, and then its
     * state. 0, or -errno after a message. NULL: they boot. */
    int (*restore_memory)(void *arg, struct machine *m);
    int (*restore)(void *arg, struct machine *m);
    void *frozen;
    /* Each machine has disks of its own, opened into its configuration: 0, or -errno
     * after a message. */
    int (*open_disks)(void *arg, struct machine_config *cfg);
    void (*close_disks)(void *arg, struct machine_config *cfg);
    void *disks;
};

enum lockstep_verdict {
    LOCKSTEP_FAILED,    /* there was nothing to compare, or no good end */
    LOCKSTEP_SAME,      /* from beginning to end */
    LOCKSTEP_DIFFERENT, /* and it has been told where */
};

struct lockstep_result {
    enum lockstep_verdict verdict;
    int rc;               /* LOCKSTEP_FAILED: -errno */
    enum machine_end end; /* LOCKSTEP_SAME: the guest's */
    int exit_code;        /* and machine_exit_code(), at MACHINE_DEBUG_EXIT */
};

/* All messages have been given when it returns. */
struct lockstep_result lockstep_run(const struct lockstep *ls);

#endif
