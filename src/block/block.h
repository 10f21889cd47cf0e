/*
 * Disks: what a disk's image is, and reading and writing it.
 *
 * A struct block is an image that is open: a raw file or block device, a qcow2 image with
 * all that it stands on, an overlay, a server of the network block device. It knows no
 * device and no board. A device hands it requests (block_submit()) that point at host
 * memory, as many at once as it likes, and is called back when each is done.
 *
 * Threads: a pool of workers, made before the jail, executes requests in parallel, in no
 * order. What overlaps is not ordered here: who wants an order waits for the first to be
 * done. done() is called on a worker's thread or the loop's, one at a time, between the
 * host's enter() and leave(), by which machine/ takes the board's lock. block_submit(),
 * block_cancel() and block_drain() are for any thread that holds the board's lock; they
 * use libc, so that the guest's vector state must be parked (a bus range that is not
 * `general`).
 *
 * Durability: a request that is done has been given to the host, no more. A flush that is
 * done without error says that everything that was done before it was submitted survives
 * the host's power going away. Who wants a write to be durable flushes after it.
 *
 * Guest memory: workers read and write at `iov` at any time between block_submit() and
 * done(); after a read the device tells mem/ what has been written (a cached translation
 * of such a page is out of date from then on).
 *
 * Counted runs: with `host.due` there are no workers. block_submit() executes the request
 * there and then, and the completion is kept until block_pool_deliver() at its virtual
 * time, so that runs repeat.
 */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include "base/jail.h"
#include "base/rate.h"
#include "base/types.h"

#define BLOCK_SECTOR 512u      /* offsets and lengths are multiples of this */
#define BLOCK_SECTOR_MAX 4096u /* what block_sector() can be besides */
#define BLOCK_ID_MAX 20u       /* what virtio-blk and ATA have room for */
#define BLOCK_WORKERS 4u

struct block;
struct block_pool;
struct image;
struct os_loop;

/* --- opening, before the jail --- */

enum block_format {
    BLOCK_BY_NAME, /* qcow2 if the file is so named, else raw: never by what is in it */
    BLOCK_RAW,
    BLOCK_QCOW2,
};

struct block_spec {
    const char *path; /* a file, a block device, nbd://..., nbd+unix://..., fat:DIR */
    enum block_format format;
    bool readonly;
    bool backing_allowed; /* backing files need not lie beside the image */
    const char *overlay;  /* NULL: none; "temp": gone at the end; or a qcow2 image that
                             takes the writes, made if it is not there */
    unsigned sector;      /* bytes of the smallest piece that a guest may read or write,
                             BLOCK_SECTOR or BLOCK_SECTOR_MAX; 0: as the block device has
                             it, and BLOCK_SECTOR of all else */
    unsigned reconnect;   /* seconds that requests wait for a server that has gone */
    enum jail_want jail;  /* of the process that connects to it again */
};

/* PATH names a server, not a file. */
bool block_is_server(const char *path);
/* PATH is fat:DIR, a disk that is made of a directory; read only, or with an overlay that
 * is gone at the end. */
bool block_is_directory(const char *path);
/* 0, or -errno with one sentence in WHY. */
int block_open(const struct block_spec *spec, struct block **out, char *why,
               size_t why_size);
/* Writes back what is kept in memory, makes it durable, and closes. Nothing is in flight.
 * 0 or -errno, which has been logged. A server that does not answer for 10 s is left. B
 * may be NULL. */
int block_close(struct block *b);

uint64_t block_size(const struct block *b); /* in bytes, a multiple of block_sector() */
/* The unit that the device should make its guest use. What is asked of block/ itself may
 * be finer: BLOCK_SECTOR. */
unsigned block_sector(const struct block *b);
/* The unit that the host writes without reading first; a power of two, from BLOCK_SECTOR
 * on. */
unsigned block_physical(const struct block *b);
/* What is best discarded at once, and how it should be aligned, in bytes. */
unsigned block_granule(const struct block *b);
bool block_readonly(const struct block *b);
/* A name that stays the same for the same image, at most BLOCK_ID_MAX printable
 * characters. */
const char *block_id(const struct block *b);
const char *block_path(const struct block *b); /* for messages */

/* Some of what is on it, into BUF, before there are requests: 0 or -errno. */
int block_look(struct block *b, uint64_t offset, void *buf, size_t len);

/* Where a process hands over new connections to its server, for the jail: at most
 * BLOCK_SOCKETS_MAX sockets into OUT; how many. A disk that has one can keep workers
 * waiting for a server. */
#define BLOCK_SOCKETS_MAX 1u
unsigned block_sockets(const struct block *b, int *out);

/* --- another image, while there are requests --- */

/* What a file is, as the process has found it that opened it for one which cannot. */
struct block_facts {
    uint64_t size; /* bytes */
    uint64_t id[2];
    unsigned sector, physical;
    bool device, reads_brief, writes_brief;
    bool locked; /* false: somebody has the file who locks it */
};

/* A raw file or block device, opened and locked to be handed over: a descriptor, the
 * caller's, or -errno with one sentence in WHY. In any process. */
int block_hand_over(const char *path, bool readonly, struct block_facts *facts, char *why,
                    size_t why_size);
/* FD, which is taken over, as FACTS say of it, is what B reads and writes from the next
 * request on; those that were submitted have been executed on what was there, which is
 * *OLD now, for block_put_away(), or NULL where it is the same file with another size.
 * Not in a counted run; B has a pool, and the caller the board's lock. 0, or -errno with
 * one sentence, and B is as it was. */
int block_exchange(struct block *b, int fd, const struct block_facts *facts,
                   const char *path, struct image **old, char *why, size_t why_size);
/* Made durable and closed; a failure is logged. OLD may be NULL. */
void block_put_away(struct image *old);

/* --- the workers of all disks of a machine --- */

struct block_host {
    struct os_loop *loop;     /* calls back; NULL in a counted run */
    void (*enter)(void *arg); /* around all that is called back; NULL: there is no lock,
                                 and all is called back on the loop's thread */
    void (*leave)(void *arg);
    /* Counted runs, else NULL: a request has been executed. Returns the virtual time at
     * which it is to be delivered, never before one that was returned earlier. */
    uint64_t (*due)(void *arg);
    void *arg;
};

/* Makes the threads: before the jail. 0 or -errno. */
int block_pool_new(const struct block_host *host, struct block_pool **out);
/* The loop does not turn any more. Waits for what is in flight, calls nobody back, and
 * ends the threads; the blocks are still open, and have no pool. P may be NULL. */
void block_pool_free(struct block_pool *p);
/* Before B's first request; NULL: it has none any more. */
void block_attach(struct block *b, struct block_pool *p);

/* On the loop's thread, while the loop does not turn: calls done() of what has been
 * executed, if nobody is at it. */
void block_pool_turn(struct block_pool *p);
/* Counted runs: calls done() of all that is due by NOW, oldest first. */
void block_pool_deliver(struct block_pool *p, uint64_t now);
/* The virtual time of the next one; UINT64_MAX: there is none. */
uint64_t block_pool_next(const struct block_pool *p);

/* --- requests --- */

enum block_op {
    BLOCK_READ,
    BLOCK_WRITE,
    BLOCK_FLUSH,
    BLOCK_DISCARD, /* what is there afterwards is anything that was there, or zeros */
    BLOCK_ZEROES,
};

/* A piece of host memory; as struct iovec of readv(2). */
struct block_iov {
    void *base;
    size_t len;
};

#define BLOCK_IOV_MAX 1024u

/* Embedded in what the device knows of its request; it and what `iov` points at stay
 * until done() has been called, or block_drain() has returned. */
struct block_request {
    enum block_op op;
    bool unmap;      /* BLOCK_ZEROES: space may be given back to the host */
    uint64_t offset; /* in bytes */
    uint64_t length; /* in bytes; of READ and WRITE the sum of `iov` */
    const struct block_iov *iov;
    unsigned iov_count; /* at most BLOCK_IOV_MAX */
    /* RC is 0 or -errno: -EINVAL not of this shape, or beyond the end; -EROFS; -ENOSPC;
     * -EIO; -ECANCELED. After an error anything of it may have been done. */
    void (*done)(struct block_request *r, int rc);
    /* block/'s own */
    struct block *block;
    struct block_request *next;
    uint64_t due;
    int rc;
    bool quick;
};

/* Reads or writes there and then, if that takes no waiting for the disk: what the host's
 * kernel has in memory, or, as a rule, takes into it. True: R is done, without error, and
 * done() is not called for it. False: nothing is known, and R is still the caller's, who
 * submits it. As block_submit() otherwise, with which it is in no order either; a flush
 * that is submitted later covers what was written. Never in a counted run, nor more than
 * BLOCK_AT_ONCE bytes, which are copied in less time than it takes to wake a thread up,
 * in so many pieces. */
#define BLOCK_AT_ONCE 32768u
#define BLOCK_AT_ONCE_PIECES 64u
bool block_at_once(struct block *b, struct block_request *r);
/* Takes R. done() is never called from in here. */
void block_submit(struct block *b, struct block_request *r);
/* In done(): that of another request of B's is called next. Who tells his guest may do so
 * for all of them. */
bool block_more(const struct block *b);
/* Requests that no worker has begun are done with -ECANCELED, soon; the others as if
 * nothing had been asked. Does not wait. */
void block_cancel(struct block *b);
/* What B may have of the host from now on, which before its first request is all. What is
 * more waits, in the order in which it came; it does not fail, and keeps no other disk
 * waiting. A flush, a discard and zeroes are an operation each, and no bytes. No limit in
 * a counted run. B has a pool. */
enum block_limit { BLOCK_BYTES, BLOCK_OPERATIONS, BLOCK_LIMITS };
void block_limit(struct block *b, enum block_limit which, const struct rate_limit *l);
/* What waits now goes at once; later ones pay for it. */
void block_hurry(struct block *b);
/* Requests that were submitted and whose done() has not been called. */
unsigned block_in_flight(const struct block *b);
/* Waits for those that a worker has begun, drops the others, and calls nobody's done():
 * the caller's requests are its own again. For resets and the end. A server that does not
 * answer for 10 s is left. */
void block_drain(struct block *b);

#endif
