/*
 * Small loops of user code, kernel operations and pieces of busybox work, timed inside a
 * guest and natively with the same static binary. `bench [NAME...]` prints a line
 * `@ GROUP NAME NANOSECONDS @` for each (a console may put text of its own before it),
 * best of three rounds of at least 0.1 s after a warm-up, and `@ end @` behind the last.
 *
 * The busybox work runs in the current directory, which holds `busybox` and `work`.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "timing.h"

static volatile uint64_t sink;

/* --- compute --- */

static unsigned fib(unsigned n) {
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static void do_fib(void) {
    sink += fib(24);
}

static void do_mix(void) {
    uint32_t a = 1, b = 2, c = 3;

    for (int i = 0; i < 100000; i++) {
        a += b ^ (c << 5);
        b = (b >> 3) * 9 + a;
        c -= a & b;
    }
    sink += a + b + c;
}

static int compare(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;

    return (x > y) - (x < y);
}

static void do_qsort(void) {
    static int v[10000];
    uint32_t r = 1;

    for (int i = 0; i < 10000; i++)
        v[i] = (int)((r = r * 1664525 + 1013904223) >> 8);
    qsort(v, 10000, sizeof(v[0]), compare);
    sink += (uint64_t)v[5000];
}

static uint32_t ror(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

static void do_sha256(void) {
    static uint32_t w[64];
    uint32_t s[8] = {1, 2, 3, 4, 5, 6, 7, 8};

    for (int block = 0; block < 100; block++) {
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)(block * i + 77);
        for (int i = 16; i < 64; i++) {
            uint32_t x = w[i - 15], y = w[i - 2];

            w[i] = w[i - 16] + w[i - 7] + (ror(x, 7) ^ ror(x, 18) ^ x >> 3) +
                   (ror(y, 17) ^ ror(y, 19) ^ y >> 10);
        }
        for (int i = 0; i < 64; i++) {
            uint32_t t = s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) +
                         ((s[4] & s[5]) ^ (~s[4] & s[6])) + w[i];
            uint32_t u = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) +
                         ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

            memmove(s + 1, s, 7 * sizeof(s[0]));
            s[4] += t;
            s[0] = t + u;
        }
    }
    sink += s[0];
}

static char big_a[8 << 20], big_b[8 << 20];

static void do_memcpy(void) {
    memcpy(big_a, big_b, 1 << 20);
    __asm__ volatile("" ::: "memory");
}

static void do_memset(void) {
    memset(big_a, 5, 1 << 20);
    __asm__ volatile("" ::: "memory");
}

static void do_matmul(void) {
    static double a[64][64], b[64][64], c[64][64];

    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 64; j++) {
            double s = 0;

            for (int k = 0; k < 64; k++)
                s += a[i][k] * b[k][j];
            c[i][j] = s;
        }
    __asm__ volatile("" ::"m"(a), "m"(b), "m"(c) : "memory");
}

static void do_nbody(void) {
    /* Afresh at each call: left to drift, the numbers become denormals, and the host's
     * microcode for those is all that is timed. */
    double p[5][3] = {{1, 2, 3}, {4, 5, 7}, {7, 1, 2}, {3, 9, 4}, {2, 2, 8}};
    double v[5][3] = {{0}};

    for (int step = 0; step < 1000; step++) {
        for (int i = 0; i < 5; i++)
            for (int j = i + 1; j < 5; j++) {
                double d[3], r2 = 0.01, m;

                for (int k = 0; k < 3; k++) {
                    d[k] = p[i][k] - p[j][k];
                    r2 += d[k] * d[k];
                }
                m = 0.001 / (r2 * sqrt(r2));
                for (int k = 0; k < 3; k++) {
                    v[i][k] -= d[k] * m;
                    v[j][k] += d[k] * m;
                }
            }
        for (int i = 0; i < 5; i++)
            for (int k = 0; k < 3; k++)
                p[i][k] += 0.001 * v[i][k];
    }
    sink += (uint64_t)p[0][0];
}

static void do_list(void) {
    static struct node {
        struct node *next;
        uint64_t pad[7];
    } n[4096];
    struct node *at = n;

    if (!n[0].next)
        for (int i = 0; i < 4096; i++)
            n[i].next = &n[(i * 1021 + 7) & 4095];
    for (int i = 0; i < 100000; i++)
        at = at->next;
    sink += (uint64_t)(uintptr_t)at;
}

/* A tiny bytecode machine: one indirect jump an operation. */
static void do_bytecode(void) {
    static const uint8_t code[] = {0, 1, 2, 3, 0, 2, 1, 4};
    uint64_t acc = 1;
    unsigned n = 12500;

    for (unsigned pc = 0;; pc++) {
        switch (code[pc]) {
        case 0:
            acc += 3;
            break;
        case 1:
            acc ^= acc << 7;
            break;
        case 2:
            acc -= 1;
            break;
        case 3:
            acc *= 5;
            break;
        default:
            if (!--n) {
                sink += acc;
                return;
            }
            pc = (unsigned)-1;
        }
    }
}

static uint64_t f0(uint64_t x) {
    return x + 1;
}
static uint64_t f1(uint64_t x) {
    return x * 3;
}
static uint64_t f2(uint64_t x) {
    return x ^ 0x55;
}
static uint64_t f3(uint64_t x) {
    return x >> 1;
}

static void do_icall(void) {
    static uint64_t (*volatile fn[4])(uint64_t) = {f0, f1, f2, f3};
    uint64_t x = 1;

    for (int i = 0; i < 100000; i++)
        x = fn[(x ^ (unsigned)i) & 3](x);
    sink += x;
}

/* Writes a function, calls it, writes the next over it. */
static void do_jit(void) {
    static uint8_t *page;

    if (!page)
        page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 100; i++) {
        uint8_t code[] = {0xb8, (uint8_t)i, 0, 0, 0, 0x83, 0xc0, 7, 0xc3};

        memcpy(page + (i & 15) * 64, code, sizeof(code));
        sink += (uint64_t)((int (*)(void))(uintptr_t)(page + (i & 15) * 64))();
    }
}

/* --- kernel --- */

static void do_getppid(void) {
    syscall(SYS_getppid);
}

static void do_clock(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
}

static void do_pipe(void) {
    static int fd[2];
    char c = 0;

    if (!fd[1] && pipe(fd))
        exit(1);
    if (write(fd[1], &c, 1) != 1 || read(fd[0], &c, 1) != 1)
        exit(1);
}

static void do_switch(void) {
    static int to[2], from[2];
    char c = 0;

    if (!to[1]) {
        if (pipe(to) || pipe(from))
            exit(1);
        if (!fork()) {
            close(to[1]);
            while (read(to[0], &c, 1) == 1 && write(from[1], &c, 1) == 1)
                ;
            _exit(0);
        }
        close(to[0]);
    }
    if (write(to[1], &c, 1) != 1 || read(from[0], &c, 1) != 1)
        exit(1);
}

static void do_fork(void) {
    pid_t p = fork();

    if (!p)
        _exit(0);
    waitpid(p, NULL, 0);
}

static const char *self;

static void do_exec(void) {
    pid_t p = vfork();

    if (!p) {
        execl(self, self, "-", (char *)NULL);
        _exit(1);
    }
    waitpid(p, NULL, 0);
}

static void do_fault(void) {
    char *p =
        mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    for (int i = 0; i < 64; i++)
        p[i * 4096] = 1;
    munmap(p, 64 * 4096);
}

static void do_mmap(void) {
    munmap(mmap(NULL, 16384, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 16384);
}

static void on_signal(int n) {
    sink += (uint64_t)n;
}

static void do_signal(void) {
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
}

static void do_open(void) {
    close(open("/proc/self/stat", O_RDONLY));
}

static void do_stat(void) {
    struct stat st;

    stat("/", &st);
}

static void do_read(void) {
    static char buf[65536];
    static int fd;

    if (!fd)
        fd = open(self, O_RDONLY);
    if (pread(fd, buf, sizeof(buf), 0) <= 0)
        exit(1);
}

/* --- busybox work --- */

static void work(const char *name) {
    pid_t p = vfork();
    int status;

    if (!p) {
        execl("./busybox", "busybox", "sh", "./work", name, (char *)NULL);
        _exit(1);
    }
    if (p < 0 || waitpid(p, &status, 0) < 0 || status) {
        fprintf(stderr, "bench: work %s failed\n", name);
        exit(1);
    }
}

static void prepare(void) {
    static int done;

    if (!done)
        work("prepare");
    done = 1;
}

/* clang-format off */
#define WORK(name) static void do_##name(void) { prepare(); work(#name); }
WORK(targz) WORK(untar) WORK(sort) WORK(awk) WORK(sha256sum) WORK(fork500)
    /* clang-format on */

    static const struct {
    const char *group, *name;
    void (*run)(void);
} tests[] = {
    {"compute", "fib", do_fib},
    {"compute", "mix", do_mix},
    {"compute", "qsort", do_qsort},
    {"compute", "sha256", do_sha256},
    {"compute", "memcpy", do_memcpy},
    {"compute", "memset", do_memset},
    {"compute", "matmul", do_matmul},
    {"compute", "nbody", do_nbody},
    {"compute", "list", do_list},
    {"compute", "bytecode", do_bytecode},
    {"compute", "icall", do_icall},
    {"jit", "jit", do_jit},
    {"kernel", "getppid", do_getppid},
    {"kernel", "clock_gettime", do_clock},
    {"kernel", "pipe", do_pipe},
    {"kernel", "switch", do_switch},
    {"kernel", "fork", do_fork},
    {"kernel", "exec", do_exec},
    {"kernel", "fault64", do_fault},
    {"kernel", "mmap", do_mmap},
    {"kernel", "signal", do_signal},
    {"kernel", "open", do_open},
    {"kernel", "stat", do_stat},
    {"kernel", "read64k", do_read},
    {"busybox", "targz", do_targz},
    {"busybox", "untar", do_untar},
    {"busybox", "sort", do_sort},
    {"busybox", "awk", do_awk},
    {"busybox", "sha256sum", do_sha256sum},
    {"busybox", "fork500", do_fork500},
};

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "-"))
        return 0;
    self = argv[0];
    signal(SIGPIPE, SIG_IGN);
    pin();
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        int wanted = argc < 2;

        for (int k = 1; k < argc; k++)
            wanted |= !strcmp(argv[k], tests[i].name) || !strcmp(argv[k], tests[i].group);
        if (wanted) {
            printf("\n@ %s %s %.1f @\n", tests[i].group, tests[i].name,
                   time_one(tests[i].run));
            fflush(stdout);
        }
    }
    puts("\n@ end @");
    return 0;
}
