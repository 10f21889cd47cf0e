/*
 * The jails of processes that do one thing for the machine, each time in a child process.
 * In the network's, sockets of the Internet work, and the file that names the name
 * servers can be read again and again; in the one's that connects, unix sockets. All else
 * ends the process with a sentence. A build with sanitizers has no jail.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_filter.h"
#include "lib/child.h"
#include "lib/jailed.h"
#include "lib/unit.h"

#define NAMES "/etc/resolv.conf"

static int (*jail)(void); /* that a test is about */

static void lock_up(void) {
    int rc = jail();

    child_check(!rc, "entering");
}

static void test_sanitized(void **state) {
    assert_int_equal(os_jail_network(NULL), -ENOTSUP);
    assert_int_equal(os_jail_connector(AF_UNIX), -ENOTSUP);
    assert_int_equal(os_jail_files(0, false), -ENOTSUP);
}

static int jail_network(void) {
    return os_jail_network(NULL);
}

/* --- what must not be --- */

#define TEXT(s) (long)(uintptr_t)(s)

static void call_it(void *arg) {
    lock_up();
    jailed_call(arg);
}

static void forbids(const struct jailed_call *calls, size_t count) {
    bool good = true;

    for (size_t n = 0; n < count; n++) {
        struct child_end e = child(call_it, (void *)(uintptr_t)&calls[n]);

        good &= jailed_forbids(&e, &calls[n]);
    }
    assert_true(good);
}

static void test_network_forbidden(void **state) {
    const struct jailed_call calls[] = {
        /* files: this one only, and only read */
        JAILED_CALL(openat, AT_FDCWD, TEXT("/etc/passwd")),
        JAILED_CALL(openat, AT_FDCWD, TEXT(NAMES "x")),
        JAILED_CALL(openat, AT_FDCWD, TEXT("etc/resolv.conf")),
        JAILED_CALL(open, TEXT(NAMES)),
        JAILED_CALL(newfstatat, AT_FDCWD, TEXT("/etc"), 0, 0),
        JAILED_CALL(stat, TEXT("/"), 0),
        JAILED_CALL(unlink, TEXT(NAMES)),
        JAILED_CALL(memfd_create, TEXT("x"), 0),
        JAILED_CALL(pwrite64, 2, 0, 0, 0),
        JAILED_CALL(ftruncate, -1, 0),
        /* sockets of other kinds, and descriptors from others */
        JAILED_CALL(socket, AF_UNIX, SOCK_STREAM, 0),
        JAILED_CALL(socket, AF_NETLINK, SOCK_RAW, 0),
        JAILED_CALL(socket, AF_PACKET, SOCK_RAW, 0),
        JAILED_CALL(socketpair, AF_UNIX, SOCK_STREAM, 0, 0),
        JAILED_CALL(pidfd_getfd, -1, 0, 0),
        JAILED_CALL(sendmsg, -1, 0, 0),
        JAILED_CALL(ioctl, -1, TIOCSTI, 0),
        JAILED_CALL(fcntl, -1, F_SETOWN, 1),
        /* programs, processes, code */
        JAILED_CALL(execve, TEXT("/bin/true"), 0, 0),
        JAILED_CALL(fork),
        JAILED_CALL(clone, SIGCHLD),
        JAILED_CALL(clone3, 0, 0),
        JAILED_CALL(kill, 1, 0),
        JAILED_CALL(tgkill, 1, 1, 0),
        JAILED_CALL(ptrace, 0, 1, 0, 0),
        JAILED_CALL(process_vm_readv, 1, 0, 0, 0, 0, 0),
        JAILED_CALL(mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                    0),
        JAILED_CALL(mmap, 0, 4096, PROT_READ, MAP_PRIVATE, 0, 0),
        JAILED_CALL(mprotect, 0, 4096, PROT_EXEC),
        JAILED_CALL(rt_sigaction, SIGSYS, 0, 0, 8),
        JAILED_CALL(prctl, 0),
        JAILED_CALL(seccomp, 0, 0, 0),
    };

    jail = jail_network;
    forbids(calls, ARRAY_SIZE(calls));
}

static int jail_connector(void) {
    return os_jail_connector(AF_UNIX);
}

static void test_connector_forbidden(void **state) {
    const struct jailed_call calls[] = {
        JAILED_CALL(openat, AT_FDCWD, TEXT("/etc/passwd")),
        JAILED_CALL(unlink, TEXT("/no/such/file")),
        JAILED_CALL(socket, AF_INET, SOCK_STREAM, 0),
        JAILED_CALL(socket, AF_NETLINK, SOCK_RAW, 0),
        JAILED_CALL(setsockopt, -1, IPPROTO_IP, 0, 0, 0),
        JAILED_CALL(bind, -1, 0, 0),
        JAILED_CALL(accept4, -1, 0, 0, 0),
        JAILED_CALL(recvmsg, -1, 0, 0),
        JAILED_CALL(write, 1, 0, 0),
        JAILED_CALL(ioctl, -1, TIOCSTI, 0),
        JAILED_CALL(execve, TEXT("/bin/true"), 0, 0),
        JAILED_CALL(fork),
        JAILED_CALL(clone, SIGCHLD),
        JAILED_CALL(kill, 1, 0),
        JAILED_CALL(ptrace, 0, 1, 0, 0),
        JAILED_CALL(mmap, 0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
        JAILED_CALL(mprotect, 0, 4096, PROT_EXEC),
        JAILED_CALL(rt_sigaction, SIGSYS, 0, 0, 8),
        JAILED_CALL(prctl, 0),
    };

    jail = jail_connector;
    forbids(calls, ARRAY_SIZE(calls));
}

static int jail_files(void) {
    return os_jail_files(open("/tmp", O_PATH | O_DIRECTORY), false);
}

static void test_files_forbidden(void **state) {
    const struct jailed_call calls[] = {
        JAILED_CALL(open, TEXT("/etc/passwd"), O_RDONLY),
        JAILED_CALL(socket, AF_UNIX, SOCK_STREAM, 0),
        JAILED_CALL(socket, AF_INET, SOCK_STREAM, 0),
        JAILED_CALL(connect, -1, 0, 0),
        JAILED_CALL(recvmsg, -1, 0, 0),
        JAILED_CALL(mknodat, AT_FDCWD, TEXT("/tmp/none/x"), S_IFCHR | 0600, 0x101),
        JAILED_CALL(mknodat, AT_FDCWD, TEXT("/tmp/none/x"), S_IFBLK | 0600, 0x800),
        JAILED_CALL(mount, 0, 0, 0, 0, 0),
        JAILED_CALL(chroot, TEXT("/tmp")),
        JAILED_CALL(chdir, TEXT("/tmp")),
        JAILED_CALL(ioctl, -1, TIOCSTI, 0),
        JAILED_CALL(fcntl, -1, F_SETOWN, 1),
        JAILED_CALL(execve, TEXT("/bin/true"), 0, 0),
        JAILED_CALL(fork),
        JAILED_CALL(clone, SIGCHLD),
        JAILED_CALL(kill, 1, 0),
        JAILED_CALL(ptrace, 0, 1, 0, 0),
        JAILED_CALL(setuid, 0),
        JAILED_CALL(mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                    0),
        JAILED_CALL(mmap, 0, 4096, PROT_READ, MAP_PRIVATE, 0, 0),
        JAILED_CALL(mprotect, 0, 4096, PROT_EXEC),
        JAILED_CALL(rt_sigaction, SIGSYS, 0, 0, 8),
        JAILED_CALL(prctl, 0),
    };

    jail = jail_files;
    forbids(calls, ARRAY_SIZE(calls));
}

/* --- what works --- */

static size_t read_names(char *text, size_t size) {
    FILE *f = fopen(NAMES, "r");
    size_t len;

    if (!f)
        return 0;
    len = fread(text, 1, size, f);
    fclose(f);
    return len;
}

static void look_at_names(void *arg) {
    static char before[65536], after[65536];
    size_t len = read_names(before, sizeof(before));
    struct stat was, now;
    bool there = !stat(NAMES, &was);

    lock_up();
    for (int n = 0; n < 3; n++) {
        child_check(read_names(after, sizeof(after)) == len, "the names' length");
        child_check(!memcmp(before, after, len), "the names");
        child_check(!stat(NAMES, &now) == there, "asking about the names");
        child_check(!there || (now.st_ino == was.st_ino && now.st_size == was.st_size &&
                               now.st_mtime == was.st_mtime),
                    "what is told of the names");
    }
}

static void use_sockets(void *arg) {
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t size = sizeof(a);
    int door, fd, client, datagrams, one = 1;
    struct pollfd p;
    char byte = 'x';

    lock_up();
    door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    child_check(!setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)),
                "options");
    child_check(!bind(door, (struct sockaddr *)&a, size) && !listen(door, 1),
                "listening");
    child_check(!getsockname(door, (struct sockaddr *)&a, &size), "its name");
    fd = socket(AF_INET, SOCK_STREAM, 0);
    child_check(!fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), "flags");
    child_check(!connect(fd, (struct sockaddr *)&a, size) || errno == EINPROGRESS,
                "connecting");
    client = accept(door, NULL, NULL);
    p = (struct pollfd){.fd = fd, .events = POLLOUT};
    child_check(client >= 0 && poll(&p, 1, 10000) == 1, "accepting");
    child_check(send(fd, &byte, 1, 0) == 1 && recv(client, &byte, 1, 0) == 1, "a byte");
    child_check(!shutdown(fd, SHUT_WR) && recv(client, &byte, 1, 0) == 0, "the end");
    datagrams = socket(AF_INET, SOCK_DGRAM, 0);
    a.sin_port = 0;
    child_check(!bind(datagrams, (struct sockaddr *)&a, size), "binding");
    child_check(!getsockname(datagrams, (struct sockaddr *)&a, &size), "its name");
    child_check(sendto(datagrams, &byte, 1, 0, (struct sockaddr *)&a, size) == 1,
                "sending");
    child_check(recvfrom(datagrams, &byte, 1, 0, NULL, NULL) == 1, "receiving");
    close(socket(AF_INET6, SOCK_STREAM, 0));
    close(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP));
    free(malloc(1 << 20));
    child_check(clock_gettime(CLOCK_MONOTONIC, &(struct timespec){0}) == 0, "the time");
}

/* Landlock is a host's choice: 0 where it has none. */
static unsigned landlock(void) {
    return filter_files_version();
}

/* Listens at A, and says where that is. */
static int listen_at(struct sockaddr_un *a, socklen_t *size) {
    int door = socket(AF_UNIX, SOCK_STREAM, 0);

    child_check(!bind(door, (struct sockaddr *)a, *size) && !listen(door, 1),
                "listening");
    *size = sizeof(*a);
    child_check(!getsockname(door, (struct sockaddr *)a, size), "its name");
    return door;
}

static int connect_to(const struct sockaddr_un *a, socklen_t size) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    child_check(fd >= 0, "a socket");
    return connect(fd, (const struct sockaddr *)a, size) ? -errno : fd;
}

/* What vsock/connector.c does, by whose unit it is used as well: it connects at paths,
 * and with Landlock at no names that have none. */
static void connect_local(void *arg) {
    struct sockaddr_un a = {.sun_family = AF_UNIX}, nameless = a;
    socklen_t size = sizeof(a), nameless_size = sizeof(sa_family_t);
    struct iovec iov = {"x", 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    bool scopes = landlock() >= 6;
    int ends[2], fd;
    char byte;

    snprintf(a.sun_path, sizeof(a.sun_path), "%s/door", (const char *)arg);
    listen_at(&a, &size);
    listen_at(&nameless, &nameless_size);
    child_check(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), "a pair");
    lock_up();
    fd = connect_to(&a, size);
    child_check(fd >= 0, "connecting");
    child_check(!scopes || connect_to(&nameless, nameless_size) == -EPERM,
                "connecting to a name without a path");
    child_check(sendmsg(ends[0], &m, MSG_NOSIGNAL) == 1, "sending");
    child_check(read(ends[1], &byte, 1) == 1 && byte == 'x', "reading");
    child_check(!close(fd), "closing");
}

/* What share/server.c does, by whose units it is used as well. */
static void use_files(void *arg) {
    const char *dir = arg;
    int fd = open(dir, O_PATH | O_DIRECTORY), file;

    child_check(!os_jail_files(fd, false), "entering");
    file = openat(fd, "f", O_RDWR | O_CREAT | O_EXCL, 0600);
    child_check(file >= 0 && write(file, "x", 1) == 1 && !close(file), "making a file");
    child_check(!syscall(SYS_renameat2, fd, "f", fd, "g", 0), "renaming");
}

static void look_elsewhere(void *arg) {
    const char *dir = arg;
    int fd = open(dir, O_PATH | O_DIRECTORY);

    child_check(!os_jail_files(fd, true), "entering");
    child_check(openat(AT_FDCWD, NAMES, O_RDONLY) < 0 && errno == EACCES, "another file");
    child_check(openat(AT_FDCWD, "/", O_RDONLY) < 0 && errno == EACCES, "the root");
    child_check(openat(fd, "new", O_WRONLY | O_CREAT, 0600) < 0 && errno == EACCES,
                "writing where all is read-only");
    child_check(openat(fd, ".", O_RDONLY) >= 0, "the directory");
}

static void test_files(void **state) {
    char dir[] = "/tmp/bivisor-jail-XXXXXX", name[64];
    struct child_end e;

    assert_non_null(mkdtemp(dir));
    e = child(use_files, dir);
    assert_child_done(&e);
    if (landlock() >= 2) {
        e = child(look_elsewhere, dir);
        assert_child_done(&e);
    }
    snprintf(name, sizeof(name), "%s/f", dir);
    unlink(name);
    snprintf(name, sizeof(name), "%s/g", dir);
    unlink(name);
    assert_int_equal(rmdir(dir), 0);
}

/* What net/slirp.c does with TFTP: the files of a directory by their names, and no way
 * out of it. */
static void use_tftp(void *arg) {
    const char *dir = arg;
    char name[6][64];
    struct stat st;
    char byte;
    int fd;

    for (unsigned n = 0; n < 6; n++)
        snprintf(name[n], sizeof(name[n]), "%s%s", dir,
                 ((const char *[]){"/f", "/out", "/fifo", "/none", "/../f", "/in"})[n]);
    child_check(!os_jail_network(dir), "entering");
    fd = open(name[0], O_RDONLY);
    child_check(fd >= 0 && read(fd, &byte, 1) == 1 && byte == 'x' && !close(fd),
                "a file");
    child_check(!stat(name[0], &st) && st.st_size == 1, "what it is");
    fd = open(name[5], O_RDONLY);
    child_check(fd >= 0 && read(fd, &byte, 1) == 1 && byte == 'x', "a link within");
    child_check(open(name[1], O_RDONLY) < 0 && errno == EXDEV, "a link to elsewhere");
    child_check(stat(name[1], &st) < 0 && errno == EXDEV, "what it leads to");
    child_check(open(name[2], O_RDONLY) < 0 && errno == ENOENT, "a FIFO");
    child_check(open(name[3], O_RDONLY) < 0 && errno == ENOENT, "what is not there");
    child_check(open(name[4], O_RDONLY) < 0 && errno == EXDEV, "what is above");
}

/* Who makes the call himself, below the directory's descriptor. */
static void leave_tftp(void *arg) {
    struct {
        uint64_t flags, mode, resolve;
    } how = {O_RDONLY, 0, 0};
    int fd = -1;

    child_check(!os_jail_network(arg), "entering");
    for (int n = 3; n < 32 && fd < 0; n++)
        if (syscall(SYS_fcntl, n, F_GETFD) >= 0 &&
            syscall(SYS_fcntl, n, F_GETFL) & O_PATH)
            fd = n;
    child_check(fd >= 0, "finding it");
    child_check(syscall(SYS_openat2, fd, "f", &how, sizeof(how)) >= 0, "a file");
    child_check(syscall(SYS_openat2, fd, "../../etc/passwd", &how, sizeof(how)) < 0 &&
                    errno == EACCES,
                "leaving");
}

static int jail_tftp(void) {
    return os_jail_network("/tmp");
}

static void test_tftp(void **state) {
    const struct jailed_call calls[] = {
        JAILED_CALL(openat, AT_FDCWD, TEXT("/etc/passwd")),
        JAILED_CALL(openat, AT_FDCWD, TEXT("/tmpx")),
        JAILED_CALL(openat2, AT_FDCWD, TEXT("/etc/passwd"), 0, 0),
        JAILED_CALL(newfstatat, AT_FDCWD, TEXT("/etc/passwd"), 0, 0),
        JAILED_CALL(unlink, TEXT("/tmp/no-such-file")),
    };
    char dir[] = "/tmp/bivisor-jail-XXXXXX", command[256];
    struct child_end e;

    assert_non_null(mkdtemp(dir));
    snprintf(command, sizeof(command),
             "cd %s && printf x >f && ln -s /etc/passwd out && ln -s f in && mkfifo fifo",
             dir);
    assert_int_equal(system(command), 0);
    e = child(use_tftp, dir);
    assert_child_done(&e);
    if (landlock() >= 2) {
        e = child(leave_tftp, dir);
        assert_child_done(&e);
    }
    snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
    jail = jail_tftp;
    forbids(calls, ARRAY_SIZE(calls));
}

static void test_names(void **state) {
    struct child_end e;

    jail = jail_network;
    e = child(look_at_names, NULL);
    assert_child_done(&e);
}

static void test_sockets(void **state) {
    struct child_end e;

    jail = jail_network;
    e = child(use_sockets, NULL);
    assert_child_done(&e);
}

static void test_connector(void **state) {
    char dir[] = "/tmp/bivisor-jail-XXXXXX", name[64];
    struct child_end e;

    assert_non_null(mkdtemp(dir));
    jail = jail_connector;
    e = child(connect_local, dir);
    snprintf(name, sizeof(name), "%s/door", dir);
    unlink(name);
    assert_int_equal(rmdir(dir), 0);
    assert_child_done(&e);
}

int main(void) {
    const struct CMUnitTest sanitized[] = {cmocka_unit_test(test_sanitized)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_network_forbidden),
        cmocka_unit_test(test_connector_forbidden),
        cmocka_unit_test(test_files_forbidden),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_sockets),
        cmocka_unit_test(test_connector),
        cmocka_unit_test(test_tftp),
    };

    alarm(240);
    if (OS_JAIL_SANITIZED)
        return cmocka_run_group_tests(sanitized, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
