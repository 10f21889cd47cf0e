/*
 * The dispatcher: runs guest code as host code, made on demand.
 *
 * Guest bytes are decoded into translation units (TU); each becomes a compiled code
 * fragment (CCF) in the translation cache (TC). What is not for translated code (16-bit
 * code, single-stepping, an instruction that hits a device) is left to whoever calls
 * bt_go(), and is mostly the interpreter's (soft/). docs/bt.md describes the whole.
 *
 * The vCPUs of a machine share the cache and what is known of guest code (bt_join()). All
 * else of a struct bt belongs to the vCPU's thread, but for bt_kick().
 */
#ifndef BT_BT_H
#define BT_BT_H

#include <stdio.h>

#include "cpu/vcpu.h"
#include "engine/options.h"
#include "list/out.h"
#include "tr/options.h"
#include "x86/cr.h"

struct bt;
struct interp;
struct snapshot;

struct bt_options {
    struct tr_options tr;
    bool adapt;     /* make what keeps trapping again, with the trap designed in */
    bool chain;     /* patch exits into direct jumps */
    bool evict;     /* when the cache is full, make room for some, not for all */
    bool seal;      /* code can be written only while it is made (tr/seal.c) */
    bool verify;    /* prove each fragment before it is used (verify/verify.h) */
    unsigned cache; /* MiB of translated code, 1..BT_CACHE_MAX */
    unsigned warm;  /* fragments made that a snapshot says were hot, 0..BT_WARM_MAX */
    unsigned cold;  /* bt_cold(), 0..BT_COLD_MAX */
};

/* Are fragments proved without being asked? In builds that look for bugs. */
#ifndef BT_VERIFY_DEFAULT
#ifdef __SANITIZE_ADDRESS__
#define BT_VERIFY_DEFAULT true
#else
#define BT_VERIFY_DEFAULT false
#endif
#endif

#define BT_HOT_DEFAULT 25000
#define BT_HOT_MAX 1000000
#define BT_PATH_DEFAULT 96
#define BT_TU_DEFAULT 32
#define BT_CACHE_MAX 1024
#define BT_CACHE_DEFAULT 256
#define BT_WARM_MAX 8192
#define BT_COLD_MAX 1000000000
#define BT_COLD_DEFAULT 500000

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
/* The same for another vCPU of the same machine and memory, with the cache of WITH, whose
 * vCPU is of the same group of several (cpu/smp.h). While none of them runs. */
int bt_join(struct bt *with, struct vcpu *v, struct interp *ip, struct bt **out);
/* While none of those that it shares the cache with runs. */
void bt_free(struct bt *bt);

/* This thread is about to run translated code, or no longer does. 0, or -errno when it
 * cannot. */
int bt_begin(struct bt *bt);
void bt_end(struct bt *bt);

/* Before each look at events: kicks from here on are seen by the next bt_go(). False: the
 * verifier has found something (and said so), and nothing is to run any more. */
bool bt_ready(struct bt *bt);

/* After VCPU_EVENT_CALL, between two instructions: vcpu_serve(). */
void bt_serve(struct bt *bt);

/* Translated code is left for a while: vector state is parked, the x87's pointers are in
 * the vCPU, nothing of the cache is in hand. */
void bt_let_go(struct bt *bt);

/* Why bt_go() comes back. */
enum bt_out {
    BT_OUT_EVENTS,    /* events are to be looked at */
    BT_OUT_INTERPRET, /* the next COUNT instructions are not for translated code */
    BT_OUT_SHUTDOWN,  /* a fault could not be delivered */
};

/* Runs translated code from V->rip, which is tr_translatable(), until it cannot go on.
 * *COUNT: see above. */
enum bt_out bt_go(struct bt *bt, uint64_t *count);

/* RF holds breakpoints back for one instruction; where none is armed, nobody sees it go.
 * In a counted run all engines show it alike. */
static inline void bt_drop_rf(struct vcpu *v) {
    if (unlikely(v->rflags & X86_FL_RF) && !(v->dr[7] & 0xff) && !v->counted &&
        !v->pending_db)
        v->rflags &= ~(uint64_t)X86_FL_RF;
}

/* From any thread or a signal handler: translated code stops at its next poll. */
void bt_kick(struct bt *bt);

/* From here on with OPT, but for the size of the cache. Not while it runs. */
void bt_set_options(struct bt *bt, const struct bt_options *opt);

/* The vCPU's list of stops (cpu/stops.h) is another, while all stand. */
void bt_stops_changed(struct bt *bt);

/* --- warm.c: what was hot, for snapshots --- */

/* From now on it is known what BT's vCPU has executed of late. Before it runs: 0 or
 * -ENOMEM. */
int bt_recent_begin(struct bt *bt);
/* Notes which fragments these are, the hottest of them. While the guest runs. */
void bt_warm_note(struct bt *bt);
/* Writes what was noted last, as a record of S, or reads that. While it does not. */
void bt_warm_state(struct bt *bt, struct snapshot *s);
/* Makes some of the fragments that were noted there, while BT's vCPU does not run; others
 * may. False: that were the last ones. */
bool bt_warm_up(struct bt *bt);

/* How many instructions behind a snapshot are better interpreted. */
unsigned bt_cold(const struct bt *bt);

/* Drops every fragment. */
void bt_flush(struct bt *bt);

/* Writes what is in the cache, for /tmp/perf-PID.map. */
void bt_perf_map(const struct bt *bt, FILE *f);

/* Calls EMIT for each kind of callout: how often it was executed. */
void bt_stats(const struct bt *bt,
              void (*emit)(void *arg, const char *name, uint64_t value), void *arg);

/*
 * Translates what direct branches reach from the vCPU's rip within [FROM, FROM + LEN),
 * guest-virtual addresses of the vCPU's present mode, chains it, and writes guest code,
 * IR and host code. Nothing is executed. Starts with an empty cache. The text depends on
 * code and options alone: host addresses appear by name. 0, -ENOMEM, or -ENOSPC when the
 * cache is too small, -EBADMSG when the verifier has found something (and said so).
 */
int bt_list(struct bt *bt, uint64_t from, uint32_t len, const struct bt_listing *out);

/* Owner of MEM_TRACE_TC; ARG is any struct bt of those that share a cache. */
void bt_code_written(void *arg, struct gpa at, unsigned len);

#endif
