/* --net: what it asks for, and opening it. */
#ifndef CTL_NET_OPTION_H
#define CTL_NET_OPTION_H

#include "base/jail.h"
#include "machine/machine.h"
#include "net/net.h"

struct net_options {
    struct net_option {
        struct net_config net; /* its strings are `text`'s */
        struct machine_net card;
        bool mac_given;
        char *text;
    } net[MACHINE_NETS];
    unsigned count;
    bool none; /* --net none */
};

/* Takes the value of --net: a kind of network and its options. False after a message. */
bool net_option_take(struct net_options *o, const char *value);
void net_options_free(struct net_options *o);

/* A forward's text, PROTOCOL:[ADDR]:PORT:GUESTPORT; false: it is none. And back. */
#define NET_OPTION_FORWARD 48u
bool net_option_parse_forward(const char *text, struct net_forward *f);
void net_option_print_forward(const struct net_forward *f, char text[NET_OPTION_FORWARD]);

/* OPTION, which repeats a run, goes with no network. False after a message. */
bool net_options_repeat(const struct net_options *o, const char *option);

/* The firmware is to boot from one. */
bool net_options_boot(const struct net_options *o);

/* Opens them all, into the configuration; before there are threads. 0, or -errno after a
 * message. */
int net_options_open(const struct net_options *o, enum jail_want jail,
                     struct machine_config *cfg);
void net_options_close(struct machine_config *cfg);

/* `--net help`: prints what there is to say, and returns true. */
bool net_option_help(const char *value);

#endif
