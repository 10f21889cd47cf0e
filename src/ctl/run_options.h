/* What `bivisor run` and `bivisor lockstep` are asked to do. */
#ifndef CTL_RUN_OPTIONS_H
#define CTL_RUN_OPTIONS_H

#include "base/jail.h"
#include "control/control.h"
#include "ctl/cpu_option.h"
#include "ctl/disk_option.h"
#include "ctl/display_option.h"
#include "ctl/identity_option.h"
#include "ctl/net_option.h"
#include "ctl/serial_option.h"
#include "ctl/share_option.h"
#include "ctl/virtio_option.h"
#include "machine/machine.h"

#define RUN_MODULES 256

#define RUN_GIVEN 256

enum run_kind { RUN_PLAIN, RUN_LOCKSTEP };

/* An option of those that say what the machine is. */
struct run_given {
    const char *name, *value; /* VALUE may be NULL */
};

struct run_options {
    struct machine_config machine;
    char cpu_name[CPU_OPTION_NAME]; /* the machine's */
    uint64_t memory_ceiling;        /* bytes; 0: none */
    const char *kernel;
    const char *firmware;      /* instead of a kernel: bios, uefi or a file */
    const char *firmware_vars; /* NULL: forgotten */
    const char *initrd;
    struct run_module {
        const char *path, *args; /* ARGS may be NULL */
    } modules[RUN_MODULES];
    size_t module_count;
    struct disk_options disks;
    struct net_options nets;
    struct console_options consoles;
    struct serial_options serials;
    struct vsock_option vsock;
    enum console_monitor monitor;
    uint8_t escape; /* 0: Ctrl-A */
    struct share_options shares;
    struct identity_options identity;
    struct display_option display;
    const char *append;
    bool no_reboot;
    bool stats;
    bool perf_map;
    enum jail_want jail;
    uint64_t start_ns;           /* of the run, on the host's clock */
    const char *stats_path;      /* NULL: stderr */
    const char *record, *replay; /* files */
    /* Where sockets are (os_endpoint_listen()), by what is spoken there. */
    const char *control[CONTROL_SPEECHES];
    const char *api;                   /* path of a socket, for HTTP */
    const char *name;                  /* NULL: it has none */
    char console_path[108];            /* of its console's socket; empty: there is none */
    bool daemon;                       /* it goes on in the background */
    const char *gdb;                   /* what gdb_open() takes */
    const char *snapshots;             /* directory that snapshots are put into */
    uint64_t snapshots_every;          /* instructions: a counted run keeps one; or 0 */
    struct run_given given[RUN_GIVEN]; /* for a snapshot; what is more is not kept */
    size_t given_count;
    /* lockstep */
    const char *engines; /* two, by name */
    const char *input;   /* file to be typed */
    uint64_t every;      /* instructions between two comparisons */
    uint64_t limit;      /* ends after so many; 0: at the guest's end */
    uint64_t inject;     /* for tests: spoil something after so many; 0: do not */
    uint64_t inject_at;  /* the byte of RAM there, or a register if there is none */
};

/* What a counted run's translator does: undefined and dead flags are the interpreter's
 * too, unless --bt asked for something else. */
void run_options_count(struct run_options *o);

/* Nothing comes from outside that could not be repeated, as OPTION wants it; else false
 * after a message. */
bool run_options_repeat(const struct run_options *o, const char *option);
/* The option WORD, without its dashes, is one of KIND's. */
bool run_options_takes(enum run_kind kind, const char *word);

/* Reads the kernel, or the firmware, and all that goes with it. As boot_image_open(). */
/* LATER: kernels are opened, and read by boot_image_read(). */
int run_options_open(struct run_options *o, bool later, struct boot_image **out,
                     char *why, size_t why_size);
/* False: something could not be made durable, and that has been told. */
bool run_options_close(struct run_options *o, struct boot_image *image);

/* -1 to go on, or the exit status after --help or a message. What ARGV names must stay.
 */
int run_options_parse(struct run_options *o, enum run_kind kind, int argc, char **argv);

#endif
