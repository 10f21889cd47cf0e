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

#define LOOKS_A_SECOND 4
#define FAIR 5 / 8 /* of the time; nearly all of it when nobody else wants the CPU */

/* Two that were pinned to one CPU would stay there, and another be idle. */
static bool crowded(const struct direct *d, uint64_t ns) {
    uint64_t passed = d->crowd_ticks * 1000 / (os_tsc_hz() / 1000000);

    return d->crowd_ns && ns - d->crowd_ns < passed * FAIR;
}

void direct_look_around(struct direct *d, const struct cell *c, uint64_t ticks) {
    uint64_t ns;

    if (d->crowd_cell == c)
        d->crowd_ticks += ticks;
    if (d->crowd_cell == c && d->crowd_ticks < os_tsc_hz() / LOOKS_A_SECOND)
        return;
    ns = cell_cpu_ns(c);
    /* By chance: whoever disturbs it may think the same just now. */
    if (d->crowd_cell == c && d->cpu >= 0 && crowded(d, ns) && os_tsc() >> 8 & 1) {
        d->cpu = cell_pool_evade(d->pool, d->cpu);
        d->n.moves++;
    }
    d->crowd_cell = c;
    d->crowd_ns = ns;
    d->crowd_ticks = 0;
}

void direct_unpin(struct direct *d) {
    vec_park(d->v);
    cell_pool_unpin(d->pool, d->cpu);
    d->cpu = -1;
}
