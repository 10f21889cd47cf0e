/*
 * What the host does with locked accesses that cross a cache line: newer processors can
 * tell the kernel of each (Intel SDM volume 3, "Bus Lock Detection"; AMD64 APM volume 2,
 * "Bus Lock Threshold"), which lets them pass, slows their thread down by milliseconds,
 * or raises SIGBUS. A child process tries some.
 */
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"

#define TRIES 4
/* For one. What is not punished takes a microsecond; a trap that only warns takes 200,
 * and a line of the kernel's log; the kernel's own delay is 10 ms. A stop takes some 20.
 */
#define SLOW_NS 30000u

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

bool os_split_locks(void) {
    int status;
    pid_t child = fork();

    if (!child)
        try_some();
    if (child < 0)
        return false;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    return WIFEXITED(status) && !WEXITSTATUS(status);
}
