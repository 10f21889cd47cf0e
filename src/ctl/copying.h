/*
 * Copies of a machine that runs, from its snapshot until they run: what `bivisor fork`
 * and the process of ctl/forker.h do.
 *
 * All that takes time happens while the machine goes on: a whole snapshot of it is made,
 * whose memory all copies will show, and the copies are prepared from that (ctl/copy.h).
 * Then an incremental one is made, for which the machine stands for a moment, and the
 * copies take over what it has. The files lose their names then, and are there as long
 * as one of the copies is.
 *
 * Nothing is done here that a user could not do by hand: the machine that is copied needs
 * nothing that its jail does not have. What it answers may be the guest's.
 */
#ifndef CTL_COPYING_H
#define CTL_COPYING_H

#include "ctl/copies.h"

#define COPYING_MAX 256

struct copying {
    int fd;          /* where its commands are answered (ctl/ask.h) */
    const char *dir; /* its snapshots' directory; NULL: it says where they are */
    struct copy copy[COPYING_MAX];
    int count;
    char **option; /* of all of them */
    int options;
    const struct ctl_front *front; /* the copies' runs; NULL: plain ones */
    void (*prepared)(void);        /* before they go on, when all are; NULL: nothing */
    bool times;                    /* says how long it took */
    /* Its own. */
    char *whole, *change; /* the snapshots' files */
    char **own;           /* the options, and the engine's */
    double pause_ms;
    uint64_t asked_ns;
};

/* How many run, in the background; the others have said why they do not. */
int copying_run(struct copying *c);

struct forker_plan;

/* For clients of a machine's API: what a front's `copies` is (ctl/ctl.h). */
void copying_for_api(const struct forker_plan *plan, int socket, char *const *names,
                     bool *runs, char *const *apis, int count);

#endif
