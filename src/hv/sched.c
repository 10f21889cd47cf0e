/*
 * The guests' CPUs on the host's: in turn, SLICE_NS each while others wait. A turn ends
 * when the guest's CPU halts, or when its slice is over and another is ready; its engine
 * has come back by then, and all of its state is its own, so that a turn needs no stack.
 *
 * The host's timer is set to the earliest of what wants to be done: a deadline of the one
 * that runs, or of another that sleeps, and the slice's end while another is ready.
 */
#include "bare/bare.h"
#include "base/os.h"
#include "hv/hv_int.h"

#define SLICE_NS 2000000u

static struct {
    struct hv_task *first, *last;
    struct hv_task *current; /* who runs; NULL: nobody */
    uint64_t slice_end;
} host;

void hv_sched_add(struct hv_task *t) {
    if (host.last)
        host.last->next = t;
    else
        host.first = t;
    host.last = t;
}

/* Wants T its turn, as far as can be seen from outside? */
static bool waits(struct hv_task *t, uint64_t now) {
    if (t->off || t == host.current)
        return false;
    return !t->idle || t->ops->deadline(t) <= now || t->ops->ready(t);
}

static bool others_wait(uint64_t now) {
    for (struct hv_task *t = host.first; t; t = t->next)
        if (waits(t, now))
            return true;
    return false;
}

static void set_timer(uint64_t now) {
    uint64_t at = UINT64_MAX, one;

    for (struct hv_task *t = host.first; t; t = t->next) {
        one = t->off ? UINT64_MAX : t->ops->deadline(t);
        /* One that is due already waits for its turn. */
        if (one < at && (t == host.current || !host.current || one > now))
            at = one;
    }
    if (host.current && host.slice_end < at && others_wait(now))
        at = host.slice_end;
    bare_timer_set(at);
}

void hv_sched_deadline(struct hv_task *t) {
    set_timer(os_monotonic_ns());
}

void hv_sched_serviced(struct hv_task *t) {
    uint64_t now = os_monotonic_ns();

    if (now >= host.slice_end && others_wait(now))
        vcpu_raise(t->cpu->vcpu, VCPU_EVENT_STOP);
    else
        set_timer(now);
}

/* The one that runs is to look at its events; at least it sets the timer anew. */
static void kick_current(void) {
    struct hv_task *t = host.current;

    if (!t)
        return;
    vcpu_raise(t->cpu->vcpu, VCPU_EVENT_KICK);
    if (t->cpu->engine)
        t->cpu->ops->kick(t->cpu->engine);
}

void hv_sched_kick(struct hv_task *t) {
    if (t != host.current)
        kick_current(); /* T may want its turn now */
    else if (t->cpu->engine)
        t->cpu->ops->kick(t->cpu->engine);
}

/* In the handler of an interrupt of the host's. */
static void on_interrupt(void *arg) {
    kick_current();
}

static void turn(struct hv_task *t) {
    host.slice_end = os_monotonic_ns() + SLICE_NS;
    __atomic_store_n(&host.current, t, __ATOMIC_SEQ_CST);
    t->ops->run(t);
    __atomic_store_n(&host.current, NULL, __ATOMIC_SEQ_CST);
}

/* The next one behind T that is ready, T itself last; NULL: none. */
static struct hv_task *next_ready(struct hv_task *t) {
    struct hv_task *at = t;

    do {
        at = at && at->next ? at->next : host.first;
        if (!at->off && at->ops->ready(at))
            return at;
    } while (at != (t ? t : host.last));
    return NULL;
}

static bool anybody_lives(void) {
    for (struct hv_task *t = host.first; t; t = t->next)
        if (!t->off)
            return true;
    return false;
}

void hv_sched_run(void) {
    struct hv_task *t = NULL, *next;

    bare_on_interrupt(on_interrupt, NULL);
    while (anybody_lives()) {
        next = next_ready(t);
        if (!next) {
            set_timer(os_monotonic_ns());
            bare_wait();
            continue;
        }
        t = next;
        turn(t);
        if (t->ops->over(t))
            for (struct hv_task *of = host.first; of; of = of->next)
                of->off |= of->vm == t->vm;
    }
    bare_on_interrupt(NULL, NULL);
}
