/*
 * What QEMU's options are gathered in. They may come in any order and refer to each other
 * by their `id`s, so each is taken apart where it stands, and qemu/emit.c makes bivisor's
 * options of all of it at the end.
 *
 * Strings are the caller's ARGV or live in `strings`, until qemu_line_free(). Running out
 * of memory is remembered in `failed`; whoever makes a string then gets an empty one, and
 * the end says so.
 */
#ifndef QEMU_QEMU_INT_H
#define QEMU_QEMU_INT_H

#include "base/types.h"

#define QEMU_PAIRS 48u
#define QEMU_DISKS 32u
#define QEMU_NETS 8u
#define QEMU_CHARS 16u
#define QEMU_PORTS 8u
#define QEMU_SHARES 8u
#define QEMU_NOTES 32u
#define QEMU_TOLD 64u
#define QEMU_RUN_MAX 640u
#define QEMU_WORDS 1024u
#define QEMU_WHY 512u

/* An option's value, taken apart: HEAD (NULL: it has none) and pairs; a name without a
 * value has "on". */
struct qemu_pair {
    const char *name, *value;
    bool used;
};
struct qemu_list {
    const char *option; /* for messages: -drive, -device virtio-net-pci */
    const char *head;
    struct qemu_pair pair[QEMU_PAIRS];
    size_t count;
};

enum qemu_disk_how {
    QEMU_IDE,
    QEMU_VIRTIO,
    QEMU_NONE,   /* a -device says */
    QEMU_PFLASH, /* firmware */
};

struct qemu_disk {
    const char *id; /* NULL: none */
    const char *file, *format;
    const char *below; /* of a block device: the node that it is made of */
    enum qemu_disk_how how;
    bool cdrom, readonly, snapshot;
    int sector;    /* logical_block_size; 0: not said */
    int index;     /* -1: the next */
    int bootindex; /* -1: none */
};

struct qemu_net {
    const char *id;
    const char *net; /* as --net has it, without the card */
    bool used;
};
struct qemu_card {
    const char *netdev, *model, *mac; /* MODEL: bivisor's; NULL: the default */
    int bootindex;
};

struct qemu_char {
    const char *id;
    const char *how; /* as --serial and --console have it */
    bool mux;
};
struct qemu_port {
    const char *chardev, *name;
    bool console;
};

struct qemu_share {
    const char *id, *path, *tag;
    bool readonly;
};

/* What the guest is told: an option of bivisor's, and its value. */
struct qemu_told {
    const char *option, *text;
};

struct qemu {
    struct qemu_string *strings;
    bool failed;
    char why[QEMU_WHY];
    char *word[QEMU_WORDS]; /* of the command line, and of files of options */
    size_t word_count;

    /* the machine */
    const char *memory, *cpu, *accel, *firmware, *flash_vars;
    unsigned cpus;
    bool no_paravirt, no_defaults, no_reboot, snapshot, balloon, stopped;
    const char *gdb;
    /* what it starts */
    const char *kernel, *initrd, *append;
    const char *boot_order; /* NULL: as QEMU's */
    char boot_once;         /* a letter as in these; 0: not said */
    bool boot_menu;
    /* what it has */
    struct qemu_disk disk[QEMU_DISKS];
    size_t disk_count;
    struct qemu_net net[QEMU_NETS];
    size_t net_count;
    struct qemu_card card[QEMU_NETS];
    size_t card_count;
    bool net_said; /* -net, -nic or -netdev: there is no card but those */
    const char *legacy_net;
    struct qemu_card legacy_card;
    bool legacy_has_card;
    struct qemu_share share[QEMU_SHARES];
    size_t share_count;
    struct qemu_told told[QEMU_TOLD];
    size_t told_count;
    /* characters */
    struct qemu_char chr[QEMU_CHARS];
    size_t chr_count;
    struct qemu_port port[QEMU_PORTS];
    size_t port_count;
    const char *serial[4];
    size_t serial_count;
    const char *monitor; /* a character device, or NULL: not said */
    const char *qmp;     /* where its protocol is spoken; the same */
    bool heard;          /* one of them is somewhere */
    unsigned escape;     /* a control character; 0: not said */
    bool nographic, display_none, window, curses, tablet;
    const char *vnc;
    /* of bivisor itself */
    bool print, daemonize, paused;
    const char *pidfile, *text;
    const char *own[32]; /* --bivisor */
    size_t own_count;

    const char *notes[QEMU_NOTES];
    size_t note_count;
    char *run[QEMU_RUN_MAX + 1];
    size_t run_count;
};

/* --- text.c --- */

/* A string of Q's. */
char *qemu_format(struct qemu *q, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The sentence for the user; false, for the caller to return. The first one stands. */
bool qemu_refuse(struct qemu *q, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* What is different from what was asked for; each is told once. */
void qemu_note(struct qemu *q, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Takes TEXT apart, which may be an object of JSON. IMPLIED is the name of a first part
 * without one; NULL: that is the head. */
bool qemu_split(struct qemu *q, struct qemu_list *l, const char *option, const char *text,
                const char *implied);
/* The value, or NULL: it is not there. */
const char *qemu_value(struct qemu_list *l, const char *name);
/* The value of a switch: on, off, yes, no, true, false. */
bool qemu_switch(struct qemu *q, struct qemu_list *l, const char *name, bool otherwise,
                 bool *out);
/* A whole number up to MAX, or OTHERWISE. */
bool qemu_number(struct qemu *q, struct qemu_list *l, const char *name, int otherwise,
                 int max, int *out);
/* Whatever has not been asked for is in IGNORED, names with a space after each, or is
 * refused. */
bool qemu_rest(struct qemu *q, struct qemu_list *l, const char *ignored);
/* TEXT with each comma twice. */
const char *qemu_escape(struct qemu *q, const char *text);
/* HOST and PORT as tcp:ADDR:PORT, numbers both. Without a host it is this one's, and for
 * nobody else: QEMU listens at all of its addresses then. NULL after a refusal. */
const char *qemu_port(struct qemu *q, const char *option, const char *host,
                      const char *port, bool listens);
/* TEXT is a decimal number, 0x and hexadecimal digits, or 0 and octal ones. */
bool qemu_parse_number(const char *text, uint64_t *out);
void qemu_free_strings(struct qemu *q);

/* --- options: each takes the value of one; false after qemu_refuse() --- */

/* system.c */
bool qemu_take_memory(struct qemu *q, const char *option, const char *value);
bool qemu_take_smp(struct qemu *q, const char *option, const char *value);
bool qemu_take_cpu(struct qemu *q, const char *option, const char *value);
bool qemu_take_machine(struct qemu *q, const char *option, const char *value);
bool qemu_take_accel(struct qemu *q, const char *option, const char *value);
bool qemu_take_boot(struct qemu *q, const char *option, const char *value);
bool qemu_take_rtc(struct qemu *q, const char *option, const char *value);
bool qemu_take_action(struct qemu *q, const char *option, const char *value);
bool qemu_take_object(struct qemu *q, const char *option, const char *value);
/* disks.c */
bool qemu_take_drive(struct qemu *q, const char *option, const char *value);
bool qemu_take_blockdev(struct qemu *q, const char *option, const char *value);
/* -hda to -hdd, -cdrom, -pflash and a file by itself. */
bool qemu_take_image(struct qemu *q, const char *option, const char *value);
bool qemu_attach_disk(struct qemu *q, struct qemu_list *l, enum qemu_disk_how how,
                      bool cdrom);
/* Of a disk that QEMU has elsewhere: root=/dev/sda holds. */
#define QEMU_AT_IDE "the disk is at IDE, where Linux has it by the same name"
/* nets.c */
bool qemu_take_netdev(struct qemu *q, const char *option, const char *value);
bool qemu_take_nic(struct qemu *q, const char *option, const char *value);
bool qemu_take_net(struct qemu *q, const char *option, const char *value);
bool qemu_attach_card(struct qemu *q, struct qemu_list *l, const char *model);
/* chars.c */
bool qemu_take_chardev(struct qemu *q, const char *option, const char *value);
bool qemu_take_serial(struct qemu *q, const char *option, const char *value);
bool qemu_take_monitor(struct qemu *q, const char *option, const char *value);
bool qemu_take_qmp(struct qemu *q, const char *option, const char *value);
bool qemu_take_mon(struct qemu *q, const char *option, const char *value);
bool qemu_take_parallel(struct qemu *q, const char *option, const char *value);
bool qemu_take_echr(struct qemu *q, const char *option, const char *value);
bool qemu_attach_port(struct qemu *q, struct qemu_list *l, bool console);
/* shares.c */
bool qemu_take_virtfs(struct qemu *q, const char *option, const char *value);
bool qemu_take_fsdev(struct qemu *q, const char *option, const char *value);
bool qemu_attach_share(struct qemu *q, struct qemu_list *l);
/* identity.c */
bool qemu_take_uuid(struct qemu *q, const char *option, const char *value);
bool qemu_take_smbios(struct qemu *q, const char *option, const char *value);
bool qemu_take_fw_cfg(struct qemu *q, const char *option, const char *value);
/* screen.c */
bool qemu_take_display(struct qemu *q, const char *option, const char *value);
bool qemu_take_vga(struct qemu *q, const char *option, const char *value);
bool qemu_take_vnc(struct qemu *q, const char *option, const char *value);
/* devices.c */
bool qemu_take_device(struct qemu *q, const char *option, const char *value);

/* readconfig.c: the words of ARGV, with those of files in the place of -readconfig, in
 * Q. */
bool qemu_expand(struct qemu *q, int argc, char **argv);

/* emit.c: bivisor's options for all of it. */
bool qemu_emit(struct qemu *q);

#endif
