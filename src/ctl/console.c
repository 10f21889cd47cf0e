/* The serial console on stdin and stdout; see console.h. */
#include "ctl/console.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"

#define ESCAPE 0x01 /* Ctrl-A */

/* A reader that stalls is looked at this often, in case the run is being stopped. */
#define STALL_MS 100
/* A pipe with room takes this much without blocking: PIPE_BUF, pipe(7). */
#define PIECE 4096u

/* The output may be a file that wants the guest's bytes only; then the user is elsewhere.
 */
static void help(const struct console *c) {
    static const char text[] = "\r\n"
                               "Ctrl-A x   quit bivisor\r\n"
                               "Ctrl-A h   this help\r\n"
                               "Ctrl-A a   send Ctrl-A to the guest\r\n";

    if (write(c->out_is_tty ? STDOUT_FILENO : STDERR_FILENO, text, sizeof(text) - 1) < 0)
        return; /* nobody to help */
}

/* Takes the commands out of the LEN bytes IN that were typed; returns how many bytes are
 * the guest's. OUT has room for LEN + 1: a Ctrl-A may have been held back before. */
static size_t filter(struct console *c, const uint8_t *in, size_t len, uint8_t *out) {
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        uint8_t byte = in[i];

        if (!c->escape) {
            if (byte == ESCAPE)
                c->escape = true;
            else
                out[n++] = byte;
            continue;
        }
        c->escape = false;
        switch (byte) {
        case 'x':
        case 'X':
            c->abandoned = true;
            c->quit(c->quit_arg);
            return n;
        case 'h':
        case 'H':
        case '?':
            help(c);
            break;
        case 'a':
        case 'A':
        case ESCAPE:
            out[n++] = ESCAPE;
            break;
        default: /* not a command: both bytes were meant for the guest */
            out[n++] = ESCAPE;
            out[n++] = byte;
            break;
        }
    }
    return n;
}

/* Up to SIZE bytes of input into BUF; 0: none now. */
static size_t read_input(struct console *c, uint8_t *buf, size_t size) {
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    ssize_t n;

    if (c->eof || poll(&in, 1, 0) <= 0)
        return 0;
    n = read(STDIN_FILENO, buf, size);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
        c->eof = true;
    return n > 0 ? (size_t)n : 0;
}

/* Ctrl-A must be seen even while the guest takes nothing: what is typed is read at once
 * and held. */
static void read_keys(struct console *c) {
    uint8_t typed[256];
    size_t space = sizeof(c->held) - c->held_len;
    size_t n;

    if (space < 2)
        return;
    n = read_input(c, typed, space - 1 < sizeof(typed) ? space - 1 : sizeof(typed));
    c->held_len += filter(c, typed, n, c->held + c->held_len);
}

static int rx_fd(void *arg) {
    const struct console *c = arg;
    bool full = c->is_tty ? sizeof(c->held) - c->held_len < 2 : c->no_room;

    return c->eof || full ? -1 : STDIN_FILENO;
}

/* Waits until the output takes something or has failed, and obeys what is typed until
 * then. False: give up. */
static bool wait_for_reader(struct console *c) {
    for (;;) {
        struct pollfd p[2] = {{.fd = STDOUT_FILENO, .events = POLLOUT},
                              {.fd = c->is_tty ? rx_fd(c) : -1, .events = POLLIN}};

        if (poll(p, 2, STALL_MS) > 0) {
            if (p[0].revents)
                return true;
            read_keys(c);
        }
        if (c->abandoned)
            return false;
    }
}

static void write_all(struct console *c, const void *bytes, size_t len) {
    const uint8_t *p = bytes;

    while (len && !c->error && wait_for_reader(c)) {
        ssize_t n = write(STDOUT_FILENO, p, len < PIECE ? len : PIECE);

        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else if (n < 0 && errno != EINTR && errno != EAGAIN) {
            c->error = errno;
            c->quit(c->quit_arg);
        }
    }
}

static void tx(void *arg, const uint8_t *bytes, size_t len) {
    struct console *c = arg;

    if (len)
        c->at_line_start = bytes[len - 1] == '\n';
    write_all(c, bytes, len);
}

static size_t rx(void *arg, uint8_t *buf, size_t room) {
    struct console *c = arg;
    size_t n;

    c->no_room = !room;
    if (!c->is_tty)
        return room ? read_input(c, buf, room) : 0;
    read_keys(c);
    n = c->held_len < room ? c->held_len : room;
    memcpy(buf, c->held, n);
    c->held_len -= n;
    memmove(c->held, c->held + n, c->held_len);
    return n;
}

int console_open(struct console *c, bool input, void (*quit)(void *arg), void *arg) {
    *c = (struct console){.at_line_start = true,
                          .out_is_tty = isatty(STDOUT_FILENO),
                          .quit = quit,
                          .quit_arg = arg};
    return input ? os_tty_raw(STDIN_FILENO, &c->is_tty) : 0;
}

void console_close(struct console *c) {
    if (c->is_tty && c->out_is_tty && !c->at_line_start)
        write_all(c, "\r\n", 2);
    os_tty_restore();
}

void console_abandon(struct console *c) {
    c->abandoned = true;
}

struct machine_console console_ops(struct console *c) {
    return (struct machine_console){.tx = tx, .rx = rx, .rx_fd = rx_fd, .arg = c};
}

static bool dry(const void *arg) {
    const struct console *c = arg;

    return c->eof && !c->held_len;
}

/* In a pipe there are no commands. */
static bool takes_commands(const void *arg) {
    const struct console *c = arg;

    return c->is_tty;
}

struct input_source console_source(struct console *c) {
    return (struct input_source){
        .console = console_ops(c), .dry = dry, .takes_commands = takes_commands};
}
