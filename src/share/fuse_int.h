/*
 * FUSE, as virtiofs speaks it ("fuse.h" of Linux's interface; virtio 1.2, "File System
 * Device"): the guest holds files by the numbers of their nodes, and has been told of a
 * node so many times; what it has opened are handles.
 *
 * Locks are the guest's own: its kernel keeps them, for nobody here may wait.
 *
 * A guest that can only read, and believes what it has seen, need not tell that it opens
 * files: then what it reads is found by the file, and there are handles of directories
 * alone (`unopened`).
 */
#ifndef SHARE_FUSE_INT_H
#define SHARE_FUSE_INT_H

#include <linux/fuse.h>

#include "share/share_int.h"
#include "share/wire.h"

#define FUSE_HANDLES 65536u
#define FUSE_WRITE_MAX (512u << 10)
#define FUSE_VALID_SECONDS 1u /* so long names and attributes are believed, usually */
#define FUSE_RECENT 8u

struct handle {
    int fd; /* -1: free */
    struct node *node;
    bool write;
    uint32_t next_free; /* and 1; 0: none */
};

/* A file that was read without having been opened. */
struct recent {
    struct node *node; /* NULL: none */
    int fd;
};

struct fuse {
    struct tree *tree;
    unsigned valid; /* seconds */
    bool steady;    /* opens need not be told of */
    bool unopened;  /* and the guest has agreed */
    struct recent recent[FUSE_RECENT];
    unsigned next_recent;
    struct handle *handle;
    uint32_t handles, free; /* FREE: as next_free */
};

/* A request: its header, copied, and what follows it. */
struct request {
    struct fuse_in_header h;
    struct node *node; /* of h.nodeid */
    struct wire_in in;
    struct wire_out out;
};

/* --- handles (fuse_handle.c) --- */

/* FD is the handle's from now on, or closed; -EMFILE. */
int fuse_handle_new(struct fuse *f, struct node *n, int fd, bool write, uint64_t *number);
struct handle *fuse_handle(struct fuse *f, uint64_t number); /* NULL: there is none */
void fuse_handle_end(struct fuse *f, struct handle *h);
void fuse_handles_end(struct fuse *f);
/* What the guest reads of NODE by handle FH: a descriptor that is not the caller's, or
 * -errno. */
int fuse_reading(struct fuse *f, struct node *n, uint64_t fh);

/* Puts a structure of the interface into the answer, or takes one from the request; what
 * is not there is zeros. */
#define FUSE_PUT(r, value) wire_put(&(r)->out, &(value), sizeof(value))
#define FUSE_TAKE(r, value)                                                              \
    do {                                                                                 \
        const uint8_t *from_ = wire_bytes(&(r)->in, sizeof(value));                      \
        memset(&(value), 0, sizeof(value));                                              \
        if (from_)                                                                       \
            memcpy(&(value), from_, sizeof(value));                                      \
    } while (0)

/* --- what is done for a request: 0 with an answer, or -errno --- */

typedef int fuse_fn(struct fuse *f, struct request *r);

int fuse_attributes(struct fuse *f, struct node *n, struct fuse_attr *out);
/* Tells the guest of the node, which it holds from now on. */
int fuse_entry(struct fuse *f, struct node *n, struct fuse_entry_out *out);

/* fuse_name.c */
fuse_fn fuse_lookup, fuse_readlink, fuse_symlink, fuse_mknod, fuse_mkdir, fuse_unlink,
    fuse_rmdir, fuse_rename, fuse_rename2, fuse_link, fuse_create;
/* fuse_attr.c */
fuse_fn fuse_getattr, fuse_setattr, fuse_statfs, fuse_setxattr, fuse_getxattr,
    fuse_listxattr, fuse_removexattr;
/* fuse_data.c */
fuse_fn fuse_open, fuse_opendir, fuse_read, fuse_write, fuse_release, fuse_fsync,
    fuse_readdir, fuse_readdirplus, fuse_fallocate, fuse_lseek;

#endif
