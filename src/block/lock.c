/*
 * An image that is being written to is nobody else's.
 *
 * The locks are those of QEMU's file driver, so that it, qemu-img and qemu-nbd see ours
 * and we theirs: byte 100 + N of the file is locked (shared) by who has permission N,
 * byte 200 + N by who lets nobody else have it. Each first takes its locks and then looks
 * for others' that exclude it; of two that come at once both may fail, never none. Open
 * file description locks ("fcntl(2)"): they end with the descriptor, however the process
 * ends, and a second image in this process is a stranger too.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "block/block_int.h"

#define HAVE 100
#define KEEP 200

/* Permissions. */
#define READ 0
#define WRITE 1
#define WRITE_SAME 2 /* write what is there already */
#define RESIZE 3

struct claim {
    uint8_t have, keep; /* a bit for each permission */
};

static const struct claim reader = {1u << READ, 1u << WRITE | 1u << RESIZE};
static const struct claim writer = {1u << READ | 1u << WRITE | 1u << WRITE_SAME |
                                        1u << RESIZE,
                                    1u << WRITE | 1u << RESIZE};

static int lock_byte(int fd, int at) {
    struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};

    return fcntl(fd, F_OFD_SETLK, &l) < 0 ? -errno : 0;
}

/* 0; -EBUSY: somebody else has locked it. */
static int look(int fd, int at) {
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};

    if (fcntl(fd, F_OFD_GETLK, &l) < 0)
        return -errno;
    return l.l_type == F_UNLCK ? 0 : -EBUSY;
}

static int claim(int fd, const struct claim *c) {
    int rc = 0;

    for (int n = READ; n <= RESIZE && !rc; n++) {
        if (c->have & 1u << n)
            rc = lock_byte(fd, HAVE + n);
        if (!rc && c->keep & 1u << n)
            rc = lock_byte(fd, KEEP + n);
    }
    if (rc == -EACCES)
        rc = -EAGAIN; /* the same, on other systems */
    if (rc == -EAGAIN)
        return -EBUSY; /* somebody locks in another way */
    for (int n = READ; n <= RESIZE && !rc; n++) {
        if (c->have & 1u << n)
            rc = look(fd, KEEP + n);
        if (!rc && c->keep & 1u << n)
            rc = look(fd, HAVE + n);
    }
    return rc;
}

int lock_take(int fd, bool write) {
    int rc = claim(fd, write ? &writer : &reader);

    return rc == -EBUSY ? rc : 0;
}
