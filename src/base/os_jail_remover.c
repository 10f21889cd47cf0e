/*
 * The jail of a process that removes the path of a socket when who listened at it has
 * ended (os_socket.c). It waits, looks whether the path is still the same, and removes
 * it. The name is its own code's to say: a filter cannot see names, and Landlock, where
 * the host has it, leaves it the directory. It has nobody to tell of a call that is not
 * allowed: that kills it.
 *
 * Each rule says who needs it.
 */
#include <errno.h>
#include <linux/capability.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_filter.h"
#include "base/os_jail_root.h"

static const struct filter_rule rules[] = {
    ANY(read),            /* until the other end of the pipe is closed */
    ANY(restart_syscall), /* read(2) goes on after SIGSTOP and SIGCONT */
    ANY(newfstatat),      /* is it still ours? */
    ANY(exit_group),
};

int os_jail_remover(int dir) {
    const struct filter_rule one = IF2(unlinkat, 0, ARG32, (unsigned)dir, 2, ARG32, 0);
    scmp_filter_ctx ctx;
    int rc;

    if (OS_JAIL_SANITIZED)
        return -ENOTSUP;
    rc = filter_with(rules, ARRAY_SIZE(rules), &one, &ctx);
    if (rc)
        return rc;
    filter_removing(dir);
    jail_root_keep(JAIL_CAP(CAP_DAC_OVERRIDE) | JAIL_CAP(CAP_FOWNER));
    return filter_load(ctx, NULL);
}
