/*
 * Waiting and waking. One helper thread sleeps in poll(2) on a timerfd (the next guest
 * timer), the watched descriptor (console input) and an eventfd by which it is told of
 * changes. When one of the first two is ready it disarms it, calls fire() and wakes the
 * idle vCPU thread.
 *
 * An idle vCPU thread takes the deadline to itself (os_alarm_wait()): handed over by the
 * helper, every tick of an idle guest would cost two thread switches instead of one.
 *
 * Locking: `lock` guards the fields below it. fire() is called without the lock.
 * os_alarm_wake() is async-signal-safe: it only writes to an eventfd.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/os.h"

struct os_alarm {
    void (*fire)(void *arg);
    void *arg;
    pthread_t thread;
    pthread_barrier_t started;
    int timer_fd;
    int control_fd;    /* wakes the helper: something below changed */
    int idle_fd;       /* wakes os_alarm_wait() */
    uint64_t deadline; /* the vCPU thread's own copy of what timer_fd waits for */

    pthread_mutex_t lock;
    int watch_fd; /* -1: none */
    bool watch_armed;
    bool quit;
};

static void poke(int fd) {
    uint64_t one = 1;

    if (write(fd, &one, sizeof(one)) < 0)
        return; /* EAGAIN: already poked as often as it can count */
}

static void drain(int fd) {
    uint64_t count;

    if (read(fd, &count, sizeof(count)) < 0)
        return; /* EAGAIN: somebody else drained it */
}

static void *helper(void *arg) {
    struct os_alarm *a = arg;

    pthread_barrier_wait(&a->started);
    for (;;) {
        struct pollfd p[3] = {{.fd = a->control_fd, .events = POLLIN},
                              {.fd = a->timer_fd, .events = POLLIN},
                              {.fd = -1, .events = POLLIN}};
        bool fired = false;

        pthread_mutex_lock(&a->lock);
        if (a->quit) {
            pthread_mutex_unlock(&a->lock);
            return NULL;
        }
        if (a->watch_armed)
            p[2].fd = a->watch_fd;
        pthread_mutex_unlock(&a->lock);

        if (poll(p, 3, -1) < 0)
            continue; /* EINTR */
        if (p[0].revents)
            drain(a->control_fd);
        if (p[1].revents) {
            drain(a->timer_fd);
            fired = true;
        }
        if (p[2].revents) {
            /* Unless it was told meanwhile to watch another, or none. */
            pthread_mutex_lock(&a->lock);
            if (a->watch_armed && a->watch_fd == p[2].fd) {
                a->watch_armed = false;
                fired = true;
            }
            pthread_mutex_unlock(&a->lock);
        }
        if (fired) {
            a->fire(a->arg);
            poke(a->idle_fd);
        }
    }
}

static int open_fds(struct os_alarm *a) {
    a->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    a->control_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    a->idle_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return a->timer_fd < 0 || a->control_fd < 0 || a->idle_fd < 0 ? -errno : 0;
}

static void close_fds(struct os_alarm *a) {
    int fds[] = {a->timer_fd, a->control_fd, a->idle_fd};

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

int os_alarm_new(void (*fire)(void *arg), void *arg, struct os_alarm **out) {
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    struct os_alarm *a = calloc(1, sizeof(*a));
    sigset_t all, old;
    int rc;

    if (!a)
        return -ENOMEM;
    a->fire = fire;
    a->arg = arg;
    a->watch_fd = -1;
    a->deadline = UINT64_MAX;
    /* ppoll() may be this late (default: 50 us). "prctl(2)", PR_SET_TIMERSLACK */
    prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul);
    pthread_mutex_init(&a->lock, NULL);
    pthread_barrier_init(&a->started, NULL, 2);
    rc = open_fds(a);
    if (rc)
        goto fail;
    /* Signals are the main thread's business, but for those that a thread raises itself:
     * blocked, they would kill before anybody restores the terminal. */
    sigfillset(&all);
    for (size_t n = 0; n < ARRAY_SIZE(own); n++)
        sigdelset(&all, own[n]);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = -pthread_create(&a->thread, NULL, helper, a);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc)
        goto fail;
    /* What libc's new threads call first is not for the jail (os_jail.c) to allow. */
    pthread_barrier_wait(&a->started);
    *out = a;
    return 0;
fail:
    close_fds(a);
    pthread_barrier_destroy(&a->started);
    pthread_mutex_destroy(&a->lock);
    free(a);
    return rc;
}

void os_alarm_free(struct os_alarm *a) {
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    a->quit = true;
    pthread_mutex_unlock(&a->lock);
    poke(a->control_fd);
    pthread_join(a->thread, NULL);
    close_fds(a);
    pthread_barrier_destroy(&a->started);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

static void arm_timer(struct os_alarm *a, uint64_t ns) {
    struct itimerspec its = {0};

    if (ns != UINT64_MAX) {
        /* All zero would disarm it; one nanosecond past boot is just as late. */
        ns = ns ? ns : 1;
        its.it_value.tv_sec = (time_t)(ns / 1000000000u);
        its.it_value.tv_nsec = (long)(ns % 1000000000u);
    }
    timerfd_settime(a->timer_fd, TFD_TIMER_ABSTIME, &its, NULL);
}

void os_alarm_deadline(struct os_alarm *a, uint64_t ns) {
    a->deadline = ns;
    arm_timer(a, ns);
}

void os_alarm_watch(struct os_alarm *a, int fd) {
    bool changed;

    pthread_mutex_lock(&a->lock);
    changed = a->watch_fd != fd || a->watch_armed != (fd >= 0);
    a->watch_fd = fd;
    a->watch_armed = fd >= 0;
    pthread_mutex_unlock(&a->lock);
    if (changed)
        poke(a->control_fd);
}

void os_alarm_wait(struct os_alarm *a) {
    struct pollfd p = {.fd = a->idle_fd, .events = POLLIN};
    uint64_t now = os_monotonic_ns(), left;
    struct timespec ts;

    if (a->deadline == UINT64_MAX) {
        poll(&p, 1, -1);
        drain(a->idle_fd);
        return;
    }
    arm_timer(a, UINT64_MAX);
    left = a->deadline > now ? a->deadline - now : 0;
    ts.tv_sec = (time_t)(left / 1000000000u);
    ts.tv_nsec = (long)(left % 1000000000u);
    if (ppoll(&p, 1, &ts, NULL) == 0) {
        a->deadline = UINT64_MAX;
        a->fire(a->arg);
    } else {
        drain(a->idle_fd);
        arm_timer(a, a->deadline);
    }
}

uint64_t os_alarm_sleep(struct os_alarm *a, int fd, uint64_t ns) {
    struct pollfd p[2] = {{.fd = a->idle_fd, .events = POLLIN},
                          {.fd = fd, .events = POLLIN}};
    struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000u),
                          .tv_nsec = (long)(ns % 1000000000u)};
    uint64_t start = os_monotonic_ns(), passed;

    if (!ns || ppoll(p, 2, ns == UINT64_MAX ? NULL : &ts, NULL) == 0)
        return ns;
    if (p[0].revents)
        drain(a->idle_fd);
    passed = os_monotonic_ns() - start;
    return passed < ns ? passed : ns - 1;
}

void os_alarm_wake(struct os_alarm *a) {
    poke(a->idle_fd);
}
