/*
 * The jail of the process that shows the guest's screen to VNC clients
 * (viewer/server.c): it takes clients at one socket, reads what strangers send, and
 * writes pictures. It may do nothing else: no files, no other sockets, no programs, no
 * processes, no executable memory.
 *
 * Each rule says who needs it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_filter.h"
#include "base/os_jail_root.h"

static const struct filter_rule rules[] = {
    /* Our socket, and the clients'. */
    ANY(read),
    ANY(write),
    ANY(recvfrom), /* does the client begin as a browser does? */
    ANY(close),
    ANY(shutdown),
    ANY(select),
    ANY(pselect6),
    ANY(poll),
    ANY(restart_syscall), /* poll(2) goes on after SIGSTOP and SIGCONT */
    ANY(getpeername),     /* libvncserver notes who it is */
    ANY(getsockname),
    ANY(setsockopt), /* TCP_NODELAY */
    IF(fcntl, 1, ARG32, F_GETFL),
    IF(fcntl, 1, ARG32, F_SETFL),

    /* The vDSO answers without a call, except where the TSC is not the host's clock. */
    ANY(clock_gettime),
    ANY(gettimeofday),

    FILTER_MALLOC, /* random numbers also for what a password is asked for with */

    FILTER_END,
};

/* Of a client whose address has a scope libc would like to know its name. */
static bool answer_socket(const siginfo_t *si, void *context) {
    if (si->si_syscall != SYS_socket)
        return false;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = -EACCES;
    return true;
}

int os_jail_viewer(int listener) {
    const struct filter_rule clients = IF2(accept4, 0, ARG32, (unsigned)listener, 3,
                                           ARG32, SOCK_NONBLOCK | SOCK_CLOEXEC);
    scmp_filter_ctx ctx;
    int rc = filter_for_process(rules, ARRAY_SIZE(rules), &ctx);

    if (rc)
        return rc;
    rc = filter_add(ctx, &clients);
    if (rc) {
        seccomp_release(ctx);
        return rc;
    }
    jail_root_alone(true);
    filter_no_files_alone(FILTER_NO_TCP | FILTER_NO_SIGNALS);
    return filter_load(ctx, answer_socket);
}
