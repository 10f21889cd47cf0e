/* The counters of a CPU, or of what a VM's CPUs share; see counters.def. Plain
 * increments: each set belongs to one thread, or to who holds the board. */
#ifndef BASE_COUNTERS_H
#define BASE_COUNTERS_H

#include <stdint.h>

struct counters {
#define COUNTER(name, what) uint64_t name;
#include "base/counters.def"
#undef COUNTER
};

/* Adds each of MORE to SUM. */
void counters_add(struct counters *sum, const struct counters *more);

#endif
