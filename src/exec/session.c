/*
 * A command or a file in a guest that has the agent (guest/exec/agent.h says how it is
 * talked to), by a connection that the caller has made: the host's side. What comes is
 * the guest's, and is checked. Input is sent when the guest has taken what was sent
 * before.
 */
#include "exec/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "exec/agent.h"
#include "exec/pieces.h"
#include "exec/signals.h"

#define ESCAPE 0x1d /* Ctrl-] */

struct session {
    int fd;
    struct pieces to;             /* the guest */
    const struct exec_command *c; /* NULL: a file */
    int in, out;                  /* of a file; else standard input and output */
    int signals;
    bool input_open, broken, ended, gone, escape, failed;
    bool broken_out[2];
    unsigned status, mode;
    unsigned interrupts;
    uint32_t window; /* how much input may still be sent */
    size_t got;      /* of the piece that is coming */
    uint8_t piece[PIECE_HEAD + AGENT_PIECE];
};

/* --- to the guest --- */

static void send_all(void *arg, const void *what, size_t len) {
    const uint8_t *bytes = what;
    struct session *s = arg;

    while (len && !s->gone) {
        ssize_t n = send(s->fd, bytes, len, MSG_NOSIGNAL);

        if (n < 0 && errno != EINTR)
            s->gone = true;
        if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        }
    }
}

/* --- our side --- */

static void write_all(struct session *s, unsigned which, const uint8_t *bytes,
                      size_t len) {
    int fd = which ? STDERR_FILENO : s->out;

    while (len && !s->broken_out[which]) {
        ssize_t n = write(fd, bytes, len);

        if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};

            poll(&p, 1, -1);
        } else if (n < 0 && errno != EINTR) {
            s->broken_out[which] = true;
            if (s->c) /* as a command of the host's would be told */
                pieces_numbers(&s->to, 's', SIGPIPE, 0, 4);
            else
                log_error("cannot write: %s", strerror(errno));
        } else if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        }
    }
}

/* Ctrl-] twice, typed at a terminal. */
static bool escapes(struct session *s, const uint8_t *bytes, size_t len) {
    for (size_t n = 0; n < len && s->c && s->c->tty & 1; n++) {
        bool is = bytes[n] == ESCAPE;

        if (is && s->escape)
            return true;
        s->escape = is;
    }
    return false;
}

static void take_input(struct session *s) {
    static uint8_t bytes[AGENT_PIECE];
    size_t most = s->window < sizeof(bytes) ? s->window : sizeof(bytes);
    ssize_t n = read(s->in, bytes, most);

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n < 0 && !s->c) {
        log_error("cannot read: %s", strerror(errno));
        s->failed = s->gone = true;
        return;
    }
    if (n <= 0) {
        s->input_open = false;
        pieces_put(&s->to, 'e', NULL, 0);
        return;
    }
    if (escapes(s, bytes, (size_t)n)) {
        s->failed = s->gone = true;
        return;
    }
    s->window -= (uint32_t)n;
    pieces_put(&s->to, 'i', bytes, (size_t)n);
}

/* --- signals --- */

static int catch_signals(struct session *s) {
    static const int all[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT,
                              SIGUSR1, SIGUSR2, SIGWINCH};
    int fd = signals_catch(all, ARRAY_SIZE(all));

    if (fd < 0)
        return fd;
    s->signals = fd;
    return 0;
}

static void tell_size(struct session *s) {
    struct winsize w;

    for (int fd = 0; fd < 3; fd++)
        if (s->c->tty & 1u << fd && !ioctl(fd, TIOCGWINSZ, &w)) {
            pieces_numbers(&s->to, 'w', w.ws_col, w.ws_row, 8);
            return;
        }
}

/* The first one is passed on; the second one ends us. */
static void take_signals(struct session *s) {
    char bytes[64];
    ssize_t n = read(s->signals, bytes, sizeof(bytes));

    for (ssize_t k = 0; k < n; k++) {
        if (bytes[k] == SIGWINCH) {
            tell_size(s);
        } else if (!s->interrupts++) {
            pieces_numbers(&s->to, 's', (uint32_t)bytes[k], 0, 4);
        } else {
            os_tty_restore();
            os_die_of(bytes[k]);
        }
    }
}

/* --- from the guest --- */

/* A sentence without anything that a terminal might obey. */
static void tell(const uint8_t *bytes, size_t len) {
    char text[512];
    size_t n = 0;

    for (; n < len && n + 1 < sizeof(text); n++)
        text[n] = bytes[n] >= ' ' && bytes[n] != 0x7f ? (char)bytes[n] : '?';
    text[n] = 0;
    log_error("the guest: %s", text);
}

static void take_piece(struct session *s, size_t len) {
    const uint8_t *bytes = s->piece + PIECE_HEAD;
    uint32_t number = len == 4 ? pieces_get32(bytes) : 0;

    switch (s->piece[0]) {
    case 'o':
        write_all(s, 0, bytes, len);
        break;
    case 'r':
        write_all(s, 1, bytes, len);
        break;
    case 'a':
        s->window += number <= AGENT_WINDOW - s->window ? number : 0;
        break;
    case 'f':
        s->mode = number & 0777;
        break;
    case 'm':
        tell(bytes, len);
        break;
    case 'x':
        s->status = number & 0xff;
        s->ended = true;
        break;
    default: /* of a newer agent */
        break;
    }
}

static void receive(struct session *s) {
    size_t want = PIECE_HEAD;
    ssize_t n;

    if (s->got >= PIECE_HEAD)
        want += pieces_get32(s->piece + 1);
    if (want > sizeof(s->piece)) {
        s->gone = true; /* it is none of ours */
        return;
    }
    if (want > s->got) {
        n = recv(s->fd, s->piece + s->got, want - s->got, 0);
        if (n == 0 || (n < 0 && errno != EINTR))
            s->gone = true;
        s->got += n > 0 ? (size_t)n : 0;
    }
    if (s->got < PIECE_HEAD || s->got < PIECE_HEAD + pieces_get32(s->piece + 1))
        return;
    take_piece(s, s->got - PIECE_HEAD);
    s->got = 0;
}

static void pump(struct session *s) {
    while (!s->ended && !s->gone) {
        struct pollfd f[] = {
            {.fd = s->fd, .events = POLLIN},
            {.fd = s->input_open && s->window ? s->in : -1, .events = POLLIN},
            {.fd = s->signals, .events = POLLIN},
        };

        if (poll(f, ARRAY_SIZE(f), -1) < 0)
            continue;
        if (f[0].revents)
            receive(s);
        if (f[1].revents)
            take_input(s);
        if (f[2].revents)
            take_signals(s);
    }
    if (!s->ended && !s->failed)
        log_error("the machine has ended, or its agent has");
}

static struct session *make(int fd, const struct exec_command *c, int in, int out) {
    struct session *s = calloc(1, sizeof(*s));

    if (!s || (c && catch_signals(s))) {
        log_error("out of memory, or of descriptors");
        free(s);
        return NULL;
    }
    s->fd = fd;
    s->to = (struct pieces){send_all, s};
    s->c = c;
    s->in = in;
    s->out = out;
    s->window = AGENT_WINDOW;
    if (!c)
        s->signals = -1;
    return s;
}

int exec_session(int fd, const struct exec_command *c, unsigned uid, unsigned gid) {
    struct session *s = make(fd, c, STDIN_FILENO, STDOUT_FILENO);
    bool is_tty;
    int status;

    if (!s)
        return EXEC_MACHINE_FAILED;
    s->input_open = true;
    pieces_command(&s->to, c, uid, gid);
    if (c->tty & 1)
        os_tty_raw(STDIN_FILENO, &is_tty);
    pump(s);
    os_tty_restore();
    status = s->ended ? (int)s->status : EXEC_MACHINE_FAILED;
    free(s);
    return status;
}

static int end(struct session *s) {
    bool good = s->ended && !s->status && !s->broken_out[0];

    free(s);
    return good ? 0 : -EIO;
}

int exec_session_put(int fd, int in, unsigned mode, const char *path) {
    struct session *s = make(fd, NULL, in, -1);

    if (!s)
        return -ENOMEM;
    s->input_open = true;
    pieces_word(&s->to, "path", path);
    pieces_number(&s->to, "mode", mode);
    pieces_put(&s->to, 'P', NULL, 0);
    pump(s);
    return end(s);
}

int exec_session_get(int fd, int out, unsigned *mode, const char *path) {
    struct session *s = make(fd, NULL, -1, out);

    if (!s)
        return -ENOMEM;
    s->mode = 0644;
    pieces_word(&s->to, "path", path);
    pieces_put(&s->to, 'G', NULL, 0);
    pump(s);
    *mode = s->mode;
    return end(s);
}

/* As Firecracker has it (vsock/vsock.h): CONNECT PORT is answered by OK and a number. */
int exec_session_connect(int fd) {
    char text[32], byte = 0;
    int len = snprintf(text, sizeof(text), "CONNECT %d\n", AGENT_PORT);
    size_t got = 0;
    ssize_t n;

    if (send(fd, text, (size_t)len, MSG_NOSIGNAL) != len)
        return -errno;
    while (byte != '\n' && got + 1 < sizeof(text)) {
        n = read(fd, &byte, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ECONNREFUSED;
        text[got++] = byte;
    }
    text[got] = 0;
    return !strncmp(text, "OK ", 3) ? 0 : -ECONNREFUSED;
}

void exec_agent_image(const uint8_t **bytes, size_t *len) {
    extern const uint8_t _binary_agent_start[], _binary_agent_end[];

    *bytes = _binary_agent_start;
    *len = (size_t)(_binary_agent_end - _binary_agent_start);
}
