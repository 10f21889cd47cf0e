/*
 * `bivisor compare`: the same work on every engine of this host, side by side.
 *
 * A report is filled by compare_frob(), compare_linux() and compare_shadow(), each a part
 * that may be absent, and shown by compare_text(), compare_json() and compare_html(),
 * which know nothing of how it was got. A column is an engine of ours, or QEMU's TCG.
 *
 * What a figure is and is not: native figures are measured in user mode on this host, and
 * only where the very same instructions can run there. A column whose hardware support is
 * itself emulated is marked (`emulated`): its figures are the emulator's.
 */
#ifndef COMPARE_COMPARE_H
#define COMPARE_COMPARE_H

#include <stdio.h>

#include "base/types.h"

struct cJSON;

#define COMPARE_COLUMNS 10
#define COMPARE_BENCHES 32
#define COMPARE_EVENTS 12
#define COMPARE_SELF 24
#define COMPARE_MACRO 24

/* What frob calls its benchmarks, and what the paper measured. */
struct compare_bench {
    const char *name;
    const char *what;
    double paper_native, paper_bt, paper_vt; /* 0: not in the paper */
    bool user; /* user code does it, and of programs there are 64 bits alone directly */
};
extern const struct compare_bench compare_benches[];
extern const unsigned compare_bench_count;

enum figure_state { FIGURE_NONE, FIGURE_OK, FIGURE_ABSENT, FIGURE_FAILED };

/* Something that an engine counted, for each operation. */
struct compare_event {
    char name[32];
    bool exit; /* of cpu/exit.def; else of base/counters.def */
    double each;
};

struct compare_figure {
    enum figure_state state;
    double min, median, max; /* cycles an operation, or seconds */
    unsigned samples;
    char why[120]; /* FIGURE_FAILED */
    unsigned event_count;
    struct compare_event events[COMPARE_EVENTS]; /* the most frequent ones */
};

struct compare_self {
    char name[24];
    char got[24], want[24];
    bool ok;
};

struct compare_column {
    char name[24];
    bool ours;          /* an engine of bivisor; else QEMU */
    bool hardware;      /* claims to use the CPU's virtualization */
    bool emulated;      /* ... which is emulated underneath */
    const char *direct; /* of --direct, with bt; NULL: not bt. With auto, which is on for
                           frob, that has the rows of user code alone */
    const char *words;  /* of bivisor.elf's, which it is under QEMU; NULL: it is not */
    char unusable[160]; /* why nothing could be run on it, or "" */
    struct compare_figure frob[2][COMPARE_BENCHES]; /* 32 bits, 64 bits */
    unsigned self_count[2];
    struct compare_self self[2][COMPARE_SELF];
    struct compare_figure macro[COMPARE_MACRO];
};

struct compare_macro {
    char name[24];
    const char *what;
    double paper_bt, paper_vt; /* times native in the paper, 0: not there */
    struct compare_figure native;
    char result[32]; /* that the native run computed: what the others must too */
};

#define COMPARE_POLICIES 3
#define COMPARE_LOADS 3

struct compare_shadow_cell {
    struct compare_figure figure;
    double trace_hits, trace_drops; /* for each operation */
    double hidden_faults, true_faults;
    double switches, space_misses;
};

struct compare_report {
    char host[64];
    double tsc_mhz;
    bool host_is_virtual; /* this host has a hypervisor under it */
    char date[40];
    bool widths[2]; /* 32, 64 bits: was run */
    bool brief;     /* few samples: for tests */
    unsigned columns;
    struct compare_column column[COMPARE_COLUMNS];
    struct compare_figure native[COMPARE_BENCHES];
    bool has_frob;

    bool has_macro;
    unsigned macros;
    struct compare_macro macro[COMPARE_MACRO];

    bool has_shadow;
    char shadow_engine[24];
    struct compare_shadow_cell shadow[COMPARE_LOADS][COMPARE_POLICIES];
};

extern const char *const compare_policies[COMPARE_POLICIES];
extern const char *const compare_loads[COMPARE_LOADS];
extern const char *const compare_load_what[COMPARE_LOADS];

/* What a run is made with. */
struct compare_setup {
    char dir[64];          /* temporary, ours */
    char self[4096];       /* path of this program */
    const char *only;      /* benchmark names, comma-separated, or NULL */
    const char *linux_dir; /* what bench/macro made, or NULL */
    const char *bare;      /* bivisor.elf, or NULL */
    bool brief;
};

/* tables.c. */
int compare_index(const char *name); /* of a benchmark, or -1 */
/* NAME is one of the comma-separated LIST; any is in NULL. */
bool compare_in_list(const char *list, const char *name);

/* events.c. */
/* A counter or an exit of a run less that of another, which may be NULL. */
double compare_counted(const struct cJSON *stats, const struct cJSON *base,
                       const char *group, const char *name);
/* Those that a run counted and BASE did not, for each of OPS, from LEAST on. */
void compare_add_events(struct compare_figure *f, const struct cJSON *stats,
                        const struct cJSON *base, double ops, double least);

/* frob.c. */
struct frob_run {
    const char *engine;    /* of ours; NULL: QEMU's TCG */
    const char *direct;    /* its --direct; NULL: it has none */
    const char *words;     /* of bivisor.elf's, instead; or NULL */
    const char *retention; /* or NULL */
    unsigned bits;
    const char *only; /* frob's option; "none" runs no benchmark */
    double limit;     /* seconds */
};
struct frob_output {
    unsigned lines; /* 0: frob did not start */
    struct compare_figure figure[COMPARE_BENCHES + COMPARE_LOADS];
    uint64_t total[COMPARE_BENCHES + COMPARE_LOADS]; /* operations */
    unsigned selfs;
    struct compare_self self[COMPARE_SELF];
    bool done;
    char trouble[120];   /* what it said when it gave up, or how it ended; "" when done */
    struct cJSON *stats; /* of ours; the caller deletes it */
};
/* 0 or -errno (nothing ran). */
int frob_run(const struct compare_setup *s, const struct frob_run *run,
             struct frob_output *out);
bool frob_install(const struct compare_setup *s); /* the images, in S->dir */
void compare_frob(struct compare_report *r, const struct compare_setup *s);

void compare_native(struct compare_report *r, bool brief);
bool compare_linux(struct compare_report *r, const struct compare_setup *s);
void compare_shadow(struct compare_report *r, const struct compare_setup *s);

/* All engines, user code run directly where this host can, TCG if it is installed, and
 * with BARE bivisor.elf's two kinds of paging, as columns; ENGINES picks, or is NULL.
 * False: it names what there is not, which has been told. */
bool compare_columns(struct compare_report *r, const char *engines, bool bare);

void compare_text(const struct compare_report *r, FILE *f);
/* The text to be freed by the caller; NULL: out of memory. */
char *compare_json(const struct compare_report *r);
void compare_html(const struct compare_report *r, FILE *f);

/* Number for people: three significant digits or so. */
const char *compare_number(double v, char *buf, size_t size);
const struct compare_column *compare_tcg(const struct compare_report *r); /* or NULL */
const char *compare_column_label(const struct compare_column *c, char *buf, size_t size);

#endif
