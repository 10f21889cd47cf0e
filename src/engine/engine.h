/*
 * The contract between the board and whatever executes the guest.
 *
 * create: bind to a vCPU. run: execute until an exit of the second group in cpu/exit.def;
 * synchronous exits go through vcpu_hooks on the way. kick: from any thread, make run()
 * return EXIT_kick soon (the event bits are already set by vcpu_raise()).
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdio.h>

#include "cpu/vcpu.h"
#include "engine/options.h"
#include "mem/mem.h"

struct cell_pool;
struct engine;
struct snapshot;

struct engine_config {
    const void *options; /* the engine's structure of them; NULL: it has none */
    struct engine
        *first; /* of the machine's first CPU, when it is another's; NULL: none yet */
    bool notes; /* what is hot is to be known: warm_note() */
    bool only_if_fast;          /* decline rather than be worse than the next engine */
    struct cell_pool *cells;    /* for direct execution (direct/), or NULL */
    unsigned direct;            /* enum direct_mode */
    const void *direct_options; /* struct direct_options; NULL: as a rule */
};

/* Who derives something from guest code: stores to pages with the trace are told to it
 * (mem/mem.h). */
struct engine_trace {
    enum mem_trace trace;
    void (*written)(void *arg, struct gpa at, unsigned len);
    void *arg;
};

struct engine_ops {
    const char *name;
    const char *what;                     /* one line for --help and `bivisor check` */
    bool counts;                          /* it can do counted runs (vcpu.counted) */
    const struct engine_options *options; /* NULL: none */
    /* 0 or -errno; WHY then says in one sentence what is missing. */
    int (*create)(struct vcpu *v, const struct engine_config *cfg, struct engine **out,
                  char *why, size_t why_size);
    void (*destroy)(struct engine *e);
    enum exit_reason (*run)(struct engine *e);
    /* Between two calls of run(): takes what interrupts there, and executes one
     * instruction, a piece of a string operation, or the delivery of a fault. EXIT_kick:
     * done, or KICK or STOP was there. */
    enum exit_reason (*step)(struct engine *e);
    void (*kick)(struct engine *e);
    /* Between two calls of run(): all of the guest's state comes to struct vcpu, where it
     * may be changed. 0, or -errno, logged. NULL: it is there always. */
    int (*sync)(struct engine *e);
    /* The traces that it is the owner of, *COUNT of them: OUT has place for as many as
     * there are owners. */
    void (*traces)(struct engine *e, struct engine_trace out[MEM_TRACE_COUNT],
                   unsigned *count);
    /* Memory is elsewhere, or of another kind (mem_hooks.changed); the MMU knows already.
     * NULL: no matter. */
    void (*map_changed)(struct engine *e);
    /* The guest writes to memory without the MMU's leave: what to since the last call is
     * said to mem/track.c (mem_track_written()); nothing the first time, from which on it
     * is known. While all vCPUs stand. 0, or -errno: it is not. NULL: traces tell. */
    int (*tell_written)(struct engine *e);
    /* A debugger's list of stops (cpu/stops.h) is another, while all vCPUs stand; the MMU
     * knows already. 0, or -ENOSPC: that is more than it can do, and the list is to be as
     * it was. NULL: it looks at the list itself. */
    int (*stops_changed)(struct engine *e);
    /* What is hot is noted, while the guest runs, on a thread that is no vCPU's; a record
     * of a snapshot has it, which is written so, or read; and what was read is made
     * ready, a little by each call, between two calls of run(): false: that was all.
     * NULL: nothing gets hot. */
    void (*warm_note)(struct engine *e);
    void (*warm_state)(struct engine *e, struct snapshot *s);
    bool (*warm_up)(struct engine *e);
    /* It goes on from a snapshot, and has made nothing of its code. Between two calls of
     * run(). NULL: no matter. */
    void (*cool)(struct engine *e);
    /* Guest state was changed from outside (reset, loader): drop what was derived. */
    void (*reset)(struct engine *e);
    /* Lists the code that it makes of the LEN bytes from guest address FROM on, a LINE at
     * a time without newline; what was made before is gone afterwards. 0 or -errno. NULL:
     * it makes no code. */
    int (*list)(struct engine *e, uint64_t from, uint32_t len,
                void (*line)(void *arg, const char *text), void *arg);
    /* Goes on with other options, while nothing runs; NULL: it has none. */
    void (*retune)(struct engine *e, const void *options);
    /* Writes lines for /tmp/perf-PID.map; NULL: it makes no code. */
    void (*perf_map)(struct engine *e, FILE *f);
    /* Calls EMIT for each figure of the engine's own, beside the common counters; NULL:
     * none. */
    void (*stats)(struct engine *e,
                  void (*emit)(void *arg, const char *name, uint64_t value), void *arg);
    /* Requests for ioctl(2) that it makes after create(), and a 0; NULL: none. On its
     * CPU's thread and between lives, and on any thread that runs a device. */
    const unsigned long *ioctls, *device_ioctls;
    /* The local APIC is in the engine, as its options asked for. NULL: it never is. */
    bool (*has_lapic)(const struct engine *e);
    /* A message to it; false: nobody took it. */
    bool (*msi)(struct engine *e, uint64_t addr, uint32_t data);
};

#endif
