/* Files that are read as wholes; see whole_file.h. */
#include "ctl/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int whole_file_read(const char *path, uint32_t most, uint8_t **bytes, uint32_t *size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    ssize_t n = -1;

    *bytes = NULL;
    *size = 0;
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        errno = EINVAL;
    else if (st.st_size > most)
        errno = EFBIG;
    else if ((*bytes = malloc((size_t)st.st_size + 1)))
        n = pread(fd, *bytes, (size_t)st.st_size, 0);
    if (n >= 0 && n != st.st_size)
        errno = EIO;
    if (n < 0 || n != st.st_size) {
        n = -errno;
        free(*bytes);
        *bytes = NULL;
    }
    close(fd);
    if (n < 0)
        return (int)n;
    *size = (uint32_t)n;
    return 0;
}
