/*
 * A server inside a network: an address of IPv4 that answers ARP and, at one port, TCP by
 * itself, whoever is at the other end of the cable, or nobody. Frames for that address go
 * no further, and need no network of the host's.
 *
 * Frames that the card sends are put aside on its thread, and looked at on the loop's;
 * there requests are answered, too. Locking: as in net.h.
 */
#ifndef NET_SERVICE_H
#define NET_SERVICE_H

#include "net/net.h"

#define NET_SERVICE_REQUEST 10240u /* bytes of one, at most */

struct net_service_answer {
    char *bytes; /* malloc()ed, the service's from now on; NULL: the client is left */
    size_t len;
    bool close; /* nothing more is answered */
};

struct net_service_user {
    /* BYTES are what a client has sent, and were not taken yet: how many of the LEN are a
     * request, to which *A is the answer; 0: more has to come. On the loop's thread. */
    size_t (*request)(void *arg, const char *bytes, size_t len,
                      struct net_service_answer *a);
    void *arg;
};

/* N has it at ADDRESS and PORT from now on, until net_close(); before net_start(), and
 * once. 0 or -ENOMEM. */
int net_serve(struct net *n, const uint8_t address[4], uint16_t port,
              const struct net_service_user *user);

/* --- for card.c --- */

struct net_service;

int net_service_new(const uint8_t address[4], uint16_t port,
                    const struct net_service_user *user, struct net_service **out);
void net_service_free(struct net_service *s); /* S may be NULL */
/* Is the frame the service's? It is taken then, or lost where too many wait. */
bool net_service_take(struct net_service *s, const struct net_offload *off,
                      const struct net_piece *piece, unsigned count, size_t len);
/* On the loop's thread: looks at what has been taken. */
void net_service_look(struct net_service *s, uint64_t now);
/* A frame for the card, which stays where it is until the next call: its length; 0: there
 * is none now. */
size_t net_service_next(struct net_service *s, uint8_t **frame, uint64_t now);
/* When there may be one, if nothing comes; UINT64_MAX: never. */
uint64_t net_service_when(const struct net_service *s);

#endif
