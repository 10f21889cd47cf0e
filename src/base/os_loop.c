/*
 * The event loop; see os_loop.h.
 *
 * Watches stand in an array in the order in which they were started. One that is stopped
 * leaves a hole, so that a turn that is under way finds the others where they were; holes
 * are closed before the next turn.
 *
 * Posted tasks are a stack without a lock: whoever posts pushes with one exchange, the
 * loop takes all of it and turns it round. `poked` spares all but the first of them the
 * write to the eventfd; the loop takes it back before it looks at the stack.
 */
#include "base/os_loop.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct os_loop {
    int poke_fd;
    bool poked;            /* atomic: poke_fd has been written to */
    bool stop;             /* atomic */
    struct os_task *tasks; /* atomic: the last one posted first */
    struct os_watch **watches;
    struct pollfd *polled; /* [0] is poke_fd, [n + 1] watches[n] */
    size_t count, room;
};

int os_loop_new(struct os_loop **out) {
    struct os_loop *l = calloc(1, sizeof(*l));

    if (!l)
        return -ENOMEM;
    l->poke_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    l->polled = calloc(1, sizeof(*l->polled));
    if (l->poke_fd < 0 || !l->polled) {
        int rc = l->poke_fd < 0 ? -errno : -ENOMEM;

        os_loop_free(l);
        return rc;
    }
    *out = l;
    return 0;
}

void os_loop_free(struct os_loop *l) {
    if (!l)
        return;
    if (l->poke_fd >= 0)
        close(l->poke_fd);
    free(l->watches);
    free(l->polled);
    free(l);
}

/* --- tasks --- */

/* In a signal handler, errno is somebody else's. */
static void poke(struct os_loop *l) {
    uint64_t one = 1;
    int saved = errno;

    if (!__atomic_exchange_n(&l->poked, true, __ATOMIC_SEQ_CST) &&
        write(l->poke_fd, &one, sizeof(one)) < 0)
        errno = 0; /* EAGAIN: poked as often as it can count */
    errno = saved;
}

void os_task_post(struct os_task *t, struct os_loop *l) {
    if (__atomic_exchange_n(&t->posted, true, __ATOMIC_SEQ_CST))
        return;
    t->next = __atomic_load_n(&l->tasks, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&l->tasks, &t->next, t, true, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED))
        ;
    poke(l);
}

static struct os_task *take_tasks(struct os_loop *l) {
    struct os_task *t = __atomic_exchange_n(&l->tasks, NULL, __ATOMIC_SEQ_CST);
    struct os_task *first = NULL;

    while (t) {
        struct os_task *next = t->next;

        t->next = first;
        first = t;
        t = next;
    }
    return first;
}

/* A task may be posted again, or be gone, from the beginning of its call on. */
static void run_tasks(struct os_loop *l) {
    uint64_t count;

    if (read(l->poke_fd, &count, sizeof(count)) < 0)
        errno = 0; /* EAGAIN: its writer has not got there yet, and will wake us again */
    __atomic_store_n(&l->poked, false, __ATOMIC_SEQ_CST);
    for (struct os_task *t = take_tasks(l), *next; t; t = next) {
        next = t->next;
        __atomic_store_n(&t->posted, false, __ATOMIC_SEQ_CST);
        t->fn(t->arg);
    }
}

void os_loop_stop(struct os_loop *l) {
    __atomic_store_n(&l->stop, true, __ATOMIC_SEQ_CST);
    poke(l);
}

/* --- descriptors --- */

static int make_room(struct os_loop *l) {
    size_t room = l->room ? 2 * l->room : 8;
    struct os_watch **watches;
    struct pollfd *polled;

    if (l->count < l->room)
        return 0;
    watches = realloc(l->watches, room * sizeof(struct os_watch *));
    if (!watches)
        return -ENOMEM;
    l->watches = watches;
    polled = realloc(l->polled, (room + 1) * sizeof(*polled));
    if (!polled)
        return -ENOMEM;
    l->polled = polled;
    l->room = room;
    return 0;
}

int os_watch_start(struct os_watch *w, struct os_loop *l, int fd, unsigned events,
                   void (*fn)(void *arg, unsigned ready), void *arg) {
    int rc = make_room(l);

    if (rc)
        return rc;
    *w = (struct os_watch){.loop = l, .fd = fd, .events = events, .fn = fn, .arg = arg};
    l->watches[l->count++] = w;
    return 0;
}

void os_watch_events(struct os_watch *w, unsigned events) {
    w->events = events;
}

void os_watch_stop(struct os_watch *w) {
    struct os_loop *l = w->loop;

    for (size_t n = 0; l && n < l->count; n++)
        if (l->watches[n] == w)
            l->watches[n] = NULL;
    w->loop = NULL;
}

static void close_holes(struct os_loop *l) {
    size_t kept = 0;

    for (size_t n = 0; n < l->count; n++)
        if (l->watches[n])
            l->watches[kept++] = l->watches[n];
    l->count = kept;
}

/* poll(2) tells of errors whether it is asked or not: who wants nothing is left out. */
static size_t fill(struct os_loop *l) {
    l->polled[0] = (struct pollfd){.fd = l->poke_fd, .events = POLLIN};
    for (size_t n = 0; n < l->count; n++) {
        const struct os_watch *w = l->watches[n];

        l->polled[n + 1] = (struct pollfd){
            .fd = w->events ? w->fd : -1,
            .events = (short)((w->events & OS_READ ? POLLIN : 0) |
                              (w->events & OS_WRITE ? POLLOUT : 0)),
        };
    }
    return l->count;
}

static unsigned ready_of(const struct os_watch *w, short revents) {
    unsigned ready = 0;

    if (revents & (POLLERR | POLLHUP | POLLNVAL))
        ready = OS_READ | OS_WRITE;
    if (revents & POLLIN)
        ready |= OS_READ;
    if (revents & POLLOUT)
        ready |= OS_WRITE;
    return ready & w->events;
}

/* The array may move, and grow behind the COUNT that were polled, under our hands. */
static void call_ready(struct os_loop *l, size_t count) {
    for (size_t n = 0; n < count && !__atomic_load_n(&l->stop, __ATOMIC_SEQ_CST); n++) {
        struct os_watch *w = l->watches[n];
        unsigned ready = w ? ready_of(w, l->polled[n + 1].revents) : 0;

        if (ready)
            w->fn(w->arg, ready);
    }
}

void os_loop_run(struct os_loop *l) {
    while (!__atomic_load_n(&l->stop, __ATOMIC_SEQ_CST)) {
        size_t count;

        close_holes(l);
        count = fill(l);
        if (poll(l->polled, count + 1, -1) < 0)
            continue; /* EINTR */
        if (l->polled[0].revents)
            run_tasks(l);
        call_ready(l, count);
    }
    __atomic_store_n(&l->stop, false, __ATOMIC_SEQ_CST);
}

/* --- timers --- */

static void timer_ready(void *arg, unsigned ready) {
    struct os_timer *t = arg;
    uint64_t count;

    /* EAGAIN: it was set to another time just now. */
    if (read(t->watch.fd, &count, sizeof(count)) == sizeof(count))
        t->fn(t->arg);
}

int os_timer_open(struct os_timer *t, struct os_loop *l, void (*fn)(void *arg),
                  void *arg) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int rc = fd < 0 ? -errno : 0;

    if (rc)
        return rc;
    *t = (struct os_timer){.fn = fn, .arg = arg};
    rc = os_watch_start(&t->watch, l, fd, OS_READ, timer_ready, t);
    if (rc)
        close(fd);
    return rc;
}

void os_timer_set(struct os_timer *t, uint64_t ns) {
    struct itimerspec its = {0};

    if (ns != UINT64_MAX) {
        /* All zero would disarm it; one nanosecond past boot is just as late. */
        ns = ns ? ns : 1;
        its.it_value.tv_sec = (time_t)(ns / 1000000000u);
        its.it_value.tv_nsec = (long)(ns % 1000000000u);
    }
    timerfd_settime(t->watch.fd, TFD_TIMER_ABSTIME, &its, NULL);
}

void os_timer_close(struct os_timer *t) {
    if (!t->watch.loop)
        return;
    os_watch_stop(&t->watch);
    close(t->watch.fd);
}
