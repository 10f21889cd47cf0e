/* In the place of slirp.c where libslirp is missing: there is no user network. */
#ifndef HAVE_LIBSLIRP
#include <errno.h>

#include "net/net_int.h"

int net_slirp_new(const struct net_config *cfg, int fd, int orders,
                  struct net_slirp **out, int *forward) {
    *out = NULL;
    *forward = -1;
    return -ENOSYS;
}

void net_slirp_run(struct net_slirp *s) {
}

void net_slirp_free(struct net_slirp *s) {
}

#endif
