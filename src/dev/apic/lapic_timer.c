/*
 * The local APIC's timer. Intel SDM volume 3, "APIC Timer".
 *
 * The counter is not kept: `end` is the time at which it reaches 0, and the current count
 * follows from the clock. The input is 1 GHz, so a tick is `divider` nanoseconds.
 *
 * A periodic timer that is late (the guest did not run) fires once and goes on with the
 * next period in its grid: IRR could not hold more than one anyway. A period shorter than
 * LAPIC_MIN_PERIOD_NS runs at that.
 */
#include "dev/apic/lapic_int.h"

static unsigned divider_shift(const struct lapic *l) {
    unsigned v = (l->divide & 3) | ((l->divide & 8) >> 1);

    return (v + 1) & 7; /* 0b111 divides by 1 */
}

static uint64_t period(const struct lapic *l) {
    uint64_t ns = (uint64_t)l->initial << divider_shift(l);

    return ns < LAPIC_MIN_PERIOD_NS ? LAPIC_MIN_PERIOD_NS : ns;
}

static unsigned mode(const struct lapic *l) {
    return LVT_TIMER_MODE(l->lvt[LVT_TIMER]);
}

void lapic_timer_stop(struct lapic *l) {
    vtimer_cancel(l->clock, &l->timer);
    l->deadline = 0;
}

static void run_until(struct lapic *l, uint64_t end) {
    l->end = end;
    vtimer_arm(l->clock, &l->timer, end);
}

static void fire_deadline(struct lapic *l) {
    if (!l->deadline)
        return;
    if (vclock_tsc(l->clock) < l->deadline) { /* rounding, or the TSC was set */
        run_until(l, vclock_ns_of_tsc(l->clock, l->deadline));
        return;
    }
    l->deadline = 0;
    l->cnt->irq_timer_lapic++;
    lapic_lvt_fire(l, LVT_TIMER);
}

void lapic_timer_fire(void *lapic) {
    struct lapic *l = lapic;
    uint64_t now;

    if (mode(l) == TIMER_DEADLINE) {
        fire_deadline(l);
        return;
    }
    if (mode(l) == TIMER_PERIODIC && l->initial) {
        now = vclock_now(l->clock);
        if (l->end <= now)
            l->end += ((now - l->end) / period(l) + 1) * period(l);
        run_until(l, l->end);
    }
    l->cnt->irq_timer_lapic++;
    lapic_lvt_fire(l, LVT_TIMER);
}

/* The clock runs timers now and then: one that has ended since is run here, under the
 * settings that it ended with, before they change or anybody sees that it has ended. */
static void catch_up(struct lapic *l) {
    if (!l->timer.armed || l->end > vclock_now(l->clock))
        return;
    vtimer_cancel(l->clock, &l->timer);
    lapic_timer_fire(l);
}

void lapic_timer_set_lvt(struct lapic *l, uint32_t value) {
    unsigned before = mode(l);

    catch_up(l);

    l->lvt[LVT_TIMER] = value;
    if ((before == TIMER_DEADLINE) != (mode(l) == TIMER_DEADLINE)) {
        lapic_timer_stop(l);
        l->initial = 0;
    }
}

void lapic_timer_set_initial(struct lapic *l, uint32_t value) {
    uint64_t now = vclock_now(l->clock);

    if (mode(l) == TIMER_DEADLINE)
        return;
    catch_up(l);
    l->initial = value;
    if (!value)
        lapic_timer_stop(l);
    else if (mode(l) == TIMER_PERIODIC)
        run_until(l, now + period(l));
    else
        run_until(l, now + ((uint64_t)value << divider_shift(l)));
}

uint32_t lapic_timer_current(struct lapic *l) {
    uint64_t now = vclock_now(l->clock), left, p;

    catch_up(l);
    if (mode(l) == TIMER_DEADLINE || !l->initial || !l->timer.armed)
        return 0;
    if (l->end > now) {
        left = l->end - now;
    } else if (mode(l) == TIMER_PERIODIC) { /* due, not yet run: the count goes on */
        p = period(l);
        left = p - (now - l->end) % p;
    } else {
        return 0;
    }
    left >>= divider_shift(l);
    return left > l->initial ? l->initial : (uint32_t)left;
}

/* The count goes on from where it is, at another pace. */
void lapic_timer_set_divide(struct lapic *l, uint32_t value) {
    uint32_t left = lapic_timer_current(l);
    bool running = l->timer.armed && mode(l) != TIMER_DEADLINE;

    l->divide = value & 0xb;
    if (running)
        run_until(l, vclock_now(l->clock) + ((uint64_t)left << divider_shift(l)));
}

uint64_t lapic_timer_deadline(const struct lapic *l) {
    return mode(l) == TIMER_DEADLINE ? l->deadline : 0;
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t value) {
    if (mode(l) != TIMER_DEADLINE)
        return;
    catch_up(l);
    l->deadline = value;
    if (value)
        run_until(l, vclock_ns_of_tsc(l->clock, value));
    else
        vtimer_cancel(l->clock, &l->timer);
}

void lapic_tsc_changed(struct lapic *l) {
    if (l->deadline)
        lapic_timer_set_deadline(l, l->deadline);
}
