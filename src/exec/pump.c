/*
 * What goes in and out of the command, while it runs; see exec.h. One thread, which waits
 * in poll(2). What the command writes is written to our standard output and error as it
 * comes, and waits for its readers; our input is read when the guest has taken what was
 * read before.
 *
 * A terminal is in raw mode: keys are the guest's, which has a terminal of its own, and
 * so is what they mean; but Ctrl-] twice ends the machine. Elsewhere SIGINT and the like
 * are passed on as signals, the first time; the second one ends the machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "exec/exec.h"
#include "exec/signals.h"

const char *const exec_port_names[EXEC_PORTS] = {"exec.in", "exec.out", "exec.err",
                                                 "exec.ctl"};

#define PIECE 65536
#define LOG 8192
#define SIGNALS 64
#define ESCAPE 0x1d /* Ctrl-] */

struct pump {
    const struct exec_ends *e;
    const struct exec_command *c;
    int signals; /* a pipe that handlers write to */
    bool input_open, log_open;
    uint64_t input;     /* bytes */
    uint64_t output[2]; /* bytes that came */
    uint64_t whole[2];  /* that there are, when the command has ended */
    bool broken[2];     /* nobody reads ours */
    bool running, ended, machine_gone, failed;
    unsigned interrupts;
    bool escape; /* the last key */
    int status;
    int died_of; /* a signal that was sent twice */
    size_t held, held_at, line_len, log_len;
    char line[1024], log[LOG];
    uint8_t in[PIECE];
};

/* --- signals --- */

static int catch_signals(struct pump *p) {
    static const int all[] = {SIGINT,  SIGTERM, SIGHUP,   SIGQUIT,
                              SIGUSR1, SIGUSR2, SIGWINCH, SIGCHLD};
    int fd = signals_catch(all, ARRAY_SIZE(all));

    if (fd < 0)
        return fd;
    p->signals = fd;
    return 0;
}

/* A line to the guest. */
static void tell(struct pump *p, const char *word, unsigned long a, unsigned long b) {
    char line[64];
    int len = snprintf(line, sizeof(line), b ? "%s %lu %lu\n" : "%s %lu\n", word, a, b);

    (void)!send(p->e->port[EXEC_CTL], line, (size_t)len, MSG_NOSIGNAL);
}

static void tell_size(struct pump *p) {
    struct winsize w;

    for (int fd = 0; fd < 3; fd++)
        if (p->c->tty & 1u << fd && !ioctl(fd, TIOCGWINSZ, &w)) {
            tell(p, "size", w.ws_col, w.ws_row);
            return;
        }
}

static void take_signal(struct pump *p, int signo) {
    int status;

    switch (signo) {
    case SIGWINCH:
        tell_size(p);
        break;
    case SIGCHLD:
        if (waitpid(p->e->machine, &status, WNOHANG) == p->e->machine)
            p->machine_gone = true;
        break;
    default:
        if (p->running && !p->interrupts++) {
            tell(p, "signal", (unsigned long)signo, 0);
        } else {
            p->died_of = signo;
            p->ended = true;
        }
    }
}

static void take_signals(struct pump *p) {
    char bytes[SIGNALS];
    ssize_t n = read(p->signals, bytes, sizeof(bytes));

    for (ssize_t k = 0; k < n; k++)
        take_signal(p, bytes[k]);
}

/* --- bytes --- */

static void write_all(struct pump *p, unsigned which, const char *bytes, size_t len) {
    while (len && !p->broken[which]) {
        ssize_t n = write(which ? STDERR_FILENO : STDOUT_FILENO, bytes, len);

        if (n < 0 && errno == EAGAIN) {
            struct pollfd f = {.fd = which ? STDERR_FILENO : STDOUT_FILENO,
                               .events = POLLOUT};

            poll(&f, 1, -1);
        } else if (n < 0 && errno != EINTR) {
            /* As a command of the host's would be told. */
            p->broken[which] = true;
            tell(p, "signal", SIGPIPE, 0);
        } else if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        }
    }
}

static void take_output(struct pump *p, unsigned which) {
    static char bytes[PIECE];
    ssize_t n = recv(p->e->port[EXEC_OUT + which], bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n <= 0)
        return;
    p->output[which] += (uint64_t)n;
    write_all(p, which, bytes, (size_t)n);
}

/* Ctrl-] twice, typed at a terminal. */
static bool escapes(struct pump *p) {
    for (size_t n = 0; n < p->held && p->c->tty & 1; n++) {
        bool is = p->in[n] == ESCAPE;

        if (is && p->escape)
            return true;
        p->escape = is;
    }
    return false;
}

static void take_input(struct pump *p) {
    ssize_t n = read(STDIN_FILENO, p->in, sizeof(p->in));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        p->input_open = false;
        tell(p, "eof", (unsigned long)p->input, 0);
        return;
    }
    p->held_at = 0;
    p->held = (size_t)n;
    p->input += (uint64_t)n;
    if (escapes(p)) {
        p->died_of = SIGTERM;
        p->ended = true;
    }
}

static void give_input(struct pump *p) {
    ssize_t n = send(p->e->port[EXEC_IN], p->in + p->held_at, p->held - p->held_at,
                     MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n > 0)
        p->held_at += (size_t)n;
}

/* The last of what the kernel said, for when the machine fails. */
static void take_log(struct pump *p) {
    char bytes[4096];
    ssize_t n = read(p->e->log, bytes, sizeof(bytes));

    p->log_open = n > 0 || (n < 0 && errno == EINTR);
    if (n <= 0)
        return;
    if (p->log_len + (size_t)n > LOG) {
        size_t drop = p->log_len + (size_t)n - LOG;

        memmove(p->log, p->log + drop, p->log_len - drop);
        p->log_len -= drop;
    }
    memcpy(p->log + p->log_len, bytes, (size_t)n);
    p->log_len += (size_t)n;
}

/* --- what the first process says --- */

static void take_line(struct pump *p, const char *line) {
    unsigned long status, out, err;

    if (!strcmp(line, "run")) {
        p->running = true;
    } else if (sscanf(line, "status %lu %lu %lu", &status, &out, &err) == 3) {
        p->status = (int)(status & 0xff);
        p->whole[0] = out;
        p->whole[1] = err;
        p->ended = true;
    } else if (!strncmp(line, "error ", 6)) {
        log_error("the guest: %s", line + 6);
        p->failed = p->ended = true;
    }
}

static void take_words(struct pump *p) {
    char bytes[256];
    ssize_t n = recv(p->e->port[EXEC_CTL], bytes, sizeof(bytes), MSG_DONTWAIT);

    for (ssize_t k = 0; k < n; k++) {
        if (bytes[k] == '\n') {
            p->line[p->line_len] = 0;
            p->line_len = 0;
            take_line(p, p->line);
        } else if (p->line_len + 1 < sizeof(p->line)) {
            p->line[p->line_len++] = bytes[k];
        }
    }
}

/* --- the loop --- */

static void turn(struct pump *p, int wait_ms) {
    const struct exec_ends *e = p->e;
    bool full = p->held > p->held_at;
    struct pollfd f[] = {
        {.fd = p->signals, .events = POLLIN},
        {.fd = e->port[EXEC_CTL], .events = POLLIN},
        {.fd = e->port[EXEC_OUT], .events = POLLIN},
        {.fd = e->port[EXEC_ERR], .events = POLLIN},
        {.fd = p->input_open && !full ? STDIN_FILENO : -1, .events = POLLIN},
        {.fd = full ? e->port[EXEC_IN] : -1, .events = POLLOUT},
        {.fd = p->log_open ? e->log : -1, .events = POLLIN},
    };

    if (poll(f, ARRAY_SIZE(f), wait_ms) < 0)
        return;
    if (f[0].revents)
        take_signals(p);
    for (unsigned n = 0; n < 2; n++)
        if (f[2 + n].revents)
            take_output(p, n);
    if (f[1].revents)
        take_words(p);
    if (f[4].revents)
        take_input(p);
    if (f[5].revents)
        give_input(p);
    if (f[6].revents)
        take_log(p);
}

static bool all_is_out(const struct pump *p) {
    return p->output[0] >= p->whole[0] && p->output[1] >= p->whole[1];
}

static void end_machine(struct pump *p) {
    int status;

    if (p->machine_gone)
        return;
    kill(p->e->machine, SIGTERM);
    while (waitpid(p->e->machine, &status, 0) < 0 && errno == EINTR)
        ;
}

static int tell_failure(struct pump *p) {
    while (p->log_open) /* it ends with the machine */
        take_log(p);
    if (p->log_len)
        fprintf(stderr, "%.*s\n", (int)p->log_len, p->log);
    log_error("the machine ended before the command did");
    return EXEC_MACHINE_FAILED;
}

int exec_pump(const struct exec_ends *e, const struct exec_command *c) {
    struct pump *p = calloc(1, sizeof(*p));
    bool is_tty;
    int status;

    if (!p || catch_signals(p)) {
        log_error("out of memory, or of descriptors");
        free(p);
        return EXEC_MACHINE_FAILED;
    }
    p->e = e;
    p->c = c;
    p->input_open = true;
    p->log_open = e->log >= 0;
    if (c->tty & 1)
        os_tty_raw(STDIN_FILENO, &is_tty);
    while (!p->ended && !p->machine_gone)
        turn(p, -1);
    while (p->ended && !p->failed && !p->died_of && !p->machine_gone && !all_is_out(p))
        turn(p, -1);
    if (c->tty & 1)
        os_tty_restore();
    end_machine(p);
    status = p->failed ? EXEC_MACHINE_FAILED : p->ended ? p->status : tell_failure(p);
    if (p->died_of)
        os_die_of(p->died_of);
    free(p);
    return status;
}
