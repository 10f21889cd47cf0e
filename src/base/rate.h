/*
 * How much of something may be had in a time: a bucket of tokens, which fills at a steady
 * rate. Whoever finds one in it may have as much as he wants, and what the bucket had too
 * little of is owed: so nothing is too large to be had at all, and over time the rate is
 * kept exactly.
 *
 * It is kept as a time: when it would be full if nobody took anything more. Times are
 * nanoseconds of any clock that does not go back, which the caller has. Locking is the
 * caller's.
 */
#ifndef BASE_RATE_H
#define BASE_RATE_H

#include "base/types.h"

/* AMOUNT in each PER_NS, and as much at once as comes in FILL_NS; besides ONCE, which
 * does not come back. AMOUNT or PER_NS 0: as much as one likes. */
struct rate_limit {
    uint64_t amount, per_ns, fill_ns, once;
};

#define RATE_NS_MAX 1000000000000000000u /* of both times; more counts as this */

struct rate {
    struct rate_limit limit;
    uint64_t full_ns;
    uint64_t spare_ns; /* so long before that there is one token, or all that it holds */
};

static inline bool rate_is_limited(const struct rate *r) {
    return r->limit.amount && r->limit.per_ns;
}

/* The FILL_NS with which a bucket that fills as L says holds N. */
uint64_t rate_fill_ns(const struct rate_limit *l, uint64_t n);

/* What it holds then; at least 1, but 0 where there is no limit. */
uint64_t rate_holds(const struct rate_limit *l);

/* From now on it is L; what was owed is forgotten, and the bucket is full. */
void rate_set(struct rate *r, const struct rate_limit *l, uint64_t now);
/* When something may be had: NOW or earlier, or the time to ask again. */
uint64_t rate_when(const struct rate *r, uint64_t now);
/* N were had at NOW. */
void rate_take(struct rate *r, uint64_t n, uint64_t now);

#endif
