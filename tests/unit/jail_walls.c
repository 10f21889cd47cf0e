/*
 * The walls beside the filters, each by itself: what Landlock forbids where no filter
 * does, root's capabilities in a process that keeps its user, an empty root without
 * namespaces, limits and descriptors of helpers; and the jails of the processes that make
 * files, remove paths, show the screen and make cells. Each time in a child process.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_filter.h"
#include "base/os_jail_root.h"
#include "lib/child.h"
#include "lib/jailed.h"
#include "lib/unit.h"

static char dir[] = "/tmp/bivisor-walls-XXXXXX";

static void done(void (*fn)(void *arg), void *arg) {
    struct child_end e = child(fn, arg);

    assert_child_done(&e);
}

/* --- Landlock, with no filter --- */

static bool connects(const void *a, socklen_t size) {
    int fd = socket(((const struct sockaddr *)a)->sa_family, SOCK_STREAM, 0);
    bool good = fd >= 0 && !connect(fd, a, size);

    close(fd);
    return good;
}

/* A door of each kind that a sandbox is to be kept from. */
struct doors {
    struct sockaddr_in tcp;
    struct sockaddr_un nameless;
    socklen_t nameless_size;
};

static void open_doors(struct doors *d) {
    socklen_t size = sizeof(d->tcp);
    int tcp = socket(AF_INET, SOCK_STREAM, 0), local = socket(AF_UNIX, SOCK_STREAM, 0);

    *d = (struct doors){
        .tcp = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
        .nameless = {.sun_family = AF_UNIX},
        .nameless_size = sizeof(d->nameless)};
    child_check(!bind(tcp, (struct sockaddr *)&d->tcp, size) && !listen(tcp, 4) &&
                    !getsockname(tcp, (struct sockaddr *)&d->tcp, &size),
                "a port");
    child_check(
        !bind(local, (struct sockaddr *)&d->nameless, sizeof(sa_family_t)) &&
            !listen(local, 4) &&
            !getsockname(local, (struct sockaddr *)&d->nameless, &d->nameless_size),
        "a name");
    child_check(connects(&d->tcp, sizeof(d->tcp)), "the port, from outside");
    child_check(connects(&d->nameless, d->nameless_size), "the name, from outside");
}

static void find_nothing(void *arg) {
    unsigned abi = filter_files_version();
    struct sockaddr_in any = {.sin_family = AF_INET};
    char path[64], sub[64];
    struct doors d;

    snprintf(path, sizeof(path), "%s/f", dir);
    snprintf(sub, sizeof(sub), "%s/sub", dir);
    open_doors(&d);
    filter_no_files_alone(FILTER_NO_TCP | FILTER_NO_SIGNALS);
    child_check(open("/etc/passwd", O_RDONLY) < 0 && errno == EACCES, "a file");
    child_check(open("/", O_RDONLY | O_DIRECTORY) < 0 && errno == EACCES, "the root");
    child_check(open(path, O_WRONLY | O_CREAT, 0600) < 0 && errno == EACCES, "a new one");
    child_check(unlink(path) < 0 && errno == EACCES, "removing one");
    child_check(mkdir(sub, 0700) < 0 && errno == EACCES, "a directory");
    child_check(execl("/bin/true", "true", (char *)NULL) < 0 && errno == EACCES,
                "a program");
    child_check(abi < 4 || (!connects(&d.tcp, sizeof(d.tcp)) && errno == EACCES),
                "connecting to a port");
    child_check(abi < 4 || (bind(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&any,
                                 sizeof(any)) < 0),
                "taking a port");
    child_check(abi < 6 || !connects(&d.nameless, d.nameless_size),
                "connecting to a name without a path");
    child_check(abi < 6 || (kill(getppid(), 0) < 0 && errno == EPERM),
                "a signal to another process");
}

static void remove_there_only(void *arg) {
    int fd = open(dir, O_PATH | O_DIRECTORY);

    filter_removing(fd);
    child_check(openat(fd, "f", O_RDONLY) < 0 && errno == EACCES, "reading");
    child_check(openat(fd, "new", O_WRONLY | O_CREAT, 0600) < 0 && errno == EACCES,
                "making");
    child_check(unlink("/etc/passwd.none") < 0 && errno == ENOENT, "what is not there");
    child_check(unlink(arg) < 0 && errno == EACCES, "removing elsewhere");
    child_check(!unlinkat(fd, "f", 0), "removing here");
}

static void test_landlock(void **state) {
    char here[64], elsewhere[] = "/tmp/bivisor-elsewhere-XXXXXX";
    int fd = mkstemp(elsewhere);

    assert_true(fd >= 0);
    close(fd);
    snprintf(here, sizeof(here), "%s/f", dir);
    fd = open(here, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    close(fd);
    if (filter_files_version() >= 2) {
        done(find_nothing, NULL);
        done(remove_there_only, elsewhere);
    }
    unlink(here);
    assert_int_equal(unlink(elsewhere), 0);
}

/* --- what root gives up --- */

static uint64_t effective(void) {
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3];

    child_check(!syscall(SYS_capget, &head, d), "capget(2)");
    return (uint64_t)d[1].effective << 32 | d[0].effective;
}

static void keep_some(void *arg) {
    uint64_t before = effective();

    jail_root_keep(JAIL_CAP(CAP_CHOWN) | JAIL_CAP(CAP_CHECKPOINT_RESTORE));
    child_check(effective() ==
                    (before & (JAIL_CAP(CAP_CHOWN) | JAIL_CAP(CAP_CHECKPOINT_RESTORE))),
                "the capabilities");
    child_check(chroot("/") < 0 && errno == EPERM, "root's rights");
}

/* As in a container: namespaces are refused, and the rest is not. */
static void have_no_namespaces(void *arg) {
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    struct jail_root r;
    struct stat st;

    seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(unshare), 0);
    child_check(!seccomp_load(ctx), "the outer filter");
    jail_root_begin(&r, true);
    child_check(r.empty && !r.namespaces && r.self < 0, "the empty root");
    jail_root_leave(&r, true);
    jail_root_end(&r);
    child_check(geteuid() && getegid() && !effective(), "the user");
    child_check(stat("/etc", &st) < 0 && stat("/..", &st) < 0, "what is there");
    child_check(open("/new", O_WRONLY | O_CREAT, 0600) < 0, "making something");
    child_check(chroot("/") < 0, "going on");
}

static void test_root(void **state) {
    done(keep_some, NULL);
    if (!geteuid())
        done(have_no_namespaces, NULL);
}

/* --- a helper's beginning --- */

static rlim_t limit_of(__rlimit_resource_t what) {
    struct rlimit r = {1234, 1234};

    getrlimit(what, &r);
    return r.rlim_max;
}

static void begin(void *arg) {
    int first = open("/dev/null", O_RDONLY), kept = dup(first), high = dup2(first, 1000);
    char name[16];
    const int keep[] = {kept, STDERR_FILENO};

    child_check(first >= 0 && kept > first && high == 1000, "descriptors");
    os_helper_begin("bivisor-test", keep, ARRAY_SIZE(keep));
    child_check(fcntl(kept, F_GETFD) >= 0 && fcntl(STDERR_FILENO, F_GETFD) >= 0, "kept");
    for (int fd = 0; fd < 2000; fd++)
        child_check(fd == kept || fd == STDERR_FILENO || fcntl(fd, F_GETFD) < 0,
                    "others are open");
    child_check(!prctl(PR_GET_NAME, name) && !strcmp(name, "bivisor-test"), "its name");
    child_check(limit_of(RLIMIT_CORE) <= 1 && !limit_of(RLIMIT_NPROC) &&
                    !limit_of(RLIMIT_MEMLOCK) && !limit_of(RLIMIT_MSGQUEUE),
                "limits");
    child_check(getsid(0) == getpid(), "the session");
}

static void test_helper(void **state) {
    done(begin, NULL);
}

/* --- the jails of processes that do one thing --- */

#define RX (PROT_READ | PROT_EXEC)

/* What none of them may. Pointers are bad. */
static const struct jailed_call never[] = {
    JAILED_CALL(socket, AF_UNIX, SOCK_STREAM, 0),
    JAILED_CALL(socket, AF_INET, SOCK_STREAM, 0),
    JAILED_CALL(connect, -1, 0, 0),
    JAILED_CALL(bind, -1, 0, 0),
    JAILED_CALL(recvmsg, -1, 0, 0),
    JAILED_CALL(pidfd_getfd, -1, 0, 0),
    JAILED_CALL(execve, 0, 0, 0),
    JAILED_CALL(execveat, -1, 0, 0, 0, 0),
    JAILED_CALL(clone3, 0, 0),
    JAILED_CALL(ptrace, 0, 1, 0, 0),
    JAILED_CALL(process_vm_writev, 1, 0, 0, 0, 0, 0),
    JAILED_CALL(kill, 1, 0),
    JAILED_CALL(kill, -1, SIGKILL),
    JAILED_CALL(unshare, CLONE_NEWUSER),
    JAILED_CALL(setns, -1, 0),
    JAILED_CALL(mount, 0, 0, 0, 0, 0),
    JAILED_CALL(setuid, 0),
    JAILED_CALL(seccomp, 0, 0, 0),
    JAILED_CALL(bpf, 0, 0, 0),
    JAILED_CALL(io_uring_setup, 1, 0),
    JAILED_CALL(perf_event_open, 0, 0, -1, -1, 0),
    JAILED_CALL(ioctl, 0, 0x5412, 0), /* TIOCSTI */
    JAILED_CALL(memfd_create, 0, 0),
    JAILED_CALL(truncate, 0, 0),
    JAILED_CALL(rename, 0, 0),
    JAILED_CALL(unlink, 0),
    JAILED_CALL(mknod, 0, 0, 0),
    JAILED_CALL(chmod, 0, 0),
};
/* And these are what some may. */
static const struct jailed_call opens[] = {
    JAILED_CALL(openat, AT_FDCWD, 0, 0, 0),
    JAILED_CALL(unlinkat, -1, 0, 0),
    JAILED_CALL(renameat2, -1, 0, -1, 0, 0),
    JAILED_CALL(sendmsg, -1, 0, 0),
};
static const struct jailed_call forks[] = {
    JAILED_CALL(clone, SIGCHLD, 0, 0, 0, 0),
    JAILED_CALL(prctl, PR_SET_NAME, 0),
    JAILED_CALL(mmap, 0, 4096, RX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
    JAILED_CALL(mprotect, 0, 4096, RX),
};

static int (*jail)(int dir);

static void call_it(void *arg) {
    int fd = open(dir, O_PATH | O_DIRECTORY);

    child_check(!jail(fd), "entering");
    jailed_call(arg);
}

static bool forbids(const struct jailed_call *calls, size_t count) {
    bool good = true;

    for (size_t n = 0; n < count; n++) {
        struct child_end e = child(call_it, (void *)(uintptr_t)&calls[n]);

        good &= jailed_forbids(&e, &calls[n]);
    }
    return good;
}

static void test_keeper(void **state) {
    jail = os_jail_keeper;
    assert_true(forbids(never, ARRAY_SIZE(never)) & forbids(forks, ARRAY_SIZE(forks)));
}

static void test_viewer(void **state) {
    struct jailed_call calls[ARRAY_SIZE(never)];
    size_t count = 0;

    jail = os_jail_viewer;
    for (size_t n = 0; n < ARRAY_SIZE(never); n++)
        if (never[n].nr != SYS_socket) /* which is answered: it cannot be */
            calls[count++] = never[n];
    assert_true(forbids(calls, count) & forbids(opens, ARRAY_SIZE(opens)) &
                forbids(forks, ARRAY_SIZE(forks)));
}

/* It has nowhere to say it: it is killed. */
static bool kills(const struct jailed_call *calls, size_t count) {
    bool good = true;

    for (size_t n = 0; n < count; n++) {
        struct child_end e = child(call_it, (void *)(uintptr_t)&calls[n]);

        if (WIFSIGNALED(e.status) && WTERMSIG(e.status) == SIGSYS)
            continue;
        print_error("%s: status %#x, it said: %s\n", calls[n].name, e.status, e.text);
        good = false;
    }
    return good;
}

static void test_remover(void **state) {
    jail = os_jail_remover;
    assert_true(kills(never, ARRAY_SIZE(never)) & kills(opens, ARRAY_SIZE(opens)) &
                kills(forks, ARRAY_SIZE(forks)));
}

static bool fails(const struct jailed_call *c) {
    const long *a = c->arg;
    long rc = syscall(c->nr, a[0], a[1], a[2], a[3], a[4], a[5]);

    if (rc < 0 && errno == EPERM)
        return true;
    dprintf(STDERR_FILENO, "%s: %ld, %d\n", c->name, rc, errno);
    return false;
}

/* The one that makes cells gets errors, for its cells have filters of their own. */
static void make_cells(void *arg) {
    const struct jailed_call more[] = {
        JAILED_CALL(clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0),
        JAILED_CALL(clone, CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0),
        JAILED_CALL(kill, 1, SIGTERM),
        JAILED_CALL(fcntl, 2, F_SETOWN, 1),
        JAILED_CALL(prctl, PR_SET_MM, 0, 0, 0, 0),
        JAILED_CALL(execveat, 8, 0, 0, 0, AT_EMPTY_PATH),
        JAILED_CALL(execveat, 9, 0, 0, 0, 0),
    };
    bool good = true;

    child_check(!os_jail_spawner(9), "entering");
    for (size_t n = 0; n < ARRAY_SIZE(never); n++)
        good &= fails(&never[n]);
    for (size_t n = 0; n < ARRAY_SIZE(opens); n++)
        good &= fails(&opens[n]);
    for (size_t n = 0; n < ARRAY_SIZE(more); n++)
        good &= fails(&more[n]);
    child_check(good, "a call is not refused");
    child_check(syscall(SYS_kill, getppid(), SIGCONT) < 0 && errno == EPERM,
                "a signal to another process");
}

static void test_spawner(void **state) {
    if (!geteuid() || filter_files_version() >= 6)
        done(make_cells, NULL);
}

static int make_dir(void **state) {
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state) {
    return rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_landlock), cmocka_unit_test(test_root),
        cmocka_unit_test(test_helper),   cmocka_unit_test(test_keeper),
        cmocka_unit_test(test_viewer),   cmocka_unit_test(test_remover),
        cmocka_unit_test(test_spawner),
    };
    const struct CMUnitTest sanitized[] = {cmocka_unit_test(test_helper)};

    if (OS_JAIL_SANITIZED)
        return cmocka_run_group_tests(sanitized, NULL, NULL);
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
