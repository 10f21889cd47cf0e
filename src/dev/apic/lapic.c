/* The local APIC as a device: made, reset and freed. lapic_irq.c has what it is about,
 * lapic_timer.c its timer, lapic_regs.c its registers. */
#include <stdlib.h>

#include "dev/apic/lapic_int.h"
#include "snapshot/snapshot.h"

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

static void vectors_state(struct vectors *v, struct snapshot *s) {
    for (unsigned n = 0; n < ARRAY_SIZE(v->w); n++)
        SNAPSHOT(s, v->w[n]);
}

static void registers_state(struct lapic *l, struct snapshot *s) {
    SNAPSHOT(s, l->base);
    SNAPSHOT(s, l->ldr);
    SNAPSHOT(s, l->dfr);
    SNAPSHOT(s, l->svr);
    SNAPSHOT_UPTO(s, l->tpr, 255);
    SNAPSHOT(s, l->esr);
    SNAPSHOT(s, l->esr_latch);
    SNAPSHOT(s, l->icr);
    for (unsigned n = 0; n < LVT_COUNT; n++)
        SNAPSHOT(s, l->lvt[n]);
    vectors_state(&l->irr, s);
    vectors_state(&l->isr, s);
    vectors_state(&l->tmr, s);
    SNAPSHOT(s, l->lint[0]);
    SNAPSHOT(s, l->lint[1]);
    SNAPSHOT(s, l->extint);
}

void lapic_state(struct lapic *l, struct snapshot *s) {
    if (!snapshot_reading(s))
        lapic_settle(l);
    registers_state(l, s);
    SNAPSHOT(s, l->initial);
    SNAPSHOT(s, l->divide);
    SNAPSHOT(s, l->end);
    SNAPSHOT(s, l->deadline);
    vtimer_state(l->clock, &l->timer, s);
    if (!snapshot_reading(s))
        return;
    l->out = !lapic_pending(l); /* so that its CPU hears how it is */
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
