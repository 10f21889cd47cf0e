/*
 * The initial RAM disk: a cpio archive ("initramfs buffer format" of the kernel's
 * documentation) with the first process, the modules, and what that process is to do.
 */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "exec/exec.h"

/* As `ld -b binary` names it (guest/exec/exec.mk). */
extern const uint8_t _binary_init_start[], _binary_init_end[];

#define REGULAR 0100000u
#define DIRECTORY 0040000u
#define CHARACTER 0020000u

struct archive {
    FILE *f;
    unsigned files;
};

static void pad(FILE *f, uint64_t len) {
    for (; len % 4; len++)
        putc(0, f);
}

static void put_file(struct archive *a, const char *name, unsigned mode, unsigned major,
                     unsigned minor, const void *bytes, uint64_t len) {
    unsigned name_size = (unsigned)strlen(name) + 1;

    fprintf(a->f, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
            ++a->files, mode, 0u, 0u, 1u, 0u, (unsigned)len, 0u, 0u, major, minor,
            name_size, 0u);
    fwrite(name, 1, name_size, a->f);
    pad(a->f, 110 + name_size);
    if (len)
        fwrite(bytes, 1, (size_t)len, a->f);
    pad(a->f, len);
}

static void put_word(FILE *f, const char *key, const char *value) {
    fprintf(f, "%s=%s", key, value);
    putc(0, f);
}

static void put_number(FILE *f, const char *key, unsigned value) {
    fprintf(f, "%s=%u", key, value);
    putc(0, f);
}

static void put_user(FILE *f, const struct exec_command *c) {
    gid_t groups[256];
    int count = getgroups(ARRAY_SIZE(groups), groups);

    put_number(f, "uid", c->as_root ? 0 : geteuid());
    put_number(f, "gid", c->as_root ? 0 : getegid());
    if (c->as_root || count <= 0)
        return;
    fputs("groups=", f);
    for (int n = 0; n < count; n++)
        fprintf(f, "%s%u", n ? "," : "", (unsigned)groups[n]);
    putc(0, f);
}

/* What the first process is to do, as guest/exec/init.c reads it. */
static char *describe(const struct exec_command *c, const struct exec_modules *m,
                      size_t *len) {
    char *text = NULL, path[96];
    FILE *f = open_memstream(&text, len);

    if (!f)
        return NULL;
    put_word(f, "type", c->type);
    put_word(f, "options", c->options);
    put_word(f, "cwd", c->cwd);
    put_word(f, "hostname", "bivisor");
    if (c->tree) {
        put_word(f, "release", c->release);
        put_word(f, "tree", c->tree);
    }
    put_user(f, c);
    put_number(f, "tty", c->tty);
    put_number(f, "columns", c->columns);
    put_number(f, "rows", c->rows);
    if (c->rw)
        put_word(f, "rw", "");
    if (c->net)
        put_word(f, "net", "");
    if (c->agent)
        put_word(f, "agent", "");
    for (unsigned n = 0; n < m->count; n++) {
        snprintf(path, sizeof(path), "/modules/%s.ko", m->module[n].name);
        put_word(f, "module", path);
    }
    for (char **e = c->envp; *e; e++)
        put_word(f, "env", *e);
    for (char **a = c->argv; *a; a++)
        put_word(f, "arg", *a);
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}

static void put_all(struct archive *a, const struct exec_modules *m, const char *config,
                    size_t len) {
    static const char *const dirs[] = {"dev",   "proc", "sys",    "new",
                                       "lower", "over", "modules"};
    char name[96];

    for (size_t n = 0; n < ARRAY_SIZE(dirs); n++)
        put_file(a, dirs[n], DIRECTORY | 0755, 0, 0, NULL, 0);
    put_file(a, "dev/console", CHARACTER | 0600, 5, 1, NULL, 0);
    put_file(a, "init", REGULAR | 0755, 0, 0, _binary_init_start,
             (uint64_t)(_binary_init_end - _binary_init_start));
    for (unsigned n = 0; n < m->count; n++) {
        snprintf(name, sizeof(name), "modules/%s.ko", m->module[n].name);
        put_file(a, name, REGULAR | 0644, 0, 0, m->module[n].bytes, m->module[n].len);
    }
    put_file(a, "config", REGULAR | 0600, 0, 0, config, len);
    put_file(a, "TRAILER!!!", 0, 0, 0, NULL, 0);
}

int exec_initrd_make(const struct exec_command *c, const struct exec_modules *m) {
    int fd = memfd_create("initrd", MFD_CLOEXEC), copy = fd < 0 ? -1 : dup(fd);
    struct archive a = {.f = copy < 0 ? NULL : fdopen(copy, "w")};
    size_t len;
    char *config = a.f ? describe(c, m, &len) : NULL;
    bool good = config;

    if (good)
        put_all(&a, m, config, len);
    free(config);
    if (a.f)
        good = !fclose(a.f) && good;
    else if (copy >= 0)
        close(copy);
    if (good)
        return fd;
    if (fd >= 0)
        close(fd);
    return -ENOMEM;
}
