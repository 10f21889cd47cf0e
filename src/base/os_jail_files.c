/*
 * The jail of a process that serves the files of a directory (share/server.c). Two walls:
 *
 * Landlock, where the host has it (os_landlock.c): below the directory the process may do
 * what it needs; of all other files it can open none, and change none.
 *
 * A filter of system calls: those that are done to files, by descriptors or by names, and
 * nothing else. No sockets, no programs, no processes, no executable memory; no device
 * can be made.
 *
 * Each rule says who needs it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_filter.h"
#include "base/os_jail_root.h"

static const struct filter_rule rules[] = {
    /* The machine's socket. */
    ANY(read),
    ANY(write),
    ANY(restart_syscall),

    /* Files. */
    ANY(openat),
    ANY(close),
    ANY(pread64),
    ANY(pwrite64),
    ANY(lseek),
    ANY(getdents64),
    ANY(statx),
    ANY(fstat),
    ANY(newfstatat), /* fstat(3) of newer glibc */
    ANY(fstatfs),
    ANY(readlinkat),
    ANY(mkdirat),
    IF(mknodat, 2, S_IFMT, S_IFREG),
    IF(mknodat, 2, S_IFMT, S_IFIFO),
    IF(mknodat, 2, S_IFMT, S_IFSOCK),
    ANY(symlinkat),
    ANY(linkat),
    ANY(unlinkat),
    ANY(renameat2),
    ANY(fchmod),
    ANY(fchmodat),
    ANY(fchownat),
    ANY(utimensat),
    ANY(ftruncate),
    ANY(fallocate),
    ANY(fsync),
    ANY(fdatasync),
    ANY(getxattr),
    ANY(listxattr),
    ANY(setxattr),
    ANY(removexattr),
    IF(fcntl, 1, ARG32, F_OFD_SETLK),
    IF(fcntl, 1, ARG32, F_OFD_GETLK),
    ANY(geteuid), /* may owners be set? */

    FILTER_MALLOC,

    FILTER_END,
};

/* The process that makes a run's files: their names are its own code's to say. */
static const struct filter_rule keepers[] = {
    /* Orders and answers. */
    ANY(read),
    ANY(restart_syscall),
    ANY(sendmsg),

    ANY(openat),
    ANY(unlinkat),
    ANY(renameat2),
    ANY(close),

    /* Memory that is packed (ctl/pack.c). */
    ANY(lseek),
    ANY(pread64),
    ANY(pwritev),
    FILTER_MALLOC,

    /* The handler of SIGSYS, and the end. */
    IF(write, 0, ARG32, STDERR_FILENO),
    ANY(rt_sigprocmask),
    ANY(getpid),
    ANY(gettid),
    ANY(exit_group),
};

/* Files that are not its user's, and owners of new ones, are what root shares by. */
#define ROOTS_FILES                                                                      \
    (JAIL_CAP(CAP_CHOWN) | JAIL_CAP(CAP_DAC_OVERRIDE) | JAIL_CAP(CAP_DAC_READ_SEARCH) |  \
     JAIL_CAP(CAP_FOWNER) | JAIL_CAP(CAP_FSETID))

static int lock_up(int dir, bool readonly, const struct filter_rule *r, size_t count) {
    scmp_filter_ctx ctx;
    int rc = filter_for_process(r, count, &ctx);

    if (rc)
        return rc;
    filter_files(dir, readonly);
    jail_root_keep(ROOTS_FILES);
    return filter_load(ctx, NULL);
}

int os_jail_files(int dir, bool readonly) {
    return lock_up(dir, readonly, rules, ARRAY_SIZE(rules));
}

int os_jail_keeper(int dir) {
    return lock_up(dir, false, keepers, ARRAY_SIZE(keepers));
}
