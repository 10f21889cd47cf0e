/* Making copies; see copies.h. */
#include "ctl/copies.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "ctl/copy_options.h"
#include "ctl/thaw.h"

#define WORDS_OF_OURS 7

/* In the child, which has nothing to do with other copies. */
static void be_copy(const struct copy *c, unsigned n, int socket,
                    const struct copy_order *order) {
    static char named[] = "--name", daemon[] = "--daemon", api[] = "--api";
    /* Its own memory is to be little, unless somebody says so behind this. */
    static char bt[] = "--bt", cold[] = "warm=0";
    const int kept[] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, socket};
    char **argv = calloc((size_t)order->options + WORDS_OF_OURS + 1, sizeof(*argv));
    int count = 0;

    os_helper_keep(kept, ARRAY_SIZE(kept)); /* nor with the machine */
    prctl(PR_SET_NAME, "bivisor");          /* a machine like any other */
    if (!argv) {
        log_error("out of memory");
        _exit(1);
    }
    argv[count++] = named;
    argv[count++] = (char *)(uintptr_t)c->name;
    argv[count++] = daemon;
    argv[count++] = bt;
    argv[count++] = cold;
    if (c->api) {
        argv[count++] = api;
        argv[count++] = (char *)(uintptr_t)c->api;
    }
    memcpy(&argv[count], order->option, (size_t)order->options * sizeof(*argv));
    if (!copy_options_count(&argv[count], order->options, n)) {
        log_error("out of memory");
        _exit(1);
    }
    optind = 0; /* getopt(3) begins anew */
    exit(thaw(order->path, NULL, socket, count + order->options, argv, order->front));
}

bool copy_prepare(struct copy *copies, unsigned n, const struct copy_order *order) {
    struct copy *c = &copies[n];
    int ends[2] = {-1, -1};

    c->pid = -1;
    if (!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) {
        c->socket = ends[0];
        c->pid = fork();
    }
    if (!c->pid)
        be_copy(c, n, ends[1], order);
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
