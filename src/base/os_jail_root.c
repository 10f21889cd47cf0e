/* What root gives up; see os_jail_root.h. */
#include "base/os_jail_root.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os_filter.h"

/* User numbers that no system gives away: systemd, "Users, Groups, UIDs and GIDs on
 * systemd Systems", "Summary", leaves those from here to 2^31 unused. A process number
 * has at most 22 bits. */
#define FIRST_ID 0x70000000u
#define NOBODY 65534u /* where a user namespace has few */

/* --- the empty root --- */

/* Something that can be mounted over, in a namespace that is ours alone. */
static bool mount_empty(void) {
    static const char *const at[] = {"/tmp", "/run", "/proc"};

    for (size_t n = 0; n < ARRAY_SIZE(at); n++)
        if (!mount("none", at[n], "tmpfs", MS_NODEV | MS_NOEXEC | MS_NOSUID | MS_RDONLY,
                   "nr_inodes=2,mode=555") &&
            !chdir(at[n]))
            return true;
    return false;
}

/* "pivot_root(2)", "pivot_root(".", ".")" */
static bool pivot(void) {
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) || !mount_empty())
        return false;
    if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH))
        return false;
    return !chdir("/");
}

static int die_in_there(void *arg) {
    (void)!chroot("/proc/self/fdinfo");
    (void)!chdir("/");
    return 0;
}

/* Without a namespace of our own: the directory of a process that shares ours, and ends.
 * Nothing is in it then, and nothing can be made in it. */
static bool chroot_nowhere(void) {
    static char stack[16384] __attribute__((aligned(16)));
    struct stat before, after;
    pid_t pid;

    if (stat("/", &before))
        return false;
    pid = clone(die_in_there, stack + sizeof(stack), CLONE_FS | SIGCHLD, NULL);
    if (pid < 0 || waitpid(pid, NULL, 0) < 0)
        return false;
    return stat("/", &after) || after.st_dev != before.st_dev ||
           after.st_ino != before.st_ino;
}

/* --- namespaces --- */

static int unshare_most(bool all) {
    const int choice[] = {CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET,
                          CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS, CLONE_NEWNS};

    for (size_t n = all ? 0 : 1; n < ARRAY_SIZE(choice); n++)
        if (!unshare(choice[n]))
            return choice[n];
    return 0;
}

/* All that a filter outside of us may kill for: of the users' calls none is known to. */
static int try_files(void) {
    int namespaces = unshare_most(true);
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);

    (void)(namespaces && pivot());
    (void)!syscall(SYS_unshare, CLONE_FS);
    (void)!syscall(SYS_setns, self, namespaces);
    (void)chroot_nowhere();
    return 0;
}

void jail_root_begin(struct jail_root *r, bool all) {
    *r = (struct jail_root){.root = !geteuid(), .self = -1};
    if (!r->root)
        return;
    r->id = FIRST_ID + (unsigned)getpid();
    if (!filter_survives(try_files))
        return;
    r->namespaces = unshare_most(all);
    if (r->namespaces)
        r->self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    r->empty = (r->namespaces && pivot()) || chroot_nowhere();
}

/* "setns(2)": a thread that shares its directories with others has to part with them
 * first. The C library's functions would change all threads. */
void jail_root_leave(const struct jail_root *r, bool first) {
    if (!r->root)
        return;
    if (!first && r->self >= 0 && !syscall(SYS_unshare, CLONE_FS))
        (void)!syscall(SYS_setns, r->self, r->namespaces);
    (void)!syscall(SYS_setgroups, 0ul, NULL);
    if (syscall(SYS_setresgid, r->id, r->id, r->id))
        (void)!syscall(SYS_setresgid, NOBODY, NOBODY, NOBODY);
    if (syscall(SYS_setresuid, r->id, r->id, r->id))
        (void)!syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY);
}

void jail_root_end(struct jail_root *r) {
    if (r->self >= 0)
        close(r->self);
    r->self = -1;
}

void jail_root_alone(bool all) {
    struct jail_root r;

    jail_root_begin(&r, all);
    jail_root_leave(&r, true);
    jail_root_end(&r);
}

void jail_root_keep(uint64_t capabilities) {
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct now[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &head, now))
        return;
    for (unsigned n = 0; n < _LINUX_CAPABILITY_U32S_3; n++) {
        now[n].permitted &= (uint32_t)(capabilities >> 32 * n);
        now[n].effective &= now[n].permitted;
        now[n].inheritable = 0;
    }
    (void)!syscall(SYS_capset, &head, now);
}
