/*
 * The terminal: raw while the guest owns the keyboard, as it was at every way out.
 *
 * The saved settings are a global because the ways out include signal handlers and
 * atexit(), which carry no argument. tcsetattr() is async-signal-safe.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/os.h"

static struct termios saved;
static int raw_fd = -1;
static void (*stop_fn)(int signo);

void os_tty_restore(void) {
    int fd = raw_fd;

    if (fd < 0)
        return;
    raw_fd = -1;
    /* TCSANOW, not TCSAFLUSH: what was typed for the shell after us is the shell's. */
    tcsetattr(fd, TCSANOW, &saved);
}

bool os_tty_is_raw(void) {
    return raw_fd >= 0;
}

static void on_fatal(int signo) {
    os_tty_restore();
    signal(signo, SIG_DFL);
    raise(signo);
}

static void on_suspend_resume(int signo) {
    struct termios raw;

    /* Continued after a stop from outside: the shell may have changed the settings. */
    if (raw_fd < 0)
        return;
    raw = saved;
    cfmakeraw(&raw);
    tcsetattr(raw_fd, TCSANOW, &raw);
}

static void on_stop(int signo) {
    if (stop_fn)
        stop_fn(signo);
}

/* Fatal signals nobody handles yet get a handler that restores the terminal first. */
static void catch_fatal(void) {
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE,  SIGILL,  SIGABRT,
                                SIGTRAP, SIGSYS, SIGXCPU, SIGXFSZ, SIGALRM};
    struct sigaction act = {.sa_handler = on_fatal, .sa_flags = SA_NODEFER | SA_ONSTACK};
    struct sigaction old;

    for (size_t i = 0; i < ARRAY_SIZE(fatal); i++)
        if (!sigaction(fatal[i], NULL, &old) && old.sa_handler == SIG_DFL)
            sigaction(fatal[i], &act, NULL);
}

int os_tty_raw(int fd, bool *is_tty) {
    struct sigaction cont = {.sa_handler = on_suspend_resume, .sa_flags = SA_RESTART | SA_ONSTACK};
    struct termios raw;

    *is_tty = isatty(fd);
    if (!*is_tty)
        return 0;
    if (tcgetattr(fd, &saved) < 0)
        return -errno;
    raw = saved;
    cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    raw_fd = fd;
    atexit(os_tty_restore);
    catch_fatal();
    sigaction(SIGCONT, &cont, NULL);
    if (tcsetattr(fd, TCSANOW, &raw) < 0) {
        raw_fd = -1;
        return -errno;
    }
    return 0;
}

int os_on_stop_signals(void (*fn)(int signo)) {
    static const int stop[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction act = {.sa_handler = on_stop, .sa_flags = SA_RESTART | SA_ONSTACK};
    struct sigaction ign = {.sa_handler = SIG_IGN};

    stop_fn = fn;
    for (size_t i = 0; i < ARRAY_SIZE(stop); i++)
        if (sigaction(stop[i], &act, NULL) < 0)
            return -errno;
    /* A reader of our output that goes away is an error of write(2), not a death. */
    return sigaction(SIGPIPE, &ign, NULL) < 0 ? -errno : 0;
}

void os_die_of(int signo) {
    signal(signo, SIG_DFL);
    raise(signo);
}
