/*
 * The virtual clock. Its nanoseconds are the source's; the guest's TSC is the source's
 * tick count plus an offset.
 *
 * Timers hang in a list sorted by deadline: a PC has fewer than ten. Timers of one
 * deadline fire in the order in which they were armed.
 *
 * A timer that is armed from inside vclock_run() for a time that has come already fires
 * in the next run, not in this one: so a run ends whatever the devices (and the guest
 * that programs them) ask for.
 */
#include "bus/clock.h"

#include <stdlib.h>

#include "base/bug.h"
#include "snapshot/snapshot.h"

struct vclock {
    struct vclock_source src;
    uint64_t tsc_offset;
    struct vtimer *head;
    uint64_t told; /* the deadline that the source knows */
    uint64_t run_now;
    bool running;
};

struct vclock *vclock_new(const struct vclock_source *src) {
    struct vclock *c = calloc(1, sizeof(*c));

    BUG_ON(!src->tick_hz);
    if (!c)
        return NULL;
    c->src = *src;
    c->told = VCLOCK_NEVER;
    return c;
}

void vclock_free(struct vclock *c) {
    free(c);
}

uint64_t vclock_now(const struct vclock *c) {
    return c->src.now_ns(c->src.arg);
}

uint64_t vclock_ticks(const struct vclock *c) {
    return c->src.ticks(c->src.arg);
}

uint64_t vclock_tsc_at(const struct vclock *c, uint64_t ticks) {
    return ticks + c->tsc_offset;
}

uint64_t vclock_tsc(const struct vclock *c) {
    return vclock_ticks(c) + c->tsc_offset;
}

uint64_t vclock_tsc_hz(const struct vclock *c) {
    return c->src.tick_hz;
}

void vclock_tsc_set_at(struct vclock *c, uint64_t ticks, uint64_t value) {
    c->tsc_offset = value - ticks;
}

void vclock_tsc_set(struct vclock *c, uint64_t value) {
    vclock_tsc_set_at(c, vclock_ticks(c), value);
}

uint64_t vclock_ns_of_tsc(const struct vclock *c, uint64_t value) {
    uint64_t now = vclock_now(c), tsc = vclock_tsc(c);
    unsigned __int128 ns;

    if (value <= tsc)
        return now;
    ns = (unsigned __int128)(value - tsc) * 1000000000u + (c->src.tick_hz - 1);
    ns = ns / c->src.tick_hz + now;
    return ns >= VCLOCK_NEVER ? VCLOCK_NEVER : (uint64_t)ns;
}

static void tell_source(struct vclock *c) {
    uint64_t first = vclock_next(c);

    if (c->running || first == c->told)
        return;
    c->told = first;
    if (c->src.deadline_changed)
        c->src.deadline_changed(c->src.arg, first);
}

static void list_remove(struct vclock *c, struct vtimer *t) {
    struct vtimer **p = &c->head;

    while (*p && *p != t)
        p = &(*p)->next;
    if (*p)
        *p = t->next;
    t->next = NULL;
    t->armed = false;
}

void vtimer_arm(struct vclock *c, struct vtimer *t, uint64_t deadline) {
    struct vtimer **p = &c->head;

    if (t->armed)
        list_remove(c, t);
    if (deadline == VCLOCK_NEVER) {
        tell_source(c);
        return;
    }
    if (c->running && deadline <= c->run_now)
        deadline = c->run_now + 1;
    t->deadline = deadline;
    t->rank = UINT32_MAX;
    while (*p && (*p)->deadline <= deadline)
        p = &(*p)->next;
    t->next = *p;
    t->armed = true;
    *p = t;
    tell_source(c);
}

void vtimer_cancel(struct vclock *c, struct vtimer *t) {
    if (!t->armed)
        return;
    list_remove(c, t);
    tell_source(c);
}

uint64_t vclock_next(const struct vclock *c) {
    return c->head ? c->head->deadline : VCLOCK_NEVER;
}

void vclock_run(struct vclock *c) {
    if (c->running)
        return;
    c->running = true;
    c->run_now = vclock_now(c);
    while (c->head && c->head->deadline <= c->run_now) {
        struct vtimer *t = c->head;

        c->head = t->next;
        t->next = NULL;
        t->armed = false;
        t->fire(t->arg);
    }
    c->running = false;
    /* The source's alarm has gone off: it must be told again even of the same time. */
    c->told = VCLOCK_NEVER - 1;
    tell_source(c);
}

/* --- snapshots --- */

static uint32_t rank_of(const struct vclock *c, const struct vtimer *t) {
    uint32_t rank = 0;

    for (const struct vtimer *p = c->head; p && p != t; p = p->next)
        rank++;
    return rank;
}

void vtimer_state(struct vclock *c, struct vtimer *t, struct snapshot *s) {
    bool armed = t->armed;
    uint64_t deadline = t->armed ? t->deadline : 0;
    uint32_t rank = t->armed ? rank_of(c, t) : 0;
    struct vtimer **p = &c->head;

    SNAPSHOT(s, armed);
    SNAPSHOT(s, deadline);
    SNAPSHOT(s, rank);
    if (!snapshot_reading(s))
        return;
    vtimer_cancel(c, t);
    if (!armed || deadline == VCLOCK_NEVER)
        return;
    while (*p && ((*p)->deadline < deadline ||
                  ((*p)->deadline == deadline && (*p)->rank < rank)))
        p = &(*p)->next;
    t->deadline = deadline;
    t->rank = rank;
    t->next = *p;
    t->armed = true;
    *p = t;
    tell_source(c);
}
