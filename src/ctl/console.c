/* The serial console on stdin and stdout; see console.h. */
#include "ctl/console.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "stream/stream.h"

#define DEFAULT_ESCAPE 0x01 /* Ctrl-A */

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

/* --- output --- */

/* One piece of what is kept. False: the reader takes nothing now. */
static bool write_piece(struct console *c, int wait_ms) {
    size_t len = c->out_len < PIECE ? c->out_len : PIECE;
    ssize_t n;

    if (!writable(c->out_fd, wait_ms))
        return false;
    n = write(c->out_fd, c->out, len);
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
            return c->error ? -1 : c->out_fd;
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

/* As much of it as there is room for; all, where nobody reads any more. */
static size_t put_output(struct console *c, const uint8_t *bytes, size_t len) {
    size_t room, n;

    pthread_mutex_lock(&c->out_lock);
    room = sizeof(c->out) - c->out_len;
    n = len < room ? len : room;
    c->wanting |= n < len;
    memcpy(c->out + c->out_len, bytes, n);
    c->out_len += n;
    if (n)
        c->at_line_start = bytes[n - 1] == '\n';
    n = c->error ? len : n;
    pthread_mutex_unlock(&c->out_lock);
    return n;
}

/* There is room for what the guest writes before it comes to flush(). Who writes more is
 * waited for here. */
static bool make_room(struct console *c) {
    while (c->out_len == sizeof(c->out))
        if (c->error || (!write_piece(c, STALL_MS) && is(&c->abandoned)))
            return false;
    return true;
}

/* All of it: a counted run's. */
static size_t tx_all(void *arg, const uint8_t *bytes, size_t len) {
    struct console *c = arg;
    size_t left = len;

    pthread_mutex_lock(&c->out_lock);
    if (len)
        c->at_line_start = bytes[len - 1] == '\n';
    while (left && make_room(c)) {
        size_t room = sizeof(c->out) - c->out_len, n = left < room ? left : room;

        memcpy(c->out + c->out_len, bytes, n);
        c->out_len += n;
        bytes += n;
        left -= n;
    }
    pthread_mutex_unlock(&c->out_lock);
    return len;
}

/* The loop writes it. */
static size_t tx(void *arg, const uint8_t *bytes, size_t len) {
    struct console *c = arg;
    size_t n = put_output(c, bytes, len);

    os_task_post(&c->pump, machine_loop(c->m));
    return n;
}

/* --- keys, on the loop's thread --- */

/* There is room for it. */
static void on_room(void *arg, unsigned ready) {
    struct console *c = arg;
    const char key = (char)(c->escape_key + '@');
    int fd = c->help.fd, len;
    char text[256];

    len = snprintf(text, sizeof(text),
                   "\r\n"
                   "Ctrl-%c x   quit bivisor\r\n"
                   "%s%c%s"
                   "Ctrl-%c h   this help\r\n"
                   "Ctrl-%c a   send Ctrl-%c to the guest\r\n",
                   key, c->has_monitor ? "Ctrl-" : "", c->has_monitor ? key : '\r',
                   c->has_monitor ? " c   to the monitor, and back\r\n" : "", key, key,
                   key);
    if (!writable(fd, 0)) /* the guest's output was faster */
        return;
    os_watch_stop(&c->help);
    if (write(fd, text, (size_t)len) < 0)
        return; /* nobody to help */
}

/* The output may be a file that wants the guest's bytes only; then the user is elsewhere.
 */
static void help(struct console *c) {
    int fd = c->out_is_tty ? STDOUT_FILENO : STDERR_FILENO;

    if (!c->help.loop)
        os_watch_start(&c->help, machine_loop(c->m), fd, OS_WRITE, on_room, c);
}

static void quit(struct console *c) {
    set(&c->abandoned, true);
    machine_quit(c->m);
}

/* The monitor's words and the guest's go to the screen in the order of their coming. Who
 * does not read loses some of the monitor's. */
static void say(void *arg, const char *text) {
    struct console *c = arg;

    put_output(c, (const uint8_t *)text, strlen(text));
    os_task_post(&c->pump, machine_loop(c->m));
}

static void change_to_monitor(struct console *c) {
    c->in_monitor = !c->in_monitor;
    say(c, "\r\n");
    if (c->in_monitor)
        monitor_greet(&c->monitor);
}

/* A byte for whom the keys are; how many of the guest's it makes at OUT. */
static size_t put_key(struct console *c, uint8_t byte, uint8_t *out) {
    if (c->in_monitor) {
        monitor_key(&c->monitor, byte);
        return 0;
    }
    *out = byte;
    return 1;
}

/* What follows the escape key; the same, for one byte or two. */
static size_t take_command(struct console *c, uint8_t byte, uint8_t *out) {
    size_t n;

    switch (byte | 0x20) {
    case 'x':
        quit(c);
        return 0;
    case 'h':
    case '?' | 0x20:
        help(c);
        return 0;
    case 'c':
        if (c->has_monitor == CONSOLE_MUX_MONITOR) {
            change_to_monitor(c);
            return 0;
        }
        break;
    case 'a':
        return put_key(c, c->escape_key, out);
    default:
        break;
    }
    n = put_key(c, c->escape_key, out);
    if (byte != c->escape_key) /* not a command: both bytes were meant for the guest */
        n += put_key(c, byte, out + n);
    return n;
}

/* Takes the commands out of the LEN bytes IN that were typed; returns how many bytes are
 * the guest's. OUT has room for LEN + 1: a Ctrl-A may have been held back before. */
static size_t filter(struct console *c, const uint8_t *in, size_t len, uint8_t *out) {
    size_t n = 0;

    for (size_t i = 0; i < len && !is(&c->abandoned); i++) {
        if (c->escape) {
            c->escape = false;
            n += take_command(c, in[i], out + n);
        } else if (in[i] == c->escape_key && c->is_tty) {
            c->escape = true;
        } else {
            n += put_key(c, in[i], out + n);
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

/* Commands are executed here, where no lock is held: some wait for the CPUs, which may be
 * waiting for one. Meanwhile the room in `held` only grows. */
static void read_keys(struct console *c) {
    uint8_t typed[256], keys[sizeof(typed) + 2];
    size_t space, n;

    pthread_mutex_lock(&c->lock);
    space = sizeof(c->held) - c->held_len;
    pthread_mutex_unlock(&c->lock);
    n = space < 2
            ? 0
            : read_input(c, typed, space - 1 < sizeof(typed) ? space - 1 : sizeof(typed));
    n = filter(c, typed, n, keys);
    pthread_mutex_lock(&c->lock);
    memcpy(c->held + c->held_len, keys, n);
    c->held_len += n;
    if (is(&c->eof) || !has_space(c))
        os_watch_events(&c->input, 0);
    pthread_mutex_unlock(&c->lock);
}

/* What is held goes to the stream that has the console; the end of input too. */
static void feed(struct console *c) {
    size_t n = stream_lender_input(c->lent, c->held, c->held_len);

    c->held_len -= n;
    memmove(c->held, c->held + n, c->held_len);
    if (c->input.loop && has_space(c) && !is(&c->eof))
        os_watch_events(&c->input, OS_READ);
    if (is(&c->eof) && !c->held_len && !c->ended) {
        c->ended = true;
        stream_lender_ended(c->lent);
    }
}

/* Does the loop read all of the input? */
static bool is_loops(const struct console *c) {
    return c->is_tty || c->lent || c->has_monitor == CONSOLE_ONLY_MONITOR;
}

static void on_input(void *arg, unsigned ready) {
    struct console *c = arg;

    if (is_loops(c)) {
        read_keys(c);
        if (c->lent)
            feed(c);
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

    if (c->lent)
        return 0;
    return is_loops(c) ? take_held(c, buf, room) : take_piped(c, buf, room);
}

static bool dry(void *arg) {
    struct console *c = arg;
    bool empty;

    pthread_mutex_lock(&c->lock);
    empty = !c->held_len;
    pthread_mutex_unlock(&c->lock);
    return empty && is(&c->eof);
}

/* --- output, on the loop's thread --- */

static void pump(void *arg);

static void on_full(void *arg, unsigned ready) {
    struct console *c = arg;

    os_watch_stop(&c->full);
    pump(c);
}

/* Somebody had more to say than there was room for, and half of that is free: a reader
 * that is slow does not have him come for every byte. */
static bool has_room_again(struct console *c) {
    bool again;

    pthread_mutex_lock(&c->out_lock);
    again = c->wanting && c->out_len <= sizeof(c->out) / 2;
    c->wanting &= !again;
    pthread_mutex_unlock(&c->out_lock);
    return again;
}

/* Writes what waits, and lets the guest, or the stream, go on. */
static void pump(void *arg) {
    struct console *c = arg;
    int fd = flush(c);

    if (fd >= 0 && !c->full.loop)
        os_watch_start(&c->full, machine_loop(c->m), fd, OS_WRITE, on_full, c);
    if (has_room_again(c))
        machine_console_ready(c->m);
    if (!c->lent)
        return;
    if (fd < 0)
        stream_lender_ready(c->lent);
    feed(c);
}

/* --- lent to a stream --- */

static void lent_more(void *arg) {
    struct console *c = arg;

    os_task_post(&c->pump, machine_loop(c->m));
}

/* --- the console --- */

/* The loop must not wait in write(2), which may where another process writes at the same
 * place, and at a terminal: there the output is opened once more, for us alone, with
 * O_NONBLOCK. (The descriptor that we were given shares its flags with our parent's.) */
static int own_output(void) {
    struct stat st;
    int fd = -1;

    if (!fstat(STDOUT_FILENO, &st) && (S_ISFIFO(st.st_mode) || isatty(STDOUT_FILENO)))
        fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return fd < 0 ? STDOUT_FILENO : fd;
}

int console_open(struct console *c, const struct console_config *cfg, struct machine *m) {
    int rc;

    *c = (struct console){.at_line_start = true,
                          .out_is_tty = isatty(STDOUT_FILENO),
                          .out_fd = own_output(),
                          .m = m,
                          .escape_key = cfg->escape ? cfg->escape : DEFAULT_ESCAPE,
                          .has_monitor = cfg->monitor,
                          .in_monitor = cfg->monitor == CONSOLE_ONLY_MONITOR,
                          .lent = cfg->lend,
                          .lock = PTHREAD_MUTEX_INITIALIZER,
                          .out_lock = PTHREAD_MUTEX_INITIALIZER,
                          .pump = {.fn = pump, .arg = c},
                          .listen = {.fn = watch_again, .arg = c}};
    c->monitor = (struct monitor){.words = cfg->words, .say = say, .arg = c};
    if (c->lent) {
        const struct stream_lender lender = {.write = tx, .more = lent_more, .arg = c};

        stream_lend(c->lent, &lender);
    }
    rc = cfg->input ? os_tty_raw(STDIN_FILENO, &c->is_tty) : 0;
    if (rc || !cfg->input)
        return rc;
    if (c->in_monitor)
        monitor_greet(&c->monitor);
    return os_watch_start(&c->input, machine_loop(m), STDIN_FILENO,
                          is_loops(c) ? OS_READ : 0, on_input, c);
}

void console_close(struct console *c) {
    if (c->is_tty && c->out_is_tty && !c->at_line_start)
        tx_all(c, (const uint8_t *)"\r\n", 2);
    if (c->out_len && !c->error) {
        while (flush(c) >= 0 && !is(&c->abandoned))
            writable(c->out_fd, STALL_MS);
    }
    if (c->out_fd != STDOUT_FILENO)
        close(c->out_fd);
    os_watch_stop(&c->input);
    os_watch_stop(&c->full);
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
    struct input_source s = {.console = console_ops(c), .dry = dry};

    s.console.tx = tx_all;
    return s;
}
