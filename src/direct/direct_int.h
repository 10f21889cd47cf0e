/* Inside direct/. */
#ifndef DIRECT_INT_H
#define DIRECT_INT_H

#include "cpu/smp.h"
#include "direct/cell.h"
#include "direct/codes.h"
#include "direct/direct.h"
#include "direct/space.h"
#include "mmu/mmu.h"

/* What is known of a page of RAM, as code. */
enum verdict {
    VERDICT_NONE,
    VERDICT_GOOD,
    VERDICT_AUX,     /* good where the host's TSC_AUX is the guest's */
    VERDICT_OWN,     /* good if a program has written it itself, and CPUID faults */
    VERDICT_ASKS,    /* of that the same, as a copy in which XGETBV faults, too */
    VERDICT_COPY,    /* as a copy in which some instructions fault */
    VERDICT_REFUSED, /* by scan.c */
};

struct code_page {
    uint64_t holders;    /* a bit for each vCPU in whose cells it may be executable */
    uint32_t written_at; /* page_clock() */
    uint8_t verdict;     /* not NONE: it carries MEM_TRACE_DIRECT */
    uint8_t writes;      /* how often it lost that by a store, of late */
    uint8_t read;        /* atomic: as data, by user code; no copies of it are executed */
    bool made;           /* who stored to the code in it last was user code */
    int8_t computes; /* atomic: programs found in it that did, less those that did not */
};

/* Shared by the vCPUs of a machine. Under the lock of traces. */
struct direct_shared {
    struct code_page *page; /* of each page of memory */
    uint64_t pages;
    unsigned members;
    struct direct *member[VCPU_GROUP_MAX];
    uint32_t reads; /* atomic: changes when such a page is read for the first time */
    uint64_t xcr0;  /* the guest's, when the first page was scanned; 0: none was */
};

/* Rights, as in struct space. */
#define READ (1u << MMU_READ)
#define WRITE (1u << MMU_WRITE)
#define EXEC (1u << MMU_EXEC)

/* --- who is run directly --- */

#define PROGRAMS 64u /* address spaces that are kept in mind */
#define THREAD_REGIONS 4u

struct program {
    uint64_t cr3; /* 0: free */
    /* Bases of FS at looks, each of another region of addresses. */
    uint64_t thread[THREAD_REGIONS];
    unsigned nthread;
    bool doubtful;         /* flushed since the last look: it may be another */
    unsigned seen;         /* in user code, at looks */
    unsigned looks;        /* the same without a pause in between */
    uint64_t seen_at;      /* TSC */
    uint64_t not_until;    /* TSC */
    uint64_t splits_until; /* TSC: it was found at a locked access that crosses a line */
    unsigned failures;
    unsigned windows;   /* that it was judged by */
    int64_t balance_ns; /* what its cell has saved; below 0 it is translated */
    uint32_t found[4];  /* pages of memory that the first looks found it in */
    unsigned nfound;
    bool proved;   /* to compute, or not to: it has been remembered */
    bool rewrites; /* code in pages that are executed in turn */
    /* The present one: where it runs, the CPU time that had got when it began; turns
     * since, and those of them that count. */
    const struct cell *cell;
    uint64_t since_ns;
    unsigned turns, exits;
    unsigned new_code; /* pages of code mapped */
    bool flushed;
};

/* The page fault of the guest's that was delivered last: the access, by the instruction
 * at RIP. */
struct expected {
    uint64_t cr3; /* 0: none */
    uint64_t rip, at;
    enum mmu_access acc;
};

struct direct_counts {
#define COUNTER(name) uint64_t name;
#include "direct/counters.def"
#undef COUNTER
};

struct direct {
    struct vcpu *v;
    struct cell_pool *pool;
    struct cell_gate *gate; /* POOL's */
    struct direct_shared *sh;
    enum direct_mode mode;
    struct direct_options opt;
    unsigned index; /* in sh->member */
    struct space space[MMU_SPACES_MAX];
    struct codes codes;
    struct codes kept; /* writable pages that the shadow has evicted */
    uint32_t reads;    /* of the shared ones, those that are obeyed */
    unsigned now;      /* the space of user code */
    struct program program[PROGRAMS];
    bool rest;         /* translated until the next look at events */
    int cpu;           /* of the host's, that the thread is pinned to; -1: none */
    uint32_t host_aux; /* TSC_AUX there */
    bool aux_equal;    /* to the guest's, and pages are mapped that rest on it */
    bool moved_on;     /* from the CPU whose TSC_AUX is the guest's, for it was crowded */
    uint64_t ran_at;   /* TSC */
    uint64_t looked_at,
        translator_ticks; /* TSC of the last look that counted; up to it */
    uint64_t patience;    /* ticks without a cell after which it is not pinned any more */
    uint64_t exit_ns;     /* of CPUs, to go in and come out, measured; 0: not yet */
    uint64_t measured_at; /* TSC */
    unsigned vec_size;    /* of the image that goes in and comes out */
    struct expected expected;
    struct cell *running; /* atomic: for direct_kick() */
    uint64_t cell_ns;     /* the cell's part of it */
    uint64_t ticks;       /* in cells */
    /* What CPU time crowd_cell had got, and the ticks of its turns since. */
    const struct cell *crowd_cell;
    uint64_t crowd_ns, crowd_ticks;
    bool comes_back;    /* the page that this turn ended for was mapped before */
    bool new_code;      /* it was not, and is executed */
    uint64_t orders_ns; /* CPU time that cells have needed for orders */
    uint64_t order_ns;  /* for one, as measured */
    unsigned synced;    /* batches of them */
    bool unmapped;      /* one of the next batch's unmaps everything */
    struct direct_counts n;
};

/* --- split.c --- */

/* Is V, whose state came out of a cell, at a locked access that crosses a line of the
 * cache, or right behind one? */
bool direct_at_split(struct vcpu *v);

/* --- policy.c; of the core rooms' kind, but for direct_judge() --- */

/* The address space, or what is thought of it, has changed: v->away follows. */
void direct_look(struct direct *d);
/* A turn in C has ended, for a page that is MAPPED now for the first time. The program
 * comes out too often: true. */
bool direct_judge(struct direct *d, const struct cell *c, bool mapped);
/* The program writes code, and executes it, in turn: CPUID is to fault in its cell, whose
 * pages of that kind are not looked at each time. */
void direct_set_rewrites(struct direct *d);
bool direct_rewrites(struct direct *d);
/* It makes locked accesses that cross lines, and is translated for some time. */
void direct_set_splits(struct direct *d);
/* Its TLB was flushed: whoever the page tables belong to may be new. */
void direct_program_flushed(struct direct *d);
/* And much of what it had has gone. */
void direct_program_changed(struct direct *d);

/* User code reads the page at HOST, which is code. */
void direct_page_read(struct direct *d, const uint8_t *host);

/* No cell of the vCPU's keeps what it maps. */
void direct_begin_anew(struct direct *d);

/* --- pin.c --- */

/* The vCPU's thread stays on a CPU, and what is mapped goes together with that one; or
 * goes where the host likes again. */
void direct_pin(struct direct *d);
void direct_unpin(struct direct *d);
/* A turn in C took TICKS. If others have the CPU, too, it goes to another. */
void direct_look_around(struct direct *d, const struct cell *c, uint64_t ticks);

/* --- code.c --- */

/* The number of the page of RAM at HOST. */
uint32_t direct_ram_page(const struct direct *d, const uint8_t *host);

/* How code may be executed by the CPU. */
enum how_run { RUN_NOT, RUN_AS_IT_IS, RUN_AS_COPY, RUN_AS_WRITTEN };

/* Whether the code in the page of RAM at HOST, which is AT in space S, may be executed by
 * the CPU: from here on nobody writes to it unseen. The lock of traces is held until it
 * is noted where. */
enum how_run direct_executable(struct direct *d, const struct space *s, uint64_t at,
                               uint8_t *host);

#define PLACES 96u /* instructions in a page that fault in its copy */
/* Where its copy is to have another byte (scan_places()), PLACES at most; -1: there is to
 * be none. */
int direct_places_of_copy(const struct direct *d, uint64_t at, const uint8_t *host,
                          uint16_t *place);

/* --- map.c --- */

/* What the shadow has dropped goes, at the latest when the cell goes in. 0; or -errno,
 * and the cell is no good. */
int direct_catch_up(struct direct *d, struct space *s);
/* The host's limit was met: nothing is mapped. 0 or -errno, as above. */
int direct_map_anew(struct direct *d, struct space *s);
/* Before S goes on: the page that the guest's kernel was asked for by the last fault. */
void direct_foresee(struct direct *d, struct space *s);
enum direct_out direct_page_fault(struct direct *d, struct space *s,
                                  const struct cell_exit *e, bool *again);

#endif
