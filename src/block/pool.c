/*
 * The workers of a machine's disks, and the way of a request: queued, executed by a
 * worker, delivered by that worker or by one that is at it already.
 *
 * One lock has both lists and the counters of each block; it is held for a few
 * instructions, never while anything is executed or delivered. One thread delivers at a
 * time (`delivering`), the others leave theirs to it. It takes requests from the list one
 * by one, inside the host's enter() and leave(): who holds the board's lock and drains a
 * block finds each of its requests in one of the lists or in a worker, never on its way
 * to a callback. A host without enter() has no lock, and wants to be called on the loop's
 * thread.
 *
 * A write to the host's page cache takes less time than to wake a thread up for it. So
 * for those that are thought to be `quick` one worker is enough, and a device is called
 * back for several at once: nobody is woken as long as a worker is at one, who looks for
 * more, and who has done one goes on with the next before it delivers. Either holds for
 * so many only (QUICK_QUEUE, QUICK_DONE); and a write that took long is followed by some
 * that are not thought to be quick, of which each has its worker.
 *
 * What a disk's rates have nothing left for waits in a list of that disk's. There is no
 * timer: a worker that has nothing to do sleeps until the first of them may go, and one
 * that has looks at the clock before each request, so that a busy disk does not hold up
 * one that is limited. Nobody looks at anything where no disk is limited.
 *
 * In a counted run there are no workers and no loop: see block.h.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/os.h"
#include "base/os_loop.h"
#include "block/block_int.h"

struct block_pool {
    struct block_host host;
    pthread_mutex_t lock;
    pthread_cond_t work; /* QUEUED has something, or it ends */
    pthread_cond_t idle; /* something has been executed */
    struct request_list queued, done;
    struct block *blocks;
    bool ending, delivering;
    unsigned waiting;              /* disks with requests that wait for their rates */
    unsigned at_quick;             /* workers that execute a quick one */
    unsigned unwoken, undelivered; /* quick ones since somebody was woken, or delivered */
    struct os_task deliver;
    struct os_thread *workers[BLOCK_WORKERS];
};

static void list_init(struct request_list *l) {
    l->first = NULL;
    l->end = &l->first;
}

static void list_add(struct request_list *l, struct block_request *r) {
    r->next = NULL;
    *l->end = r;
    l->end = &r->next;
}

static struct block_request *list_take(struct request_list *l) {
    struct block_request *r = l->first;

    if (!r)
        return NULL;
    l->first = r->next;
    if (!l->first)
        l->end = &l->first;
    return r;
}

/* Takes those of B, or all if B is NULL, into OUT. */
static void list_sort_out(struct request_list *l, const struct block *b,
                          struct request_list *out) {
    struct request_list rest;
    struct block_request *r;

    list_init(&rest);
    while ((r = list_take(l)))
        list_add(!b || r->block == b ? out : &rest, r);
    list_init(l);
    while ((r = list_take(&rest)))
        list_add(l, r);
}

/* --- delivery --- */

/* The oldest that is done and due by NOW, which is the caller's device's again; NULL:
 * there is none. The lock is held. */
static struct block_request *take_done(struct block_pool *p, uint64_t now) {
    struct block_request *r = NULL, *next;

    if (p->done.first && p->done.first->due <= now)
        r = list_take(&p->done);
    if (r) {
        next = p->done.first;
        r->block->in_flight--;
        r->block->more = next && next->block == r->block && next->due <= now;
    }
    return r;
}

/* A callback may submit what is done before the next turn: not more at once than others
 * can wait for. */
#define TURN 256

/* What is done is delivered, at most TURN: false if there may be more. The lock is not
 * held, the host's is. */
static bool turn(struct block_pool *p) {
    struct block_request *r;

    for (unsigned n = 0; n < TURN; n++) {
        pthread_mutex_lock(&p->lock);
        r = p->ending ? NULL : take_done(p, UINT64_MAX);
        if (!r)
            p->delivering = false;
        pthread_mutex_unlock(&p->lock);
        if (!r)
            return true;
        r->done(r, r->rc);
    }
    return false;
}

/* On a worker, until nothing is left; the lock is held. */
static void deliver_here(struct block_pool *p) {
    bool over = p->delivering || !p->done.first;

    if (over)
        return;
    p->delivering = true;
    pthread_mutex_unlock(&p->lock);
    while (!over) {
        p->host.enter(p->host.arg);
        over = turn(p);
        p->host.leave(p->host.arg);
    }
    pthread_mutex_lock(&p->lock);
}

/* On the loop's thread. */
static void deliver(void *arg) {
    struct block_pool *p = arg;
    bool mine;

    pthread_mutex_lock(&p->lock);
    mine = !p->delivering;
    p->delivering = true;
    pthread_mutex_unlock(&p->lock);
    if (!mine)
        return;
    if (p->host.enter)
        p->host.enter(p->host.arg);
    mine = !turn(p);
    if (p->host.leave)
        p->host.leave(p->host.arg);
    if (!mine)
        return;
    pthread_mutex_lock(&p->lock);
    p->delivering = false;
    pthread_mutex_unlock(&p->lock);
    os_task_post(&p->deliver, p->host.loop);
}

void block_pool_turn(struct block_pool *p) {
    if (!p->host.due)
        deliver(p);
}

/* --- workers --- */

#define QUICK_QUEUE 16u
#define QUICK_DONE 8u
#define QUICK_NS 500000u /* a longer one was none */
#define QUICK_DOUBT 64u  /* writes that follow such a one */

/* Begins R: who is next has a worker, unless ours is soon back. The lock is held. */
static void begin(struct block_pool *p, struct block_request *r) {
    r->block->running++;
    p->at_quick += r->quick;
    if (p->queued.first && !(r->quick && p->queued.first->quick))
        pthread_cond_signal(&p->work);
    p->unwoken = 0;
}

static void end(struct block_pool *p, struct block_request *r, uint64_t took_ns) {
    struct block *b = r->block;

    b->running--;
    p->at_quick -= r->quick;
    if (r->quick && took_ns > QUICK_NS)
        b->doubt = QUICK_DOUBT;
    list_add(&p->done, r);
    pthread_cond_broadcast(&p->idle);
}

/* The next one is as quick, and the device can be called back for both. */
static bool goes_on(struct block_pool *p, const struct block_request *r) {
    return r->quick && p->queued.first && p->queued.first->quick &&
           ++p->undelivered < QUICK_DONE;
}

static void execute_one(struct block_pool *p, struct block_request *r) {
    uint64_t start = r->quick ? os_monotonic_ns() : 0;

    begin(p, r);
    pthread_mutex_unlock(&p->lock);
    r->rc = request_execute(r);
    pthread_mutex_lock(&p->lock);
    end(p, r, r->quick ? os_monotonic_ns() - start : 0);
    if (goes_on(p, r))
        return;
    p->undelivered = 0;
    if (p->host.enter)
        deliver_here(p);
    else
        os_task_post(&p->deliver, p->host.loop);
}

/* --- rates; the lock is held --- */

static uint64_t bytes_of(const struct block_request *r) {
    return r->op == BLOCK_READ || r->op == BLOCK_WRITE ? r->length : 0;
}

/* When B's next request may go: at NOW or before, or later. */
static uint64_t may_go(const struct block *b, uint64_t now) {
    uint64_t bytes = rate_when(&b->rate[BLOCK_BYTES], now);
    uint64_t operations = rate_when(&b->rate[BLOCK_OPERATIONS], now);

    return bytes > operations ? bytes : operations;
}

static void pay(struct block *b, const struct block_request *r, uint64_t now) {
    rate_take(&b->rate[BLOCK_BYTES], bytes_of(r), now);
    rate_take(&b->rate[BLOCK_OPERATIONS], 1, now);
}

/* False: R does not wait. */
static bool waits(struct block_pool *p, struct block_request *r) {
    struct block *b = r->block;
    uint64_t now;

    if (!b->limited)
        return false;
    now = os_monotonic_ns();
    if (!b->waiting.first) {
        if (may_go(b, now) <= now) {
            pay(b, r, now);
            return false;
        }
        p->waiting++;
    }
    list_add(&b->waiting, r);
    return true;
}

/* Queues what may go of B's. When there may be more: UINT64_MAX, if nothing waits. */
static uint64_t release_of(struct block_pool *p, struct block *b, uint64_t now) {
    uint64_t at = now;

    while (b->waiting.first) {
        at = may_go(b, now);
        if (at > now)
            return at;
        pay(b, b->waiting.first, now);
        list_add(&p->queued, list_take(&b->waiting));
    }
    p->waiting--;
    return UINT64_MAX;
}

static uint64_t release(struct block_pool *p) {
    uint64_t now, next = UINT64_MAX, at;

    if (!p->waiting)
        return next;
    now = os_monotonic_ns();
    for (struct block *b = p->blocks; b; b = b->next)
        if (b->waiting.first) {
            at = release_of(p, b, now);
            next = at < next ? at : next;
        }
    return next;
}

static void sleep_until(struct block_pool *p, uint64_t ns) {
    const struct timespec at = {.tv_sec = (time_t)(ns / 1000000000u),
                                .tv_nsec = (long)(ns % 1000000000u)};

    if (ns == UINT64_MAX)
        pthread_cond_wait(&p->work, &p->lock);
    else
        pthread_cond_timedwait(&p->work, &p->lock, &at);
}

/* What waits of B's goes into OUT. */
static void take_waiting(struct block_pool *p, struct block *b,
                         struct request_list *out) {
    struct block_request *r;

    p->waiting -= b->waiting.first != NULL;
    while ((r = list_take(&b->waiting)))
        list_add(out, r);
}

void pool_hurry(struct block_pool *p, struct block *b) {
    uint64_t now = os_monotonic_ns();

    pthread_mutex_lock(&p->lock);
    for (struct block_request *r = b->waiting.first; r; r = r->next)
        pay(b, r, now);
    take_waiting(p, b, &p->queued);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
}

void pool_limit(struct block_pool *p, struct block *b, enum block_limit which,
                const struct rate_limit *l) {
    pthread_mutex_lock(&p->lock);
    rate_set(&b->rate[which], l, os_monotonic_ns());
    b->limited = !p->host.due && (rate_is_limited(&b->rate[BLOCK_BYTES]) ||
                                  rate_is_limited(&b->rate[BLOCK_OPERATIONS]));
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
}

/* --- a worker --- */

static void work(void *arg) {
    struct block_pool *p = arg;
    struct block_request *r;

    pthread_mutex_lock(&p->lock);
    for (;;) {
        uint64_t next = release(p);

        while (!p->ending && !p->queued.first) {
            sleep_until(p, next);
            next = release(p);
        }
        r = p->ending ? NULL : list_take(&p->queued);
        if (!r)
            break;
        execute_one(p, r);
    }
    pthread_mutex_unlock(&p->lock);
}

/* --- counted runs: under virtual time there is one thread --- */

void block_pool_deliver(struct block_pool *p, uint64_t now) {
    struct block_request *r;

    while ((r = take_done(p, now)))
        r->done(r, r->rc);
}

uint64_t block_pool_next(const struct block_pool *p) {
    return p->done.first ? p->done.first->due : UINT64_MAX;
}

/* --- waiting --- */

/* Until B executes nothing; the lock is held. Who waits too long for a server is told to
 * wait no more, and again if it has begun to wait for something else. */
static void wait_for(struct block_pool *p, struct block *b) {
    struct timespec until = {
        .tv_sec = (time_t)(os_monotonic_ns() / 1000000000u + BLOCK_PATIENCE)};

    while (b->running)
        if (pthread_cond_timedwait(&p->idle, &p->lock, &until) == ETIMEDOUT) {
            until.tv_sec += BLOCK_PATIENCE;
            image_abandon(b->image);
        }
}

static bool is_queued(const struct request_list *l, const struct block *b) {
    for (const struct block_request *r = l->first; r; r = r->next)
        if (r->block == b)
            return true;
    return false;
}

void pool_execute_all(struct block_pool *p, struct block *b) {
    pool_hurry(p, b);
    pthread_mutex_lock(&p->lock);
    do {
        wait_for(p, b);
        if (is_queued(&p->queued, b))
            pthread_cond_wait(&p->idle, &p->lock);
    } while (b->running || is_queued(&p->queued, b));
    pthread_mutex_unlock(&p->lock);
}

void pool_add(struct block_pool *p, struct block *b) {
    list_init(&b->waiting);
    pthread_mutex_lock(&p->lock);
    b->next = p->blocks;
    p->blocks = b;
    pthread_mutex_unlock(&p->lock);
}

void pool_remove(struct block_pool *p, struct block *b) {
    struct block **at = &p->blocks;

    pthread_mutex_lock(&p->lock);
    while (*at != b)
        at = &(*at)->next;
    *at = b->next;
    pthread_mutex_unlock(&p->lock);
}

/* --- making and ending --- */

int block_pool_new(const struct block_host *host, struct block_pool **out) {
    struct block_pool *p = calloc(1, sizeof(*p));
    pthread_condattr_t monotonic;
    int rc = 0;

    if (!p)
        return -ENOMEM;
    p->host = *host;
    p->deliver = (struct os_task){.fn = deliver, .arg = p};
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&p->work, &monotonic);
    pthread_cond_init(&p->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    list_init(&p->queued);
    list_init(&p->done);
    for (unsigned n = 0; n < BLOCK_WORKERS && !host->due && !rc; n++)
        rc = os_thread_start(OS_THREAD_WORKER, work, p, &p->workers[n]);
    if (rc) {
        block_pool_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void block_pool_free(struct block_pool *p) {
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->ending = true;
    pthread_cond_broadcast(&p->work);
    for (struct block *b = p->blocks; b; b = b->next) {
        wait_for(p, b);
        b->pool = NULL;
        b->in_flight = 0;
        list_init(&b->waiting);
    }
    pthread_mutex_unlock(&p->lock);
    for (unsigned n = 0; n < BLOCK_WORKERS; n++)
        os_thread_join(p->workers[n]);
    pthread_cond_destroy(&p->idle);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* --- requests --- */

bool pool_counted(const struct block_pool *p) {
    return p->host.due;
}

/* The lock is held. */
static bool is_quick(const struct block_request *r) {
    struct block *b = r->block;

    if (r->op != BLOCK_WRITE || !b->image->quick || r->length > BLOCK_AT_ONCE)
        return false;
    if (!b->doubt)
        return true;
    b->doubt--;
    return false;
}

void pool_submit(struct block_pool *p, struct block_request *r) {
    bool wake;

    r->due = 0;
    if (p->host.due) {
        r->block->in_flight++;
        r->rc = request_execute(r);
        r->due = p->host.due(p->host.arg);
        list_add(&p->done, r);
        return;
    }
    pthread_mutex_lock(&p->lock);
    r->block->in_flight++;
    r->quick = is_quick(r);
    wake = waits(p, r);
    if (!wake) {
        list_add(&p->queued, r);
        wake = !r->quick || !p->at_quick || ++p->unwoken == QUICK_QUEUE;
    }
    pthread_mutex_unlock(&p->lock);
    if (wake)
        pthread_cond_signal(&p->work); /* who wakes up finds the lock free */
}

void pool_cancel(struct block_pool *p, struct block *b) {
    struct request_list mine;
    struct block_request *r;

    if (p->host.due)
        return; /* all have been executed */
    list_init(&mine);
    pthread_mutex_lock(&p->lock);
    list_sort_out(&p->queued, b, &mine);
    take_waiting(p, b, &mine);
    while ((r = list_take(&mine))) {
        r->rc = -ECANCELED;
        list_add(&p->done, r);
    }
    pthread_mutex_unlock(&p->lock);
    os_task_post(&p->deliver, p->host.loop);
}

void pool_drain(struct block_pool *p, struct block *b) {
    struct request_list mine;

    list_init(&mine);
    pthread_mutex_lock(&p->lock);
    list_sort_out(&p->queued, b, &mine);
    take_waiting(p, b, &mine);
    wait_for(p, b);
    list_sort_out(&p->done, b, &mine);
    b->in_flight = 0;
    pthread_mutex_unlock(&p->lock);
}

unsigned pool_in_flight(struct block_pool *p, const struct block *b) {
    unsigned n;

    pthread_mutex_lock(&p->lock);
    n = b->in_flight;
    pthread_mutex_unlock(&p->lock);
    return n;
}
