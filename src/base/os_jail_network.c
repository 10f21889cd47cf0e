/*
 * The jail of a process that is a guest's network (net/slirp.c): it makes sockets for
 * what the guest asks for, and reads what strangers send. It may make and use sockets of
 * IPv4 and IPv6 and nothing else: no files, no local sockets, no programs, no processes,
 * no executable memory.
 *
 * With TFTP it may read the files of one directory: a name that begins with the
 * directory's path is opened below it, wherever symbolic links lead; Landlock, where the
 * host has it, holds against whoever makes that call himself.
 *
 * libslirp reads the file that names the name servers again and again. It is opened
 * beforehand; opening it later, by its name, gives a descriptor of what was opened, and
 * asking about it tells of that. So an editor's new file of that name is not seen.
 *
 * Each rule says who needs it.
 */
#include <asm/ioctls.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_filter.h"
#include "base/os_jail_root.h"

#define NAMES_FILE "/etc/resolv.conf"

static const struct filter_rule rules[] = {
    /* The machine's socket, and the world's. */
    ANY(read),
    ANY(write),
    ANY(close),
    ANY(poll),
    ANY(restart_syscall), /* poll(2) goes on after SIGSTOP and SIGCONT */
    IF(socket, 0, ARG32, AF_INET),
    IF(socket, 0, ARG32, AF_INET6),
    ANY(connect), /* of sockets that are there: local ones cannot be made */
    ANY(bind),
    ANY(listen),
    ANY(accept),
    ANY(accept4),
    ANY(shutdown),
    ANY(sendto),
    ANY(recvfrom),
    ANY(recvmsg), /* why a datagram came back */
    ANY(setsockopt),
    ANY(getsockopt),
    ANY(getsockname),
    ANY(getpeername),
    IF(ioctl, 1, ARG32, FIONREAD),
    IF(ioctl, 1, ARG32, FIONBIO),
    IF(fcntl, 1, ARG32, F_GETFL),
    IF(fcntl, 1, ARG32, F_SETFL),
    IF(fcntl, 1, ARG32, F_GETFD),
    IF(fcntl, 1, ARG32, F_SETFD),

    /* The names' file, below; stdio reads it. */
    IF(fcntl, 1, ARG32, F_DUPFD_CLOEXEC),
    ANY(lseek),
    ANY(fstat),

    /* The vDSO answers without a call, except where the TSC is not the host's clock. */
    ANY(clock_gettime),
    ANY(gettimeofday),

    FILTER_MALLOC, /* GLib wants random numbers of its own */

    FILTER_END,
};

/* --- the names' file --- */

static int names_fd = -1;

/* A new descriptor of it, at its beginning. */
static long open_names(void) {
    int fd = names_fd < 0 ? -1 : fcntl(names_fd, F_DUPFD_CLOEXEC, 0);

    if (fd < 0)
        return -ENOENT;
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static long stat_open(int fd, greg_t buf) {
    return syscall(SYS_fstat, fd, buf) ? -errno : 0;
}

static bool is_names(greg_t path) {
    return !strcmp((const char *)path, NAMES_FILE);
}

/* --- TFTP's files --- */

static const char *files_path;
static int files_fd = -1;

static bool is_file(const char *path) {
    size_t len = files_path ? strlen(files_path) : 0;

    return len && !strncmp(path, files_path, len) && path[len] == '/';
}

/* A device or a FIFO is none. */
static long open_file(const char *path) {
    const struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                                 .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    struct stat st;
    long fd;

    path += strlen(files_path);
    path += strspn(path, "/");
    fd = syscall(SYS_openat2, files_fd, path, &how, sizeof(how));
    if (fd < 0)
        return -errno;
    if (!syscall(SYS_fstat, fd, &st) && S_ISREG(st.st_mode))
        return fd;
    close((int)fd);
    return -ENOENT;
}

static long stat_file(const char *path, greg_t buf) {
    long fd = open_file(path);
    long rc = fd < 0 ? fd : stat_open((int)fd, buf);

    if (fd >= 0)
        close((int)fd);
    return rc;
}

/* --- what is answered instead --- */

/* What libc asks for in fopen(3), stat(3) and fstat(3). */
static bool answer_names(const siginfo_t *si, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    int saved = errno;

    switch (si->si_syscall) {
    case SYS_openat:
        if (is_names(r[REG_RSI]))
            r[REG_RAX] = open_names();
        else if (is_file((const char *)r[REG_RSI]))
            r[REG_RAX] = open_file((const char *)r[REG_RSI]);
        else
            return false;
        break;
    case SYS_newfstatat:
        if (is_names(r[REG_RSI]))
            r[REG_RAX] = stat_open(names_fd, r[REG_RDX]);
        else if (is_file((const char *)r[REG_RSI]))
            r[REG_RAX] = stat_file((const char *)r[REG_RSI], r[REG_RDX]);
        else if (r[REG_R10] == AT_EMPTY_PATH && !*(const char *)r[REG_RSI])
            r[REG_RAX] = stat_open((int)r[REG_RDI], r[REG_RDX]);
        else
            return false;
        break;
    case SYS_stat:
        if (is_names(r[REG_RDI]))
            r[REG_RAX] = stat_open(names_fd, r[REG_RSI]);
        else if (is_file((const char *)r[REG_RDI]))
            r[REG_RAX] = stat_file((const char *)r[REG_RDI], r[REG_RSI]);
        else
            return false;
        break;
    default:
        return false;
    }
    errno = saved;
    return true;
}

/* 0 or -errno. */
static int allow_files(scmp_filter_ctx ctx, const char *path) {
    struct filter_rule below = IF(openat2, 0, ARG32, 0);

    files_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (files_fd < 0)
        return -errno;
    files_path = path;
    below.arg[0].value = (unsigned)files_fd;
    return filter_add(ctx, &below);
}

int os_jail_network(const char *files) {
    scmp_filter_ctx ctx;
    int rc = filter_for_process(rules, ARRAY_SIZE(rules), &ctx);

    if (rc)
        return rc;
    names_fd = open(NAMES_FILE, O_RDONLY | O_CLOEXEC);
    rc = files ? allow_files(ctx, files) : 0;
    if (rc) {
        seccomp_release(ctx);
        return rc;
    }
    if (files) {
        filter_files(files_fd, true); /* some of which only their owner may read */
        jail_root_keep(JAIL_CAP(CAP_DAC_OVERRIDE) | JAIL_CAP(CAP_DAC_READ_SEARCH));
    } else {
        jail_root_alone(false);
        filter_no_files_alone(FILTER_NO_SIGNALS);
    }
    return filter_load(ctx, answer_names);
}
