/*
 * The larger workloads of `bivisor compare`: the same program runs natively and as the
 * only one in a Linux guest.
 *
 *   macro ROOT [PROGRAM]
 *
 *   forkwait   2,000 times fork and wait, the child does nothing. The paper's worst case
 *              for a VMM: page tables made and torn down, address spaces switched.
 *   compile    gcc's cc1 and as over ROOT/macro/N.i: processes, files, a lot of code
 *
 * and then ROOT/bin/bench, the compute set. A line for each:
 *
 *   macro name=compile seconds=1.234 result=9f8e7d6c
 *
 * PROGRAM runs forkwait or compile alone, or none of all.
 *
 * RESULT is computed from what the workload made and must be the same everywhere.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FORKS 2000

static double now(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void tell(const char *name, double seconds, uint32_t result) {
    printf("macro name=%s seconds=%.4f result=%08x\n", name, seconds, result);
    fflush(stdout);
}

static int wait_for(pid_t pid) {
    int status;

    if (waitpid(pid, &status, 0) < 0)
        die("waitpid");
    return status;
}

static void forkwait(void) {
    double start = now();
    unsigned ended = 0;

    for (unsigned n = 0; n < FORKS; n++) {
        pid_t pid = fork();

        if (pid < 0)
            die("fork");
        if (!pid)
            _exit(7);
        ended += WEXITSTATUS(wait_for(pid)) == 7;
    }
    tell("forkwait", now() - start, ended);
}

static void run(const char *const *argv) {
    pid_t pid = fork();

    if (pid < 0)
        die("fork");
    if (!pid) {
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    if (wait_for(pid))
        exit(1);
}

/* FNV-1a over a file. */
static uint32_t hash_file(const char *path, uint32_t h) {
    unsigned char buf[65536];
    ssize_t n;
    int fd = open(path, O_RDONLY);

    if (fd < 0)
        die(path);
    while ((n = read(fd, buf, sizeof(buf))) > 0)
        for (ssize_t k = 0; k < n; k++)
            h = (h ^ buf[k]) * 16777619u;
    close(fd);
    return h;
}

/* Natively, with a ROOT, the machine's own compiler makes the same of it. */
static void compile(const char *root) {
    char in[512], text[64], object[64];
    const char *const cc1[] = {*root ? MACRO_HOST_CC1 : MACRO_CC1,
                               "-quiet",
                               "-fpreprocessed",
                               "-m" MACRO_WIDTH,
                               "-O2",
                               in,
                               "-o",
                               text,
                               NULL};
    const char *const as[] = {
        *root ? MACRO_HOST_AS : MACRO_AS, "--" MACRO_WIDTH, "-o", object, text, NULL};
    uint32_t result = 2166136261u;
    double start = now();

    snprintf(text, sizeof(text), "/tmp/macro-%d.s", (int)getpid());
    snprintf(object, sizeof(object), "/tmp/macro-%d.o", (int)getpid());
    for (unsigned n = 1;; n++) {
        snprintf(in, sizeof(in), "%s/macro/%u.i", root, n);
        if (access(in, R_OK))
            break;
        run(cc1);
        run(as);
        result = hash_file(object, result);
    }
    unlink(text);
    unlink(object);
    tell("compile", now() - start, result);
}

int main(int argc, char **argv) {
    char bench[512];

    const char *only = argc > 2 ? argv[2] : NULL;

    if (argc < 2) {
        fprintf(stderr, "usage: macro ROOT [forkwait|compile|none]\n");
        return 2;
    }
    if (!only || !strcmp(only, "forkwait"))
        forkwait();
    if (!only || !strcmp(only, "compile"))
        compile(argv[1]);
    if (only)
        return 0;
    snprintf(bench, sizeof(bench), "%s/bin/bench", argv[1]);
    execl(bench, bench, "fib", "mix", "qsort", "sha256", "memcpy", "matmul", "nbody",
          "list", "bytecode", "icall", (char *)NULL);
    die(bench);
}
