/*
 * A server of HTTP at a unix socket, on a loop's thread. Its clients come through another
 * process (gate.h). It hands requests to a function, one at a time of each client, and
 * knows nothing of what they are about.
 *
 * Clients are hostile: what one sends and what it is owed are bounded, and none of them
 * holds up another, or the loop.
 *
 * The server is opened before the jail and may go from one loop to another (from that of
 * the time before there is a machine to the machine's): clients stay connected.
 */
#ifndef API_SERVER_H
#define API_SERVER_H

#include "api/http.h"

struct gate;
struct os_loop;
struct api_server;

struct api_answer {
    int status;
    const char *type; /* of the body */
    char *body;       /* malloc()ed, the server's from now on; NULL: none */
    size_t len;
    uint64_t ticket; /* the request's number */
    bool later;      /* api_server_answer() will bring it */
};

typedef void api_handler(void *arg, const struct http_request *q, struct api_answer *a);

/* Bodies have BODY_MOST bytes at most. 0, or -errno with one sentence in WHY. Before
 * there are threads: it forks. */
int api_server_open(const char *path, size_t body_most, api_handler *handle, void *arg,
                    struct api_server **out, char *why, size_t why_size);
void api_server_close(struct api_server *s); /* S may be NULL */
struct gate *api_server_gate(const struct api_server *s);
/* 0 or -errno. */
int api_server_start(struct api_server *s, struct os_loop *loop);
void api_server_stop(struct api_server *s);
/* The answer of who waits for that of TICKET; nothing if that client has gone. Not from
 * the handler. */
void api_server_answer(struct api_server *s, uint64_t ticket, struct api_answer *a);

#endif
