/*
 * Time on all CPUs of a guest, for tests/smp/run: a thread on each CPU reads the clocks
 * and the TSC in turn with the others, and none may be behind what another has read
 * before. Says every half second how it is, so that whoever pauses the machine, or
 * freezes and thaws it, sees that it goes on.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define MOST 64
#define CLOCKS 3
static const char *const names[CLOCKS] = {"monotonic", "raw", "TSC"};

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static uint64_t last[CLOCKS], turns, bad; /* whose turn it is has them */
static volatile int done;

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t tsc(void) {
    uint32_t lo, hi;

    __asm__ volatile("mfence; lfence; rdtsc; lfence" : "=a"(lo), "=d"(hi)::"memory");
    return (uint64_t)hi << 32 | lo;
}

static void look(unsigned cpu) {
    uint64_t now[CLOCKS] = {clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_MONOTONIC_RAW),
                            tsc()};

    turns++;
    for (unsigned n = 0; n < CLOCKS; n++) {
        if (now[n] < last[n] && ++bad < 10)
            printf("%s on CPU %u: %lu after %lu\n", names[n], cpu, now[n], last[n]);
        last[n] = now[n];
    }
}

static void *looks(void *arg) {
    unsigned cpu = (unsigned)(uintptr_t)arg;
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set))
        bad++;
    while (!done) {
        pthread_mutex_lock(&turn);
        look(cpu);
        pthread_mutex_unlock(&turn);
        sched_yield();
    }
    return NULL;
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 10;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    pthread_t thread[MOST];

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (long n = 0; n < cpus && n < MOST; n++)
        if (pthread_create(&thread[n], NULL, looks, (void *)n))
            return 2;
    for (int n = 0; n < rounds; n++) {
        usleep(500000);
        pthread_mutex_lock(&turn);
        printf("round %d: %lu turns, %lu bad\n", n, turns, bad);
        pthread_mutex_unlock(&turn);
    }
    done = 1;
    for (long n = 0; n < cpus && n < MOST; n++)
        pthread_join(thread[n], NULL);
    return turns < 1000 || bad;
}
