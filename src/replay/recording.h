/*
 * A recording: what a counted run took from outside, so that it can be run again.
 *
 * A counted run (machine/counted.h) has three inputs: what it was started with, the date
 * and time at its start, and what was typed when. The file holds the second and third,
 * and enough of the first to see that it is the same. It is text, a line for each thing,
 * written as it happens:
 *
 *     bivisor recording 7 #c0ffee00
 *     start-ns 1764092000000000000 #...
 *     state 0123456789abcdef #...        digest of RAM and registers before the run
 *     ...
 *     input 5123000000 6c730a #...       virtual time, bytes
 *     end 9000000000 guest 0 4711 89ab... cdef... #...
 *                    virtual time, how, signal, console output: bytes, digest; digest of
 *                    RAM and registers, or 0 if engines need not agree about it
 *
 * The last word of a line is a checksum of everything up to it. A recording without its
 * end is of a run that was killed: it can be replayed as far as it goes.
 */
#ifndef REPLAY_RECORDING_H
#define REPLAY_RECORDING_H

#include <stdio.h>

#include "base/types.h"

#define RECORDING_VERSION 7u

/* What has to be the same when it is replayed. */
struct recording_key {
    uint64_t start_ns; /* since 1970; taken from the recording */
    uint64_t begin_ns; /* virtual time at the start: 0, or a snapshot's */
    uint64_t memory;
    uint64_t protocol, paravirt, no_pci, virtio, rng, no_reboot;
    uint64_t append;  /* digest of the kernel command line */
    uint64_t disks;   /* of what the guest sees of them, but for what is on them */
    uint64_t content; /* of some of what is on them */
    uint64_t cpu;     /* of the CPUID model */
    uint64_t state;   /* of RAM and registers at the start */
};

enum recording_kind { RECORDING_INPUT, RECORDING_END };

/* How a run ended. */
enum recording_end {
    RECORDING_GUEST,  /* by itself */
    RECORDING_QUIT,   /* Ctrl-A x, or the console's output broke */
    RECORDING_SIGNAL, /* and which */
};

struct recording_event {
    enum recording_kind kind;
    uint64_t ns;
    uint8_t *bytes; /* RECORDING_INPUT */
    size_t len;
    enum recording_end how; /* RECORDING_END */
    uint64_t signal;
    uint64_t out_len, out_digest; /* of the console's output */
    uint64_t state;               /* at the end; 0: not known */
};

struct recording {
    struct recording_key key;
    struct recording_event *events;
    size_t count;
    bool ended; /* the last event is the end */
};

/* --- writing. Failures are kept, and told by recording_end() --- */
struct recording_writer;

/* F is open and empty, and stays the caller's. 0 or -errno. */
int recording_begin(FILE *f, const struct recording_key *key,
                    struct recording_writer **out);
void recording_write_input(struct recording_writer *w, uint64_t ns, const uint8_t *bytes,
                           size_t len);
void recording_write_end(struct recording_writer *w, const struct recording_event *end);
/* 0 or -errno of the first write that failed. */
int recording_end(struct recording_writer *w);

/* --- reading --- */

/* 0, or -errno with one sentence in WHY. */
int recording_open(const char *path, struct recording *rec, char *why, size_t why_size);
void recording_free(struct recording *rec);

/* Is NOW what was recorded? Else false, with one sentence in WHY. */
bool recording_fits(const struct recording *rec, const char *path,
                    const struct recording_key *now, char *why, size_t why_size);

/* FNV-1a, continued from HASH; begin with 0. */
uint64_t recording_digest(uint64_t hash, const void *bytes, size_t len);

#endif
