/* Files that get their names when they are whole; see draft.h. */
#include "base/draft.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* 0 or -errno. */
static int name_of(const char *file, char out[NAME_MAX + 1]) {
    int len = snprintf(out, NAME_MAX + 1, ".%s.new", file);

    return len > NAME_MAX ? -ENAMETOOLONG : 0;
}

static int open_it(int dir, const char *file, int flags) {
    char name[NAME_MAX + 1];
    int rc = name_of(file, name), fd;

    if (rc)
        return rc;
    fd = openat(dir, name, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

int draft_make(int dir, const char *file) {
    draft_drop(dir, file);
    return open_it(dir, file, O_RDWR | O_CREAT | O_EXCL);
}

int draft_open(int dir, const char *file) {
    return open_it(dir, file, O_RDONLY);
}

int draft_keep(int dir, const char *file) {
    char name[NAME_MAX + 1];
    int rc = name_of(file, name);

    if (rc)
        return rc;
    /* glibc makes an older call of it, which jails do not know. */
    return syscall(SYS_renameat2, dir, name, dir, file, 0) < 0 ? -errno : 0;
}

void draft_drop(int dir, const char *file) {
    char name[NAME_MAX + 1];

    if (!name_of(file, name))
        unlinkat(dir, name, 0);
}
