/* Host memory behind guest RAM: a memfd, mapped once, allocated by the host on touch. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/os.h"

int os_memfd_map(const char *name, uint64_t size, int *fd, void **map) {
    int f = memfd_create(name, MFD_CLOEXEC);
    void *p;
    int rc;

    if (f < 0)
        return -errno;
    if (ftruncate(f, (off_t)size) < 0) {
        rc = -errno;
        goto fail;
    }
    p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, f, 0);
    if (p == MAP_FAILED) {
        rc = -errno;
        goto fail;
    }
    *fd = f;
    *map = p;
    return 0;
fail:
    close(f);
    return rc;
}

void os_memfd_unmap(int fd, void *map, uint64_t size) {
    munmap(map, size);
    close(fd);
}

int os_memfd_zero(int fd, uint64_t size) {
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)size) < 0)
        return -errno;
    return 0;
}
