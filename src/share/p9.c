/* 9P2000.L: messages and their answers, and the session; see p9_int.h. */
#include <errno.h>
#include <stdlib.h>

#include "share/p9_int.h"

#define MSIZE_MIN 4096u
#define NO_UID (~0u)

/* "version": what was open is closed. Nothing else is understood than this one. */
static int version(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    uint32_t msize = wire_get32(in);
    char text[NAME_SIZE];
    const char *ours = "9P2000.L";

    wire_text(in, text, sizeof(text));
    if (in->bad || msize < MSIZE_MIN)
        return -EPROTO;
    p9_fid_end_all(p);
    locks_forget(p->locks);
    p->msize = msize < SHARE_MESSAGE ? msize : SHARE_MESSAGE;
    if (strcmp(text, ours))
        ours = "unknown";
    wire_put32(out, p->msize);
    wire_put_text(out, ours, strlen(ours));
    return 0;
}

static int auth(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    return -ENOENT; /* there is nothing to prove */
}

static int attach(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    uint32_t number = wire_get32(in), uid;
    struct node *root = tree_root(p->tree);
    char text[NAME_SIZE];
    struct statx s;
    struct fid *f;
    int rc;

    wire_get32(in); /* afid */
    wire_text(in, text, sizeof(text));
    wire_text(in, text, sizeof(text));
    uid = wire_get32(in);
    if (in->bad)
        return -EPROTO;
    rc = files_stat(p->tree, root, &s);
    if (!rc)
        rc = p9_fid_new(p, number, uid == NO_UID ? 0 : uid, root, &f);
    if (rc)
        return rc;
    node_hold(root);
    p9_put_qid(p, out, root, &s);
    return 0;
}

/* What is to be given up has been answered: messages are served in their order. */
static int flush(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    return 0;
}

static int clunk(struct p9 *p, struct wire_in *in, struct wire_out *out) {
    struct fid *f = p9_fid(p, wire_get32(in));

    return in->bad ? -EPROTO : f ? p9_fid_end(p, f) : -EBADF;
}

static p9_fn *const table[P9_TYPES] = {
    [P9_STATFS] = p9_statfs,
    [P9_LOPEN] = p9_lopen,
    [P9_LCREATE] = p9_lcreate,
    [P9_SYMLINK] = p9_symlink,
    [P9_MKNOD] = p9_mknod,
    [P9_RENAME] = p9_rename,
    [P9_READLINK] = p9_readlink,
    [P9_GETATTR] = p9_getattr,
    [P9_SETATTR] = p9_setattr,
    [P9_XATTRWALK] = p9_xattrwalk,
    [P9_XATTRCREATE] = p9_xattrcreate,
    [P9_READDIR] = p9_readdir,
    [P9_FSYNC] = p9_fsync,
    [P9_LOCK] = p9_lock,
    [P9_GETLOCK] = p9_getlock,
    [P9_LINK] = p9_link,
    [P9_MKDIR] = p9_mkdir,
    [P9_RENAMEAT] = p9_renameat,
    [P9_UNLINKAT] = p9_unlinkat,
    [P9_VERSION] = version,
    [P9_AUTH] = auth,
    [P9_ATTACH] = attach,
    [P9_FLUSH] = flush,
    [P9_WALK] = p9_walk,
    [P9_READ] = p9_read,
    [P9_WRITE] = p9_write,
    [P9_CLUNK] = clunk,
    [P9_REMOVE] = p9_remove,
};

/* --- messages --- */

static void put_header(uint8_t *to, uint32_t size, uint8_t type, uint16_t tag) {
    struct wire_out out = {.at = to, .left = P9_HEADER};

    wire_put32(&out, size);
    wire_put8(&out, type);
    wire_put16(&out, tag);
}

static uint32_t answer_error(uint8_t *to, uint16_t tag, int rc) {
    struct wire_out out = {.at = to + P9_HEADER, .left = 4};

    put_header(to, P9_HEADER + 4, P9_LERROR + 1, tag);
    wire_put32(&out, (uint32_t)-rc);
    return P9_HEADER + 4;
}

static uint32_t serve(void *state, const uint8_t *bytes, uint32_t len, uint8_t *answer,
                      uint32_t room) {
    struct p9 *p = state;
    struct wire_in in = {.at = bytes, .left = len};
    struct wire_out out;
    uint32_t size = wire_get32(&in);
    uint8_t type = wire_get8(&in);
    uint16_t tag = wire_get16(&in);
    int rc = -EOPNOTSUPP;

    if (room < P9_HEADER + 4)
        return 0;
    if (in.bad || size < P9_HEADER || size > len)
        return answer_error(answer, tag, -EPROTO);
    in.left = size - P9_HEADER;
    room = room < p->msize ? room : p->msize;
    out = (struct wire_out){.at = answer + P9_HEADER, .left = room - P9_HEADER};
    if (type < P9_TYPES && table[type])
        rc = table[type](p, &in, &out);
    if (!rc && out.full)
        rc = -EMSGSIZE;
    if (rc)
        return answer_error(answer, tag, rc);
    size = (uint32_t)(out.at - answer);
    put_header(answer, size, (uint8_t)(type + 1), tag);
    return size;
}

/* --- the session --- */

static int create(struct tree *t, unsigned valid, void **out) {
    struct p9 *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    p->tree = t;
    p->msize = MSIZE_MIN;
    if (locks_new(&p->locks)) {
        free(p);
        return -ENOMEM;
    }
    *out = p;
    return 0;
}

static void reset(void *state) {
    struct p9 *p = state;

    p9_fid_end_all(p);
    locks_forget(p->locks);
    p->msize = MSIZE_MIN;
}

static void destroy(void *state) {
    struct p9 *p = state;

    reset(p);
    locks_free(p->locks);
    free(p);
}

const struct protocol p9_protocol = {
    .create = create, .destroy = destroy, .reset = reset, .serve = serve};
