/* The local APIC as a device: made, reset and freed. lapic_irq.c has what it is about,
 * lapic_timer.c its timer, lapic_regs.c its registers. */
#include <stdlib.h>

#include "dev/apic/lapic_int.h"

void lapic_reset(struct lapic *l) {
    bool boot = l->id == 0;

    SHOW(l->base, LAPIC_BASE | BASE_ENABLE | (boot ? BASE_BSP : 0));
    lapic_clear_regs(l);
    if (boot) {
        SHOW(l->svr, l->svr | SVR_ENABLE);
        l->lvt[LVT_LINT0] = APIC_EXTINT << 8;
        l->lvt[LVT_LINT1] = APIC_NMI << 8;
    }
    lapic_update(l);
}

void lapic_init(struct lapic *l) {
    lapic_clear_regs(l);
    lapic_update(l);
}

struct lapic *lapic_new(unsigned id, struct vclock *clock, const struct lapic_host *host,
                        struct counters *cnt) {
    struct lapic *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    l->id = id;
    l->clock = clock;
    l->host = *host;
    l->cnt = cnt;
    l->timer = (struct vtimer){.fire = lapic_timer_fire, .arg = l};
    lapic_reset(l);
    return l;
}

void lapic_free(struct lapic *l) {
    if (!l)
        return;
    lapic_timer_stop(l);
    free(l);
}
