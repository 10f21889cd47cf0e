/*
 * Going on in the background; see daemon.h. Standard error of the new process is a pipe
 * to the old one, which copies it: so when the old one has ended nobody holds a
 * descriptor of the caller's, not even a helper, and a shell that collects output does
 * not wait. Writing to that pipe fails then; SIGPIPE is ignored.
 */
#include "ctl/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/ctl.h"

struct pipes {
    int ready[2], text[2];
};

static bool make_pipes(struct pipes *p) {
    if (pipe2(p->ready, O_CLOEXEC))
        return false;
    if (!pipe2(p->text, O_CLOEXEC))
        return true;
    close(p->ready[0]);
    close(p->ready[1]);
    return false;
}

/* False: nothing more will come, or nothing is there now. */
static bool copy(int fd) {
    char bytes[4096];
    ssize_t n = read(fd, bytes, sizeof(bytes));

    if (n > 0)
        (void)!write(STDERR_FILENO, bytes, (size_t)n);
    return n > 0 || (n < 0 && errno == EINTR);
}

static int status_of(pid_t child) {
    int status;

    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return CTL_HOST_FAILURE;
    return WIFEXITED(status) ? WEXITSTATUS(status) : CTL_HOST_FAILURE;
}

/* Both pipes: who is ready has said what it had to say before. */
static int wait_for(pid_t child, const struct pipes *p) {
    struct pollfd f[] = {{.fd = p->ready[0], .events = POLLIN},
                         {.fd = p->text[0], .events = POLLIN}};
    char byte;
    ssize_t n;

    for (;;) {
        if (poll(f, ARRAY_SIZE(f), -1) < 0 && errno != EINTR)
            return CTL_HOST_FAILURE;
        if (f[1].revents & POLLIN)
            copy(p->text[0]);
        else if (f[1].revents)
            f[1].fd = -1;
        if (f[0].revents)
            break;
    }
    do
        n = read(p->ready[0], &byte, 1);
    while (n < 0 && errno == EINTR);
    fcntl(p->text[0], F_SETFL, O_NONBLOCK);
    while (copy(p->text[0]))
        ;
    return n == 1 ? CTL_OK : status_of(child);
}

static int be_daemon(const struct pipes *p) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    setsid();
    signal(SIGPIPE, SIG_IGN);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
        dup2(p->text[1], STDERR_FILENO) < 0)
        return -errno;
    close(null);
    close(p->text[1]);
    close(p->text[0]);
    close(p->ready[0]);
    return 0;
}

int daemon_start(const char *option, int *ready) {
    struct pipes p;
    pid_t child;

    if (!make_pipes(&p) || (child = fork()) < 0) {
        log_error("%s: %s", option, strerror(errno));
        return CTL_HOST_FAILURE;
    }
    if (child) {
        close(p.ready[1]);
        close(p.text[1]);
        return wait_for(child, &p);
    }
    if (be_daemon(&p)) {
        log_error("%s: %s", option, strerror(errno));
        return CTL_HOST_FAILURE;
    }
    *ready = p.ready[1];
    return -1;
}

bool daemon_ready(int *ready) {
    bool waits = *ready < 0 || write(*ready, "", 1) == 1;

    if (*ready >= 0)
        close(*ready);
    *ready = -1;
    return waits;
}
