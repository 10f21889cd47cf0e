/*
 * A command in a guest, on a loop; see remote.h. Two buffers: what is still to be sent,
 * which has the whole order and as much of the input as the guest has asked for, and what
 * has come and is no whole piece yet.
 */
#include "exec/remote.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/os_loop.h"
#include "exec/agent.h"
#include "exec/pieces.h"

struct text {
    char *bytes;
    size_t len, size;
    bool cut;
};

struct exec_remote {
    struct os_watch watch;
    int fd;
    void (*done)(void *arg, const struct exec_remote_end *end);
    void *arg;
    struct pieces to;
    struct text unsent; /* from SENT on */
    size_t sent;
    char *input;
    size_t input_len, input_at;
    uint32_t window;
    bool failed;    /* there was no memory */
    bool connected; /* the guest has said OK */
    bool eof_sent;
    struct text out[2];
    size_t got;
    uint8_t piece[PIECE_HEAD + AGENT_PIECE];
};

/* Behind what is there, up to MOST in all. False: there is no memory. */
static bool append(struct text *t, const void *bytes, size_t len, size_t most) {
    size_t size = t->size;

    if (len > most - t->len) {
        len = most - t->len;
        t->cut = true;
    }
    while (t->len + len > size)
        size = size ? 2 * size : 4096;
    if (size > t->size) {
        char *more = realloc(t->bytes, size);

        if (!more)
            return false;
        t->bytes = more;
        t->size = size;
    }
    if (len)
        memcpy(t->bytes + t->len, bytes, len);
    t->len += len;
    return true;
}

static void put(void *arg, const void *bytes, size_t len) {
    struct exec_remote *r = arg;

    r->failed |= !append(&r->unsent, bytes, len, SIZE_MAX);
}

void exec_remote_stop(struct exec_remote *r) {
    os_watch_stop(&r->watch);
    os_socket_close(r->fd);
    free(r->unsent.bytes);
    free(r->input);
    for (unsigned n = 0; n < 2; n++)
        free(r->out[n].bytes);
    free(r);
}

static void finish(struct exec_remote *r, unsigned status, const char *why) {
    const struct exec_remote_end end = {
        .why = why,
        .status = status,
        .out = {r->out[0].bytes, r->out[0].len, r->out[0].cut},
        .err = {r->out[1].bytes, r->out[1].len, r->out[1].cut}};

    r->done(r->arg, &end);
    exec_remote_stop(r);
}

/* --- to the guest --- */

static void put_input(struct exec_remote *r) {
    size_t len = r->input_len - r->input_at;

    if (len > r->window)
        len = r->window;
    while (len) {
        size_t n = len < AGENT_PIECE ? len : AGENT_PIECE;

        pieces_put(&r->to, 'i', r->input + r->input_at, n);
        r->input_at += n;
        r->window -= (uint32_t)n;
        len -= n;
    }
    if (r->input_at == r->input_len && !r->eof_sent) {
        r->eof_sent = true;
        pieces_put(&r->to, 'e', NULL, 0);
    }
}

/* False: nobody reads. */
static bool send_out(struct exec_remote *r) {
    if (os_socket_write_rest(r->fd, r->unsent.bytes, r->unsent.len, &r->sent))
        return false;
    if (r->sent == r->unsent.len)
        r->sent = r->unsent.len = 0;
    return true;
}

/* --- from the guest --- */

/* The line that answers CONNECT: its length; 0: it is not all here; -1: it is no OK. */
static int look_at_line(const struct exec_remote *r) {
    const uint8_t *end = memchr(r->piece, '\n', r->got);

    if (!end)
        return r->got < 32 ? 0 : -1;
    return r->got >= 3 && !memcmp(r->piece, "OK ", 3) ? (int)(end - r->piece) + 1 : -1;
}

/* False: R is gone. */
static bool take_piece(struct exec_remote *r, size_t len) {
    const uint8_t *bytes = r->piece + PIECE_HEAD;
    uint32_t number = len == 4 ? pieces_get32(bytes) : 0;

    switch (r->piece[0]) {
    case 'o':
    case 'r':
        r->failed |= !append(&r->out[r->piece[0] == 'r'], bytes, len, EXEC_REMOTE_OUTPUT);
        return true;
    case 'a':
        r->window += number <= AGENT_WINDOW - r->window ? number : 0;
        put_input(r);
        return true;
    case 'm':
        append(&r->out[1], bytes, len, EXEC_REMOTE_OUTPUT);
        append(&r->out[1], "\n", 1, EXEC_REMOTE_OUTPUT);
        return true;
    case 'x':
        finish(r, number & 0xff, r->failed ? "out of memory" : NULL);
        return false;
    default: /* of a newer agent */
        return true;
    }
}

static void drop_front(struct exec_remote *r, size_t len) {
    r->got -= len;
    memmove(r->piece, r->piece + len, r->got);
}

/* False: R is gone. */
static bool take_all(struct exec_remote *r) {
    if (!r->connected) {
        int len = look_at_line(r);

        if (len < 0)
            finish(r, 0, "nobody answers in the guest: it has no agent");
        if (len <= 0)
            return len == 0;
        r->connected = true;
        drop_front(r, (size_t)len);
    }
    while (r->got >= PIECE_HEAD) {
        size_t len = pieces_get32(r->piece + 1);

        if (len > AGENT_PIECE) {
            finish(r, 0, "what answers in the guest is no agent");
            return false;
        }
        if (r->got < PIECE_HEAD + len)
            return true;
        if (!take_piece(r, len))
            return false;
        drop_front(r, PIECE_HEAD + len);
    }
    return true;
}

/* False: R is gone. */
static bool receive(struct exec_remote *r) {
    int n = os_socket_read(r->fd, r->piece + r->got, sizeof(r->piece) - r->got);

    if (n == -EAGAIN || n == -EINTR)
        return true;
    if (n <= 0) {
        finish(r, 0,
               r->connected ? "the guest's agent has ended"
                            : "nobody answers in the guest: it has no agent");
        return false;
    }
    r->got += (size_t)n;
    return take_all(r);
}

static void on_ready(void *arg, unsigned ready) {
    struct exec_remote *r = arg;

    if (ready & OS_READ && !receive(r))
        return;
    if (!send_out(r)) {
        finish(r, 0, "the guest's agent has ended");
        return;
    }
    os_watch_events(&r->watch, OS_READ | (r->sent < r->unsent.len ? OS_WRITE : 0));
}

struct exec_remote *
exec_remote_start(struct os_loop *loop, int fd, const struct exec_order *o,
                  void (*done)(void *arg, const struct exec_remote_end *end), void *arg) {
    struct exec_remote *r = calloc(1, sizeof(*r));
    char line[32];
    int len = snprintf(line, sizeof(line), "CONNECT %d\n", AGENT_PORT);

    if (!r) {
        os_socket_close(fd);
        return NULL;
    }
    r->fd = fd;
    r->done = done;
    r->arg = arg;
    r->to = (struct pieces){put, r};
    r->window = AGENT_WINDOW;
    r->input_len = o->input_len;
    r->input = malloc(o->input_len + 1);
    if (r->input && o->input_len)
        memcpy(r->input, o->input, o->input_len);
    put(r, line, (size_t)len);
    pieces_command(&r->to, &o->command, o->uid, o->gid);
    put_input(r);
    if (!r->input || r->failed ||
        os_watch_start(&r->watch, loop, fd, OS_READ | OS_WRITE, on_ready, r)) {
        exec_remote_stop(r);
        return NULL;
    }
    return r;
}
