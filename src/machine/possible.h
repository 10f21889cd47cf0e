/* Can a CPU be as a snapshot says? Engines take what holds of every CPU for granted. */
#ifndef MACHINE_POSSIBLE_H
#define MACHINE_POSSIBLE_H

#include "cpu/vcpu.h"

/* The state that was read into V is one that a guest could have come to, as far as
 * engines and the host's CPU lean on it. What follows from it is put right: the header of
 * the vector image. */
bool possible_vcpu(struct vcpu *v);

#endif
