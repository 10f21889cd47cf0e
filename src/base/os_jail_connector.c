/*
 * The jail of a process that connects for one that may not (os_connector.c): a guest to
 * unix sockets, or a disk to its server. It reads orders, connects, and hands sockets
 * over. It may do nothing else. What it can be made to connect to is its own code's to
 * say: a filter cannot see names.
 *
 * Each rule says who needs it.
 */
#include <errno.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_filter.h"
#include "base/os_jail_root.h"

static const struct filter_rule rules[] = {
    /* Orders and answers. */
    ANY(read),
    ANY(restart_syscall), /* read(2) goes on after SIGSTOP and SIGCONT */
    ANY(sendmsg),

    /* What is handed over. */
    ANY(connect),
    IF(setsockopt, 1, ARG32, SOL_SOCKET), /* how long, and without delay */
    IF(setsockopt, 1, ARG32, IPPROTO_TCP),
    ANY(close),

    /* The handler of SIGSYS, and the end. */
    IF(write, 0, ARG32, STDERR_FILENO),
    ANY(exit_group),
};

int os_jail_connector(int family) {
    const struct filter_rule sockets = IF(socket, 0, ARG32, (unsigned)family);
    scmp_filter_ctx ctx;
    int rc;

    if (OS_JAIL_SANITIZED)
        return -ENOTSUP;
    rc = filter_with(rules, ARRAY_SIZE(rules), &sockets, &ctx);
    if (rc)
        return rc;
    filter_no_files_alone(0);
    jail_root_keep(JAIL_CAP(CAP_DAC_OVERRIDE)); /* a socket that is its user's alone */
    return filter_load(ctx, NULL);
}
