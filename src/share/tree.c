/*
 * The files that the guest knows of; see share_int.h.
 *
 * A node is a file, whatever its names: nodes are found by device, inode number and time
 * of birth, and by their own numbers. A node is held as often as the guest holds it, and
 * holds the directory in which it was found last, by the name that it had there.
 *
 * Its descriptor may be closed when too many are open, the one that was used longest ago
 * first, and is opened again where the node was found last. Something else may be there
 * by then: that is ESTALE, at which a guest looks for the name again. What the current
 * request has used stays open.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "share/share_int.h"

#define BUCKETS_FIRST 1024u
#define NODES_MAX (4u << 20)
#define DEVICES 64u

struct list {
    struct list *before, *after;
};

struct node {
    uint64_t id;
    uint64_t held;
    uint64_t looked; /* of these, the guest's own: node_look() */
    uint64_t turn;   /* of the request that used it last */
    struct node *dir;
    char *name; /* of the root NULL */
    int fd;     /* -1: closed */
    uint32_t major, minor;
    uint64_t ino;
    struct statx_timestamp born;
    mode_t type;
    bool shut;
    bool known; /* in by_file */
    struct node *next_id, *next_file;
    struct list open; /* among those that have a descriptor */
};

struct tree {
    bool readonly;
    unsigned fds, fds_max;
    uint64_t turn, next_id;
    struct node *root;
    struct list open; /* the one that was used longest ago comes first */
    struct node **by_id, **by_file;
    size_t buckets, nodes; /* of each table; a power of 2 */
    struct device {
        uint32_t major, minor;
    } device[DEVICES];
    unsigned devices;
};

/* --- the descriptors --- */

static void unlist(struct list *l) {
    l->before->after = l->after;
    l->after->before = l->before;
}

static void list_last(struct list *head, struct list *l) {
    l->before = head->before;
    l->after = head;
    head->before->after = l;
    head->before = l;
}

static void close_fd(struct tree *t, struct node *n) {
    if (n->fd < 0)
        return;
    unlist(&n->open);
    close(n->fd);
    n->fd = -1;
    t->fds--;
}

static void adopt_fd(struct tree *t, struct node *n, int fd) {
    n->fd = fd;
    t->fds++;
    list_last(&t->open, &n->open);
}

/* The request uses N, which is open. */
static void touch(struct tree *t, struct node *n) {
    n->turn = t->turn;
    unlist(&n->open);
    list_last(&t->open, &n->open);
}

/* Room for one more; the root's is never closed. */
static int make_room(struct tree *t) {
    while (t->fds >= t->fds_max) {
        struct list *first = t->open.after;
        struct node *n = container_of(first, struct node, open);

        if (first == &t->open || n->turn == t->turn)
            return -EMFILE;
        if (n == t->root) {
            unlist(first);
            list_last(&t->open, first);
            if (t->open.after == first)
                return -EMFILE;
            continue;
        }
        close_fd(t, n);
    }
    return 0;
}

static int look(int dir, const char *name) {
    int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

static bool same_file(const struct node *n, const struct statx *s) {
    return n->ino == s->stx_ino && n->major == s->stx_dev_major &&
           n->minor == s->stx_dev_minor && n->born.tv_sec == s->stx_btime.tv_sec &&
           n->born.tv_nsec == s->stx_btime.tv_nsec;
}

static int describe(int fd, struct statx *s) {
    const unsigned what = STATX_TYPE | STATX_INO | STATX_BTIME;

    if (statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, what, s))
        return -errno;
    if (!(s->stx_mask & STATX_BTIME))
        s->stx_btime = (struct statx_timestamp){0};
    return 0;
}

/* N's, whose directory's is DIR. */
static int open_again(struct tree *t, struct node *n, int dir) {
    struct statx s;
    int fd, rc = make_room(t);

    if (rc)
        return rc;
    fd = look(dir, n->name);
    if (fd < 0)
        return fd == -ENOENT ? -ESTALE : fd;
    rc = describe(fd, &s);
    if (!rc && !same_file(n, &s))
        rc = -ESTALE;
    if (rc) {
        close(fd);
        return rc;
    }
    adopt_fd(t, n, fd);
    return fd;
}

/* The directory nearest to the root, on the way from it to N, that is closed. */
static struct node *closed_above(struct node *n) {
    struct node *top = n;

    for (; n; n = n->dir)
        if (n->fd < 0)
            top = n;
        else
            break;
    return top;
}

int node_fd(struct tree *t, struct node *n) {
    while (n->fd < 0) {
        struct node *top = closed_above(n);
        int fd;

        top->turn = t->turn;
        touch(t, top->dir);
        fd = open_again(t, top, top->dir->fd);
        if (fd < 0)
            return fd;
    }
    touch(t, n);
    return n->fd;
}

/* --- the tables --- */

static size_t id_bucket(const struct tree *t, uint64_t id) {
    return (size_t)(id & (t->buckets - 1));
}

static size_t file_bucket(const struct tree *t, uint64_t ino, uint32_t minor) {
    uint64_t h = (ino ^ (uint64_t)minor << 40) * 0x9e3779b97f4a7c15ull;

    return (size_t)(h >> 32 & (t->buckets - 1));
}

static void put_in(struct tree *t, struct node *n) {
    struct node **id = &t->by_id[id_bucket(t, n->id)];
    struct node **file = &t->by_file[file_bucket(t, n->ino, n->minor)];

    n->next_id = *id;
    *id = n;
    if (!n->known)
        return;
    n->next_file = *file;
    *file = n;
}

/* N is not found by what it is any more. */
static void make_unknown(struct tree *t, struct node *n) {
    struct node **at = &t->by_file[file_bucket(t, n->ino, n->minor)];

    if (!n->known)
        return;
    while (*at != n)
        at = &(*at)->next_file;
    *at = n->next_file;
    n->known = false;
}

static void take_out(struct tree *t, struct node *n) {
    struct node **at = &t->by_id[id_bucket(t, n->id)];

    make_unknown(t, n);
    while (*at != n)
        at = &(*at)->next_id;
    *at = n->next_id;
}

static int make_tables(struct tree *t, size_t buckets) {
    struct node **id = calloc(buckets, sizeof(struct node *));
    struct node **file = calloc(buckets, sizeof(struct node *));

    if (!id || !file) {
        free(id);
        free(file);
        return -ENOMEM;
    }
    t->by_id = id;
    t->by_file = file;
    t->buckets = buckets;
    return 0;
}

/* Longer chains are as good when there is no memory. */
static void grow(struct tree *t) {
    struct node **old_id = t->by_id, **old_file = t->by_file;
    size_t old = t->buckets;

    if (t->nodes <= old || make_tables(t, old * 4))
        return;
    for (size_t k = 0; k < old; k++)
        for (struct node *n = old_id[k], *next; n; n = next) {
            next = n->next_id;
            put_in(t, n);
        }
    free(old_id);
    free(old_file);
}

static struct node *find_file(struct tree *t, const struct statx *s) {
    struct node *n = t->by_file[file_bucket(t, s->stx_ino, s->stx_dev_minor)];

    for (; n; n = n->next_file)
        if (n->ino == s->stx_ino && n->major == s->stx_dev_major &&
            n->minor == s->stx_dev_minor)
            return n;
    return NULL;
}

struct node *tree_find(struct tree *t, uint64_t id) {
    struct node *n = t->by_id[id_bucket(t, id)];

    while (n && n->id != id)
        n = n->next_id;
    return n;
}

/* --- nodes --- */

/* File systems that tell of the kernel and its processes, and let them be written to. */
static bool is_window(int fd) {
    static const uint32_t windows[] = {
        PROC_SUPER_MAGIC,
        SYSFS_MAGIC,
        DEVPTS_SUPER_MAGIC,
        DEBUGFS_MAGIC,
        TRACEFS_MAGIC,
        SECURITYFS_MAGIC,
        CGROUP_SUPER_MAGIC,
        CGROUP2_SUPER_MAGIC,
        BPF_FS_MAGIC,
        EFIVARFS_MAGIC,
        PSTOREFS_MAGIC,
        SELINUX_MAGIC,
        BINFMTFS_MAGIC,
        NSFS_MAGIC,
        0x62656570 /* configfs */,
        0x65735543 /* fusectl */,
        0x19800202 /* mqueue */,
    };
    struct statfs s;

    if (fstatfs(fd, &s))
        return true;
    for (size_t k = 0; k < ARRAY_SIZE(windows); k++)
        if ((uint32_t)s.f_type == windows[k])
            return true;
    return false;
}

static struct node *new_node(struct tree *t, const struct statx *s, int fd) {
    struct node *n = t->nodes < NODES_MAX ? calloc(1, sizeof(*n)) : NULL;

    if (!n)
        return NULL;
    n->id = t->next_id++;
    n->ino = s->stx_ino;
    n->major = s->stx_dev_major;
    n->minor = s->stx_dev_minor;
    n->born = s->stx_btime;
    n->type = s->stx_mode & S_IFMT;
    n->turn = t->turn;
    n->known = true;
    adopt_fd(t, n, fd);
    t->nodes++;
    put_in(t, n);
    grow(t);
    return n;
}

static void free_node(struct tree *t, struct node *n) {
    take_out(t, n);
    close_fd(t, n);
    free(n->name);
    free(n);
    t->nodes--;
}

/* It was found in DIR by NAME. */
static int set_place(struct tree *t, struct node *n, struct node *dir, const char *name) {
    struct node *old = n->dir;
    char *copy;

    if (n == t->root || (n->dir == dir && !strcmp(n->name, name)))
        return 0;
    /* The host may have moved a directory into one that was found in it. */
    for (struct node *up = dir; up; up = up->dir)
        if (up == n)
            return -ESTALE;
    copy = strdup(name);
    if (!copy)
        return -ENOMEM;
    free(n->name);
    n->name = copy;
    n->dir = dir;
    node_hold(dir);
    if (old)
        node_release(t, old, 1);
    return 0;
}

/* The node of what FD, which is taken, and S say; held once more. */
static int node_of(struct tree *t, struct node *dir, const char *name, int fd,
                   const struct statx *s, struct node **out) {
    struct node *n = find_file(t, s);
    int rc;

    if (n && !same_file(n, s)) {
        make_unknown(t, n); /* it is no more, and another file has its number */
        n = NULL;
    }
    if (!n) {
        n = new_node(t, s, fd);
        if (!n) {
            close(fd);
            return -ENOMEM;
        }
        n->shut = dir->shut ||
                  ((n->major != dir->major || n->minor != dir->minor) && is_window(fd));
    } else if (n->fd < 0) {
        adopt_fd(t, n, fd);
    } else {
        close(fd);
    }
    touch(t, n);
    node_hold(n);
    rc = set_place(t, n, dir, name);
    if (rc)
        node_release(t, n, 1);
    else
        *out = n;
    return rc;
}

static bool good_name(const char *name) {
    return *name && strcmp(name, ".") && strcmp(name, "..") && !strchr(name, '/');
}

int tree_lookup(struct tree *t, struct node *dir, const char *name, struct node **out) {
    struct statx s;
    int at, fd, rc;

    if (!good_name(name))
        return -EINVAL;
    if (dir->type != S_IFDIR)
        return -ENOTDIR;
    if (dir->shut)
        return -ENOENT;
    at = node_fd(t, dir);
    if (at < 0)
        return at;
    rc = make_room(t);
    if (rc)
        return rc;
    fd = look(at, name);
    if (fd < 0)
        return fd;
    rc = describe(fd, &s);
    if (rc) {
        close(fd);
        return rc;
    }
    return node_of(t, dir, name, fd, &s, out);
}

void node_hold(struct node *n) {
    n->held++;
}

/* The directories above may go with it. */
void node_release(struct tree *t, struct node *n, uint64_t times) {
    while (n && n != t->root) {
        struct node *dir = n->dir;

        n->held -= times < n->held ? times : n->held;
        if (n->held)
            return;
        free_node(t, n);
        n = dir;
        times = 1;
    }
}

void node_look(struct node *n) {
    n->looked++;
    n->held++;
}

void node_forget(struct tree *t, struct node *n, uint64_t times) {
    times = times < n->looked ? times : n->looked;
    if (!times)
        return;
    n->looked -= times;
    node_release(t, n, times);
}

/* Those above may go with one: the chain is looked at anew. */
static bool forget_one(struct tree *t, struct node *n) {
    while (n && !n->looked)
        n = n->next_id;
    if (n)
        node_forget(t, n, n->looked);
    return n;
}

void tree_forget(struct tree *t) {
    for (size_t k = 0; k < t->buckets; k++)
        while (forget_one(t, t->by_id[k]))
            ;
}

uint64_t node_id(const struct node *n) {
    return n->id;
}

mode_t node_type(const struct node *n) {
    return n->type;
}

struct node *node_place(const struct node *n, const char **name) {
    *name = n->name;
    return n->dir;
}

bool node_shut(const struct node *n) {
    return n->shut;
}

/* The root's file system has the numbers that it has; of another the place in the list is
 * above them. What finds no place shares the last one's. */
uint64_t tree_number(struct tree *t, uint32_t major, uint32_t minor, uint64_t ino) {
    unsigned n = 0;

    while (n < t->devices && (t->device[n].major != major || t->device[n].minor != minor))
        n++;
    if (n == t->devices && n < DEVICES)
        t->device[t->devices++] = (struct device){major, minor};
    return ino ^ (uint64_t)(n < DEVICES ? n : DEVICES - 1) << 56;
}

uint64_t node_number(struct tree *t, const struct node *n) {
    return tree_number(t, n->major, n->minor, n->ino);
}

/* --- the tree --- */

int tree_new(int root, bool readonly, unsigned fds, struct tree **out) {
    struct tree *t = calloc(1, sizeof(*t));
    struct statx s;
    int rc = t ? describe(root, &s) : -ENOMEM;

    if (!rc)
        rc = make_tables(t, BUCKETS_FIRST);
    if (rc) {
        free(t);
        return rc;
    }
    t->readonly = readonly;
    t->fds_max = fds;
    t->next_id = NODE_ROOT;
    t->open = (struct list){&t->open, &t->open};
    t->root = new_node(t, &s, root);
    if (!t->root) {
        free(t->by_id);
        free(t->by_file);
        free(t);
        return -ENOMEM;
    }
    t->root->held = 1;
    t->root->shut = is_window(root);
    tree_number(t, s.stx_dev_major, s.stx_dev_minor, 0);
    *out = t;
    return 0;
}

void tree_free(struct tree *t) {
    if (!t)
        return;
    for (size_t k = 0; k < t->buckets; k++)
        while (t->by_id[k])
            free_node(t, t->by_id[k]);
    free(t->by_id);
    free(t->by_file);
    free(t);
}

bool tree_readonly(const struct tree *t) {
    return t->readonly;
}

void tree_turn(struct tree *t) {
    t->turn++;
}

struct node *tree_root(struct tree *t) {
    return t->root;
}
