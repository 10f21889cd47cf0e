/* Sums of counters; see counters.h. */
#include "base/counters.h"

void counters_add(struct counters *sum, const struct counters *more) {
#define COUNTER(name, what) sum->name += more->name;
#include "base/counters.def"
#undef COUNTER
}
