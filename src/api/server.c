/*
 * Clients of the API; see server.h. A client is a buffer for one request and one for the
 * answer to it: no more is read while the answer is not gone. The loop's thread has all.
 */
#include "api/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/gate.h"
#include "base/log.h"
#include "base/os.h"
#include "base/os_loop.h"

#define CLIENTS 32u

struct client {
    struct api_server *server;
    struct os_watch watch;
    int fd;
    bool ended;   /* it sends no more */
    bool leaving; /* when it has its answer */
    bool lost;    /* what it sends cannot be read any more, and is thrown away */
    bool told;    /* that it may send the body */
    bool waits;   /* its answer comes later */
    uint64_t ticket;
    char *out;
    size_t out_len, out_at, in_len;
    char in[]; /* as much as a request may have */
};

struct api_server {
    struct gate *gate;
    struct os_loop *loop;
    struct os_watch door;
    struct os_task more; /* requests have been read that are not answered yet */
    api_handler *handle;
    void *arg;
    uint64_t tickets;
    size_t body_most; /* bytes of a request's */
    struct client *clients[CLIENTS];
};

/* Bytes of a whole request. */
static size_t room_of(const struct api_server *s) {
    return HTTP_HEAD_MAX + s->body_most;
}

static void leave(struct client *k) {
    if (!k)
        return;
    for (unsigned n = 0; n < CLIENTS; n++)
        if (k->server->clients[n] == k)
            k->server->clients[n] = NULL;
    if (k->server->door.loop)
        os_watch_events(&k->server->door, OS_READ);
    os_watch_stop(&k->watch);
    os_socket_close(k->fd);
    free(k->out);
    free(k);
}

/* --- answers --- */

/* False: the client is gone. */
static bool send_out(struct client *k) {
    if (os_socket_write_rest(k->fd, k->out, k->out_len, &k->out_at)) {
        leave(k);
        return false;
    }
    if (k->out_at < k->out_len)
        return true;
    free(k->out);
    k->out = NULL;
    k->out_len = k->out_at = 0;
    if (!k->leaving)
        return true;
    if (k->lost && !k->ended && !os_socket_end(k->fd)) {
        k->in_len = 0;
        os_watch_events(&k->watch, OS_READ);
        return true;
    }
    leave(k);
    return false;
}

/* False: the client is gone. */
static bool give(struct client *k, struct api_answer *a, bool keep) {
    size_t len = a->body ? a->len : 0;
    char head[512];
    size_t head_len = http_head(head, sizeof(head), a->status, a->type, len, "", keep);
    char *out = malloc(head_len + len);

    if (!out) {
        log_warn("--api: a client is left: there is no memory for its answer");
        free(a->body);
        leave(k);
        return false;
    }
    memcpy(out, head, head_len);
    if (len)
        memcpy(out + head_len, a->body, len);
    free(a->body);
    a->body = NULL;
    k->out = out;
    k->out_len = head_len + len;
    k->out_at = 0;
    k->leaving = !keep;
    return send_out(k);
}

static bool refuse(struct client *k, int status, const char *why) {
    struct api_answer a = {.status = status, .type = "application/json"};
    int len = asprintf(&a.body, "{\"fault_message\":\"%s\"}", why);

    if (len < 0)
        a.body = NULL;
    a.len = len < 0 ? 0 : (size_t)len;
    /* Who is left while it sends would lose the answer. */
    k->lost = true;
    return give(k, &a, false);
}

/* --- requests --- */

static bool tell_to_go_on(struct client *k) {
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

    k->told = true;
    if (os_socket_write(k->fd, go_on, sizeof(go_on) - 1) == sizeof(go_on) - 1)
        return true;
    leave(k); /* it has read nothing yet, so there was room */
    return false;
}

static bool answer_whole(struct client *k, const struct http_request *q) {
    struct api_answer a = {.status = 500, .type = "application/json"};
    bool keep = q->keep;
    size_t size = q->size;

    a.ticket = k->ticket = ++k->server->tickets;
    k->server->handle(k->server->arg, q, &a);
    k->in_len -= size;
    memmove(k->in, k->in + size, k->in_len);
    k->told = false;
    k->waits = a.later;
    k->leaving = !keep;
    return a.later || give(k, &a, keep);
}

/* Answers at most one request. False: the client is gone. */
static bool answer_one(struct client *k) {
    struct http_request q;
    const char *why;
    int status;

    if (k->out || k->waits || !k->in_len)
        return true;
    switch (http_parse(k->in, k->in_len, k->server->body_most, &q, &why, &status)) {
    case HTTP_BAD:
        return refuse(k, status, why);
    case HTTP_WHOLE:
        return answer_whole(k, &q);
    default:
        return !q.expects || !q.size || k->told || tell_to_go_on(k);
    }
}

static bool has_more(const struct client *k) {
    return k->in_len && !k->out && !k->waits;
}

static void serve(struct client *k) {
    size_t before = k->in_len;
    unsigned events;

    if (!answer_one(k))
        return;
    if (k->ended && !k->out && !k->waits && (!k->in_len || before == k->in_len)) {
        leave(k); /* what is left has no end */
        return;
    }
    events = k->out ? OS_WRITE : 0;
    if (!k->out && !k->waits && !k->ended && k->in_len < room_of(k->server))
        events |= OS_READ;
    os_watch_events(&k->watch, events);
    if (has_more(k) && before != k->in_len)
        os_task_post(&k->server->more, k->server->loop);
}

/* False: the client is gone. */
static bool receive(struct client *k) {
    int n = os_socket_read(k->fd, k->in + k->in_len, room_of(k->server) - k->in_len);

    if (n < 0 && n != -EAGAIN && n != -EINTR) {
        leave(k);
        return false;
    }
    k->ended |= n == 0;
    if (k->lost && n >= 0) {
        if (k->ended)
            leave(k);
        return !k->ended;
    }
    k->in_len += n > 0 ? (size_t)n : 0;
    return true;
}

static void on_client(void *arg, unsigned ready) {
    struct client *k = arg;

    if ((ready & OS_WRITE) && !send_out(k))
        return;
    if ((ready & OS_READ) && !receive(k))
        return;
    if (!k->lost || k->out)
        serve(k);
}

static void on_more(void *arg) {
    struct api_server *s = arg;

    for (unsigned n = 0; n < CLIENTS; n++)
        if (s->clients[n] && has_more(s->clients[n]))
            serve(s->clients[n]);
}

void api_server_answer(struct api_server *s, uint64_t ticket, struct api_answer *a) {
    for (unsigned n = 0; n < CLIENTS; n++) {
        struct client *k = s->clients[n];

        if (!k || !k->waits || k->ticket != ticket)
            continue;
        k->waits = false;
        if (give(k, a, !k->leaving) && s->loop)
            serve(k);
        return;
    }
    free(a->body);
    a->body = NULL;
}

/* --- coming --- */

static void on_door(void *arg, unsigned ready) {
    struct api_server *s = arg;
    struct client **place = NULL, *k;
    int fd = gate_accept(s->gate);

    for (unsigned n = 0; n < CLIENTS && !place; n++)
        if (!s->clients[n])
            place = &s->clients[n];
    for (unsigned n = 0; n < CLIENTS && !place; n++)
        if (s->clients[n]->lost) {
            leave(s->clients[n]);
            place = &s->clients[n];
        }
    if (fd < 0) {
        if (fd != -EAGAIN && fd != -EINTR && fd != -ECONNABORTED)
            os_watch_events(&s->door, 0); /* until somebody leaves */
        if (fd == -EPIPE)
            log_warn("--api: the process that passes on what clients say has ended");
        return;
    }
    k = place ? calloc(1, sizeof(*k) + room_of(s)) : NULL;
    if (!k || os_watch_start(&k->watch, s->loop, fd, OS_READ, on_client, k)) {
        free(k);
        os_socket_close(fd);
        return;
    }
    k->server = s;
    k->fd = fd;
    *place = k;
}

/* --- the socket --- */

int api_server_open(const char *path, size_t body_most, api_handler *handle, void *arg,
                    struct api_server **out, char *why, size_t why_size) {
    struct api_server *s = calloc(1, sizeof(*s));
    int rc = s ? gate_open(path, body_most, &s->gate, why, why_size) : -ENOMEM;

    if (!s)
        snprintf(why, why_size, "out of memory");
    if (rc) {
        free(s);
        return rc;
    }
    s->body_most = body_most;
    s->handle = handle;
    s->arg = arg;
    s->more = (struct os_task){.fn = on_more, .arg = s};
    *out = s;
    return 0;
}

struct gate *api_server_gate(const struct api_server *s) {
    return s->gate;
}

int api_server_start(struct api_server *s, struct os_loop *loop) {
    int rc = os_watch_start(&s->door, loop, gate_listener(s->gate), OS_READ, on_door, s);

    if (rc)
        return rc;
    s->loop = loop;
    s->more.posted = false; /* on a loop that is gone */
    for (unsigned n = 0; n < CLIENTS && !rc; n++) {
        struct client *k = s->clients[n];
        unsigned events = k && k->out ? OS_WRITE : k && !k->waits ? OS_READ : 0;

        if (k)
            rc = os_watch_start(&k->watch, loop, k->fd, events, on_client, k);
    }
    os_task_post(&s->more, loop);
    return rc;
}

void api_server_stop(struct api_server *s) {
    os_watch_stop(&s->door);
    for (unsigned n = 0; n < CLIENTS; n++)
        if (s->clients[n])
            os_watch_stop(&s->clients[n]->watch);
    s->loop = NULL;
}

void api_server_close(struct api_server *s) {
    if (!s)
        return;
    api_server_stop(s);
    for (unsigned n = 0; n < CLIENTS; n++)
        leave(s->clients[n]);
    gate_close(s->gate);
    free(s);
}
