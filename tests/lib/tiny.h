/* A kernel of a few bytes for tests that need a whole machine: multiboot, loaded and
 * entered in 32-bit mode at 1 MiB. */
#ifndef LIB_TINY_H
#define LIB_TINY_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define TINY_ENTRY 0x100020u

/* Makes the file in memory, of CODE; PATH names it as long as the descriptor that comes
 * back is open. -1: that failed. */
static inline int tiny_kernel(const void *code, size_t len, char path[32]) {
    const uint32_t header[8] = {0x1badb002, 1u << 16,  -(0x1badb002u + (1u << 16)),
                                0x100000,   0x100000,  0,
                                0,          TINY_ENTRY};
    int fd = memfd_create("tiny", MFD_CLOEXEC);

    snprintf(path, 32, "/proc/self/fd/%d", fd);
    if (fd < 0 || write(fd, header, sizeof(header)) != sizeof(header) ||
        write(fd, code, len) != (ssize_t)len)
        return -1;
    return fd;
}

#endif
