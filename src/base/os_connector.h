/*
 * A process that connects to sockets for one that may not. Asked for a connection it
 * answers with a message of os_socket_hand()'s kind.
 */
#ifndef BASE_OS_CONNECTOR_H
#define BASE_OS_CONNECTOR_H

#include "base/jail.h"
#include "base/types.h"

/* To what: DIAL makes a connection to what is known as NUMBER at TO, with sockets of
 * FAMILY; it returns a descriptor or -1, and runs in the process, within its jail. */
struct os_dial {
    int (*dial)(const void *to, uint32_t number);
    const void *to;
    int family;
};

/* Forks it: a socket, for os_socket_close(), or -errno. Nothing of HOW is kept here. */
int os_connector_open(const struct os_dial *how, enum jail_want jail);
/* TOKEN comes back with the answer (os_socket_handed()). Does not wait, as a guest can
 * ask faster than anybody connects. False: the process has too much to do, or has ended.
 */
bool os_connector_ask(int connector, uint32_t token, uint32_t number);

#endif
