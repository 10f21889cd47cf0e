/*
 * What a thread of a running machine could do if a guest had broken out into it: makes
 * the thread execute system calls (ptrace(2)), and looks what becomes of them.
 *
 *   breakout refused TID [CALL...]  asks for each call that nobody may make, but for
 * CALLs: each must raise SIGSYS, which is kept from the thread, or fail with EPERM or
 * EACCES breakout alone TID              the same without the thread's filter
 *                                   (PTRACE_O_SUSPEND_SECCOMP): no file may be found
 *   breakout dies TID               asks for a file: the process must end
 *
 * Prints what was not refused, and ends with 1 then; with 77 where the host does not let
 * us try. The thread goes on where it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define SUSPEND_SECCOMP (1 << 21) /* PTRACE_O_SUSPEND_SECCOMP */
#define SKIPPED 77
#define TIOCSTI_ 0x5412
#define RX (PROT_READ | PROT_EXEC)
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)

struct call {
    const char *name;
    long nr, arg[6];
};
#define CALL(name, ...)                                                                  \
    {                                                                                    \
#name, SYS_##name, {                                                             \
            __VA_ARGS__                                                                  \
        }                                                                                \
    }

/* Pointers are bad: a call that is let through does no harm. */
static const struct call calls[] = {
    CALL(open, 0),
    CALL(openat, AT_FDCWD, 0),
    CALL(openat2, AT_FDCWD, 0),
    CALL(creat, 0),
    CALL(open_by_handle_at, -1),
    CALL(unlink, 0),
    CALL(unlinkat, AT_FDCWD, 0),
    CALL(rename, 0),
    CALL(renameat2, AT_FDCWD, 0, AT_FDCWD, 0),
    CALL(linkat, AT_FDCWD, 0, AT_FDCWD, 0),
    CALL(symlinkat, 0, AT_FDCWD, 0),
    CALL(mkdirat, AT_FDCWD, 0),
    CALL(mknodat, AT_FDCWD, 0, 020666),
    CALL(fchmodat, AT_FDCWD, 0),
    CALL(fchownat, AT_FDCWD, 0),
    CALL(setxattr, 0),
    CALL(chdir, 0),
    CALL(chroot, 0),
    CALL(mount, 0),
    CALL(pivot_root, 0),
    CALL(memfd_create, 0),
    CALL(socket, AF_UNIX, SOCK_STREAM, 0),
    CALL(socket, AF_INET, SOCK_STREAM, 0),
    CALL(socket, AF_NETLINK, SOCK_RAW, 0),
    CALL(socket, AF_PACKET, SOCK_RAW, 0),
    CALL(socketpair, AF_UNIX, SOCK_STREAM, 0, 0),
    CALL(connect, -1),
    CALL(bind, -1),
    CALL(sendmsg, -1),
    CALL(sendmmsg, -1),
    CALL(io_uring_setup, 1, 0),
    CALL(pidfd_open, 1, 0),
    CALL(pidfd_getfd, -1),
    CALL(execve, 0),
    CALL(execveat, -1, 0),
    CALL(fork),
    CALL(vfork),
    CALL(clone, CLONE_NEWUSER | SIGCHLD),
    CALL(clone3, 0),
    CALL(unshare, CLONE_NEWUSER),
    CALL(setns, -1),
    CALL(ptrace, 16, 1),
    CALL(process_vm_readv, 1),
    CALL(process_vm_writev, 1),
    CALL(kill, 1, 0),
    CALL(kill, -1, 0),
    CALL(tkill, 1, 0),
    CALL(tgkill, 1, 1, 0),
    CALL(rt_sigqueueinfo, 1),
    CALL(prlimit64, 1, 0),
    CALL(mmap, 0, 4096, RX, ANONYMOUS, -1, 0),
    CALL(mprotect, 0, 4096, PROT_EXEC),
    CALL(pkey_mprotect, 0, 4096, PROT_EXEC, -1),
    CALL(userfaultfd, 0),
    CALL(setuid, 0),
    CALL(setresuid, 0, 0, 0),
    CALL(capset, 0),
    CALL(prctl, 22, 2, 0),
    CALL(seccomp, 0),
    CALL(bpf, 0),
    CALL(perf_event_open, 0),
    CALL(keyctl, 0),
    CALL(add_key, 0),
    CALL(init_module, 0),
    CALL(kexec_load, 0),
    CALL(reboot, 0),
    CALL(rt_sigaction, SIGSYS, 0, 0, 8),
    CALL(ioctl, 0, TIOCSTI_, 0),
};

/* --- the thread --- */

#define WORDS 3

struct thread {
    pid_t tid;
    struct user_regs_struct was;
    uint64_t gate;   /* a SYSCALL instruction of its process */
    uint64_t others; /* signals that came meanwhile */
    bool gone;
    bool has_text; /* in place of OLD, at AT */
    unsigned long at, old[WORDS];
};

static void die(int status, const char *what) {
    fprintf(stderr, "breakout: %s: %s\n", what, strerror(errno));
    exit(status);
}

/* In the vDSO, which is mapped in each process. */
static uint64_t find_gate(pid_t tid) {
    unsigned long from = 0, to = 0, at = 0;
    char path[64], line[512];
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/maps", (int)tid);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (strstr(line, "[vdso]"))
            sscanf(line, "%lx-%lx", &from, &to);
    if (f)
        fclose(f);
    for (at = from; at + 8 <= to; at++) {
        errno = 0;
        if (((unsigned long)ptrace(PTRACE_PEEKDATA, tid, at, NULL) & 0xffff) == 0x050f &&
            !errno)
            return at;
    }
    return 0;
}

/* A call that was interrupted is made again, as the kernel does it. */
static void begin_again(struct user_regs_struct *r) {
    long rc = (long)r->rax;

    if ((long)r->orig_rax >= 0 && rc <= -512 && rc >= -516) {
        r->rip -= 2;
        r->rax = rc == -516 ? SYS_restart_syscall : r->orig_rax;
    }
    r->orig_rax = (unsigned long)-1;
}

static void take(struct thread *t, pid_t tid, int options) {
    int status;

    *t = (struct thread){.tid = tid};
    if (ptrace(PTRACE_SEIZE, tid, NULL, PTRACE_O_TRACESYSGOOD | options))
        die(options ? SKIPPED : 1, "it cannot be traced");
    if (ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) || waitpid(tid, &status, __WALL) < 0 ||
        ptrace(PTRACE_GETREGS, tid, NULL, &t->was))
        die(1, "it does not stop");
    t->gate = (long)t->was.orig_rax >= 0 ? t->was.rip - 2 : find_gate(tid);
    if (!t->gate)
        die(1, "it has no vDSO");
    begin_again(&t->was);
}

static void let_go(struct thread *t) {
    if (t->gone)
        return;
    for (size_t n = 0; n < WORDS && t->has_text; n++)
        ptrace(PTRACE_POKEDATA, t->tid, t->at + 8 * n, t->old[n]);
    if (ptrace(PTRACE_SETREGS, t->tid, NULL, &t->was) ||
        ptrace(PTRACE_DETACH, t->tid, NULL, NULL))
        die(1, "it does not go on");
    for (int signo = 1; signo < 64; signo++)
        if (t->others & 1ull << signo)
            syscall(SYS_tkill, t->tid, signo);
}

/* On to the next stop at a call's edge, or at SIGSYS: true. */
static bool next_stop(struct thread *t, int *signo) {
    int status;

    for (;;) {
        if (ptrace(PTRACE_SYSCALL, t->tid, NULL, NULL) ||
            waitpid(t->tid, &status, __WALL) < 0 || !WIFSTOPPED(status)) {
            t->gone = true;
            return false;
        }
        *signo = WSTOPSIG(status);
        if (*signo == (SIGTRAP | 0x80) || *signo == SIGSYS)
            return true;
        if (*signo != SIGTRAP)
            t->others |= 1ull << *signo;
    }
}

static bool has_pending(pid_t tid, int signo) {
    char path[64], line[256];
    unsigned long mask = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        sscanf(line, "SigPnd: %lx", &mask);
    if (f)
        fclose(f);
    return mask & 1ul << (signo - 1);
}

#define FORBIDDEN (-4096) /* SIGSYS */
#define KILLED (-4097)

static long make(struct thread *t, const struct call *c) {
    struct user_regs_struct r = t->was;
    int signo;

    r.rip = t->gate;
    r.rax = (unsigned long)c->nr;
    r.orig_rax = (unsigned long)-1;
    r.rdi = (unsigned long)c->arg[0];
    r.rsi = (unsigned long)c->arg[1];
    r.rdx = (unsigned long)c->arg[2];
    r.r10 = (unsigned long)c->arg[3];
    r.r8 = (unsigned long)c->arg[4];
    r.r9 = (unsigned long)c->arg[5];
    if (ptrace(PTRACE_SETREGS, t->tid, NULL, &r))
        die(1, "its registers");
    if (!next_stop(t, &signo) || !next_stop(t, &signo))
        return KILLED;
    if (signo != SIGSYS && has_pending(t->tid, SIGSYS) && !next_stop(t, &signo))
        return KILLED;
    if (signo == SIGSYS)
        return FORBIDDEN;
    if (ptrace(PTRACE_GETREGS, t->tid, NULL, &r))
        die(1, "its registers");
    return (long)r.rax;
}

/* --- what is asked --- */

static bool is_named(const struct call *c, char **list) {
    char both[64];

    snprintf(both, sizeof(both), "%s:%ld", c->name, c->arg[0]);
    for (; *list; list++)
        if (!strcmp(c->name, *list) || !strcmp(both, *list))
            return true;
    return false;
}

static int refused(pid_t tid, char **but) {
    struct thread t;
    int bad = 0;

    take(&t, tid, 0);
    for (size_t n = 0; n < ARRAY_SIZE(calls) && !t.gone; n++) {
        long rc;

        if (is_named(&calls[n], but))
            continue;
        rc = make(&t, &calls[n]);
        if (rc == FORBIDDEN || rc == KILLED || rc == -EPERM || rc == -EACCES)
            continue;
        printf("%s(%#lx) of %d: %ld\n", calls[n].name, calls[n].arg[0], (int)tid, rc);
        bad = 1;
    }
    let_go(&t);
    return bad;
}

/* On the thread's stack, which is put back when it is let go. */
static long put_text(struct thread *t, const char *text) {
    unsigned long word[WORDS] = {0};

    t->at = t->was.rsp & ~7ul;
    strncpy((char *)word, text, sizeof(word) - 1);
    for (size_t n = 0; n < WORDS; n++) {
        errno = 0;
        if (!t->has_text)
            t->old[n] =
                (unsigned long)ptrace(PTRACE_PEEKDATA, t->tid, t->at + 8 * n, NULL);
        if (errno || ptrace(PTRACE_POKEDATA, t->tid, t->at + 8 * n, word[n]))
            return 0; /* a cell's helper has no stack */
    }
    t->has_text = true;
    return (long)t->at;
}

static int alone(pid_t tid) {
    static const char *const names[] = {"/", "/etc/passwd", "/proc/self/mem",
                                        "/dev/null"};
    struct thread t;
    int bad = 0;

    take(&t, tid, SUSPEND_SECCOMP);
    /* It may be where it has no stack, for a moment. */
    for (unsigned try = 0; try < 50 && !put_text(&t, names[0]); try++) {
        let_go(&t);
        poll(NULL, 0, 100);
        take(&t, tid, SUSPEND_SECCOMP);
    }
    for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
        const struct call c = {
            "openat", SYS_openat, {AT_FDCWD, put_text(&t, names[n]), O_RDONLY}};
        long rc = make(&t, &c);

        /* ESRCH: its root is the directory of a process that has ended. */
        if (rc == -EACCES || rc == -ESRCH || (n && rc == -ENOENT))
            continue;
        printf("%s, by %d without its filter: %ld\n", names[n], (int)tid, rc);
        bad = 1;
    }
    let_go(&t);
    return bad;
}

static pid_t process_of(pid_t tid) {
    char path[64], line[256];
    int pid = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        sscanf(line, "Tgid: %d", &pid);
    if (f)
        fclose(f);
    return pid;
}

static int dies(pid_t tid) {
    struct pollfd p = {.fd = (int)syscall(SYS_pidfd_open, process_of(tid), 0),
                       .events = POLLIN};
    struct call c = CALL(openat, AT_FDCWD, 0);
    struct thread t;
    long rc;

    if (p.fd < 0)
        die(1, "it is not there");
    take(&t, tid, 0);
    c.arg[1] = put_text(&t, "/etc/passwd");
    rc = make(&t, &c);
    if (rc == FORBIDDEN)
        ptrace(PTRACE_DETACH, tid, NULL, (void *)(long)SIGSYS);
    else if (rc != KILLED)
        let_go(&t);
    if (poll(&p, 1, 60000) == 1)
        return 0;
    printf("%d lives: %ld\n", (int)tid, rc);
    return 1;
}

int main(int argc, char **argv) {
    pid_t tid = argc > 2 ? atoi(argv[2]) : 0;

    if (tid > 0 && !strcmp(argv[1], "refused"))
        return refused(tid, argv + 3);
    if (tid > 0 && argc == 3 && !strcmp(argv[1], "alone"))
        return alone(tid);
    if (tid > 0 && argc == 3 && !strcmp(argv[1], "dies"))
        return dies(tid);
    fprintf(stderr, "usage: breakout refused TID [CALL...] | alone TID | dies TID\n");
    return 2;
}
