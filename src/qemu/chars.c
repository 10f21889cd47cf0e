/*
 * Character devices, and what is at them: serial ports, the monitor, ports of the virtio
 * console. A `how` is as --serial has it, or @ID: that of a -chardev. See qemu_int.h.
 */
#include <string.h>

#include "qemu/qemu_int.h"

/* A socket's properties, as `-chardev socket` and the short forms have them: at a path or
 * a port, where we listen or connect. NULL after a refusal. */
static const char *socket_how(struct qemu *q, struct qemu_list *l) {
    const char *path = qemu_value(l, "path"), *host = qemu_value(l, "host");
    const char *port = qemu_value(l, "port"), *where = path;
    bool listens, wait, telnet, websocket;

    if (!qemu_switch(q, l, "server", false, &listens) ||
        !qemu_switch(q, l, "wait", true, &wait) ||
        !qemu_switch(q, l, "telnet", false, &telnet) ||
        !qemu_switch(q, l, "websocket", false, &websocket))
        return NULL;
    if (websocket || qemu_value(l, "fd") || qemu_value(l, "tls-creds")) {
        qemu_refuse(q, "%s: bivisor's sockets are plain ones, at a path or a port",
                    l->option);
        return NULL;
    }
    if (!path && !(where = qemu_port(q, l->option, host, port, listens)))
        return NULL;
    if (telnet)
        qemu_note(q, "%s: bytes go as they are; a telnet client edits lines itself",
                  l->option);
    if (listens && wait)
        qemu_note(q, "%s: the guest does not wait for a client", l->option);
    return qemu_format(q, listens ? "socket=%s" : "connect=%s", where);
}

#define SOCKET_IGNORED                                                                   \
    "delay nodelay reconnect reconnect-ms ipv4 ipv6 to abstract tight mptcp "

/* PATH or HOST:PORT, and properties. */
static const char *socket_at(struct qemu *q, const char *option, const char *text,
                             bool is_port, bool telnet) {
    struct qemu_list l;
    const char *how;
    char *where, *port;

    if (!qemu_split(q, &l, option, text, NULL))
        return NULL;
    where = qemu_format(q, "%s", l.head ? l.head : "");
    port = is_port ? strrchr(where, ':') : NULL;
    if (l.count + 3 > QEMU_PAIRS || (is_port && !port)) {
        qemu_refuse(q, "%s wants HOST:PORT, not '%s'", option, text);
        return NULL;
    }
    if (port) {
        *port++ = 0;
        l.pair[l.count++] = (struct qemu_pair){.name = "host", .value = where};
        l.pair[l.count++] = (struct qemu_pair){.name = "port", .value = port};
    } else {
        l.pair[l.count++] = (struct qemu_pair){.name = "path", .value = where};
    }
    if (telnet)
        l.pair[l.count++] = (struct qemu_pair){.name = "telnet", .value = "on"};
    how = socket_how(q, &l);
    return how && qemu_rest(q, &l, SOCKET_IGNORED) ? how : NULL;
}

/* One of the words of -serial, -monitor and others; NULL after a refusal. */
static const char *how_of(struct qemu *q, const char *option, const char *text) {
    if (!strcmp(text, "stdio") || !strcmp(text, "null") || !strcmp(text, "pty"))
        return text;
    if (!strcmp(text, "none") || !strncmp(text, "vc", 2) || !strcmp(text, "/dev/null"))
        return "null"; /* there are no windows to switch to */
    if (!strncmp(text, "file:", 5) && text[5])
        return qemu_format(q, "file=%s", text + 5);
    if (!strncmp(text, "unix:", 5) && text[5])
        return socket_at(q, option, text + 5, false, false);
    if (!strncmp(text, "tcp:", 4))
        return socket_at(q, option, text + 4, true, false);
    if (!strncmp(text, "telnet:", 7))
        return socket_at(q, option, text + 7, true, true);
    if (!strncmp(text, "chardev:", 8))
        return qemu_format(q, "@%s", text + 8);
    qemu_refuse(q,
                "%s: bivisor has stdio, null, none, pty, file:PATH, unix:PATH, "
                "tcp:HOST:PORT and chardev:ID, not '%s'",
                option, text);
    return NULL;
}

/* --- options --- */

static const char *chardev_how(struct qemu *q, struct qemu_list *l, const char *kind) {
    const char *path = qemu_value(l, "path");
    bool append;

    if (!strcmp(kind, "socket"))
        return socket_how(q, l);
    if (!qemu_switch(q, l, "append", false, &append))
        return NULL;
    if (append)
        qemu_note(q, "%s: append=on: '%s' is written from its beginning", l->option,
                  path);
    if (!strcmp(kind, "stdio") || !strcmp(kind, "null") || !strcmp(kind, "pty"))
        return kind;
    if (!strcmp(kind, "vc") || !strcmp(kind, "ringbuf") || !strcmp(kind, "memory"))
        return "null";
    if (!strcmp(kind, "file") && path)
        return qemu_format(q, "file=%s", path);
    qemu_refuse(q,
                "%s: bivisor has stdio, null, pty, file,path=PATH, socket,path=PATH and "
                "socket,host=ADDR,port=N, not '%s'",
                l->option, kind);
    return NULL;
}

bool qemu_take_chardev(struct qemu *q, const char *option, const char *value) {
    struct qemu_char *c = &q->chr[q->chr_count];
    struct qemu_list l;
    const char *kind;

    if (q->chr_count == QEMU_CHARS)
        return qemu_refuse(q, "%s: more than %u are not possible", option, QEMU_CHARS);
    if (!qemu_split(q, &l, option, value, "backend"))
        return false;
    *c = (struct qemu_char){.id = qemu_value(&l, "id")};
    if (!c->id)
        return qemu_refuse(q, "%s '%s' has no id", option, value);
    kind = qemu_value(&l, "backend");
    if (!qemu_switch(q, &l, "mux", false, &c->mux) ||
        !(c->how = chardev_how(q, &l, kind ? kind : "")))
        return false;
    q->chr_count++;
    return qemu_rest(
        q, &l, SOCKET_IGNORED "signal logfile logappend width height cols rows size ");
}

static bool add_serial(struct qemu *q, const char *option, const char *how) {
    if (q->serial_count == ARRAY_SIZE(q->serial))
        return qemu_refuse(q, "%s: a PC has four serial ports", option);
    q->serial[q->serial_count++] = how;
    return true;
}

bool qemu_take_serial(struct qemu *q, const char *option, const char *value) {
    const char *how;

    if (!strncmp(value, "mon:", 4)) {
        value += 4;
        q->monitor = how_of(q, option, value);
    }
    how = how_of(q, option, value);
    return how && add_serial(q, option, how);
}

bool qemu_take_monitor(struct qemu *q, const char *option, const char *value) {
    const char *how = how_of(q, option, !strncmp(value, "mon:", 4) ? value + 4 : value);

    q->monitor = how;
    return how;
}

bool qemu_take_mon(struct qemu *q, const char *option, const char *value) {
    struct qemu_list l;
    const char *mode, *chardev;

    if (!qemu_split(q, &l, option, value, "chardev"))
        return false;
    mode = qemu_value(&l, "mode");
    chardev = qemu_value(&l, "chardev");
    if (mode && !strcmp(mode, "control"))
        q->qmp = qemu_format(q, "@%s", chardev ? chardev : "");
    else if (!mode || !strcmp(mode, "readline"))
        q->monitor = qemu_format(q, "@%s", chardev ? chardev : "");
    else
        return qemu_refuse(q, "%s: mode is readline or control, not '%s'", option, mode);
    return qemu_rest(q, &l, "pretty id ");
}

bool qemu_take_qmp(struct qemu *q, const char *option, const char *value) {
    const char *how = how_of(q, option, value);

    if (how && q->qmp)
        return qemu_refuse(q, "%s: QMP is at one place only", option);
    q->qmp = how;
    return how;
}

bool qemu_take_parallel(struct qemu *q, const char *option, const char *value) {
    if (!strcmp(value, "none") || !strcmp(value, "null") || !strncmp(value, "vc", 2))
        return true;
    return qemu_refuse(q, "%s %s: bivisor has no parallel port", option, value);
}

bool qemu_take_echr(struct qemu *q, const char *option, const char *value) {
    uint64_t n;

    if (!qemu_parse_number(value, &n) || n < 1 || n > 31)
        return qemu_refuse(q,
                           "%s wants the number of a control character, 1 to 31, not "
                           "'%s'",
                           option, value);
    q->escape = (unsigned)n;
    return true;
}

/* --- -device --- */

bool qemu_attach_port(struct qemu *q, struct qemu_list *l, bool console) {
    struct qemu_port *p = &q->port[q->port_count];

    if (!strcmp(l->head, "isa-serial"))
        return add_serial(q, l->option,
                          qemu_format(q, "@%s", qemu_value(l, "chardev"))) &&
               qemu_rest(q, l, "id index iobase irq ");
    if (q->port_count == QEMU_PORTS)
        return qemu_refuse(q,
                           "%s: more than %u ports of the virtio console are not "
                           "possible",
                           l->option, QEMU_PORTS);
    p->console = console;
    p->chardev = qemu_value(l, "chardev");
    p->name = qemu_value(l, "name");
    if (!p->chardev)
        return qemu_refuse(q, "%s has no chardev", l->option);
    q->port_count++;
    return qemu_rest(q, l, "id bus nr ");
}
