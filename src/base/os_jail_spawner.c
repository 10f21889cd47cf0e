/*
 * The jail of the process that makes cells (direct/spawner.c), which the cells inherit:
 * it starts the program that it holds, and nothing else; there are no files and no
 * networks. The cells restrict themselves much further (guest/cell/setup.c): their
 * filters raise a signal for what this one refuses, and a signal outranks an error.
 *
 * Each rule says who needs it.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "base/os.h"
#include "base/os_filter.h"
#include "base/os_jail_root.h"
#include "base/os_limit.h"

#define NAMESPACES                                                                       \
    (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |       \
     CLONE_NEWPID | CLONE_NEWNET)

static const struct filter_rule rules[] = {
    /* The spawner: requests, what becomes of cells. */
    ANY(read),
    ANY(write),
    ANY(poll),
    ANY(restart_syscall),
    ANY(wait4),
    IF2(kill, 0, 1u << 31, 0, 1, ARG32, SIGKILL), /* one process each */
    IF2(kill, 0, 1u << 31, 0, 1, ARG32, SIGCONT),
    ANY(getpid),
    ANY(rt_sigreturn),
    ANY(exit_group),

    /* fork(2), as libc makes it, and the cell's helper thread. No namespaces. */
    IF(clone, 0, NAMESPACES, 0),
    ANY(set_robust_list),
    ANY(rseq),
    ANY(getrandom),

    /* What becomes a cell. */
    ANY(rt_sigprocmask),
    ANY(sched_setaffinity),
    IF(prctl, 0, ARG32, PR_SET_PDEATHSIG),
    IF(prctl, 0, ARG32, PR_SET_NAME),
    IF(prctl, 0, ARG32, PR_SET_DUMPABLE),
    IF(prctl, 0, ARG32, PR_SET_TSC),
    IF(prctl, 0, ARG32, PR_SET_NO_NEW_PRIVS),
    IF(prctl, 0, ARG32, PR_SET_SECCOMP),
    IF(fcntl, 1, ARG32, F_DUPFD),
    IF(fcntl, 1, ARG32, F_SETFD),
    IF(fcntl, 1, ARG32, F_SETFL),
    IF(fcntl, 1, ARG32, F_SETSIG),
    IF(fcntl, 1, ARG32, F_SETOWN_EX), /* its own thread: Landlock, and its user */
    ANY(dup2),
    ANY(close),
    ANY(close_range),

    /* A cell: its set-up, and what its helper does for it. */
    ANY(mmap),
    ANY(munmap),
    ANY(mprotect),
    ANY(sigaltstack),
    ANY(rt_sigaction),
    ANY(futex),
    ANY(tgkill),
    ANY(exit),
    IF(arch_prctl, 0, ARG32, ARCH_SET_CPUID),
};

int os_jail_spawner(int program) {
    /* By descriptor; there is no other program. */
    const struct filter_rule one =
        IF2(execveat, 0, ARG32, (unsigned)program, 4, ARG32, AT_EMPTY_PATH);
    scmp_filter_ctx ctx;
    int rc;

    if (OS_JAIL_SANITIZED)
        return -ENOTSUP;
    rc = filter_new(SCMP_ACT_ERRNO(EPERM), &ctx);
    if (rc)
        return rc;
    rc = filter_add_all(ctx, rules, ARRAY_SIZE(rules));
    if (!rc)
        rc = filter_add(ctx, &one);
    if (rc) {
        seccomp_release(ctx);
        return rc;
    }
    limit_process(true, LIMIT_FILES_ANY);
    jail_root_alone(true);
    filter_no_files_alone(FILTER_NO_TCP | FILTER_NO_SIGNALS);
    return filter_put_on(ctx);
}
