/*
 * The event loop: one thread sleeps in poll(2) and calls back for descriptors that are
 * ready, timers that are due, and tasks that other threads and signal handlers have
 * posted.
 *
 * Watches, timers and tasks are embedded in what they belong to and are idle when they
 * are zero; they must stay where they are while they are in use. All callbacks run on the
 * thread that is in os_loop_run(), one at a time: tasks first, in the order in which they
 * were posted, then descriptors and timers in the order in which they were started.
 *
 * Which thread may do what: os_task_post(), os_timer_set() and os_loop_stop() are for any
 * thread, and async-signal-safe. All else is for the loop's thread, or for whoever holds
 * the loop while nobody runs it. A callback may start and stop anything, itself included:
 * what was stopped is not called any more, what was started is not before the next turn.
 *
 * It is no scheduler: a callback that waits lets everything else wait.
 */
#ifndef BASE_OS_LOOP_H
#define BASE_OS_LOOP_H

#include "base/types.h"

struct os_loop;

/* 0 or -errno. */
int os_loop_new(struct os_loop **out);
/* Nobody runs it, and nothing is watched any more; L may be NULL. */
void os_loop_free(struct os_loop *l);
/* Calls back until os_loop_stop(), which may have come before. */
void os_loop_run(struct os_loop *l);
void os_loop_stop(struct os_loop *l);

#define OS_READ 1u
#define OS_WRITE 2u

/* --- descriptors --- */

struct os_watch {
    struct os_loop *loop; /* NULL: idle */
    int fd;
    unsigned events; /* OS_READ, OS_WRITE; 0: nothing for now */
    /* READY has those of `events` that do not wait. An error or the end of the file is
     * ready for all of them: the call that was to be made tells which it is. */
    void (*fn)(void *arg, unsigned ready);
    void *arg;
};

/* 0 or -ENOMEM. FD stays the caller's. */
int os_watch_start(struct os_watch *w, struct os_loop *l, int fd, unsigned events,
                   void (*fn)(void *arg, unsigned ready), void *arg);
void os_watch_events(struct os_watch *w, unsigned events); /* of one that was started */
void os_watch_stop(struct os_watch *w);                    /* nothing, if it is idle */

/* --- timers: descriptors of their own, so that any thread can set one without waking the
 * loop --- */

struct os_timer {
    struct os_watch watch;
    void (*fn)(void *arg);
    void *arg;
};

/* 0 or -errno. It is not set yet. */
int os_timer_open(struct os_timer *t, struct os_loop *l, void (*fn)(void *arg),
                  void *arg);
/* FN is called once when the monotonic clock is past NS; UINT64_MAX: not at all. What was
 * set before is forgotten. */
void os_timer_set(struct os_timer *t, uint64_t ns);
void os_timer_close(struct os_timer *t); /* nothing, if it is idle */

/* --- tasks --- */

struct os_task {
    void (*fn)(void *arg);
    void *arg;
    struct os_task *next; /* the loop's */
    bool posted;          /* atomic */
};

/* The loop calls T once, soon. One that is posted and has not been called yet is not
 * called twice; from the beginning of its call on it can be posted again. */
void os_task_post(struct os_task *t, struct os_loop *l);

#endif
