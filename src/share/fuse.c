/* FUSE: requests and their answers, and the session; see fuse_int.h. */
#include <errno.h>
#include <stdlib.h>

#include "share/fuse_int.h"

#define MINOR_MIN 31u /* of the interface: what virtiofs has had from its beginning */

/* "fuse.h": what we do, of what there is to be chosen. */
static const uint32_t flags_we_know =
    FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ATOMIC_O_TRUNC | FUSE_DO_READDIRPLUS |
    FUSE_READDIRPLUS_AUTO | FUSE_AUTO_INVAL_DATA | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES |
    FUSE_NO_OPEN_SUPPORT | FUSE_CACHE_SYMLINKS;

static void forget_all(struct fuse *f) {
    fuse_handles_end(f);
    tree_forget(f->tree);
}

/* What was open is closed. */
static int init(struct fuse *f, struct request *r) {
    struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION,
                                .max_background = SHARE_SLOTS,
                                .congestion_threshold = SHARE_SLOTS * 3 / 4,
                                .max_write = FUSE_WRITE_MAX,
                                .time_gran = 1,
                                .max_pages = FUSE_WRITE_MAX / 4096};
    uint32_t major = wire_get32(&r->in), minor = wire_get32(&r->in);

    out.max_readahead = wire_get32(&r->in);
    out.flags = wire_get32(&r->in) & flags_we_know;
    out.minor = minor < FUSE_KERNEL_MINOR_VERSION ? minor : FUSE_KERNEL_MINOR_VERSION;
    if (r->in.bad || major < FUSE_KERNEL_VERSION ||
        (major == FUSE_KERNEL_VERSION && minor < MINOR_MIN))
        return -EPROTO;
    if (major > FUSE_KERNEL_VERSION) /* it asks again */
        out.minor = FUSE_KERNEL_MINOR_VERSION;
    forget_all(f);
    f->unopened = f->steady && out.flags & FUSE_NO_OPEN_SUPPORT;
    FUSE_PUT(r, out);
    return 0;
}

static int destroy_session(struct fuse *f, struct request *r) {
    forget_all(f);
    return 0;
}

/* FUSE_FLUSH is not among them, so that the guest tells of it once: its locks are its
 * own, and what it has written is. */
static fuse_fn *const table[] = {
    [FUSE_LOOKUP] = fuse_lookup,
    [FUSE_GETATTR] = fuse_getattr,
    [FUSE_SETATTR] = fuse_setattr,
    [FUSE_READLINK] = fuse_readlink,
    [FUSE_SYMLINK] = fuse_symlink,
    [FUSE_MKNOD] = fuse_mknod,
    [FUSE_MKDIR] = fuse_mkdir,
    [FUSE_UNLINK] = fuse_unlink,
    [FUSE_RMDIR] = fuse_rmdir,
    [FUSE_RENAME] = fuse_rename,
    [FUSE_LINK] = fuse_link,
    [FUSE_OPEN] = fuse_open,
    [FUSE_READ] = fuse_read,
    [FUSE_WRITE] = fuse_write,
    [FUSE_STATFS] = fuse_statfs,
    [FUSE_RELEASE] = fuse_release,
    [FUSE_FSYNC] = fuse_fsync,
    [FUSE_SETXATTR] = fuse_setxattr,
    [FUSE_GETXATTR] = fuse_getxattr,
    [FUSE_LISTXATTR] = fuse_listxattr,
    [FUSE_REMOVEXATTR] = fuse_removexattr,
    [FUSE_INIT] = init,
    [FUSE_OPENDIR] = fuse_opendir,
    [FUSE_READDIR] = fuse_readdir,
    [FUSE_RELEASEDIR] = fuse_release,
    [FUSE_FSYNCDIR] = fuse_fsync,
    [FUSE_CREATE] = fuse_create,
    [FUSE_DESTROY] = destroy_session,
    [FUSE_FALLOCATE] = fuse_fallocate,
    [FUSE_READDIRPLUS] = fuse_readdirplus,
    [FUSE_RENAME2] = fuse_rename2,
    [FUSE_LSEEK] = fuse_lseek,
};

/* --- what has no answer --- */

static void forget(struct fuse *f, uint64_t id, uint64_t times) {
    struct node *n = tree_find(f->tree, id);

    if (n)
        node_forget(f->tree, n, times);
}

static bool is_silent(struct fuse *f, struct request *r) {
    uint32_t count;

    switch (r->h.opcode) {
    case FUSE_FORGET:
        forget(f, r->h.nodeid, wire_get64(&r->in));
        return true;
    case FUSE_BATCH_FORGET:
        count = wire_get32(&r->in);
        wire_get32(&r->in);
        while (count-- && !r->in.bad) {
            uint64_t id = wire_get64(&r->in);

            forget(f, id, wire_get64(&r->in));
        }
        return true;
    case FUSE_INTERRUPT: /* it has been answered, or is next */
        return true;
    default:
        return false;
    }
}

/* --- requests --- */

static uint32_t serve(void *state, const uint8_t *bytes, uint32_t len, uint8_t *answer,
                      uint32_t room) {
    struct fuse *f = state;
    struct request r = {.in = {.at = bytes, .left = len}};
    struct fuse_out_header h;
    int rc = -ENOSYS;

    FUSE_TAKE(&r, r.h);
    if (r.in.bad || is_silent(f, &r) || room < sizeof(h))
        return 0;
    r.out = (struct wire_out){.at = answer + sizeof(h), .left = room - sizeof(h)};
    r.node = tree_find(f->tree, r.h.opcode == FUSE_INIT || r.h.opcode == FUSE_DESTROY
                                    ? NODE_ROOT
                                    : r.h.nodeid);
    if (!r.node) {
        rc = -ESTALE;
    } else if (r.h.opcode < ARRAY_SIZE(table) && table[r.h.opcode]) {
        node_hold(r.node); /* what is done may be the last that held it */
        rc = table[r.h.opcode](f, &r);
        node_release(f->tree, r.node, 1);
    }
    if (!rc && r.out.full)
        rc = -EMSGSIZE;
    h = (struct fuse_out_header){.error = rc, .unique = r.h.unique};
    h.len = rc ? (uint32_t)sizeof(h) : (uint32_t)(r.out.at - answer);
    memcpy(answer, &h, sizeof(h));
    return h.len;
}

/* --- the session --- */

static int create(struct tree *t, unsigned valid, void **out) {
    struct fuse *f = calloc(1, sizeof(*f));

    if (!f)
        return -ENOMEM;
    f->tree = t;
    f->valid = valid ? valid : FUSE_VALID_SECONDS;
    f->steady = valid && tree_readonly(t);
    *out = f;
    return 0;
}

static void reset(void *state) {
    forget_all(state);
}

static void destroy(void *state) {
    struct fuse *f = state;

    forget_all(f);
    free(f->handle);
    free(f);
}

const struct protocol fuse_protocol = {
    .create = create, .destroy = destroy, .reset = reset, .serve = serve};
