/*
 * Inside mem/: the layout, which says what is where, and struct mem around it.
 *
 * Regions are listed in the order in which they were added (the board's RAM first), runs
 * are what mem_set_kind() made of pages: both are what was asked for. The pieces follow
 * from them (mem_layout_build()): sorted, apart from each other, each one region's and
 * of one kind. Addresses are looked up in the pieces, the two large ones first.
 *
 * Invariants: places of regions in the mapping do not overlap; runs are sorted by
 * offset, apart from each other, each inside one region and of another kind than it.
 */
#ifndef MEM_INT_H
#define MEM_INT_H

#include "base/os_overlay.h"
#include "mem/mem.h"

#define PAGE_SIZE 4096ull
#define PAGE_SHIFT 12
#define MAX_REGIONS 32
#define MAX_RUNS 32
#define MEM_BLANKS 32u /* ranges that were given back while a file was shown */
/* A run makes three pieces of one. N pieces, one hiding the other, are seen as 2 N - 1 at
 * most. */
#define MAX_PIECES (2 * (MAX_REGIONS + 2 * MAX_RUNS))

struct mem_region {
    uint64_t start;
    uint64_t size; /* 0: unused */
    uint64_t off;  /* of its first byte in the mapping */
    enum mem_kind kind;
    bool on;
    bool added;
};

/* Offsets FROM..TO-1 of the mapping. */
struct mem_run {
    uint64_t from, to;
    enum mem_kind kind;
};

struct mem_layout {
    uint8_t *base; /* of the mapping */
    struct mem_region region[MAX_REGIONS];
    struct mem_region *order[MAX_REGIONS]; /* the earlier hides the later */
    unsigned regions;
    struct mem_run run[MAX_RUNS];
    unsigned runs;
    struct mem_piece piece[MAX_PIECES], spare[MAX_PIECES];
    unsigned pieces;
    struct mem_piece large[2]; /* the largest of RAM below 4 GiB, and above; or empty */
};

struct mem {
    struct mem_layout layout;
    uint64_t size; /* of RAM */
    uint64_t host; /* of the mapping */
    int fd;
    int shown;                 /* mem_overlay(): the file; else -1 */
    struct os_overlay overlay; /* of what is shown; all zero: the host does not tell */
    unsigned blanks;           /* more than MEM_BLANKS: they are not all known */
    struct mem_blank {
        uint64_t from, to;
    } blank[MEM_BLANKS];
    uint8_t *page; /* for each page of the mapping: trace bits, PAGE_ROM, PAGE_HIDDEN */
    uint8_t *used; /* for each large page of it: calls of mem_use(), up to some */
    bool tracked;  /* MEM_TRACE_DIRTY is track.c's */
    unsigned refused; /* how often the host had no large page */
    struct mem_region *rom;
    struct mem_hooks hooks;
};

/* layout.c. What is asked for changes the pieces with mem_layout_build() only. */
/* A region at the end of the order; NULL when there are too many. */
struct mem_region *mem_layout_add(struct mem_layout *l, const struct mem_region *r);
void mem_layout_remove(struct mem_layout *l, struct mem_region *r);
/* Pages FROM..TO-1 of the mapping, of one region, are of KIND. False: too many runs. */
bool mem_layout_set_kind(struct mem_layout *l, const struct mem_region *r, uint64_t from,
                         uint64_t to, enum mem_kind kind);
void mem_layout_build(struct mem_layout *l);
/* The first region that is on and has all of [START, START+LEN), or NULL. */
struct mem_region *mem_layout_region_at(const struct mem_layout *l, uint64_t start,
                                        uint64_t len);
/* Where the byte at OFF of the mapping is seen, or ~0: by regions. */
uint64_t mem_layout_search_host(const struct mem_layout *l, uint64_t off);
/* The piece at AT, or NULL: by halves. */
const struct mem_piece *mem_layout_search(const struct mem_layout *l, uint64_t at);

static inline const struct mem_piece *mem_layout_at(const struct mem_layout *l,
                                                    uint64_t at) {
    if (likely(at - l->large[0].start.a < l->large[0].size))
        return &l->large[0];
    if (at - l->large[1].start.a < l->large[1].size)
        return &l->large[1];
    return mem_layout_search(l, at);
}

/* Where a pointer into the mapping is seen, or ~0. */
static inline uint64_t mem_layout_gpa(const struct mem_layout *l, const uint8_t *host) {
    uint64_t at = (uintptr_t)host, in = at - (uintptr_t)l->large[0].host;

    if (likely(in < l->large[0].size))
        return l->large[0].start.a + in;
    in = at - (uintptr_t)l->large[1].host;
    if (in < l->large[1].size)
        return l->large[1].start.a + in;
    return mem_layout_search_host(l, at - (uintptr_t)l->base);
}

#endif
