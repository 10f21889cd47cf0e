/* Options of virtio's devices: --console, the ports of the virtio console, and --vsock;
 * and opening their far ends. */
#ifndef CTL_VIRTIO_OPTION_H
#define CTL_VIRTIO_OPTION_H

#include "base/jail.h"
#include "machine/machine.h"

/* `--virtio help`: prints what there is to say, and returns true. */
bool virtio_option_help(const char *value);

struct console_options {
    struct console_option {
        char *how, *name; /* of `text`; NAME may be NULL */
        bool console;
        char *text;
    } port[MACHINE_CONSOLES];
    unsigned count;
};

/* Takes the value of --console: HOW[,console][,name=NAME]. False after a message. */
bool console_option_take(struct console_options *o, const char *value);
/* The file that it writes; NULL: it is none. */
const char *console_option_file(const struct console_option *c);
void console_options_free(struct console_options *o);
/* `--console help`: prints what there is to say, and returns true. */
bool console_option_help(const char *value);

/* Opens them all, into the configuration. 0, or -errno after a message. Before there are
 * threads. */
int console_options_open(const struct console_options *o, struct machine_config *cfg);
void console_options_close(struct machine_config *cfg);

/* --vsock: the socket device. */
struct vsock_option {
    uint32_t cid; /* 0: there is none */
    char *path;   /* of `text`; NULL: it was left out */
    char *text;
};

/* Takes CID=N[,path=PATH]. False after a message. */
bool vsock_option_take(struct vsock_option *o, const char *value);
void vsock_option_free(struct vsock_option *o);
/* As console_options_open(). */
int vsock_option_open(const struct vsock_option *o, enum jail_want jail,
                      struct machine_config *cfg);
void vsock_option_close(struct machine_config *cfg);

#endif
