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
#include <sys/mman.h>
#include <sys/prctl.h>

#include "base/os.h"
#include "base/os_filter.h"
#include "base/os_jail_root.h"

static const struct filter_rule rules[] = {
    /* The spawner: requests, what becomes of cells. */
    ANY(read),
    ANY(write),
    ANY(poll),
    ANY(restart_syscall),
    ANY(wait4),
    ANY(kill),
    ANY(getpid),
    ANY(rt_sigreturn),
    ANY(exit_group),

    /* fork(2), as libc makes it, and the cell's helper thread. */
    ANY(clone),
    ANY(set_robust_list),
    ANY(rseq),
    ANY(getrandom),

    /* What becomes a cell. By descriptor; there is no other program. */
    ANY(rt_sigprocmask),
    ANY(sched_setaffinity),
    ANY(prctl),
    ANY(fcntl),
    ANY(dup2),
    ANY(close),
    ANY(close_range),
    ANY(execveat),

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

int os_jail_spawner(void) {
    scmp_filter_ctx ctx;
    int rc;

    if (OS_JAIL_SANITIZED)
        return -ENOTSUP;
    ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!ctx)
        return -ENOMEM;
    rc = seccomp_attr_set(ctx, SCMP_FLTATR_API_SYSRAWRC, 1);
    if (!rc)
        rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(EPERM));
    if (!rc)
        rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (!rc)
        rc = filter_add_all(ctx, rules, ARRAY_SIZE(rules));
    if (!rc)
        jail_root_alone(true);
    if (!rc)
        rc = seccomp_load(ctx);
    seccomp_release(ctx);
    return rc;
}
