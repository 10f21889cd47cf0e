/* Processes that are forked to do one thing for us; see os.h. */
#include <signal.h>
#include <unistd.h>

#include "base/os.h"

static bool is_in(const int *fds, unsigned count, int fd) {
    for (unsigned n = 0; n < count; n++)
        if (fds[n] == fd)
            return true;
    return false;
}

void os_helper_begin(const int *keep, unsigned count) {
    long most = sysconf(_SC_OPEN_MAX);
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    setsid();
    for (int fd = 0; fd < most && fd < 65536; fd++)
        if (!is_in(keep, count, fd))
            close(fd);
}
