/* The local APIC as a device: made, reset and freed. lapic_irq.c has what it is about,
 * lapic_timer.c its timer, lapic_regs.c its registers. */
#include <stdlib.h>

#include "dev/apic/lapic_int.h"

void lapic_reset(struct lapic *l) {
    bus_range_move(l->range, LAPIC_BASE);
    bus_range_enable(l->range, true);
    l->base = LAPIC_BASE | BASE_ENABLE | BASE_BSP;
    l->id = 0;
    lapic_clear_regs(l);
    l->svr |= SVR_ENABLE;
    l->lvt[LVT_LINT0] = APIC_EXTINT << 8;
    l->lvt[LVT_LINT1] = APIC_NMI << 8;
    lapic_update(l);
}

struct lapic *lapic_new(struct bus *bus, struct vclock *clock,
                        const struct lapic_host *host, struct counters *cnt) {
    struct lapic *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    l->clock = clock;
    l->host = *host;
    l->cnt = cnt;
    l->timer = (struct vtimer){.fire = lapic_timer_fire, .arg = l};
    l->range = bus_attach_mmio(bus, gpa(LAPIC_BASE), 0x1000, &lapic_mmio_ops, l, "lapic");
    if (!l->range) {
        free(l);
        return NULL;
    }
    lapic_reset(l);
    return l;
}

void lapic_free(struct lapic *l) {
    if (!l)
        return;
    lapic_timer_stop(l);
    bus_range_detach(l->range);
    free(l);
}
