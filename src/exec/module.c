/*
 * Modules, and what they need, in the order in which they are loaded; see exec.h.
 *
 * A package that was only unpacked has no modules.dep: each module says itself what it
 * needs, in its section .modinfo. The files are looked for by name. They are somebody
 * else's: their headers are checked.
 */
#include <elf.h>
#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot/unpack.h"
#include "exec/exec.h"

#define FILES 16384
#define FILE_MAX (64ull << 20)
#define DEPTH 16

struct files {
    char *path[FILES];
    unsigned count;
};

/* --- names --- */

/* A module's name, of a path: `-` is `_`, and all that follows a dot is left out. */
static void name_of(const char *path, char *name, size_t size) {
    const char *slash = strrchr(path, '/');
    size_t n = 0;

    for (path = slash ? slash + 1 : path; *path && *path != '.' && n + 1 < size; path++)
        name[n++] = *path == '-' ? '_' : *path;
    name[n] = 0;
}

static bool is_module(const char *path) {
    const char *dot = strstr(path, ".ko");

    return dot && (!dot[3] || !strcmp(dot + 3, ".xz") || !strcmp(dot + 3, ".zst") ||
                   !strcmp(dot + 3, ".gz"));
}

static void free_files(struct files *f) {
    for (unsigned n = 0; f && n < f->count; n++)
        free(f->path[n]);
    free(f);
}

static struct files *list_files(const char *dir) {
    struct files *f = calloc(1, sizeof(*f));
    char *const roots[] = {(char *)(uintptr_t)dir, NULL};
    FTS *walk = f && *dir ? fts_open(roots, FTS_PHYSICAL | FTS_NOSTAT, NULL) : NULL;
    FTSENT *e;

    while (walk && (e = fts_read(walk)) && f->count < FILES)
        if (is_module(e->fts_name) && (f->path[f->count] = strdup(e->fts_path)))
            f->count++;
    if (walk)
        fts_close(walk);
    return f;
}

static const char *find(const struct files *f, const char *name) {
    char other[64];

    for (unsigned n = 0; n < f->count; n++) {
        name_of(f->path[n], other, sizeof(other));
        if (!strcmp(name, other))
            return f->path[n];
    }
    return NULL;
}

/* Is it in the kernel itself? Where the list is missing it may be. */
static bool built_in(const struct exec_kernel *k, const char *name) {
    char path[4200], line[512], other[64];
    bool found = false;
    FILE *f;

    if (!*k->modules)
        return true;
    snprintf(path, sizeof(path), "%s/modules.builtin", k->modules);
    f = fopen(path, "re");
    if (!f)
        return true;
    while (!found && fgets(line, sizeof(line), f)) {
        name_of(line, other, sizeof(other));
        found = !strcmp(name, other);
    }
    fclose(f);
    return found;
}

/* --- reading --- */

static uint8_t *read_all(const char *path, uint64_t *len) {
    FILE *f = fopen(path, "re");
    uint8_t *bytes = NULL;
    long size;

    if (!f)
        return NULL;
    if (!fseek(f, 0, SEEK_END) && (size = ftell(f)) > 0 && (uint64_t)size <= FILE_MAX &&
        !fseek(f, 0, SEEK_SET) && (bytes = malloc((size_t)size))) {
        *len = fread(bytes, 1, (size_t)size, f);
        if (*len != (uint64_t)size) {
            free(bytes);
            bytes = NULL;
        }
    }
    fclose(f);
    return bytes;
}

static bool is_elf(const uint8_t *bytes, uint64_t len) {
    return len >= sizeof(Elf64_Ehdr) && !memcmp(bytes, ELFMAG, SELFMAG) &&
           bytes[EI_CLASS] == ELFCLASS64;
}

/* The module, unpacked. */
static uint8_t *read_module(const char *path, uint64_t *len) {
    uint64_t packed_len = 0;
    uint8_t *packed = read_all(path, &packed_len), *bytes = packed;

    if (packed && !is_elf(packed, packed_len)) {
        bytes = boot_unpack(packed, packed_len, FILE_MAX, len);
        free(packed);
    } else {
        *len = packed_len;
    }
    if (bytes && !is_elf(bytes, *len)) {
        free(bytes);
        bytes = NULL;
    }
    return bytes;
}

/* Section N, which is inside; NULL. */
static const uint8_t *section(const uint8_t *bytes, uint64_t len, const Elf64_Ehdr *h,
                              unsigned n, Elf64_Shdr *s) {
    uint64_t at = h->e_shoff + (uint64_t)n * sizeof(*s);

    if (n >= h->e_shnum || h->e_shoff > len || at > len || sizeof(*s) > len - at)
        return NULL;
    memcpy(s, bytes + at, sizeof(*s));
    return s->sh_offset <= len && s->sh_size <= len - s->sh_offset ? bytes + s->sh_offset
                                                                   : NULL;
}

/* What it says after KEY= in .modinfo, a text that ends in there; NULL. */
static const char *info(const uint8_t *bytes, uint64_t len, const char *key) {
    Elf64_Ehdr h;
    Elf64_Shdr names, s;
    const uint8_t *strings, *at;

    memcpy(&h, bytes, sizeof(h));
    strings = section(bytes, len, &h, h.e_shstrndx, &names);
    for (unsigned n = 0; strings && n < h.e_shnum; n++) {
        at = section(bytes, len, &h, n, &s);
        if (!at || s.sh_type == SHT_NOBITS || s.sh_name >= names.sh_size ||
            strncmp((const char *)strings + s.sh_name, ".modinfo",
                    names.sh_size - s.sh_name) ||
            !s.sh_size || at[s.sh_size - 1])
            continue;
        for (uint64_t k = 0; k < s.sh_size; k += strlen((const char *)at + k) + 1)
            if (!strncmp((const char *)at + k, key, strlen(key)) &&
                at[k + strlen(key)] == '=')
                return (const char *)at + k + strlen(key) + 1;
    }
    return NULL;
}

/* --- loading --- */

struct loading {
    const struct exec_kernel *k;
    struct files *files;
    struct exec_modules *out;
    char *why;
    size_t why_size;
};

static bool is_loaded(const struct exec_modules *m, const char *name) {
    for (unsigned n = 0; n < m->count; n++)
        if (!strcmp(m->module[n].name, name))
            return true;
    return false;
}

static int load(struct loading *l, const char *name, const char *what, unsigned depth);

/* The modules of LIST, names with commas between. */
static int load_list(struct loading *l, const char *list, unsigned depth) {
    char name[64];
    int rc = 0;

    while (!rc && *list) {
        size_t len = strcspn(list, ",");

        if (len && len < sizeof(name)) {
            char text[64];

            memcpy(text, list, len);
            text[len] = 0;
            name_of(text, name, sizeof(name));
            rc = load(l, name, name, depth + 1);
        }
        list += len + (list[len] == ',');
    }
    return rc;
}

static int add(struct loading *l, const char *name, uint8_t *bytes, uint64_t len) {
    struct exec_module *m = &l->out->module[l->out->count];

    if (l->out->count == EXEC_MODULES)
        return -E2BIG;
    snprintf(m->name, sizeof(m->name), "%s", name);
    m->bytes = bytes;
    m->len = len;
    l->out->count++;
    return 0;
}

static int load(struct loading *l, const char *name, const char *what, unsigned depth) {
    const char *path, *depends;
    uint8_t *bytes;
    uint64_t len;
    int rc;

    if (is_loaded(l->out, name))
        return 0;
    path = depth < DEPTH ? find(l->files, name) : NULL;
    if (!path && depth < DEPTH && built_in(l->k, name))
        return 0;
    if (!path) {
        snprintf(
            l->why, l->why_size,
            "the kernel %s has no %s: '%s' is neither built in nor a module below %s",
            l->k->release, what, name, l->k->modules);
        return -ENOENT;
    }
    bytes = read_module(path, &len);
    if (!bytes) {
        snprintf(l->why, l->why_size, "'%s' is no module, or cannot be unpacked", path);
        return -EINVAL;
    }
    depends = info(bytes, len, "depends");
    rc = depends ? load_list(l, depends, depth) : 0;
    if (!rc)
        rc = add(l, name, bytes, len);
    if (rc)
        free(bytes);
    return rc;
}

int exec_modules_load(const struct exec_kernel *k, const struct exec_need *needs,
                      unsigned count, struct exec_modules *out, char *why,
                      size_t why_size) {
    struct loading l = {
        .k = k, .out = out, .why = why, .why_size = why_size, .files = NULL};
    int rc = 0;

    *out = (struct exec_modules){.count = 0};
    snprintf(why, why_size, "there are too many modules, or no memory");
    l.files = list_files(k->modules);
    if (!l.files)
        return -ENOMEM;
    for (unsigned n = 0; n < count && !rc; n++)
        rc = load(&l, needs[n].module, needs[n].what, 0);
    free_files(l.files);
    if (rc)
        exec_modules_free(out);
    return rc;
}

void exec_modules_free(struct exec_modules *m) {
    while (m->count)
        free(m->module[--m->count].bytes);
}
