/* A test's processes; see child.h. */
#include "lib/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/unit.h"

struct child_end child(void (*fn)(void *arg), void *arg) {
    struct child_end e = {0};
    size_t len = 0;
    ssize_t n;
    int fds[2];
    pid_t pid;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        dup2(fds[1], STDERR_FILENO);
        for (int s = 1; s < 32; s++)
            signal(s, SIG_DFL); /* cmocka's */
        fn(arg);
        _exit(CHILD_DONE);
    }
    close(fds[1]);
    while ((n = read(fds[0], e.text + len, sizeof(e.text) - 1 - len)) > 0)
        len += (size_t)n;
    close(fds[0]);
    assert_int_equal(waitpid(pid, &e.status, 0), pid);
    return e;
}

void assert_child_done(const struct child_end *e) {
    assert_string_equal(e->text, "");
    assert_true(WIFEXITED(e->status));
    assert_int_equal(WEXITSTATUS(e->status), CHILD_DONE);
}

void child_check(bool good, const char *what) {
    if (good)
        return;
    dprintf(STDERR_FILENO, "in the jail: %s: %s\n", what, strerror(errno));
    _exit(1);
}
