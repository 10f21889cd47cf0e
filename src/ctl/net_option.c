/* --net; see net_option.h. */
#include "ctl/net_option.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ctl/firmware.h"
#include "ctl/options.h"

bool net_option_help(const char *value) {
    if (strcmp(value, "help") != 0)
        return false;
    printf(
        "--net KIND[,OPTION...]\n"
        "\n"
        "A network card, as often as there are cards, and where its cable leads. A "
        "comma in\n"
        "PATH is written twice.\n"
        "\n"
        "  user           a network of the guest's own: addresses by DHCP, the world "
        "by\n"
        "                 connections of this user's; 10.0.2.2 is this host\n"
        "  tap=NAME       this TAP interface of the host's\n"
        "  socket=WHERE   a peer at a unix socket or tcp:ADDR:PORT: passt, QEMU, "
        "bivisor\n"
        "  none           no card, as without --net\n"
        "\n"
        "  user:   forward=tcp|udp:[ADDR]:PORT:GUESTPORT   who comes to PORT of this "
        "host\n"
        "                      is connected to the guest (ADDR: 127.0.0.1); "
        "repeatable\n"
        "          restrict    the guest reaches nobody; forwarded ports work\n"
        "          tftp=DIR    10.0.2.2 serves the files below DIR by TFTP\n"
        "          bootfile=NAME   what DHCP says is to be booted\n"
        "  socket: listen      wait there for the peer, instead of connecting to it\n"
        "  all:    model=virtio|e1000   the card\n"
        "          mac=XX:XX:XX:XX:XX:XX   its address\n"
        "          mtu=N       the longest packet, as the guest is told\n"
        "          in=SIZE[:BURST], out=SIZE[:BURST]   so many bytes a second come to\n"
        "                      the guest, or go, and BURST at once\n"
        "          in-frames=N[:BURST], out-frames=N[:BURST]   so many frames\n"
        "          boot[=last] the firmware boots from it, before (after) the disks\n");
    return true;
}

/* Cuts TEXT at the first AT, and returns the rest; NULL: there is none. */
static char *cut(char *text, char at) {
    char *end = strchr(text, at);

    if (end)
        *end++ = 0;
    return end;
}

/* --- values --- */

/* A decimal number of MIN to MAX; 0: it is none. */
static unsigned number(const char *text, unsigned min, unsigned max) {
    unsigned value = 0;

    for (; *text >= '0' && *text <= '9' && value <= max; text++)
        value = value * 10 + (unsigned)(*text - '0');
    return *text || value < min || value > max ? 0 : value;
}

static bool parse_address(const char *text, uint8_t address[4]) {
    unsigned a, b, c, d;
    char rest;

    if (sscanf(text, "%3u.%3u.%3u.%3u%c", &a, &b, &c, &d, &rest) != 4 || a > 255 ||
        b > 255 || c > 255 || d > 255 || strspn(text, "0123456789.") != strlen(text))
        return false;
    address[0] = (uint8_t)a;
    address[1] = (uint8_t)b;
    address[2] = (uint8_t)c;
    address[3] = (uint8_t)d;
    return true;
}

/* PROTOCOL:[ADDR]:PORT:GUESTPORT, which is cut to pieces. */
static bool parse_forward(char *text, struct net_forward *f) {
    char *address = cut(text, ':'), *port = address ? cut(address, ':') : NULL;
    char *guest_port = port ? cut(port, ':') : NULL;

    f->udp = !strcmp(text, "udp");
    if ((!f->udp && strcmp(text, "tcp") != 0) || !guest_port)
        return false;
    f->port = (uint16_t)number(port, 1, 65535);
    f->guest_port = (uint16_t)number(guest_port, 1, 65535);
    return f->port && f->guest_port &&
           parse_address(*address ? address : "127.0.0.1", f->address);
}

bool net_option_parse_forward(const char *text, struct net_forward *f) {
    char copy[128];

    snprintf(copy, sizeof(copy), "%s", text);
    return strlen(text) < sizeof(copy) && parse_forward(copy, f);
}

void net_option_print_forward(const struct net_forward *f,
                              char text[NET_OPTION_FORWARD]) {
    snprintf(text, NET_OPTION_FORWARD, "%s:%u.%u.%u.%u:%u:%u", f->udp ? "udp" : "tcp",
             f->address[0], f->address[1], f->address[2], f->address[3], f->port,
             f->guest_port);
}

static bool take_forward(struct net_config *c, const char *value) {
    if (c->forwards == NET_FORWARDS) {
        log_error("--net user: forward= is possible %u times at most", NET_FORWARDS);
        return false;
    }
    if (net_option_parse_forward(value, &c->forward[c->forwards])) {
        c->forwards++;
        return true;
    }
    log_error("--net: forward= wants tcp or udp, an address of this host or nothing, and "
              "two ports, as in tcp:127.0.0.1:2222:22, not '%s'",
              value);
    return false;
}

static bool take_mac(struct net_option *n, const char *value) {
    unsigned byte[NET_MAC_SIZE];
    int len = 0;

    if (strlen(value) == 17 && strspn(value, "0123456789abcdefABCDEF:") == 17 &&
        sscanf(value, "%2x:%2x:%2x:%2x:%2x:%2x%n", &byte[0], &byte[1], &byte[2], &byte[3],
               &byte[4], &byte[5], &len) == 6 &&
        len == 17 && !(byte[0] & 1)) {
        for (unsigned k = 0; k < NET_MAC_SIZE; k++)
            n->card.mac[k] = (uint8_t)byte[k];
        n->mac_given = true;
        return true;
    }
    log_error("--net: mac= wants the address of one card, as in 52:54:00:12:34:56, not "
              "'%s'",
              value);
    return false;
}

static bool take_mtu(struct net_option *n, const char *value) {
    n->net.mtu = number(value, NET_MTU_MIN, NET_MTU_MAX);
    n->card.mtu = (uint16_t)n->net.mtu;
    if (n->net.mtu)
        return true;
    log_error("--net: mtu= wants a number of bytes from %u to %u, not '%s'", NET_MTU_MIN,
              NET_MTU_MAX, value);
    return false;
}

static bool take_bootfile(struct net_option *n, const char *value) {
    n->net.bootfile = value;
    if (*value && strlen(value) <= NET_BOOTFILE_MAX)
        return true;
    log_error("--net: bootfile= wants a name of at most %u characters", NET_BOOTFILE_MAX);
    return false;
}

static bool take_model(struct net_option *n, const char *value) {
    static const char *const models[] = {"virtio", "e1000"}; /* enum machine_net_model */
    size_t choice;

    if (!options_choice("--net: model", value, models, ARRAY_SIZE(models), &choice))
        return false;
    n->card.model = (enum machine_net_model)choice;
    return true;
}

/* --- parts --- */

static const char *const kind_names[] = {"user", "tap", "socket"}; /* enum net_kind */

/* KIND[=VALUE] */
static bool take_kind(struct net_option *n, char *name) {
    char *value = cut(name, '=');

    n->net.name = value;
    for (size_t k = 0; k < ARRAY_SIZE(kind_names); k++) {
        if (strcmp(name, kind_names[k]) != 0)
            continue;
        n->net.kind = (enum net_kind)k;
        if ((k == NET_USER) == !value && (!value || *value))
            return true;
    }
    log_error("--net wants user, tap=NAME, socket=PATH or none, not '%s%s%s'; `--net "
              "help` tells more",
              name, value ? "=" : "", value ? value : "");
    return false;
}

static const char *const limit_names[] = {/* enum net_limit */
                                          "in", "in-frames", "out", "out-frames"};

/* -1: NAME is no limit. */
static int limit_of(const char *name) {
    for (int k = 0; k < (int)ARRAY_SIZE(limit_names); k++)
        if (!strcmp(name, limit_names[k]))
            return k;
    return -1;
}

static bool take_limit(struct net_option *n, int k, const char *value) {
    char option[32];

    snprintf(option, sizeof(option), "--net: %s", limit_names[k]);
    return options_rate(option, value, k == NET_IN_BYTES || k == NET_OUT_BYTES,
                        &n->net.limit[k]);
}

/* NAME[=VALUE] of those that all kinds have, or that this one has. */
static bool take_part(struct net_option *n, char *name) {
    bool user = n->net.kind == NET_USER, socket = n->net.kind == NET_SOCKET;
    char *value = cut(name, '=');

    if (!strcmp(name, "model") && value)
        return take_model(n, value);
    if (!strcmp(name, "mac") && value)
        return take_mac(n, value);
    if (!strcmp(name, "mtu") && value)
        return take_mtu(n, value);
    if (limit_of(name) >= 0 && value)
        return take_limit(n, limit_of(name), value);
    if (user && !strcmp(name, "forward") && value)
        return take_forward(&n->net, value);
    if (user && !strcmp(name, "restrict") && !value) {
        n->net.restricted = true;
        return true;
    }
    if (user && !strcmp(name, "tftp") && value && *value) {
        n->net.tftp = value;
        return true;
    }
    if (user && !strcmp(name, "bootfile") && value)
        return take_bootfile(n, value);
    if (!strcmp(name, "boot") && (!value || !strcmp(value, "last"))) {
        n->card.boot = value ? MACHINE_NET_LAST : MACHINE_NET_FIRST;
        return true;
    }
    if (socket && !strcmp(name, "listen") && !value) {
        n->net.listen = true;
        return true;
    }
    log_error("--net %s: '%s%s%s' is none of %smodel=, mac=, mtu=, boot and boot=last",
              kind_names[n->net.kind], name, value ? "=" : "", value ? value : "",
              user     ? "forward=, restrict, tftp=, bootfile=, "
              : socket ? "listen, "
                       : "");
    return false;
}

/* QEMU's and others' range for such cards. The two ends of a socket differ. */
static void choose_mac(struct net_option *n, unsigned place) {
    bool other = n->net.kind == NET_SOCKET && n->net.listen;
    const uint8_t mac[] = {
        0x52, 0x54, 0, 0x12, other ? 0x35 : 0x34, (uint8_t)(0x56 + place)};

    if (!n->mac_given)
        memcpy(n->card.mac, mac, sizeof(mac));
}

static struct net_option *add(struct net_options *o, const char *value) {
    struct net_option *n = &o->net[o->count];

    if (o->count == MACHINE_NETS) {
        log_error("--net is possible %u times at most", MACHINE_NETS);
        return NULL;
    }
    *n = (struct net_option){.text = strdup(value)};
    if (!n->text) {
        log_error("out of memory");
        return NULL;
    }
    o->count++;
    return n;
}

static bool take_all(struct net_option *n) {
    char *part = options_cut(n->text);

    if (!take_kind(n, n->text))
        return false;
    while (part) {
        char *rest = options_cut(part);

        if (!take_part(n, part))
            return false;
        part = rest;
    }
    return true;
}

bool net_option_take(struct net_options *o, const char *value) {
    struct net_option *n;

    o->none |= !strcmp(value, "none");
    if (o->none && (o->count || strcmp(value, "none") != 0)) {
        log_error("--net none goes with no other --net");
        return false;
    }
    if (o->none)
        return true;
    n = add(o, value);
    if (!n || !take_all(n))
        return false;
    choose_mac(n, o->count - 1);
    return true;
}

void net_options_free(struct net_options *o) {
    while (o->count)
        free(o->net[--o->count].text);
}

bool net_options_repeat(const struct net_options *o, const char *option) {
    if (!o->count)
        return true;
    log_error("%s: what comes over a network cannot be repeated; leave --net out",
              option);
    return false;
}

bool net_options_boot(const struct net_options *o) {
    for (unsigned k = 0; k < o->count; k++)
        if (o->net[k].card.boot)
            return true;
    return false;
}

static int open_rom(struct machine_net *card, char *why, size_t why_size) {
    if (!card->boot)
        return 0;
    card->rom = firmware_net_rom(card->model, &card->rom_size, why, why_size);
    return card->rom ? 0 : -ENOENT;
}

int net_options_open(const struct net_options *o, enum jail_want jail,
                     struct machine_config *cfg) {
    char why[512];

    cfg->net_count = 0;
    for (unsigned k = 0; k < o->count; k++) {
        struct net_config net = o->net[k].net;
        struct machine_net *card = &cfg->nets[k];
        int rc;

        net.jail = jail;
        *card = o->net[k].card;
        rc = net_open(&net, &card->net, why, sizeof(why));
        if (!rc) {
            cfg->net_count++;
            rc = open_rom(card, why, sizeof(why));
        }
        if (rc) {
            log_error("--net %s: %s", kind_names[net.kind], why);
            net_options_close(cfg);
            return rc;
        }
    }
    return 0;
}

void net_options_close(struct machine_config *cfg) {
    while (cfg->net_count) {
        struct machine_net *card = &cfg->nets[--cfg->net_count];

        net_close(card->net);
        free(card->rom);
    }
}
