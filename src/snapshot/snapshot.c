/*
 * Records in memory; see snapshot.h.
 *
 *   head     8 bytes "BIVISNAP", 4 version of the format, 4 number of records
 *   record   16 name, 4 instance, 2 version, 2 flags, 8 length of the contents,
 *            4 CRC-32 of all of the record but this, 4 zero; then the contents
 *
 * Writing, the bytes grow in one piece; a record's head is filled in when it ends.
 * Reading, the heads are looked at once, in the beginning, which also checks the sums: a
 * record that is found later is whole. `used` has a bit for each that was asked for.
 */
#include "snapshot/snapshot.h"

#include <stdio.h>
#include <stdlib.h>

#define MAGIC "BIVISNAP"
#define FORMAT 1u
#define HEAD 16u
#define RECORD 40u
#define RECORDS_MAX 4096u
#define OPTIONAL 1u

enum {
    AT_INSTANCE = 16,
    AT_VERSION = 20,
    AT_FLAGS = 22,
    AT_LENGTH = 24,
    AT_SUM = 32,
    AT_ZERO = 36
};

struct snapshot {
    bool reading;
    bool failed;
    uint8_t *out; /* writing */
    size_t room;
    const uint8_t *in; /* reading */
    size_t len;
    size_t record;  /* of the one that is being written or read: its head */
    size_t at, end; /* reading: the next byte of its contents, and behind the last */
    unsigned version;
    unsigned records;
    size_t *where; /* reading: of RECORDS heads */
    bool *used;
    char why[192];
};

/* --- bytes --- */

static void copy(void *to, const void *from, size_t len) {
    uint8_t *t = to;
    const uint8_t *f = from;

    for (size_t n = 0; n < len; n++)
        t[n] = f[n];
}

static void put(uint8_t *at, uint64_t value, unsigned size) {
    for (unsigned n = 0; n < size; n++)
        at[n] = (uint8_t)(value >> 8 * n);
}

static uint64_t get(const uint8_t *at, unsigned size) {
    uint64_t value = 0;

    for (unsigned n = 0; n < size; n++)
        value |= (uint64_t)at[n] << 8 * n;
    return value;
}

/* CRC-32 as ISO 3309 has it, by nibbles: state is small. */
static uint32_t sum(uint32_t crc, const uint8_t *bytes, size_t len) {
    static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac,
                                       0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                       0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                       0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};

    crc = ~crc;
    for (size_t n = 0; n < len; n++) {
        crc = table[(crc ^ bytes[n]) & 15] ^ crc >> 4;
        crc = table[(crc ^ bytes[n] >> 4) & 15] ^ crc >> 4;
    }
    return ~crc;
}

/* Of a record of LEN bytes of contents. */
static uint32_t record_sum(const uint8_t *head, size_t len) {
    return sum(sum(0, head, AT_SUM), head + RECORD, len);
}

static bool same_name(const uint8_t *head, const char *name) {
    for (unsigned n = 0; n < SNAPSHOT_NAME; n++) {
        if (head[n] != (uint8_t)name[n])
            return false;
        if (!name[n])
            return true;
    }
    return false;
}

/* --- complaints --- */

bool snapshot_reading(const struct snapshot *s) {
    return s->reading;
}

const char *snapshot_why(const struct snapshot *s) {
    return s->failed ? s->why : NULL;
}

static void fail(struct snapshot *s, const char *why) {
    if (s->failed)
        return;
    s->failed = true;
    snprintf(s->why, sizeof(s->why), "%s", why);
}

/* Of the record that is read. */
static void complain(struct snapshot *s, const char *what) {
    const uint8_t *head = s->in + s->record;

    if (s->failed)
        return;
    s->failed = true;
    snprintf(s->why, sizeof(s->why), "its record '%.*s' %u %s", (int)SNAPSHOT_NAME - 1,
             (const char *)head, (unsigned)get(head + AT_INSTANCE, 4), what);
}

void snapshot_need(struct snapshot *s, bool good) {
    if (s->reading && !good)
        complain(s, "holds what cannot be");
}

void snapshot_refuse(struct snapshot *s, const char *why) {
    fail(s, why);
}

/* --- fields --- */

/* LEN more bytes, or NULL. */
static uint8_t *more(struct snapshot *s, size_t len) {
    uint8_t *at;

    if (s->failed)
        return NULL;
    if (len > s->room - s->len) {
        size_t room = s->room * 2 + len;
        uint8_t *grown = room <= SNAPSHOT_MAX ? realloc(s->out, room) : NULL;

        if (!grown) {
            fail(s, "out of memory");
            return NULL;
        }
        s->out = grown;
        s->room = room;
    }
    at = s->out + s->len;
    s->len += len;
    return at;
}

void snapshot_bytes(struct snapshot *s, void *bytes, size_t len) {
    if (!s->reading) {
        uint8_t *at = more(s, len);

        if (at)
            copy(at, bytes, len);
        return;
    }
    if (!s->failed && len > s->end - s->at)
        complain(s, "is too short");
    for (size_t n = 0; n < len; n++)
        ((uint8_t *)bytes)[n] = s->failed ? 0 : s->in[s->at + n];
    if (!s->failed)
        s->at += len;
}

void snapshot_scalar(struct snapshot *s, void *value, size_t size, bool is_bool) {
    snapshot_bytes(s, value, size);
    if (!is_bool || !s->reading || *(const uint8_t *)value <= 1)
        return;
    *(uint8_t *)value = 0;
    snapshot_need(s, false);
}

#define PIECE 512u

static bool is_zero(const uint8_t *bytes) {
    uint8_t any = 0;

    for (unsigned n = 0; n < PIECE; n++)
        any |= bytes[n];
    return !any;
}

/* Of each piece: whether there is one, and it. */
void snapshot_sparse(struct snapshot *s, void *bytes, size_t len) {
    for (uint8_t *at = bytes, *end = at + len; at < end; at += PIECE) {
        bool there = !s->reading && !is_zero(at);

        SNAPSHOT(s, there);
        if (there)
            snapshot_bytes(s, at, PIECE);
        else if (s->reading && !is_zero(at)) /* a write would take memory of the host's */
            for (unsigned n = 0; n < PIECE; n++)
                at[n] = 0;
    }
}

unsigned snapshot_version(const struct snapshot *s) {
    return s->version;
}

size_t snapshot_left(const struct snapshot *s) {
    return s->failed ? 0 : s->end - s->at;
}

/* --- records --- */

static void write_record(struct snapshot *s, const char *name, unsigned instance,
                         unsigned flags, void (*fn)(void *thing, struct snapshot *s),
                         void *thing) {
    size_t where = s->len;
    uint8_t *head = more(s, RECORD);

    if (!head)
        return;
    for (unsigned n = 0; n < RECORD; n++)
        head[n] = 0;
    for (unsigned n = 0; n < SNAPSHOT_NAME - 1 && name[n]; n++)
        head[n] = (uint8_t)name[n];
    put(head + AT_INSTANCE, instance, 4);
    put(head + AT_VERSION, s->version, 2);
    put(head + AT_FLAGS, flags, 2);
    fn(thing, s);
    if (s->failed)
        return;
    head = s->out + where;
    put(head + AT_LENGTH, s->len - where - RECORD, 8);
    put(head + AT_SUM, record_sum(head, s->len - where - RECORD), 4);
    s->records++;
}

/* Finds it; false: it is not there. */
static bool find(struct snapshot *s, const char *name, unsigned instance) {
    for (unsigned n = 0; n < s->records; n++) {
        const uint8_t *head = s->in + s->where[n];

        if (s->used[n] || get(head + AT_INSTANCE, 4) != instance ||
            !same_name(head, name))
            continue;
        s->used[n] = true;
        s->record = s->where[n];
        s->at = s->record + RECORD;
        s->end = s->at + get(head + AT_LENGTH, 8);
        return true;
    }
    return false;
}

static void read_record(struct snapshot *s, unsigned newest,
                        void (*fn)(void *thing, struct snapshot *s), void *thing) {
    s->version = (unsigned)get(s->in + s->record + AT_VERSION, 2);
    if (!s->version || s->version > newest) {
        complain(s, "is of a newer bivisor");
        return;
    }
    fn(thing, s);
    if (!s->failed && s->at != s->end)
        complain(s, "is too long");
}

static void record(struct snapshot *s, const char *name, unsigned instance,
                   unsigned version, bool optional,
                   void (*fn)(void *thing, struct snapshot *s), void *thing) {
    if (s->failed)
        return;
    if (!s->reading) {
        s->version = version;
        write_record(s, name, instance, optional ? OPTIONAL : 0, fn, thing);
    } else if (find(s, name, instance)) {
        read_record(s, version, fn, thing);
    } else if (!optional) {
        s->failed = true;
        snprintf(s->why, sizeof(s->why),
                 "it has no record '%s' %u: it is of another machine", name, instance);
    }
}

void snapshot_record(struct snapshot *s, const char *name, unsigned instance,
                     unsigned version, void (*fn)(void *thing, struct snapshot *s),
                     void *thing) {
    record(s, name, instance, version, false, fn, thing);
}

void snapshot_optional(struct snapshot *s, const char *name, unsigned instance,
                       unsigned version, void (*fn)(void *thing, struct snapshot *s),
                       void *thing) {
    record(s, name, instance, version, true, fn, thing);
}

/* What is optional is what is asked for here; what was written is as it was marked. */
void snapshot_needed(struct snapshot *s, const char *name, unsigned instance,
                     unsigned version, void (*fn)(void *thing, struct snapshot *s),
                     void *thing) {
    record(s, name, instance, version, true, fn, thing);
}

/* --- a whole one --- */

struct snapshot *snapshot_new(void) {
    struct snapshot *s = calloc(1, sizeof(*s));
    uint8_t *head = s ? more(s, HEAD) : NULL;

    if (!head) {
        snapshot_free(s);
        return NULL;
    }
    copy(head, MAGIC, 8);
    put(head + 8, FORMAT, 4);
    put(head + 12, 0, 4);
    return s;
}

const uint8_t *snapshot_finish(struct snapshot *s, size_t *len) {
    if (s->failed)
        return NULL;
    put(s->out + 12, s->records, 4);
    *len = s->len;
    return s->out;
}

/* The heads of all records; what is wrong, or NULL. */
static const char *look_through(struct snapshot *s) {
    size_t at = HEAD;

    for (unsigned n = 0; n < s->records; n++) {
        const uint8_t *head = s->in + at;
        uint64_t len;

        if (s->len - at < RECORD || get(head + AT_LENGTH, 8) > s->len - at - RECORD)
            return "it is cut short";
        len = get(head + AT_LENGTH, 8);
        if (get(head + AT_SUM, 4) != record_sum(head, len) || get(head + AT_ZERO, 4) ||
            head[SNAPSHOT_NAME - 1])
            return "it is damaged: a checksum is wrong";
        s->where[n] = at;
        at += RECORD + len;
    }
    return at == s->len ? NULL : "there is more in it than its records";
}

static const char *open_records(struct snapshot *s) {
    for (unsigned n = 0; n < 8; n++)
        if (s->len < HEAD || s->in[n] != (uint8_t)MAGIC[n])
            return "it is no snapshot of bivisor's";
    if (get(s->in + 8, 4) != FORMAT)
        return "it is in the format of another bivisor";
    s->records = (unsigned)get(s->in + 12, 4);
    if (s->records > RECORDS_MAX)
        return "it is damaged: it has too many records";
    s->where = calloc(s->records + 1, sizeof(*s->where));
    s->used = calloc(s->records + 1, sizeof(*s->used));
    return s->where && s->used ? look_through(s) : "out of memory";
}

struct snapshot *snapshot_open(const uint8_t *bytes, size_t len, char *why,
                               size_t why_size) {
    struct snapshot *s = calloc(1, sizeof(*s));
    const char *what = "out of memory";

    if (s) {
        s->reading = true;
        s->in = bytes;
        s->len = len;
        what = open_records(s);
    }
    if (!what)
        return s;
    snprintf(why, why_size, "%s", what);
    snapshot_free(s);
    return NULL;
}

void snapshot_finish_reading(struct snapshot *s) {
    for (unsigned n = 0; n < s->records && !s->failed; n++) {
        const uint8_t *head = s->in + s->where[n];

        s->record = s->where[n];
        if (!s->used[n] && !(get(head + AT_FLAGS, 2) & OPTIONAL))
            complain(s, "is of something that this machine does not have");
    }
}

void snapshot_free(struct snapshot *s) {
    if (!s)
        return;
    free(s->out);
    free(s->where);
    free(s->used);
    free(s);
}
