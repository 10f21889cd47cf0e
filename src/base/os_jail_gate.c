/*
 * The jail of the process that passes on what clients of the API and the machine say to
 * each other (api/gate.c), and opens the files that a client has named, which may be
 * anywhere. It may do nothing else: no other sockets, no programs, no processes, no
 * executable memory. Which files those are is its own code's to say: a
 * filter cannot see names.
 *
 * Each rule says who needs it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_filter.h"
#include "base/os_jail_root.h"

static const struct filter_rule rules[] = {
    /* Clients, and the machine's end of each of them. */
    ANY(read),
    ANY(write),
    ANY(sendmsg),
    ANY(recvmsg),
    ANY(getsockname), /* is it a client? */
    ANY(poll),
    ANY(restart_syscall), /* poll(2) goes on after SIGSTOP and SIGCONT */
    ANY(shutdown),
    ANY(close),
    IF(socketpair, 0, ARG32, AF_UNIX),

    /* What they name. */
    ANY(openat),
    ANY(unlinkat),
    ANY(renameat2),
    ANY(fstat),
    ANY(newfstatat), /* fstat(3) of newer glibc */
    ANY(fstatfs),
    IF(ioctl, 1, ARG32, BLKGETSIZE64 &ARG32),
    IF(ioctl, 1, ARG32, BLKPBSZGET),
    IF(ioctl, 1, ARG32, BLKSSZGET),
    IF(fcntl, 1, ARG32, F_OFD_SETLK),
    IF(fcntl, 1, ARG32, F_OFD_GETLK),

    FILTER_MALLOC,

    FILTER_END,
};

/* Files that are not its user's are what root's clients may name. */
#define ROOTS_FILES                                                                      \
    (JAIL_CAP(CAP_DAC_OVERRIDE) | JAIL_CAP(CAP_DAC_READ_SEARCH) | JAIL_CAP(CAP_FOWNER))

int os_jail_gate(void) {
    scmp_filter_ctx ctx;
    int rc = filter_for_process(rules, ARRAY_SIZE(rules), &ctx);

    if (rc)
        return rc;
    jail_root_keep(ROOTS_FILES);
    return filter_load(ctx, NULL);
}
