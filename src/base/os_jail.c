/*
 * The jail: once a machine is set up, its threads compute, wait, and read and write what
 * is open. A filter in the kernel (seccomp(2)) passes the calls listed here and no other,
 * for every thread of the process and for good. Whoever gets to run code of their own in
 * this process can open no file, reach no network, start no program and no process, look
 * into none, and make no new executable page.
 *
 * Each kind of thread has a filter of its own: the rules of all, and those of what it is
 * there for. The filter is made on the first thread; the others are sent a signal, whose
 * handler puts it on wherever they are, and wait for nothing. What Landlock can forbid is
 * forbidden beside it (os_landlock.c), what can be limited is limited, and root is given
 * up (os_jail_root.h).
 *
 * A call that is not listed does not happen. It raises SIGSYS, whose handler gives the
 * terminal back, says which call it was, and ends the process. The filter protects that
 * handler: it cannot be replaced.
 *
 * Each rule says who needs it. A call that only a bug of ours would make is not listed.
 */
#include <asm/ioctls.h>
#include <asm/prctl.h>
#include <asm/termbits.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_filter.h"
#include "base/os_jail_root.h"
#include "base/os_limit.h"

/* --- the rules --- */

static const struct filter_rule all[] = {
    /* Console, statistics, recording, event and timer descriptors. What is open may be
     * read and written: nothing more can be opened. */
    ANY(read),
    ANY(write),
    ANY(pread64), /* KVM's statistics; how long threads wait */
    ANY(writev),  /* libc's last words before it aborts */
    ANY(close),
    /* Guest RAM is given back to the host, by a balloon and at a reset. */
    IF(fallocate, 1, ARG32, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE),
    IF(madvise, 2, ARG32, MADV_REMOVE), /* where it has no descriptor */
    /* Disks (block/file.c): what is open; a device may find that a request can be
     * executed at once. */
    IF(preadv2, 5, ARG32, RWF_NOWAIT),
    IF(pwritev2, 5, ARG32, RWF_NOWAIT),
    ANY(preadv),
    ANY(pwritev),

    /* Waiting: the loop for all that it watches, the vCPU's thread when idle or for the
     * console's reader. Devices have timers, wherever they run. */
    ANY(poll),
    ANY(ppoll),
    ANY(timerfd_settime),
    ANY(futex), /* locks between the threads, and joining the vCPU's */
    /* os_fence_all() */
    IF(membarrier, 0, ARG32, MEMBARRIER_CMD_PRIVATE_EXPEDITED),
    ANY(sched_yield),     /* a CPU that waits for one that has none of the host's */
    ANY(restart_syscall), /* poll(2) goes on after SIGSTOP and SIGCONT */
    /* The vDSO answers without a call, except where the TSC is not the host's clock. */
    ANY(clock_gettime),

    /* malloc(3): memory that is neither a file's nor executable. */
    ANY(brk),
    IF2(mmap, 2, ~(uint64_t)(PROT_READ | PROT_WRITE), 0, 3, MAP_ANONYMOUS, MAP_ANONYMOUS),
    ANY(munmap),
    ANY(mremap), /* realloc(3); it changes no protection */
    IF(madvise, 2, ARG32, MADV_DONTNEED),
    IF(madvise, 2, ARG32, MADV_HUGEPAGE),    /* GLIBC_TUNABLES=glibc.malloc.hugetlb=1 */
    IF(madvise, 2, ARG32, OS_MADV_COLLAPSE), /* os_large_page() */
    IF(sched_getaffinity, 0, ARG32, 0),      /* how many arenas are worth it */
    /* The same, and a kick of the translator: os_poll_set(). Nothing becomes
     * executable. */
    IF(mprotect, 2, ~(uint64_t)(PROT_READ | PROT_WRITE), 0),
    ANY(sigaltstack), /* a thread has a stack for signals, until its end */

    /* What is done at a signal, for os_tty.c; but for SIGSYS (31), which is this file's.
     * The kernel takes the number as 32 bits: comparing all 64 leaves no second name. */
    IF(rt_sigaction, 0, ~(uint64_t)31, 32),
    IF(rt_sigaction, 0, ~(uint64_t)0, 64),
    ANY(rt_sigprocmask),
    ANY(rt_sigreturn),
    ANY(getpid), /* raise(3) and os_kick() */
    ANY(gettid),

    /* The terminal is put back as it was, by whichever thread ends the process. Not
     * TIOCSTI, which types at it. */
    IF(ioctl, 1, ARG32, TCGETS),
    IF(ioctl, 1, ARG32, TCSETS),
    IF(ioctl, 1, ARG32, TIOCGPGRP),
    ANY(getpgrp),
#ifdef TCGETS2 /* what glibc 2.42 and later ask by */
    IF(ioctl, 1, ARG32, TCGETS2),
    IF(ioctl, 1, ARG32, TCSETS2),
#endif

    IF(shutdown, 1, ARG32, SHUT_WR), /* the guest's end of a --vsock connection */
    ANY(getrandom),                  /* the guest's source of entropy */
    ANY(exit),                       /* the thread's end */
    ANY(exit_group),
};

/* A file that is written anew, statistics on SIGUSR1 or a recording: stdio's. By
 * descriptor only: newfstatat(2), see below, takes paths. A machine's calls are made by
 * its first CPU's thread. */
static const struct filter_rule files[] = {
    ANY(lseek), ANY(ftruncate), ANY(fstat),
    /* A recording's digest of guest RAM, and a snapshot, leave out what was never
     * touched. */
    ANY(mincore), ANY(getrusage), /* statistics */
};

static const struct filter_rule cpu[] = {
    /* Direct execution: a vCPU's thread stays where its cells are. */
    IF(sched_setaffinity, 0, ARG32, 0),
    /* Translated code finds its vCPU by %gs. */
    IF(arch_prctl, 0, ARG32, ARCH_SET_GS),
};

/* Disks (block/file.c): what is open; space is given back as for all. */
static const struct filter_rule disks[] = {
    ANY(preadv),    ANY(pwritev),
    ANY(fdatasync), IF(fallocate, 1, ARG32, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE),
    ANY(ftruncate), /* a qcow2 image grows */
    ANY(lseek),     ANY(fstat),
};

static const struct filter_rule loop[] = {
    IF(ioctl, 1, ARG32, TIOCGWINSZ), /* of the virtio console's */
};

/* What is handed over: --vsock's connections, and those to a disk's server, where libnbd
 * sends and receives. Without an address that is no more than write(2) and read(2) of
 * what is open. */
static const struct filter_rule handed[] = {
    IF(sendto, 4, ~(uint64_t)0, 0),
    IF(recvfrom, 4, ~(uint64_t)0, 0),
    ANY(shutdown), /* leaves a server that is silent */
    /* libnbd makes a socket one that does not wait. */
    IF(fcntl, 1, ARG32, F_GETFL),
    IF(fcntl, 1, ARG32, F_SETFL),
    IF(fcntl, 1, ARG32, F_GETFD),
    IF(fcntl, 1, ARG32, F_SETFD),
};

static int add_handing(scmp_filter_ctx ctx, const int *fds) {
    int rc = 0;

    if (fds && *fds >= 0)
        rc = filter_add_all(ctx, handed, ARRAY_SIZE(handed));
    for (; fds && *fds >= 0 && !rc; fds++) {
        const struct filter_rule here = IF(recvmsg, 0, ARG32, (unsigned)*fds);

        rc = filter_add(ctx, &here);
    }
    return rc;
}

static int add_sending(scmp_filter_ctx ctx, const int *fds) {
    int rc = 0;

    for (; fds && *fds >= 0 && !rc; fds++) {
        const struct filter_rule here = IF(sendmsg, 0, ARG32, (unsigned)*fds);

        rc = filter_add(ctx, &here);
    }
    return rc;
}

static int add_listening(scmp_filter_ctx ctx, const int *fds) {
    int rc = 0;

    /* They are read and written as files are. */
    for (; fds && *fds >= 0 && !rc; fds++) {
        const struct filter_rule clients = IF2(accept4, 0, ARG32, (unsigned)*fds, 3,
                                               ARG32, SOCK_NONBLOCK | SOCK_CLOEXEC);

        rc = filter_add(ctx, &clients);
    }
    return rc;
}

static int add_ioctls(scmp_filter_ctx ctx, const unsigned long *ioctls) {
    int rc = 0;

    for (; ioctls && *ioctls && !rc; ioctls++) {
        const struct filter_rule request = IF(ioctl, 1, ARG32, *ioctls & ARG32);

        rc = filter_add(ctx, &request);
    }
    return rc;
}

/* Of all kinds, what depends on the process. */
static int add_ours(scmp_filter_ctx ctx, const struct os_jail_needs *needs) {
    const struct filter_rule to_us = IF(tgkill, 0, ARG32, (unsigned)getpid());
    int rc = filter_add_all(ctx, all, ARRAY_SIZE(all));

    if (!rc)
        rc = filter_add(ctx, &to_us);
    if (!rc)
        rc = add_ioctls(ctx, needs->device_ioctls);
    /* rt_sigaction(2) for those below SIGSYS; the rules have those above. */
    if (!rc)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(rt_sigaction), 1,
                              SCMP_A0_64(SCMP_CMP_LT, SIGSYS));
    /* What fstat(3) of glibc 2.33 and later calls. stdio asks by it for the best size of
     * a buffer and goes on without an answer. It could be asked what paths there are. */
    if (!rc)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(newfstatat), 0);
    return rc;
}

#define ADD(ctx, rules) filter_add_all(ctx, rules, ARRAY_SIZE(rules))

static int add_cpu(scmp_filter_ctx ctx, const struct os_jail_needs *needs) {
    int rc = ADD(ctx, cpu);

    if (!rc)
        rc = ADD(ctx, files);
    return rc ? rc : add_ioctls(ctx, needs->cpu_ioctls);
}

/* A disk's server is asked, and its connection made anew, where requests are executed. */
static int add_worker(scmp_filter_ctx ctx, const struct os_jail_needs *needs) {
    int rc = ADD(ctx, disks);

    return rc ? rc : add_handing(ctx, needs->handing);
}

/* The disks' images are closed by it, and a machine is reset between two lives. */
static int add_loop(scmp_filter_ctx ctx, const struct os_jail_needs *needs) {
    int rc = ADD(ctx, loop);

    if (!rc)
        rc = ADD(ctx, files);
    if (!rc)
        rc = add_ioctls(ctx, needs->cpu_ioctls);
    if (!rc)
        rc = add_worker(ctx, needs);
    if (!rc)
        rc = add_sending(ctx, needs->sending);
    return rc ? rc : add_listening(ctx, needs->listeners);
}

static int (*const add_kind[OS_THREAD_KINDS])(scmp_filter_ctx ctx,
                                              const struct os_jail_needs *needs) = {
    [OS_THREAD_LOOP] = add_loop,
    [OS_THREAD_CPU] = add_cpu,
    [OS_THREAD_WORKER] = add_worker,
};

/* A program for the threads of a KIND. */
static int make_program(const struct os_jail_needs *needs, enum os_thread_kind kind,
                        struct sock_fprog *out) {
    scmp_filter_ctx ctx;
    int rc = filter_new(SCMP_ACT_TRAP, &ctx);

    if (rc)
        return rc;
    rc = add_ours(ctx, needs);
    for (unsigned n = 0; n < OS_THREAD_KINDS && !rc; n++)
        if (n == kind || needs->any_thread)
            rc = add_kind[n](ctx, needs);
    if (!rc)
        return filter_program(ctx, out);
    seccomp_release(ctx);
    return rc;
}

/* --- entering --- */

static void close_if_inherited(int fd) {
    int flags = fd > STDERR_FILENO ? fcntl(fd, F_GETFD) : -1;

    if (flags >= 0 && !(flags & FD_CLOEXEC))
        close(fd);
}

/* What we were started with, but for the standard descriptors: it outlived an execve(2),
 * so it is not close-on-exec, and whatever we open is. */
static void close_inherited(void) {
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *e;

    for (int fd = 0; !dir && fd < 1024; fd++)
        close_if_inherited(fd);
    if (!dir)
        return;
    while ((e = readdir(dir)))
        close_if_inherited(atoi(e->d_name));
    closedir(dir);
}

/* Descriptors come with clients, connections and snapshots. */
#define MORE_FILES 1024

/* --- the threads --- */

/* A signal handler has no argument. */
static struct {
    struct sock_fprog program[OS_THREAD_KINDS];
    struct jail_root root;
    int no_files;  /* rules of Landlock's, or -1 */
    uint32_t left; /* threads that have not come to it */
    int rc;        /* of the first that failed */
} entering;

static int restrict_this(unsigned kind, bool first) {
    jail_root_leave(&entering.root, first);
    filter_no_files_here(entering.no_files);
    return filter_restrict(&entering.program[kind]);
}

static void on_enter(int signo, siginfo_t *si, void *context) {
    unsigned kind = (unsigned)si->si_value.sival_int;
    int saved = errno;

    if (si->si_code == SI_QUEUE && si->si_pid == getpid() && kind < OS_THREAD_KINDS) {
        int rc = restrict_this(kind, false);

        if (rc)
            __atomic_store_n(&entering.rc, rc, __ATOMIC_SEQ_CST);
        if (!__atomic_sub_fetch(&entering.left, 1, __ATOMIC_SEQ_CST))
            os_word_wake(&entering.left, 1);
    }
    errno = saved;
}

/* Linux, include/linux/sched.h: of the kernel, though it is in our list (KVM has some).
 */
#define KERNELS 0x00200000u /* PF_KTHREAD */
#define WORKERS 0x00004010u /* PF_USER_WORKER, PF_IO_WORKER */

static bool is_kernels(const char *thread) {
    char path[64], text[512] = "", *end;
    unsigned flags = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/self/task/%.16s/stat", thread);
    f = fopen(path, "re");
    if (f && fgets(text, sizeof(text), f) && (end = strrchr(text, ')')))
        sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags);
    if (f)
        fclose(f);
    return flags & (KERNELS | WORKERS);
}

/* Threads of the process, or 0: nobody tells. */
static int count_threads(void) {
    DIR *dir = opendir("/proc/self/task");
    struct dirent *e;
    int count = 0;

    while (dir && (e = readdir(dir)))
        count += *e->d_name != '.' && !is_kernels(e->d_name);
    if (dir)
        closedir(dir);
    return count;
}

static int signal_others(int known) {
    int sent;

    __atomic_store_n(&entering.left, (uint32_t)known, __ATOMIC_SEQ_CST);
    sent = os_threads_signal();
    if (sent < 0)
        return sent;
    for (;;) {
        uint32_t left = __atomic_load_n(&entering.left, __ATOMIC_SEQ_CST);

        if (!left)
            return __atomic_load_n(&entering.rc, __ATOMIC_SEQ_CST);
        os_word_wait(&entering.left, left);
    }
}

/* Before anything is given up: a filter that forbids nothing. 0 or -errno. */
static int try_filter(void) {
    static struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};

    return filter_restrict(&(struct sock_fprog){ARRAY_SIZE(allow), allow});
}

static int restrict_all(const struct os_jail_needs *needs) {
    struct sigaction act = {.sa_sigaction = on_enter,
                            .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    int known = os_threads_known(), there = count_threads(), rc;

    if (there > known + 1)
        return -EBUSY;
    sigfillset(&act.sa_mask);
    rc = sigaction(OS_THREAD_SIGNAL, &act, NULL) ? -errno : try_filter();
    if (!rc)
        rc = filter_catch(NULL);
    if (rc)
        return rc;
    /* KVM makes a thread of the kernel's, at the first entry, that counts as ours. */
    limit_process(needs->cpu_ioctls, limit_highest_open() + MORE_FILES);
    entering.rc = 0;
    entering.no_files = filter_no_files(FILTER_NO_TCP);
    jail_root_begin(&entering.root, true);
    rc = signal_others(known);
    if (!rc)
        rc = restrict_this(OS_THREAD_LOOP, true);
    if (entering.no_files >= 0)
        close(entering.no_files);
    jail_root_end(&entering.root);
    signal(OS_THREAD_SIGNAL, SIG_IGN);
    return rc;
}

int os_jail_enter(const struct os_jail_needs *needs) {
    int rc = OS_JAIL_SANITIZED ? -ENOTSUP : 0;

    for (unsigned n = 0; n < OS_THREAD_KINDS && !rc; n++)
        rc = make_program(needs, n, &entering.program[n]);
    if (!rc) {
        tzset(); /* gmtime_r(3), of the clock device, reads the time zone's file, once */
        close_inherited();
        rc = restrict_all(needs);
    }
    for (unsigned n = 0; n < OS_THREAD_KINDS; n++) {
        free(entering.program[n].filter);
        entering.program[n].filter = NULL;
    }
    return rc;
}

/* --- what this host has --- */

static int enter(void) {
    return -os_jail_enter(&(struct os_jail_needs){0});
}

int os_jail_probe(void) {
    int rc = filter_in_child(enter);

    return rc < 0 ? rc : -rc;
}

#define HAS_EMPTY 1
#define HAS_NAMESPACES 2
#define HAS_USER 4

static int leave_root(void) {
    struct jail_root r;

    jail_root_begin(&r, true);
    jail_root_leave(&r, true);
    return (r.empty ? HAS_EMPTY : 0) | (r.namespaces ? HAS_NAMESPACES : 0) |
           (geteuid() ? HAS_USER : 0);
}

void os_jail_describe(char *buf, size_t size) {
    unsigned landlock = filter_files_version();
    int root = geteuid() ? 0 : filter_in_child(leave_root);
    int len = 0;

    *buf = 0;
    if (landlock)
        len = snprintf(buf, size, ", files are out of reach by Landlock (version %u)",
                       landlock);
    if (root > 0 && (size_t)len < size)
        snprintf(buf + len, size - (size_t)len, ", root is given up%s%s%s",
                 root & HAS_USER ? " for a user of its own" : "",
                 root & HAS_EMPTY ? ", in an empty directory" : "",
                 root & HAS_NAMESPACES ? ", with namespaces of its own" : "");
}
