/*
 * Plays the user of bivisor at a terminal and in a pipe; prints TAP-like lines.
 *
 *   user BIVISOR GUEST ENGINE   the tests (GUEST is tests/cli/guest.c)
 *   user json FILE KEY...       is FILE one JSON object that has the KEYs?
 *   user unfiltered COMMAND...  runs COMMAND where system calls cannot be filtered
 */
#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/os.h"
#include "cli/job.h"

#define CTRL_A "\x01"
#define CTRL_D "\x04"

/* --- tests at a terminal --- */

static void test_keys(void) {
    struct run *r = start_on_tty(true, "do=e");

    verdict("tty-ready", expect(r, "READY"), r);
    verdict("tty-raw", becomes_raw(r), r);
    verdict("tty-echo", type(r, "hello, guest") && expect(r, "hello, guest"), r);
    verdict("tty-ctrl-c-is-the-guests", type(r, "<\x03>") && expect(r, "<\x03>"), r);
    verdict("tty-help", type(r, CTRL_A "h") && expect(r, "this help"), r);
    verdict("tty-ctrl-a-a", type(r, "<" CTRL_A "a>") && expect(r, "<" CTRL_A ">"), r);
    verdict("tty-ctrl-a-twice",
            type(r, "(" CTRL_A CTRL_A ")") && expect(r, "(" CTRL_A ")"), r);
    verdict("tty-ctrl-a-other", type(r, "[" CTRL_A "q]") && expect(r, "[" CTRL_A "q]"),
            r);
    verdict("tty-quit", type(r, CTRL_A "x") && exits_with(r, 0), r);
    verdict("tty-quit-restored", restored(r), r);
    end(r);
}

/* Ctrl-T, and a monitor beside the guest. */
static void test_monitor(void) {
    static const char *const options[] = {"--monitor", "mux", "--escape", "20"};
    struct run *r;

    memcpy(more, options, sizeof(more));
    r = start_on_tty(true, "do=e");
    memset(more, 0, sizeof(more));
    verdict("monitor-ready", expect(r, "READY") && becomes_raw(r), r);
    verdict("monitor-ctrl-a-is-the-guests", type(r, "<\x01h>") && expect(r, "<\x01h>"),
            r);
    verdict("monitor-help", type(r, "\x14h") && expect(r, "Ctrl-T c   to the monitor"),
            r);
    verdict("monitor-enter",
            type(r, "\x14"
                    "c") &&
                expect(r, "(qemu) "),
            r);
    verdict("monitor-status",
            type(r, "info stx\x7f"
                    "atus\r") &&
                expect(r, "VM status: running"),
            r);
    verdict("monitor-stop",
            type(r, "stop\rinfo status\r") && expect(r, "VM status: paused"), r);
    verdict("monitor-leave",
            type(r, "cont\r\x14"
                    "chello") &&
                expect(r, "hello"),
            r);
    verdict("monitor-quit",
            type(r, "\x14"
                    "cquit\r") &&
                exits_with(r, 0) && restored(r),
            r);
    end(r);
}

/* The guest takes nothing, and its queue is long full. */
static void test_quit_deaf(void) {
    struct run *r = start_on_tty(true, "do=h");
    char noise[20000];

    memset(noise, 'n', sizeof(noise));
    verdict("tty-quit-deaf-guest",
            expect(r, "READY") && becomes_raw(r) && send_bytes(r, noise, sizeof(noise)) &&
                type(r, CTRL_A "x") && exits_with(r, 0) && restored(r),
            r);
    end(r);
}

static void test_quit_busy(void) {
    struct run *r = start_on_tty(true, "do=l");

    verdict("tty-quit-busy-guest",
            expect(r, "READY") && becomes_raw(r) && type(r, CTRL_A "x") &&
                exits_with(r, 0) && restored(r),
            r);
    end(r);
}

/* The guest never gets to the end of an instruction. */
static void test_task_loop(void) {
    struct run *r = start_on_tty(true, "do=w");

    verdict("tty-quit-task-loop",
            expect(r, "READY") && becomes_raw(r) && type(r, CTRL_A "x") &&
                exits_with(r, 0) && restored(r),
            r);
    end(r);
    r = start_on_pipes("do=w", 0);
    verdict("pipe-SIGTERM-task-loop",
            expect(r, "READY") && !kill(r->pid, SIGTERM) && dies_of(r, SIGTERM), r);
    end(r);
}

/* In a recorded run virtual time stands still with that guest: it would have to go on for
 * READY to be shown, and for what is typed to be taken; commands are obeyed at once. */
static void test_recorded_task_loop(void) {
    char path[] = "/tmp/bivisor-record-XXXXXX";
    int fd = mkstemp(path);
    struct run *r;
    bool good;

    record = path;
    r = start_on_tty(true, "do=w");
    good = fd >= 0 && becomes_raw(r);
    pause_ms(500);
    verdict("tty-quit-recorded-task-loop",
            good && type(r, "abc" CTRL_A "x") && exits_with(r, 0) && restored(r), r);
    end(r);
    r = start_on_pipes("do=w", 0);
    pause_ms(500);
    verdict("pipe-SIGTERM-recorded-task-loop",
            !kill(r->pid, SIGTERM) && dies_of(r, SIGTERM), r);
    end(r);
    record = NULL;
    unlink(path);
    close(fd);
}

static void test_ends(void) {
    static const struct {
        const char *name, *append;
        int status;
    } ends[] = {{"tty-power-off", "do=p", 0}, {"tty-debug-exit", "do=x10", 0x21}};

    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        struct run *r = start_on_tty(true, ends[i].append);

        verdict(ends[i].name,
                expect(r, "READY") && exits_with(r, ends[i].status) && restored(r), r);
        end(r);
    }
}

static void test_signals(void) {
    static const int signals[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT, SIGSEGV,
                                  SIGABRT, SIGBUS,  SIGFPE,  SIGILL,  SIGTRAP,
                                  SIGALRM, SIGUSR2, SIGXCPU, SIGSYS,  0 /* SIGRTMAX */};

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct run *r = start_on_tty(true, i & 1 ? "do=h" : "do=l");
        int signo = signals[i] ? signals[i] : SIGRTMAX;
        const char *abbreviation = sigabbrev_np(signo);
        char name[40];

        snprintf(name, sizeof(name), "tty-SIG%s-restores",
                 abbreviation ? abbreviation : "RTMAX");
        verdict(name,
                expect(r, "READY") && becomes_raw(r) && !kill(r->pid, signo) &&
                    dies_of(r, signo) && restored(r),
                r);
        end(r);
    }
}

static void test_suspend(void) {
    struct run *r = start_on_tty(true, "do=e");

    verdict("tty-SIGTSTP-gives-back",
            expect(r, "READY") && becomes_raw(r) && !kill(r->pid, SIGTSTP) &&
                stops_by(r, SIGTSTP) && restored(r),
            r);
    background(r);
    foreground(r);
    verdict("tty-fg-takes-again",
            continues(r) && becomes_raw(r) && type(r, "still there") &&
                expect(r, "still there"),
            r);
    kill(r->pid, SIGSTOP);
    verdict("tty-SIGSTOP", stops_by(r, SIGSTOP), r);
    background(r);
    tcsetattr(r->slave, TCSANOW, &r->before); /* as a shell does */
    kill(r->pid, SIGCONT);
    pause_ms(300);
    verdict("tty-bg-leaves-alone", continues(r) && restored(r), r);
    kill(r->pid, SIGTERM);
    verdict("tty-bg-dies", dies_of(r, SIGTERM) && restored(r), r);
    end(r);
}

static void test_background(void) {
    struct run *r = start_on_tty(false, "do=e");

    verdict("tty-background-stops", stops_by(r, SIGTTOU) && restored(r), r);
    foreground(r);
    verdict("tty-background-to-foreground",
            continues(r) && becomes_raw(r) && expect(r, "READY") && type(r, "here now") &&
                expect(r, "here now"),
            r);
    end(r);
    r = start_on_tty(false, "do=e");
    verdict("tty-background-SIGTERM",
            stops_by(r, SIGTTOU) && !kill(r->pid, SIGTERM) && !kill(r->pid, SIGCONT) &&
                dies_of(r, SIGTERM) && restored(r),
            r);
    end(r);
}

/* --- input without loss --- */

static char *paste_text(size_t len, uint32_t *sum) {
    char *text = malloc(len + 1);

    *sum = 0;
    for (size_t i = 0; i < len; i++) {
        text[i] = i % 64 == 63 ? '\n' : (char)('!' + i * 7 % 90);
        *sum = *sum * 31 + (uint8_t)text[i];
    }
    text[len] = CTRL_D[0];
    return text;
}

static void check_paste(const char *name, struct run *r, size_t len) {
    uint32_t sum;
    char *text = paste_text(len, &sum), want[64];

    snprintf(want, sizeof(want), "count=%zu sum=%u", len, sum);
    verdict(name,
            expect(r, "READY") && (!r->leader || becomes_raw(r)) &&
                send_bytes(r, text, len + 1) && expect(r, want) && exits_with(r, 0),
            r);
    free(text);
    end(r);
}

/* --- tests in a pipe --- */

static void test_pipe_talk(void) {
    struct run *r = start_on_pipes("do=e", 0);

    verdict("pipe-echo", type(r, "hello" CTRL_A "x") && expect(r, "hello" CTRL_A "x"), r);
    close(r->to);
    r->to = -1;
    pause_ms(500);
    verdict("pipe-end-of-input", waitpid(r->pid, NULL, WNOHANG) == 0, r);
    kill(r->pid, SIGTERM);
    verdict("pipe-SIGTERM", dies_of(r, SIGTERM), r);
    end(r);
}

static void test_ignored(void) {
    struct run *r = start_on_pipes("do=e", SIGINT);
    bool good = expect(r, "READY") && !kill(r->pid, SIGINT);

    pause_ms(300);
    verdict("ignored-SIGINT-stays-so", good && type(r, "alive") && expect(r, "alive"), r);
    end(r);
}

/* One line on stderr, and nothing more. */
static bool one_sentence(struct run *r, const char *about) {
    char text[2048];
    ssize_t n = read(r->errors, text, sizeof(text) - 1);

    text[n > 0 ? n : 0] = 0;
    if (n > 0 && strstr(text, about) && strchr(text, '\n') == text + n - 1)
        return true;
    printf("# stderr: %s\n", text);
    return false;
}

static void test_lost_reader(void) {
    struct run *r = start_on_pipes("do=c", 0);
    bool good = expect(r, "dull guest");

    close(r->from);
    r->from = -1;
    verdict("pipe-lost-reader",
            good && exits_with(r, 1) && one_sentence(r, "standard output: Broken pipe"),
            NULL);
    end(r);
}

/* The pipe is full: no more comes. */
static bool fills(int fd) {
    uint64_t until = now_ms() + PATIENCE;
    int waiting = 0, before;

    do {
        before = waiting;
        pause_ms(700);
    } while (!ioctl(fd, FIONREAD, &waiting) && (!waiting || waiting != before) &&
             now_ms() < until);
    return waiting;
}

static void test_stalled_reader(void) {
    struct run *r = start_on_pipes("do=c", 0);
    bool full = fills(r->from);
    int pair[2];

    kill(r->pid, SIGTERM);
    verdict("pipe-stalled-reader-SIGTERM", full && dies_of(r, SIGTERM), NULL);
    end(r);
    if (pipe2(pair, O_CLOEXEC) < 0)
        perror("pipe");
    output = pair[1];
    r = start_on_tty(true, "do=c");
    output = -1;
    verdict("tty-quit-stalled-reader",
            becomes_raw(r) && fills(pair[0]) && type(r, CTRL_A "x") && exits_with(r, 0) &&
                restored(r),
            r);
    end(r);
    close(pair[0]);
    close(pair[1]);
}

/* Each way to reset leads to another READY. */
static void test_resets(void) {
    static const struct {
        const char *name;
        char how;
    } ways[] = {{"reset-cf9", 'r'},
                {"reset-keyboard-controller", 'k'},
                {"reset-triple-fault", 't'}};
    struct run *r = start_on_pipes("", 0);
    unsigned lives = 1;

    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        bool good = expect_times(r, "READY", lives) && send_bytes(r, &ways[i].how, 1) &&
                    expect_times(r, "READY", ++lives);

        verdict(ways[i].name, good, r);
    }
    verdict("reset-then-power-off", type(r, "p") && exits_with(r, 0), r);
    end(r);
}

/* Seconds of CPU time that PID has used. */
static double cpu_of(pid_t pid) {
    unsigned long user = 0, system = 0;
    char path[64];
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    f = fopen(path, "re");
    if (!f ||
        fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
               &user, &system) != 2)
        user = 1u << 30; /* an error is no idleness */
    if (f)
        fclose(f);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static void test_idle(void) {
    struct run *r = start_on_pipes("do=h", 0);
    bool good = expect(r, "READY");
    double before = cpu_of(r->pid), used;

    pause_ms(3000);
    used = (cpu_of(r->pid) - before) / 3;
    verdict("idle-under-2-percent", good && used < 0.02, r);
    printf("# an idle guest uses %.2f %% of a core\n", used * 100);
    end(r);
}

/* --- a signal before there is a machine --- */

/* Is the traced process entering open(2) of the kernel file? */
static bool opens_guest(pid_t pid) {
    struct user_regs_struct r;
    char name[sizeof(long)];
    long word;

    if (ptrace(PTRACE_GETREGS, pid, NULL, &r) || r.orig_rax != SYS_openat)
        return false;
    for (size_t at = 0;; at += sizeof(word)) {
        errno = 0;
        word = ptrace(PTRACE_PEEKDATA, pid, r.rsi + at, NULL);
        if (errno)
            return false;
        memcpy(name, &word, sizeof(name));
        for (size_t n = 0; n < sizeof(name); n++) {
            if (at + n > strlen(guest) || name[n] != guest[at + n])
                return false;
            if (!name[n])
                return true;
        }
    }
}

/* As start_on_pipes(); SIGNO comes when bivisor opens the kernel file. */
static struct run *start_with_signal(const char *append, int signo) {
    struct run *r = calloc(1, sizeof(*r));
    int in[2], out[2], status;

    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0) {
        perror("pipe");
        exit(1);
    }
    r->to = in[1];
    r->from = out[0];
    r->errors = -1;
    r->pid = fork();
    if (!r->pid) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        dup2(out[1], STDERR_FILENO);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execl(bivisor, "bivisor", "run", "--engine", engine, "--kernel", guest,
              "--memory", "16M", "--append", append, (char *)NULL);
        _exit(99);
    }
    close(in[0]);
    close(out[1]);
    while (waitpid(r->pid, &status, 0) == r->pid && WIFSTOPPED(status)) {
        if (opens_guest(r->pid)) {
            ptrace(PTRACE_DETACH, r->pid, NULL, signo);
            break;
        }
        ptrace(PTRACE_SYSCALL, r->pid, NULL, NULL);
    }
    return r;
}

/* A report that is asked for too early comes when there is something to tell. */
static void test_early_report(void) {
    struct run *r = start_with_signal("do=e", SIGUSR1);

    verdict("sigusr1-early",
            expect(r, "READY") && expect(r, "\"still running\"") && type(r, "hello") &&
                expect(r, "hello"),
            r);
    end(r);
}

/* --- the jail --- */

/* TID makes the system call NR next instead of what it was about to do. */
static bool inject(pid_t tid, long nr) {
    struct user_regs_struct r;
    bool good;

    /* Stopped where it is, then at the entry of its next call. */
    good = !ptrace(PTRACE_ATTACH, tid, NULL, NULL) && waitpid(tid, NULL, __WALL) == tid &&
           !ptrace(PTRACE_SYSCALL, tid, NULL, NULL) &&
           waitpid(tid, NULL, __WALL) == tid && !ptrace(PTRACE_GETREGS, tid, NULL, &r);
    r.orig_rax = (unsigned long)nr;
    return good && !ptrace(PTRACE_SETREGS, tid, NULL, &r) &&
           !ptrace(PTRACE_DETACH, tid, NULL, NULL);
}

/* Is the thread one of ours? KVM may add one of the kernel's to a process. */
static bool is_ours(pid_t pid, const char *tid) {
    char path[80], name[32] = "";
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/task/%.16s/comm", (int)pid, tid);
    f = fopen(path, "re");
    if (f && !fgets(name, sizeof(name), f))
        name[0] = 0;
    if (f)
        fclose(f);
    return !strncmp(name, "bivisor", 7);
}

/* A thread that is not the first. */
static pid_t other_thread(pid_t pid) {
    struct dirent *e;
    pid_t tid = 0;
    char path[40];
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    dir = opendir(path);
    while (dir && (e = readdir(dir)))
        if (atoi(e->d_name) && atoi(e->d_name) != pid && is_ours(pid, e->d_name))
            tid = atoi(e->d_name);
    if (dir)
        closedir(dir);
    return tid;
}

/* As if the guest had broken out: the call does not happen, the terminal is restored. */
static void check_breakout(const char *name, long nr, const char *call, bool helper) {
    struct run *r = start_on_tty(true, "do=h");
    bool good = expect(r, "READY") && becomes_raw(r);
    char words[80];

    snprintf(words, sizeof(words), "the jail forbids the system call %s (%ld)", call, nr);
    if (helper) /* it sleeps until there is something to read */
        good = good && inject(other_thread(r->pid), nr) && type(r, "x");
    else
        good = good && inject(r->pid, nr) && type(r, "x");
    verdict(name, good && exits_with(r, 1) && restored(r) && expect(r, words), r);
    end(r);
}

static void test_breakouts(void) {
    check_breakout("breakout-execve", SYS_execve, "execve", false);
    check_breakout("breakout-openat", SYS_openat, "openat", false);
    check_breakout("breakout-socket-helper", SYS_socket, "socket", true);
}

static int unfiltered(char **argv) {
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);

    seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(seccomp), 0);
    seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(prctl), 1,
                     SCMP_A0(SCMP_CMP_EQ, PR_SET_SECCOMP));
    if (!seccomp_load(ctx))
        execv(argv[0], argv);
    perror(argv[0]);
    return 99;
}

/* --- JSON --- */

static int json(int argc, char **argv) {
    static char text[1 << 16];
    FILE *f = fopen(argv[0], "re");
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
    cJSON *root = cJSON_ParseWithOpts(text, NULL, 1);
    int bad = !n || !cJSON_IsObject(root);

    for (int i = 1; i < argc; i++)
        if (!cJSON_HasObjectItem(root, argv[i])) {
            printf("# no \"%s\"\n", argv[i]);
            bad = 1;
        }
    cJSON_Delete(root);
    if (f)
        fclose(f);
    return bad;
}

int main(int argc, char **argv) {
    if (argc >= 3 && !strcmp(argv[1], "json"))
        return json(argc - 2, argv + 2);
    if (argc >= 3 && !strcmp(argv[1], "unfiltered"))
        return unfiltered(argv + 2);
    if (argc != 4) {
        fprintf(stderr, "usage: user BIVISOR GUEST ENGINE | user json FILE KEY... | "
                        "user unfiltered COMMAND...\n");
        return 2;
    }
    bivisor = argv[1];
    guest = argv[2];
    engine = argv[3];
    signal(SIGPIPE, SIG_IGN);
    test_keys();
    test_monitor();
    test_quit_deaf();
    test_quit_busy();
    test_task_loop();
    if (strcmp(engine, "kvm")) /* which cannot record */
        test_recorded_task_loop();
    test_ends();
    test_signals();
    test_suspend();
    test_background();
    test_pipe_talk();
    test_ignored();
    test_lost_reader();
    test_stalled_reader();
    test_resets();
    test_idle();
    test_early_report();
    if (!OS_JAIL_SANITIZED)
        test_breakouts();
    check_paste("tty-paste-10KB", start_on_tty(true, "do=s"), 10000);
    check_paste("pipe-paste-100KB", start_on_pipes("do=s", 0), 100000);
    return failures != 0;
}
