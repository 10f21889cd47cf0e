/* When a run is locked up, and what is said when it cannot be; see jail.h. */
#include "base/jail.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/os.h"

const char *jail_why(int rc) {
    switch (rc) {
    case -ENOTSUP: /* also libseccomp's, where it finds that seccomp(2) is forbidden */
        return OS_JAIL_SANITIZED
                   ? "this is a build with sanitizers, which need more"
                   : "this host does not let a program filter its system calls";
    case -EACCES:
    case -EPERM:
    case -ENOSYS:
        return "this host does not let a program filter its system calls";
    case -EBUSY:
        return "a library has made threads of its own";
    default:
        return strerror(-rc);
    }
}

bool jail_enter(enum jail_want want, const struct os_jail_needs *needs) {
    int rc = want == JAIL_OFF ? 0 : os_jail_enter(needs);

    if (!rc)
        return true;
    if (want == JAIL_ON)
        log_error("--jail on: %s", jail_why(rc));
    else if (OS_JAIL_SANITIZED)
        log_info("no jail: %s", jail_why(rc));
    else
        log_warn("no jail: %s; a guest that breaks out can do what you can",
                 jail_why(rc));
    return want != JAIL_ON;
}
