/*
 * What a filter makes a system call dearer by: calls that a machine makes, in a process
 * that is not locked up and in one that is, in turn. Prints the best of each.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"

#define PAIRS 12
#define ROUNDS 15
#define CALLS 20000

static int event, file;
static uint32_t word;
static void *page;
static char byte;

static void do_read(void) {
    uint64_t value;

    (void)!read(event, &value, sizeof(value));
}

static void do_write(void) {
    const uint64_t value = 1;

    (void)!write(event, &value, sizeof(value));
}

static void do_futex(void) {
    syscall(SYS_futex, &word, 1 /* FUTEX_WAKE */, 1, NULL, NULL, 0);
}

static void do_poll(void) {
    poll(&(struct pollfd){event, POLLIN, 0}, 1, 0);
}

static void do_preadv2(void) {
    (void)!preadv2(file, &(struct iovec){&byte, 1}, 1, 0, RWF_NOWAIT);
}

static void do_pwritev2(void) {
    (void)!pwritev2(file, &(struct iovec){&byte, 1}, 1, 0, RWF_NOWAIT);
}

static void do_mprotect(void) {
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

static const struct {
    const char *name;
    void (*make)(void);
} calls[] = {
    {"read", do_read},         {"write", do_write},     {"futex", do_futex},
    {"poll", do_poll},         {"preadv2", do_preadv2}, {"pwritev2", do_pwritev2},
    {"mprotect", do_mprotect},
};

static double one(void (*make)(void)) {
    double best = 1e18;

    for (unsigned r = 0; r < ROUNDS; r++) {
        uint64_t start = os_monotonic_ns();
        double took;

        for (unsigned n = 0; n < CALLS; n++)
            make();
        took = (double)(os_monotonic_ns() - start) / CALLS;
        best = took < best ? took : best;
    }
    return best;
}

static _Noreturn void measure(bool jail, int out) {
    double ns[ARRAY_SIZE(calls)];

    event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    file = memfd_create("jail", MFD_CLOEXEC);
    fcntl(out, F_SETFD, FD_CLOEXEC);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (write(file, "x", 1) != 1 || page == MAP_FAILED ||
        (jail && os_jail_enter(&(struct os_jail_needs){0})))
        _exit(1);
    for (size_t n = 0; n < ARRAY_SIZE(calls); n++)
        ns[n] = one(calls[n].make);
    _exit(write(out, ns, sizeof(ns)) != sizeof(ns));
}

/* False: the child could not measure. */
static bool run(bool jail, double best[ARRAY_SIZE(calls)]) {
    double ns[ARRAY_SIZE(calls)];
    int ends[2], status;
    pid_t pid;
    bool good;

    if (pipe(ends))
        return false;
    pid = fork();
    if (!pid)
        measure(jail, ends[1]);
    close(ends[1]);
    good = read(ends[0], ns, sizeof(ns)) == sizeof(ns);
    close(ends[0]);
    waitpid(pid, &status, 0);
    for (size_t n = 0; n < ARRAY_SIZE(calls) && good; n++)
        best[n] = ns[n] < best[n] ? ns[n] : best[n];
    return good;
}

int main(void) {
    double best[2][ARRAY_SIZE(calls)];

    for (size_t n = 0; n < ARRAY_SIZE(calls); n++)
        best[0][n] = best[1][n] = 1e18;
    for (unsigned n = 0; n < PAIRS; n++)
        if (!run(n & 1, best[n & 1]) || !run(!(n & 1), best[!(n & 1)])) {
            fprintf(stderr, "there is no jail here\n");
            return 1;
        }
    for (size_t n = 0; n < ARRAY_SIZE(calls); n++)
        printf("%-10s%7.1f ns, in the jail%7.1f: %+.1f\n", calls[n].name, best[0][n],
               best[1][n], best[1][n] - best[0][n]);
    return 0;
}
