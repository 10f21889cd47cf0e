/*
 * What a run needs of the jail, each time in a child process: memory, clocks, signals,
 * the loop, clients of its sockets, and the requests that its engine names. Of what it is
 * not told that they are needed, it has no more than others (jail.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"
#include "base/os_loop.h"
#include "lib/child.h"
#include "lib/jailed.h"
#include "lib/unit.h"

/* --- what a run needs --- */

static void on_usr2(int signo) {
}

static void use_memory(void) {
    char *p = malloc(64u << 20), *more;
    unsigned char in[1];

    child_check(p, "malloc");
    child_check(!mincore((void *)((uintptr_t)p & -4096ul), 4096, in), "mincore(2)");
    memset(p, 1, 64u << 20);
    more = realloc(p, 128u << 20);
    child_check(more, "realloc");
    free(more);
    for (unsigned n = 0; n < 1000; n++) {
        char *volatile small = malloc(n * 100);

        free(small);
    }
}

static void use_clocks(void) {
    struct rusage usage;
    struct timespec ts = {0};
    struct tm tm;

    child_check(!syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts), "clock_gettime(2)");
    child_check(!clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts), "the CPU time");
    child_check(gmtime_r(&ts.tv_sec, &tm), "gmtime_r(3)");
    child_check(!getrusage(RUSAGE_SELF, &usage), "getrusage(2)");
}

static void use_signals(void) {
    child_check(signal(SIGUSR2, on_usr2) != SIG_ERR, "signal(2)");
    child_check(!raise(SIGUSR2), "raise(3)");
    child_check(signal(SIGRTMIN, on_usr2) != SIG_ERR, "signal(2), real time");
    child_check(signal(SIGRTMAX, on_usr2) != SIG_ERR, "signal(2), the last");
    os_kick(os_thread_id());
    child_check(!os_signal_stack(), "the signal stack");
    child_check(!os_gs_base(NULL), "%gs");
}

static struct os_bell *bell;

struct events {
    struct os_loop *loop;
    struct os_timer timer;
    struct os_task task;
    struct os_thread *thread;
};

static void set_timer(void *arg) {
    struct events *e = arg;

    os_timer_set(&e->timer, os_monotonic_ns() + 1000000);
}

static void end_loop(void *arg) {
    struct events *e = arg;

    os_loop_stop(e->loop);
    os_bell_ring(bell);
}

static void wait_for_bell(void *arg) {
    os_bell_wait(bell, -1, 0, UINT64_MAX);
}

static bool set_up_events(struct events *e) {
    *e = (struct events){.task = {.fn = set_timer, .arg = e}};
    return !os_loop_new(&e->loop) && !os_timer_open(&e->timer, e->loop, end_loop, e) &&
           !os_bell_new(&bell) &&
           !os_thread_start(OS_THREAD_WORKER, wait_for_bell, NULL, &e->thread);
}

static void use_events(struct events *e) {
    os_task_post(&e->task, e->loop);
    os_loop_run(e->loop);
    os_thread_interrupt(e->thread);
    os_thread_join(e->thread);
    os_timer_close(&e->timer);
    os_loop_free(e->loop);
}

static void use_files(FILE *f, int fd) {
    char text[16] = "";

    child_check(fprintf(f, "some text\n") > 0 && !fflush(f), "writing a file");
    child_check(!fseek(f, 0, SEEK_SET) && !ftruncate(fileno(f), 0), "rewriting it");
    child_check(fprintf(f, "other\n") > 0 && !fclose(f), "closing it");
    child_check(pread(fd, text, sizeof(text), 0) == 6 && !strcmp(text, "other\n"),
                "reading it");
}

static void use_all(void *arg) {
    char name[] = "/tmp/jail-XXXXXX";
    int fd = mkostemp(name, O_CLOEXEC), ram, again = open(name, O_WRONLY | O_CLOEXEC);
    FILE *f = fdopen(again, "w");
    struct os_code code;
    struct events events;
    uint8_t *poll_page;
    void *map;
    bool fences = !os_fence_init(); /* not every kernel has them */

    unlink(name);
    child_check(fd >= 0 && f, "a file");
    child_check(!os_code_map(65536, &code) && !os_memfd_map("ram", 1 << 20, &ram, &map) &&
                    !os_poll_page(&poll_page) && set_up_events(&events),
                "setting up");
    jailed_enter(&(struct os_jail_needs){.any_thread = true});
    use_memory();
    use_clocks();
    use_files(f, fd);
    use_events(&events);
    code.rw[0] = 0xc3; /* ret */
    ((void (*)(void))(uintptr_t)code.rx)();
    os_poll_set(poll_page, false);
    os_poll_set(poll_page, true);
    child_check(*poll_page == 0, "the poll page");
    memset(map, 1, 1 << 20);
    child_check(!os_memfd_zero(ram, map, 1 << 20) && !*(char *)map, "giving memory back");
    isatty(STDIN_FILENO);
    os_code_unmap(&code);
    os_memfd_unmap(ram, map, 1 << 20);
    os_poll_page_free(poll_page);
    use_signals();
    child_check(os_fence_all() || !fences, "membarrier(2)");
}

/* --- clients of a control socket --- */

static char socket_path[64];

static struct os_listener *listen_at(const char *name) {
    struct os_listener *l;

    snprintf(socket_path, sizeof(socket_path), "/tmp/jail-%d-%s", (int)getpid(), name);
    child_check(!os_listener_open(socket_path, &l), "listening");
    return l;
}

static int connect_to_it(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(a.sun_path, socket_path, sizeof(socket_path));
    child_check(!connect(fd, (struct sockaddr *)&a, sizeof(a)), "connecting");
    return fd;
}

/* The one that the jail was told of, and its path goes at the end. */
static void accept_a_client(void *arg) {
    struct os_listener *l = listen_at("a");
    char byte = 0;
    int fd = connect_to_it(), client;

    child_check(!os_jail_enter(&(struct os_jail_needs){
                    .listeners = (int[]){1000, os_listener_fd(l), -1}}),
                "entering");
    client = os_listener_accept(l);
    child_check(client >= 0 && os_socket_write(client, "x", 1) == 1, "accepting");
    child_check(os_socket_read(fd, &byte, 1) == 1 && byte == 'x', "reading");
    os_socket_close(client);
    os_listener_close(l);
    child_check(access(socket_path, F_OK) == -1,
                "removing"); /* a call that is forbidden */
}

static void accept_at_another(void *arg) {
    struct os_listener *l = listen_at("b");

    child_check(!os_jail_enter(&(struct os_jail_needs){
                    .listeners = (int[]){arg ? os_listener_fd(l) + 100 : -1, -1}}),
                "entering");
    os_listener_accept(l);
}

/* A connection that is handed over, as a disk's server's is; then what ARG says. */
static void talk(void *arg) {
    const struct sockaddr_un nobody = {.sun_family = AF_UNIX};
    int fds[2], ours[2], fd;
    uint32_t token;
    char byte = 0;

    child_check(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds),
                "making a pair");
    child_check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ours),
                "making a pair");
    child_check(os_socket_hand(fds[1], 7, ours[0]), "handing over");
    child_check(!os_jail_enter(&(struct os_jail_needs){.handing = (int[]){fds[0], -1}}),
                "entering");
    child_check(!os_socket_handed(fds[0], &token, &fd) && token == 7 && fd >= 0,
                "taking");
    child_check(!fcntl(fd, F_SETFL, O_NONBLOCK), "making it one that does not wait");
    child_check(send(fd, "x", 1, 0) == 1, "sending");
    child_check(read(ours[1], &byte, 1) == 1 && byte == 'x', "reading");
    child_check(write(ours[1], "y", 1) == 1, "writing");
    child_check(recv(fd, &byte, 1, 0) == 1 && byte == 'y', "receiving");
    child_check(!shutdown(fd, SHUT_RDWR), "shutting down");
    if (arg)
        sendto(ours[1], "x", 1, 0, (const struct sockaddr *)&nobody, sizeof(nobody));
    else
        os_socket_handed(fds[1], &token, &fd); /* at another socket */
}

static void test_handed(void **state) {
    const struct jailed_call elsewhere = JAILED_CALL(recvmsg, 0, 0, 0),
                             addressed = JAILED_CALL(sendto, 0, 0, 0);
    struct child_end e = child(talk, NULL);

    assert_true(jailed_forbids(&e, &elsewhere));
    e = child(talk, "to an address");
    assert_true(jailed_forbids(&e, &addressed));
}

static void test_clients(void **state) {
    const struct jailed_call c = JAILED_CALL(accept4, 0, 0, 0);
    const struct jailed_call looks = JAILED_CALL(access, 0, 0, 0);
    struct child_end e = child(accept_a_client, NULL);

    assert_true(jailed_forbids(&e, &looks)); /* all went well until then */
    e = child(accept_at_another, NULL);
    assert_true(jailed_forbids(&e, &c));
    e = child(accept_at_another, "another");
    assert_true(jailed_forbids(&e, &c));
}

static void test_needs(void **state) {
    struct child_end e = child(use_all, NULL);

    assert_child_done(&e);
}

/* A stopped process that goes on is not stopped for good by it. */
static void wait_stopped(void *arg) {
    jailed_enter(NULL);
    raise(SIGSTOP);
    poll(NULL, 0, 300);
}

static void test_stopped(void **state) {
    pid_t pid = fork();
    int status;

    if (!pid) {
        wait_stopped(NULL);
        _exit(CHILD_DONE);
    }
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    kill(pid, SIGCONT);
    usleep(50000); /* so that poll(2) is what is stopped next */
    kill(pid, SIGSTOP);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    kill(pid, SIGCONT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), CHILD_DONE);
}

/* The requests that the caller names, and no others. */
static void call_kvm(void *arg) {
    static const unsigned long list[] = {KVM_RUN, KVM_GET_REGS, 0};

    jailed_enter(&(struct os_jail_needs){.device_ioctls = list});
    ioctl(-1, KVM_RUN, 0);
    ioctl(-1, KVM_GET_REGS, 0);
    ioctl(-1, KVM_SET_REGS, 0);
}

static void test_ioctls(void **state) {
    const struct jailed_call c = JAILED_CALL(ioctl);
    struct child_end e = child(call_kvm, NULL);

    assert_true(jailed_forbids(&e, &c));
}

static void only_get(void *arg) {
    static const unsigned long list[] = {KVM_RUN, KVM_GET_REGS, 0};

    jailed_enter(&(struct os_jail_needs){.device_ioctls = list});
    ioctl(-1, KVM_GET_REGS, 0);
    ioctl(-1, (int)KVM_GET_REGS, 0); /* as libc's that take an int */
}

static void test_ioctls_listed(void **state) {
    struct child_end e = child(only_get, NULL);

    assert_int_equal(WEXITSTATUS(e.status), CHILD_DONE);
}

/* fstat(3) has no answer, and does not end the run. */
static void ask_path(void *arg) {
    struct stat st;

    jailed_enter(NULL);
    child_check(fstatat(AT_FDCWD, "/", &st, 0) < 0 && errno == EACCES,
                "a path is looked up");
}

static void test_fstatat(void **state) {
    struct child_end e = child(ask_path, NULL);

    assert_child_done(&e);
}

/* What we were started with is closed, and what we opened is not. */
static void look_at_fds(void *arg) {
    int ours = open("/dev/null", O_RDWR | O_CLOEXEC), theirs = open("/dev/null", O_RDWR);

    jailed_enter(NULL);
    child_check(write(ours, "", 1) == 1, "our file is closed");
    child_check(write(theirs, "", 1) < 0 && errno == EBADF, "an inherited file is open");
    child_check(write(STDERR_FILENO, "", 0) == 0, "standard error is closed");
}

static void test_inherited(void **state) {
    struct child_end e = child(look_at_fds, NULL);

    assert_child_done(&e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clients), cmocka_unit_test(test_handed),
        cmocka_unit_test(test_needs),   cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_ioctls),  cmocka_unit_test(test_ioctls_listed),
        cmocka_unit_test(test_fstatat), cmocka_unit_test(test_inherited),
    };

    if (OS_JAIL_SANITIZED) {
        print_message("a build with sanitizers has no jail\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
