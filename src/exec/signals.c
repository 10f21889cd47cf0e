/* Signals as bytes; see signals.h. */
#include "exec/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

static int signal_pipe = -1;

static void on_signal(int signo) {
    int saved = errno;
    char byte = (char)signo;

    (void)!write(signal_pipe, &byte, 1);
    errno = saved;
}

int signals_catch(const int *signals, size_t count) {
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigaction old;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
        return -errno;
    signal_pipe = ends[1];
    signal(SIGPIPE, SIG_IGN);
    for (size_t n = 0; n < count; n++)
        if (!sigaction(signals[n], NULL, &old) && old.sa_handler != SIG_IGN)
            sigaction(signals[n], &sa, NULL);
    return ends[0];
}
