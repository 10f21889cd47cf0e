/*
 * A directory of the host's as a disk: an image with a FAT file system in it, made when
 * the disk is opened of what the directory has then. It lies in a file without a name. It
 * is read only; what a guest writes goes to an overlay, and never to the directory.
 *
 * FAT32, as UEFI and every operating system know it ("Microsoft Extensible Firmware
 * Initiative FAT32 File System Specification"), in the one partition of an MBR. Names are
 * long ones, with a short one for each. Symbolic links are not followed, for they may
 * lead anywhere: they and all else that is no file and no directory are left out, which
 * is said.
 *
 * The directory is walked twice: for names and sizes, which say how large all is, and to
 * copy. A file that is shorter by then is filled up with zeros.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/text.h"
#include "block/block_int.h"

#define SECTOR 512u
#define CLUSTER 4096u
#define PARTITION 2048u /* its first sector */
#define RESERVED 32u    /* sectors before the first table */
#define TABLES 2u
#define LEAST (504ull << 20) /* bytes for data, so that it is FAT32 */
#define SPARE (64ull << 20)  /* that a guest may fill */
#define MOST (64ull << 30)   /* bytes of all files */
#define NODES 65536u
#define DEPTH 32u
#define FIRST 2u /* the first cluster: the root's */
#define LAST_OF_CHAIN 0x0fffffffu

#define ENTRY 32u
#define IS_DIRECTORY 0x10u
#define IS_FILE 0x20u
#define IS_LABEL 0x08u
#define IS_LONG 0x0fu
#define LONG_UNITS 13u  /* of a name, in one entry */
#define NAME_UNITS 255u /* of a whole name */

struct node {
    char *name;
    uint16_t units[NAME_UNITS]; /* the same in UTF-16 */
    unsigned unit_count;
    char short_name[11];
    bool is_short; /* there is no need for the long one */
    bool directory;
    uint32_t size;
    time_t changed;
    uint32_t cluster;
    struct node *child;
    unsigned children;
};

struct fat {
    struct image *image;
    uint32_t *table;
    uint32_t clusters; /* there are, from FIRST on */
    uint32_t sectors;  /* of one table */
    uint32_t next;     /* cluster that is free */
    uint64_t bytes;    /* of files */
    unsigned nodes;
    const char *dir; /* for messages */
    char *why;
    size_t why_size;
};

static int fail(struct fat *f, int rc, const char *what, const char *name) {
    snprintf(f->why, f->why_size, "cannot make a disk of '%s': '%s' %s", f->dir, name,
             what);
    return rc;
}

/* --- names --- */

/* Of a character of LEN bytes. */
static uint32_t code_of(const uint8_t *p, size_t len) {
    uint32_t c = len > 1 ? p[0] & (0x7fu >> len) : p[0];

    for (size_t n = 1; n < len; n++)
        c = c << 6 | (p[n] & 0x3f);
    return c;
}

/* NAME in UTF-16; false: it is no UTF-8, or nothing that FAT can have. */
static bool to_units(struct node *n) {
    const char *at = n->name;

    for (n->unit_count = 0; *at;) {
        size_t len = text_character((const uint8_t *)at, strlen(at));
        uint32_t c = code_of((const uint8_t *)at, len);

        if (!len || c < ' ' || (c < 128 && strchr("\"*/:<>?\\|", (int)c)) ||
            n->unit_count + 2 > NAME_UNITS)
            return false;
        if (c > 0xffff) {
            n->units[n->unit_count++] = (uint16_t)(0xd800 + ((c - 0x10000) >> 10));
            c = 0xdc00 + (c & 0x3ff);
        }
        n->units[n->unit_count++] = (uint16_t)c;
        at += len;
    }
    return n->name[strlen(n->name) - 1] != '.' && n->name[strlen(n->name) - 1] != ' ';
}

static bool fits_short(const char *text, size_t len, size_t most) {
    if (!len || len > most)
        return false;
    for (size_t n = 0; n < len; n++)
        if (!isalnum((unsigned char)text[n]) && !strchr("$%'-_@`!(){}^#&", text[n]))
            return false;
    return true;
}

/* Up to MOST letters of LEN, as short names have them. */
static void put_letters(char *to, const char *text, size_t len, size_t most) {
    for (size_t n = 0; n < len && most; n++) {
        if (text[n] == ' ' || text[n] == '.')
            continue;
        *to++ = fits_short(text + n, 1, 1) ? (char)toupper((unsigned char)text[n]) : '_';
        most--;
    }
}

/* The name itself, if it is short enough, and else the beginning of it and its NUMBER in
 * the directory, so that no two are the same: a name with a tilde is never its own. */
static void make_short(struct node *n, unsigned number) {
    const char *dot = strrchr(n->name, '.');
    size_t len = strlen(n->name),
           base = dot && dot > n->name ? (size_t)(dot - n->name) : len;
    size_t rest = base < len ? len - base - 1 : 0;
    char tail[10];

    memset(n->short_name, ' ', sizeof(n->short_name));
    if (fits_short(n->name, base, 8) && (!rest || fits_short(dot + 1, rest, 3))) {
        put_letters(n->short_name, n->name, base, 8);
        put_letters(n->short_name + 8, n->name + len - rest, rest, 3);
        n->is_short = true;
        for (size_t k = 0; k < len; k++)
            n->is_short &= !islower((unsigned char)n->name[k]);
        return;
    }
    snprintf(tail, sizeof(tail), "~%X", number);
    put_letters(n->short_name, n->name, base, 8 - strlen(tail));
    put_letters(n->short_name + 8, n->name + len - rest, rest, 3);
    base = strcspn(n->short_name, " ");
    base = base < 8 - strlen(tail) ? base : 8 - strlen(tail);
    memcpy(n->short_name + base, tail, strlen(tail));
}

/* --- what the directory has --- */

static void free_node(struct node *n) {
    for (unsigned k = 0; k < n->children; k++)
        free_node(&n->child[k]);
    free(n->child);
    free(n->name);
}

static int by_name(const void *a, const void *b) {
    const struct node *x = a, *y = b;
    int order = strcasecmp(x->name, y->name);

    return order ? order : strcmp(x->name, y->name);
}

/* One more child, or NULL. */
static struct node *add(struct node *n, const char *name) {
    struct node *more =
        n->children & (n->children - 1)
            ? n->child
            : realloc(n->child, (n->children ? 2 * n->children : 1) * sizeof(*more));
    struct node *one;

    if (!more)
        return NULL;
    n->child = more;
    one = &n->child[n->children];
    *one = (struct node){.name = strdup(name)};
    if (!one->name)
        return NULL;
    n->children++;
    return one;
}

static int scan(struct fat *f, int fd, struct node *n, unsigned depth);

/* A name in the directory FD. 0 also for what is left out. */
static int scan_one(struct fat *f, int fd, struct node *n, const char *name,
                    unsigned depth) {
    struct node *one;
    struct stat st;

    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : fail(f, -errno, strerror(errno), name);
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        log_warn("'%s' of '%s' is left out: it is neither a file nor a directory", name,
                 f->dir);
        return 0;
    }
    if (st.st_size > UINT32_MAX && S_ISREG(st.st_mode))
        return fail(f, -EFBIG, "has 4 GiB or more", name);
    if (++f->nodes > NODES || depth > DEPTH)
        return fail(f, -EFBIG, "is more than FAT is good for here", name);
    one = add(n, name);
    if (!one)
        return fail(f, -ENOMEM, strerror(ENOMEM), name);
    if (!to_units(one))
        return fail(f, -EINVAL, "is no name that FAT can have", name);
    one->directory = S_ISDIR(st.st_mode);
    one->size = one->directory ? 0 : (uint32_t)st.st_size;
    one->changed = st.st_mtime;
    f->bytes += one->size + CLUSTER;
    if (f->bytes > MOST)
        return fail(f, -EFBIG, "is one file too many: 64 GiB are possible", name);
    return one->directory
               ? scan(f,
                      openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
                      one, depth + 1)
               : 0;
}

/* Names that are the same to FAT. */
static int check_names(struct fat *f, const struct node *n) {
    for (unsigned k = 1; k < n->children; k++)
        if (!strcasecmp(n->child[k - 1].name, n->child[k].name))
            return fail(f, -EEXIST,
                        "is there twice, if letters' case makes no difference",
                        n->child[k].name);
    return 0;
}

/* All of the directory FD, which is taken over. */
static int scan(struct fat *f, int fd, struct node *n, unsigned depth) {
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    int rc = 0;

    if (!d) {
        rc = fail(f, -errno, strerror(errno), n->name ? n->name : f->dir);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    while (!rc && (e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = scan_one(f, fd, n, e->d_name, depth);
    closedir(d);
    if (n->children)
        qsort(n->child, n->children, sizeof(*n->child), by_name);
    for (unsigned k = 0; k < n->children; k++)
        make_short(&n->child[k], k + 1);
    return rc ? rc : check_names(f, n);
}

/* --- places --- */

static void put(uint8_t *at, uint64_t value, unsigned size) {
    for (unsigned n = 0; n < size; n++)
        at[n] = (uint8_t)(value >> 8 * n);
}

static uint64_t place_of(const struct fat *f, uint32_t cluster) {
    return (uint64_t)(PARTITION + RESERVED + TABLES * f->sectors) * SECTOR +
           (uint64_t)(cluster - FIRST) * CLUSTER;
}

/* A chain of clusters for BYTES; 0: for none. */
static uint32_t take(struct fat *f, uint64_t bytes) {
    uint32_t count = (uint32_t)((bytes + CLUSTER - 1) / CLUSTER), first = f->next;

    for (uint32_t n = 0; n < count; n++, f->next++)
        f->table[f->next] = n + 1 < count ? f->next + 1 : LAST_OF_CHAIN;
    return count ? first : 0;
}

/* --- directories --- */

static unsigned long_entries(const struct node *n) {
    return n->is_short ? 0 : (n->unit_count + LONG_UNITS - 1) / LONG_UNITS;
}

/* Date and time of a change, which begin with 1980. */
static uint32_t stamp(time_t t) {
    struct tm tm;

    if (!gmtime_r(&t, &tm) || tm.tm_year < 80 || tm.tm_year > 207)
        return 1u << 21 | 1u << 16;
    return (uint32_t)((tm.tm_year - 80) << 25 | (tm.tm_mon + 1) << 21 | tm.tm_mday << 16 |
                      tm.tm_hour << 11 | tm.tm_min << 5 | tm.tm_sec / 2);
}

static void put_entry(uint8_t *e, const char *name, unsigned kind, time_t changed,
                      uint32_t cluster, uint32_t size) {
    memcpy(e, name, 11);
    e[11] = (uint8_t)kind;
    put(e + 16, stamp(changed) >> 16, 2); /* made */
    put(e + 20, cluster >> 16, 2);
    put(e + 22, stamp(changed), 4);
    put(e + 26, cluster & 0xffff, 2);
    put(e + 28, size, 4);
}

/* The long name in entries before the short one, its end first. */
static uint8_t *put_long(uint8_t *e, const struct node *n) {
    static const uint8_t at[LONG_UNITS] = {1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30};
    unsigned count = long_entries(n);
    uint8_t sum = 0;

    for (unsigned k = 0; k < sizeof(n->short_name); k++)
        sum = (uint8_t)((sum >> 1 | sum << 7) + (uint8_t)n->short_name[k]);
    for (unsigned part = count; part--; e += ENTRY) {
        e[0] = (uint8_t)((part + 1) | (part + 1 == count ? 0x40 : 0));
        e[11] = IS_LONG;
        e[13] = sum;
        for (unsigned k = 0; k < LONG_UNITS; k++) {
            unsigned unit = part * LONG_UNITS + k;

            put(e + at[k],
                unit < n->unit_count    ? n->units[unit]
                : unit == n->unit_count ? 0
                                        : 0xffff,
                2);
        }
    }
    return e;
}

static uint64_t directory_bytes(const struct node *n) {
    uint64_t entries = 2 + 1; /* itself and the one above, or the label; the end */

    for (unsigned k = 0; k < n->children; k++)
        entries += 1 + long_entries(&n->child[k]);
    return entries * ENTRY;
}

static int write_directory(struct fat *f, const struct node *n,
                           const struct node *above) {
    uint64_t len = (directory_bytes(n) + CLUSTER - 1) / CLUSTER * CLUSTER;
    uint8_t *all = calloc(1, len), *e = all;
    int rc;

    if (!all)
        return -ENOMEM;
    if (above) {
        put_entry(e, ".          ", IS_DIRECTORY, n->changed, n->cluster, 0);
        put_entry(e + ENTRY, "..         ", IS_DIRECTORY, n->changed,
                  above->cluster == FIRST ? 0 : above->cluster, 0);
        e += 2 * ENTRY;
    } else {
        put_entry(e, "BIVISOR    ", IS_LABEL, n->changed, 0, 0);
        e += ENTRY;
    }
    for (unsigned k = 0; k < n->children; k++) {
        const struct node *c = &n->child[k];

        e = put_long(e, c);
        put_entry(e, c->short_name, c->directory ? IS_DIRECTORY : IS_FILE, c->changed,
                  c->cluster, c->size);
        e += ENTRY;
    }
    rc = image_write(f->image, place_of(f, n->cluster), all, len);
    free(all);
    return rc;
}

/* --- files --- */

/* Clusters of a file are one after the other. */
static int copy_file(struct fat *f, int fd, const struct node *n) {
    char buf[16 * CLUSTER];
    uint32_t done = 0;
    int rc = 0;

    while (!rc && done < n->size) {
        uint32_t left = n->size - done;
        ssize_t len = read(fd, buf, left < sizeof(buf) ? left : sizeof(buf));

        if (len < 0 && errno == EINTR)
            continue;
        if (len <= 0)
            return len < 0 ? -errno : 0;
        rc = image_write(f->image, place_of(f, n->cluster) + done, buf, (size_t)len);
        done += (uint32_t)len;
    }
    return rc;
}

static int copy(struct fat *f, int fd, struct node *n, const struct node *above);

static int copy_child(struct fat *f, int fd, struct node *n, struct node *c) {
    int in = openat(fd, c->name,
                    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC |
                        (c->directory ? O_DIRECTORY : 0));
    int rc;

    if (in < 0)
        return fail(f, -errno, strerror(errno), c->name);
    if (c->directory)
        return copy(f, in, c, n);
    /* It may have been put there since. */
    c->cluster = take(f, c->size);
    rc = copy_file(f, in, c);
    close(in);
    return rc ? fail(f, rc, strerror(-rc), c->name) : 0;
}

/* All of the directory FD, which is taken over. */
static int copy(struct fat *f, int fd, struct node *n, const struct node *above) {
    int rc = 0;

    if (fd < 0)
        return fail(f, -errno, strerror(errno), n->name ? n->name : f->dir);
    n->cluster = take(f, directory_bytes(n));
    for (unsigned k = 0; k < n->children && !rc; k++)
        rc = copy_child(f, fd, n, &n->child[k]);
    close(fd);
    if (rc)
        return rc;
    rc = write_directory(f, n, above);
    return rc ? fail(f, rc, strerror(-rc), n->name ? n->name : f->dir) : 0;
}

/* --- what stands around it --- */

static uint32_t volume_sectors(const struct fat *f) {
    return RESERVED + TABLES * f->sectors + f->clusters * (CLUSTER / SECTOR);
}

static int write_mbr(struct fat *f) {
    uint8_t mbr[SECTOR] = {0}, *p = mbr + 0x1be;

    put(mbr + 0x1b8, 0x62697669, 4); /* the disk's signature */
    p[1] = p[2] = p[3] = 0xfe;       /* no cylinders */
    p[4] = 0x0c;                     /* FAT32, by sectors' numbers */
    p[5] = p[6] = p[7] = 0xfe;
    put(p + 8, PARTITION, 4);
    put(p + 12, volume_sectors(f), 4);
    put(mbr + 0x1fe, 0xaa55, 2);
    return image_write(f->image, 0, mbr, sizeof(mbr));
}

/* "Boot Sector and BPB" */
static void put_boot(const struct fat *f, uint8_t *b) {
    memcpy(b,
           "\xeb\x58\x90"
           "BIVISOR ",
           11);
    put(b + 11, SECTOR, 2);
    b[13] = CLUSTER / SECTOR;
    put(b + 14, RESERVED, 2);
    b[16] = TABLES;
    b[21] = 0xf8; /* a fixed disk */
    put(b + 24, 63, 2);
    put(b + 26, 255, 2);
    put(b + 28, PARTITION, 4);
    put(b + 32, volume_sectors(f), 4);
    put(b + 36, f->sectors, 4);
    put(b + 44, FIRST, 4);
    put(b + 48, 1, 2); /* FSInfo */
    put(b + 50, 6, 2); /* where all this stands again */
    b[64] = 0x80;
    b[66] = 0x29;
    put(b + 67, 0x62697669, 4);
    memcpy(b + 71, "BIVISOR    FAT32   ", 19);
    b[90] = 0xf4; /* nothing is booted from it: HLT */
    b[91] = 0xeb;
    b[92] = 0xfd;
    put(b + 510, 0xaa55, 2);
}

static void put_info(const struct fat *f, uint8_t *b) {
    put(b, 0x41615252, 4);
    put(b + 484, 0x61417272, 4);
    put(b + 488, f->clusters - (f->next - FIRST), 4);
    put(b + 492, f->next, 4);
    put(b + 508, 0xaa550000, 4);
}

static int write_around(struct fat *f) {
    uint8_t head[2 * SECTOR] = {0};
    uint64_t at = (uint64_t)PARTITION * SECTOR;
    int rc = write_mbr(f);

    put_boot(f, head);
    put_info(f, head + SECTOR);
    if (!rc)
        rc = image_write(f->image, at, head, sizeof(head));
    if (!rc)
        rc = image_write(f->image, at + 6 * SECTOR, head, sizeof(head));
    for (unsigned n = 0; n < TABLES && !rc; n++)
        rc = image_write(f->image, at + (RESERVED + n * f->sectors) * SECTOR, f->table,
                         (size_t)f->next * 4);
    return rc;
}

/* --- all of it --- */

/* The tables have room for what is there and more. */
static int lay_out(struct fat *f) {
    uint64_t bytes = f->bytes + f->nodes * 25ull * ENTRY + SPARE;

    f->clusters = (uint32_t)((bytes > LEAST ? bytes : LEAST) / CLUSTER);
    f->sectors = (f->clusters + FIRST) / (SECTOR / 4) + 1;
    f->next = FIRST;
    f->table = calloc((size_t)f->sectors, SECTOR);
    if (!f->table)
        return -ENOMEM;
    f->table[0] = 0x0ffffff8;
    f->table[1] = LAST_OF_CHAIN;
    return 0;
}

static int make(struct fat *f, struct node *root) {
    int rc = scan(f, open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), root, 0);

    if (rc)
        return rc;
    rc = lay_out(f);
    if (!rc)
        rc = file_temporary(f->dir, &f->image);
    if (rc)
        return fail(f, rc, strerror(-rc), f->dir);
    rc = copy(f, open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), root, NULL);
    if (rc)
        return rc;
    rc = write_around(f);
    return rc ? fail(f, rc, strerror(-rc), f->dir) : 0;
}

int fat_open(const char *dir, struct image **out, char *why, size_t why_size) {
    struct fat f = {.dir = dir, .why = why, .why_size = why_size};
    struct node root = {.changed = (time_t)(os_realtime_ns() / 1000000000u)};
    int rc = make(&f, &root);

    free_node(&root);
    free(f.table);
    if (rc) {
        image_close(f.image);
        return rc;
    }
    f.image->size = (uint64_t)(PARTITION + volume_sectors(&f)) * SECTOR;
    f.image->readonly = true;
    *out = f.image;
    return 0;
}
