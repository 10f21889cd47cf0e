/*
 * The host's side of a guest's socket device: unix sockets, as Firecracker has them.
 *
 * Who connects to PATH and sends "CONNECT PORT\n" is connected to that port of the guest
 * (and told "OK HOSTPORT\n"). What the guest connects to, port PORT of its host, is the
 * socket PATH_PORT. This room knows no device and no machine: connections have numbers,
 * which the device gives.
 *
 * It is opened before the jail and before there are threads, started on a machine's loop,
 * stopped before that goes, and closed. The jail lets nobody connect: a process that is
 * forked when this is opened does, and hands the socket over (connector.c).
 *
 * Locking: the board's, as with net/ and stream/: the functions from vsock_connect() on
 * are for whoever has it, and the user is called with it held. Nothing here waits.
 */
#ifndef VSOCK_VSOCK_H
#define VSOCK_VSOCK_H

#include "base/jail.h"
#include "base/types.h"

struct os_loop;
struct vsock;

#define VSOCK_CONNECTIONS 128u

/* The device. */
struct vsock_user {
    int (*open)(void *arg, uint32_t port); /* a number, or -1 */
    void (*answer)(void *arg, unsigned n, bool ok);
    void (*readable)(void *arg, unsigned n);
    void (*writable)(void *arg, unsigned n);
    void (*lost)(void *arg, unsigned n);
    void *arg;
};

struct vsock_guard {
    void (*enter)(void *arg);
    void (*leave)(void *arg);
    void *arg;
};

/* JAIL is for the process that connects. 0, or -errno with one sentence in WHY. */
int vsock_open(const char *path, enum jail_want jail, struct vsock **out, char *why,
               size_t why_size);
void vsock_close(struct vsock *v); /* V may be NULL */
/* What os_jail_enter() must know of: where clients come, and the process that connects.
 */
int vsock_listener(const struct vsock *v);
int vsock_connector(const struct vsock *v);

void vsock_plug(struct vsock *v, const struct vsock_user *user);
int vsock_start(struct vsock *v, struct os_loop *loop, const struct vsock_guard *guard);
void vsock_stop(struct vsock *v);

/* For who is in this process and wants to be connected as by PATH: GOT(ARG, FD) is called
 * later, on the loop's thread, without the lock; FD is the callee's, or -1. 0 or -errno:
 * it will not be called. On the loop's thread. */
int vsock_dial(struct vsock *v, void (*got)(void *arg, int fd), void *arg);

/* --- what the device does with connection N --- */

/* answer() comes later, and never from in here. False: nobody can be asked, and N is not
 * known. */
bool vsock_connect(struct vsock *v, unsigned n, uint32_t port);
/* The guest's answer to what open() asked. Not OK: N is forgotten. */
void vsock_opened(struct vsock *v, unsigned n, bool ok, uint32_t port);
size_t vsock_write(struct vsock *v, unsigned n, const uint8_t *bytes, size_t len);
/* 0: nothing now, readable() will come; -1: the end. */
int vsock_read(struct vsock *v, unsigned n, uint8_t *buf, size_t len);
void vsock_end(struct vsock *v, unsigned n);    /* no more is written */
void vsock_forget(struct vsock *v, unsigned n); /* N is closed */

#endif
