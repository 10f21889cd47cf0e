/*
 * Calls, actions, stops and ranked locks between vCPUs; see smp.h.
 *
 * A vCPU's list of calls is served by whoever owns the vCPU: its thread while it is IN,
 * or who has changed OUT to TAKEN. When one gives it up, it looks at the list again.
 */
#include "cpu/smp.h"

#include "base/bug.h"
#include "base/os.h"

enum { OUT, IN, TAKEN };

#define LOOK_TICKS 60000u /* of the TSC, some 25 us: two fragments' translation */

/* On the caller's stack. */
struct vcpu_request {
    void (*fn)(struct vcpu *v, void *arg);
    void *arg;
    struct vcpu_request *next;
    uint32_t done; /* what the caller sleeps by */
};

/* The vCPU that this thread has in; its address is the thread's token. */
static __thread struct vcpu *self;

struct vcpu *vcpu_current(void) {
    return self;
}

static uint32_t get(const uint32_t *word) {
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static bool change(uint32_t *word, uint32_t from, uint32_t to) {
    return __atomic_compare_exchange_n(word, &from, to, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}

static void set(uint32_t *word, uint32_t value) {
    __atomic_exchange_n(word, value, __ATOMIC_SEQ_CST);
}

void vcpu_group_init(struct vcpu_group *g,
                     void (*kick)(void *arg, struct vcpu *v, uint32_t event), void *arg) {
    g->kick = kick;
    g->kick_arg = arg;
}

void vcpu_group_add(struct vcpu_group *g, struct vcpu *v) {
    struct vcpu_smp *s = &g->smp[g->count];

    BUG_ON(g->count == VCPU_GROUP_MAX);
    s->index = g->count++;
    s->group = g;
    s->v = v;
    v->member = s;
    g->looks = g->count > 1 && g->count <= os_cpus();
}

static void kick(struct vcpu_smp *s, uint32_t event) {
    vcpu_raise(s->v, event);
    if (s->group->kick)
        s->group->kick(s->group->kick_arg, s->v, event);
}

/* --- serving calls, by the owner --- */

static void answer(struct vcpu_smp *s) {
    struct vcpu_request *r = __atomic_exchange_n(&s->calls, NULL, __ATOMIC_SEQ_CST);

    for (struct vcpu_request *next; r; r = next) {
        next = r->next;
        r->fn(s->v, r->arg);
        set(&r->done, 1); /* from here on R may be gone, and the word be another */
        os_word_wake(&r->done, 1);
    }
}

static bool has_calls(const struct vcpu_smp *s) {
    return __atomic_load_n(&s->calls, __ATOMIC_SEQ_CST);
}

/* Sleeps while the state is OLD. */
static void sleep_by(struct vcpu_smp *s, uint32_t old) {
    __atomic_add_fetch(&s->sleepers, 1, __ATOMIC_SEQ_CST);
    os_word_wait(&s->state, old);
    __atomic_sub_fetch(&s->sleepers, 1, __ATOMIC_SEQ_CST);
}

/* Gives the vCPU up; who gives it up, or the next owner, serves the calls. */
static void give_up(struct vcpu_smp *s) {
    do {
        answer(s);
        set(&s->state, OUT);
        if (get(&s->sleepers))
            os_word_wake(&s->state, INT32_MAX);
    } while (has_calls(s) && change(&s->state, OUT, TAKEN));
}

/* --- in and out --- */

static bool stopped_by_others(const struct vcpu_group *g) {
    return get(&g->stopping) && __atomic_load_n(&g->stopper, __ATOMIC_SEQ_CST) != &self;
}

/* Until who has taken the vCPU gives it up: who else wants something waits for us now.
 */
static void await_turn(struct vcpu_smp *s) {
    set(&s->entering, 1);
    sleep_by(s, TAKEN);
    set(&s->entering, 0);
    if (has_calls(s) && change(&s->state, OUT, TAKEN))
        give_up(s);
}

static void go_in(struct vcpu_smp *s) {
    struct vcpu_group *g = s->group;

    for (;;) {
        while (stopped_by_others(g))
            os_word_wait(&g->stopping, 1);
        if (!change(&s->state, OUT, IN)) {
            await_turn(s);
            continue;
        }
        if (!stopped_by_others(g))
            return;
        give_up(s);
    }
}

void vcpu_enter(struct vcpu *v) {
    self = v;
    if (v->member)
        go_in(v->member);
}

void vcpu_leave(struct vcpu *v) {
    self = NULL;
    if (v->member)
        give_up(v->member);
}

bool vcpu_pause(void) {
    if (!self || !self->member || get(&self->member->state) != IN)
        return false;
    give_up(self->member);
    return true;
}

void vcpu_resume(bool paused) {
    if (paused)
        go_in(self->member);
}

void vcpu_serve(struct vcpu *v) {
    struct vcpu_smp *s = v->member;

    vcpu_clear(v, VCPU_EVENT_CALL);
    if (!s)
        return;
    if (get(&s->state) == IN)
        answer(s);
    if (stopped_by_others(s->group))
        vcpu_resume(vcpu_pause());
}

/* --- calls --- */

static void add_call(struct vcpu_smp *s, struct vcpu_request *r) {
    r->next = __atomic_load_n(&s->calls, __ATOMIC_SEQ_CST);
    while (!__atomic_compare_exchange_n(&s->calls, &r->next, r, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST))
        ;
}

/* Until R is done, by whom ever. Our own vCPU is out meanwhile. */
static void await(struct vcpu_smp *s, struct vcpu_request *r) {
    bool paused;

    if (!get(&s->entering) && change(&s->state, OUT, TAKEN))
        give_up(s);
    if (get(&r->done))
        return;
    kick(s, VCPU_EVENT_CALL);
    paused = vcpu_pause();
    while (!get(&r->done))
        os_word_wait(&r->done, 0);
    vcpu_resume(paused);
}

void vcpu_call(struct vcpu *v, void (*fn)(struct vcpu *v, void *arg), void *arg) {
    struct vcpu_request r = {.fn = fn, .arg = arg};

    if (!v->member || (v == self && get(&v->member->state) == IN)) {
        fn(v, arg);
        return;
    }
    add_call(v->member, &r);
    await(v->member, &r);
}

/* --- actions --- */

void vcpu_post(struct vcpu *v, struct vcpu_action *a) {
    struct vcpu_smp *s = v->member;

    if (__atomic_exchange_n(&a->queued, 1, __ATOMIC_SEQ_CST))
        return;
    a->next = __atomic_load_n(&s->actions, __ATOMIC_SEQ_CST);
    while (!__atomic_compare_exchange_n(&s->actions, &a->next, a, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST))
        ;
    kick(s, VCPU_EVENT_ACTION);
}

void vcpu_act(struct vcpu *v) {
    struct vcpu_action *last, *first = NULL;

    vcpu_clear(v, VCPU_EVENT_ACTION);
    if (!v->member)
        return;
    last = __atomic_exchange_n(&v->member->actions, NULL, __ATOMIC_SEQ_CST);
    for (struct vcpu_action *next; last; last = next) {
        next = last->next;
        last->next = first;
        first = last;
    }
    for (struct vcpu_action *next; first; first = next) {
        next = first->next; /* it may be posted again from here on */
        __atomic_store_n(&first->queued, 0, __ATOMIC_SEQ_CST);
        first->fn(v, first->arg);
    }
}

/* --- locks --- */

static bool owns(const struct vcpu_lock *l) {
    return __atomic_load_n(&l->owner, __ATOMIC_RELAXED) == &self;
}

static bool owns_higher(const struct vcpu_group *g, enum vcpu_rank rank) {
    for (unsigned n = rank + 1; n < VCPU_LOCK_COUNT; n++)
        if (owns(&g->lock[n]))
            return true;
    return false;
}

bool vcpu_holds(const struct vcpu_group *g, enum vcpu_rank rank) {
    return !g || owns(&g->lock[rank]);
}

/* Looks at the lock for a while: whoever has it makes one fragment, mostly, and a sleep
 * costs more. True: it is ours. */
static bool look(struct vcpu_lock *l, uint32_t as) {
    uint64_t end = __builtin_ia32_rdtsc() + LOOK_TICKS;

    do {
        if (!__atomic_load_n(&l->word, __ATOMIC_RELAXED) && change(&l->word, 0, as))
            return true;
        __builtin_ia32_pause();
    } while (__builtin_ia32_rdtsc() < end);
    return false;
}

/* One is woken for each lock that is given back with 2 in it: whoever has waited puts 2
 * there again, for others may sleep. */
static void take(struct vcpu_group *g, struct vcpu_lock *l) {
    uint32_t as = 1;

    while (!change(&l->word, 0, as)) {
        bool paused = vcpu_pause(), ours = g->looks && look(l, as);

        if (!ours) {
            as = 2;
            if (get(&l->word) == 2 || change(&l->word, 1, 2))
                os_word_wait(&l->word, 2);
        }
        vcpu_resume(paused);
        if (ours)
            return;
    }
}

void vcpu_lock(struct vcpu_group *g, enum vcpu_rank rank) {
    struct vcpu_lock *l;

    if (!g)
        return;
    l = &g->lock[rank];
    if (!owns(l)) {
        BUG_ON(owns_higher(g, rank));
        take(g, l);
        __atomic_store_n(&l->owner, &self, __ATOMIC_RELAXED);
    }
    l->depth++;
}

void vcpu_unlock(struct vcpu_group *g, enum vcpu_rank rank) {
    struct vcpu_lock *l;

    if (!g)
        return;
    l = &g->lock[rank];
    BUG_ON(!owns(l));
    if (--l->depth)
        return;
    __atomic_store_n(&l->owner, NULL, __ATOMIC_RELAXED);
    if (__atomic_exchange_n(&l->word, 0, __ATOMIC_SEQ_CST) == 2)
        os_word_wake(&l->word, 1);
}

/* --- stops --- */

static void await_out(struct vcpu_smp *s) {
    bool kicked = false;

    while (get(&s->state) == IN) {
        if (!kicked)
            kick(s, VCPU_EVENT_CALL);
        kicked = true;
        sleep_by(s, IN);
    }
}

void vcpu_stop(struct vcpu_group *g) {
    if (!g)
        return;
    vcpu_lock(g, VCPU_LOCK_STOP);
    if (g->lock[VCPU_LOCK_STOP].depth > 1)
        return;
    __atomic_store_n(&g->stopper, &self, __ATOMIC_SEQ_CST);
    set(&g->stopping, 1);
    for (unsigned n = 0; n < g->count; n++)
        if (g->smp[n].v != self)
            await_out(&g->smp[n]);
}

void vcpu_go(struct vcpu_group *g) {
    if (!g)
        return;
    if (g->lock[VCPU_LOCK_STOP].depth == 1) {
        set(&g->stopping, 0);
        os_word_wake(&g->stopping, INT32_MAX);
    }
    vcpu_unlock(g, VCPU_LOCK_STOP);
}
