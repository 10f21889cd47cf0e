/* Fids; see p9_int.h. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "share/p9_int.h"

static struct fid **find(struct p9 *p, uint32_t number) {
    struct fid **at = &p->bucket[number % P9_BUCKETS];

    while (*at && (*at)->number != number)
        at = &(*at)->next;
    return at;
}

struct fid *p9_fid(struct p9 *p, uint32_t number) {
    return *find(p, number);
}

int p9_fid_new(struct p9 *p, uint32_t number, uint32_t uid, struct node *node,
               struct fid **out) {
    struct fid **at = find(p, number), *f;

    if (*at)
        return -EBADF;
    f = p->fids < P9_FIDS ? calloc(1, sizeof(*f)) : NULL;
    if (!f)
        return -ENOMEM;
    *f = (struct fid){.number = number, .uid = uid, .node = node, .fd = -1};
    f->next = *at;
    *at = f;
    p->fids++;
    *out = f;
    return 0;
}

/* Written in full, it becomes the file's; of no length it is removed, where that was
 * meant: Linux says so by XATTR_REPLACE. */
static int write_xattr(struct p9 *p, struct fid *f) {
    const int replace = 2; /* XATTR_REPLACE */

    if (!f->value_size && f->value_flags & replace)
        return files_removexattr(p->tree, f->node, f->name);
    return files_setxattr(p->tree, f->node, f->name, f->value, f->value_size,
                          f->value_flags);
}

int p9_fid_close(struct p9 *p, struct fid *f) {
    int rc = f->kind == FID_XATTR_WRITE ? write_xattr(p, f) : 0;

    if (f->fd >= 0)
        close(f->fd);
    if (f->kind != FID_FILE)
        p->xattrs -= f->value_size;
    free(f->value);
    f->fd = -1;
    f->value = NULL;
    f->value_size = 0;
    f->kind = FID_FILE;
    return rc;
}

int p9_fid_end(struct p9 *p, struct fid *f) {
    struct fid **at = find(p, f->number);
    int rc = p9_fid_close(p, f);

    *at = f->next;
    node_release(p->tree, f->node, 1);
    free(f);
    p->fids--;
    return rc;
}

void p9_fid_end_all(struct p9 *p) {
    for (unsigned k = 0; k < P9_BUCKETS; k++)
        while (p->bucket[k]) {
            /* What was not clunked was not written in full. */
            if (p->bucket[k]->kind == FID_XATTR_WRITE)
                p->bucket[k]->kind = FID_XATTR_READ;
            p9_fid_end(p, p->bucket[k]);
        }
}

int p9_take_fid(struct p9 *p, struct wire_in *in, struct fid **out) {
    *out = p9_fid(p, wire_get32(in));
    return in->bad ? -EPROTO : *out && (*out)->kind == FID_FILE ? 0 : -EBADF;
}

int p9_take_open(struct p9 *p, struct wire_in *in, struct fid **out) {
    int rc = p9_take_fid(p, in, out);

    return rc ? rc : (*out)->fd < 0 ? -EBADF : 0;
}
