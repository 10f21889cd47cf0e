/*
 * Threads of our own, and the bell that one sleeps by.
 *
 * Signals that come from outside are the main thread's business: the others block them.
 * They do not block what a thread raises itself (blocked, it would kill before anybody
 * restores the terminal) nor the signals by which os_kick() and os_thread_interrupt()
 * take a thread out of a system call, and the one by which each goes into its jail
 * (os_jail.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_loop.h"

#define INTERRUPT (SIGRTMIN + 1) /* SIGRTMIN: os_kick.c */

/* --- threads --- */

struct os_thread {
    struct os_thread *next; /* of those that live */
    pthread_t thread;
    pid_t process; /* a copy that was forked has it not */
    enum os_thread_kind kind;
    pthread_barrier_t started;
    void (*fn)(void *arg);
    void *arg;
    int id;
};

/* All that live: the jail must come to each. */
static struct os_thread *threads;
static pthread_mutex_t threads_lock = PTHREAD_MUTEX_INITIALIZER;

static void nothing(int signo) {
}

static int catch_interrupt(void) {
    /* No SA_RESTART: that is what it is for. */
    struct sigaction sa = {.sa_handler = nothing, .sa_flags = SA_ONSTACK};

    sigemptyset(&sa.sa_mask);
    return sigaction(INTERRUPT, &sa, NULL) ? -errno : 0;
}

unsigned os_cpus(void) {
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 1;
    return (unsigned)CPU_COUNT(&set);
}

/* <linux/sched/types.h>, which <sched.h> gets in the way of. */
struct schedule {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

/* sched(7), "SCHED_OTHER": of the fair policies `runtime` is the slice, from a tenth of a
 * millisecond on. Who is woken and asks for less than the one who runs comes first. */
#define PROMPT_NS 100000

void os_thread_prompt(void) {
    struct schedule s = {.size = sizeof(s)};

    if (syscall(SYS_sched_getattr, 0, &s, sizeof(s), 0) < 0 || s.policy != SCHED_OTHER)
        return;
    s.size = sizeof(s);
    s.flags = 0;
    s.runtime = PROMPT_NS;
    syscall(SYS_sched_setattr, 0, &s, 0);
}

static void *body(void *arg) {
    struct os_thread *t = arg;

    t->id = os_thread_id();
    prctl(PR_SET_NAME, t->kind == OS_THREAD_CPU ? "bivisor-cpu" : "bivisor-disk");
    pthread_barrier_wait(&t->started);
    t->fn(t->arg);
    os_signal_stack_free();
    return NULL;
}

static int create(struct os_thread *t) {
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t mask, old;
    int rc;

    /* One heap for all: for a thread's own malloc() counts the host's CPUs, which opens
     * files, and the jail may have closed by then. */
    mallopt(M_ARENA_MAX, 1);
    sigfillset(&mask);
    for (size_t n = 0; n < ARRAY_SIZE(own); n++)
        sigdelset(&mask, own[n]);
    sigdelset(&mask, SIGRTMIN);
    sigdelset(&mask, INTERRUPT);
    sigdelset(&mask, OS_THREAD_SIGNAL);
    pthread_sigmask(SIG_SETMASK, &mask, &old);
    rc = -pthread_create(&t->thread, NULL, body, t);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

static void enter_list(struct os_thread *t) {
    pthread_mutex_lock(&threads_lock);
    t->next = threads;
    threads = t;
    pthread_mutex_unlock(&threads_lock);
}

static void leave_list(const struct os_thread *t) {
    struct os_thread **at = &threads;

    pthread_mutex_lock(&threads_lock);
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    pthread_mutex_unlock(&threads_lock);
}

int os_threads_known(void) {
    pid_t here = getpid();
    int count = 0;

    pthread_mutex_lock(&threads_lock);
    for (const struct os_thread *t = threads; t; t = t->next)
        count += t->process == here;
    pthread_mutex_unlock(&threads_lock);
    return count;
}

int os_threads_signal(void) {
    pid_t here = getpid();
    int count = 0, rc = 0;

    pthread_mutex_lock(&threads_lock);
    for (struct os_thread *t = threads; t && !rc; t = t->next) {
        if (t->process != here)
            continue;
        rc = -pthread_sigqueue(t->thread, OS_THREAD_SIGNAL,
                               (union sigval){.sival_int = t->kind});
        count += !rc;
    }
    pthread_mutex_unlock(&threads_lock);
    return rc ? rc : count;
}

int os_thread_start(enum os_thread_kind kind, void (*fn)(void *arg), void *arg,
                    struct os_thread **out) {
    struct os_thread *t = calloc(1, sizeof(*t));
    int rc = t ? catch_interrupt() : -ENOMEM;

    if (rc)
        goto fail;
    t->process = getpid();
    t->kind = kind;
    t->fn = fn;
    t->arg = arg;
    /* A wait may end this late (default: 50 us); a new thread has its maker's.
     * "prctl(2)", PR_SET_TIMERSLACK */
    prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul);
    pthread_barrier_init(&t->started, NULL, 2);
    rc = create(t);
    if (rc) {
        pthread_barrier_destroy(&t->started);
        goto fail;
    }
    /* What libc's new threads call first is not for the jail (os_jail.c) to allow. */
    pthread_barrier_wait(&t->started);
    enter_list(t);
    *out = t;
    return 0;
fail:
    free(t);
    return rc;
}

void os_thread_join(struct os_thread *t) {
    if (!t)
        return;
    pthread_join(t->thread, NULL);
    leave_list(t);
    pthread_barrier_destroy(&t->started);
    free(t);
}

void os_thread_interrupt(const struct os_thread *t) {
    syscall(SYS_tgkill, getpid(), t->id, INTERRUPT);
}

/* --- waiting for a CPU. Linux, Documentation/scheduler/sched-stats.rst,
 * "/proc/<pid>/schedstat": time on a CPU, time runnable without one, slices --- */

int os_thread_waits_open(const struct os_thread *t) {
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat",
             t ? t->id : os_thread_id());
    fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

void os_thread_waits_close(int fd) {
    if (fd >= 0)
        close(fd);
}

bool os_thread_waited(int fd, uint64_t *ns) {
    char text[80];
    ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof(text) - 1, 0);
    unsigned long long ran, waited;

    text[n > 0 ? n : 0] = 0;
    if (sscanf(text, "%llu %llu", &ran, &waited) != 2)
        return false;
    *ns = waited;
    return true;
}

/* --- bells --- */

struct os_bell {
    int fd;
};

int os_bell_new(struct os_bell **out) {
    struct os_bell *b = malloc(sizeof(*b));
    int rc = -ENOMEM;

    if (!b)
        return rc;
    b->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (b->fd < 0) {
        rc = -errno;
        free(b);
        return rc;
    }
    *out = b;
    return 0;
}

void os_bell_free(struct os_bell *b) {
    if (!b)
        return;
    close(b->fd);
    free(b);
}

void os_bell_ring(struct os_bell *b) {
    uint64_t one = 1;
    int saved = errno;

    if (write(b->fd, &one, sizeof(one)) < 0)
        errno = 0; /* EAGAIN: rung as often as it can count */
    errno = saved;
}

static void drain(int fd) {
    uint64_t count;

    if (read(fd, &count, sizeof(count)) < 0)
        errno = 0; /* EAGAIN: it was not the bell that woke us */
}

bool os_bell_wait(struct os_bell *b, int fd, unsigned events, uint64_t ns) {
    struct pollfd p[2] = {{.fd = b->fd, .events = POLLIN},
                          {.fd = fd,
                           .events = (short)((events & OS_READ ? POLLIN : 0) |
                                             (events & OS_WRITE ? POLLOUT : 0))}};
    struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000u),
                          .tv_nsec = (long)(ns % 1000000000u)};

    if (ppoll(p, 2, ns == UINT64_MAX ? NULL : &ts, NULL) == 0)
        return false;
    if (p[0].revents)
        drain(b->fd);
    return true;
}
