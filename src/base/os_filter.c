/* Filters of system calls; see os_filter.h. */
#include "base/os_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"

#define NAMES 512 /* x86-64 has fewer calls */
#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1 /* si_code, <asm-generic/siginfo.h> */
#endif

int filter_add(scmp_filter_ctx ctx, const struct filter_rule *r) {
    struct scmp_arg_cmp cmp[ARRAY_SIZE(r->arg)];

    for (unsigned n = 0; n < r->nargs; n++)
        cmp[n] = (struct scmp_arg_cmp){r->arg[n].n, SCMP_CMP_MASKED_EQ, r->arg[n].mask,
                                       r->arg[n].value};
    return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, r->call, r->nargs, cmp);
}

int filter_add_all(scmp_filter_ctx ctx, const struct filter_rule *r, size_t count) {
    int rc = 0;

    for (size_t n = 0; n < count && !rc; n++)
        rc = filter_add(ctx, &r[n]);
    return rc;
}

/* --- seccomp(2), or where a filter outside of us kills for it, as services of systemd
 * have it (SystemCallFilter=@system-service), prctl(2) --- */

static bool has_call;

static int try_call(void) {
    uint32_t action = SECCOMP_RET_ALLOW;

    (void)!syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action);
    return 0;
}

/* Before libseccomp makes the call, which it does to find out. */
static void learn_call(void) {
    static bool known;

    if (known)
        return;
    known = true;
    has_call = filter_survives(try_call);
    if (!has_call)
        seccomp_api_set(1);
}

/* --- rules --- */

static int set_attributes(scmp_filter_ctx ctx, uint32_t otherwise) {
    const struct {
        enum scmp_filter_attr attr;
        uint32_t value;
    } needed[] = {
        {SCMP_FLTATR_API_SYSRAWRC, 1}, /* the kernel's own errors */
        /* 32-bit calls are as little allowed, and are told like others. */
        {SCMP_FLTATR_ACT_BADARCH, otherwise},
        {SCMP_FLTATR_CTL_OPTIMIZE, 2}, /* a tree instead of a list */
    };
    int rc = 0;

    for (size_t n = 0; n < ARRAY_SIZE(needed) && !rc; n++)
        rc = seccomp_attr_set(ctx, needed[n].attr, needed[n].value);
    return rc;
}

int filter_new(uint32_t otherwise, scmp_filter_ctx *out) {
    scmp_filter_ctx ctx;
    int rc;

    learn_call();
    ctx = seccomp_init(otherwise);
    rc = ctx ? set_attributes(ctx, otherwise) : -ENOMEM;

    if (rc && ctx)
        seccomp_release(ctx);
    *out = rc ? NULL : ctx;
    return rc;
}

/* --- a call that is not allowed --- */

/* The names are looked up beforehand: that allocates. */
static const char *names[NAMES];

static void learn_names(void) {
    for (int n = 0; n < NAMES; n++)
        if (!names[n])
            names[n] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, n);
}

/* Of a jail that answers some calls itself; NULL. */
static bool (*answer)(const siginfo_t *si, void *context);

/* SA_RESETHAND where nothing is answered: whatever goes wrong in here, the next one
 * kills. log_error() formats without a system call, so that it is not what we have
 * interrupted. */
static void on_forbidden(int signo, siginfo_t *si, void *context) {
    int call = si->si_syscall;
    bool known =
        call >= 0 && call < NAMES && names[call] && si->si_arch == SCMP_ARCH_X86_64;

    if (answer && si->si_code == SYS_SECCOMP && answer(si, context))
        return;
    os_tty_restore();
    if (si->si_code != SYS_SECCOMP) {
        if (answer)
            _exit(1);
        raise(signo); /* somebody sent it; it kills when we return */
        return;
    }
    log_error("the jail forbids the system call %s (%d): a bug of bivisor, or the guest "
              "has broken out of its machine; the run ends",
              known ? names[call] : "of that number", call);
    _exit(1);
}

static int catch_forbidden(void) {
    struct sigaction act = {.sa_sigaction = on_forbidden,
                            .sa_flags =
                                SA_SIGINFO | SA_ONSTACK | (answer ? 0 : SA_RESETHAND)};
    sigset_t one;

    sigfillset(&act.sa_mask);
    sigemptyset(&one);
    sigaddset(&one, SIGSYS);
    if (sigaction(SIGSYS, &act, NULL) < 0)
        return -errno;
    return -pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

int filter_with(const struct filter_rule *r, size_t count, const struct filter_rule *more,
                scmp_filter_ctx *out) {
    int rc = filter_new(SCMP_ACT_TRAP, out);

    if (rc)
        return rc;
    rc = filter_add_all(*out, r, count);
    if (!rc && more)
        rc = filter_add(*out, more);
    if (rc)
        seccomp_release(*out);
    return rc;
}

int filter_for_process(const struct filter_rule *r, size_t count, scmp_filter_ctx *out) {
    const struct filter_rule to_us = IF(tgkill, 0, ARG32, (unsigned)getpid());

    return OS_JAIL_SANITIZED ? -ENOTSUP : filter_with(r, count, &to_us, out);
}

int filter_catch(bool (*handler)(const siginfo_t *si, void *context)) {
    learn_names();
    answer = handler;
    return catch_forbidden();
}

/* What is in the pipe FD, which seccomp_export_bpf() has written. */
static int read_program(int fd, struct sock_fprog *out) {
    const size_t most = BPF_MAXINSNS * sizeof(*out->filter);
    ssize_t len;

    out->filter = malloc(most);
    if (!out->filter)
        return -ENOMEM;
    len = read(fd, out->filter, most);
    out->len = len < 0 ? 0 : (unsigned short)((size_t)len / sizeof(*out->filter));
    if (out->len)
        return 0;
    free(out->filter);
    out->filter = NULL;
    return -EIO;
}

/* A pipe, which a limit for the size of files does not concern; what does not fit is an
 * error, and does not wait. */
int filter_program(scmp_filter_ctx ctx, struct sock_fprog *out) {
    int fd[2], rc = pipe2(fd, O_CLOEXEC | O_NONBLOCK) ? -errno : 0;

    *out = (struct sock_fprog){0};
    if (!rc) {
        rc = seccomp_export_bpf(ctx, fd[1]);
        if (!rc)
            rc = read_program(fd[0], out);
        close(fd[0]);
        close(fd[1]);
    }
    seccomp_release(ctx);
    return rc;
}

int filter_restrict(const struct sock_fprog *program) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1ul, 0ul, 0ul, 0ul))
        return -errno;
    /* A wish: kernels before 5.16 would else turn off speculation past stores for us,
     * which costs speed and does not separate a guest from the process it runs in. */
    if (has_call && !syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                             SECCOMP_FILTER_FLAG_SPEC_ALLOW, program))
        return 0;
    if (has_call && errno != EINVAL)
        return -errno;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program) ? -errno : 0;
}

int filter_put_on(scmp_filter_ctx ctx) {
    struct sock_fprog program;
    int rc = filter_program(ctx, &program);

    if (!rc)
        rc = filter_restrict(&program);
    if (rc)
        free(program.filter); /* else giving memory back may be forbidden */
    return rc;
}

int filter_load(scmp_filter_ctx ctx,
                bool (*handler)(const siginfo_t *si, void *context)) {
    int rc = filter_catch(handler);

    if (!rc)
        return filter_put_on(ctx);
    seccomp_release(ctx);
    return rc;
}

/* --- filters outside of us --- */

int filter_in_child(int (*fn)(void)) {
    int status;
    pid_t pid = fork();

    if (!pid)
        _exit(fn());
    if (pid < 0)
        return -errno;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -EPERM;
}

bool filter_survives(int (*fn)(void)) {
    return prctl(PR_GET_SECCOMP, 0ul, 0ul, 0ul, 0ul) != SECCOMP_MODE_FILTER ||
           filter_in_child(fn) >= 0;
}
