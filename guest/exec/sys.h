/* System calls of x86-64 Linux, for a program without a C library; and the little of such
 * a library that it needs. Failures are negative numbers, as the kernel returns them. */
#ifndef GUEST_EXEC_SYS_H
#define GUEST_EXEC_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline long sys(long nr, long a, long b, long c, long d, long e) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    long rc;

    __asm__ volatile("syscall"
                     : "=a"(rc)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return rc;
}

#define P(x) ((long)(uintptr_t)(x))

enum {
    SYS_read = 0,
    SYS_write = 1,
    SYS_open = 2,
    SYS_close = 3,
    SYS_poll = 7,
    SYS_ioctl = 16,
    SYS_dup2 = 33,
    SYS_nanosleep = 35,
    SYS_socket = 41,
    SYS_fork = 57,
    SYS_execve = 59,
    SYS_exit = 60,
    SYS_wait4 = 61,
    SYS_kill = 62,
    SYS_getdents = 78,
    SYS_chdir = 80,
    SYS_mkdir = 83,
    SYS_symlink = 88,
    SYS_umask = 95,
    SYS_setuid = 105,
    SYS_setgid = 106,
    SYS_setpgid = 109,
    SYS_setsid = 112,
    SYS_setgroups = 116,
    SYS_chroot = 161,
    SYS_sync = 162,
    SYS_mount = 165,
    SYS_reboot = 169,
    SYS_sethostname = 170,
    SYS_init_module = 175,
    SYS_pipe2 = 293,
};

#define O_RDONLY 0
#define O_WRONLY 1
#define O_RDWR 2
#define O_CREAT 0100
#define O_NOCTTY 0400
#define O_TRUNC 01000
#define O_NONBLOCK 04000
#define O_DIRECTORY 0200000
#define O_NOFOLLOW 0400000
#define O_CLOEXEC 02000000

#define ENOENT 2
#define EINTR 4
#define EAGAIN 11
#define EACCES 13
#define ENOTDIR 20
#define ENOSPC 28
#define EROFS 30
#define ENODEV 19

#define MS_NOSUID 2u
#define MS_NODEV 4u
#define MS_NOEXEC 8u
#define MS_RDONLY 1u
#define MS_BIND 4096u
#define MS_MOVE 8192u

#define POLLIN 1
#define POLLOUT 4
#define POLLERR 8
#define POLLHUP 16

struct pollfd {
    int fd;
    short events, revents;
};

static inline long sys_open(const char *path, int flags, int mode) {
    return sys(SYS_open, P(path), flags | O_CLOEXEC, mode, 0, 0);
}
static inline long sys_read(int fd, void *buf, size_t len) {
    return sys(SYS_read, fd, P(buf), (long)len, 0, 0);
}
static inline long sys_write(int fd, const void *buf, size_t len) {
    return sys(SYS_write, fd, P(buf), (long)len, 0, 0);
}
static inline void sys_close(int fd) {
    sys(SYS_close, fd, 0, 0, 0, 0);
}
static inline long sys_mkdir(const char *path, int mode) {
    return sys(SYS_mkdir, P(path), mode, 0, 0, 0);
}
static inline long sys_mount(const char *what, const char *where, const char *type,
                             unsigned flags, const char *options) {
    return sys(SYS_mount, P(what), P(where), P(type), flags, P(options));
}
static inline long sys_ioctl(int fd, unsigned long request, const void *arg) {
    return sys(SYS_ioctl, fd, (long)request, P(arg), 0, 0);
}
static inline void sleep_ms(unsigned ms) {
    const long t[2] = {ms / 1000, ms % 1000 * 1000000l};

    sys(SYS_nanosleep, P(t), 0, 0, 0, 0);
}

static inline size_t length(const char *s) {
    size_t n = 0;

    while (s[n])
        n++;
    return n;
}

static inline bool same(const char *a, const char *b) {
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* What follows PREFIX in S; NULL: S begins otherwise. */
static inline const char *after(const char *s, const char *prefix) {
    while (*prefix)
        if (*s++ != *prefix++)
            return NULL;
    return s;
}

static inline unsigned long number(const char *s, const char **rest) {
    unsigned long n = 0;

    while (*s >= '0' && *s <= '9')
        n = n * 10 + (unsigned long)(*s++ - '0');
    if (rest)
        *rest = s;
    return n;
}

/* A text that is put together; what has no room is left out. */
struct text {
    char s[512];
    size_t len;
};

static inline void add(struct text *t, const char *s) {
    while (*s && t->len + 1 < sizeof(t->s))
        t->s[t->len++] = *s++;
    t->s[t->len] = 0;
}

static inline void add_number(struct text *t, unsigned long n) {
    char digits[24];
    size_t at = sizeof(digits) - 1;

    digits[at] = 0;
    do
        digits[--at] = (char)('0' + n % 10);
    while ((n /= 10));
    add(t, digits + at);
}

#endif
