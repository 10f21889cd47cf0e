/*
 * A stream of bytes to somewhere outside: a file, a pseudo-terminal, a socket, or
 * whoever has this process's standard input and output. The far end of a console's port
 * or a serial port. This room knows no device and no machine.
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

/* HOW is "pty", "file=PATH" (output only), "socket=WHERE", at which one client at a time
 * is connected, "connect=WHERE", which is connected to now (both as os_endpoint_listen()
 * has it), "null", "fd=N", a connected socket that this process has, or "stdio", whose
 * other side stream_lend() brings. 0, or -errno with one sentence in WHY. Before there
 * are threads: sockets make a process. */
int stream_open(const char *how, struct stream **out, char *why, size_t why_size);
/* The file that HOW names, which will be written from its beginning; NULL: none, or one
 * of this process's own descriptors. */
const char *stream_file(const char *how);
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

/* --- "stdio": the other side is in this process --- */

/* Called by the stream's users, with the lock. */
struct stream_lender {
    /* How many of LEN bytes are taken; for the others, stream_lender_ready(). */
    size_t (*write)(void *arg, const uint8_t *bytes, size_t len);
    void (*more)(void *arg); /* stream_lender_input() may be called again */
    void *arg;
};

bool stream_is_lent(const struct stream *s);
/* Before it is started. */
void stream_lend(struct stream *s, const struct stream_lender *lender);
/* On the loop's thread, without the lock. How many of LEN bytes the user took. */
size_t stream_lender_input(struct stream *s, const uint8_t *bytes, size_t len);
/* Output is taken again. */
void stream_lender_ready(struct stream *s);
/* There will be no more input; output goes on. */
void stream_lender_ended(struct stream *s);

/* How many of LEN bytes the other side takes now. */
size_t stream_write(struct stream *s, const uint8_t *bytes, size_t len);
/* The user takes input again. */
void stream_more(struct stream *s);

#endif
