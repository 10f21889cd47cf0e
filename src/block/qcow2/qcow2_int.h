/*
 * A qcow2 image, versions 2 and 3, over another image that holds its file ("The QCOW2
 * format", docs/interop/qcow2.txt of QEMU; sections are cited by their titles).
 *
 * The data structure. The guest's disk is cut into clusters. A table of two levels says
 * where each lies in the file: the L1 table, which is in memory whole, has the L2 tables,
 * whose entries are nothing (the backing file's, or zero), a cluster of the file, "zero",
 * or compressed data. A second table of two levels has the reference count of each
 * cluster of the file: the refcount table, in memory whole, has the refcount blocks. An
 * entry with the bit COPIED says that the count is exactly one: it may be written in
 * place. Others are shared (with snapshots) and are copied when they are written to.
 *
 * L2 tables and refcount blocks are read and written by pages of at most 4 KiB, of which
 * a bounded number is kept (table.c).
 *
 * What is promised. At any moment the power may go, and of all that was written since the
 * last fdatasync any part may be there or not. So that the file then is a good image with
 * all that was flushed, these orders hold, with an fdatasync at each "before":
 *   data and reference counts are there before an L2 entry that needs them,
 *   a refcount block before the refcount table's entry,
 *   an L2 table before the L1 table's entry,
 *   and nothing refers to a cluster any more before its count is lowered, or it is used
 *   for something else.
 * L2 entries, and L1's, are therefore changed in memory, and written by writeback.c when
 * the guest flushes, or when many have gathered. What a cut loses are clusters that are
 * counted and that nobody refers to: leaks, never errors.
 *
 * Locks, taken in this order:
 *   ranges   guest clusters that somebody is at: shared for reading and for writing in
 *            place, exclusive for what changes where they lie. Held over data's input and
 *            output (range.c).
 *   alloc    who changes the tables, and the write-back of them; also held over input and
 *            output of tables, and fdatasync.
 *   lock     all of this structure's memory; held over reading and writing tables, never
 *            over fdatasync. Who changes tables has both.
 */
#ifndef BLOCK_QCOW2_INT_H
#define BLOCK_QCOW2_INT_H

#include <pthread.h>

#include "block/block_int.h"
#include "block/qcow2/qcow2.h"

/* --- "Header" --- */

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_HEADER_V2 72u
#define QCOW2_HEADER_V3 104u
#define QCOW2_BACKING_MAX 1023u
#define QCOW2_EXTENSION_FORMAT 0xe2792acau /* the backing file's format */

/* Byte offsets of what is changed in place. */
#define QCOW2_AT_REFTABLE 48u /* its offset, 8 bytes, and its clusters, 4 */
#define QCOW2_AT_INCOMPATIBLE 72u
#define QCOW2_AT_AUTOCLEAR 88u
#define QCOW2_L1_BYTES_MAX (32u << 20)
#define QCOW2_REFTABLE_BYTES_MAX (8u << 20)

#define QCOW2_INCOMPAT_DIRTY 1u
#define QCOW2_INCOMPAT_CORRUPT 2u
#define QCOW2_INCOMPAT_DATA_FILE 4u
#define QCOW2_INCOMPAT_COMPRESSION 8u
#define QCOW2_INCOMPAT_EXTENDED_L2 16u

struct qcow2_header { /* in the host's byte order */
    uint32_t version;
    uint64_t backing_offset;
    uint32_t backing_len;
    uint32_t cluster_bits;
    uint64_t size;
    uint32_t crypt;
    uint32_t l1_size;
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order;
    uint32_t length;
    uint8_t compression; /* 0: zlib, 1: zstd */
    char backing[QCOW2_BACKING_MAX + 1];
    char backing_format[16]; /* empty: not recorded */
};

/* Reads and checks it. 0, or -errno with a sentence in WHY. */
int header_read(struct image *file, struct qcow2_header *h, char *why, size_t why_size);
/* All numbers in the file are big-endian. */
static inline uint64_t qcow2_be64(uint64_t v) {
    return __builtin_bswap64(v);
}

/* --- "L1 and L2 table entries" --- */

#define QCOW2_COPIED (1ull << 63)
#define QCOW2_COMPRESSED (1ull << 62)
#define QCOW2_ZERO 1ull
#define QCOW2_OFFSET 0x00fffffffffffe00ull

#define QCOW2_PAGES 1024u    /* of tables that are kept */
#define QCOW2_DIRTY_MAX 512u /* then they are written back */

enum page_kind { PAGE_L2, PAGE_REF };

struct page {
    uint64_t offset; /* in the file; 0: unused */
    uint8_t *data;
    enum page_kind kind;
    bool dirty, used;  /* USED lately */
    struct page *next; /* of the same hash */
};

struct span { /* of a table in memory, in entries: what is to be written */
    uint32_t first, end;
};

static inline void span_add(struct span *s, uint32_t n) {
    if (s->end <= s->first)
        *s = (struct span){n, n + 1};
    s->first = n < s->first ? n : s->first;
    s->end = n >= s->end ? n + 1 : s->end;
}

struct range {
    uint64_t first, last; /* guest clusters */
    bool exclusive;
    struct range *next;
};

struct freed { /* clusters of the file that will be free after the next write-back */
    uint64_t first, count;
};

/* A compressed cluster, as it reads. */
#define QCOW2_UNPACKED 16u
struct unpacked {
    uint64_t entry; /* of the table that leads to it; 0: nothing is in BUF */
    uint64_t used;  /* by unpack_clock */
    uint8_t *buf;
};

struct qcow2 {
    struct image image;
    struct image *file;
    struct image *backing; /* NULL: none */
    struct qcow2_header header;
    unsigned cluster_bits, page_bits, l2_bits;
    uint32_t cluster_size;
    bool fleeting; /* the image is gone at the end: nothing need be durable */

    pthread_mutex_t alloc, lock;
    pthread_cond_t ranges_changed;
    struct range *ranges;

    uint64_t *l1, *reftable; /* entries, in the host's byte order */
    uint32_t reftable_size;
    struct span l1_dirty, reftable_dirty;
    struct page *pages, *hash[QCOW2_PAGES];
    uint8_t *page_memory;
    unsigned dirty, hand;

    uint64_t file_end;  /* all that is behind was never written */
    uint64_t free_hint; /* no cluster before it is free */
    struct freed *freed;
    size_t freed_count, freed_room;

    pthread_mutex_t unpack; /* of these; LOCK may be held, and none is taken with it */
    struct unpacked unpacked[QCOW2_UNPACKED];
    uint64_t unpack_clock;
};

/* Guest clusters that lie in the same way. */
enum run_kind { RUN_NONE, RUN_ZERO, RUN_DATA, RUN_COMPRESSED };

struct run {
    enum run_kind kind;
    uint64_t count; /* clusters */
    uint64_t entry; /* of the first */
    uint64_t host;  /* RUN_DATA: offset in the file; RUN_ZERO: the same, or 0 */
    bool own;       /* COPIED: can be written in place */
};

/* --- range.c: LOCK is held, and given up while they wait --- */

void range_enter(struct qcow2 *q, struct range *r, uint64_t first, uint64_t last,
                 bool exclusive);
/* It need not wait. */
bool range_free(const struct qcow2 *q, uint64_t first, uint64_t last, bool exclusive);
void range_leave(struct qcow2 *q, struct range *r);

/* --- table.c: LOCK is held --- */

int table_create(struct qcow2 *q); /* 0 or -ENOMEM */
void table_destroy(struct qcow2 *q);
/* The page of the file that holds OFFSET, read if it is not there; stays until the next
 * call. 0 or -errno; -EIO: the file ends before it. */
int table_page(struct qcow2 *q, uint64_t offset, enum page_kind kind, struct page **out);
/* It is in memory. */
bool table_cached(struct qcow2 *q, uint64_t offset);
void table_dirty(struct qcow2 *q, struct page *p);
/* Writes all dirty pages of a kind; they are clean then. ALLOC is held, too. */
int table_write(struct qcow2 *q, enum page_kind kind);
/* An fdatasync of the file; gives LOCK up meanwhile. Nothing for a fleeting image. */
int table_sync(struct qcow2 *q);
/* Forgets the pages of a cluster that becomes something else. */
void table_forget(struct qcow2 *q, uint64_t offset);

/* --- refcount.c: ALLOC and LOCK are held --- */

/* The count of a cluster of the file. 0 or -errno. */
int refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *out);
/* Of one that has a refcount block; 0 or -errno. */
int refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t value);
bool refcount_has_block(const struct qcow2 *q, uint64_t cluster);
/* The part of the file where CLUSTER is gets its refcount block, all zero, at the cluster
 * AT, which nobody uses and which is not counted. 0 or -errno. */
int refcount_put_block(struct qcow2 *q, uint64_t cluster, uint64_t at);
/* Is it the header's, the L1 table's or the refcount table's? Nobody's data may be. */
bool refcount_is_root(const struct qcow2 *q, uint64_t cluster);
/* Between 1 and WANT clusters that lie together, now counted once each. *FRESH: nothing
 * was ever written there. Gives LOCK up where a table has to grow. 0 or -errno. */
int refcount_allocate(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *got,
                      bool *fresh);
/* Takes back what was allocated, and nobody refers to yet. */
void refcount_give_back(struct qcow2 *q, uint64_t first, uint64_t count);
/* The clusters lose a reference when the next write-back is done. */
void refcount_free_later(struct qcow2 *q, uint64_t first, uint64_t count);
/* It is done: lowers their counts. What cannot be done stays counted, and is lost. */
void refcount_free_now(struct qcow2 *q);

/* --- writeback.c --- */

/* Makes all tables durable, and all data before. ALLOC is held. 0 or -errno. */
int writeback(struct qcow2 *q);
/* The same, if much has gathered. */
int writeback_some(struct qcow2 *q);

/* --- map.c: LOCK is held, with ALLOC for what changes --- */

/* How guest cluster C and at most MAX - 1 behind it lie. 0 or -errno. */
int map_find(struct qcow2 *q, uint64_t c, uint64_t max, struct run *out);
/* map_find() of C would not wait for the disk. */
bool map_cached(struct qcow2 *q, uint64_t c);
/* The L2 table of C is there and not shared. May write back. 0 or -errno. */
int map_prepare(struct qcow2 *q, uint64_t c);
/* COUNT clusters from C on, all of one page of a table that is prepared, lie at HOST and
 * behind; what they lay in before is free later. */
int map_set(struct qcow2 *q, uint64_t c, uint64_t count, uint64_t host);
/* The same, but they become zero: on their cluster, where it is theirs and KEEP, else on
 * none (PLAIN_ENTRY: QCOW2_ZERO, or 0 where that is zero already). */
int map_set_zero(struct qcow2 *q, uint64_t c, uint64_t count, bool keep,
                 uint64_t plain_entry);
/* Clusters from C on to the end of its page of its table. */
uint64_t map_page_rest(const struct qcow2 *q, uint64_t c);

/* --- compressed.c --- */

/* Where the data of a compressed cluster lies: the sectors of the file that it touches.
 */
void compressed_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset,
                      uint64_t *length);
/* LEN bytes of the cluster of ENTRY, from SKIP on, into IOV. 0 or -errno. */
int compressed_read(struct qcow2 *q, uint64_t entry, size_t skip, const struct iovec *iov,
                    unsigned count, size_t len);
/* The same, if it has been unpacked and takes no waiting; else -EAGAIN. */
int compressed_now(struct qcow2 *q, uint64_t entry, size_t skip, const struct iovec *iov,
                   unsigned count, size_t len);
void compressed_forget(struct qcow2 *q); /* frees all that is kept */

/* --- repair.c --- */

/* Raises the counts of an image that was not closed to what its tables say, durably. 0,
 * or -errno: it is damaged otherwise, or more than is mended here; nothing was changed
 * then that is in use. */
int repair_counts(struct qcow2 *q);

/* --- io.c --- */

int io_read(struct image *i, uint64_t offset, const struct iovec *iov, unsigned count);
int io_read_now(struct image *i, uint64_t offset, const struct iovec *iov,
                unsigned count);
int io_write(struct image *i, uint64_t offset, const struct iovec *iov, unsigned count);
int io_write_now(struct image *i, uint64_t offset, const struct iovec *iov,
                 unsigned count);
int io_discard(struct image *i, uint64_t offset, uint64_t length);
int io_zeroes(struct image *i, uint64_t offset, uint64_t length, bool unmap);
int io_flush(struct image *i);

#endif
