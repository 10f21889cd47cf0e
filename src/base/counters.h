/* The counters of one VM; see counters.def. Plain increments: one vCPU thread. */
#ifndef BASE_COUNTERS_H
#define BASE_COUNTERS_H

#include <stdint.h>

struct counters {
#define COUNTER(name, what) uint64_t name;
#include "base/counters.def"
#undef COUNTER
};

#endif
