/*
 * A fence for all threads at once: membarrier(2). The kernel interrupts each CPU of the
 * host's that executes a thread of ours; the others have passed one when they were
 * descheduled. So that one side of a handshake over two words needs no fence of its own,
 * and the rarer side pays for both.
 */
#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/os.h"

int os_fence_init(void) {
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0)
               ? -errno
               : 0;
}

bool os_fence_all(void) {
    return !syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}
