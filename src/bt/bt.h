/*
 * The software VMM's translator: guest code to host code, on demand.
 *
 * Guest bytes are decoded into translation units (TU); each becomes a compiled code
 * fragment (CCF) in the translation cache (TC). What is not worth translating (16-bit
 * code, single-stepping, an instruction that hits a device) is executed by the
 * interpreter, one instruction at a time. docs/bt.md describes the whole.
 */
#ifndef BT_BT_H
#define BT_BT_H

#include <stdio.h>

#include "cpu/vcpu.h"
#include "engine/options.h"

struct bt;
struct interp;

struct bt_options {
    bool adapt;    /* make what keeps trapping again, with the trap designed in */
    bool anchors;  /* shadow entries found by place instead of address */
    bool chain;    /* patch exits into direct jumps */
    bool evict;    /* when the cache is full, make room for some, not for all */
    bool groups;   /* one check for several accesses off the same base */
    bool count;    /* count the instructions that translated code executes */
    bool held;     /* save the host address of a group that is interrupted */
    bool lend;     /* r14 and r15 in registers that a hot path does not use */
    bool liveness; /* do not keep status flags that nothing reads */
    bool stay;     /* go on in the cache after what changes the flow */
    unsigned hot;  /* executions after which a fragment becomes a hot path; 0: never */
    unsigned path; /* instructions in a hot path, 1..BT_PATH_MAX */
    bool predict;  /* hot paths follow returns and other indirect branches */
    bool unroll;   /* repeat short loops in their hot paths */
    bool verify;   /* prove each fragment before it is used (verify.h) */
    unsigned tu_limit; /* instructions in a TU, 1..BT_TU_MAX */
    unsigned cache;    /* MiB of translated code, 1..BT_CACHE_MAX */
};

/* Are fragments proved without being asked? In builds that look for bugs. */
#ifndef BT_VERIFY_DEFAULT
#ifdef __SANITIZE_ADDRESS__
#define BT_VERIFY_DEFAULT true
#else
#define BT_VERIFY_DEFAULT false
#endif
#endif

#define BT_TU_MAX 64
#define BT_HOT_DEFAULT 4000
#define BT_HOT_MAX 1000000
#define BT_PATH_MAX 128
#define BT_PATH_DEFAULT 96
#define BT_TU_DEFAULT 32
#define BT_CACHE_MAX 1024
#define BT_CACHE_DEFAULT 256

/* The defaults. */
struct bt_options bt_defaults(void);

/* Their names, for --bt; they are a struct bt_options. */
extern const struct engine_options bt_option_set;

/* "no-chain,tu=4" onto *OPT. 0, or -EINVAL with one sentence in WHY. */
int bt_options_parse(struct bt_options *opt, const char *text, char *why,
                     size_t why_size);

/* 0 or -errno. V, and IP with it, must outlive it. The caller makes bt_code_written() the
 * owner of MEM_TRACE_TC, and IP that of MEM_TRACE_CODE. */
int bt_new(struct vcpu *v, struct interp *ip, const struct bt_options *opt,
           struct bt **out);
void bt_free(struct bt *bt);

/* As interp_run(); or EXIT_error, when this thread cannot run translated code: bt_error()
 * has the -errno. */
enum exit_reason bt_run(struct bt *bt);
int bt_error(const struct bt *bt);

/* From any thread or a signal handler: translated code stops at its next poll. */
void bt_kick(struct bt *bt);

/* From here on with OPT, but for the size of the cache. Not while it runs. */
void bt_set_options(struct bt *bt, const struct bt_options *opt);

/* Drops every fragment. */
void bt_flush(struct bt *bt);

/* Writes what is in the cache, for /tmp/perf-PID.map. */
void bt_perf_map(const struct bt *bt, FILE *f);

/* Calls EMIT for each kind of callout: how often it was executed. */
void bt_stats(const struct bt *bt,
              void (*emit)(void *arg, const char *name, uint64_t value), void *arg);

/* Who gets a listing: a line at a time, without newline. */
struct bt_listing {
    void (*line)(void *arg, const char *text);
    void *arg;
};

/*
 * Translates what direct branches reach from the vCPU's rip within [FROM, FROM + LEN),
 * guest-virtual addresses of the vCPU's present mode, chains it, and writes guest code,
 * IR and host code. Nothing is executed. Starts with an empty cache. The text depends on
 * code and options alone: host addresses appear by name. 0, -ENOMEM, or -ENOSPC when the
 * cache is too small, -EBADMSG when the verifier has found something (and said so).
 */
int bt_list(struct bt *bt, uint64_t from, uint32_t len, const struct bt_listing *out);

/* Owner of MEM_TRACE_TC; ARG is the struct bt. */
void bt_code_written(void *arg, struct gpa at, unsigned len);

#endif
