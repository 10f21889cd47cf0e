/*
 * The jail, each time in a child process: what must not be called ends it with a sentence
 * that names the call, in every thread; what a run needs still works. A build with
 * sanitizers has no jail, and says so.
 */
#include <asm/prctl.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/log.h"
#include "base/os.h"
#include "base/os_loop.h"
#include "lib/child.h"
#include "lib/unit.h"

static void lock_up(const struct os_jail_needs *needs) {
    int rc = os_jail_enter(needs ? needs : &(struct os_jail_needs){0});

    if (rc) {
        fprintf(stderr, "no jail: %s\n", strerror(-rc));
        _exit(1);
    }
}

static void test_sanitized(void **state) {
    assert_int_equal(os_jail_enter(&(struct os_jail_needs){0}), -ENOTSUP);
}

/* --- what must not be --- */

struct call {
    const char *name;
    long nr;
    long arg[6];
    const char *told; /* instead of the name */
};

#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)
#define CALL(name, ...)                                                                  \
    { #name, SYS_##name, {__VA_ARGS__ }, NULL }

/* The pointers are bad: a call that is let through does no harm and does not end us. */
static const struct call forbidden[] = {
    /* files */
    CALL(open, 0),
    CALL(openat, AT_FDCWD, 0),
    CALL(openat2, AT_FDCWD, 0),
    CALL(creat, 0),
    CALL(open_by_handle_at, -1),
    CALL(stat, 0),
    CALL(statx, -1),
    CALL(access, 0),
    CALL(faccessat2, -1, 0),
    CALL(readlink, 0),
    CALL(getdents64, -1),
    CALL(unlink, 0),
    CALL(unlinkat, -1, 0),
    CALL(rename, 0),
    CALL(link, 0),
    CALL(symlink, 0),
    CALL(mkdir, 0),
    CALL(chmod, 0),
    CALL(fchmod, -1),
    CALL(chown, 0),
    CALL(truncate, 0),
    CALL(chdir, 0),
    CALL(chroot, 0),
    CALL(mount, 0),
    CALL(memfd_create, 0),
    CALL(dup, -1),
    CALL(dup2, -1, -1),
    CALL(fcntl, -1, F_SETOWN, 1),
    CALL(sendfile, -1, -1),
    CALL(inotify_init, 0),
    CALL(fallocate, -1, 0),
    /* the network, and descriptors from others */
    CALL(socket, 1, 1, 0),
    CALL(socketpair, 1, 1, 0, 0),
    CALL(connect, -1),
    CALL(bind, -1),
    CALL(accept, -1),
    CALL(sendto, -1),
    CALL(sendmsg, -1),
    CALL(recvmsg, -1),
    CALL(pidfd_getfd, -1),
    CALL(io_uring_setup, 1, 0),
    /* programs, processes, threads */
    CALL(execve, 0),
    CALL(execveat, -1, 0),
    CALL(fork),
    CALL(vfork),
    CALL(clone, SIGCHLD),
    CALL(clone3, 0),
    CALL(wait4, -1, 0, WNOHANG),
    CALL(setsid),
    CALL(setpgid, 0, 0),
    CALL(unshare, 0),
    CALL(setns, -1),
    /* others, and their memory */
    CALL(ptrace, 0),
    CALL(process_vm_readv, 1),
    CALL(process_vm_writev, 1),
    CALL(kill, 1, 0),
    CALL(kill, 0, 0),
    CALL(tkill, 1, 0),
    CALL(tgkill, 1, 1, 0),
    CALL(rt_sigqueueinfo, 1),
    CALL(pidfd_open, 1, 0),
    CALL(sched_getaffinity, 1, 8, 0),
    CALL(sched_setaffinity, 1, 8, 0),
    CALL(setpriority, 0, 1, 0),
    CALL(prlimit64, 1, 0),
    CALL(shmat, -1),
    CALL(shmget, 0),
    /* executable memory, and a file's */
    CALL(mmap, 0, 4096, RWX, ANONYMOUS, -1, 0),
    CALL(mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
    CALL(mmap, 0, 4096, PROT_EXEC | 1l << 40, ANONYMOUS, -1, 0),
    CALL(mmap, 0, 4096, PROT_READ, MAP_PRIVATE, 0, 0),
    CALL(mprotect, 0, 4096, PROT_READ | PROT_EXEC),
    CALL(mprotect, 0, 4096, PROT_EXEC),
    CALL(pkey_mprotect, 0, 4096, PROT_EXEC, -1),
    CALL(remap_file_pages, 0, 4096),
    CALL(personality, 0x0400000),
    CALL(madvise, 0, 4096, MADV_MERGEABLE),
    CALL(userfaultfd, 0),
    /* privileges and ways around */
    CALL(prctl, 22, 2, 0), /* PR_SET_SECCOMP */
    CALL(seccomp, 0),
    CALL(setuid, 0),
    CALL(setresuid, -1, -1, -1),
    CALL(capset, 0),
    CALL(keyctl, 0),
    CALL(bpf, 0),
    CALL(perf_event_open, 0),
    CALL(arch_prctl, ARCH_SET_FS, 0),
    CALL(modify_ldt, 0),
    CALL(rt_sigaction, SIGSYS, 0, 0, 8),
    CALL(rt_sigaction, 1l << 32 | SIGSYS, 0, 0, 8),
    CALL(timer_create, 0, 0),
    /* the terminal: no typing at it, no other settings */
    CALL(ioctl, 0, TIOCSTI, 0),
    CALL(ioctl, 0, 0x541c, 0), /* TIOCLINUX */
    CALL(ioctl, 0, TIOCSCTTY, 0),
    CALL(ioctl, -1, 1l << 32 | TIOCSTI, 0),
    CALL(ioctl, -1, KVM_CREATE_VM, 0),
    /* by other names: x32's getpid, a number that nobody has */
    {"getpid", 0x40000000 | SYS_getpid, {0}, "of that number"},
    {"nothing", 499, {0}, "of that number"},
};

static void make_call(const struct call *c) {
    const long *a = c->arg;

    syscall(c->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void call_it(void *arg) {
    lock_up(NULL);
    make_call(arg);
}

static bool forbids(const struct child_end *e, const struct call *c) {
    char want[128];

    snprintf(want, sizeof(want), "the jail forbids the system call %s (%d)",
             c->told ? c->told : c->name, (int)c->nr);
    if (WIFEXITED(e->status) && WEXITSTATUS(e->status) == 1 && strstr(e->text, want) &&
        strchr(e->text, '\n') == e->text + strlen(e->text) - 1)
        return true;
    print_error("%s: status %#x, it said: %s\n", c->name, e->status, e->text);
    return false;
}

static void test_forbidden(void **state) {
    bool good = true;

    for (size_t n = 0; n < ARRAY_SIZE(forbidden); n++) {
        struct child_end e = child(call_it, (void *)(uintptr_t)&forbidden[n]);

        good &= forbids(&e, &forbidden[n]);
    }
    assert_true(good);
}

/* --- in every thread --- */

static pthread_barrier_t ready, go;

static void *second(void *arg) {
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&go);
    return NULL;
}

/* One that we did not make cannot be locked up: then nobody is. */
static void have_a_stranger(void *arg) {
    pthread_t t;
    int fd;

    pthread_barrier_init(&ready, NULL, 2);
    pthread_barrier_init(&go, NULL, 2);
    pthread_create(&t, NULL, second, arg);
    pthread_barrier_wait(&ready);
    if (os_jail_enter(&(struct os_jail_needs){0}) != -EBUSY)
        log_error("a thread was not seen");
    pthread_barrier_wait(&go);
    pthread_join(t, NULL);
    fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        log_error("locked up without it");
}

static void test_other_thread(void **state) {
    struct child_end e = child(have_a_stranger, NULL);

    assert_child_done(&e);
}

/* A thread of ours, which has most signals blocked. */
static struct os_bell *bell;

static void wait_and_call(void *arg) {
    os_bell_wait(bell, -1, 0, UINT64_MAX);
    if (arg)
        make_call(arg);
}

/* The signal by which the jail comes ends a wait, too. */
static bool rung;

static void wait_for_ring(void) {
    while (!__atomic_load_n(&rung, __ATOMIC_SEQ_CST))
        os_bell_wait(bell, -1, 0, UINT64_MAX);
}

static void ring(void) {
    __atomic_store_n(&rung, true, __ATOMIC_SEQ_CST);
    os_bell_ring(bell);
}

static void obey(void *arg) {
    wait_for_ring();
    if (arg)
        make_call(arg);
}

static enum os_thread_kind kind;
static struct os_jail_needs needs;

static void call_it_in_a_thread(void *arg) {
    struct os_thread *t;

    if (os_bell_new(&bell) || os_thread_start(kind, obey, arg, &t))
        return;
    lock_up(&needs);
    if (kind == OS_THREAD_LOOP) {
        make_call(arg);
        _exit(CHILD_DONE);
    }
    ring();
    os_thread_join(t);
}

/* Right after the thread was made: what libc does in a new thread comes before. */
static void test_thread_is_there(void **state) {
    kind = OS_THREAD_CPU;
    for (unsigned n = 0; n < 300; n++) {
        struct child_end e = child(call_it_in_a_thread, NULL);

        assert_child_done(&e);
    }
}

/* --- by kinds --- */

static bool forbids_in(enum os_thread_kind in, const struct call *c) {
    struct child_end e;

    kind = in;
    e = child(call_it_in_a_thread, (void *)(uintptr_t)c);
    return forbids(&e, c);
}

static bool allows_in(enum os_thread_kind in, const struct call *c) {
    struct child_end e;

    kind = in;
    e = child(call_it_in_a_thread, (void *)(uintptr_t)c);
    if (WIFEXITED(e.status) && WEXITSTATUS(e.status) == CHILD_DONE)
        return true;
    print_error("%s in a thread of kind %d: status %#x, it said: %s\n", c->name, in,
                e.status, e.text);
    return false;
}

/* What nobody may do, no kind of thread may. */
static void test_forbidden_in_threads(void **state) {
    bool good = true;

    for (size_t n = 0; n < ARRAY_SIZE(forbidden); n++) {
        good &= forbids_in(OS_THREAD_CPU, &forbidden[n]);
        good &= forbids_in(OS_THREAD_WORKER, &forbidden[n]);
    }
    assert_true(good);
}

#define LOOP (1u << OS_THREAD_LOOP)
#define CPU (1u << OS_THREAD_CPU)
#define WORKER (1u << OS_THREAD_WORKER)
#define PEER 1000 /* a descriptor that there is not */

/* What some kinds may. */
static const struct {
    struct call call;
    unsigned kinds;
} some_may[] = {
    {CALL(accept4, PEER, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC), LOOP},
    {CALL(recvmsg, PEER, 0, 0), LOOP | WORKER},
    {CALL(sendto, -1, 0, 0, 0, 0, 0), LOOP | WORKER},
    {CALL(recvfrom, -1, 0, 0, 0, 0, 0), LOOP | WORKER},
    {CALL(shutdown, -1, SHUT_RDWR), LOOP | WORKER},
    {CALL(fcntl, -1, F_SETFL, 0), LOOP | WORKER},
    {CALL(fdatasync, -1), LOOP | WORKER},
    {CALL(fallocate, -1, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 0),
     LOOP | WORKER},
    {CALL(getrusage, 0, 0), LOOP | CPU},
    {CALL(mincore, 0, 0, 0), LOOP | CPU},
    {CALL(ftruncate, -1, 0), LOOP | CPU | WORKER},
    {CALL(arch_prctl, ARCH_SET_GS, 0), CPU},
    {CALL(sched_setaffinity, 0, 0, 0), CPU},
    {CALL(ioctl, -1, KVM_RUN, 0), LOOP | CPU},
    {CALL(ioctl, -1, KVM_SIGNAL_MSI, 0), LOOP | CPU | WORKER},
    {CALL(ioctl, -1, TIOCGWINSZ, 0), LOOP},
};

static void test_kinds(void **state) {
    static const unsigned long on_cpu[] = {KVM_RUN, 0}, on_any[] = {KVM_SIGNAL_MSI, 0};
    static const int peers[] = {PEER, -1};
    bool good = true;

    needs = (struct os_jail_needs){.cpu_ioctls = on_cpu,
                                   .device_ioctls = on_any,
                                   .listeners = peers,
                                   .handing = peers};
    for (size_t n = 0; n < ARRAY_SIZE(some_may); n++)
        for (unsigned in = 0; in < OS_THREAD_KINDS; in++)
            good &= some_may[n].kinds & 1u << in ? allows_in(in, &some_may[n].call)
                                                 : forbids_in(in, &some_may[n].call);
    needs.any_thread = true;
    for (size_t n = 0; n < ARRAY_SIZE(some_may); n++)
        for (unsigned in = 0; in < OS_THREAD_KINDS; in++)
            good &= allows_in(in, &some_may[n].call);
    needs = (struct os_jail_needs){0};
    assert_true(good);
}

/* What the kernel says of each thread. */
static int report_pipe[2];

static void wait_locked_up(void *arg) {
    struct os_thread *t;
    char byte = 0;

    os_bell_new(&bell);
    os_thread_start(OS_THREAD_CPU, obey, NULL, &t);
    os_thread_start(OS_THREAD_WORKER, obey, NULL, &t);
    lock_up(NULL);
    if (write(report_pipe[1], &byte, 1) == 1)
        poll(NULL, 0, 1000);
}

static unsigned locked_up_threads(pid_t pid) {
    unsigned threads = 0, locked = 0;
    char path[64], line[256];
    struct dirent *e;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    dir = opendir(path);
    assert_non_null(dir);
    while ((e = readdir(dir))) {
        bool privs = false, filter = false, user = false;
        char name[384];
        FILE *f;

        if (*e->d_name == '.')
            continue;
        snprintf(name, sizeof(name), "%s/%s/status", path, e->d_name);
        f = fopen(name, "re");
        assert_non_null(f);
        while (fgets(line, sizeof(line), f)) {
            privs |= !strcmp(line, "NoNewPrivs:\t1\n");
            filter |= !strcmp(line, "Seccomp:\t2\n");
            user |= !strncmp(line, "Uid:\t", 5) && strncmp(line, "Uid:\t0\t", 7);
        }
        fclose(f);
        threads++;
        locked += privs && filter && user;
    }
    closedir(dir);
    assert_int_equal(locked, threads);
    return threads;
}

static void test_every_thread(void **state) {
    char byte;
    pid_t pid;

    assert_int_equal(pipe2(report_pipe, O_CLOEXEC), 0);
    pid = fork();
    if (!pid) {
        wait_locked_up(NULL);
        _exit(CHILD_DONE);
    }
    assert_int_equal(read(report_pipe[0], &byte, 1), 1);
    assert_int_equal(locked_up_threads(pid), 3);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(report_pipe[0]);
    close(report_pipe[1]);
}

/* 32-bit calls have numbers of their own: 11 is execve(2). The kernel may have none. */
static void call_int80(void *arg) {
    long rc;

    lock_up(NULL);
    __asm__ volatile("int $0x80" : "=a"(rc) : "a"(11), "b"(0), "c"(0), "d"(0) : "memory");
}

static void test_int80(void **state) {
    struct child_end e = child(call_int80, NULL);

    if (WIFSIGNALED(e.status)) {
        assert_int_equal(WTERMSIG(e.status), SIGSEGV);
        return;
    }
    assert_int_equal(WEXITSTATUS(e.status), 1);
    assert_non_null(strstr(e.text, "the system call of that number (11)"));
}

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

static bool set_up_events(struct events *e) {
    *e = (struct events){.task = {.fn = set_timer, .arg = e}};
    return !os_loop_new(&e->loop) && !os_timer_open(&e->timer, e->loop, end_loop, e) &&
           !os_bell_new(&bell) &&
           !os_thread_start(OS_THREAD_WORKER, wait_and_call, NULL, &e->thread);
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
    lock_up(&(struct os_jail_needs){.any_thread = true});
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
    const struct call elsewhere = CALL(recvmsg, 0, 0, 0),
                      addressed = CALL(sendto, 0, 0, 0);
    struct child_end e = child(talk, NULL);

    assert_true(forbids(&e, &elsewhere));
    e = child(talk, "to an address");
    assert_true(forbids(&e, &addressed));
}

static void test_clients(void **state) {
    const struct call c = CALL(accept4, 0, 0, 0);
    const struct call looks = CALL(access, 0, 0, 0);
    struct child_end e = child(accept_a_client, NULL);

    assert_true(forbids(&e, &looks)); /* all went well until then */
    e = child(accept_at_another, NULL);
    assert_true(forbids(&e, &c));
    e = child(accept_at_another, "another");
    assert_true(forbids(&e, &c));
}

static void test_needs(void **state) {
    struct child_end e = child(use_all, NULL);

    assert_child_done(&e);
}

/* A stopped process that goes on is not stopped for good by it. */
static void wait_stopped(void *arg) {
    lock_up(NULL);
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

    lock_up(&(struct os_jail_needs){.device_ioctls = list});
    ioctl(-1, KVM_RUN, 0);
    ioctl(-1, KVM_GET_REGS, 0);
    ioctl(-1, KVM_SET_REGS, 0);
}

static void test_ioctls(void **state) {
    const struct call c = CALL(ioctl);
    struct child_end e = child(call_kvm, NULL);

    assert_true(forbids(&e, &c));
}

static void only_get(void *arg) {
    static const unsigned long list[] = {KVM_RUN, KVM_GET_REGS, 0};

    lock_up(&(struct os_jail_needs){.device_ioctls = list});
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

    lock_up(NULL);
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

    lock_up(NULL);
    child_check(write(ours, "", 1) == 1, "our file is closed");
    child_check(write(theirs, "", 1) < 0 && errno == EBADF, "an inherited file is open");
    child_check(write(STDERR_FILENO, "", 0) == 0, "standard error is closed");
}

static void test_inherited(void **state) {
    struct child_end e = child(look_at_fds, NULL);

    assert_child_done(&e);
}

/* --- what else is given up --- */

static int task_pipe[2];

static void tell_of_itself(void *arg) {
    wait_for_ring();
    (void)!write(task_pipe[1], "", 1);
    poll(NULL, 0, -1);
}

static bool link_is(const char *link, char *out, size_t size) {
    ssize_t len = readlink(link, out, size - 1);

    out[len < 0 ? 0 : len] = 0;
    return len > 0;
}

/* Of PID's thread that is not the first. */
static void task_link(pid_t pid, const char *what, char *out, size_t size) {
    char path[300];
    struct dirent *e;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    dir = opendir(path);
    assert_non_null(dir);
    while ((e = readdir(dir)))
        if (*e->d_name != '.' && atoi(e->d_name) != pid)
            snprintf(path, sizeof(path), "/proc/%d/task/%s/%s", (int)pid, e->d_name,
                     what);
    closedir(dir);
    assert_true(link_is(path, out, size));
}

static bool is_empty_directory(pid_t pid) {
    char path[64];
    struct dirent *e;
    unsigned there = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
    dir = opendir(path);
    while (dir && (e = readdir(dir)))
        there += *e->d_name != '.';
    if (dir)
        closedir(dir);
    return !there;
}

/* A process whose threads have all been locked up, and wait. */
static pid_t locked_up_child(void) {
    struct os_thread *t;
    char byte;
    pid_t pid;

    assert_int_equal(pipe2(task_pipe, O_CLOEXEC), 0);
    pid = fork();
    if (!pid) {
        os_bell_new(&bell);
        os_thread_start(OS_THREAD_WORKER, tell_of_itself, NULL, &t);
        lock_up(NULL);
        ring();
        os_thread_join(t);
    }
    assert_int_equal(read(task_pipe[0], &byte, 1), 1);
    return pid;
}

static void end_child(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(task_pipe[0]);
    close(task_pipe[1]);
}

/* Root's process is not root's any more, sees no files, and no network. */
static void test_root(void **state) {
    char ours[64], path[64], its[64], others[64], have[512];
    pid_t pid;

    os_jail_describe(have, sizeof(have));
    print_message("(this host: the filter%s)\n", have);
    pid = locked_up_child();
    assert_true(link_is("/proc/self/ns/net", ours, sizeof(ours)));
    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
    assert_true(link_is(path, its, sizeof(its)));
    task_link(pid, "ns/net", others, sizeof(others));
    assert_string_equal(its, others);
    assert_int_equal(!strcmp(ours, its), !strstr(have, "namespaces"));
    assert_int_equal(is_empty_directory(pid), strstr(have, "empty") != NULL);
    end_child(pid);
}

static void test_limits(void **state) {
    char path[64], line[256];
    unsigned seen = 0;
    pid_t pid = locked_up_child();
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/limits", (int)pid);
    f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        unsigned long soft = 1, hard = 1;

        if (sscanf(line, "Max core file size %lu %lu", &soft, &hard) == 2 ||
            sscanf(line, "Max processes %lu %lu", &soft, &hard) == 2)
            seen += !soft && !hard;
        if (sscanf(line, "Max open files %lu %lu", &soft, &hard) == 2)
            seen += soft <= 2048 && hard <= 2048;
    }
    fclose(f);
    end_child(pid);
    assert_int_equal(seen, 3);
}

/* --- the ends --- */

static void dump(void *arg) {
    fprintf(stderr, "the dump\n");
}

static void have_a_bug(void *arg) {
    bug_set_dump(dump, NULL);
    lock_up(NULL);
    BUG_ON(true);
}

static void test_bug(void **state) {
    struct child_end e = child(have_a_bug, NULL);

    assert_true(WIFSIGNALED(e.status));
    assert_int_equal(WTERMSIG(e.status), SIGABRT);
    assert_non_null(strstr(e.text, "bug at"));
    assert_non_null(strstr(e.text, "the dump"));
}

/* libc tells what it has found before it aborts. */
static void free_twice(void *arg) {
    char *volatile p = malloc(5000), *volatile guard = malloc(10);

    lock_up(NULL);
    free(p);
    free(p);
    free(guard);
}

static void test_libc_abort(void **state) {
    struct child_end e = child(free_twice, NULL);

    assert_true(WIFSIGNALED(e.status));
    assert_int_equal(WTERMSIG(e.status), SIGABRT);
    assert_non_null(strstr(e.text, "free"));
}

static void get_sigsys(void *arg) {
    lock_up(NULL);
    raise(SIGSYS);
}

/* Sent by somebody, it is a signal like others. */
static void test_sigsys(void **state) {
    struct child_end e = child(get_sigsys, NULL);

    assert_true(WIFSIGNALED(e.status));
    assert_int_equal(WTERMSIG(e.status), SIGSYS);
    assert_string_equal(e.text, "");
}

static void die_of_segv(void *arg) {
    volatile int *volatile p = (volatile int *)8;

    lock_up(NULL);
    *p = 0;
}

static void test_segv(void **state) {
    struct child_end e = child(die_of_segv, NULL);

    assert_true(WIFSIGNALED(e.status));
    assert_int_equal(WTERMSIG(e.status), SIGSEGV);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forbidden),
        cmocka_unit_test(test_other_thread),
        cmocka_unit_test(test_thread_is_there),
        cmocka_unit_test(test_forbidden_in_threads),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_root),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_every_thread),
        cmocka_unit_test(test_int80),
        cmocka_unit_test(test_clients),
        cmocka_unit_test(test_handed),
        cmocka_unit_test(test_needs),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_ioctls),
        cmocka_unit_test(test_ioctls_listed),
        cmocka_unit_test(test_fstatat),
        cmocka_unit_test(test_inherited),
        cmocka_unit_test(test_bug),
        cmocka_unit_test(test_libc_abort),
        cmocka_unit_test(test_sigsys),
        cmocka_unit_test(test_segv),
    };
    const struct CMUnitTest sanitized[] = {cmocka_unit_test(test_sanitized)};

    if (OS_JAIL_SANITIZED)
        return cmocka_run_group_tests(sanitized, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
