/* Processes that are forked to do one thing for us; see os.h. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_limit.h"

#define MOST 65536u /* where close_range(2) is missing */

/* FIRST to LAST, both among them. */
static void close_between(unsigned first, unsigned last) {
    if (first > last || !syscall(SYS_close_range, first, last, 0))
        return;
    for (unsigned fd = first; fd <= last && fd < MOST; fd++)
        close((int)fd);
}

/* The lowest of FDS from FIRST on; -1: there is none. */
static int next_kept(const int *fds, unsigned count, unsigned first) {
    int next = -1;

    for (unsigned n = 0; n < count; n++)
        if (fds[n] >= 0 && (unsigned)fds[n] >= first && (next < 0 || fds[n] < next))
            next = fds[n];
    return next;
}

void os_helper_keep(const int *keep, unsigned count) {
    unsigned first = 0;
    int kept;

    while ((kept = next_kept(keep, count, first)) >= 0) {
        if (kept)
            close_between(first, (unsigned)kept - 1);
        first = (unsigned)kept + 1;
    }
    close_between(first, ~0u);
}

void os_helper_begin(const char *name, const int *keep, unsigned count) {
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    setsid();
    prctl(PR_SET_NAME, name);
    os_helper_keep(keep, count);
    limit_process(false, LIMIT_FILES_ANY);
}
