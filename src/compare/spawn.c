/* Runs another program; see spawn.h. */
#include "compare/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"

extern char **environ;

static int start(const char *const *argv, int out, pid_t *pid) {
    posix_spawn_file_actions_t fa;
    int rc = posix_spawn_file_actions_init(&fa);

    if (rc)
        return -rc;
    posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&fa, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&fa, out, STDERR_FILENO);
    rc = posix_spawnp(pid, argv[0], &fa, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    return -rc;
}

/* Until the end of the output, or the time is over (false). */
static bool take_output(int fd, uint64_t deadline, char *buf, size_t *len) {
    char spill[4096];

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        uint64_t now = os_monotonic_ns();
        size_t room = SPAWN_OUTPUT_MAX - *len;
        ssize_t n;

        if (now >= deadline)
            return false;
        if (poll(&p, 1, (int)((deadline - now) / 1000000 + 1)) <= 0)
            continue;
        n = room ? read(fd, buf + *len, room) : read(fd, spill, sizeof(spill));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return true;
        if (room)
            *len += (size_t)n;
    }
}

int spawn_run(const char *const *argv, double limit_seconds, struct spawn_result *r) {
    uint64_t begin = os_monotonic_ns();
    int fds[2], status = 0, rc;
    size_t len = 0;
    pid_t pid;

    *r = (struct spawn_result){.out = malloc(SPAWN_OUTPUT_MAX + 1)};
    if (!r->out)
        return -ENOMEM;
    if (pipe2(fds, O_CLOEXEC)) {
        rc = -errno;
        goto fail;
    }
    rc = start(argv, fds[1], &pid);
    close(fds[1]);
    if (rc) {
        close(fds[0]);
        goto fail;
    }
    r->timed_out =
        !take_output(fds[0], begin + (uint64_t)(limit_seconds * 1e9), r->out, &len);
    close(fds[0]);
    if (r->timed_out)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    r->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    r->seconds = (double)(os_monotonic_ns() - begin) * 1e-9;
    r->out[len] = 0;
    return 0;
fail:
    free(r->out);
    r->out = NULL;
    return rc;
}
