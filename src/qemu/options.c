/* The table of QEMU's options, and the way through the command line; see qemu.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/control.h"
#include "qemu/qemu.h"
#include "qemu/qemu_int.h"

#define VERSION_TEXT                                                                     \
    "QEMU emulator version " CONTROL_QEMU_VERSION " (bivisor, in QEMU's place)\n"

/* --- options of a line or two --- */

static bool take_text(struct qemu *q, const char *option, const char *value) {
    const char **where = !strcmp(option, "-kernel")    ? &q->kernel
                         : !strcmp(option, "-initrd")  ? &q->initrd
                         : !strcmp(option, "-append")  ? &q->append
                         : !strcmp(option, "-pidfile") ? &q->pidfile
                                                       : &q->firmware;

    *where = value;
    return true;
}

static bool take_flag(struct qemu *q, const char *option, const char *value) {
    bool *where = !strcmp(option, "-nographic")    ? &q->nographic
                  : !strcmp(option, "-nodefaults") ? &q->no_defaults
                  : !strcmp(option, "-no-reboot")  ? &q->no_reboot
                  : !strcmp(option, "-snapshot")   ? &q->snapshot
                  : !strcmp(option, "-S")          ? &q->stopped
                  : !strcmp(option, "--print")     ? &q->print
                                                   : &q->daemonize;

    *where = true;
    return true;
}

static bool take_own(struct qemu *q, const char *option, const char *value) {
    if (q->own_count == ARRAY_SIZE(q->own))
        return qemu_refuse(q, "%s is possible %zu times at most", option, q->own_count);
    q->own[q->own_count++] = value;
    return true;
}

/* tcp:[HOST]:PORT or unix:PATH, and what QEMU says of its sockets, which is what is done;
 * without a value port 1234. */
static bool take_gdb(struct qemu *q, const char *option, const char *value) {
    char *text = qemu_format(q, "%s", value ? value : "tcp::1234");
    char *end = strchr(text, ','), *port;

    if (end)
        *end = 0;
    port = !strncmp(text, "tcp:", 4) ? strrchr(text + 4, ':') : NULL;
    if (!strncmp(text, "unix:", 5) && text[5]) {
        q->gdb = text;
        return true;
    }
    if (!port)
        return qemu_refuse(q, "%s wants tcp:HOST:PORT or unix:PATH, not '%s'", option,
                           value);
    *port++ = 0;
    q->gdb = qemu_format(
        q, "tcp:%s:%s",
        !text[4] || !strcmp(text + 4, "localhost") ? "127.0.0.1" : text + 4, port);
    return true;
}

/* A tablet is there over virtio, with -vnc. */
static bool take_usb(struct qemu *q, const char *option, const char *value) {
    q->tablet = !strcmp(value, "tablet");
    if (!q->tablet)
        qemu_note(q, "%s: the guest goes without USB", option);
    return true;
}

static bool take_no_kvm(struct qemu *q, const char *option, const char *value) {
    q->accel = "bt";
    return true;
}

static bool say(struct qemu *q, const char *option, const char *value) {
    q->text =
        !strcmp(option, "-version") || !strcmp(option, "--version") ? VERSION_TEXT
                                                                    : VERSION_TEXT
            "usage: bivisor qemu [OPTION...] [DISK]\n"
            "\n"
            "Takes the command line of qemu-system-x86_64 and runs what it describes; "
            "also\n"
            "when bivisor is called by that name. docs/qemu.md lists what becomes of "
            "each\n"
            "option. Its own:\n"
            "\n"
            "  --print            show the line of `bivisor run` instead, and run "
            "nothing\n"
            "  --bivisor OPTION   one more option for `bivisor run`, as --stats=FILE\n";
    return true;
}

/* --- the table --- */

/* Takes one option's value; false after qemu_refuse(). */
typedef bool take_fn(struct qemu *q, const char *option, const char *value);

struct entry {
    const char *name;
    bool has_value;
    take_fn *take; /* NULL: there is nothing to do but to tell WHAT, if it is not NULL */
    bool refused;
    const char *what;
};

static const struct {
    const char *name;
    bool has_value;
    take_fn *take;
} taken[] = {
    {"m", true, qemu_take_memory},
    {"smp", true, qemu_take_smp},
    {"cpu", true, qemu_take_cpu},
    {"machine", true, qemu_take_machine},
    {"M", true, qemu_take_machine},
    {"accel", true, qemu_take_accel},
    {"enable-kvm", false, qemu_take_accel},
    {"no-kvm", false, take_no_kvm},
    {"usbdevice", true, take_usb},
    {"kernel", true, take_text},
    {"initrd", true, take_text},
    {"append", true, take_text},
    {"bios", true, take_text},
    {"pidfile", true, take_text},
    {"boot", true, qemu_take_boot},
    {"drive", true, qemu_take_drive},
    {"blockdev", true, qemu_take_blockdev},
    {"hda", true, qemu_take_image},
    {"hdb", true, qemu_take_image},
    {"hdc", true, qemu_take_image},
    {"hdd", true, qemu_take_image},
    {"cdrom", true, qemu_take_image},
    {"pflash", true, qemu_take_image},
    {"device", true, qemu_take_device},
    {"netdev", true, qemu_take_netdev},
    {"nic", true, qemu_take_nic},
    {"net", true, qemu_take_net},
    {"chardev", true, qemu_take_chardev},
    {"serial", true, qemu_take_serial},
    {"monitor", true, qemu_take_monitor},
    {"mon", true, qemu_take_mon},
    {"qmp", true, qemu_take_qmp},
    {"qmp-pretty", true, qemu_take_qmp},
    {"parallel", true, qemu_take_parallel},
    {"echr", true, qemu_take_echr},
    {"virtfs", true, qemu_take_virtfs},
    {"fsdev", true, qemu_take_fsdev},
    {"uuid", true, qemu_take_uuid},
    {"smbios", true, qemu_take_smbios},
    {"fw_cfg", true, qemu_take_fw_cfg},
    {"display", true, qemu_take_display},
    {"curses", false, qemu_take_display},
    {"sdl", false, qemu_take_display},
    {"vnc", true, qemu_take_vnc},
    {"vga", true, qemu_take_vga},
    {"rtc", true, qemu_take_rtc},
    {"action", true, qemu_take_action},
    {"object", true, qemu_take_object},
    {"gdb", true, take_gdb},
    {"s", false, take_gdb},
    {"nographic", false, take_flag},
    {"S", false, take_flag},
    {"nodefaults", false, take_flag},
    {"no-reboot", false, take_flag},
    {"snapshot", false, take_flag},
    {"daemonize", false, take_flag},
    {"version", false, say},
    {"help", false, say},
    {"h", false, say},
};

/* What changes nothing that a guest or a user sees. */
static const struct {
    const char *name;
    bool has_value;
} dropped[] = {
    {"name", true},
    {"L", true},
    {"k", true},
    {"g", true},
    {"D", true},
    {"d", true},
    {"trace", true},
    {"msg", true},
    {"seed", true},
    {"compat", true},
    {"global", true},
    {"sandbox", true},
    {"mem-path", true},
    {"overcommit", true},
    {"tb-size", true},
    {"watchdog-action", true},
    {"no-user-config", false},
    {"nouser-config", false},
    {"no-fd-bootchk", false},
    {"no-hpet", false},
    {"mem-prealloc", false},
    {"usb", false},
    {"full-screen", false},
    {"no-frame", false},
    {"alt-grab", false},
    {"ctrl-grab", false},
    {"no-quit", false},
    {"singlestep", false},
    {"only-migratable", false},
    {"async-teardown", false},
    {"enable-sync-profile", false},
    {"win2k-hack", false},
    {"no-kvm-irqchip", false},
    {"no-kvm-pit", false},
    {"no-kvm-pit-reinjection", false},
    {"std-vga", false},
};

/* What the guest goes without, or is otherwise; and, refused, what the user came for. */
static const struct {
    const char *name;
    bool has_value, refused;
    const char *what;
} others[] = {
    {"no-acpi", false, false, "the guest has ACPI; acpi=off makes Linux do without"},
    {"no-shutdown", false, false, "the run ends when the guest powers off"},
    {"localtime", false, false, "the guest's clock is the host's, in UTC"},
    {"startdate", true, false, "the guest's clock is the host's, in UTC"},
    {"run-with", true, false, "bivisor jails itself, as the user that starts it"},
    {"soundhw", true, false, "the guest goes without sound"},
    {"audio", true, false, "the guest goes without sound"},
    {"audiodev", true, false, "the guest goes without sound"},
    {"watchdog", true, false, "the guest goes without a watchdog"},
    {"tpmdev", true, false, "the guest goes without a TPM"},
    {"icount", true, false, "the guest's time is the host's"},
    {"numa", true, false, "the guest has one NUMA node"},
    {"debugcon", true, false, "the guest goes without a debug console"},
    {"fda", true, true, "there is no floppy drive"},
    {"fdb", true, true, "there is no floppy drive"},
    {"sd", true, true, "there is no SD card; -drive if=virtio has a disk"},
    {"mtdblock", true, true, "there is no such flash"},
    {"acpitable", true, true, "the ACPI tables are bivisor's own"},
    {"dtb", true, true, "a PC has no device tree"},
    {"option-rom", true, true, "there is no place for another ROM"},
    {"loadvm", true, true, "there are no snapshots of a machine"},
    {"incoming", true, true, "there is no migration"},
    {"spice", true, true, "there is no SPICE; -vnc ADDR shows the screen"},
    {"writeconfig", true, true, "--print shows the options that are meant"},
    {"redir", true, true, "-nic user,hostfwd=... forwards ports"},
    {"set", true, true, "properties are given with their device"},
    {"add-fd", true, true, "files are given by name"},
    {"runas", true, true, "bivisor needs no privilege: start it as that user"},
    {"chroot", true, true, "bivisor jails itself; see --jail of `bivisor run`"},
    {"prom-env", true, true, "a PC has no OpenBIOS"},
    {"semihosting", false, true, "a PC has no semihosting"},
    {"preconfig", false, true, "there is no QMP"},
    {"plugin", true, true, "there are no plugins"},
    {"bt", true, true, "there is no Bluetooth"},
};

static bool find(const char *name, struct entry *e) {
    *e = (struct entry){.name = name};
    for (size_t n = 0; n < ARRAY_SIZE(taken); n++) {
        if (!strcmp(taken[n].name, name)) {
            e->has_value = taken[n].has_value;
            e->take = taken[n].take;
            return true;
        }
    }
    for (size_t n = 0; n < ARRAY_SIZE(dropped); n++) {
        if (!strcmp(dropped[n].name, name)) {
            e->has_value = dropped[n].has_value;
            return true;
        }
    }
    for (size_t n = 0; n < ARRAY_SIZE(others); n++) {
        if (!strcmp(others[n].name, name)) {
            e->has_value = others[n].has_value;
            e->refused = others[n].refused;
            e->what = others[n].what;
            return true;
        }
    }
    return false;
}

static bool take(struct qemu *q, const struct entry *e, const char *option,
                 const char *value) {
    if (e->take)
        return e->take(q, option, value);
    if (e->refused)
        return qemu_refuse(q, "%s: %s", option, e->what);
    if (e->what)
        qemu_note(q, "%s: %s", option, e->what);
    return true;
}

/* The option at ARGV[AT]; how many arguments it takes, or 0. Devices refer to what stands
 * elsewhere: they are taken after all else, when DEVICES. */
static int take_at(struct qemu *q, int argc, char **argv, int at, bool devices) {
    const char *text = argv[at], *name = text + 1, *option;
    struct entry e;
    bool own = !strcmp(text, "--print") || !strcmp(text, "--bivisor");

    if (*text != '-' || !*name)
        return devices || qemu_take_image(q, "a disk", text);
    if (!strcmp(text, "--print"))
        return devices || take_flag(q, text, NULL);
    if (own && at + 1 < argc)
        return devices || take_own(q, text, argv[at + 1]) ? 2 : 0;
    name += *name == '-';
    if (!find(name, &e) || own) {
        qemu_refuse(
            q, own ? "%s wants a value" : "there is no option '%s' of QEMU's here", text);
        return 0;
    }
    option = qemu_format(q, "-%s", name);
    if (e.has_value && at + 1 >= argc) {
        qemu_refuse(q, "%s wants a value", option);
        return 0;
    }
    if (devices == (e.take == qemu_take_device) &&
        !take(q, &e, option, e.has_value ? argv[at + 1] : NULL))
        return 0;
    return e.has_value ? 2 : 1;
}

static bool take_all(struct qemu *q, int argc, char **argv) {
    for (int pass = 0; pass < 2; pass++) {
        int count;

        for (int at = 1; at < argc; at += count) {
            count = take_at(q, argc, argv, at, pass);
            if (!count)
                return false;
            if (q->text)
                return true;
        }
    }
    return qemu_emit(q);
}

int qemu_translate(int argc, char **argv, struct qemu_line *out, char *why,
                   size_t why_size) {
    struct qemu *q = calloc(1, sizeof(*q));
    bool good =
        q && qemu_expand(q, argc, argv) && take_all(q, (int)q->word_count, q->word);

    *out = (struct qemu_line){.storage = q};
    if (!q || q->failed) {
        snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    snprintf(why, why_size, "%s", q->why);
    if (!good || q->why[0])
        return -EINVAL;
    *out = (struct qemu_line){.run = q->run,
                              .run_count = q->run_count,
                              .notes = q->notes,
                              .note_count = q->note_count,
                              .print = q->print,
                              .text = q->text,
                              .daemonize = q->daemonize,
                              .paused = q->paused,
                              .pidfile = q->pidfile,
                              .storage = q};
    return 0;
}

void qemu_line_free(struct qemu_line *line) {
    if (line->storage)
        qemu_free_strings(line->storage);
    free(line->storage);
    *line = (struct qemu_line){.run = NULL};
}

bool qemu_is_name(const char *name) {
    const char *base = strrchr(name, '/');

    base = base ? base + 1 : name;
    return !strncmp(base, "qemu-system-x86_64", 18) ||
           !strncmp(base, "qemu-system-i386", 16) || !strcmp(base, "qemu-kvm") ||
           !strcmp(base, "kvm");
}
