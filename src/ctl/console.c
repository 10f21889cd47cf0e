/* The serial console on stdin and stdout; see console.h. */
#include "ctl/console.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"

#define ESCAPE 0x01 /* Ctrl-A */

/* A reader that takes nothing for so long is not waited for when it is abandoned. */
#define STALL_MS 100
/* A pipe with room takes this much without blocking: PIPE_BUF, pipe(7). */
#define PIECE 4096u

static bool is(const bool *flag) {
    return __atomic_load_n(flag, __ATOMIC_SEQ_CST);
}

static void set(bool *flag, bool value) {
    __atomic_store_n(flag, value, __ATOMIC_SEQ_CST);
}

static bool writable(int fd, int wait_ms) {
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    return poll(&p, 1, wait_ms) > 0;
}

/* --- keys, on the loop's thread --- */

/* There is room for it. */
static void on_room(void *arg, unsigned ready) {
    static const char text[] = "\r\n"
                               "Ctrl-A x   quit bivisor\r\n"
                               "Ctrl-A h   this help\r\n"
                               "Ctrl-A a   send Ctrl-A to the guest\r\n";
    struct console *c = arg;
    int fd = c->help.fd;

    if (!writable(fd, 0)) /* the guest's output was faster */
        return;
    os_watch_stop(&c->help);
    if (write(fd, text, sizeof(text) - 1) < 0)
        return; /* nobody to help */
}

/* The output may be a file that wants the guest's bytes only; then the user is elsewhere.
 */
static void help(struct console *c) {
    int fd = c->out_is_tty ? STDOUT_FILENO : STDERR_FILENO;

    if (!c->help.loop)
        os_watch_start(&c->help, machine_loop(c->m), fd, OS_WRITE, on_room, c);
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
            set(&c->abandoned, true);
            machine_quit(c->m);
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

    if (is(&c->eof) || poll(&in, 1, 0) <= 0)
        return 0;
    n = read(STDIN_FILENO, buf, size);
    if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
        set(&c->eof, true);
    return n > 0 ? (size_t)n : 0;
}

/* What has to be free for a key, and a Ctrl-A before it. */
static bool has_space(const struct console *c) {
    return sizeof(c->held) - c->held_len >= 2;
}

static void read_keys(struct console *c) {
    uint8_t typed[256];
    size_t space, n;

    pthread_mutex_lock(&c->lock);
    space = sizeof(c->held) - c->held_len;
    n = has_space(c)
            ? read_input(c, typed, space - 1 < sizeof(typed) ? space - 1 : sizeof(typed))
            : 0;
    c->held_len += filter(c, typed, n, c->held + c->held_len);
    if (is(&c->eof) || !has_space(c))
        os_watch_events(&c->input, 0);
    pthread_mutex_unlock(&c->lock);
}

static void on_input(void *arg, unsigned ready) {
    struct console *c = arg;

    if (c->is_tty) {
        read_keys(c);
    } else {
        os_watch_events(&c->input, 0);
        set(&c->watched, false);
    }
    machine_wake(c->m);
}

static void watch_again(void *arg) {
    struct console *c = arg;

    if (c->input.loop)
        os_watch_events(&c->input, OS_READ);
}

/* --- input, on the CPU's thread --- */

static size_t take_held(struct console *c, uint8_t *buf, size_t room) {
    bool was_full;
    size_t n;

    pthread_mutex_lock(&c->lock);
    was_full = !has_space(c);
    n = c->held_len < room ? c->held_len : room;
    memcpy(buf, c->held, n);
    c->held_len -= n;
    memmove(c->held, c->held + n, c->held_len);
    if (was_full && has_space(c))
        os_task_post(&c->listen, machine_loop(c->m));
    pthread_mutex_unlock(&c->lock);
    return n;
}

/* As long as the loop watches, nothing has come. */
static size_t take_piped(struct console *c, uint8_t *buf, size_t room) {
    size_t n;

    if (!room || is(&c->watched))
        return 0;
    n = read_input(c, buf, room);
    if (!n && !is(&c->eof)) {
        set(&c->watched, true);
        os_task_post(&c->listen, machine_loop(c->m));
    }
    return n;
}

static size_t rx(void *arg, uint8_t *buf, size_t room) {
    struct console *c = arg;

    return c->is_tty ? take_held(c, buf, room) : take_piped(c, buf, room);
}

static bool dry(void *arg) {
    struct console *c = arg;
    bool empty;

    pthread_mutex_lock(&c->lock);
    empty = !c->held_len;
    pthread_mutex_unlock(&c->lock);
    return empty && is(&c->eof);
}

/* --- output --- */

/* One piece of what is kept. False: the reader takes nothing now. */
static bool write_piece(struct console *c, int wait_ms) {
    size_t len = c->out_len < PIECE ? c->out_len : PIECE;
    ssize_t n;

    if (!writable(STDOUT_FILENO, wait_ms))
        return false;
    n = write(STDOUT_FILENO, c->out, len);
    if (n > 0) {
        c->out_len -= (size_t)n;
        memmove(c->out, c->out + n, c->out_len);
    } else if (n < 0 && errno != EINTR && errno != EAGAIN) {
        c->error = errno;
        machine_quit(c->m);
    }
    return n > 0;
}

static int flush_locked(struct console *c) {
    while (c->out_len && !c->error) {
        bool given_up = is(&c->abandoned);

        if (write_piece(c, given_up ? STALL_MS : 0))
            continue;
        if (!given_up)
            return c->error ? -1 : STDOUT_FILENO;
        break;
    }
    c->out_len = 0;
    return -1;
}

static int flush(void *arg) {
    struct console *c = arg;
    int fd;

    pthread_mutex_lock(&c->out_lock);
    fd = flush_locked(c);
    pthread_mutex_unlock(&c->out_lock);
    return fd;
}

/* There is room for what the guest writes before it comes to flush(). Who writes more is
 * waited for here. */
static bool make_room(struct console *c) {
    while (c->out_len == sizeof(c->out))
        if (c->error || (!write_piece(c, STALL_MS) && is(&c->abandoned)))
            return false;
    return true;
}

static void tx(void *arg, const uint8_t *bytes, size_t len) {
    struct console *c = arg;

    pthread_mutex_lock(&c->out_lock);
    if (len)
        c->at_line_start = bytes[len - 1] == '\n';
    while (len && make_room(c)) {
        size_t room = sizeof(c->out) - c->out_len, n = len < room ? len : room;

        memcpy(c->out + c->out_len, bytes, n);
        c->out_len += n;
        bytes += n;
        len -= n;
    }
    pthread_mutex_unlock(&c->out_lock);
}

/* --- the console --- */

int console_open(struct console *c, bool input, struct machine *m) {
    int rc;

    *c = (struct console){.at_line_start = true,
                          .out_is_tty = isatty(STDOUT_FILENO),
                          .m = m,
                          .lock = PTHREAD_MUTEX_INITIALIZER,
                          .out_lock = PTHREAD_MUTEX_INITIALIZER,
                          .listen = {.fn = watch_again, .arg = c}};
    rc = input ? os_tty_raw(STDIN_FILENO, &c->is_tty) : 0;
    if (rc || !input)
        return rc;
    return os_watch_start(&c->input, machine_loop(m), STDIN_FILENO,
                          c->is_tty ? OS_READ : 0, on_input, c);
}

void console_close(struct console *c) {
    if (c->is_tty && c->out_is_tty && !c->at_line_start) {
        tx(c, (const uint8_t *)"\r\n", 2);
        while (flush(c) >= 0 && !is(&c->abandoned))
            writable(STDOUT_FILENO, STALL_MS);
    }
    os_watch_stop(&c->input);
    os_watch_stop(&c->help);
    os_tty_restore();
}

void console_abandon(struct console *c) {
    set(&c->abandoned, true);
}

struct machine_console console_ops(struct console *c) {
    return (struct machine_console){.tx = tx, .flush = flush, .rx = rx, .arg = c};
}

struct input_source console_source(struct console *c) {
    return (struct input_source){.console = console_ops(c), .dry = dry};
}
