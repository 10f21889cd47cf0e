/* Buckets of tokens; see rate.h. */
#include "base/rate.h"

static uint64_t at_most(uint64_t n, uint64_t most) {
    return n < most ? n : most;
}

/* What N cost. At most RATE_NS_MAX, which is 30 years. */
static uint64_t time_for(const struct rate_limit *l, uint64_t n) {
    unsigned __int128 ns = (unsigned __int128)n * l->per_ns + (l->amount - 1);

    ns /= l->amount;
    return ns < RATE_NS_MAX ? (uint64_t)ns : RATE_NS_MAX;
}

uint64_t rate_fill_ns(const struct rate_limit *l, uint64_t n) {
    return l->amount ? time_for(l, n) : 0;
}

uint64_t rate_holds(const struct rate_limit *l) {
    unsigned __int128 n = (unsigned __int128)l->amount * l->fill_ns;

    if (!l->amount || !l->per_ns)
        return 0;
    n /= l->per_ns;
    return n > UINT64_MAX ? UINT64_MAX : n ? (uint64_t)n : 1;
}

void rate_set(struct rate *r, const struct rate_limit *l, uint64_t now) {
    uint64_t one;

    *r = (struct rate){.limit = *l, .full_ns = now};
    r->limit.per_ns = at_most(l->per_ns, RATE_NS_MAX);
    r->limit.fill_ns = at_most(l->fill_ns, RATE_NS_MAX);
    if (!rate_is_limited(r))
        return;
    one = time_for(&r->limit, 1);
    r->spare_ns = r->limit.fill_ns > one ? r->limit.fill_ns - one : 0;
}

uint64_t rate_when(const struct rate *r, uint64_t now) {
    if (!rate_is_limited(r) || r->limit.once || r->full_ns <= now ||
        r->full_ns - now <= r->spare_ns)
        return now;
    return r->full_ns - r->spare_ns;
}

void rate_take(struct rate *r, uint64_t n, uint64_t now) {
    uint64_t once = at_most(n, r->limit.once);

    if (!rate_is_limited(r))
        return;
    r->limit.once -= once;
    if (n == once)
        return;
    if (r->full_ns < now)
        r->full_ns = now;
    r->full_ns =
        at_most(r->full_ns, UINT64_MAX - RATE_NS_MAX) + time_for(&r->limit, n - once);
}
