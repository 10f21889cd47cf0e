/*
 * Within block/: images, which layers of a disk are made of, and the workers' queue.
 *
 * An image is a run of bytes with functions that do one thing and return when it is done:
 * a file, a qcow2 image over a file, a server. All of its functions but close() may be
 * called by several workers at once. Layers stand on layers: a qcow2 image has one that
 * it is stored in and perhaps one that backs it, which it closes with itself.
 */
#ifndef BLOCK_BLOCK_INT_H
#define BLOCK_BLOCK_INT_H

#include <sys/uio.h>

#include "base/rate.h"
#include "block/block.h"

#define BLOCK_PATIENCE 10u /* seconds, with a server that does not answer */

struct image;

/* OFFSET and LENGTH are in bytes and may be any; 0 or -errno. */
struct image_ops {
    /* What lies beyond the end reads as zero. */
    int (*read)(struct image *i, uint64_t offset, const struct iovec *iov,
                unsigned count);
    /* May go beyond the end of a file, which grows. */
    int (*write)(struct image *i, uint64_t offset, const struct iovec *iov,
                 unsigned count);
    /* The same, if it takes no waiting: for the disk, or for who may be waiting for it.
     * 0, or -EAGAIN: anything of it may have been done, and the other does all of it.
     * NULL: it cannot say. */
    int (*read_now)(struct image *i, uint64_t offset, const struct iovec *iov,
                    unsigned count);
    int (*write_now)(struct image *i, uint64_t offset, const struct iovec *iov,
                     unsigned count);
    int (*flush)(struct image *i);
    int (*discard)(struct image *i, uint64_t offset, uint64_t length);
    int (*zeroes)(struct image *i, uint64_t offset, uint64_t length, bool unmap);
    /* Ends what the image waits for, with errors; may be NULL: it waits for nobody. */
    void (*abandon)(struct image *i);
    /* Its sockets, at most ROOM, into OUT: how many; may be NULL: none. */
    unsigned (*sockets)(const struct image *i, int *out, unsigned room);
    /* 0 or -errno, what could not be written any more; frees the image in any case. */
    int (*close)(struct image *i);
};

struct image {
    const struct image_ops *ops;
    uint64_t size;     /* bytes */
    unsigned sector;   /* block_sector() */
    unsigned physical; /* block_physical() */
    unsigned granule;  /* block_granule() */
    bool readonly;
    bool quick;             /* writes go to the host's memory, as a rule */
    struct image *below[2]; /* what it stands on; NULL: nothing */
    char *path;             /* for messages; the image's, freed by image_done() */
};

/* --- image.c: the same, for one buffer --- */

int image_read(struct image *i, uint64_t offset, void *buf, size_t len);
int image_write(struct image *i, uint64_t offset, const void *buf, size_t len);
/* Zeros by writing them: for those that can do no better. */
int image_write_zeroes(struct image *i, uint64_t offset, uint64_t length);
int image_close(struct image *i); /* I may be NULL */
/* The operations of that name, of the image and all that is below. */
void image_abandon(struct image *i);
unsigned image_sockets(const struct image *i, int *out, unsigned room);
/* Sets what all images have; 0 or -ENOMEM. */
int image_init(struct image *i, const struct image_ops *ops, const char *path);
void image_done(struct image *i);

/* A part of IOV: LEN bytes from byte SKIP on, in OUT, which has room for COUNT. Returns
 * how many pieces. */
unsigned iov_part(const struct iovec *iov, unsigned count, size_t skip, size_t len,
                  struct iovec *out);
size_t iov_length(const struct iovec *iov, unsigned count);
/* Fills LEN bytes from byte SKIP on with zeros, or with what is at FROM; or copies them
 * to TO. */
void iov_zero(const struct iovec *iov, unsigned count, size_t skip, size_t len);
void iov_fill(const struct iovec *iov, unsigned count, size_t skip, const void *from,
              size_t len);
void iov_copy(const struct iovec *iov, unsigned count, size_t skip, void *to, size_t len);

/* --- lock.c --- */

/* Nobody else may write at the file that FD is open for, nor read it if WRITE. Held as
 * long as FD is open. 0; -EBUSY: somebody does. Where the file system has no locks: 0. */
int lock_take(int fd, bool write);

/* --- file.c --- */

struct file_spec {
    const char *path;
    bool readonly;
    bool lock;
    bool create; /* and there must be none */
};

/* A file or a block device as it is. 0, or -errno with a sentence in WHY. */
int file_open(const struct file_spec *spec, struct image **out, char *why,
              size_t why_size);
/* The same of a descriptor, which becomes the image's, also at an error. */
int file_of(int fd, const char *path, bool readonly, struct image **out);
/* The same of what another process has opened and measured (block_hand_over()). */
int file_handed(int fd, const struct block_facts *facts, const char *path, bool readonly,
                struct image **out);
/* As block_hand_over(), whatever PATH is called. */
int file_hand_over(const char *path, bool readonly, struct block_facts *facts, char *why,
                   size_t why_size);
/* 0, or -errno: -ENOTBLK, neither a file nor a block device. */
int file_measure(int fd, struct block_facts *out);
/* The file, which FACTS are of, has another size than it had. Nobody is at it. */
void file_resized(struct image *i, const struct block_facts *facts);
/* -EBUSY, with the sentence for somebody else's lock in WHY. */
int file_in_use(const char *path, bool readonly, char *why, size_t why_size);
/* A file without a name, that is gone when it is closed. 0 or -errno. */
int file_temporary(const char *path, struct image **out);
/* Device and inode, to tell the same file under another name. False: it is no file. */
bool file_identity(const struct image *i, uint64_t id[2]);

/* --- nbd/nbd.c --- */

/* What the server that SPEC names serves. 0, or -errno with a sentence in WHY. */
int nbd_open(const struct block_spec *spec, bool readonly, struct image **out, char *why,
             size_t why_size);

/* --- fat.c --- */

/* A disk with what the directory DIR has now, to be read only. 0, or -errno with a
 * sentence in WHY. */
int fat_open(const char *dir, struct image **out, char *why, size_t why_size);

/* --- open.c --- */

/* The image that SPEC names, with all that it stands on. As block_open(). */
int disk_open(const struct block_spec *spec, struct image **out, char *why,
              size_t why_size);

/* --- pool.c --- */

struct request_list {
    struct block_request *first, **end;
};

struct block {
    struct image *image;
    struct block_pool *pool;
    struct block *next; /* of the pool's */
    char id[BLOCK_ID_MAX + 1];
    unsigned in_flight, running; /* requests; the pool's lock has them */
    bool more;                   /* block_more() */
    unsigned doubt;              /* so many writes are not thought to be quick */
    bool limited;                /* one of RATE is; with the board's lock, too */
    struct rate rate[BLOCK_LIMITS];
    struct request_list waiting; /* until the rates have something for the first */
    unsigned told;               /* errors that have been logged, a bit for each kind */
};

void pool_add(struct block_pool *p, struct block *b);
void pool_remove(struct block_pool *p, struct block *b);
/* Counted runs: nothing is done before its time. */
bool pool_counted(const struct block_pool *p);
/* R is executed by a worker (or now), then delivered. */
void pool_submit(struct block_pool *p, struct block_request *r);
void pool_cancel(struct block_pool *p, struct block *b);
void pool_drain(struct block_pool *p, struct block *b);
void pool_hurry(struct block_pool *p, struct block *b);
void pool_limit(struct block_pool *p, struct block *b, enum block_limit which,
                const struct rate_limit *l);
unsigned pool_in_flight(struct block_pool *p, const struct block *b);
/* Waits until all of B's have been executed, which the board's lock lets be no more. */
void pool_execute_all(struct block_pool *p, struct block *b);

/* --- execute.c --- */

/* Does what R asks for, and logs the first error of each kind: 0 or -errno. */
int request_execute(struct block_request *r);
/* Does it if that takes no waiting. False: it did not, or not to the end. */
bool request_at_once(struct block_request *r);

#endif
