/*
 * A stream of bytes to somewhere outside: a file, a pseudo-terminal, a unix socket. The
 * far end of a console's port. This room knows no device and no machine.
 *
 * A stream is opened before the jail, started on a machine's loop before it too, stopped
 * before the loop goes, and closed.
 *
 * Flow control goes both ways. What the other side does not take at once is left with the
 * caller of stream_write(), who hears by writable() when to try again; what the user does
 * not take is kept here, and nothing more is read, until stream_more(). Without another
 * side output is lost: a guest does not wait for somebody who may never come.
 *
 * Locking: the board's, as with net/: stream_write() and stream_more() are for whoever
 * has it; what happens on the loop's thread takes it by the guard, and calls the user
 * with it held. Nothing here waits, but for the disk that a file is on.
 */
#ifndef STREAM_STREAM_H
#define STREAM_STREAM_H

#include "base/types.h"

struct os_loop;
struct stream;

struct stream_user {
    /* LEN bytes have come: how many it takes. */
    size_t (*input)(void *arg, const uint8_t *bytes, size_t len);
    void (*writable)(void *arg);           /* after a write that was not taken whole */
    void (*connected)(void *arg, bool on); /* there is another side, or none any more */
    void (*resized)(void *arg, uint16_t columns, uint16_t rows); /* of a terminal */
    void *arg;
};

struct stream_guard {
    void (*enter)(void *arg);
    void (*leave)(void *arg);
    void *arg;
};

/* HOW is "pty", "file=PATH" (output only) or "socket=PATH" (one client at a time). 0, or
 * -errno with one sentence in WHY. Before there are threads: sockets make a process. */
int stream_open(const char *how, struct stream **out, char *why, size_t why_size);
/* S may be NULL. */
void stream_close(struct stream *s);
/* What os_jail_enter() must know of, or -1. */
int stream_listener(const struct stream *s);
/* The path of a pseudo-terminal's other side, or NULL. */
const char *stream_terminal(const struct stream *s);

/* Whose it is, before it is started. */
void stream_plug(struct stream *s, const struct stream_user *user);
/* 0 or -errno. Calls back from now on. */
int stream_start(struct stream *s, struct os_loop *loop,
                 const struct stream_guard *guard);
void stream_stop(struct stream *s);

/* How many of LEN bytes the other side takes now. */
size_t stream_write(struct stream *s, const uint8_t *bytes, size_t len);
/* The user takes input again. */
void stream_more(struct stream *s);

#endif
