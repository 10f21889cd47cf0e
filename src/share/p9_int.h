/*
 * 9P2000.L, the protocol that Linux's client speaks ("9P2000.L Protocol" of diod, Linux's
 * net/9p): the guest holds files by numbers that it chooses, fids. A fid is a node, and,
 * once it is opened, a descriptor; or an extended attribute that is read or written.
 */
#ifndef SHARE_P9_INT_H
#define SHARE_P9_INT_H

#include "share/share_int.h"
#include "share/wire.h"

#define P9_HEADER 7u /* size, type, tag */
#define P9_FIDS (256u << 10)
#define P9_BUCKETS 4096u
#define P9_XATTR_MAX 65536u
#define P9_XATTRS_MAX (8u << 20) /* bytes of all that are read and written */

/* Types of messages; an answer's is one more. */
enum {
    P9_LERROR = 6,
    P9_STATFS = 8,
    P9_LOPEN = 12,
    P9_LCREATE = 14,
    P9_SYMLINK = 16,
    P9_MKNOD = 18,
    P9_RENAME = 20,
    P9_READLINK = 22,
    P9_GETATTR = 24,
    P9_SETATTR = 26,
    P9_XATTRWALK = 30,
    P9_XATTRCREATE = 32,
    P9_READDIR = 40,
    P9_FSYNC = 50,
    P9_LOCK = 52,
    P9_GETLOCK = 54,
    P9_LINK = 70,
    P9_MKDIR = 72,
    P9_RENAMEAT = 74,
    P9_UNLINKAT = 76,
    P9_VERSION = 100,
    P9_AUTH = 102,
    P9_ATTACH = 104,
    P9_FLUSH = 108,
    P9_WALK = 110,
    P9_READ = 116,
    P9_WRITE = 118,
    P9_CLUNK = 120,
    P9_REMOVE = 122,
    P9_TYPES = 128,
};

struct fid {
    struct fid *next;
    uint32_t number;
    uint32_t uid; /* whom the guest acts for */
    struct node *node;
    int fd;     /* -1: not opened */
    bool write; /* it may be written to by that */
    /* An extended attribute: no node is opened then. */
    enum { FID_FILE, FID_XATTR_READ, FID_XATTR_WRITE } kind;
    uint8_t *value;
    uint32_t value_size;
    int value_flags;
    char name[NAME_SIZE];
};

struct p9 {
    struct tree *tree;
    struct locks *locks;
    uint32_t msize;
    unsigned fids;
    size_t xattrs; /* bytes */
    struct fid *bucket[P9_BUCKETS];
};

/* --- fids (p9_fid.c) --- */

struct fid *p9_fid(struct p9 *p, uint32_t number); /* NULL: there is none */
/* A new one at NODE, which is held already; -EBADF: there is one of that number. */
int p9_fid_new(struct p9 *p, uint32_t number, uint32_t uid, struct node *node,
               struct fid **out);
/* It is as if it had never been opened; 0 or -errno of an attribute that was written. */
int p9_fid_close(struct p9 *p, struct fid *f);
int p9_fid_end(struct p9 *p, struct fid *f);
void p9_fid_end_all(struct p9 *p);
/* The fid that comes next in the message, of a file. -EBADF */
int p9_take_fid(struct p9 *p, struct wire_in *in, struct fid **out);
/* The same, of one that is opened. */
int p9_take_open(struct p9 *p, struct wire_in *in, struct fid **out);

/* --- what is done for a message: 0 with an answer, or -errno (p9_*.c) --- */

typedef int p9_fn(struct p9 *p, struct wire_in *in, struct wire_out *out);

void p9_put_qid(struct p9 *p, struct wire_out *out, const struct node *n,
                const struct statx *s);

/* names */
p9_fn p9_walk, p9_lcreate, p9_symlink, p9_mknod, p9_mkdir, p9_link, p9_rename,
    p9_renameat, p9_unlinkat, p9_remove, p9_readlink;
/* attributes */
p9_fn p9_statfs, p9_getattr, p9_setattr, p9_xattrwalk, p9_xattrcreate;
/* contents */
p9_fn p9_lopen, p9_read, p9_write, p9_readdir, p9_fsync, p9_lock, p9_getlock;

#endif
