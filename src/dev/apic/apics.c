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

static bool to_lowest(struct apics *a, const struct apic_msg *m, enum apic_to to,
                      struct lapic *mine) {
    unsigned turn = __atomic_load_n(&a->turn, __ATOMIC_RELAXED), lowest = 256, at = 0;
    struct lapic *best = NULL;

    for (unsigned k = 0; k < a->count; k++) {
        unsigned n = (turn + k) % a->count;
        struct lapic *l = a->lapic[n];

        if (lapic_priority(l) < lowest && is_for(l, m, to, mine)) {
            lowest = lapic_priority(l);
            best = l;
            at = n;
        }
    }
    if (!best)
        return false;
    __atomic_store_n(&a->turn, at + 1, __ATOMIC_RELAXED);
    return lapic_deliver(best, m, best == mine);
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
