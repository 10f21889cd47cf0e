/* The exit status for an error; see ctl.h. */
#include <errno.h>

#include "ctl/ctl.h"

int ctl_status_of(int rc) {
    return rc == -EINVAL || rc == -ENOENT || rc == -EACCES || rc == -EISDIR ||
                   rc == -ENOTDIR || rc == -ENOEXEC || rc == -EFBIG || rc == -ELOOP ||
                   rc == -EEXIST || rc == -EADDRINUSE || rc == -ENAMETOOLONG ||
                   rc == -ENOTBLK || rc == -EROFS
               ? CTL_USAGE
               : CTL_HOST_FAILURE;
}
