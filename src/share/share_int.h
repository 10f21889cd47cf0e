/*
 * What is inside the server's process: a tree of files (tree.c, files.c), and protocols
 * that the guest reaches it by (p9*.c, fuse*.c).
 *
 * The rules, whatever the guest sends:
 *
 * - A file is found one name at a time, from a directory that is open, without following
 *   a symbolic link: those are the guest's to follow. A name is not empty, not "." or
 *   "..", and has no slash. So nothing above the share's directory has a name.
 * - What was found is held by an O_PATH descriptor, which says what it is. Opening means
 *   opening that descriptor anew, by /proc/self/fd, after a look at what it is: regular
 *   files and directories are opened, FIFOs, sockets and devices never are.
 * - File systems that are a window into the kernel (/proc, /sys and others) are shown as
 *   directories in which nothing is: the caller's processes could be written to through
 *   them.
 *
 * The messages are in memory that the machine's process can change at any time: each
 * field is read once, names are copied before they are looked at.
 */
#ifndef SHARE_INT_H
#define SHARE_INT_H

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>

#include "share/share.h"

/* --- the tree --- */

struct tree;
struct node;

#define NAME_SIZE 256u
#define NODE_ROOT 1u

/* Who a new file is for; what the server may not do is left as it is. */
struct owner {
    uint32_t uid, gid;
};

/* ROOT, a directory, is the tree's from now on. At most FDS files are open for nodes. */
int tree_new(int root, bool readonly, unsigned fds, struct tree **out);
void tree_free(struct tree *t);
bool tree_readonly(const struct tree *t);
/* The next request begins: what the one before has used may be closed. */
void tree_turn(struct tree *t);

struct node *tree_root(struct tree *t);
/* NULL: there is none of that number. */
struct node *tree_find(struct tree *t, uint64_t id);
/* The file of that name, held once more. */
int tree_lookup(struct tree *t, struct node *dir, const char *name, struct node **out);
void node_hold(struct node *n);
void node_release(struct tree *t, struct node *n, uint64_t times);
/* The same for what the guest holds by a number: it can forget no more than it has been
 * told. tree_forget(): it has begun anew. */
void node_look(struct node *n);
void node_forget(struct tree *t, struct node *n, uint64_t times);
void tree_forget(struct tree *t);
uint64_t node_id(const struct node *n);
mode_t node_type(const struct node *n); /* S_IFMT */
/* An O_PATH descriptor, good for this request; or -errno. */
int node_fd(struct tree *t, struct node *n);
/* Where it was found last; NULL: the root. */
struct node *node_place(const struct node *n, const char **name);
bool node_shut(const struct node *n); /* nothing is in it */
/* The number that the guest knows a file by: of several file systems, one space. */
uint64_t tree_number(struct tree *t, uint32_t major, uint32_t minor, uint64_t ino);
uint64_t node_number(struct tree *t, const struct node *n);

/* --- what can be done with files (files.c): 0 or a number, or -errno --- */

int files_stat(struct tree *t, struct node *n, struct statx *out);
int files_statfs(struct tree *t, struct node *n, struct statfs *out);
/* A descriptor; of FLAGS the server decides which are good. */
int files_open(struct tree *t, struct node *n, int flags);
int files_create(struct tree *t, struct node *dir, const char *name, int flags,
                 mode_t mode, const struct owner *owner, struct node **out);
int files_mkdir(struct tree *t, struct node *dir, const char *name, mode_t mode,
                const struct owner *owner);
int files_mknod(struct tree *t, struct node *dir, const char *name, mode_t mode,
                const struct owner *owner);
int files_symlink(struct tree *t, struct node *dir, const char *name, const char *to,
                  const struct owner *owner);
int files_link(struct tree *t, struct node *n, struct node *dir, const char *name);
int files_unlink(struct tree *t, struct node *dir, const char *name, bool directory);
int files_rename(struct tree *t, struct node *from, const char *old, struct node *to,
                 const char *new, unsigned flags);
int files_readlink(struct tree *t, struct node *n, char *buf, size_t size);

/* What is to be changed of a file. */
struct change {
    bool mode, owner, size, times;
    mode_t to_mode;
    uint32_t to_uid, to_gid; /* ~0: as it is */
    uint64_t to_size;
    struct timespec to_times[2]; /* accessed, modified; as utimensat(2) takes them */
};
/* FD is open for writing, or -1. */
int files_change(struct tree *t, struct node *n, int fd, const struct change *c);

/* Lengths; with SIZE 0 what there would be. */
long files_getxattr(struct tree *t, struct node *n, const char *name, void *buf,
                    size_t size);
long files_listxattr(struct tree *t, struct node *n, void *buf, size_t size);
int files_setxattr(struct tree *t, struct node *n, const char *name, const void *value,
                   size_t size, int flags);
int files_removexattr(struct tree *t, struct node *n, const char *name);

/* An entry of a directory. False: there is no room for it. */
typedef bool entry_fn(void *arg, uint64_t number, uint64_t next, unsigned type,
                      const char *name);
/* Those from AT on (0, or a `next`), until one has no room. */
int files_entries(struct tree *t, struct node *n, int fd, uint64_t at, entry_fn *fn,
                  void *arg);

/* --- locks (locks.c): of files, by owners that the guest names --- */

struct locks;
int locks_new(struct locks **out);
void locks_free(struct locks *l);
/* -EAGAIN: somebody else has it. TYPE, and the range, as fcntl(2) takes them. */
int locks_set(struct locks *l, struct tree *t, struct node *n, uint64_t owner,
              const struct flock *range);
/* What is in the way of RANGE, in RANGE. */
int locks_get(struct locks *l, struct tree *t, struct node *n, uint64_t owner,
              struct flock *range);
void locks_forget(struct locks *l); /* all of them */

/* --- protocols --- */

struct protocol {
    /* 0 or -errno. The tree stays the caller's; VALID is share_config's. */
    int (*create)(struct tree *t, unsigned valid, void **out);
    void (*destroy)(void *state);
    /* The guest has begun anew. */
    void (*reset)(void *state);
    /* Serves a message; the answer's length, at most ROOM; 0: there is none. */
    uint32_t (*serve)(void *state, const uint8_t *in, uint32_t len, uint8_t *out,
                      uint32_t room);
};
extern const struct protocol p9_protocol;
extern const struct protocol fuse_protocol;

/* --- the process (server.c) --- */

/* A place for a message and its answer. */
struct slot {
    uint32_t len, room, answer;
    bool reset; /* no message: the guest has begun anew */
};

/* Slots on their way; as many as there are at most. */
struct ring {
    uint32_t put; /* how many ever; atomic */
    uint32_t slot[SHARE_SLOTS];
};

struct arena {
    struct ring todo, done;
    uint32_t asleep; /* the server waits for a byte; atomic */
    uint32_t told;   /* a byte is on its way to us; atomic */
    struct slot slot[SHARE_SLOTS];
    uint8_t message[SHARE_SLOTS][SHARE_MESSAGE];
    uint8_t answer[SHARE_SLOTS][SHARE_MESSAGE];
};

/* What the process says first. */
struct word {
    int rc;    /* 0 or -errno */
    bool jail; /* it was the jail's fault */
};

/* The forked process: it does not return. */
_Noreturn void server_be(const struct share_config *cfg, struct arena *a, int fd,
                         int root);
/* All that waits in the ring is served; for the process, and for tests. */
void server_serve(const struct protocol *p, void *state, struct arena *a, uint32_t *took);

#endif
