/*
 * The jail of a process that serves the files of a directory (share/server.c). Two walls:
 *
 * Landlock, where the host has it ("landlock(7)"): below the directory the process may do
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
#include <linux/landlock.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_filter.h"

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

    /* malloc(3). */
    ANY(brk),
    IF2(mmap, 2, ~(uint64_t)(PROT_READ | PROT_WRITE), 0, 3, MAP_ANONYMOUS, MAP_ANONYMOUS),
    ANY(munmap),
    ANY(mremap),
    IF(madvise, 2, ARG32, MADV_DONTNEED),
    ANY(futex),
    ANY(getrandom), /* malloc's */

    /* The handler of SIGSYS, and the end. */
    ANY(rt_sigreturn),
    ANY(rt_sigprocmask),
    ANY(getpid),
    ANY(gettid),
    ANY(exit_group),
};

/* --- Landlock --- */

#define READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITE                                                                            \
    (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |                     \
     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |                      \
     LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |                        \
     LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM)
#define FIRST_ABI                                                                        \
    (READ | WRITE | LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR |          \
     LANDLOCK_ACCESS_FS_MAKE_BLOCK)
/* Later versions', which the headers may not have. */
#define REFER (1ull << 13)    /* 2: a file gets a name in another directory */
#define TRUNCATE (1ull << 14) /* 3 */

/* What the host's version knows, or 0. The first lets no file move to another directory.
 */
static uint64_t known_accesses(bool readonly) {
    long abi =
        syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

    if (abi < 1 || (abi < 2 && !readonly))
        return 0;
    return FIRST_ABI | (abi >= 2 ? REFER : 0) | (abi >= 3 ? TRUNCATE : 0);
}

/* A host that cannot do it has the filter alone. */
static void restrict_files(int dir, bool readonly) {
    struct landlock_ruleset_attr set = {.handled_access_fs = known_accesses(readonly)};
    struct landlock_path_beneath_attr below = {
        .allowed_access =
            set.handled_access_fs & (readonly ? READ : READ | WRITE | REFER | TRUNCATE),
        .parent_fd = dir};
    int fd;

    if (!set.handled_access_fs)
        return;
    fd = (int)syscall(SYS_landlock_create_ruleset, &set, sizeof(set), 0);
    if (fd < 0)
        return;
    if (!prctl(PR_SET_NO_NEW_PRIVS, 1ul, 0ul, 0ul, 0ul) &&
        !syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &below, 0))
        (void)!syscall(SYS_landlock_restrict_self, fd, 0);
    close(fd);
}

int os_jail_files(int dir, bool readonly) {
    /* abort(3), after a bug. */
    const struct filter_rule to_us = IF(tgkill, 0, ARG32, (unsigned)getpid());
    scmp_filter_ctx ctx;
    int rc;

    if (OS_JAIL_SANITIZED)
        return -ENOTSUP;
    rc = filter_with(rules, ARRAY_SIZE(rules), &to_us, &ctx);
    if (rc)
        return rc;
    restrict_files(dir, readonly);
    return filter_load(ctx, NULL);
}
