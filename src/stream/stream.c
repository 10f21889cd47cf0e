/*
 * Streams; see stream.h.
 *
 * Watches are the loop thread's alone: who wants something of them posts `update`, which
 * sets them to what the flags say. A file cannot be watched: what it has not taken, for a
 * signal's sake or because it was too much, is tried again in `update`; but a pipe or a
 * terminal that is opened as a file is waited for as a socket is, only input never comes.
 * A pseudo-terminal whose other side is not open is looked at now and then: the kernel
 * does not tell when somebody opens it.
 *
 * A socket counts several hundred bytes for each write, be it of a single byte, as a
 * guest's terminal echoes; with some 280 of them it is full. So that a client may send a
 * line and read later, what a socket has not taken is kept here, up to a limit.
 */
#include "stream/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/os_loop.h"

#define INPUT 4096u
#define OUTPUT 16384u /* that waits for a socket */
#define LAST_MS 1000  /* for each piece of it that is left at the end */
#define LOOK_NS 500000000u

enum kind { FILE_ONLY, PIPE, TERMINAL, SOCKET, NOWHERE, LENT };

struct stream {
    enum kind kind;
    int fd; /* of the other side; -1: there is none */
    struct os_listener *listener;
    char *terminal;
    struct os_loop *loop; /* NULL: not started */
    struct stream_guard guard;
    struct stream_user user;
    struct stream_lender lender; /* LENT */
    struct os_watch watch, listen;
    struct os_timer look;
    struct os_task update;
    bool connected;
    bool stopped; /* the user takes no input: `input` has what was read */
    bool blocked; /* the other side takes no output */
    bool refused; /* and the user has some that was not taken here either */
    bool failed;  /* that has been told */
    uint16_t columns, rows;
    size_t kept, first; /* bytes of `input`, from the first on */
    uint8_t input[INPUT];
    size_t waiting; /* bytes of `output` */
    uint8_t output[OUTPUT];
};

/* --- opening --- */

static bool is_own_fd(const char *path) {
    return !strncmp(path, "/proc/self/fd/", 14) || !strncmp(path, "/dev/fd/", 8) ||
           !strcmp(path, "/dev/stdout") || !strcmp(path, "/dev/stderr");
}

const char *stream_file(const char *how) {
    return !strncmp(how, "file=", 5) && !is_own_fd(how + 5) ? how + 5 : NULL;
}

/* Several may write to what this process was given: each at the end. */
static int open_file(struct stream *s, const char *path, char *why, size_t why_size) {
    int whose = is_own_fd(path) ? O_APPEND : O_CREAT | O_TRUNC;
    struct stat st;

    s->kind = FILE_ONLY;
    s->fd = open(path, O_WRONLY | whose | O_NOCTTY | O_CLOEXEC, 0666);
    if (s->fd >= 0 && !fstat(s->fd, &st) && !S_ISREG(st.st_mode) &&
        !fcntl(s->fd, F_SETFL, O_NONBLOCK))
        s->kind = PIPE;
    if (s->fd >= 0)
        return 0;
    snprintf(why, why_size, "cannot write '%s': %s", path, strerror(errno));
    return -errno;
}

static int open_socket(struct stream *s, const char *where, char *why, size_t why_size) {
    int rc = os_endpoint_listen(where, &s->listener);

    s->kind = SOCKET;
    if (rc)
        snprintf(why, why_size, "cannot listen at '%s': %s", where,
                 os_endpoint_reason(rc));
    return rc;
}

static int connect_socket(struct stream *s, const char *where, char *why,
                          size_t why_size) {
    s->kind = SOCKET;
    s->fd = os_endpoint_connect(where);
    if (s->fd >= 0)
        return 0;
    snprintf(why, why_size, "cannot connect to '%s': %s", where,
             os_endpoint_reason(s->fd));
    return s->fd;
}

/* The other side is opened once: from then on its absence can be seen. */
static int prepare_terminal(struct stream *s) {
    char name[128];
    struct termios raw;
    int other, rc;

    if (grantpt(s->fd) < 0 || unlockpt(s->fd) < 0)
        return -errno;
    rc = ptsname_r(s->fd, name, sizeof(name));
    if (rc)
        return -rc;
    other = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (other < 0)
        return -errno;
    if (!tcgetattr(other, &raw)) {
        cfmakeraw(&raw);
        tcsetattr(other, TCSANOW, &raw);
    }
    close(other);
    s->terminal = strdup(name);
    return s->terminal ? 0 : -ENOMEM;
}

static int open_terminal(struct stream *s, char *why, size_t why_size) {
    int rc;

    s->kind = TERMINAL;
    s->fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    rc = s->fd < 0 ? -errno : prepare_terminal(s);
    if (rc)
        snprintf(why, why_size, "cannot get a pseudo-terminal: %s", strerror(-rc));
    return rc;
}

/* A socket of which we have been given one end. */
static int open_given(struct stream *s, const char *number, char *why, size_t why_size) {
    char *rest;
    long fd = strtol(number, &rest, 10);
    struct stat st;

    s->kind = SOCKET;
    if (*rest || fd <= STDERR_FILENO || fd > INT_MAX || fstat((int)fd, &st) ||
        !S_ISSOCK(st.st_mode) || fcntl((int)fd, F_SETFD, FD_CLOEXEC) ||
        fcntl((int)fd, F_SETFL, O_NONBLOCK)) {
        snprintf(why, why_size, "there is no socket of descriptor '%s'", number);
        return -EINVAL;
    }
    s->fd = (int)fd;
    return 0;
}

int stream_open(const char *how, struct stream **out, char *why, size_t why_size) {
    struct stream *s = calloc(1, sizeof(*s));
    int rc = 0;

    if (!s) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    s->fd = -1;
    if (!strncmp(how, "file=", 5) && how[5]) {
        rc = open_file(s, how + 5, why, why_size);
    } else if (!strncmp(how, "socket=", 7) && how[7]) {
        rc = open_socket(s, how + 7, why, why_size);
    } else if (!strncmp(how, "connect=", 8) && how[8]) {
        rc = connect_socket(s, how + 8, why, why_size);
    } else if (!strcmp(how, "pty")) {
        rc = open_terminal(s, why, why_size);
    } else if (!strncmp(how, "fd=", 3) && how[3]) {
        rc = open_given(s, how + 3, why, why_size);
    } else if (!strcmp(how, "null")) {
        s->kind = NOWHERE;
    } else if (!strcmp(how, "stdio")) {
        s->kind = LENT;
    } else {
        rc = -EINVAL;
        snprintf(why, why_size,
                 "it is one of pty, file=PATH, socket=WHERE, connect=WHERE, fd=N, null, "
                 "stdio, not '%s'",
                 how);
    }
    if (rc)
        stream_close(s);
    else
        *out = s;
    return rc;
}

void stream_close(struct stream *s) {
    if (!s)
        return;
    if (s->fd >= 0)
        close(s->fd);
    os_listener_close(s->listener);
    free(s->terminal);
    free(s);
}

int stream_listener(const struct stream *s) {
    return s->listener ? os_listener_fd(s->listener) : -1;
}

const char *stream_terminal(const struct stream *s) {
    return s->terminal;
}

void stream_plug(struct stream *s, const struct stream_user *user) {
    s->user = *user;
}

/* --- on the loop's thread, with the lock --- */

static void set_connected(struct stream *s, bool on) {
    if (s->connected == on)
        return;
    s->connected = on;
    s->blocked = false;
    s->refused = false;
    s->waiting = 0;
    if (!on)
        s->kept = 0;
    if (s->user.connected)
        s->user.connected(s->user.arg, on);
    if (s->user.writable) /* it goes there, or nowhere */
        s->user.writable(s->user.arg);
}

static void on_ready(void *arg, unsigned ready);

/* The other side is gone. */
static void lose(struct stream *s) {
    os_watch_stop(&s->watch);
    set_connected(s, false);
    if (s->kind == TERMINAL) {
        os_timer_set(&s->look, os_monotonic_ns() + LOOK_NS);
        return;
    }
    os_socket_close(s->fd);
    s->fd = -1;
}

static void look_at_size(struct stream *s) {
    struct winsize w;

    if (s->kind != TERMINAL || ioctl(s->fd, TIOCGWINSZ, &w) < 0 ||
        (w.ws_col == s->columns && w.ws_row == s->rows))
        return;
    s->columns = w.ws_col;
    s->rows = w.ws_row;
    if (s->user.resized)
        s->user.resized(s->user.arg, s->columns, s->rows);
}

/* Hands over what is kept. */
static void deliver(struct stream *s) {
    size_t n = 0;

    if (s->user.input)
        n = s->user.input(s->user.arg, s->input + s->first, s->kept);
    s->first += n;
    s->kept -= n;
    s->stopped = s->kept;
}

static void set_watch(struct stream *s) {
    unsigned events = (s->stopped ? 0 : OS_READ) | (s->blocked ? OS_WRITE : 0);

    if (!s->watch.loop || !s->connected)
        return;
    if (events)
        os_watch_events(&s->watch, events);
    else
        os_watch_stop(&s->watch);
}

static void begin_watch(struct stream *s) {
    int rc = os_watch_start(&s->watch, s->loop, s->fd, OS_READ, on_ready, s);

    if (rc)
        log_error("a console's stream is lost: %s", strerror(-rc));
}

static void take_input(struct stream *s) {
    ssize_t n = read(s->fd, s->input, INPUT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        lose(s);
        return;
    }
    s->first = 0;
    s->kept = (size_t)n;
    look_at_size(s);
    deliver(s);
}

/* The socket gets what waits for it. False: some is left. */
static bool flush(struct stream *s) {
    ssize_t n = s->waiting ? write(s->fd, s->output, s->waiting) : 0;

    if (n < 0 && errno != EAGAIN && errno != EINTR)
        s->waiting = 0; /* the loop will see that it is gone */
    if (n > 0) {
        s->waiting -= (size_t)n;
        memmove(s->output, s->output + n, s->waiting);
    }
    return !s->waiting;
}

/* The other side takes output again. */
static void unblock(struct stream *s) {
    if (!s->blocked || !flush(s))
        return;
    s->blocked = false;
    if (!s->refused)
        return;
    s->refused = false;
    if (s->user.writable)
        s->user.writable(s->user.arg);
}

static void on_ready(void *arg, unsigned ready) {
    struct stream *s = arg;

    s->guard.enter(s->guard.arg);
    if (ready & OS_WRITE)
        unblock(s);
    if (ready & OS_READ && !s->stopped && s->connected)
        take_input(s);
    set_watch(s);
    s->guard.leave(s->guard.arg);
}

static void on_update(void *arg) {
    struct stream *s = arg;

    s->guard.enter(s->guard.arg);
    if (s->kind == FILE_ONLY)
        unblock(s);
    if (s->kept && !s->stopped)
        deliver(s);
    if (s->kind != FILE_ONLY && s->connected && !s->watch.loop &&
        (!s->stopped || s->blocked))
        begin_watch(s);
    set_watch(s);
    s->guard.leave(s->guard.arg);
}

/* Has somebody opened the terminal's other side? */
static void on_look(void *arg) {
    struct stream *s = arg;
    ssize_t n;

    s->guard.enter(s->guard.arg);
    n = read(s->fd, s->input, INPUT);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        os_timer_set(&s->look, os_monotonic_ns() + LOOK_NS);
    } else {
        s->first = 0;
        s->kept = 0;
        begin_watch(s);
        set_connected(s, true);
        look_at_size(s);
        s->kept = n > 0 ? (size_t)n : 0;
        if (s->kept)
            deliver(s);
        set_watch(s);
    }
    s->guard.leave(s->guard.arg);
}

/* One client at a time: the next takes the place of the one before. */
static void on_client(void *arg, unsigned ready) {
    struct stream *s = arg;
    int fd = os_listener_accept(s->listener);

    if (fd < 0)
        return;
    s->guard.enter(s->guard.arg);
    if (s->fd >= 0)
        lose(s);
    s->fd = fd;
    s->stopped = false;
    begin_watch(s);
    set_connected(s, true);
    s->guard.leave(s->guard.arg);
}

int stream_start(struct stream *s, struct os_loop *loop,
                 const struct stream_guard *guard) {
    int rc = 0;

    s->loop = loop;
    s->guard = *guard;
    s->update = (struct os_task){.fn = on_update, .arg = s};
    if (s->listener)
        rc = os_watch_start(&s->listen, loop, os_listener_fd(s->listener), OS_READ,
                            on_client, s);
    if (s->kind == TERMINAL)
        rc = os_timer_open(&s->look, loop, on_look, s);
    if (!rc && s->kind == TERMINAL)
        os_timer_set(&s->look, os_monotonic_ns());
    s->stopped |= s->kind == PIPE;
    if (s->kind == SOCKET && s->fd >= 0)
        rc = os_watch_start(&s->watch, loop, s->fd, OS_READ, on_ready, s);
    if (s->kind == FILE_ONLY || s->kind == PIPE || s->kind == LENT ||
        (s->kind == SOCKET && s->fd >= 0)) {
        guard->enter(guard->arg);
        set_connected(s, true);
        guard->leave(guard->arg);
    }
    return rc;
}

/* A reader who is slow gets what was written last; one who does not read, does not. */
static void flush_at_last(struct stream *s) {
    struct pollfd p = {.fd = s->fd, .events = POLLOUT};

    while (s->waiting && poll(&p, 1, LAST_MS) > 0)
        flush(s);
}

void stream_stop(struct stream *s) {
    if (!s->loop)
        return;
    if (s->kind == SOCKET && s->connected)
        flush_at_last(s);
    os_watch_stop(&s->watch);
    os_watch_stop(&s->listen);
    os_timer_close(&s->look);
    s->connected = false;
    s->loop = NULL;
}

/* --- the other side in this process --- */

bool stream_is_lent(const struct stream *s) {
    return s->kind == LENT;
}

void stream_lend(struct stream *s, const struct stream_lender *lender) {
    s->lender = *lender;
}

size_t stream_lender_input(struct stream *s, const uint8_t *bytes, size_t len) {
    size_t n = 0;

    if (!s->loop)
        return 0;
    s->guard.enter(s->guard.arg);
    if (s->user.input)
        n = s->user.input(s->user.arg, bytes, len);
    s->guard.leave(s->guard.arg);
    return n;
}

void stream_lender_ready(struct stream *s) {
    if (!s->loop)
        return;
    s->guard.enter(s->guard.arg);
    if (s->blocked) {
        s->blocked = false;
        if (s->user.writable)
            s->user.writable(s->user.arg);
    }
    s->guard.leave(s->guard.arg);
}

void stream_lender_ended(struct stream *s) {
    if (!s->loop)
        return;
    s->guard.enter(s->guard.arg);
    if (s->user.connected)
        s->user.connected(s->user.arg, false);
    s->guard.leave(s->guard.arg);
}

/* --- from whoever has the lock --- */

/* How many of LEN bytes, which are to follow what the other side has taken, are kept. */
static size_t keep_output(struct stream *s, const uint8_t *bytes, size_t len) {
    size_t n = s->kind == SOCKET ? OUTPUT - s->waiting : 0;

    n = n < len ? n : len;
    memcpy(s->output + s->waiting, bytes, n);
    s->waiting += n;
    s->refused |= n < len;
    return n;
}

size_t stream_write(struct stream *s, const uint8_t *bytes, size_t len) {
    ssize_t n;

    if (!s->connected || !len)
        return len;
    if (s->blocked)
        return keep_output(s, bytes, len);
    if (s->kind == LENT) {
        size_t taken = s->lender.write(s->lender.arg, bytes, len);

        s->blocked = taken < len;
        return taken;
    }
    n = write(s->fd, bytes, len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        n = 0;
    if (n < 0) { /* the loop will see that it is gone */
        if (s->kind == FILE_ONLY && !s->failed)
            log_error("cannot write a console's output: %s", strerror(errno));
        s->failed = true;
        return len;
    }
    if ((size_t)n == len)
        return len;
    s->blocked = true;
    os_task_post(&s->update, s->loop);
    return (size_t)n + keep_output(s, bytes + n, len - (size_t)n);
}

void stream_more(struct stream *s) {
    if (s->kind == LENT && s->lender.more)
        s->lender.more(s->lender.arg);
    if (s->kind == LENT || s->kind == PIPE)
        return;
    s->stopped = false;
    if (s->loop)
        os_task_post(&s->update, s->loop);
}
