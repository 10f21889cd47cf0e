/* Copies of a machine that runs, for who asks for them; see copy.h. */
#ifndef CTL_COPIES_H
#define CTL_COPIES_H

#include <sys/types.h>

#include "base/types.h"
#include "ctl/copy_word.h"

struct ctl_front;

struct copy {
    const char *name;
    const char *api; /* where it listens for requests (--api); NULL: nowhere */
    pid_t pid;       /* 0: it was not started */
    int socket;      /* -1: it has none */
    bool runs;
};

/* What all of them are made from. */
struct copy_order {
    const char *path; /* of the whole snapshot */
    char **option;    /* beside it */
    int options;
    const struct ctl_front *front; /* NULL: a plain run */
};

/* Makes the process of COPIES[N], which prepares itself as ORDER says; those before it
 * have been made. False after a message. */
bool copy_prepare(struct copy *copies, unsigned n, const struct copy_order *order);
/* Waits for WORD. False: the copy has ended, and has said why. */
bool copy_hear(const struct copy *c, enum copy_word word);
/* Hands over the open files of the snapshot. False: the copy has ended. */
bool copy_tell(const struct copy *c, int state, int ram);
/* Waits until the copy runs in the background, or has ended: false. Without having been
 * told it ends. */
bool copy_end(struct copy *c);

#endif
