/* Time of a counted run; see counted.h. */
#include "machine/counted.h"

void counted_init(struct counted *c, struct vcpu *v) {
    *c = (struct counted){.vcpu = v,
                          .input_at = VCLOCK_NEVER,
                          .until = UINT64_MAX,
                          .reached = UINT64_MAX,
                          .mark = UINT64_MAX,
                          .keep = UINT64_MAX};
    v->counted = true;
    v->stop = UINT64_MAX;
}

uint64_t counted_now(const struct counted *c) {
    return c->vcpu->cnt->insns_retired + c->slept;
}

static uint64_t due(const struct counted *c) {
    uint64_t at = c->input_at;

    for (size_t n = 0; n < ARRAY_SIZE(c->clock); n++)
        if (c->clock[n] && vclock_next(c->clock[n]) < at)
            at = vclock_next(c->clock[n]);
    return at;
}

void counted_aim(struct counted *c) {
    uint64_t at = due(c), now = counted_now(c);
    uint64_t retired = c->vcpu->cnt->insns_retired;
    uint64_t stop = at == VCLOCK_NEVER ? UINT64_MAX
                    : at > now         ? retired + (at - now)
                                       : retired;

    stop = stop < c->until ? stop : c->until;
    stop = stop < c->mark ? stop : c->mark;
    stop = stop < c->keep ? stop : c->keep;
    c->vcpu->stop = stop < c->reached ? stop : c->reached;
}

uint64_t counted_sleep_ns(const struct counted *c) {
    uint64_t at = due(c), now = counted_now(c);

    return at >= COUNTED_END ? VCLOCK_NEVER : at > now ? at - now : 0;
}
