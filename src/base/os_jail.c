/*
 * The jail: once a machine is set up, its threads compute, wait, and read and write what
 * is open. A filter in the kernel (seccomp(2)) passes the calls listed here and no other,
 * for every thread of the process and for good. Whoever gets to run code of their own in
 * this process can open no file, reach no network, start no program and no process, look
 * into none, and make no new executable page.
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
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_filter.h"

static const struct filter_rule rules[] = {
    /* Console, statistics, recording, event and timer descriptors. What is open may be
     * read and written: nothing more can be opened. */
    ANY(read),
    ANY(write),
    ANY(pread64), /* KVM's statistics; how long threads wait */
    ANY(writev),  /* libc's last words before it aborts */
    ANY(lseek),   /* stdio; statistics are written anew on SIGUSR1 */
    ANY(ftruncate),
    ANY(close),
    /* stdio's fstat(2). By descriptor only: newfstatat(2), see below, takes paths. */
    ANY(fstat),
    /* Guest RAM is given back to the host at a reset. */
    IF(fallocate, 1, ARG32, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE),
    IF(madvise, 2, ARG32, MADV_REMOVE), /* where it has no descriptor */
    /* Disks (block/file.c): what is open; space is given back as above. */
    ANY(preadv),
    ANY(pwritev),
    IF(preadv2, 5, ARG32, RWF_NOWAIT),
    IF(pwritev2, 5, ARG32, RWF_NOWAIT),
    ANY(fdatasync),
    IF(fallocate, 1, ARG32, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE),
    /* A recording's digest of guest RAM leaves out what was never touched. */
    ANY(mincore),
    IF(madvise, 2, ARG32, OS_MADV_COLLAPSE), /* os_large_page() */

    /* Waiting: the loop for all that it watches, the vCPU's thread when idle or for the
     * console's reader. */
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
    IF(madvise, 2, ARG32, MADV_HUGEPAGE), /* GLIBC_TUNABLES=glibc.malloc.hugetlb=1 */
    IF(sched_getaffinity, 0, ARG32, 0),   /* how many arenas are worth it */
    /* The same, and a kick of the translator: os_poll_set(). Nothing becomes
     * executable. */
    IF(mprotect, 2, ~(uint64_t)(PROT_READ | PROT_WRITE), 0),

    /* Direct execution: a vCPU's thread stays where its cells are. */
    IF(sched_setaffinity, 0, ARG32, 0),

    /* Translated code finds its vCPU by %gs; its thread has a stack for signals. */
    IF(arch_prctl, 0, ARG32, ARCH_SET_GS),
    ANY(sigaltstack),

    /* What is done at a signal, for os_tty.c; but for SIGSYS (31), which is this file's.
     * The kernel takes the number as 32 bits: comparing all 64 leaves no second name. */
    IF(rt_sigaction, 0, ~(uint64_t)31, 32),
    IF(rt_sigaction, 0, ~(uint64_t)0, 64),
    ANY(rt_sigprocmask),
    ANY(rt_sigreturn),
    ANY(getpid), /* raise(3) and os_kick() */
    ANY(gettid),

    /* The terminal is put back as it was. Not TIOCSTI, which types at it. */
    IF(ioctl, 1, ARG32, TCGETS),
    IF(ioctl, 1, ARG32, TCSETS),
    IF(ioctl, 1, ARG32, TIOCGPGRP),
    IF(ioctl, 1, ARG32, TIOCGWINSZ), /* of the virtio console's */
    ANY(getpgrp),
#ifdef TCGETS2 /* what glibc 2.42 and later ask by */
    IF(ioctl, 1, ARG32, TCGETS2),
    IF(ioctl, 1, ARG32, TCSETS2),
#endif

    IF(shutdown, 1, ARG32, SHUT_WR), /* the guest's end of a --vsock connection */
    ANY(getrandom),                  /* the guest's source of entropy */
    ANY(getrusage),                  /* statistics */
    ANY(exit),                       /* the vCPU's thread's end */
    ANY(exit_group),
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

/* Those that depend on the process. */
static int add_ours(scmp_filter_ctx ctx, const unsigned long *ioctls,
                    const int *listeners, const int *handing) {
    const struct filter_rule to_us = IF(tgkill, 0, ARG32, (unsigned)getpid());
    int rc = filter_add(ctx, &to_us);

    if (!rc)
        rc = add_handing(ctx, handing);

    /* --control, --net: clients at these sockets; they are read and written as files are.
     */
    for (; listeners && *listeners >= 0 && !rc; listeners++) {
        const struct filter_rule clients = IF2(accept4, 0, ARG32, (unsigned)*listeners, 3,
                                               ARG32, SOCK_NONBLOCK | SOCK_CLOEXEC);

        rc = filter_add(ctx, &clients);
    }
    for (; ioctls && *ioctls && !rc; ioctls++) {
        const struct filter_rule request = IF(ioctl, 1, ARG32, *ioctls & ARG32);

        rc = filter_add(ctx, &request);
    }
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

/* Makes a filter that is ready to be loaded. */
static int make_filter(const unsigned long *ioctls, const int *listeners,
                       const int *handing, scmp_filter_ctx *out) {
    scmp_filter_ctx ctx;
    int rc = filter_new(&ctx);

    if (rc)
        return rc;
    rc = filter_add_all(ctx, rules, ARRAY_SIZE(rules));
    if (!rc)
        rc = add_ours(ctx, ioctls, listeners, handing);
    if (rc)
        seccomp_release(ctx);
    *out = rc ? NULL : ctx;
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

int os_jail_enter(const unsigned long *ioctls, const int *listeners, const int *handing) {
    scmp_filter_ctx ctx;
    int rc;

    if (OS_JAIL_SANITIZED)
        return -ENOTSUP;
    rc = make_filter(ioctls, listeners, handing, &ctx);
    if (rc)
        return rc;
    tzset(); /* gmtime_r(3), of the clock device, reads the time zone's file, once */
    close_inherited();
    return filter_load(ctx, NULL);
}

int os_jail_probe(void) {
    int status;
    pid_t pid = fork();

    if (!pid)
        _exit(-os_jail_enter(NULL, NULL, NULL));
    if (pid < 0)
        return -errno;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -EPERM;
}
