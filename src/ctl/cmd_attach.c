/*
 * `bivisor attach`: this terminal is the console of a machine that runs in the
 * background. Keys are the guest's, but for Ctrl-A d, which leaves.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "ctl/ask.h"
#include "ctl/ctl.h"

#define ESCAPE 0x01 /* Ctrl-A */
#define PIECE 4096

struct attached {
    int fd; /* the console */
    bool tty;
    bool escape; /* the last key was Ctrl-A */
    bool input_open, left, failed;
};

static volatile int signal_seen;

static void on_signal(int signo) {
    signal_seen = signo;
}

static bool write_all(int fd, const char *bytes, size_t len) {
    while (len) {
        ssize_t n = write(fd, bytes, len);

        if (n < 0 && (errno != EINTR || signal_seen))
            return false;
        if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        }
    }
    return true;
}

static void help(void) {
    static const char text[] = "\r\nCtrl-A d  leave the machine to itself\r\n"
                               "Ctrl-A h  this help\r\n"
                               "Ctrl-A Ctrl-A  Ctrl-A, to the guest\r\n";

    (void)!write(STDOUT_FILENO, text, sizeof(text) - 1);
}

/* The key behind Ctrl-A. False: it is the guest's, with Ctrl-A before it. */
static bool command(struct attached *a, char key) {
    if (key == 'd')
        a->left = true;
    else if (key == 'h')
        help();
    else
        return false;
    return true;
}

/* What of LEN bytes is the guest's, to OUT, which has room for twice as much. */
static size_t filter(struct attached *a, const char *in, size_t len, char *out) {
    size_t n = 0;

    for (size_t k = 0; k < len && !a->left; k++) {
        if (a->escape) {
            a->escape = false;
            if (command(a, in[k]))
                continue;
            out[n++] = ESCAPE;
            if (in[k] != ESCAPE)
                out[n++] = in[k];
        } else if (a->tty && in[k] == ESCAPE) {
            a->escape = true;
        } else {
            out[n++] = in[k];
        }
    }
    return n;
}

static void take_keys(struct attached *a) {
    char in[PIECE], out[2 * PIECE];
    ssize_t n = read(STDIN_FILENO, in, sizeof(in));

    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0)
        a->input_open = false;
    else if (!write_all(a->fd, out, filter(a, in, (size_t)n, out)))
        a->failed = true;
}

/* False: the machine has ended, or somebody else is attached now. */
static bool take_output(struct attached *a) {
    char bytes[PIECE];
    ssize_t n = read(a->fd, bytes, sizeof(bytes));

    if (n < 0 && errno == EINTR)
        return true;
    if (n <= 0)
        return false;
    if (!write_all(STDOUT_FILENO, bytes, (size_t)n))
        a->left = true; /* nobody reads */
    return true;
}

static void pump(struct attached *a) {
    bool connected = true;

    while (connected && !a->left && !a->failed && !signal_seen) {
        struct pollfd f[] = {{.fd = a->fd, .events = POLLIN},
                             {.fd = a->input_open ? STDIN_FILENO : -1, .events = POLLIN}};

        if (poll(f, ARRAY_SIZE(f), -1) < 0)
            continue;
        if (f[0].revents)
            connected = take_output(a);
        if (f[1].revents)
            take_keys(a);
    }
}

/* A descriptor, or -1 after a message. */
static int open_console(const struct ask_machine *m) {
    cJSON *answer = ask_once(m, "{\"command\":\"about\"}\n");
    const cJSON *path = cJSON_GetObjectItem(answer, "console");
    int console = -1;

    if (cJSON_IsString(path)) {
        console = ask_try(path->valuestring, 0);
        if (console < 0)
            log_error("cannot connect to '%s': %s", path->valuestring,
                      strerror(-console));
    } else if (answer) {
        log_error(
            "the machine's console is where it was started: --daemon gives it one to "
            "attach to");
    }
    cJSON_Delete(answer);
    return console;
}

static int attach(struct attached *a) {
    bool tty;
    int rc = os_on_stop_signals(on_signal);

    if (!rc)
        rc = os_tty_raw(STDIN_FILENO, &a->tty);
    tty = a->tty;
    if (!rc && tty)
        fprintf(stderr, "bivisor: Ctrl-A d leaves; Ctrl-A h helps\r\n");
    if (!rc)
        pump(a);
    os_tty_restore();
    if (rc)
        log_error("cannot take over the terminal: %s", strerror(-rc));
    else if (tty)
        fprintf(stderr, "\nbivisor: %s\n",
                a->left ? "left; the machine goes on" : "the machine's console is gone");
    if (signal_seen)
        os_die_of(signal_seen);
    return rc ? CTL_HOST_FAILURE : CTL_OK;
}

int ctl_cmd_attach(int argc, char **argv) {
    struct attached a = {.input_open = true};
    struct ask_machine m;
    int words, status;

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        printf("usage: bivisor attach NAME\n"
               "\n"
               "This terminal is the serial console of a machine that runs with --name "
               "and\n"
               "--daemon; what that has written before is gone. Ctrl-A d leaves. Who "
               "attaches\n"
               "takes the place of who was attached before. NAME, or --control PATH.\n"
               "\n"
               "exit status: 0; 1 when there is no such machine, or no console\n");
        return CTL_OK;
    }
    words = ask_take_machine("attach", argc - 1, argv + 1, &m);
    if (words < 0)
        return CTL_USAGE;
    if (words != argc - 1) {
        log_error("'%s' is too much; `bivisor attach --help` tells more",
                  argv[1 + words]);
        return CTL_USAGE;
    }
    a.fd = open_console(&m);
    if (a.fd < 0)
        return CTL_HOST_FAILURE;
    status = attach(&a);
    close(a.fd);
    return status;
}
