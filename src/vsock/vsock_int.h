/* Inside vsock/: the process that connects. */
#ifndef VSOCK_INT_H
#define VSOCK_INT_H

#include "base/jail.h"
#include "base/types.h"

struct connector {
    int fd; /* a socket to the process */
};

/* Forks it: it connects to PATH_PORT for whoever asks. 0 or -errno. */
int connector_open(struct connector *c, const char *path, enum jail_want jail);
void connector_close(struct connector *c);
/* Asks for a connection; TOKEN comes back with the answer. False: it cannot be asked, or
 * has too much to do. */
bool connector_ask(struct connector *c, uint32_t token, uint32_t port);
/* Takes an answer: 0, and in *FD a socket, or -1: nobody is there. -EAGAIN: there is none
 * yet; -EPIPE: the process has ended. */
int connector_take(struct connector *c, uint32_t *token, int *fd);

#endif
