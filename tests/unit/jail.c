/*
 * The jail, each time in a child process: what must not be called ends it with a sentence
 * that names the call, in every thread (what a run needs still works: jail_needs.c). A
 * build with sanitizers has no jail, and says so.
 */
#include <asm/prctl.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/log.h"
#include "base/os.h"
#include "lib/child.h"
#include "lib/jailed.h"
#include "lib/unit.h"

static void test_sanitized(void **state) {
    assert_int_equal(os_jail_enter(&(struct os_jail_needs){0}), -ENOTSUP);
}

/* --- what must not be --- */

#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)

/* The pointers are bad: a call that is let through does no harm and does not end us. */
static const struct jailed_call forbidden[] = {
    /* files */
    JAILED_CALL(open, 0),
    JAILED_CALL(openat, AT_FDCWD, 0),
    JAILED_CALL(openat2, AT_FDCWD, 0),
    JAILED_CALL(creat, 0),
    JAILED_CALL(open_by_handle_at, -1),
    JAILED_CALL(stat, 0),
    JAILED_CALL(statx, -1),
    JAILED_CALL(access, 0),
    JAILED_CALL(faccessat2, -1, 0),
    JAILED_CALL(readlink, 0),
    JAILED_CALL(getdents64, -1),
    JAILED_CALL(unlink, 0),
    JAILED_CALL(unlinkat, -1, 0),
    JAILED_CALL(rename, 0),
    JAILED_CALL(link, 0),
    JAILED_CALL(symlink, 0),
    JAILED_CALL(mkdir, 0),
    JAILED_CALL(chmod, 0),
    JAILED_CALL(fchmod, -1),
    JAILED_CALL(chown, 0),
    JAILED_CALL(truncate, 0),
    JAILED_CALL(chdir, 0),
    JAILED_CALL(chroot, 0),
    JAILED_CALL(mount, 0),
    JAILED_CALL(memfd_create, 0),
    JAILED_CALL(dup, -1),
    JAILED_CALL(dup2, -1, -1),
    JAILED_CALL(fcntl, -1, F_SETOWN, 1),
    JAILED_CALL(sendfile, -1, -1),
    JAILED_CALL(inotify_init, 0),
    JAILED_CALL(fallocate, -1, 0),
    /* the network, and descriptors from others */
    JAILED_CALL(socket, 1, 1, 0),
    JAILED_CALL(socketpair, 1, 1, 0, 0),
    JAILED_CALL(connect, -1),
    JAILED_CALL(bind, -1),
    JAILED_CALL(accept, -1),
    JAILED_CALL(sendto, -1),
    JAILED_CALL(sendmsg, -1),
    JAILED_CALL(recvmsg, -1),
    JAILED_CALL(pidfd_getfd, -1),
    JAILED_CALL(io_uring_setup, 1, 0),
    /* programs, processes, threads */
    JAILED_CALL(execve, 0),
    JAILED_CALL(execveat, -1, 0),
    JAILED_CALL(fork),
    JAILED_CALL(vfork),
    JAILED_CALL(clone, SIGCHLD),
    JAILED_CALL(clone3, 0),
    JAILED_CALL(wait4, -1, 0, WNOHANG),
    JAILED_CALL(setsid),
    JAILED_CALL(setpgid, 0, 0),
    JAILED_CALL(unshare, 0),
    JAILED_CALL(setns, -1),
    /* others, and their memory */
    JAILED_CALL(ptrace, 0),
    JAILED_CALL(process_vm_readv, 1),
    JAILED_CALL(process_vm_writev, 1),
    JAILED_CALL(kill, 1, 0),
    JAILED_CALL(kill, 0, 0),
    JAILED_CALL(tkill, 1, 0),
    JAILED_CALL(tgkill, 1, 1, 0),
    JAILED_CALL(rt_sigqueueinfo, 1),
    JAILED_CALL(pidfd_open, 1, 0),
    JAILED_CALL(sched_getaffinity, 1, 8, 0),
    JAILED_CALL(sched_setaffinity, 1, 8, 0),
    JAILED_CALL(setpriority, 0, 1, 0),
    JAILED_CALL(prlimit64, 1, 0),
    JAILED_CALL(shmat, -1),
    JAILED_CALL(shmget, 0),
    /* executable memory, and a file's */
    JAILED_CALL(mmap, 0, 4096, RWX, ANONYMOUS, -1, 0),
    JAILED_CALL(mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
    JAILED_CALL(mmap, 0, 4096, PROT_EXEC | 1l << 40, ANONYMOUS, -1, 0),
    JAILED_CALL(mmap, 0, 4096, PROT_READ, MAP_PRIVATE, 0, 0),
    JAILED_CALL(mprotect, 0, 4096, PROT_READ | PROT_EXEC),
    JAILED_CALL(mprotect, 0, 4096, PROT_EXEC),
    JAILED_CALL(pkey_mprotect, 0, 4096, PROT_EXEC, -1),
    JAILED_CALL(remap_file_pages, 0, 4096),
    JAILED_CALL(personality, 0x0400000),
    JAILED_CALL(madvise, 0, 4096, MADV_MERGEABLE),
    JAILED_CALL(userfaultfd, 0),
    /* privileges and ways around */
    JAILED_CALL(prctl, 22, 2, 0), /* PR_SET_SECCOMP */
    JAILED_CALL(seccomp, 0),
    JAILED_CALL(setuid, 0),
    JAILED_CALL(setresuid, -1, -1, -1),
    JAILED_CALL(capset, 0),
    JAILED_CALL(keyctl, 0),
    JAILED_CALL(bpf, 0),
    JAILED_CALL(perf_event_open, 0),
    JAILED_CALL(arch_prctl, ARCH_SET_FS, 0),
    JAILED_CALL(modify_ldt, 0),
    JAILED_CALL(rt_sigaction, SIGSYS, 0, 0, 8),
    JAILED_CALL(rt_sigaction, 1l << 32 | SIGSYS, 0, 0, 8),
    JAILED_CALL(timer_create, 0, 0),
    /* the terminal: no typing at it, no other settings */
    JAILED_CALL(ioctl, 0, TIOCSTI, 0),
    JAILED_CALL(ioctl, 0, 0x541c, 0), /* TIOCLINUX */
    JAILED_CALL(ioctl, 0, TIOCSCTTY, 0),
    JAILED_CALL(ioctl, -1, 1l << 32 | TIOCSTI, 0),
    JAILED_CALL(ioctl, -1, KVM_CREATE_VM, 0),
    /* by other names: x32's getpid, a number that nobody has */
    {"getpid", 0x40000000 | SYS_getpid, {0}, "of that number"},
    {"nothing", 499, {0}, "of that number"},
};

static void call_it(void *arg) {
    jailed_enter(NULL);
    jailed_call(arg);
}

static void test_forbidden(void **state) {
    bool good = true;

    for (size_t n = 0; n < ARRAY_SIZE(forbidden); n++) {
        struct child_end e = child(call_it, (void *)(uintptr_t)&forbidden[n]);

        good &= jailed_forbids(&e, &forbidden[n]);
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
        jailed_call(arg);
}

static enum os_thread_kind kind;
static struct os_jail_needs needs;

static void call_it_in_a_thread(void *arg) {
    struct os_thread *t;

    if (os_bell_new(&bell) || os_thread_start(kind, obey, arg, &t))
        return;
    jailed_enter(&needs);
    if (kind == OS_THREAD_LOOP) {
        jailed_call(arg);
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

static bool forbids_in(enum os_thread_kind in, const struct jailed_call *c) {
    struct child_end e;

    kind = in;
    e = child(call_it_in_a_thread, (void *)(uintptr_t)c);
    return jailed_forbids(&e, c);
}

static bool allows_in(enum os_thread_kind in, const struct jailed_call *c) {
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
    struct jailed_call call;
    unsigned kinds;
} some_may[] = {
    {JAILED_CALL(accept4, PEER, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC), LOOP},
    {JAILED_CALL(recvmsg, PEER, 0, 0), LOOP | WORKER},
    {JAILED_CALL(sendto, -1, 0, 0, 0, 0, 0), LOOP | WORKER},
    {JAILED_CALL(recvfrom, -1, 0, 0, 0, 0, 0), LOOP | WORKER},
    {JAILED_CALL(shutdown, -1, SHUT_RDWR), LOOP | WORKER},
    {JAILED_CALL(fcntl, -1, F_SETFL, 0), LOOP | WORKER},
    {JAILED_CALL(fdatasync, -1), LOOP | WORKER},
    {JAILED_CALL(fallocate, -1, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 0),
     LOOP | WORKER},
    {JAILED_CALL(getrusage, 0, 0), LOOP | CPU},
    {JAILED_CALL(mincore, 0, 0, 0), LOOP | CPU},
    {JAILED_CALL(ftruncate, -1, 0), LOOP | CPU | WORKER},
    {JAILED_CALL(arch_prctl, ARCH_SET_GS, 0), CPU},
    {JAILED_CALL(sched_setaffinity, 0, 0, 0), CPU},
    {JAILED_CALL(ioctl, -1, KVM_RUN, 0), LOOP | CPU},
    {JAILED_CALL(ioctl, -1, KVM_SIGNAL_MSI, 0), LOOP | CPU | WORKER},
    {JAILED_CALL(ioctl, -1, TIOCGWINSZ, 0), LOOP},
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
    jailed_enter(NULL);
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

    jailed_enter(NULL);
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
        jailed_enter(NULL);
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

        if (sscanf(line, "Max core file size %lu %lu", &soft, &hard) == 2)
            seen += soft == 1 && hard == 1; /* 0 is no limit where programs take cores */
        if (sscanf(line, "Max processes %lu %lu", &soft, &hard) == 2)
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
    jailed_enter(NULL);
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

    jailed_enter(NULL);
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
    jailed_enter(NULL);
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

    jailed_enter(NULL);
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
