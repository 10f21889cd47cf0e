/* Host clocks, and the host's entropy. */
#include <cpuid.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <x86intrin.h>

#include "base/os.h"

static uint64_t clock_ns(clockid_t id) {
    struct timespec ts = {0};

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t os_monotonic_ns(void) {
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t os_realtime_ns(void) {
    return clock_ns(CLOCK_REALTIME);
}

size_t os_random(void *buf, size_t len) {
    ssize_t n = getrandom(buf, len, GRND_NONBLOCK);

    return n < 0 ? 0 : (size_t)n;
}

uint64_t os_tsc(void) {
    return __rdtsc();
}

uint64_t os_thread_cpu_ns(void) {
    return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* The kernel's name for the clock of a process; see clock_getcpuclockid(3), which makes a
 * system call of its own. */
uint64_t os_process_cpu_ns(uint32_t pid) {
    return clock_ns((clockid_t)(~pid << 3 | 2));
}

/* One reading of both clocks, the TSC taken around the other to bound the error. */
static void sample(uint64_t *tsc, uint64_t *ns) {
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < 8; i++) {
        uint64_t before = __rdtsc();
        uint64_t now = os_monotonic_ns();
        uint64_t after = __rdtsc();

        if (after - before < best) {
            best = after - before;
            *tsc = before + best / 2;
            *ns = now;
        }
    }
}

/*
 * The hypervisor's timing leaf (0x40000010, kHz) when there is one; else measured over
 * 20 ms, which is good to about ten parts in a million.
 */
static uint64_t measure(void) {
    struct timespec pause = {.tv_nsec = 20000000};
    uint64_t t0, n0, t1, n1;
    uint32_t a, b, c, d;

    __cpuid(1, a, b, c, d);
    if (c & (1u << 31)) {
        __cpuid(0x40000000, a, b, c, d);
        if (a >= 0x40000010) {
            __cpuid(0x40000010, a, b, c, d);
            if (a > 100000 && a < 10000000)
                return (uint64_t)a * 1000;
        }
    }
    sample(&t0, &n0);
    nanosleep(&pause, NULL);
    sample(&t1, &n1);
    return (uint64_t)((double)(t1 - t0) * 1e9 / (double)(n1 - n0));
}

static uint64_t hz; /* a property of the host, not state */

void os_tsc_hz_known(uint64_t known) {
    hz = known;
}

uint64_t os_tsc_hz(void) {
    if (!hz)
        hz = measure();
    return hz;
}

void os_sleep_ns(uint64_t ns) {
    struct timespec pause = {.tv_sec = (time_t)(ns / 1000000000u),
                             .tv_nsec = (long)(ns % 1000000000u)};

    while (ppoll(NULL, 0, &pause, NULL) < 0 && errno == EINTR)
        ;
}
