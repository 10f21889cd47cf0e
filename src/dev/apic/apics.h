/*
 * All local APICs of a machine: to whom a message goes.
 *
 * Any thread may send; the set itself does not change while there are messages.
 */
#ifndef DEV_APICS_H
#define DEV_APICS_H

#include "dev/apic/lapic.h"

#define APICS_MAX 64u

struct apics {
    struct lapic *lapic[APICS_MAX]; /* of COUNT */
    unsigned count;
    unsigned turn; /* where the next search for the lowest priority begins; atomic */
};

/* M goes TO, as seen from the local APIC MINE: that of the CPU whose thread this is;
 * NULL: it is no CPU's. False: nobody accepted it. */
bool apics_deliver(struct apics *a, const struct apic_msg *m, enum apic_to to,
                   struct lapic *mine);

#endif
