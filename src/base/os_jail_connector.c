/*
 * The jail of the process that connects a guest to unix sockets (vsock/connector.c): it
 * reads orders, connects, and hands sockets over. It may do nothing else. Which sockets
 * it can be made to connect to is its own code's to say: a filter cannot see names.
 *
 * Each rule says who needs it.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_filter.h"

static const struct filter_rule rules[] = {
    /* Orders and answers. */
    ANY(read),
    ANY(restart_syscall), /* read(2) goes on after SIGSTOP and SIGCONT */
    ANY(sendmsg),

    /* What is handed over. */
    IF(socket, 0, ARG32, AF_UNIX),
    ANY(connect),
    ANY(close),

    /* The handler of SIGSYS, and the end. */
    IF(write, 0, ARG32, STDERR_FILENO),
    ANY(exit_group),
};

int os_jail_connector(void) {
    scmp_filter_ctx ctx;
    int rc;

    if (OS_JAIL_SANITIZED)
        return -ENOTSUP;
    rc = filter_with(rules, ARRAY_SIZE(rules), NULL, &ctx);
    if (rc)
        return rc;
    return filter_load(ctx, NULL);
}
