/* --console and --vsock; see virtio_option.h. */
#include "ctl/virtio_option.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "stream/stream.h"
#include "vsock/vsock.h"

bool virtio_option_help(const char *value) {
    if (strcmp(value, "help") != 0)
        return false;
    printf(
        "--virtio HOW\n"
        "\n"
        "Where the guest finds virtio devices: pci (the default), mmio, or none.\n"
        "\n"
        "  --disk, --net   `--disk help`, `--net help` tell more\n"
        "  --console HOW   a port of the virtio console; `--console help` tells more\n"
        "  --vsock CID=N,path=PATH\n"
        "                  sockets: who connects to PATH and sends `CONNECT PORT` is\n"
        "                  connected to the guest's; its own connections, to its host's\n"
        "                  PORT, go to PATH_PORT; with --name the path may be left out\n"
        "  --balloon[=strict]  guest memory can be taken back, through --control; "
        "strict: the\n"
        "                  guest takes none of it again by itself\n"
        "  --no-rng        no source of entropy, which is there otherwise\n");
    return true;
}

bool console_option_help(const char *value) {
    if (strcmp(value, "help") != 0)
        return false;
    printf(
        "--console HOW[,console][,name=NAME]   a port of the virtio console\n"
        "--serial HOW                         a serial port, COM1 or the second time "
        "COM2\n"
        "--monitor mux|only|socket=WHERE      a monitor with QEMU's words (help lists "
        "them)\n"
        "--escape N                           the control character before commands (1: "
        "Ctrl-A)\n"
        "\n"
        "The first port of the virtio console is /dev/hvc0 in a Linux guest, further\n"
        "ones are /dev/vportNpM, and /dev/virtio-ports/NAME. HOW is\n"
        "\n"
        "  pty            a pseudo-terminal, whose name is told on standard error\n"
        "  socket=WHERE   a unix socket's path or tcp:ADDR:PORT, at which one client at\n"
        "                 a time is connected; who can reach a port is let in\n"
        "  connect=WHERE  such a socket of another program's, which is connected to at "
        "the\n"
        "                 start\n"
        "  file=PATH      a file that gets what the guest writes\n"
        "  null           nothing\n"
        "  stdio          standard input and output, which one of all ports has: COM1 "
        "where\n"
        "                 there is no --serial\n"
        "\n"
        "  console      the port is a console, too: /dev/hvc1 and so on\n"
        "  name=NAME    what the guest knows the port by\n"
        "\n"
        "With --monitor mux, Ctrl-A c changes to the monitor and back; with only, "
        "standard\n"
        "input is the monitor's, and no port has it. With socket=, scripts find it "
        "there.\n");
    return true;
}

bool console_option_take(struct console_options *o, const char *value) {
    struct console_option *p = &o->port[o->count];
    char *rest;

    if (o->count == MACHINE_CONSOLES) {
        log_error("--console is possible %u times at most", MACHINE_CONSOLES);
        return false;
    }
    p->how = p->text = strdup(value);
    if (!p->text) {
        log_error("out of memory");
        return false;
    }
    o->count++;
    rest = strchr(p->text, ',');
    while (rest) {
        char *word = rest + 1;

        *rest = 0;
        rest = strchr(word, ',');
        if (!strncmp(word, "name=", 5) && word[5] && word[5] != ',' && !p->name) {
            p->name = word + 5;
        } else if (!strncmp(word, "console", 7) && (!word[7] || word[7] == ',')) {
            p->console = true;
        } else {
            log_error("--console wants HOW, with ',console' and ',name=NAME', not '%s'",
                      value);
            return false;
        }
    }
    return true;
}

const char *console_option_file(const struct console_option *c) {
    return stream_file(c->how);
}

void console_options_free(struct console_options *o) {
    for (unsigned n = 0; n < o->count; n++)
        free(o->port[n].text);
    o->count = 0;
}

int console_options_open(const struct console_options *o, struct machine_config *cfg) {
    char why[512];

    for (unsigned n = 0; n < o->count; n++) {
        struct machine_console_port *port = &cfg->consoles[n];
        int rc = stream_open(o->port[n].how, &port->stream, why, sizeof(why));

        if (rc) {
            log_error("--console: %s", why);
            console_options_close(cfg);
            return rc;
        }
        port->name = o->port[n].name;
        port->console = o->port[n].console;
        cfg->console_count++;
        if (stream_terminal(port->stream))
            fprintf(stderr, "bivisor: console %u is at %s\n", n,
                    stream_terminal(port->stream));
    }
    return 0;
}

void console_options_close(struct machine_config *cfg) {
    for (unsigned n = 0; n < cfg->console_count; n++)
        stream_close(cfg->consoles[n].stream);
    cfg->console_count = 0;
}

/* --- sockets --- */

/* CID=N[,path=PATH], which is cut in two. */
static bool parse_vsock(struct vsock_option *o) {
    char *comma = strchr(o->text, ','), *rest;
    unsigned long long cid;

    if ((strncmp(o->text, "CID=", 4) != 0 && strncmp(o->text, "cid=", 4) != 0) ||
        o->text[4] < '0' || o->text[4] > '9')
        return false;
    cid = strtoull(o->text + 4, &rest, 10);
    if (rest != (comma ? comma : strchr(o->text, 0)) || cid < 3 || cid >= UINT32_MAX)
        return false;
    o->cid = (uint32_t)cid;
    if (!comma)
        return true;
    if (strncmp(comma, ",path=", 6) != 0 || !comma[6])
        return false;
    o->path = comma + 6;
    return true;
}

bool vsock_option_take(struct vsock_option *o, const char *value) {
    if (o->text) {
        log_error("--vsock is possible once");
        return false;
    }
    o->text = strdup(value);
    if (!o->text) {
        log_error("out of memory");
        return false;
    }
    if (parse_vsock(o))
        return true;
    log_error("--vsock wants CID=N,path=PATH, N from 3 to 4294967294, not '%s'", value);
    return false;
}

void vsock_option_free(struct vsock_option *o) {
    free(o->text);
    *o = (struct vsock_option){0};
}

int vsock_option_open(const struct vsock_option *o, enum jail_want jail,
                      struct machine_config *cfg) {
    char why[512];
    int rc;

    if (!o->cid)
        return 0;
    rc = vsock_open(o->path, jail, &cfg->vsock, why, sizeof(why));
    if (rc)
        log_error("--vsock: %s", why);
    cfg->vsock_cid = o->cid;
    return rc;
}

void vsock_option_close(struct machine_config *cfg) {
    vsock_close(cfg->vsock);
    cfg->vsock = NULL;
}
