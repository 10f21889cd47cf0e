/*
 * Within block/nbd/: what a disk of a server is made of.
 *
 *     nbd.c          the disk: requests, and what is done when the server has gone
 *     line.c         one connection with the requests that are on it; libnbd is known
 * here journal.c      writes that the server has acknowledged, and not made durable
 *     connector.c    a process that connects again, which the jail lets nobody do here
 */
#ifndef BLOCK_NBD_NBD_INT_H
#define BLOCK_NBD_NBD_INT_H

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>

#include "base/jail.h"
#include "block/block_int.h"

enum nbd_way { NBD_READ, NBD_WRITE, NBD_TRIM, NBD_ZERO, NBD_ZERO_KEEP, NBD_FLUSH };

struct nbd_command {
    enum nbd_way way;
    void *buf; /* of READ and WRITE */
    uint64_t offset;
    size_t len;
};

/* How long something is waited for: until END, of os_monotonic_ns(), or as long as *STOP
 * is AS_IT_IS. */
struct nbd_patience {
    uint64_t end;
    const unsigned *stop;
    unsigned as_it_is;
};

/* --- line.c --- */

/* A connection. Any number of threads may have commands on it; one of them, of its own
 * accord, waits for the server and the others for that one. */
struct nbd_line {
    struct nbd_handle *handle; /* libnbd's; NULL: there is none */
    pthread_mutex_t lock;      /* of all below, and of calls into libnbd */
    pthread_cond_t moved;      /* something was received, or nobody waits any more */
    bool waiting;              /* a thread is in poll(2) */
    int wake;                  /* an eventfd that brings it back, to look anew */
};

/* What a server says of its disk. */
struct nbd_export {
    uint64_t size; /* bytes, whole sectors */
    uint64_t most; /* in a request */
    bool flush, trim, zero, readonly, many;
    bool small; /* takes requests of a sector */
};

/* Loads libnbd; 0, or -errno with a sentence in WHY. */
int nbd_library(char *why, size_t why_size);
/* An unconnected line: 0 or -errno. */
int nbd_line_init(struct nbd_line *l);
/* Leaves the server, without waiting for it, and forgets the line. */
void nbd_line_done(struct nbd_line *l);
/* Connects as URI says; 0 or -errno, and why in WHY. */
int nbd_line_connect(struct nbd_line *l, const char *uri, char *why, size_t why_size);
/* Takes FD, a socket that is connected, in place of what was there, and asks for the
 * disk of that NAME. 0 or -errno. */
int nbd_line_attach(struct nbd_line *l, int fd, const char *name,
                    const struct nbd_patience *p);
/* The export's name, which is the caller's to free; NULL: out of memory. */
char *nbd_line_name(struct nbd_line *l);
/* The address of who is there; its length, or -errno. */
int nbd_line_peer(struct nbd_line *l, struct sockaddr_storage *out);
int nbd_line_ask(struct nbd_line *l, struct nbd_export *out);

/* Does C, which is not longer than the server takes; by END, if it is not 0. 0, -errno
 * (-ETIMEDOUT: it may be done later, and its buffer be used until the line is done), or
 * NBD_LOST: the connection has ended, and the server has done C or not. */
#define NBD_LOST 1
int nbd_line_do(struct nbd_line *l, const struct nbd_command *c, uint64_t end);
/* Ends the connection; what is on it is lost. From any thread. */
void nbd_line_cut(struct nbd_line *l);

/* --- patience: 0; -ETIMEDOUT or -ECANCELED: it is over --- */

#define NBD_GLANCE_MS 100 /* how often *STOP is looked at */

static inline int nbd_patience_over(const struct nbd_patience *p, uint64_t now) {
    if (__atomic_load_n(p->stop, __ATOMIC_RELAXED) != p->as_it_is)
        return -ECANCELED;
    return now >= p->end ? -ETIMEDOUT : 0;
}

/* --- journal.c --- */

struct nbd_entry {
    struct nbd_entry *next;
    uint64_t number;
    struct nbd_command c; /* its buffer is the entry's own */
};

struct nbd_journal {
    struct nbd_entry *first, **end;
    uint64_t number; /* of the last one */
    uint64_t bytes;
};

void nbd_journal_init(struct nbd_journal *j);
/* A copy of C, which may be none that changes anything. False: out of memory. */
struct nbd_entry *nbd_journal_entry(const struct nbd_command *c);
void nbd_journal_add(struct nbd_journal *j, struct nbd_entry *e);
/* Forgets all up to the one of that NUMBER. */
void nbd_journal_forget(struct nbd_journal *j, uint64_t number);

/* --- connector.c --- */

struct nbd_connector {
    int fd; /* -1: there is none */
    uint32_t token;
};

/* Forks the process, for connections to TO and nowhere else. 0 or -errno. */
int nbd_connector_open(struct nbd_connector *c, const struct sockaddr_storage *to,
                       socklen_t length, enum jail_want jail);
void nbd_connector_close(struct nbd_connector *c);
/* A new connection: a descriptor or -errno. */
int nbd_connector_dial(struct nbd_connector *c, const struct nbd_patience *p);

#endif
