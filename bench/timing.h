/* How a loop is timed: best of three rounds of at least 0.1 s after a warm-up. */
#ifndef BENCH_TIMING_H
#define BENCH_TIMING_H

#include <sched.h>
#include <time.h>

static const double time_limit = 1e8; /* ns a round */

static double now(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static double time_one(void (*run)(void)) {
    double best = 1e30;

    run();
    for (int round = 0; round < 3; round++) {
        double start = now(), t;
        unsigned n = 0;

        do {
            run();
            n++;
        } while ((t = now() - start) < time_limit);
        if (t / n < best)
            best = t / n;
    }
    return best;
}

/* On one CPU as in the guest: two processes that talk take turns there too. */
static void pin(void) {
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    sched_setaffinity(0, sizeof(set), &set);
}

#endif
