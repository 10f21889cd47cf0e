/*
 * Where on the host a vCPU's thread runs that uses cells: on one CPU, as they do, for a
 * hand-over to another takes ten times as long. If it can, on the one whose number is
 * the vCPU's, so that what tells it tells the same (scan.c); where others want that CPU,
 * too, it goes on, and does not come back.
 */
#include <cpuid.h>

#include "base/os.h"
#include "cpu/vec.h"
#include "direct/direct_int.h"

/* Linux has a CPU's number in it, in twelve bits. */
static uint32_t tsc_aux(void) {
    uint32_t aux;

    __asm__ volatile("rdtscp" : "=c"(aux) : : "rax", "rdx");
    return aux;
}

static bool has_rdtscp(void) {
    unsigned a, b, c, d;

    return __get_cpuid(0x80000001, &a, &b, &c, &d) && d & 1u << 27;
}

/* RDTSCP and RDPID in cells tell TSC_AUX of the host's CPU. Pages that have them are
 * mapped while that is the guest's, too, as it can be on a host that has time. */
static void see_aux(struct direct *d) {
    bool equal = d->cpu >= 0 && d->host_aux == d->v->tsc_aux;

    if (d->aux_equal && !equal)
        for (unsigned n = 0; n < MMU_SPACES_MAX; n++)
            d->space[n].all_stale = true;
    d->aux_equal = equal;
}

static void arrived(struct direct *d, int cpu) {
    d->cpu = cpu;
    d->host_aux = has_rdtscp() ? tsc_aux() : UINT32_MAX;
}

void direct_pin(struct direct *d) {
    if (d->cpu < 0) {
        arrived(d,
                cell_pool_pin(d->pool, d->moved_on ? -1 : (int)(d->v->tsc_aux & 0xfff)));
        d->ran_at = os_tsc();
    }
    see_aux(d);
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

    if (!d->opt.move)
        return;
    if (d->crowd_cell == c)
        d->crowd_ticks += ticks;
    if (d->crowd_cell == c && d->crowd_ticks < os_tsc_hz() / LOOKS_A_SECOND)
        return;
    ns = cell_cpu_ns(c);
    /* By chance: whoever disturbs it may think the same just now. */
    if (d->crowd_cell == c && d->cpu >= 0 && crowded(d, ns) && os_tsc() >> 8 & 1) {
        arrived(d, cell_pool_evade(d->pool, d->cpu));
        d->moved_on = true;
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
