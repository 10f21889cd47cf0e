/* Making copies; see copies.h. */
#include "ctl/copies.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "ctl/thaw.h"

/* In the child, which has nothing to do with other copies. */
static void be_copy(const struct copy *copies, unsigned n, int socket, const char *path,
                    char **option, int options) {
    static char named[] = "--name", daemon[] = "--daemon";
    char **argv = calloc((size_t)options + 4, sizeof(*argv));

    for (unsigned k = 0; k <= n; k++)
        if (copies[k].socket >= 0)
            close(copies[k].socket);
    if (!argv) {
        log_error("out of memory");
        _exit(1);
    }
    argv[0] = named;
    argv[1] = (char *)(uintptr_t)copies[n].name;
    argv[2] = daemon;
    memcpy(&argv[3], option, (size_t)options * sizeof(*argv));
    exit(thaw(path, socket, options + 3, argv, NULL));
}

bool copy_prepare(struct copy *copies, unsigned n, const char *path, char **option,
                  int options) {
    struct copy *c = &copies[n];
    int ends[2] = {-1, -1};

    c->pid = -1;
    if (!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) {
        c->socket = ends[0];
        c->pid = fork();
    }
    if (!c->pid)
        be_copy(copies, n, ends[1], path, option, options);
    if (c->pid < 0)
        log_error("cannot start '%s': %s", c->name, strerror(errno));
    if (ends[1] >= 0)
        close(ends[1]);
    return c->pid > 0;
}

bool copy_hear(const struct copy *c, enum copy_word word) {
    uint32_t heard = 0;
    ssize_t n;

    do
        n = read(c->socket, &heard, sizeof(heard));
    while (n < 0 && errno == EINTR);
    return n == sizeof(heard) && heard == word;
}

bool copy_tell(const struct copy *c, int state, int ram) {
    return os_socket_hand(c->socket, 0, state) && os_socket_hand(c->socket, 0, ram);
}

bool copy_end(struct copy *c) {
    int status = -1;

    if (c->socket >= 0)
        close(c->socket);
    c->socket = -1;
    if (c->pid <= 0)
        return false;
    while (waitpid(c->pid, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    if (!WIFEXITED(status))
        log_error("'%s' has been killed", c->name);
    return WIFEXITED(status) && !WEXITSTATUS(status);
}
