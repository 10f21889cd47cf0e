/*
 * bivisor's options for what has been gathered: the whole of it is known here, so ids are
 * followed, defaults filled in and what goes with nothing is refused. See qemu_int.h.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "qemu/qemu_int.h"

#define DEFAULT_MEMORY "128M"

static void put(struct qemu *q, const char *text) {
    if (q->run_count == QEMU_RUN_MAX)
        q->failed = true;
    else
        q->run[q->run_count++] = (char *)(uintptr_t)text;
    q->run[q->run_count] = NULL;
}

static void put_option(struct qemu *q, const char *name, const char *value) {
    put(q, name);
    put(q, value);
}

/* --- disks --- */

/* The image is qcow2, by what it begins with, and leads to no other file: a guest that
 * has written such a header to a raw disk reaches nothing that it had not. */
static bool is_plain_qcow2(const char *file) {
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    uint8_t head[80] = {0};
    ssize_t n;

    if (fd < 0)
        return false;
    n = pread(fd, head, sizeof(head), 0);
    close(fd);
    if (n < 24 || memcmp(head, "QFI\xfb", 4) != 0)
        return false;
    for (unsigned k = 8; k < 16; k++) /* where the name of a backing file is */
        if (head[k])
            return false;
    return head[7] == 2 || !(head[79] & 4); /* data in another file */
}

static const char *format_of(struct qemu *q, const struct qemu_disk *d) {
    if (d->format)
        return d->format;
    return !strstr(d->file, "://") && is_plain_qcow2(d->file) ? "qcow2" : NULL;
}

static void put_disk(struct qemu *q, const struct qemu_disk *d) {
    const char *format = format_of(q, d);
    /* Who has said that it is one means the files that it stands on, as with QEMU. */
    bool backed = d->format && !strcmp(d->format, "qcow2");
    bool overlay = !d->readonly && (d->snapshot || q->snapshot);

    if (d->cdrom) {
        put_option(q, "--cdrom", d->file);
        return;
    }
    put_option(q, "--disk",
               qemu_format(q, "%s%s%s%s%s%s%s%s", qemu_escape(q, d->file),
                           format ? ",format=" : "", format ? format : "",
                           backed ? ",backing=allow" : "", d->readonly ? ",readonly" : "",
                           overlay ? ",overlay=temp" : "",
                           d->how == QEMU_IDE ? ",if=ide" : "",
                           d->sector ? qemu_format(q, ",sector=%d", d->sector) : ""));
}

/* Lower is earlier: what QEMU's firmware would try in this order. */
static int rank(const struct qemu *q, const struct qemu_disk *d) {
    const char *order = q->boot_order ? q->boot_order : "cd", *at;

    if (d->bootindex >= 0)
        return d->bootindex;
    at = strchr(order, d->cdrom ? 'd' : 'c');
    return (1 << 21) + (at ? (int)(at - order) : 8) * 256 +
           (d->index >= 0 ? d->index : 128);
}

/* Its own place among those of the same rank is kept. */
static void sort_disks(struct qemu *q) {
    for (size_t n = 1; n < q->disk_count; n++) {
        struct qemu_disk d = q->disk[n];
        size_t at = n;

        for (; at && rank(q, &q->disk[at - 1]) > rank(q, &d); at--)
            q->disk[at] = q->disk[at - 1];
        q->disk[at] = d;
    }
}

/* Firmware: the code is the first flash, its variables the second. */
static bool take_flash(struct qemu *q) {
    const char *file[2] = {NULL, NULL};

    for (size_t n = 0; n < q->disk_count; n++) {
        struct qemu_disk *d = &q->disk[n];
        const char **named[2] = {&q->firmware, &q->flash_vars};

        for (unsigned k = 0; k < 2; k++) {
            if (!*named[k] || **named[k] != '=' || !d->id ||
                strcmp(*named[k] + 1, d->id) != 0)
                continue;
            d->how = QEMU_PFLASH;
            d->index = (int)k;
            *named[k] = NULL;
            if (d->below)
                return qemu_refuse(q,
                                   "-machine: pflash of a node on a node is not known; "
                                   "-drive if=pflash,file=FILE is");
        }
        if (d->how != QEMU_PFLASH)
            continue;
        if (d->index < 0)
            d->index = file[0] ? 1 : 0;
        if (d->index > 1 || file[d->index])
            return qemu_refuse(q,
                               "-drive: firmware has two flash chips, code and "
                               "variables; '%s' is one more",
                               d->file);
        file[d->index] = d->file;
    }
    if (file[0])
        q->firmware = file[0];
    if (file[1])
        q->flash_vars = file[1];
    return true;
}

static bool emit_disks(struct qemu *q) {
    sort_disks(q);
    for (size_t n = 0; n < q->disk_count; n++) {
        const struct qemu_disk *d = &q->disk[n];

        if (d->how == QEMU_PFLASH || d->how == QEMU_NONE)
            continue; /* a drive that no device has is nowhere */
        put_disk(q, d);
    }
    return true;
}

/* --- what is started --- */

/* Several modules of a multiboot kernel: FILE ARGS,FILE ARGS. */
static void emit_initrd(struct qemu *q) {
    char *text = qemu_format(q, "%s", q->initrd), *rest, *args;

    if (!strchr(text, ',') && !strchr(text, ' ')) {
        put_option(q, "--initrd", text);
        return;
    }
    for (; text && !q->failed; text = rest) {
        rest = strchr(text, ',');
        if (rest)
            *rest++ = 0;
        args = strchr(text, ' ');
        if (args)
            *args++ = 0;
        put_option(q, "--module", text);
        if (args && *args)
            put_option(q, "--module-args", args);
    }
}

static bool emit_start(struct qemu *q) {
    if (!q->kernel && (q->initrd || q->append))
        return qemu_refuse(q, "%s goes with -kernel", q->initrd ? "-initrd" : "-append");
    if (q->kernel) {
        put_option(q, "--kernel", q->kernel);
        if (q->initrd)
            emit_initrd(q);
        put_option(q, "--append", q->append ? q->append : "");
        if (q->firmware)
            qemu_note(q, "-bios: the kernel is started without firmware");
        return true;
    }
    put_option(q, "--firmware", q->firmware ? q->firmware : "bios");
    if (q->flash_vars)
        put_option(q, "--firmware-vars", q->flash_vars);
    if (q->boot_menu)
        put(q, "--boot-menu");
    if (q->boot_once)
        put_option(q, "--boot-once",
                   q->boot_once == 'c'   ? "disk"
                   : q->boot_once == 'd' ? "cdrom"
                                         : "net");
    return true;
}

static void emit_machine(struct qemu *q) {
    put_option(q, "--memory", q->memory ? q->memory : DEFAULT_MEMORY);
    if (q->cpus > 1)
        put_option(q, "--cpus", qemu_format(q, "%u", q->cpus));
    if (q->accel && strcmp(q->accel, "auto") != 0)
        put_option(q, "--engine", q->accel);
    if (q->cpu)
        put_option(q, "--cpu", q->cpu);
    if (q->no_paravirt)
        put(q, "--no-paravirt");
    if (q->curses)
        put_option(q, "--display", "text");
    else if (q->vnc)
        put_option(q, "--display",
                   qemu_format(q, "vnc=%s%s", q->vnc, q->tablet ? ",tablet" : ""));
    if (q->balloon)
        put(q, "--balloon");
    if (q->no_reboot)
        put(q, "--no-reboot");
}

/* --- the network --- */

static struct qemu_net *find_net(struct qemu *q, const char *id) {
    for (size_t n = 0; n < q->net_count; n++)
        if (q->net[n].id && !strcmp(q->net[n].id, id))
            return &q->net[n];
    return NULL;
}

/* Where its card is among what is booted from: cards are before all disks or behind. A
 * machine that has nothing else boots from it, too. */
static const char *boots(const struct qemu *q, const struct qemu_card *c,
                         const char *net) {
    const char *order = q->boot_order ? q->boot_order : "", *at = strchr(order, 'n');
    int first = INT_MAX;

    if (q->kernel)
        return "";
    for (size_t n = 0; n < q->disk_count; n++)
        if (q->disk[n].how != QEMU_PFLASH && rank(q, &q->disk[n]) < first)
            first = rank(q, &q->disk[n]);
    if (c->bootindex >= 0)
        return c->bootindex < first ? ",boot" : ",boot=last";
    if (!at)
        return q->boot_once == 'n' || strstr(net, ",bootfile=") ? ",boot=last" : "";
    return (1 << 21) + (int)(at - order) * 256 < first ? ",boot" : ",boot=last";
}

static void put_card(struct qemu *q, const struct qemu_card *c, const char *net) {
    const char *model = c->model ? c->model : "e1000";

    put_option(q, "--net",
               qemu_format(q, "%s%s%s%s%s", net,
                           strcmp(model, "virtio") != 0 ? ",model=e1000" : "",
                           c->mac ? ",mac=" : "", c->mac ? c->mac : "",
                           boots(q, c, net)));
}

static bool emit_nets(struct qemu *q) {
    const struct qemu_card plain = {.model = "e1000", .bootindex = -1};

    for (size_t n = 0; n < q->card_count; n++) {
        const struct qemu_card *c = &q->card[n];
        struct qemu_net *net = c->netdev ? find_net(q, c->netdev) : NULL;

        if (c->netdev && !net)
            return qemu_refuse(q, "-device: there is no netdev '%s'", c->netdev);
        if (net && net->used)
            return qemu_refuse(q, "-device: netdev '%s' has a card already", c->netdev);
        if (!net)
            continue;
        net->used = true;
        put_card(q, c, net->net);
    }
    if (q->legacy_has_card && q->legacy_card.netdev) {
        struct qemu_net *net = find_net(q, q->legacy_card.netdev);

        if (!net || net->used)
            return qemu_refuse(q, "-net: there is no netdev '%s' for the card",
                               q->legacy_card.netdev);
        put_card(q, &q->legacy_card, net->net);
    } else if (q->legacy_has_card) {
        put_card(q, &q->legacy_card, q->legacy_net ? q->legacy_net : "user,restrict");
    } else if (!q->net_said && !q->no_defaults) {
        put_card(q, &plain, "user");
    }
    return true;
}

/* --- characters --- */

/* Follows @ID to its -chardev. NULL after a refusal. */
static const char *follow(struct qemu *q, const char *how) {
    if (!how || *how != '@')
        return how;
    for (size_t n = 0; n < q->chr_count; n++)
        if (!strcmp(q->chr[n].id, how + 1))
            return q->chr[n].how;
    qemu_refuse(q, "there is no -chardev with id=%s", how + 1);
    return NULL;
}

/* Its clients are programs: they come to a socket. */
static bool emit_qmp(struct qemu *q) {
    const char *how = follow(q, q->qmp);

    if (!q->qmp || (how && !strcmp(how, "null")))
        return true;
    q->heard = true;
    if (how && !strncmp(how, "socket=", 7))
        put_option(q, "--qmp", how + 7);
    else if (how)
        return qemu_refuse(q,
                           "QMP is spoken at a socket (unix:PATH,server=on), not at "
                           "'%s'",
                           how);
    return how;
}

/* At this terminal, which AT_STDIO devices have, too; or at a socket, for scripts. */
static bool emit_monitor(struct qemu *q, unsigned at_stdio) {
    const char *how = follow(q, q->monitor);

    if (!q->monitor || (how && !strcmp(how, "null")))
        return true;
    q->heard = true;
    if (how && !strcmp(how, "stdio"))
        put_option(q, "--monitor", at_stdio ? "mux" : "only");
    else if (how && !strncmp(how, "socket=", 7))
        put_option(q, "--monitor", how);
    else if (how)
        return qemu_refuse(
            q,
            "the monitor is at stdio, at a socket (unix:PATH,server=on) or "
            "nowhere, not at '%s'",
            how);
    return how;
}

/* What QEMU has at its serial port and monitor if nothing was said. */
static bool emit_defaults(struct qemu *q) {
    bool quiet = q->display_none || q->vnc || q->curses || q->no_defaults;

    if (!q->monitor && q->nographic && !q->no_defaults)
        q->monitor = "stdio";
    if (q->serial_count)
        return true;
    if (q->nographic && !q->no_defaults) {
        q->serial[q->serial_count++] = "stdio";
    } else if (quiet) {
        q->serial[q->serial_count++] = "null";
    } else {
        q->serial[q->serial_count++] =
            q->monitor && !strcmp(q->monitor, "stdio") ? "null" : "stdio";
        qemu_note(q,
                  "there is no window: the guest's %s, its screen with `bivisor "
                  "screenshot` or -vnc",
                  strcmp(q->serial[0], "stdio") ? "serial port is nowhere"
                                                : "serial port is on this terminal");
    }
    return true;
}

static bool emit_ports(struct qemu *q, unsigned *at_stdio) {
    bool first = true;

    for (size_t n = 0; n < q->port_count; n++) {
        const struct qemu_port *p = &q->port[n];
        const char *how = follow(q, qemu_format(q, "@%s", p->chardev));

        if (!how)
            return false;
        if (strchr(how, ','))
            return qemu_refuse(q, "-chardev: a path with a comma, '%s'", how);
        *at_stdio += !strcmp(how, "stdio");
        /* The first port of ours is always a console. */
        if (first && !p->console)
            put_option(q, "--console", "null");
        put_option(q, "--console",
                   qemu_format(q, "%s%s%s%s", how, !first && p->console ? ",console" : "",
                               p->name ? ",name=" : "", p->name ? p->name : ""));
        first = false;
    }
    return true;
}

static bool emit_chars(struct qemu *q) {
    unsigned at_stdio = 0;
    const char *how;

    if (!emit_defaults(q))
        return false;
    for (size_t n = 0; n < q->serial_count; n++) {
        how = follow(q, q->serial[n]);
        if (!how)
            return false;
        at_stdio += !strcmp(how, "stdio");
        if (q->serial_count > 1 || strcmp(how, "stdio") != 0)
            put_option(q, "--serial", how);
    }
    if (!emit_ports(q, &at_stdio))
        return false;
    if (at_stdio > 1)
        return qemu_refuse(q, "standard input and output are one device's; another "
                              "device can be at a pty, a file or a unix socket");
    if (!emit_monitor(q, at_stdio) || !emit_qmp(q))
        return false;
    if (q->escape)
        put_option(q, "--escape", qemu_format(q, "%u", q->escape));
    return true;
}

/* --- the rest --- */

static bool emit_shares(struct qemu *q) {
    for (size_t n = 0; n < q->share_count; n++) {
        const struct qemu_share *s = &q->share[n];

        if (s->tag)
            put_option(q, "--share",
                       qemu_format(q, "%s=%s%s", s->tag, qemu_escape(q, s->path),
                                   s->readonly ? ",readonly" : ""));
    }
    return true;
}

static bool emit_debugger(struct qemu *q) {
    if (q->stopped && !q->gdb && !q->heard)
        return qemu_refuse(q, "-S: the guest is held for a debugger or a monitor: -s, "
                              "-gdb, -monitor or -qmp goes with it");
    q->paused = q->stopped && !q->gdb;
    if (q->paused)
        qemu_note(q, "-S: the guest waits for `cont`");
    if (q->gdb)
        put_option(q, "--gdb", qemu_format(q, "%s%s", q->gdb, q->stopped ? ",wait" : ""));
    return true;
}

bool qemu_emit(struct qemu *q) {
    put(q, "run");
    if (!take_flash(q) || !emit_start(q))
        return false;
    emit_machine(q);
    for (size_t n = 0; n < q->told_count; n++)
        put_option(q, q->told[n].option, q->told[n].text);
    if (!emit_disks(q) || !emit_nets(q) || !emit_shares(q) || !emit_chars(q) ||
        !emit_debugger(q))
        return false;
    for (size_t n = 0; n < q->own_count; n++)
        put(q, q->own[n]);
    return true;
}
