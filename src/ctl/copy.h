/*
 * A copy of a machine that runs, between the process that asks for it (`bivisor fork`)
 * and the copy's own.
 *
 * The copy is a child of that process, and is prepared while the machine goes on: it has
 * a machine of its own whose memory is shown from a whole snapshot, all that its options
 * ask for is open, and it is in its jail. Then it says so and waits. When the machine has
 * stood still, the copy is handed the files of an incremental snapshot, what has changed
 * since the whole one: it takes that, and runs.
 *
 * What is said, by messages of four bytes on a pair of sockets: COPY_WAITS and COPY_RUNS
 * by the copy; by the other side (ctl/copies.h) two descriptors, of the state and of the
 * memory.
 */
#ifndef CTL_COPY_H
#define CTL_COPY_H

#include "ctl/chain.h"
#include "ctl/copy_word.h"

struct copy_rest {
    int ram;
    struct snapshot *state;
    struct freeze_increment increment;
    uint8_t *bytes; /* STATE's */
};

/* Says that it waits, and does; the rest is one of BASE. 0, or -errno with a sentence in
 * WHY. To be freed in either case. */
int copy_wait(int socket, const struct chain_link *base, struct copy_rest *rest,
              char *why, size_t why_size);
void copy_rest_free(struct copy_rest *rest);
/* Says that the guest runs; the socket is closed. */
void copy_runs(int *socket);

#endif
