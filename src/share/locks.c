/*
 * Locks of files that hold on the host too. A lock is a process's of the guest's,
 * whatever file descriptions it has of that file; the host's "open file description
 * locks" (fcntl(2)) belong to a descriptor. So there is a descriptor for each owner of
 * locks of a file, until it has unlocked all of it. It keeps the file's node.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "share/share_int.h"

#define OWNERS 4096u
#define BUCKETS 256u

struct holder {
    struct holder *next;
    struct node *n;
    uint64_t owner;
    int fd;
};

struct locks {
    struct holder *bucket[BUCKETS];
    struct tree *tree;
    unsigned count;
};

int locks_new(struct locks **out) {
    *out = calloc(1, sizeof(**out));
    return *out ? 0 : -ENOMEM;
}

static struct holder **find(struct locks *l, const struct node *n, uint64_t owner) {
    struct holder **at = &l->bucket[(node_id(n) ^ owner) % BUCKETS];

    while (*at && ((*at)->n != n || (*at)->owner != owner))
        at = &(*at)->next;
    return at;
}

static void drop(struct locks *l, struct holder **at) {
    struct holder *h = *at;

    *at = h->next;
    close(h->fd);
    node_release(l->tree, h->n, 1);
    free(h);
    l->count--;
}

/* A lock for writing wants a descriptor for writing. */
static int open_for_locks(struct tree *t, struct node *n) {
    int fd = files_open(t, n, O_RDWR);

    return fd == -EACCES || fd == -EROFS || fd == -EISDIR || fd == -ETXTBSY
               ? files_open(t, n, O_RDONLY)
               : fd;
}

static int add(struct locks *l, struct tree *t, struct node *n, uint64_t owner,
               struct holder **at) {
    struct holder *h = l->count < OWNERS ? calloc(1, sizeof(*h)) : NULL;
    int fd;

    if (!h)
        return -ENOLCK;
    fd = open_for_locks(t, n);
    if (fd < 0) {
        free(h);
        return fd;
    }
    *h = (struct holder){.n = n, .owner = owner, .fd = fd};
    node_hold(n);
    l->tree = t;
    l->count++;
    *at = h;
    return 0;
}

int locks_set(struct locks *l, struct tree *t, struct node *n, uint64_t owner,
              const struct flock *range) {
    struct holder **at = find(l, n, owner);
    struct flock f = *range;
    int rc = 0;

    f.l_pid = 0;
    f.l_whence = SEEK_SET;
    if (!*at) {
        if (f.l_type == F_UNLCK)
            return 0;
        rc = add(l, t, n, owner, at);
        if (rc)
            return rc;
    }
    rc = fcntl((*at)->fd, F_OFD_SETLK, &f) ? -errno : 0;
    /* A file that the server may not write to: the guest's processes exclude each other,
     * as they do anyway. */
    if (rc == -EBADF)
        rc = 0;
    if (f.l_type == F_UNLCK && !f.l_start && !f.l_len)
        drop(l, at);
    return rc == -EACCES ? -EAGAIN : rc;
}

int locks_get(struct locks *l, struct tree *t, struct node *n, uint64_t owner,
              struct flock *range) {
    struct holder **at = find(l, n, owner);
    int fd = *at ? (*at)->fd : open_for_locks(t, n), rc;

    if (fd < 0)
        return fd;
    range->l_pid = 0;
    range->l_whence = SEEK_SET;
    rc = fcntl(fd, F_OFD_GETLK, range) ? -errno : 0;
    if (rc == -EBADF) {
        range->l_type = F_UNLCK;
        rc = 0;
    }
    if (!*at)
        close(fd);
    return rc;
}

void locks_forget(struct locks *l) {
    for (unsigned k = 0; k < BUCKETS; k++)
        while (l->bucket[k])
            drop(l, &l->bucket[k]);
}

void locks_free(struct locks *l) {
    if (!l)
        return;
    locks_forget(l);
    free(l);
}
