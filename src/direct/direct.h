/*
 * Direct execution: guest user code on the CPU as it is, in a cell (cell.h) whose
 * mappings are a part of what the shadow holds for that address space.
 *
 *   the shadow --observer--> struct direct --orders--> the cell's page tables
 *
 * A page is mapped in the cell when guest code faults there and the guest's page tables
 * allow it (a hidden page fault), with its neighbours. Whatever the shadow drops is
 * dropped in the cell before it runs again. Code is mapped executable as it is if no
 * instruction begins in it that the CPU would execute otherwise than the guest's
 * (scan.c), else as a copy in which these fault; such a page carries MEM_TRACE_DIRECT, so
 * that stores to it are seen.
 *
 * Each vCPU has cells of its own, one for an address space, as it has a shadow of its
 * own. All of it belongs to the vCPU's thread, but for direct_kick(); what the vCPUs of a
 * machine share is what is known of pages of code, under the lock of traces.
 */
#ifndef DIRECT_DIRECT_H
#define DIRECT_DIRECT_H

#include "cpu/vcpu.h"
#include "engine/options.h"

struct direct;
struct cell_pool;

enum direct_mode { DIRECT_OFF, DIRECT_AUTO, DIRECT_ON };

/* Switches for what is decided, by name (options.c). All are on as a rule. */
struct direct_options {
    bool around, cold, copies, demote, foresee, move, outlast, remember, rewrite, splits;
};

extern const struct engine_options direct_option_set;

/* Why this host can have no cells, in words, for a message; NULL: it can. Makes one and
 * waits for it. */
const char *direct_lacks(struct cell_pool *p);
/* The same for a process that has no cells yet: it makes one (host.c). */
const char *direct_host_lacks(void);

struct direct_config {
    struct cell_pool *pool;               /* the caller's */
    enum direct_mode mode;                /* not off */
    const struct direct_options *options; /* is copied; NULL: as a rule */
    struct direct *first; /* of the machine's first vCPU; NULL: this is it */
};

/* V's MMU must be there, and is observed from here on. 0 or -errno. The first one is
 * freed last. */
int direct_new(struct vcpu *v, const struct direct_config *cfg, struct direct **out);
void direct_free(struct direct *d);

/* The vCPU is at a look at events: whether what it runs is worth a cell. */
void direct_sample(struct direct *d);
/* The vCPU's list of stops (cpu/stops.h) is another, while it stands: code in pages with
 * breakpoints is translated. */
void direct_stops_changed(struct direct *d);
/* Is what comes next to be run directly? */
bool direct_wanted(struct direct *d);

enum direct_out {
    DIRECT_EVENTS,    /* events are to be looked at, or the guest's kernel has the CPU */
    DIRECT_INTERPRET, /* the next instruction is the interpreter's */
    DIRECT_TRANSLATE, /* what is in this page is not for cells */
    DIRECT_SHUTDOWN,
};
/* Vector state is parked, and the x87's pointers are in V. */
enum direct_out direct_run(struct direct *d);
/* Translated, until the next look at events. */
void direct_rest(struct direct *d);
/* From any thread or a signal handler: it comes out soon. */
void direct_kick(struct direct *d);
/* Everything that was derived is void. */
void direct_reset(struct direct *d);

/* Owner of MEM_TRACE_DIRECT. ARG is any struct direct of the machine. */
void direct_code_written(void *arg, struct gpa at, unsigned len);

void direct_stats(const struct direct *d,
                  void (*emit)(void *arg, const char *name, uint64_t value), void *arg);

#endif
