/*
 * A machine's state as records: what a snapshot's state file holds (docs/snapshot.md).
 *
 * A file is a head and records one after the other, each with a name, an instance, a
 * version, a length and a checksum. A record that a reader does not know is skipped if it
 * is marked optional, else the file is refused. Who has state writes and reads it by one
 * function, which names its fields one after the other: whether it is written or read,
 * the struct snapshot says. So both are of the same shape, and a field cannot be
 * forgotten on one side.
 *
 * What is read is hostile. A number that is read is checked by who has it
 * (SNAPSHOT_MAX(), snapshot_need()); the first complaint stands, all that is read behind
 * it is zero, and snapshot_why() has a sentence. Whoever gets one throws away what was
 * read into: state that was read in part is safe to free, not to run.
 *
 * All of it lies in memory: the guest's RAM is not in here. Numbers are little endian. No
 * locks: it is one thread's.
 *
 * This room is of the core rooms (cpu/vec.h), since devices call it.
 */
#ifndef SNAPSHOT_SNAPSHOT_H
#define SNAPSHOT_SNAPSHOT_H

#include "base/types.h"

#define SNAPSHOT_NAME 16u        /* bytes of a record's name, with a 0 */
#define SNAPSHOT_MAX (64u << 20) /* of a file: what a large machine needs, many times */

struct snapshot;

/* --- a whole one --- */

/* To be written; NULL: out of memory. */
struct snapshot *snapshot_new(void);
/* To be read from LEN bytes, which stay the caller's, and stay. NULL with a sentence in
 * WHY: out of memory, or they are not a snapshot that is whole. */
struct snapshot *snapshot_open(const uint8_t *bytes, size_t len, char *why,
                               size_t why_size);
void snapshot_free(struct snapshot *s);
/* The end of what is written: the file's bytes, S's own; NULL: out of memory. */
const uint8_t *snapshot_finish(struct snapshot *s, size_t *len);
/* The end of what is read: every record that is not optional has been asked for, else
 * that is the complaint. */
void snapshot_finish_reading(struct snapshot *s);
/* What is wrong, in words, or NULL. */
const char *snapshot_why(const struct snapshot *s);
static inline bool snapshot_good(const struct snapshot *s) {
    return !snapshot_why(s);
}
bool snapshot_reading(const struct snapshot *s);

/* --- records --- */

/* The record NAME of the INSTANCE-th thing of its kind: what FN(THING, S) writes or reads
 * is its contents. VERSION is what is written; what is read is of that version at most,
 * and snapshot_version() says of which. A record that is to be read and is not there is a
 * complaint. */
void snapshot_record(struct snapshot *s, const char *name, unsigned instance,
                     unsigned version, void (*fn)(void *thing, struct snapshot *s),
                     void *thing);
/* The same, but one who does not know it may leave it out; FN is not called where it is
 * not there. */
void snapshot_optional(struct snapshot *s, const char *name, unsigned instance,
                       unsigned version, void (*fn)(void *thing, struct snapshot *s),
                       void *thing);
/* Reading: one that need not be there, but that a reader has to know. */
void snapshot_needed(struct snapshot *s, const char *name, unsigned instance,
                     unsigned version, void (*fn)(void *thing, struct snapshot *s),
                     void *thing);
/* Within a record. */
unsigned snapshot_version(const struct snapshot *s);
/* Bytes of it that are still to be read. */
size_t snapshot_left(const struct snapshot *s);

/* --- fields, within a record --- */

void snapshot_scalar(struct snapshot *s, void *value, size_t size, bool is_bool);
/* A number or a truth value, of the size that it has. */
#define SNAPSHOT(s, lvalue)                                                              \
    snapshot_scalar((s), &(lvalue), sizeof(lvalue),                                      \
                    _Generic((lvalue), bool                                              \
                             : true, default                                             \
                             : false))
/* The same; what is read is LIMIT at most, or it is a complaint, and 0. */
#define SNAPSHOT_UPTO(s, lvalue, limit)                                                  \
    do {                                                                                 \
        SNAPSHOT(s, lvalue);                                                             \
        if ((lvalue) > (limit)) {                                                        \
            (lvalue) = 0;                                                                \
            snapshot_need((s), false);                                                   \
        }                                                                                \
    } while (0)
void snapshot_bytes(struct snapshot *s, void *bytes, size_t len);
/* The same for much that is mostly zero: LEN is a multiple of 512. */
void snapshot_sparse(struct snapshot *s, void *bytes, size_t len);
/* Reading: what was read can be, or it is a complaint. */
void snapshot_need(struct snapshot *s, bool good);
/* The same, with a sentence of the caller's, which is kept. */
void snapshot_refuse(struct snapshot *s, const char *why);

#endif
