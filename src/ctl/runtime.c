/* The directory of machines with names; see runtime.h. */
#include "ctl/runtime.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

#define SUFFIX "." RUNTIME_CONTROL

static bool is_name(const char *name, size_t len) {
    if (!len || len > RUNTIME_NAME_MAX || !isalnum((unsigned char)*name))
        return false;
    for (size_t n = 0; n < len; n++)
        if (!isascii(name[n]) ||
            (!isalnum((unsigned char)name[n]) && !strchr("-_.", name[n])))
            return false;
    return true;
}

bool runtime_is_name(const char *name) {
    return is_name(name, strlen(name));
}

bool runtime_check_name(const char *name) {
    if (runtime_is_name(name))
        return true;
    log_error(
        "a machine's name has 1 to %d letters, digits, '-', '_' and '.', and begins "
        "with one of the first two: not '%s'",
        RUNTIME_NAME_MAX, name);
    return false;
}

/* Where this user's programs keep what lives as long as they are logged in. */
static bool find_base(char *out, size_t size) {
    const char *given = getenv("XDG_RUNTIME_DIR");
    struct stat st;
    int len;

    if (given && *given == '/')
        len = snprintf(out, size, "%s", given);
    else if (!geteuid())
        len = snprintf(out, size, "/run");
    else
        len = snprintf(out, size, "/run/user/%u", (unsigned)geteuid());
    return len > 0 && (size_t)len < size && !stat(out, &st) && S_ISDIR(st.st_mode);
}

/* Nobody else may put sockets there, or listen at them. */
static bool is_ours(const char *dir) {
    struct stat st;

    return !lstat(dir, &st) && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
           !(st.st_mode & 077);
}

bool runtime_dir(bool make, char *out, size_t size) {
    char base[RUNTIME_PATH];
    int len;

    if (!find_base(base, sizeof(base))) {
        if (make)
            log_error("there is no directory for machines with names: XDG_RUNTIME_DIR is "
                      "to name one");
        return false;
    }
    len = snprintf(out, size, "%s/bivisor", base);
    if (len < 0 || (size_t)len >= size) {
        log_error("'%s' is too long for sockets' paths", base);
        return false;
    }
    if (make && mkdir(out, 0700) && errno != EEXIST) {
        log_error("cannot make the directory '%s': %s", out, strerror(errno));
        return false;
    }
    if (!make && access(out, F_OK))
        return false;
    if (is_ours(out))
        return true;
    log_error("'%s' is not a directory that is yours alone (mode 0700)", out);
    return false;
}

bool runtime_path(const char *dir, const char *name, const char *what, char *out) {
    int len = snprintf(out, RUNTIME_PATH, "%s/%s.%s", dir, name, what);

    if (len > 0 && len < RUNTIME_PATH)
        return true;
    log_error("'%s/%s.%s' is too long for a socket's path, which has at most %d bytes",
              dir, name, what, RUNTIME_PATH - 1);
    return false;
}

int runtime_lock(const char *dir) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

    if (fd < 0)
        return -errno;
    do
        rc = flock(fd, LOCK_EX) ? -errno : 0;
    while (rc == -EINTR);
    if (!rc)
        return fd;
    close(fd);
    return rc;
}

void runtime_each(const char *dir, void (*fn)(void *arg, const char *name), void *arg) {
    struct dirent **list;
    int count = scandir(dir, &list, NULL, alphasort);

    for (int n = 0; n < count; n++) {
        char *name = list[n]->d_name;
        size_t len = strlen(name), suffix = strlen(SUFFIX);

        if (len > suffix && !strcmp(name + len - suffix, SUFFIX) &&
            is_name(name, len - suffix)) {
            name[len - suffix] = 0;
            fn(arg, name);
        }
        free(list[n]);
    }
    if (count >= 0)
        free(list);
}

void runtime_remove(const char *dir, const char *name) {
    static const char *const what[] = {RUNTIME_CONTROL, RUNTIME_CONSOLE, RUNTIME_VSOCK,
                                       RUNTIME_API};
    char path[RUNTIME_PATH];

    for (size_t n = 0; n < ARRAY_SIZE(what); n++)
        if (runtime_path(dir, name, what[n], path))
            unlink(path);
}
