/*
 * Character devices, and what is at them: serial ports, the monitor, ports of the virtio
 * console. A `how` is as --serial has it, or @ID: that of a -chardev. See qemu_int.h.
 */
#include <string.h>

#include "qemu/qemu_int.h"

/* PATH[,server=on][,wait=off]: we listen, and wait for nobody. */
static const char *socket_at(struct qemu *q, const char *option, const char *text) {
    struct qemu_list l;
    bool listens;

    if (!qemu_split(q, &l, option, text, "path") ||
        !qemu_switch(q, &l, "server", false, &listens))
        return NULL;
    if (!listens) {
        qemu_refuse(q,
                    "%s: bivisor listens at a unix socket (server=on) and connects to "
                    "none: '%s'",
                    option, text);
        return NULL;
    }
    return qemu_rest(q, &l, "wait path ")
               ? qemu_format(q, "socket=%s", qemu_value(&l, "path"))
               : NULL;
}

/* One of the words of -serial, -monitor and others; NULL after a refusal. */
static const char *how_of(struct qemu *q, const char *option, const char *text) {
    if (!strcmp(text, "stdio") || !strcmp(text, "null") || !strcmp(text, "pty"))
        return text;
    if (!strcmp(text, "none") || !strncmp(text, "vc", 2))
        return "null"; /* there are no windows to switch to */
    if (!strncmp(text, "file:", 5) && text[5])
        return qemu_format(q, "file=%s", text + 5);
    if (!strncmp(text, "unix:", 5) && text[5])
        return socket_at(q, option, text + 5);
    if (!strncmp(text, "chardev:", 8))
        return qemu_format(q, "@%s", text + 8);
    qemu_refuse(q,
                "%s: bivisor has stdio, null, none, pty, file:PATH, "
                "unix:PATH,server=on and chardev:ID, not '%s'",
                option, text);
    return NULL;
}

/* --- options --- */

static const char *chardev_how(struct qemu *q, struct qemu_list *l, const char *kind) {
    const char *path = qemu_value(l, "path");
    bool listens, append;

    if (!qemu_switch(q, l, "server", false, &listens) ||
        !qemu_switch(q, l, "append", false, &append))
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
    if (!strcmp(kind, "socket") && path && listens)
        return qemu_format(q, "socket=%s", path);
    qemu_refuse(q,
                "%s: bivisor has stdio, null, pty, file,path=PATH and socket,path=PATH,"
                "server=on, not '%s'",
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
        q, &l, "signal wait reconnect logfile logappend width height cols rows size ");
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

    if (how && strcmp(how, "stdio") != 0 && strcmp(how, "null") != 0 && *how != '@')
        return qemu_refuse(q,
                           "%s %s: the monitor is at stdio or nowhere; --control PATH "
                           "of `bivisor run` is for programs",
                           option, value);
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
