/*
 * The socket device: its host's side (vsock/) lives on the machine's loop and takes the
 * board's lock.
 */
#include <errno.h>
#include <stdio.h>

#include "dev/virtio/vsock.h"
#include "machine/machine_int.h"
#include "machine/virtio.h"
#include "vsock/vsock.h"

_Static_assert(VSOCK_CONNECTIONS == VIRTIO_VSOCK_CONNECTIONS, "the same numbers");

/* --- from the guest; ARG is the host's side --- */

static bool on_connect(void *arg, unsigned n, uint32_t port) {
    return vsock_connect(arg, n, port);
}

static void on_opened(void *arg, unsigned n, bool ok, uint32_t port) {
    vsock_opened(arg, n, ok, port);
}

static size_t on_write(void *arg, unsigned n, const uint8_t *bytes, size_t len) {
    return vsock_write(arg, n, bytes, len);
}

static int on_read(void *arg, unsigned n, uint8_t *buf, size_t len) {
    return vsock_read(arg, n, buf, len);
}

static void on_end(void *arg, unsigned n) {
    vsock_end(arg, n);
}

static void on_close(void *arg, unsigned n) {
    vsock_forget(arg, n);
}

/* --- from outside; ARG is the device --- */

static int on_open(void *arg, uint32_t port) {
    return virtio_vsock_open(arg, port);
}

static void on_answer(void *arg, unsigned n, bool ok) {
    virtio_vsock_answer(arg, n, ok);
}

static void on_readable(void *arg, unsigned n) {
    virtio_vsock_readable(arg, n);
}

static void on_writable(void *arg, unsigned n) {
    virtio_vsock_writable(arg, n);
}

static void on_lost(void *arg, unsigned n) {
    virtio_vsock_lost(arg, n);
}

/* --- life --- */

static void free_vsock(void *dev) {
    virtio_vsock_free(dev);
}

static void record(void *dev, struct snapshot *s) {
    virtio_vsock_state(dev, s);
}

static void goes_on(void *dev) {
    virtio_device_go_on(virtio_vsock_device(dev));
}

int machine_make_virtio_vsock(struct machine *m, char *why, size_t why_size) {
    static const struct machine_device_ops ops = {
        .free = free_vsock, .name = "virtio-vsock", .state = record, .go_on = goes_on};
    const struct virtio_vsock_host host = {.connect = on_connect,
                                           .opened = on_opened,
                                           .write = on_write,
                                           .read = on_read,
                                           .end = on_end,
                                           .close = on_close,
                                           .arg = m->cfg.vsock};
    struct vsock_user user = {.open = on_open,
                              .answer = on_answer,
                              .readable = on_readable,
                              .writable = on_writable,
                              .lost = on_lost};
    struct virtio_vsock *v;

    if (!m->cfg.vsock)
        return 0;
    v = virtio_vsock_new(m->mem, m->clock, m->cfg.vsock_cid, &host, &m->counters);
    if (!v || machine_device_add(m, &ops, v)) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    user.arg = v;
    vsock_plug(m->cfg.vsock, &user);
    return machine_virtio_attach(m, virtio_vsock_device(v), why, why_size);
}

int machine_start_vsock(struct machine *m) {
    const struct vsock_guard guard = {machine_guard_enter, machine_guard_leave, m};

    return m->cfg.vsock ? vsock_start(m->cfg.vsock, m->loop, &guard) : 0;
}

void machine_stop_vsock(struct machine *m) {
    if (m->cfg.vsock)
        vsock_stop(m->cfg.vsock);
}
