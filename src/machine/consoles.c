/*
 * The virtio console: its ports' far ends are streams (stream/), which live on the
 * machine's loop and take the board's lock.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dev/virtio/console.h"
#include "machine/machine_int.h"
#include "machine/virtio.h"
#include "stream/stream.h"

_Static_assert(MACHINE_CONSOLES <= VIRTIO_CONSOLE_PORTS, "a port for each");

/* A port, as its stream knows it. */
struct port {
    struct virtio_console *console;
    unsigned n;
};

struct consoles {
    struct machine *m;
    struct virtio_console *console;
    struct port port[MACHINE_CONSOLES];
};

/* --- from the guest --- */

static size_t write_port(void *arg, unsigned port, const uint8_t *bytes, size_t len) {
    struct consoles *c = arg;

    return stream_write(c->m->cfg.consoles[port].stream, bytes, len);
}

static void port_has_room(void *arg, unsigned port) {
    struct consoles *c = arg;

    stream_more(c->m->cfg.consoles[port].stream);
}

/* --- from outside --- */

static size_t on_input(void *arg, const uint8_t *bytes, size_t len) {
    struct port *p = arg;

    return virtio_console_input(p->console, p->n, bytes, len);
}

static void on_writable(void *arg) {
    struct port *p = arg;

    virtio_console_writable(p->console, p->n);
}

static void on_connected(void *arg, bool on) {
    struct port *p = arg;

    virtio_console_connected(p->console, p->n, on);
}

static void on_resized(void *arg, uint16_t columns, uint16_t rows) {
    struct port *p = arg;

    if (p->n == 0)
        virtio_console_resize(p->console, columns, rows);
}

/* --- life --- */

static void plug(struct consoles *c) {
    for (unsigned n = 0; n < c->m->cfg.console_count; n++) {
        const struct stream_user user = {.input = on_input,
                                         .writable = on_writable,
                                         .connected = on_connected,
                                         .resized = on_resized,
                                         .arg = &c->port[n]};

        c->port[n] = (struct port){c->console, n};
        stream_plug(c->m->cfg.consoles[n].stream, &user);
    }
}

static void free_consoles(void *dev) {
    struct consoles *c = dev;

    virtio_console_free(c->console);
    free(c);
}

static void record(void *dev, struct snapshot *s) {
    struct consoles *c = dev;

    virtio_console_state(c->console, s);
}

static void goes_on(void *dev) {
    struct consoles *c = dev;

    virtio_console_go_on(c->console);
}

int machine_make_virtio_console(struct machine *m, char *why, size_t why_size) {
    static const struct machine_device_ops ops = {.free = free_consoles,
                                                  .name = "virtio-console",
                                                  .state = record,
                                                  .go_on = goes_on};
    struct virtio_console_port ports[MACHINE_CONSOLES];
    struct consoles *c;

    if (!m->cfg.console_count)
        return 0;
    for (unsigned n = 0; n < m->cfg.console_count; n++)
        ports[n] = (struct virtio_console_port){.name = m->cfg.consoles[n].name,
                                                .console = m->cfg.consoles[n].console};
    c = calloc(1, sizeof(*c));
    if (c) {
        const struct virtio_console_host host = {
            .write = write_port, .room = port_has_room, .arg = c};

        c->m = m;
        c->console = virtio_console_new(m->mem, m->clock, ports, m->cfg.console_count,
                                        &host, &m->counters);
    }
    if (!c || !c->console || machine_device_add(m, &ops, c)) {
        if (c && !c->console)
            free(c);
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    plug(c);
    return machine_virtio_attach(m, virtio_console_device(c->console), why, why_size);
}

/* --- the loop --- */

int machine_start_consoles(struct machine *m) {
    const struct stream_guard guard = {machine_guard_enter, machine_guard_leave, m};
    int rc = 0;

    for (unsigned n = 0; n < m->cfg.serial_count && !rc; n++)
        if (m->cfg.serials[n].stream)
            rc = stream_start(m->cfg.serials[n].stream, m->loop, &guard);
    for (unsigned n = 0; n < m->cfg.console_count && !rc; n++)
        rc = stream_start(m->cfg.consoles[n].stream, m->loop, &guard);
    return rc;
}

void machine_stop_consoles(struct machine *m) {
    for (unsigned n = 0; n < m->cfg.serial_count; n++)
        if (m->cfg.serials[n].stream)
            stream_stop(m->cfg.serials[n].stream);
    for (unsigned n = 0; n < m->cfg.console_count; n++)
        stream_stop(m->cfg.consoles[n].stream);
}
