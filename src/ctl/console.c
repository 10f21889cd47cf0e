/* The serial console on stdin and stdout; see console.h. */
#include "ctl/console.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"

#define ESCAPE 0x01 /* Ctrl-A */

static void write_all(struct console *c, const void *bytes, size_t len) {
    const uint8_t *p = bytes;

    while (len && !c->broken) {
        ssize_t n = write(STDOUT_FILENO, p, len);

        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};

            poll(&out, 1, 1000);
        } else if (n < 0 && errno != EINTR) {
            c->broken = true;
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

static void help(struct console *c) {
    static const char text[] = "\r\n"
                               "Ctrl-A x   quit bivisor\r\n"
                               "Ctrl-A h   this help\r\n"
                               "Ctrl-A a   send Ctrl-A to the guest\r\n";

    write_all(c, text, sizeof(text) - 1);
}

/* Takes the commands out of what was typed; returns how many bytes are the guest's. */
static size_t filter(struct console *c, uint8_t *buf, size_t len) {
    size_t out = 0;

    for (size_t i = 0; i < len; i++) {
        uint8_t byte = buf[i];

        if (!c->escape) {
            if (byte == ESCAPE)
                c->escape = true;
            else
                buf[out++] = byte;
            continue;
        }
        c->escape = false;
        switch (byte) {
        case 'x':
        case 'X':
            c->quit(c->quit_arg);
            return out;
        case 'h':
        case 'H':
        case '?':
            help(c);
            break;
        case 'a':
        case ESCAPE:
            buf[out++] = ESCAPE;
            break;
        default: /* not a command: both bytes were meant for the guest */
            buf[out++] = byte;
            break;
        }
    }
    return out;
}

static size_t rx(void *arg, uint8_t *buf, size_t room) {
    struct console *c = arg;
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    ssize_t n;

    if (c->eof || !room || poll(&in, 1, 0) <= 0)
        return 0;
    n = read(STDIN_FILENO, buf, room);
    if (n < 0)
        c->eof = errno != EINTR && errno != EAGAIN;
    if (n == 0)
        c->eof = true;
    if (n <= 0)
        return 0;
    return c->is_tty ? filter(c, buf, (size_t)n) : (size_t)n;
}

static int rx_fd(void *arg) {
    const struct console *c = arg;

    return c->eof ? -1 : STDIN_FILENO;
}

int console_open(struct console *c, void (*quit)(void *arg), void *arg) {
    *c = (struct console){.at_line_start = true, .quit = quit, .quit_arg = arg};
    return os_tty_raw(STDIN_FILENO, &c->is_tty);
}

void console_close(struct console *c) {
    if (c->is_tty && !c->at_line_start)
        write_all(c, "\r\n", 2);
    os_tty_restore();
}

struct machine_console console_ops(struct console *c) {
    return (struct machine_console){.tx = tx, .rx = rx, .rx_fd = rx_fd, .arg = c};
}
