/* The event loop, and what other threads sleep by: descriptors, timers, tasks, bells. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_loop.h"

#define MS 1000000ull
#define MANY 40

static struct os_loop *loop;
static char said[256]; /* what was called, in order */

static int setup(void **state) {
    said[0] = 0;
    return os_loop_new(&loop);
}

static int teardown(void **state) {
    os_loop_free(loop);
    return 0;
}

static void say(const char *what) {
    strncat(said, what, sizeof(said) - strlen(said) - 1);
}

static void say_task(void *arg) {
    say(arg);
}

static void stop(void *arg) {
    os_loop_stop(loop);
}

/* One that ends the loop after what has been posted before it. */
static struct os_task last = {.fn = stop};

static void run_posted(void) {
    os_task_post(&last, loop);
    os_loop_run(loop);
}

/* --- tasks --- */

static void test_task_order(void **state) {
    struct os_task a = {.fn = say_task, .arg = (char[]){"a"}},
                   b = {.fn = say_task, .arg = (char[]){"b"}},
                   c = {.fn = say_task, .arg = (char[]){"c"}};

    os_task_post(&b, loop);
    os_task_post(&a, loop);
    os_task_post(&b, loop); /* it waits already */
    os_task_post(&c, loop);
    run_posted();
    assert_string_equal(said, "bac");
    os_task_post(&b, loop); /* again, when it was called */
    run_posted();
    assert_string_equal(said, "bacb");
}

struct again {
    struct os_task task;
    unsigned left;
};

static void post_again(void *arg) {
    struct again *a = arg;

    say("x");
    if (--a->left)
        os_task_post(&a->task, loop);
    else
        os_loop_stop(loop);
}

/* A task that posts itself is called each time, and does not keep a turn from ending. */
static void test_task_posts_itself(void **state) {
    struct again a = {.task = {.fn = post_again, .arg = &a}, .left = 5};

    os_task_post(&a.task, loop);
    os_loop_run(loop);
    assert_string_equal(said, "xxxxx");
}

/* Stopped before it runs, it does not wait; and then it can run again. */
static void test_stop_before_run(void **state) {
    os_loop_stop(loop);
    os_loop_run(loop);
    run_posted();
}

#define POSTS 20000u

struct poster {
    struct os_thread *thread;
    struct os_task task;
    atomic_uint posts, calls, seen;
};

static void count_call(void *arg) {
    struct poster *p = arg;

    atomic_fetch_add(&p->calls, 1);
    atomic_store(&p->seen, atomic_load(&p->posts));
}

static void post_often(void *arg) {
    struct poster *p = arg;

    for (unsigned n = 0; n < POSTS; n++) {
        atomic_fetch_add(&p->posts, 1);
        os_task_post(&p->task, loop);
    }
}

static atomic_uint posters_left;

static void poster(void *arg) {
    post_often(arg);
    if (atomic_fetch_sub(&posters_left, 1) == 1)
        os_task_post(&last, loop);
}

/* However the threads meet: after the last post there is a call that sees it. */
static void test_task_threads(void **state) {
    static struct poster p[3];

    atomic_store(&posters_left, 3);
    for (unsigned n = 0; n < 3; n++) {
        p[n].task = (struct os_task){.fn = count_call, .arg = &p[n]};
        assert_int_equal(os_thread_start(OS_THREAD_WORKER, poster, &p[n], &p[n].thread),
                         0);
    }
    os_loop_run(loop);
    for (unsigned n = 0; n < 3; n++) {
        os_thread_join(p[n].thread);
        assert_int_equal(atomic_load(&p[n].seen), POSTS);
        assert_in_range(atomic_load(&p[n].calls), 1, POSTS);
    }
}

static struct os_task from_handler;

static void on_signal(int signo) {
    os_task_post(&from_handler, loop);
}

/* From a signal handler; errno stays what it was. */
static void test_task_signal(void **state) {
    struct sigaction act = {.sa_handler = on_signal}, old;
    struct again a = {.task = {.fn = post_again, .arg = &a}, .left = 3};
    struct poster p = {.task = {.fn = count_call, .arg = &p}};

    from_handler = (struct os_task){.fn = say_task, .arg = (char[]){"s"}};
    sigaction(SIGUSR2, &act, &old);
    errno = ENOTTY;
    for (unsigned n = 0; n < 3; n++) {
        post_often(&p);
        raise(SIGUSR2);
    }
    assert_int_equal(errno, ENOTTY);
    os_task_post(&a.task, loop);
    os_loop_run(loop);
    sigaction(SIGUSR2, &old, NULL);
    assert_string_equal(said, "sxxx");
    assert_int_equal(atomic_load(&p.calls), 1);
}

/* --- descriptors --- */

struct pipe_watch {
    struct os_watch watch;
    int fds[2];
    const char *name;
    struct os_watch *stops, *starts; /* in its call */
    unsigned quota;                  /* of calls, then the loop ends */
};

static void on_ready(void *arg, unsigned ready) {
    struct pipe_watch *p = arg;
    char byte;

    say(p->name);
    if (ready & OS_READ && read(p->fds[0], &byte, 1) == 0)
        say("$");
    if (p->stops)
        os_watch_stop(p->stops);
    if (p->starts) {
        struct pipe_watch *other = (struct pipe_watch *)p->starts;

        assert_int_equal(
            os_watch_start(&other->watch, loop, other->fds[0], OS_READ, on_ready, other),
            0);
        p->starts = NULL;
    }
    if (!p->quota || !--p->quota)
        os_loop_stop(loop);
}

static void open_pipe(struct pipe_watch *p, const char *name, unsigned quota) {
    *p = (struct pipe_watch){.name = name, .quota = quota};
    assert_int_equal(pipe2(p->fds, O_CLOEXEC), 0);
}

static void watch(struct pipe_watch *p) {
    assert_int_equal(os_watch_start(&p->watch, loop, p->fds[0], OS_READ, on_ready, p), 0);
}

static void put(const struct pipe_watch *p, const char *bytes) {
    assert_int_equal(write(p->fds[1], bytes, strlen(bytes)), strlen(bytes));
}

static void close_pipe(struct pipe_watch *p) {
    os_watch_stop(&p->watch);
    close(p->fds[0]);
    if (p->fds[1] >= 0)
        close(p->fds[1]);
}

/* In the order in which they were started, each for as long as there is something. */
static void test_watch_order(void **state) {
    static struct pipe_watch p[3];

    open_pipe(&p[0], "a", 9);
    open_pipe(&p[1], "b", 2);
    open_pipe(&p[2], "c", 9);
    watch(&p[2]);
    watch(&p[0]);
    watch(&p[1]);
    put(&p[0], "1");
    put(&p[1], "22");
    put(&p[2], "1");
    os_loop_run(loop);
    assert_string_equal(said, "cabb");
    for (unsigned n = 0; n < 3; n++)
        close_pipe(&p[n]);
}

/* The end of a file is ready, also for one who wants to write: the reader has gone. */
static void test_watch_end(void **state) {
    static struct pipe_watch r, w;

    open_pipe(&r, "r", 1);
    watch(&r);
    close(r.fds[1]);
    r.fds[1] = -1;
    os_loop_run(loop);
    assert_string_equal(said, "r$");
    close_pipe(&r);

    open_pipe(&w, "w", 1);
    close(w.fds[0]);
    assert_int_equal(os_watch_start(&w.watch, loop, w.fds[1], OS_WRITE, on_ready, &w), 0);
    os_loop_run(loop);
    assert_string_equal(said, "r$w");
    os_watch_stop(&w.watch);
    close(w.fds[1]);
}

/* One that wants nothing is not called, whatever has become of its descriptor. */
static void test_watch_nothing(void **state) {
    static struct pipe_watch quiet, p;

    open_pipe(&quiet, "q", 9);
    watch(&quiet);
    os_watch_events(&quiet.watch, 0);
    close(quiet.fds[1]);
    quiet.fds[1] = -1;
    open_pipe(&p, "p", 2);
    watch(&p);
    put(&p, "xx");
    os_loop_run(loop);
    assert_string_equal(said, "pp");
    p.quota = 9;
    quiet.quota = 1;
    os_watch_events(&quiet.watch, OS_READ);
    os_loop_run(loop);
    assert_string_equal(said, "ppq$");
    close_pipe(&quiet);
    close_pipe(&p);
}

/* A callback stops itself, one that is yet to be called in this turn, and one that has
 * been. */
static void test_watch_stop_inside(void **state) {
    static struct pipe_watch p[4];
    static const char *const names[] = {"a", "b", "c", "d"};

    for (unsigned n = 0; n < 4; n++) {
        open_pipe(&p[n], names[n], 9);
        watch(&p[n]);
        put(&p[n], "12");
    }
    p[0].stops = &p[0].watch;
    p[1].stops = &p[2].watch;
    p[3].stops = &p[1].watch;
    p[3].quota = 2;
    os_loop_run(loop);
    assert_string_equal(said, "abdd");
    for (unsigned n = 0; n < 4; n++)
        close_pipe(&p[n]);
}

/* What a callback starts is called from the next turn on, also if the array has to grow
 * for it; and what was stopped can be started again. */
static void test_watch_start_inside(void **state) {
    static struct pipe_watch many[MANY], late;

    open_pipe(&late, "l", 1);
    put(&late, "1");
    for (unsigned n = 0; n < MANY; n++) {
        open_pipe(&many[n], "", 9);
        watch(&many[n]);
    }
    many[3].name = "m";
    many[3].starts = &late.watch;
    put(&many[3], "1");
    many[MANY - 1].name = "z";
    put(&many[MANY - 1], "1");
    os_loop_run(loop);
    assert_string_equal(said, "mzl");
    os_watch_stop(&late.watch);
    os_watch_stop(&late.watch); /* idle: nothing */
    watch(&late);
    put(&late, "2");
    os_loop_run(loop);
    assert_string_equal(said, "mzll");
    close_pipe(&late);
    for (unsigned n = 0; n < MANY; n++)
        close_pipe(&many[n]);
}

/* --- timers --- */

struct tick {
    struct os_timer timer;
    const char *name;
    bool last;
    unsigned again; /* so many calls in all */
};

static void on_tick(void *arg) {
    struct tick *t = arg;

    say(t->name);
    if (t->again && --t->again)
        os_timer_set(&t->timer, os_monotonic_ns() + MS);
    else if (t->last)
        os_loop_stop(loop);
}

static void open_tick(struct tick *t, const char *name, bool is_last) {
    *t = (struct tick){.name = name, .last = is_last};
    assert_int_equal(os_timer_open(&t->timer, loop, on_tick, t), 0);
}

/* Not before its time, once, and not at all when it was taken back. */
static void test_timer(void **state) {
    static struct tick a, b, c;
    uint64_t start = os_monotonic_ns();

    open_tick(&a, "a", false);
    open_tick(&b, "b", true);
    open_tick(&c, "c", false);
    os_timer_set(&c.timer, start + 3600000 * MS);
    os_timer_set(&c.timer, UINT64_MAX);
    os_timer_set(&a.timer, 0); /* long past */
    os_timer_set(&b.timer, start + 3600000 * MS);
    os_timer_set(&b.timer, start + 30 * MS); /* earlier */
    os_loop_run(loop);
    assert_true(os_monotonic_ns() - start >= 30 * MS);
    assert_string_equal(said, "ab");
    os_timer_close(&a.timer);
    os_timer_close(&a.timer); /* idle: nothing */
    os_timer_close(&b.timer);
    os_timer_close(&c.timer);
}

/* A timer that is set anew in its own call. */
static void test_timer_again(void **state) {
    static struct tick a;

    open_tick(&a, "a", true);
    a.again = 3;
    os_timer_set(&a.timer, 1);
    os_loop_run(loop);
    assert_string_equal(said, "aaa");
    os_timer_close(&a.timer);
}

static void set_timer(void *arg) {
    os_timer_set(arg, os_monotonic_ns() + 10 * MS);
}

/* Another thread sets it, and the loop is not woken before. */
static void test_timer_thread(void **state) {
    struct os_thread *thread;
    static struct tick a;

    open_tick(&a, "a", true);
    assert_int_equal(os_thread_start(OS_THREAD_WORKER, set_timer, &a.timer, &thread), 0);
    os_loop_run(loop);
    os_thread_join(thread);
    assert_string_equal(said, "a");
    os_timer_close(&a.timer);
}

/* Without a descriptor for it. */
static void test_timer_fails(void **state) {
    struct os_timer t = {0};
    struct rlimit old, none;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){0, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(os_timer_open(&t, loop, on_tick, NULL), -EMFILE);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    os_timer_close(&t);
    run_posted();
}

/* --- bells --- */

static void ring_later(void *arg) {
    poll(NULL, 0, 30);
    os_bell_ring(arg);
}

static void test_bell(void **state) {
    uint64_t start = os_monotonic_ns();
    struct os_thread *thread;
    struct os_bell *b;
    int fds[2];

    assert_int_equal(os_bell_new(&b), 0);
    assert_int_equal(pipe(fds), 0);
    assert_false(os_bell_wait(b, -1, 0, 0));
    assert_false(os_bell_wait(b, fds[0], OS_READ, 30 * MS));
    assert_true(os_monotonic_ns() - start >= 30 * MS);
    os_bell_ring(b); /* not lost, and one wait's */
    os_bell_ring(b);
    assert_true(os_bell_wait(b, -1, 0, UINT64_MAX));
    assert_false(os_bell_wait(b, -1, 0, MS));
    assert_int_equal(os_thread_start(OS_THREAD_WORKER, ring_later, b, &thread), 0);
    assert_true(os_bell_wait(b, -1, 0, UINT64_MAX));
    os_thread_join(thread);
    assert_true(os_bell_wait(b, fds[1], OS_WRITE, UINT64_MAX));
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_true(os_bell_wait(b, fds[0], OS_READ, UINT64_MAX));
    os_bell_free(b);
    os_bell_free(NULL);
    close(fds[0]);
    close(fds[1]);
}

/* --- threads --- */

static atomic_int read_errno;

static void read_for_ever(void *arg) {
    int *fds = arg;
    char byte;

    atomic_store(&read_errno, read(fds[0], &byte, 1) < 0 ? errno : 0);
}

static void test_interrupt(void **state) {
    struct os_thread *thread;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    atomic_store(&read_errno, -1);
    assert_int_equal(os_thread_start(OS_THREAD_WORKER, read_for_ever, fds, &thread), 0);
    while (atomic_load(&read_errno) == -1) {
        os_thread_interrupt(thread);
        poll(NULL, 0, 1);
    }
    assert_int_equal(atomic_load(&read_errno), EINTR);
    os_thread_join(thread);
    os_thread_join(NULL);
    close(fds[0]);
    close(fds[1]);
}

static atomic_int blocked;

static void look_at_mask(void *arg) {
    sigset_t mask;

    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    atomic_store(&blocked, sigismember(&mask, SIGTERM) && sigismember(&mask, SIGUSR1) &&
                               sigismember(&mask, SIGTSTP) &&
                               !sigismember(&mask, SIGSEGV) &&
                               !sigismember(&mask, SIGRTMIN));
}

/* What comes from outside is the main thread's, which keeps its mask. */
static void test_mask(void **state) {
    sigset_t before, after;
    struct os_thread *thread;

    sigemptyset(&before);
    sigemptyset(&after);
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    assert_int_equal(os_thread_start(OS_THREAD_WORKER, look_at_mask, NULL, &thread), 0);
    os_thread_join(thread);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_true(atomic_load(&blocked));
    assert_memory_equal(&before, &after, _NSIG / 8);
}

/* --- locks --- */

#define TURNS 20000

static struct os_mutex lock;
static unsigned inside, turns;

static void take_turns(void *arg) {
    for (unsigned n = 0; n < TURNS; n++) {
        if (!os_mutex_try(&lock))
            os_mutex_wait(&lock);
        assert_int_equal(inside++, 0);
        turns++;
        if (n % 1000 == 0) /* so that others come to sleep */
            poll(NULL, 0, 1);
        inside--;
        if (os_mutex_give(&lock))
            os_mutex_wake(&lock);
    }
}

static void test_mutex(void **state) {
    struct os_thread *t[3];

    assert_true(os_mutex_try(&lock));
    assert_false(os_mutex_try(&lock));
    assert_false(os_mutex_give(&lock));
    for (unsigned n = 0; n < ARRAY_SIZE(t); n++)
        assert_int_equal(os_thread_start(OS_THREAD_WORKER, take_turns, NULL, &t[n]), 0);
    for (unsigned n = 0; n < ARRAY_SIZE(t); n++)
        os_thread_join(t[n]);
    assert_int_equal(turns, ARRAY_SIZE(t) * TURNS);
    assert_int_equal(lock.state, 0);
}

#define LOOP_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_task_order),
        LOOP_TEST(test_task_posts_itself),
        LOOP_TEST(test_stop_before_run),
        LOOP_TEST(test_task_threads),
        LOOP_TEST(test_task_signal),
        LOOP_TEST(test_watch_order),
        LOOP_TEST(test_watch_end),
        LOOP_TEST(test_watch_nothing),
        LOOP_TEST(test_watch_stop_inside),
        LOOP_TEST(test_watch_start_inside),
        LOOP_TEST(test_timer),
        LOOP_TEST(test_timer_again),
        LOOP_TEST(test_timer_thread),
        LOOP_TEST(test_timer_fails),
        cmocka_unit_test(test_bell),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_mask),
        cmocka_unit_test(test_mutex),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
