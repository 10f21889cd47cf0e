/*
 * Where on the host a vCPU's thread runs that uses cells: on one CPU, as they do, for a
 * hand-over to another takes ten times as long.
 */
#include "base/os.h"
#include "cpu/vec.h"
#include "direct/direct_int.h"

void direct_pin(struct direct *d) {
    if (d->cpu >= 0)
        return;
    d->cpu = cell_pool_pin(d->pool);
    d->ran_at = os_tsc();
}

void direct_unpin(struct direct *d) {
    vec_park(d->v);
    cell_pool_unpin(d->pool, d->cpu);
    d->cpu = -1;
}
