/* Handles: what the guest has opened; see fuse_int.h. */
#include <errno.h>
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

void fuse_handles_end(struct fuse *f) {
    for (uint32_t n = 0; n < f->handles; n++)
        if (f->handle[n].fd >= 0)
            fuse_handle_end(f, &f->handle[n]);
}
