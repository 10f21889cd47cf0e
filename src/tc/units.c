/* The memory of the cache: the ring of units. */
#include <errno.h>
#include <stdlib.h>

#include "tc/tc_int.h"

/* As small as that, with room for the longest fragments; and as many at the most. */
#define UNIT_MIN (128u << 10)
#define UNITS_MAX 64u
#define GRANULE 1024u /* of code memory */

int tc_units_create(struct tc *tc) {
    size_t n = tc->code.size / UNIT_MIN;

    tc->nunits = (unsigned)(n < 2 ? 2 : n > UNITS_MAX ? UNITS_MAX : n);
    tc->unit_size = tc->code.size / tc->nunits & ~(GRANULE - 1ul);
    /* Short fragments have more to be known of them than code. */
    tc->unit_meta = tc->unit_size / 4 * 5 & ~63ul;
    tc->unit_order = tc->unit_meta / sizeof(struct ccf) + 1;
    tc->fragments = calloc(tc->nunits, sizeof(*tc->fragments));
    /* Large and mostly untouched: the host gives pages as they are used. */
    tc->meta = malloc(tc->unit_meta * tc->nunits);
    tc->order = malloc(tc->unit_order * tc->nunits * sizeof(*tc->order));
    tc->ends = malloc(tc->unit_order * tc->nunits * sizeof(*tc->ends));
    tc->first = malloc((tc->code.size / GRANULE + 1) * sizeof(*tc->first));
    return tc->fragments && tc->meta && tc->order && tc->ends && tc->first ? 0 : -ENOMEM;
}

void tc_units_free(struct tc *tc) {
    free(tc->fragments);
    free(tc->meta);
    free(tc->order);
    free(tc->ends);
    free(tc->first);
}

struct ccf **tc_unit_fragments(const struct tc *tc, unsigned unit) {
    return tc->order + unit * tc->unit_order;
}

static uint8_t *code_of(const struct tc *tc, unsigned unit) {
    return unit ? tc->code.rw + unit * tc->unit_size : tc->code_start;
}

static uint8_t *meta_of(const struct tc *tc, unsigned unit) {
    return tc->meta + unit * tc->unit_meta;
}

/* What is used of the cache grows by large pages, where the host has them: they are made
 * in less time than small ones, which are touched through two mappings, and code in them
 * is found with fewer entries of the host's TLB. */
static void use(struct tc *tc) {
    size_t at = (size_t)(tc->code_at - tc->code.rw) & ~(OS_LARGE_PAGE - 1);

    if (at < tc->large || tc->large + OS_LARGE_PAGE > tc->code.size)
        return;
    tc->large = os_code_large_page(&tc->code, tc->large) ? tc->code.size
                                                         : tc->large + OS_LARGE_PAGE;
}

void tc_unit_begin(struct tc *tc, unsigned unit) {
    tc->unit = unit;
    tc->code_at = code_of(tc, unit);
    tc->code_end = tc->code.rw + (unit + 1) * tc->unit_size;
    tc->meta_at = meta_of(tc, unit);
    use(tc);
}

bool tc_is_insn(const struct tc *tc, const struct insn *i) {
    size_t size = tc->nunits * tc->unit_meta;
    size_t off = (size_t)((const uint8_t *)i - tc->meta);

    return off % 8 == 0 && off < size && size - off >= sizeof(*i);
}

struct ccf *tc_reserve(const struct tc *tc, struct tr_span *span) {
    struct ccf *c;

    *span = (struct tr_span){.code = tc->code_at,
                             .code_end = tc->code_end,
                             .records = tc->meta_at,
                             .records_end = meta_of(tc, tc->unit + 1)};
    c = tr_span_record(span, sizeof(*c));
    if (c)
        __builtin_memset(c, 0, sizeof(*c));
    return c;
}

/* For granules that begin in C, or that nothing begins in before it. */
static void note_first(struct tc *tc, const struct ccf *c) {
    size_t from = (size_t)(c->code.start - tc->code.rx) / GRANULE;
    size_t to = (size_t)(c->code.end - 1 - tc->code.rx) / GRANULE;
    size_t n = tc->fragments[tc->unit];
    uint32_t *ends = tc->ends + tc->unit * tc->unit_order;

    ends[n] = (uint32_t)(c->code.end - tc->code.rx);
    if (n)
        from = (ends[n - 1] - 1) / GRANULE + 1;
    for (; from <= to; from++)
        tc->first[from] = (uint32_t)n;
}

void tc_unit_add(struct tc *tc, const struct tr_span *span, struct ccf *c) {
    tc->code_at = (uint8_t *)(((uintptr_t)span->code + 15) & ~15ul);
    tc->meta_at = span->records;
    use(tc);
    note_first(tc, c);
    tc_unit_fragments(tc, tc->unit)[tc->fragments[tc->unit]++] = c;
}

bool tc_unit_empty(const struct tc *tc) {
    return !tc->fragments[tc->unit];
}

struct ccf *tc_find(const struct tc *tc, const uint8_t *rx) {
    size_t at = (size_t)(rx - tc->code.rx), unit = at / tc->unit_size;
    const uint32_t *ends;
    struct ccf *c;

    if (rx < tc->code.rx || unit >= tc->nunits)
        return NULL;
    ends = tc->ends + unit * tc->unit_order;
    for (size_t n = tc->first[at / GRANULE]; n < tc->fragments[unit]; n++)
        if (at < ends[n]) {
            c = tc_unit_fragments(tc, (unsigned)unit)[n];
            return c->code.start <= rx ? c : NULL;
        }
    return NULL;
}

void tc_each(const struct tc *tc, void (*fn)(void *arg, struct ccf *c), void *arg) {
    for (unsigned u = 0; u < tc->nunits; u++)
        for (size_t n = 0; n < tc->fragments[u]; n++)
            fn(arg, tc_unit_fragments(tc, u)[n]);
}

void tc_each_of(const struct tc *tc, unsigned unit, void (*fn)(void *arg, struct ccf *c),
                void *arg) {
    for (size_t n = tc->fragments[unit]; n--;)
        fn(arg, tc_unit_fragments(tc, unit)[n]);
}
