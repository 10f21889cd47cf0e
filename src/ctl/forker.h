/*
 * Copies of a machine that runs, for clients of its API.
 *
 * A machine in its jail starts nothing. So a process that was forked before does: it
 * takes names of copies, asks the machine for its snapshots, as `bivisor fork` would from
 * outside, and is the copies' parent. It is in no jail, since what it starts wants all
 * that the machine itself could open; what it believes of the machine is therefore
 * little. What the copies are made of it knows from before the guest ran, whatever a
 * snapshot says: the machine's own options, and those for copies (`copies` of the API's
 * settings). It reads and removes only the two snapshots that it has asked for.
 *
 * Between the two goes a line of JSON at a time: the order, {"copies": [NAME...]}; then
 * commands from the process, each with its answer; and its last word, {"end": [...]}, the
 * copies that run, or "error" besides.
 */
#ifndef CTL_FORKER_H
#define CTL_FORKER_H

#include "base/os_loop.h"
#include "control/control.h"

struct forker;
struct run_options;

/* What the process is to know. */
struct forker_plan {
    const struct run_options *of; /* the machine that is copied */
    const char *dir;              /* of its snapshots */
    char *const *option; /* for copies, beside the machine's own; ends with NULL */
    /* In the process: makes NAMES, COUNT of them, of the machine that answers at SOCKET,
     * and tells which of them run. */
    void (*make)(const struct forker_plan *plan, int socket, char *const *names,
                 bool *runs, char *const *apis, int count);
};

/* Before the jail, and before there are threads. PLAN's must stay. 0 or -errno. */
int forker_open(const struct forker_plan *plan, struct forker **out);
/* F may be NULL in all that follow. */

/* The command `fork`, which refuses where there is no F. What the process asks is
 * answered from T. */
void forker_add(struct forker *f, struct control_table *t);
/* A disk has another file than the process knows: copies, whose options name none, are
 * refused from now on. */
void forker_exchanged(struct forker *f);
/* 0 or -ENOMEM. */
int forker_start(struct forker *f, struct os_loop *loop);
/* Before the loop goes: nobody hears of copies any more. */
void forker_stop(struct forker *f);
/* The process ends; copies that run go on. */
void forker_close(struct forker *f);

#endif
