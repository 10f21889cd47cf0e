/*
 * What several CPUs do at once. `smp KIND PROCESSES SECONDS [ROOT]` runs so many
 * processes (pairs of them, for pipes) and prints what they did in a second, all
 * together:
 *
 *   compute   sorting, hashing and calls, in memory of their own
 *   cc        cc1 and as over ROOT/macro/N.i, the next file to whoever is ready; twenty
 *             files, however long it takes
 *   forkwait  fork and wait
 *   pipes     a byte to and fro through two pipes
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FILES 20
#define PROCESSES_MAX 64

static struct {
    uint64_t done[PROCESSES_MAX][8]; /* a cache line each */
    uint32_t next;                   /* file */
} * shared;
static double until;
static const char *root = "";

static double now(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static unsigned fib(unsigned n) {
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static int compare(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;

    return (x > y) - (x < y);
}

static void compute(uint64_t *done) {
    static int v[4000];
    static uint8_t table[1 << 16];
    uint32_t r = 1, h = 0;

    for (; now() < until; ++*done) {
        for (int i = 0; i < 4000; i++)
            v[i] = (int)((r = r * 1664525 + 1013904223) >> 8);
        qsort(v, 4000, sizeof(v[0]), compare);
        h += fib(18);
        for (int i = 0; i < 100000; i++) {
            h = (h ^ table[h >> 16]) * 0x01000193u;
            table[h & 0xffff] = (uint8_t)i;
        }
    }
}

static void run(char *const argv[]) {
    int status;
    pid_t pid = vfork();

    if (!pid) {
        execv(argv[0], argv);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || status)
        die(argv[0]);
}

static void cc(uint64_t *done) {
    uint32_t n;

    while ((n = __atomic_fetch_add(&shared->next, 1, __ATOMIC_SEQ_CST)) < FILES) {
        char in[256], s[64], o[64];
        char *cc1[] = {SMP_CC1, "-quiet", "-O2", "-fpreprocessed", in, "-o", s, NULL};
        char *as[] = {SMP_AS, "-o", o, s, NULL};

        snprintf(in, sizeof(in), "%s/macro/%u.i", root, n % 5 + 1);
        snprintf(s, sizeof(s), "/tmp/smp-%u.s", n);
        snprintf(o, sizeof(o), "/tmp/smp-%u.o", n);
        run(cc1);
        run(as);
        unlink(s);
        unlink(o);
        ++*done;
    }
}

static void forkwait(uint64_t *done) {
    for (; now() < until; ++*done) {
        pid_t pid = fork();

        if (!pid)
            _exit(0);
        if (pid < 0 || waitpid(pid, NULL, 0) < 0)
            die("fork");
    }
}

static void pipes(uint64_t *done) {
    int to[2], from[2];
    char c = 0;
    pid_t pid;

    if (pipe(to) || pipe(from))
        die("pipe");
    pid = fork();
    if (!pid) {
        close(to[1]);
        while (read(to[0], &c, 1) == 1 && write(from[1], &c, 1) == 1)
            ;
        _exit(0);
    }
    close(to[0]);
    for (; now() < until; ++*done)
        if (write(to[1], &c, 1) != 1 || read(from[0], &c, 1) != 1)
            die("pipe");
    close(to[1]);
    waitpid(pid, NULL, 0);
}

static const struct {
    const char *name;
    void (*fn)(uint64_t *done);
} kinds[] = {{"compute", compute}, {"cc", cc}, {"forkwait", forkwait}, {"pipes", pipes}};

int main(int argc, char **argv) {
    int processes = argc > 3 ? atoi(argv[2]) : 0;
    uint64_t sum = 0;
    double start;

    if (processes < 1 || processes > PROCESSES_MAX)
        return 2;
    if (argc > 4)
        root = argv[4];
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        die("mmap");
    for (unsigned k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        if (strcmp(argv[1], kinds[k].name))
            continue;
        start = now();
        until = start + atof(argv[3]);
        for (int n = 0; n < processes; n++)
            if (!fork()) {
                kinds[k].fn(shared->done[n]);
                _exit(0);
            }
        for (int status; wait(&status) > 0;)
            if (status)
                return 1;
        for (int n = 0; n < processes; n++)
            sum += shared->done[n][0];
        printf("\n@ smp %s %.4f @\n", argv[1], (double)sum / (now() - start));
        return 0;
    }
    return 2;
}
