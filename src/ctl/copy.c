/* The side of the copy, in its jail; see copy.h. */
#include "ctl/copy.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"

static int hear_descriptor(int socket, int *fd) {
    struct pollfd p = {.fd = socket, .events = POLLIN};
    uint32_t word;
    int rc;

    do {
        if (poll(&p, 1, -1) < 0)
            return -errno; /* a signal that ends the run */
        rc = os_socket_handed(socket, &word, fd);
    } while (rc == -EAGAIN);
    return !rc && *fd < 0 ? -EPIPE : rc;
}

static int read_rest(const struct chain_link *base, struct copy_rest *rest, size_t len,
                     char *why, size_t why_size) {
    rest->state = snapshot_open(rest->bytes, len, why, why_size);
    if (!rest->state)
        return -EINVAL;
    snprintf(why, why_size, "its snapshot is not one of what has changed");
    if (!freeze_increment(rest->state, &rest->increment) || !rest->increment.there)
        return -EINVAL;
    snprintf(why, why_size, "others were copied from the machine at the same time");
    return base->named && !memcmp(base->id, rest->increment.base_id, FREEZE_ID) ? 0
                                                                                : -EINVAL;
}

int copy_wait(int socket, const struct chain_link *base, struct copy_rest *rest,
              char *why, size_t why_size) {
    uint32_t word = COPY_WAITS;
    size_t len = 0;
    int state = -1, rc;

    *rest = (struct copy_rest){.ram = -1};
    rc = write(socket, &word, sizeof(word)) == sizeof(word) ? 0 : -EPIPE;
    if (!rc)
        rc = hear_descriptor(socket, &state);
    if (!rc)
        rc = hear_descriptor(socket, &rest->ram);
    if (!rc)
        rc = chain_read_fd(state, &rest->bytes, &len);
    if (state >= 0)
        close(state);
    if (!rc)
        return read_rest(base, rest, len, why, why_size);
    snprintf(why, why_size, "%s",
             rc == -EPIPE ? "nobody waits for it any more" : strerror(-rc));
    return rc;
}

void copy_rest_free(struct copy_rest *rest) {
    if (rest->ram >= 0)
        close(rest->ram);
    snapshot_free(rest->state);
    free(rest->increment.run);
    free(rest->bytes);
}

void copy_runs(int *socket) {
    uint32_t word = COPY_RUNS;

    (void)!write(*socket, &word, sizeof(word)); /* who asked may be gone */
    close(*socket);
    *socket = -1;
}
