/*
 * A directory with anything in it, as a disk (block/fat.c): entries of a kind, a name's
 * length, a name, a size. Whatever they are called, what is made is a file system in
 * which each chain ends, no two have a cluster in common, no two short names of a
 * directory are the same, and each file has its bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "block/block_int.h"
#include "fuzz/fuzz.h"

#define ENTRIES 200u
#define SECTOR 512u
#define CLUSTER 4096u
#define PART_AT (2048ull * SECTOR)
#define DEPTH 40u /* more than fat.c goes down */

struct volume {
    struct image *image;
    uint64_t data_at; /* of cluster 2 */
    uint32_t *table, clusters;
    uint8_t *seen;
    unsigned files, directories;
};

static uint32_t get(const uint8_t *p, unsigned bytes) {
    uint32_t v = 0;

    memcpy(&v, p, bytes);
    return v;
}

/* --- the directory --- */

/* Its bytes say how long it is. */
static void make_file(int dir, const char *name, unsigned size) {
    static uint8_t bytes[65536];
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        return; /* there is one of this name, or it is none */
    memset(bytes, (int)(size % 251), size);
    HOLDS(write(fd, bytes, size) == (ssize_t)size);
    close(fd);
}

/* DIR, or the one in it that is called NAME. */
static int enter(int dir, const char *name) {
    int fd;

    (void)mkdirat(dir, name, 0700);
    fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return dir;
    close(dir);
    return fd;
}

static void make_tree(struct fuzz_in *in, const char *top) {
    int dir = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    for (unsigned n = 0; n < ENTRIES && in->left; n++) {
        unsigned kind = fuzz_get(in, 1) & 7, len = (unsigned)fuzz_get(in, 1);
        char name[257] = "";

        for (unsigned k = 0; k < len; k++)
            name[k] = (char)fuzz_get(in, 1);
        if (strchr(name, '/') || !strcmp(name, ".."))
            continue; /* (and not out of it) */
        if (kind == 0)
            (void)symlinkat("/", dir, name);
        else if (kind < 3)
            dir = enter(dir, name);
        else
            make_file(dir, name, (unsigned)fuzz_get(in, 2));
        if (kind == 7) {
            close(dir);
            dir = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        }
    }
    close(dir);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at) {
    return remove(path);
}

/* --- what was made of it --- */

static void mount_it(struct volume *v, struct image *i) {
    uint8_t boot[SECTOR];
    uint32_t sectors;

    HOLDS(!image_read(i, PART_AT, boot, sizeof(boot)) && get(boot + 510, 2) == 0xaa55);
    sectors = get(boot + 36, 4);
    v->image = i;
    v->data_at = PART_AT + (get(boot + 14, 2) + 2ull * sectors) * SECTOR;
    HOLDS(i->size > v->data_at);
    v->clusters = (uint32_t)((i->size - v->data_at) / CLUSTER);
    HOLDS(sectors * (SECTOR / 4) >= v->clusters + 2);
    v->table = malloc((size_t)sectors * SECTOR);
    v->seen = calloc(1, v->clusters + 2);
    HOLDS(v->table && v->seen);
    HOLDS(!image_read(i, PART_AT + get(boot + 14, 2) * SECTOR, v->table,
                      (size_t)sectors * SECTOR));
}

/* The chain from FIRST on, COUNT clusters of it: the caller's to free. */
static uint8_t *read_chain(struct volume *v, uint32_t first, uint32_t *count) {
    uint8_t *bytes = NULL;

    *count = 0;
    for (uint32_t c = first; c < 0x0ffffff8; c = v->table[c] & 0x0fffffff) {
        HOLDS(c >= 2 && c < v->clusters + 2 && !v->seen[c]++);
        bytes = realloc(bytes, (size_t)CLUSTER * (*count + 1));
        HOLDS(bytes && !image_read(v->image, v->data_at + (c - 2) * (uint64_t)CLUSTER,
                                   bytes + (size_t)CLUSTER * *count, CLUSTER));
        ++*count;
    }
    return bytes;
}

static void check_file(struct volume *v, uint32_t first, uint32_t size) {
    uint32_t count = 0;
    uint8_t *bytes = first ? read_chain(v, first, &count) : NULL;

    HOLDS(count == (size + CLUSTER - 1) / CLUSTER);
    for (uint32_t n = 0; n < size; n++)
        HOLDS(bytes[n] == size % 251);
    free(bytes);
    v->files++;
}

static void check_directory(struct volume *v, uint32_t first, unsigned depth);

static void check_entry(struct volume *v, const uint8_t *e, unsigned depth) {
    uint32_t first = get(e + 20, 2) << 16 | get(e + 26, 2);

    if ((e[11] & 0x3f) == 0x0f || e[11] & 8 || e[0] == '.')
        return; /* of a long name, the label, itself and the one above */
    if (e[11] & 0x10)
        check_directory(v, first, depth + 1);
    else
        check_file(v, first, get(e + 28, 4));
}

static bool is_name(const uint8_t *e) {
    return (e[11] & 0x3f) != 0x0f && !(e[11] & 8);
}

static void check_directory(struct volume *v, uint32_t first, unsigned depth) {
    uint32_t count, entries;
    uint8_t *bytes = read_chain(v, first, &count);

    HOLDS(depth < DEPTH && count);
    for (entries = 0; entries < count * CLUSTER / 32 && bytes[32 * entries]; entries++)
        check_entry(v, bytes + (size_t)32 * entries, depth);
    for (uint32_t a = 0; a < entries; a++)
        for (uint32_t b = 0; b < a && is_name(bytes + (size_t)32 * a); b++)
            HOLDS(!is_name(bytes + (size_t)32 * b) ||
                  memcmp(bytes + (size_t)32 * a, bytes + (size_t)32 * b, 11) != 0);
    free(bytes);
    v->directories++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_in in = {data, size};
    char top[] = "/tmp/fuzz-fat-XXXXXX", why[512] = "";
    struct volume v = {0};
    struct image *image;

    log_set_level(LOG_ERROR); /* what is left out is said */
    HOLDS(mkdtemp(top));
    make_tree(&in, top);
    if (fat_open(top, &image, why, sizeof(why))) {
        HOLDS(why[0]);
    } else {
        mount_it(&v, image);
        check_directory(&v, 2, 0);
        HOLDS(v.files + v.directories <= ENTRIES + 1);
        free(v.table);
        free(v.seen);
        image_close(image);
    }
    nftw(top, remove_one, 64, FTW_DEPTH | FTW_PHYS);
    return 0;
}
