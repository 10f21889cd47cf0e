/*
 * What the host does with locked accesses that cross a cache line: newer processors can
 * tell the kernel of each (Intel SDM volume 3, "Bus Lock Detection"; AMD64 APM volume 2,
 * "Bus Lock Threshold"), which lets them pass, slows their thread down by milliseconds,
 * or raises SIGBUS. A kernel that delays a thread has all others that are to be delayed
 * wait meanwhile. A child process tries some, and is left when that takes long.
 */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"

#define TRIES 4
/* For one, the fastest. What is not punished takes a microsecond; a trap takes 10 and
 * more, and with a line of the kernel's log, which a slow console has to show, up to a
 * second; the kernel's own delay is 10 ms. A stop takes some 20. */
#define SLOW_NS 5000u
#define LOOKS 500u /* at the child, a millisecond apart */

static _Noreturn void try_some(void) {
    _Alignas(64) uint8_t lines[128] = {0};
    uint32_t *split = (uint32_t *)(void *)(lines + 62);
    uint64_t best = UINT64_MAX;

    for (unsigned n = 0; n < TRIES; n++) {
        uint64_t start = os_monotonic_ns(), took;

        __asm__ volatile("lock incl %0" : "+m"(*split) : : "cc", "memory");
        took = os_monotonic_ns() - start;
        best = took < best ? took : best;
    }
    _exit(best < SLOW_NS ? 0 : 1);
}

/* Whether it has ended, within TIMES looks. */
static bool ends(pid_t child, int *status, unsigned times) {
    while (times--) {
        pid_t ended = waitpid(child, status, WNOHANG);

        if (ended == child || (ended < 0 && errno != EINTR))
            return ended == child;
        os_sleep_ns(1000000);
    }
    return false;
}

bool os_split_locks(void) {
    int status;
    pid_t child = fork();

    if (!child)
        try_some();
    if (child < 0)
        return false;
    if (ends(child, &status, LOOKS))
        return WIFEXITED(status) && !WEXITSTATUS(status);
    kill(child, SIGKILL);
    ends(child, &status, LOOKS);
    return false;
}
