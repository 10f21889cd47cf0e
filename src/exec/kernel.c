/* Finding a kernel and its modules; see exec.h. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "exec/exec.h"

/* "The Linux/x86 Boot Protocol": the magic, and where the version's text is. */
#define MAGIC_AT 0x202
#define VERSION_AT 0x20e

/* Of a bzImage. */
static int read_release(struct exec_kernel *k, char *why, size_t why_size) {
    uint8_t head[0x210];
    int fd = open(k->path, O_RDONLY | O_CLOEXEC), rc = 0;
    ssize_t n;

    if (fd < 0) {
        snprintf(why, why_size, "cannot read the kernel '%s': %s", k->path,
                 strerror(errno));
        return -errno;
    }
    if (pread(fd, head, sizeof(head), 0) != sizeof(head) ||
        memcmp(head + MAGIC_AT, "HdrS", 4)) {
        snprintf(why, why_size, "'%s' is no bzImage", k->path);
        rc = -EINVAL;
    } else {
        n = pread(fd, k->release, sizeof(k->release) - 1,
                  0x200 + (head[VERSION_AT] | head[VERSION_AT + 1] << 8));
        k->release[n > 0 ? n : 0] = 0;
        k->release[strcspn(k->release, " ")] = 0;
    }
    close(fd);
    return rc;
}

static bool is_dir(const char *path) {
    struct stat s;

    return !stat(path, &s) && S_ISDIR(s.st_mode);
}

/* Beside the kernel's directory, as packages have it, or this host's. */
static void find_modules(struct exec_kernel *k) {
    static const char *const places[] = {
        "%.*s/../lib/modules/%s", "%.*s/../usr/lib/modules/%s", "%.*s/lib/modules/%s"};
    const char *slash = strrchr(k->path, '/');
    int dir = slash ? (int)(slash - k->path) : 1;

    for (size_t n = 0; *k->release && n < ARRAY_SIZE(places); n++) {
        int len = snprintf(k->modules, sizeof(k->modules), places[n], dir,
                           slash ? k->path : ".", k->release);

        if (len < (int)sizeof(k->modules) && is_dir(k->modules))
            return;
    }
    snprintf(k->modules, sizeof(k->modules), "/lib/modules/%s", k->release);
    if (!*k->release || !is_dir(k->modules))
        *k->modules = 0;
}

/* The last of DIR/vmlinuz-* that can be read, by the order of versions. */
static bool newest(const char *dir, char *out, size_t size) {
    char pattern[4096];
    glob_t g;
    const char *best = NULL;

    if (snprintf(pattern, sizeof(pattern), "%s/vmlinuz-*", dir) >= (int)sizeof(pattern) ||
        glob(pattern, 0, NULL, &g))
        return false;
    for (size_t n = 0; n < g.gl_pathc; n++)
        if (!access(g.gl_pathv[n], R_OK) &&
            (!best || strverscmp(best, g.gl_pathv[n]) < 0))
            best = g.gl_pathv[n];
    if (best && strlen(best) < size)
        strcpy(out, best);
    else
        best = NULL;
    globfree(&g);
    return best;
}

static int find_default(struct exec_kernel *k, char *why, size_t why_size) {
    struct utsname u;

    if (!uname(&u)) {
        snprintf(k->path, sizeof(k->path), "/boot/vmlinuz-%s", u.release);
        if (!access(k->path, R_OK))
            return 0;
    }
    if (newest("/boot", k->path, sizeof(k->path)))
        return 0;
    snprintf(
        why, why_size,
        "there is no kernel in /boot that can be read; --kernel names one: a bzImage, "
        "or a directory in which a kernel's package is unpacked");
    return -ENOENT;
}

static int find_in(const char *dir, struct exec_kernel *k, char *why, size_t why_size) {
    char boot[4096];

    if (snprintf(boot, sizeof(boot), "%s/boot", dir) < (int)sizeof(boot) &&
        (newest(boot, k->path, sizeof(k->path)) || newest(dir, k->path, sizeof(k->path))))
        return 0;
    snprintf(why, why_size, "there is no kernel in '%s': no boot/vmlinuz-*", dir);
    return -ENOENT;
}

int exec_kernel_find(const char *name, struct exec_kernel *k, char *why,
                     size_t why_size) {
    int rc = 0;

    *k = (struct exec_kernel){0};
    if (!name)
        rc = find_default(k, why, why_size);
    else if (is_dir(name))
        rc = find_in(name, k, why, why_size);
    else if (snprintf(k->path, sizeof(k->path), "%s", name) >= (int)sizeof(k->path))
        rc = -ENAMETOOLONG;
    if (rc == -ENAMETOOLONG)
        snprintf(why, why_size, "the kernel's name is too long");
    if (!rc)
        rc = read_release(k, why, why_size);
    if (!rc)
        find_modules(k);
    return rc;
}
