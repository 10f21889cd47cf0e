/*
 * The software engine: runs the guest by translation where that is worth it, and
 * instruction by instruction in the interpreter where it is not; user code that computes
 * is run directly, if there are cells (direct/direct.h). It owns that choice and nothing
 * else.
 *
 * Interpreted are 16-bit code and other code that the translator does not take,
 * everything while a trap follows each instruction, the delivery of interrupts, and what
 * translated code leaves to it: an access to a device, an instruction that faults, the
 * last few instructions of a counted run; and the first ones behind a snapshot. These
 * come from everywhere in a kernel and a shell, few more than ten times, so that to
 * translate them takes twice as long as to interpret them.
 */
#ifndef SOFT_SOFT_H
#define SOFT_SOFT_H

#include "cpu/vcpu.h"

struct bt;
struct direct;
struct interp;

/* All are its owner's, and outlive it. */
struct soft {
    struct vcpu *v;
    struct interp *ip;
    struct bt *bt;
    struct direct *direct; /* NULL: nothing is run directly */
    int error;             /* -errno of what kept soft_run() from it, or 0 */
    uint64_t cold; /* instructions that are interpreted before any is translated */
};

/* The guest goes on elsewhere, with code of which none is ready: the next COUNT
 * instructions are interpreted. Between two calls of soft_run(). 0: no more are. */
void soft_cool(struct soft *s, uint64_t count);

/* As interp_run(); or EXIT_error, when this thread cannot run translated code (`error`
 * says why) or when the verifier has found something. bt_kick() ends it. */
enum exit_reason soft_run(struct soft *s);

#endif
