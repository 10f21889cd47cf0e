#include "cli/job.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <utmp.h>

const char *bivisor, *guest, *engine;
const char *record;
const char *more[4];
int output = -1;
int failures;

struct report {
    pid_t pid;
    int status;
};

uint64_t now_ms(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void pause_ms(unsigned ms) {
    poll(NULL, 0, (int)ms);
}

/* What a run in pipes has said to stderr, and whether it is still there. */
static void tell_errors(const struct run *r) {
    struct pollfd p = {.fd = r->errors, .events = POLLIN};
    siginfo_t end = {0};
    char text[1000];
    ssize_t n;

    if (poll(&p, 1, 0) > 0 && (n = read(r->errors, text, sizeof(text))) > 0)
        printf("    its stderr: %.*s\n", (int)n, text);
    if (r->leader || waitid(P_PID, (id_t)r->pid, &end, WEXITED | WNOHANG | WNOWAIT) < 0)
        return;
    if (end.si_pid)
        printf("    it ended, status or signal %d\n", end.si_status);
    else
        printf("    it runs\n");
}

void verdict(const char *name, bool good, const struct run *r) {
    printf("%s cli/%s %s\n", good ? "ok" : "not ok", name, engine);
    if (!good) {
        failures++;
        if (r) {
            printf("    it wrote: %.1000s\n",
                   r->len < 1000 ? r->out : r->out + r->len - 1000);
            tell_errors(r);
        }
    }
    fflush(stdout);
}

/* --- starting --- */

static void exec_bivisor(const char *append) {
    const char *args[16 + 4] = {"bivisor", "run",      "--engine", engine,     "--kernel",
                                guest,     "--memory", "16M",      "--append", append};
    unsigned n = 10;

    if (record) {
        args[n++] = "--record";
        args[n++] = record;
    }
    for (unsigned k = 0; k < 4 && more[k]; k++)
        args[n++] = more[k];
    execv(bivisor, (char **)(uintptr_t)args);
    _exit(99);
}

/* The shell of a terminal run; never returns. */
static void lead(int slave, int control, bool foreground, const char *append) {
    struct report rep = {.status = -1};

    login_tty(slave);
    signal(SIGTTOU, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    rep.pid = fork();
    if (!rep.pid) {
        setpgid(0, 0);
        if (foreground)
            tcsetpgrp(STDIN_FILENO, getpid());
        signal(SIGTTOU, SIG_DFL);
        signal(SIGHUP, SIG_DFL);
        if (output >= 0)
            dup2(output, STDOUT_FILENO);
        exec_bivisor(append);
    }
    setpgid(rep.pid, rep.pid);
    if (write(control, &rep, sizeof(rep)) < 0)
        _exit(1);
    for (;;) {
        char command;

        while (waitpid(rep.pid, &rep.status, WNOHANG | WUNTRACED | WCONTINUED) > 0)
            if (write(control, &rep, sizeof(rep)) < 0)
                _exit(1);
        switch (recv(control, &command, 1, MSG_DONTWAIT)) {
        case 0: /* the test is over */
            kill(rep.pid, SIGKILL);
            _exit(0);
        case 1:
            tcsetpgrp(STDIN_FILENO, command == 'f' ? rep.pid : getpid());
            if (command == 'f')
                kill(rep.pid, SIGCONT);
        }
        pause_ms(5);
    }
}

struct run *start_on_tty(bool foreground, const char *append) {
    struct run *r = calloc(1, sizeof(*r));
    struct report rep;
    int pair[2];

    if (openpty(&r->to, &r->slave, NULL, NULL, NULL) < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0) {
        perror("pty");
        exit(1);
    }
    tcgetattr(r->slave, &r->before);
    r->from = r->to;
    r->control = pair[0];
    r->errors = -1;
    r->leader = fork();
    if (!r->leader) {
        close(r->to);
        close(pair[0]);
        lead(r->slave, pair[1], foreground, append);
    }
    close(pair[1]);
    if (recv(r->control, &rep, sizeof(rep), 0) != sizeof(rep)) {
        perror("leader");
        exit(1);
    }
    r->pid = rep.pid;
    return r;
}

struct run *start_on_pipes(const char *append, int ignore) {
    struct run *r = calloc(1, sizeof(*r));
    int in[2], out[2], err[2];

    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 ||
        pipe2(err, O_CLOEXEC) < 0) {
        perror("pipe");
        exit(1);
    }
    r->pid = fork();
    if (!r->pid) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        if (ignore)
            signal(ignore, SIG_IGN);
        exec_bivisor(append);
    }
    close(in[0]);
    close(out[1]);
    close(err[1]);
    r->to = in[1];
    r->from = out[0];
    r->errors = err[0];
    return r;
}

void end(struct run *r) {
    if (r->leader) {
        close(r->control);
        waitpid(r->leader, NULL, 0);
        close(r->slave);
    } else {
        kill(r->pid, SIGKILL);
        waitpid(r->pid, NULL, 0);
        if (r->errors >= 0)
            close(r->errors);
        if (r->from >= 0)
            close(r->from);
    }
    if (r->to >= 0)
        close(r->to);
    free(r);
}

/* --- watching --- */

/* Reads what there is for at most MS. */
static void listen_for(struct run *r, int ms) {
    struct pollfd p = {.fd = r->from, .events = POLLIN};
    ssize_t n;

    if (poll(&p, 1, ms) <= 0)
        return;
    if (r->len > sizeof(r->out) / 2) { /* a talker: the newest half is enough */
        memmove(r->out, r->out + r->len / 2, r->len - r->len / 2);
        r->len -= r->len / 2;
    }
    n = read(r->from, r->out + r->len, sizeof(r->out) - 1 - r->len);
    if (n > 0)
        r->len += (size_t)n;
    else
        pause_ms(5); /* the other side is gone */
    r->out[r->len] = 0;
}

static unsigned occurrences(const struct run *r, const char *text) {
    unsigned n = 0;

    for (const char *at = r->out; (at = strstr(at, text)); at++)
        n++;
    return n;
}

bool expect_times(struct run *r, const char *text, unsigned times) {
    uint64_t until = now_ms() + PATIENCE;

    while (occurrences(r, text) < times) {
        if (now_ms() > until)
            return false;
        listen_for(r, 50);
    }
    return true;
}

bool expect(struct run *r, const char *text) {
    return expect_times(r, text, 1);
}

bool send_bytes(struct run *r, const void *bytes, size_t len) {
    const char *p = bytes;

    while (len) {
        struct pollfd out = {.fd = r->to, .events = POLLOUT};
        ssize_t n;

        listen_for(r, 0);
        if (poll(&out, 1, PATIENCE) <= 0)
            return false;
        n = write(r->to, p, len < 1024 ? len : 1024);
        if (n < 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

bool type(struct run *r, const char *text) {
    return send_bytes(r, text, strlen(text));
}

/* The next change of the job's state into *STATUS within MS. */
static bool changed_within(struct run *r, int *status, int ms) {
    uint64_t until = now_ms() + (uint64_t)ms;
    struct report rep;

    while (now_ms() < until) {
        if (r->leader) {
            if (recv(r->control, &rep, sizeof(rep), MSG_DONTWAIT) == sizeof(rep)) {
                *status = rep.status;
                return true;
            }
        } else if (waitpid(r->pid, status, WNOHANG) == r->pid) {
            return true;
        }
        if (r->leader && r->from >= 0)
            listen_for(r, 10); /* a terminal is read all the time */
        else
            pause_ms(10);
    }
    return false;
}

bool exits_with(struct run *r, int code) {
    int status;

    if (!changed_within(r, &status, PATIENCE)) {
        printf("# it did not end\n");
        return false;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == code)
        return true;
    printf("# wait status %#x instead of exit %d\n", status, code);
    return false;
}

bool dies_of(struct run *r, int signo) {
    int status;

    do {
        if (!changed_within(r, &status, PATIENCE)) {
            printf("# it did not die\n");
            return false;
        }
    } while (WIFCONTINUED(status)); /* it had to be woken for that */
    if (WIFSIGNALED(status) && WTERMSIG(status) == signo)
        return true;
    printf("# wait status %#x instead of death by %s\n", status, strsignal(signo));
    return false;
}

bool stops_by(struct run *r, int signo) {
    int status;

    return changed_within(r, &status, PATIENCE) && WIFSTOPPED(status) &&
           WSTOPSIG(status) == signo;
}

bool continues(struct run *r) {
    int status;

    return changed_within(r, &status, PATIENCE) && WIFCONTINUED(status);
}

/* --- the terminal's settings --- */

static bool raw(const struct run *r) {
    struct termios t;

    return !tcgetattr(r->slave, &t) && !(t.c_lflag & (ICANON | ECHO | ISIG)) &&
           !(t.c_iflag & (ICRNL | IXON)) && !(t.c_oflag & OPOST);
}

bool becomes_raw(const struct run *r) {
    for (uint64_t until = now_ms() + PATIENCE; now_ms() < until; pause_ms(10))
        if (raw(r))
            return true;
    return false;
}

bool restored(const struct run *r) {
    struct termios t;

    return !tcgetattr(r->slave, &t) && t.c_lflag == r->before.c_lflag &&
           t.c_iflag == r->before.c_iflag && t.c_oflag == r->before.c_oflag &&
           t.c_cflag == r->before.c_cflag &&
           !memcmp(t.c_cc, r->before.c_cc, sizeof(t.c_cc));
}

void foreground(struct run *r) {
    if (write(r->control, "f", 1) < 0)
        perror("leader");
}

void background(struct run *r) {
    if (write(r->control, "b", 1) < 0)
        perror("leader");
    pause_ms(50);
}
