/*
 * The guests' CPUs on the host's. Each has one of these for good, the one that has
 * fewest: with as many of the host's each has one alone. On it they run in turn, SLICE_NS
 * each while others wait. A turn ends when the guest's CPU halts, or when its slice is
 * over and another is ready; its engine has come back by then, and all of its state is
 * its own, so that a turn needs no stack.
 *
 * The host CPU's timer is set to the earliest of what wants to be done: a deadline of the
 * one that runs, or of another that sleeps, and the slice's end while another is ready.
 *
 * Locking: a struct host is its CPU's, but for `current`, which others look at. What one
 * CPU wants another's guests to see it has stored before it interrupts that
 * (bare_kick()); who is interrupted looks at all of its guests' CPUs.
 */
#include "bare/bare.h"
#include "base/os.h"
#include "hv/hv_int.h"

#define SLICE_NS 2000000u

static struct host {
    struct hv_task *first, *last;
    unsigned tasks;
    struct hv_task *current; /* who runs; NULL: nobody; atomic */
    uint64_t slice_end;
} hosts[BARE_CPUS];

static struct host *here(void) {
    return &hosts[bare_cpu_number()];
}

unsigned hv_sched_place(void) {
    unsigned best = 0;

    for (unsigned n = 1; n < bare_cpus(); n++)
        if (hosts[n].tasks < hosts[best].tasks)
            best = n;
    hosts[best].tasks++;
    return best;
}

void hv_sched_add(struct hv_task *t) {
    struct host *h = &hosts[t->host];

    if (h->last)
        h->last->next = t;
    else
        h->first = t;
    h->last = t;
}

static bool is_off(const struct hv_task *t) {
    return __atomic_load_n(&t->off, __ATOMIC_SEQ_CST);
}

/* Wants T its turn, as far as can be seen from outside? */
static bool waits(const struct host *h, struct hv_task *t, uint64_t now) {
    if (is_off(t) || t == h->current)
        return false;
    return !t->idle || t->ops->deadline(t) <= now || t->ops->ready(t);
}

static bool others_wait(const struct host *h, uint64_t now) {
    for (struct hv_task *t = h->first; t; t = t->next)
        if (waits(h, t, now))
            return true;
    return false;
}

static void set_timer(const struct host *h, uint64_t now) {
    uint64_t at = UINT64_MAX, one;

    for (struct hv_task *t = h->first; t; t = t->next) {
        one = is_off(t) ? UINT64_MAX : t->ops->deadline(t);
        /* One that is due already waits for its turn. */
        if (one < at && (t == h->current || !h->current || one > now))
            at = one;
    }
    if (h->current && h->slice_end < at && others_wait(h, now))
        at = h->slice_end;
    bare_timer_set(at);
}

void hv_sched_deadline(struct hv_task *t) {
    if (t->host == bare_cpu_number())
        set_timer(here(), os_monotonic_ns());
    else
        bare_kick(t->host);
}

void hv_sched_serviced(struct hv_task *t) {
    uint64_t now = os_monotonic_ns();
    struct host *h = here();

    if (now >= h->slice_end && others_wait(h, now))
        vcpu_raise(t->cpu->vcpu, VCPU_EVENT_STOP);
    else
        set_timer(h, now);
}

/* The one that runs here is to look at its events; at least it sets the timer anew. */
static void kick_current(void) {
    struct hv_task *t = __atomic_load_n(&here()->current, __ATOMIC_SEQ_CST);

    if (!t)
        return;
    vcpu_raise(t->cpu->vcpu, VCPU_EVENT_KICK);
    if (t->cpu->engine)
        t->cpu->ops->kick(t->cpu->engine);
}

void hv_sched_kick(struct hv_task *t) {
    if (t->host != bare_cpu_number())
        bare_kick(t->host);
    else if (t != here()->current)
        kick_current(); /* T may want its turn now */
    else if (t->cpu->engine)
        t->cpu->ops->kick(t->cpu->engine);
}

/* The one that runs here waits for another, which may be one that waits here. */
static void on_yield(void) {
    struct host *h = here();
    struct hv_task *t = h->current;

    if (t && others_wait(h, os_monotonic_ns()))
        vcpu_raise(t->cpu->vcpu, VCPU_EVENT_STOP);
}

/* In the handler of an interrupt of the host's. */
static void on_interrupt(void *arg) {
    kick_current();
}

static void turn(struct host *h, struct hv_task *t) {
    h->slice_end = os_monotonic_ns() + SLICE_NS;
    __atomic_store_n(&h->current, t, __ATOMIC_SEQ_CST);
    t->ops->run(t);
    __atomic_store_n(&h->current, NULL, __ATOMIC_SEQ_CST);
}

void hv_sched_await(const struct hv_task *t) {
    while (__atomic_load_n(&hosts[t->host].current, __ATOMIC_SEQ_CST) == t &&
           t->host != bare_cpu_number())
        __builtin_ia32_pause();
}

/* The next one behind T that is ready, T itself last; NULL: none. */
static struct hv_task *next_ready(const struct host *h, struct hv_task *t) {
    struct hv_task *at = t;

    do {
        at = at && at->next ? at->next : h->first;
        if (at && !is_off(at) && at->ops->ready(at))
            return at;
    } while (at != (t ? t : h->last));
    return NULL;
}

static bool anybody_lives(void) {
    for (unsigned n = 0; n < bare_cpus(); n++)
        for (struct hv_task *t = hosts[n].first; t; t = t->next)
            if (!is_off(t))
                return true;
    return false;
}

/* The life of VM is over. Who sleeps looks whether it was the last one. */
static void turn_off(const struct hv_vm *vm) {
    for (unsigned n = 0; n < bare_cpus(); n++)
        for (struct hv_task *t = hosts[n].first; t; t = t->next)
            if (t->vm == vm)
                __atomic_store_n(&t->off, true, __ATOMIC_SEQ_CST);
    for (unsigned n = 0; n < bare_cpus(); n++)
        if (n != bare_cpu_number())
            bare_kick(n);
}

static void run_here(void) {
    struct hv_task *t = NULL, *next;
    struct host *h = here();

    while (anybody_lives()) {
        next = next_ready(h, t);
        if (!next) {
            set_timer(h, os_monotonic_ns());
            bare_wait();
            continue;
        }
        t = next;
        turn(h, t);
        if (t->ops->over(t))
            turn_off(t->vm);
    }
}

void hv_sched_run(void) {
    bare_on_interrupt(on_interrupt, NULL);
    bare_on_yield(on_yield);
    bare_run_all(run_here);
    bare_on_yield(NULL);
    bare_on_interrupt(NULL, NULL);
}
