/* Handles: what the guest has opened; see fuse_int.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "share/fuse_int.h"

/* More of them, all free. */
static bool grow(struct fuse *f) {
    uint32_t count = f->handles ? f->handles * 2 : 64;
    struct handle *more =
        count <= FUSE_HANDLES ? realloc(f->handle, count * sizeof(*more)) : NULL;

    if (!more)
        return false;
    f->handle = more;
    for (uint32_t n = f->handles; n < count; n++) {
        more[n] = (struct handle){.fd = -1, .next_free = f->free};
        f->free = n + 1;
    }
    f->handles = count;
    return true;
}

int fuse_handle_new(struct fuse *f, struct node *n, int fd, bool write,
                    uint64_t *number) {
    struct handle *h;

    if (!f->free && !grow(f)) {
        close(fd);
        return -EMFILE;
    }
    *number = f->free - 1;
    h = &f->handle[*number];
    f->free = h->next_free;
    *h = (struct handle){.fd = fd, .node = n, .write = write};
    node_hold(n);
    return 0;
}

struct handle *fuse_handle(struct fuse *f, uint64_t number) {
    return number < f->handles && f->handle[number].fd >= 0 ? &f->handle[number] : NULL;
}

void fuse_handle_end(struct fuse *f, struct handle *h) {
    close(h->fd);
    node_release(f->tree, h->node, 1);
    *h = (struct handle){.fd = -1, .next_free = f->free};
    f->free = (uint32_t)(h - f->handle) + 1;
}

/* --- files that are read without having been opened --- */

static void forget_recent(struct fuse *f, struct recent *r) {
    if (!r->node)
        return;
    close(r->fd);
    node_release(f->tree, r->node, 1);
    r->node = NULL;
}

static int open_recent(struct fuse *f, struct node *n) {
    struct recent *r = &f->recent[f->next_recent++ % FUSE_RECENT];
    int fd = files_open(f->tree, n, O_RDONLY);

    if (fd < 0)
        return fd;
    forget_recent(f, r);
    *r = (struct recent){.node = n, .fd = fd};
    node_hold(n);
    return fd;
}

int fuse_reading(struct fuse *f, struct node *n, uint64_t fh) {
    struct handle *h;

    if (!f->unopened) {
        h = fuse_handle(f, fh);
        return h ? h->fd : -EBADF;
    }
    for (unsigned k = 0; k < FUSE_RECENT; k++)
        if (f->recent[k].node == n)
            return f->recent[k].fd;
    return open_recent(f, n);
}

void fuse_handles_end(struct fuse *f) {
    for (unsigned n = 0; n < FUSE_RECENT; n++)
        forget_recent(f, &f->recent[n]);
    for (uint32_t n = 0; n < f->handles; n++)
        if (f->handle[n].fd >= 0)
            fuse_handle_end(f, &f->handle[n]);
}
