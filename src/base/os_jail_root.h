/*
 * What root gives up in a jail, beside what a filter takes from everybody: its user, its
 * files and its network. A process of root's becomes one of a user that nobody else is,
 * in an empty directory, with namespaces of its own. Each step is taken where the host
 * allows it; what is open stays open.
 */
#ifndef BASE_OS_JAIL_ROOT_H
#define BASE_OS_JAIL_ROOT_H

#include "base/types.h"

struct jail_root {
    bool root;      /* there is something to give up */
    int self;       /* pidfd of the process, for its other threads; -1 */
    int namespaces; /* that they follow into */
    unsigned id;    /* of the user and of the group to be */
    bool empty;     /* the root directory is empty */
};

/* Before the filters, on the process's first thread, which gives up its files and (if
 * ALL) its network; the user comes with jail_root_leave(). */
void jail_root_begin(struct jail_root *r, bool all);
/* On each thread, the first one last. Async-signal-safe. */
void jail_root_leave(const struct jail_root *r, bool first);
/* After the last thread. */
void jail_root_end(struct jail_root *r);
/* All of it, in a process of one thread. */
void jail_root_alone(bool all);

#define JAIL_CAP(capability) (1ull << (capability)) /* "capabilities(7)" */
/* For a process of one thread that keeps its user, whose files and sockets are what it is
 * for: of root's privileges it has no others than the CAPABILITIES from now on. */
void jail_root_keep(uint64_t capabilities);

#endif
