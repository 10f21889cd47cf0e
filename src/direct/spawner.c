/* The process that makes cells; see spawner.h. */
#include "direct/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "direct/abi.h"

/* As `ld -b binary` names it (guest/cell/cell.mk). */
extern const uint8_t _binary_cell_start[], _binary_cell_end[];

struct spawner {
    const struct spawner_config *cfg;
    int program_fd, socket, signals;
    pid_t pid[CELLS_MAX];
};

/* --- a cell --- */

#define CELL_FD_PROGRAM 9
#define ABOVE                                                                            \
    64 /* where descriptors are out of the way of the places they are to have            \
        */

static void place(int fd, int at) {
    if (dup2(fd, at) < 0)
        _exit(126);
}

static void place_descriptors(const struct spawner *s, unsigned n) {
    const int from[] = {s->cfg->ram_fd, s->cfg->slots_fd, s->cfg->ack[n], s->cfg->out[n],
                        s->cfg->go[n],  s->cfg->kick[n],  s->program_fd};
    int high[ARRAY_SIZE(from)];

    for (size_t k = 0; k < ARRAY_SIZE(from); k++)
        high[k] = fcntl(from[k], F_DUPFD, ABOVE);
    for (size_t k = 0; k < ARRAY_SIZE(from); k++)
        place(high[k], CELL_FD_RAM + (int)k);
    fcntl(CELL_FD_PROGRAM, F_SETFD, FD_CLOEXEC);
    syscall(SYS_close_range, CELL_FD_PROGRAM + 1u, ~0u, 0);
}

static _Noreturn void become_cell(const struct spawner *s,
                                  const struct spawner_request *r) {
    char text[8];
    char *argv[] = {"bivisor-cell", text, NULL}, *envp[] = {NULL};
    sigset_t none;
    cpu_set_t one;

    snprintf(text, sizeof(text), "%u%s%s", r->slot, r->tsc_faults ? "t" : "",
             r->cpuid_faults ? "c" : "");
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    CPU_ZERO(&one);
    CPU_SET(r->cpu, &one);
    if (r->pinned)
        sched_setaffinity(0, sizeof(one), &one);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    place_descriptors(s, r->slot);
    syscall(SYS_execveat, CELL_FD_PROGRAM, "", argv, envp, AT_EMPTY_PATH);
    _exit(127);
}

/* --- the spawner --- */

static void tell(int fd, uint64_t value) {
    ssize_t rc;

    do
        rc = write(fd, &value, sizeof(value));
    while (rc < 0 && errno == EINTR);
}

static void tell_dead(const struct spawner *s, unsigned n) {
    __atomic_store_n(&s->cfg->dead[n], SPAWNER_DEAD, __ATOMIC_SEQ_CST);
    tell(s->cfg->ack[n], CELL_ACK_DEAD);
    tell(s->cfg->out[n], 1);
    __atomic_store_n(&s->cfg->dead[n], SPAWNER_DEAD_AND_TOLD, __ATOMIC_SEQ_CST);
}

static void changed(struct spawner *s, pid_t pid, int status) {
    for (unsigned n = 0; n < CELLS_MAX; n++) {
        if (s->pid[n] != pid)
            continue;
        if (WIFSTOPPED(status)) {
            kill(pid, SIGCONT);
            return;
        }
        s->pid[n] = 0;
        tell_dead(s, n);
    }
}

static void look_after_cells(struct spawner *s) {
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    while (read(s->signals, &info, sizeof(info)) > 0)
        ;
    while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0)
        changed(s, pid, status);
}

static void make(struct spawner *s, const struct spawner_request *r) {
    pid_t pid = s->pid[r->slot] ? -1 : fork();

    if (!pid)
        become_cell(s, r);
    if (pid < 0)
        tell_dead(s, r->slot);
    else
        s->pid[r->slot] = pid;
}

static void serve(struct spawner *s) {
    struct spawner_request r;
    ssize_t got = read(s->socket, &r, sizeof(r));

    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got != sizeof(r))
        _exit(0); /* the VMM has ended; the cells go with us */
    if (r.slot >= CELLS_MAX || r.cpu >= CPU_SETSIZE)
        return;
    if (r.what == SPAWNER_MAKE)
        make(s, &r);
    else if (s->pid[r.slot])
        kill(s->pid[r.slot], SIGKILL);
}

/* The VMM's other descriptors, and its terminal, are none of our business. */
static void keep_ours(const struct spawner *s) {
    const struct spawner_config *c = s->cfg;
    int keep[5 + 4 * CELLS_MAX] = {c->ram_fd, c->slots_fd, s->program_fd, s->socket,
                                   s->signals};

    for (unsigned n = 0; n < CELLS_MAX; n++) {
        int *k = keep + 5 + 4 * n;

        k[0] = c->ack[n];
        k[1] = c->out[n];
        k[2] = c->go[n];
        k[3] = c->kick[n];
    }
    os_helper_keep(keep, ARRAY_SIZE(keep));
    setsid();
}

static _Noreturn void run(struct spawner *s) {
    struct pollfd p[2] = {{.fd = s->socket, .events = POLLIN}};
    sigset_t chld;

    prctl(PR_SET_NAME, "bivisor-spawner");
    sigfillset(&chld);
    sigprocmask(SIG_SETMASK, &chld, NULL);
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    s->signals = signalfd(-1, &chld, SFD_NONBLOCK | SFD_CLOEXEC);
    p[1] = (struct pollfd){.fd = s->signals, .events = POLLIN};
    keep_ours(s);
    os_jail_spawner(CELL_FD_PROGRAM);
    for (;;) {
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            _exit(1);
        look_after_cells(s);
        if (p[0].revents & (POLLIN | POLLHUP))
            serve(s);
    }
}

static int program_fd(void) {
    size_t len = (size_t)(_binary_cell_end - _binary_cell_start);
    int fd = memfd_create("bivisor-cell", MFD_CLOEXEC);

    if (fd >= 0 && write(fd, _binary_cell_start, len) != (ssize_t)len) {
        close(fd);
        return -EIO;
    }
    return fd < 0 ? -errno : fd;
}

static int wait_for(pid_t pid) {
    int status;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return status ? -EAGAIN : 0;
}

/* Nobody's child: the VMM, in its jail, cannot wait for it. */
static int fork_twice(struct spawner *s, int other_end) {
    pid_t pid = fork();

    if (!pid) {
        pid = fork();
        if (pid)
            _exit(pid < 0);
        close(other_end);
        run(s);
    }
    return pid < 0 ? -errno : wait_for(pid);
}

int spawner_start(const struct spawner_config *cfg, int *socket) {
    struct spawner s = {.cfg = cfg, .program_fd = program_fd()};
    int pair[2], rc;

    if (s.program_fd < 0)
        return s.program_fd;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
        rc = -errno;
        close(s.program_fd);
        return rc;
    }
    s.socket = pair[1];
    rc = fork_twice(&s, pair[0]);
    close(pair[1]);
    close(s.program_fd);
    if (rc)
        close(pair[0]);
    else
        *socket = pair[0];
    return rc;
}
