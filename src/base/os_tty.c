/*
 * The terminal: raw while the guest owns the keyboard, as it was at every way out.
 *
 * The saved settings are a global because the ways out include signal handlers and
 * atexit(), which carry no argument. Every function called from a handler here is
 * async-signal-safe (POSIX.1-2017, "Signal Concepts").
 *
 * Job control: the settings are changed only while our process group is in the
 * foreground; in the background the terminal is somebody else's, who also has put it back
 * when we were stopped. Stopped from outside (SIGTSTP) we give it back; continued in the
 * foreground we take it again.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/os.h"

/* A stop signal that comes so long after the first means that the first was in vain. */
#define STOP_PATIENCE_NS 1000000000u

static struct termios saved;
/* What is written when the terminal is taken, and when it is given back; NULL. */
static const char *volatile enter_text, *volatile leave_text;
static int screen_fd;
static volatile sig_atomic_t taken;
static volatile sig_atomic_t raw_fd = -1;
static void (*volatile stop_fn)(int signo);
static volatile uint64_t first_stop_ns;

/* Not so in the background. A terminal that is not our controlling one has no job
 * control: tcgetpgrp() fails, and it is ours. */
static bool foreground(int fd) {
    pid_t group = tcgetpgrp(fd);

    return group < 0 || group == getpgrp();
}

static struct termios raw_settings(void) {
    struct termios raw = saved;

    cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    return raw;
}

static void say(const char *text) {
    size_t len = text ? strlen(text) : 0;

    /* One that takes nothing now, or is gone, has nothing to be told. */
    if (len && write(screen_fd, text, len) < 0)
        return;
}

static void enter(int fd) {
    struct termios raw = raw_settings();

    tcsetattr(fd, TCSANOW, &raw);
    say(enter_text);
    taken++;
}

static void leave(int fd) {
    say(leave_text);
    tcsetattr(fd, TCSANOW, &saved);
}

void os_tty_screen(int fd, const char *at_enter, const char *at_leave) {
    screen_fd = fd;
    enter_text = at_enter;
    leave_text = at_leave;
}

unsigned os_tty_taken(void) {
    return (unsigned)taken;
}

void os_tty_restore(void) {
    int fd = raw_fd;

    if (fd < 0)
        return;
    raw_fd = -1;
    /* TCSANOW, not TCSAFLUSH: what was typed for the shell after us is the shell's. */
    if (foreground(fd))
        leave(fd);
}

bool os_tty_is_raw(void) {
    return raw_fd >= 0;
}

static void on_fatal(int signo) {
    os_tty_restore();
    signal(signo, SIG_DFL);
    raise(signo);
}

static void on_continue(int signo) {
    int saved_errno = errno;

    if (raw_fd >= 0 && foreground(raw_fd))
        enter(raw_fd);
    errno = saved_errno;
}

static void on_suspend(int signo) {
    struct sigaction again;
    int saved_errno = errno;

    if (raw_fd >= 0 && foreground(raw_fd))
        leave(raw_fd);
    sigaction(signo, NULL, &again);
    signal(signo, SIG_DFL);
    raise(signo); /* stops here; SIGCONT's handler runs before this returns */
    sigaction(signo, &again, NULL);
    errno = saved_errno;
}

static void on_stop(int signo) {
    uint64_t now = os_monotonic_ns();
    int saved_errno = errno;

    if (!first_stop_ns)
        first_stop_ns = now;
    if (now - first_stop_ns > STOP_PATIENCE_NS || !stop_fn) {
        os_tty_restore();
        os_die_of(signo); /* on return from the handler, which blocks SIGNO */
    } else {
        stop_fn(signo);
    }
    errno = saved_errno;
}

/* Installs ACT for those of the signals that nobody handles or ignores yet. */
static void catch_default(const int *signals, size_t n, const struct sigaction *act) {
    struct sigaction old;

    for (size_t i = 0; i < n; i++)
        if (!sigaction(signals[i], NULL, &old) && old.sa_handler == SIG_DFL)
            sigaction(signals[i], act, NULL);
}

/* Fatal signals nobody handles yet get a handler that restores the terminal first. */
static void catch_signals(void) {
    static const int fatal[] = {SIGSEGV, SIGBUS,  SIGFPE,  SIGILL,    SIGABRT, SIGTRAP,
                                SIGSYS,  SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGALRM,
                                SIGUSR1, SIGUSR2, SIGPWR,  SIGSTKFLT, SIGPOLL};
    static const int suspend[] = {SIGTSTP}, cont[] = {SIGCONT};
    const struct sigaction die = {.sa_handler = on_fatal,
                                  .sa_flags = SA_NODEFER | SA_ONSTACK};
    const struct sigaction pause = {.sa_handler = on_suspend,
                                    .sa_flags = SA_NODEFER | SA_RESTART | SA_ONSTACK};
    const struct sigaction resume = {.sa_handler = on_continue,
                                     .sa_flags = SA_RESTART | SA_ONSTACK};

    catch_default(fatal, ARRAY_SIZE(fatal), &die);
    for (int signo = SIGRTMIN; signo <= SIGRTMAX; signo++)
        catch_default(&signo, 1, &die);
    catch_default(suspend, 1, &pause);
    catch_default(cont, 1, &resume);
}

int os_tty_raw(int fd, bool *is_tty) {
    struct termios raw;

    *is_tty = isatty(fd);
    if (!*is_tty)
        return 0;
    if (tcgetattr(fd, &saved) < 0)
        return -errno;
    raw = raw_settings();
    raw_fd = fd;
    atexit(os_tty_restore);
    catch_signals();
    /* In the background this stops us, as it does any program that wants a terminal; it
     * goes on when we are brought to the foreground. */
    while (tcsetattr(fd, TCSANOW, &raw) < 0) {
        if (errno == EINTR && !first_stop_ns)
            continue;
        raw_fd = -1;
        return -errno;
    }
    say(enter_text);
    taken++;
    return 0;
}

int os_on_stop_signals(void (*fn)(int signo)) {
    static const int stop[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGXCPU};
    /* No SA_RESTART: a write to a reader that has stalled must return. */
    const struct sigaction act = {.sa_handler = on_stop, .sa_flags = SA_ONSTACK};
    const struct sigaction ign = {.sa_handler = SIG_IGN};

    stop_fn = fn;
    /* One that was ignored when we started (nohup, a shell's background job) stays so. */
    catch_default(stop, ARRAY_SIZE(stop), &act);
    /* A reader of our output that goes away is an error of write(2), not a death. */
    return sigaction(SIGPIPE, &ign, NULL) < 0 ? -errno : 0;
}

int os_ignore_file_limit(void) {
    const struct sigaction ign = {.sa_handler = SIG_IGN};

    return sigaction(SIGXFSZ, &ign, NULL) < 0 ? -errno : 0;
}

int os_on_report_signal(void (*fn)(int signo)) {
    const struct sigaction act = {.sa_handler = fn, .sa_flags = SA_RESTART | SA_ONSTACK};

    return sigaction(SIGUSR1, &act, NULL) < 0 ? -errno : 0;
}

void os_die_of(int signo) {
    signal(signo, SIG_DFL);
    raise(signo);
}
