/* Calls, actions, stops and locks between vCPUs that are real threads. Each thread stands
 * for an engine: it looks at its events at "boundaries", and goes in and out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "cpu/smp.h"

#define CPUS 6
#define ROUNDS 500u

struct world {
    struct vcpu_group group;
    struct vcpu *vcpu[CPUS];
    uint64_t plain[CPUS];  /* changed by calls, without any lock */
    uint64_t shared;       /* changed under a stop */
    uint64_t locked[2];    /* changed under the locks */
    uint64_t acted[CPUS];  /* by the actions */
    uint32_t inside[CPUS]; /* executing: nobody else may touch what is derived */
    uint32_t done;
};

struct body {
    struct world *w;
    unsigned n;
    unsigned seed;
    uint32_t wrong;
    struct vcpu_action action;
};

static struct world *make(unsigned cpus) {
    struct world *w = calloc(1, sizeof(*w));

    vcpu_group_init(&w->group, NULL, NULL);
    for (unsigned n = 0; n < cpus; n++) {
        w->vcpu[n] = aligned_alloc(64, sizeof(struct vcpu));
        __builtin_memset(w->vcpu[n], 0, sizeof(struct vcpu));
        vcpu_group_add(&w->group, w->vcpu[n]);
    }
    return w;
}

static void unmake(struct world *w) {
    for (unsigned n = 0; n < CPUS; n++)
        free(w->vcpu[n]);
    free(w);
}

static void add(uint64_t *to) {
    uint64_t old = *(volatile uint64_t *)to;

    sched_yield();
    *(volatile uint64_t *)to = old + 1;
}

struct order {
    struct body *by;
    unsigned to;
};

static void called(struct vcpu *v, void *arg) {
    struct order *o = arg;
    struct world *w = o->by->w;

    if (__atomic_load_n(&w->inside[o->to], __ATOMIC_SEQ_CST) || w->vcpu[o->to] != v)
        __atomic_store_n(&o->by->wrong, 1, __ATOMIC_SEQ_CST);
    add(&w->plain[o->to]);
}

static void acted(struct vcpu *v, void *arg) {
    struct body *b = arg;

    b->w->acted[v->member->index]++;
}

static void call(struct body *b, unsigned to) {
    struct order o = {b, to};

    vcpu_call(b->w->vcpu[to], called, &o);
}

/* Everybody else is out, but for who is just about to see that. */
static void stop(struct body *b) {
    struct world *w = b->w;

    vcpu_stop(&w->group);
    for (unsigned n = 0; n < CPUS; n++)
        if (n != b->n && __atomic_load_n(&w->inside[n], __ATOMIC_SEQ_CST))
            b->wrong = 1;
    add(&w->shared);
    call(b, (b->n + 1) % CPUS);
    vcpu_go(&w->group);
}

static void lock(struct body *b) {
    struct vcpu_group *g = &b->w->group;

    vcpu_lock(g, VCPU_LOCK_SPLIT);
    add(&b->w->locked[0]);
    vcpu_lock(g, VCPU_LOCK_CODE);
    add(&b->w->locked[1]);
    call(b, (b->n + 2) % CPUS);
    vcpu_lock(g, VCPU_LOCK_CODE);
    vcpu_unlock(g, VCPU_LOCK_CODE);
    assert_true(vcpu_holds(g, VCPU_LOCK_CODE));
    vcpu_unlock(g, VCPU_LOCK_CODE);
    if (b->seed % 7 == 0)
        stop(b);
    vcpu_unlock(g, VCPU_LOCK_SPLIT);
}

/* The guest's code: nothing that is derived may change while it runs. */
static void execute(struct body *b) {
    struct world *w = b->w;
    uint64_t before;

    __atomic_store_n(&w->inside[b->n], 1, __ATOMIC_SEQ_CST);
    before = *(volatile uint64_t *)&w->plain[b->n];
    if (b->seed % 3 == 0)
        sched_yield();
    if (*(volatile uint64_t *)&w->plain[b->n] != before)
        b->wrong = 1;
    __atomic_store_n(&w->inside[b->n], 0, __ATOMIC_SEQ_CST);
}

static void round_of(struct body *b) {
    struct vcpu *v = b->w->vcpu[b->n];

    b->seed = b->seed * 1103515245u + 12345u;
    switch (b->seed >> 16 & 7) {
    case 0:
        call(b, (b->seed >> 20) % CPUS);
        break;
    case 1:
        stop(b);
        break;
    case 2:
        lock(b);
        break;
    default:
        execute(b);
    }
    if (vcpu_events(v) & VCPU_EVENT_CALL)
        vcpu_serve(v);
}

static void *engine(void *arg) {
    struct body *b = arg;
    struct vcpu *v = b->w->vcpu[b->n];

    b->seed = b->n * 77u + 5u;
    for (unsigned n = 0; n < ROUNDS; n++) {
        if (n % 16 == 0) {
            if (n)
                vcpu_leave(v);
            if (vcpu_events(v) & VCPU_EVENT_ACTION)
                vcpu_act(v);
            vcpu_enter(v);
        }
        round_of(b);
    }
    vcpu_leave(v);
    __atomic_add_fetch(&b->w->done, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

/* As the loop's thread: nobody's vCPU. */
static void others(struct body *b, struct body *cpus) {
    struct world *w = b->w;

    for (unsigned n = 0; __atomic_load_n(&w->done, __ATOMIC_SEQ_CST) < CPUS; n++) {
        call(b, n % CPUS);
        vcpu_post(w->vcpu[n % CPUS], &cpus[n % CPUS].action);
        if (n % 5 == 0)
            stop(b);
        if (n % 3 == 0)
            lock(b);
        sched_yield();
    }
}

static void test_many_threads(void **state) {
    struct world *w = make(CPUS);
    struct body b[CPUS] = {0}, loop = {.w = w, .n = CPUS};
    pthread_t t[CPUS];

    for (unsigned n = 0; n < CPUS; n++) {
        b[n] = (struct body){.w = w, .n = n};
        b[n].action = (struct vcpu_action){.fn = acted, .arg = &b[n]};
        pthread_create(&t[n], NULL, engine, &b[n]);
    }
    others(&loop, b);
    for (unsigned n = 0; n < CPUS; n++) {
        pthread_join(t[n], NULL);
        assert_int_equal(b[n].wrong, 0);
        vcpu_act(w->vcpu[n]); /* what came after the end */
        assert_true(w->acted[n] > 0);
    }
    assert_int_equal(loop.wrong, 0);
    for (unsigned n = 0; n < VCPU_LOCK_COUNT; n++) {
        assert_int_equal(w->group.lock[n].word, 0);
        assert_int_equal(w->group.lock[n].depth, 0);
    }
    unmake(w);
}

/* How often something was done, exactly: one thread counts for all. */
static void *adder(void *arg) {
    struct body *b = arg;
    struct vcpu *v = b->w->vcpu[b->n];

    vcpu_enter(v);
    for (unsigned n = 0; n < ROUNDS; n++) {
        vcpu_lock(&b->w->group, VCPU_LOCK_CODE);
        add(&b->w->locked[0]);
        vcpu_unlock(&b->w->group, VCPU_LOCK_CODE);
        call(b, 0);
        if (n % 8 == 0) {
            vcpu_stop(&b->w->group);
            add(&b->w->shared);
            vcpu_go(&b->w->group);
        }
        if (vcpu_events(v) & VCPU_EVENT_CALL)
            vcpu_serve(v);
    }
    vcpu_leave(v);
    return NULL;
}

static void test_nothing_is_lost(void **state) {
    struct world *w = make(CPUS);
    struct body b[CPUS];
    pthread_t t[CPUS];

    for (unsigned n = 0; n < CPUS; n++) {
        b[n] = (struct body){.w = w, .n = n};
        pthread_create(&t[n], NULL, adder, &b[n]);
    }
    for (unsigned n = 0; n < CPUS; n++)
        pthread_join(t[n], NULL);
    assert_int_equal(w->locked[0], (uint64_t)CPUS * ROUNDS);
    assert_int_equal(w->plain[0], (uint64_t)CPUS * ROUNDS);
    assert_int_equal(w->shared, (uint64_t)CPUS * ((ROUNDS + 7) / 8));
    unmake(w);
}

static void counts(struct vcpu *v, void *arg) {
    ++*(unsigned *)arg;
}

/* Who is out is served by the caller, at once; and without a group, or for oneself, a
 * call is a call. */
static void test_alone(void **state) {
    struct world *w = make(1);
    struct vcpu *lonely = aligned_alloc(64, sizeof(*lonely));
    struct vcpu_action a = {.fn = counts};
    unsigned n = 0, acts = 0;

    __builtin_memset(lonely, 0, sizeof(*lonely));
    vcpu_call(lonely, counts, &n);
    assert_int_equal(n, 1);
    vcpu_call(w->vcpu[0], counts, &n);
    assert_int_equal(n, 2);
    vcpu_enter(w->vcpu[0]);
    vcpu_call(w->vcpu[0], counts, &n);
    assert_int_equal(n, 3);
    vcpu_stop(&w->group);
    vcpu_call(w->vcpu[0], counts, &n);
    vcpu_go(&w->group);
    vcpu_leave(w->vcpu[0]);
    assert_int_equal(n, 4);

    a.arg = &acts;
    vcpu_post(w->vcpu[0], &a);
    vcpu_post(w->vcpu[0], &a);
    assert_int_equal(vcpu_events(w->vcpu[0]), VCPU_EVENT_ACTION);
    vcpu_act(w->vcpu[0]);
    vcpu_act(w->vcpu[0]);
    assert_int_equal(acts, 1);
    assert_int_equal(vcpu_events(w->vcpu[0]), 0);

    vcpu_lock(NULL, VCPU_LOCK_CODE);
    assert_true(vcpu_holds(NULL, VCPU_LOCK_CODE));
    vcpu_unlock(NULL, VCPU_LOCK_CODE);
    assert_false(vcpu_has_others(lonely));
    free(lonely);
    unmake(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_nothing_is_lost),
        cmocka_unit_test(test_many_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
