/*
 * To whom a message goes; see apics.h.
 *
 * Of those that a message for the lowest priority names, the one whose task priority is
 * the lowest takes it, and among equals each in turn. Intel SDM volume 3, "Lowest
 * Priority Delivery Mode".
 */
#include "dev/apic/apics.h"

static bool is_for(const struct lapic *l, const struct apic_msg *m, enum apic_to to,
                   const struct lapic *mine) {
    switch (to) {
    case APIC_TO_SELF:
        return l == mine;
    case APIC_TO_ALL:
        return true;
    case APIC_TO_OTHERS:
        return l != mine;
    default:
        return lapic_addressed(l, m);
    }
}

/* The one that TURN comes to, of those with the lowest priority; but for those of the set
 * REFUSED. a->count: there is none. */
static unsigned choose(const struct apics *a, const struct apic_msg *m, enum apic_to to,
                       const struct lapic *mine, uint64_t refused) {
    unsigned turn = __atomic_load_n(&a->turn, __ATOMIC_RELAXED);
    unsigned lowest = 256, best = a->count;

    for (unsigned k = 0; k < a->count; k++) {
        unsigned n = (turn + k) % a->count;
        unsigned priority = lapic_priority(a->lapic[n]); /* its owner may change it */

        if (priority < lowest && !(refused >> n & 1) &&
            is_for(a->lapic[n], m, to, mine)) {
            lowest = priority;
            best = n;
        }
    }
    return best;
}

/* One that is disabled between the choice and the delivery refuses: the message is the
 * others' then, not lost. */
static bool to_lowest(struct apics *a, const struct apic_msg *m, enum apic_to to,
                      struct lapic *mine) {
    uint64_t refused = 0;

    for (;;) {
        unsigned n = choose(a, m, to, mine, refused);

        if (n == a->count)
            return false;
        if (lapic_deliver(a->lapic[n], m, a->lapic[n] == mine)) {
            __atomic_store_n(&a->turn, n + 1, __ATOMIC_RELAXED);
            return true;
        }
        refused |= 1ull << n;
    }
}

bool apics_deliver(struct apics *a, const struct apic_msg *m, enum apic_to to,
                   struct lapic *mine) {
    bool taken = false;

    if (m->mode == APIC_LOWEST)
        return to_lowest(a, m, to, mine);
    for (unsigned n = 0; n < a->count; n++)
        if (is_for(a->lapic[n], m, to, mine))
            taken |= lapic_deliver(a->lapic[n], m, a->lapic[n] == mine);
    return taken;
}
