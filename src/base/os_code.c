/*
 * A code buffer that is never writable and executable at one address: a memfd mapped
 * twice. A host that forbids executable shared mappings says so with -EACCES or -EPERM.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/os.h"

int os_code_map(size_t size, struct os_code *out) {
    void *rw, *rx;
    int rc;
    int fd = memfd_create("bivisor-code", MFD_CLOEXEC);

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) < 0) {
        rc = -errno;
        goto fail_fd;
    }
    rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (rw == MAP_FAILED) {
        rc = -errno;
        goto fail_fd;
    }
    rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    if (rx == MAP_FAILED) {
        rc = -errno;
        goto fail_rw;
    }
    *out = (struct os_code){.rw = rw, .rx = rx, .size = size, .fd = fd};
    return 0;
fail_rw:
    munmap(rw, size);
fail_fd:
    close(fd);
    return rc;
}

void os_code_unmap(struct os_code *c) {
    if (!c->size)
        return;
    munmap(c->rx, c->size);
    munmap(c->rw, c->size);
    close(c->fd);
    *c = (struct os_code){.fd = -1};
}
