/* The options of `bivisor run` and `bivisor lockstep`; see run_options.h. */
#include "ctl/run_options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ctl/cpu_option.h"
#include "ctl/ctl.h"
#include "ctl/direct_option.h"
#include "ctl/engine_option.h"
#include "ctl/firmware.h"
#include "ctl/options.h"
#include "ctl/runtime.h"

#define DEFAULT_MEMORY (512ull << 20)
#define DEFAULT_EVERY 100000u

static const char *const protocol_names[] = {"auto", "linux32",   "linux64",
                                             "pvh",  "multiboot", "linux16"};
static const char *const monitor_names[] = {"none", "mux", "only"}; /* console_monitor */
static const char *const jail_names[] = {
    "auto", "on", "off", "require"}; /* enum jail_want; the last is "on" */
static const char *const virtio_names[] = {"none", "pci", "mmio"}; /* machine_virtio */
static const char *const strict_name = "strict";                   /* a balloon */
static const char *const policy_names[] = {"flush", "pcid", "trace"};

static void print_help(void) {
    size_t count;
    const struct engine_ops *const *engines = machine_engines(&count);

    printf(
        "usage: bivisor run --kernel FILE | --firmware NAME [OPTION...]\n"
        "Boots a kernel, or what firmware finds; the serial console is this terminal.\n"
        "\n"
        "  --kernel FILE        bzImage, ELF vmlinux (PVH) or multiboot kernel\n"
        "  --initrd FILE        initial RAM disk, or the first multiboot module\n"
        "  --module FILE [ARGS] one more multiboot module and the text that it is given\n"
        "  --firmware NAME      start firmware instead of a kernel: bios, uefi, or a "
        "file\n"
        "  --firmware-vars FILE, --boot-menu, --boot-once WHAT  what UEFI keeps; what "
        "it boots\n"
        "  --append TEXT        kernel command line (default: console=ttyS0)\n"
        "  --memory SIZE, --memory-ceiling SIZE  guest memory (512M), what of it is "
        "used\n"
        "  --cpus N, --cpu-quota P%%  the guest's CPUs (1 to 64), its share of the "
        "host's\n"
        "  --net KIND[,...]     a network card; `--net help` tells more\n"
        "  --engine NAME        how to execute the guest (default: auto)\n");
    for (size_t i = 0; i < count; i++)
        printf("                         %-8s %s\n", engines[i]->name, engines[i]->what);
    printf(
        "  --virtio HOW         pci, mmio or none; `--virtio help` tells of its devices\n"
        "  --disk FILE[,...]    an image or a block device; `--disk help` tells more\n"
        "  --cdrom ISO          an image of a CD or DVD, in an IDE drive\n"
        "  --share TAG=DIR      a directory that the guest can mount; `--share help`\n"
        "  --display HOW        none, text, or vnc=ADDR; `--display help` tells more\n"
        "  --cpu NAME           the CPU that the guest sees; `--cpu help` lists them\n");
    engine_option_help(false);
    printf(
        "  --boot-protocol P    auto, linux16, linux32, linux64, pvh or multiboot\n"
        "  --retention P        shadow MMU keeps address spaces by: flush, pcid, trace\n"
        "  --no-pci, --no-paravirt  ISA devices alone; without KVM's CPUID leaves and "
        "clock\n"
        "  --no-reboot          end the run where the guest would reboot\n"
        "  --stats[=FILE]       write statistics as JSON at the end (default: stderr)\n"
        "  --record FILE        count time by instructions and write all input to FILE\n"
        "  --replay FILE        the run that FILE is of once more, on any software "
        "engine\n"
        "  --name NAME, --daemon  a machine for `bivisor ps` and others, in the "
        "background\n"
        "  --control, --api, --qmp PATH  a socket: JSON, HTTP, or QEMU's protocol\n"
        "  --snapshots DIR[,every=N]  where `snapshot` puts its files, and a recorded "
        "run "
        "some\n"
        "  --gdb WHERE[,wait]   listen for gdb, at unix:PATH or tcp:ADDR:PORT\n"
        "  --direct MODE[,...]  run user code on this CPU: auto, on, off; `--direct "
        "help`\n"
        "  --jail MODE          lock the run up: require (or on), auto (where it can "
        "be), off\n"
        "  --smbios, --fw-cfg   what the guest is told of its machine; `--smbios help`\n"
        "  --log-level LEVEL, --perf-map  off, error, warning, info, debug; a file for "
        "perf\n"
        "\n"
        "On a terminal, Ctrl-A x quits and Ctrl-A h helps; elsewhere all input is the "
        "guest's.\n"
        "exit status: 0 powered off, or quit by Ctrl-A x; 1 host failure; 2 bad usage "
        "or\n"
        "input file; 3 triple fault with --no-reboot; (N << 1) | 1 when the guest "
        "writes\n"
        "N to the debug-exit port 0xf4; death by the signal that ended the run.\n"
        "example: bivisor run --kernel vmlinuz --initrd initrd --memory 1G\n");
}

static void print_lockstep_help(void) {
    printf(
        "usage: bivisor lockstep --kernel FILE | --restore FILE [OPTION...]\n"
        "\n"
        "Runs the same guest on two engines, with time counted by instructions, and\n"
        "compares registers and memory. The first difference is searched for down to\n"
        "the instruction and shown. The guest's console output goes to standard output.\n"
        "\n"
        "  --engines A,B        which two (default: interp,bt)\n"
        "  --every N            instructions between two comparisons (default: 100000)\n"
        "  --restore FILE       both go on from the snapshot FILE, which stands first\n"
        "  --for N              ends after N instructions, with status 0\n"
        "  --input FILE         what is typed at the guest\n"
        "  --replay FILE        what was typed in a recording of `bivisor run --record`\n"
        "  --inject N[@ADDR]    spoil a register of the second after N instructions,\n"
        "                       or the byte of memory at ADDR\n"
        "\n"
        "  --kernel, --initrd, --module, --firmware, --boot-menu, --boot-once,\n"
        "  --append, --memory, --disk, --cdrom, --virtio, --no-rng, --cpu, --retention,\n"
        "  --boot-protocol, --no-pci, --no-paravirt, --no-reboot, --jail, --log-level "
        "as\n"
        "  for `bivisor run`; each machine has the disks for itself (overlay=temp or "
        "readonly);\n"
        "  of the engines:\n");
    engine_option_help(true);
    printf(
        "\n"
        "exit status: the guest's, as for `bivisor run`, when there was no difference;\n"
        "4 when there was one\n");
}

enum {
    OPT_KERNEL = 256,
    OPT_INITRD,
    OPT_MODULE,
    OPT_MODULE_ARGS,
    OPT_FIRMWARE,
    OPT_FIRMWARE_VARS,
    OPT_BOOT_MENU,
    OPT_BOOT_ONCE,
    OPT_APPEND,
    OPT_MEMORY,
    OPT_CPUS,
    OPT_DISK,
    OPT_VIRTIO,
    OPT_CONSOLE,
    OPT_SERIAL,
    OPT_MONITOR,
    OPT_ESCAPE,
    OPT_VSOCK,
    OPT_SHARE,
    OPT_SMBIOS,
    OPT_FW_CFG,
    OPT_DISPLAY,
    OPT_BALLOON,
    OPT_MEMORY_CEILING,
    OPT_NO_RNG,
    OPT_CDROM,
    OPT_NET,
    OPT_ENGINE,
    OPT_CPU,
    OPT_PROTOCOL,
    OPT_RETENTION,
    OPT_JAIL,
    OPT_DIRECT,
    OPT_NO_PARAVIRT,
    OPT_NO_PCI,
    OPT_NO_REBOOT,
    OPT_STATS,
    OPT_PERF_MAP,
    OPT_RECORD,
    OPT_REPLAY,
    OPT_CONTROL,
    OPT_QMP,
    OPT_CPU_QUOTA,
    OPT_API,
    OPT_NAME,
    OPT_DAEMON,
    OPT_GDB,
    OPT_SNAPSHOTS,
    OPT_ENGINES,
    OPT_EVERY,
    OPT_INPUT,
    OPT_INJECT,
    OPT_FOR,
    OPT_VERBOSE,
    OPT_LOG_LEVEL,
    OPT_HELP
};

static const struct option long_options[] = {
    {"kernel", required_argument, NULL, OPT_KERNEL},
    {"initrd", required_argument, NULL, OPT_INITRD},
    {"module", required_argument, NULL, OPT_MODULE},
    {"module-args", required_argument, NULL, OPT_MODULE_ARGS},
    {"firmware", required_argument, NULL, OPT_FIRMWARE},
    {"firmware-vars", required_argument, NULL, OPT_FIRMWARE_VARS},
    {"boot-menu", no_argument, NULL, OPT_BOOT_MENU},
    {"boot-once", required_argument, NULL, OPT_BOOT_ONCE},
    {"append", required_argument, NULL, OPT_APPEND},
    {"memory", required_argument, NULL, OPT_MEMORY},
    {"cpus", required_argument, NULL, OPT_CPUS},
    {"virtio", required_argument, NULL, OPT_VIRTIO},
    {"console", required_argument, NULL, OPT_CONSOLE},
    {"serial", required_argument, NULL, OPT_SERIAL},
    {"monitor", required_argument, NULL, OPT_MONITOR},
    {"escape", required_argument, NULL, OPT_ESCAPE},
    {"vsock", required_argument, NULL, OPT_VSOCK},
    {"share", required_argument, NULL, OPT_SHARE},
    {"smbios", required_argument, NULL, OPT_SMBIOS},
    {"fw-cfg", required_argument, NULL, OPT_FW_CFG},
    {"display", required_argument, NULL, OPT_DISPLAY},
    {"balloon", optional_argument, NULL, OPT_BALLOON},
    {"memory-ceiling", required_argument, NULL, OPT_MEMORY_CEILING},
    {"no-rng", no_argument, NULL, OPT_NO_RNG},
    {"disk", required_argument, NULL, OPT_DISK},
    {"cdrom", required_argument, NULL, OPT_CDROM},
    {"net", required_argument, NULL, OPT_NET},
    {"engine", required_argument, NULL, OPT_ENGINE},
    {"cpu", required_argument, NULL, OPT_CPU},
    {"boot-protocol", required_argument, NULL, OPT_PROTOCOL},
    {"retention", required_argument, NULL, OPT_RETENTION},
    {"jail", required_argument, NULL, OPT_JAIL},
    {"direct", required_argument, NULL, OPT_DIRECT},
    {"no-paravirt", no_argument, NULL, OPT_NO_PARAVIRT},
    {"no-pci", no_argument, NULL, OPT_NO_PCI},
    {"no-reboot", no_argument, NULL, OPT_NO_REBOOT},
    {"stats", optional_argument, NULL, OPT_STATS},
    {"perf-map", no_argument, NULL, OPT_PERF_MAP},
    {"record", required_argument, NULL, OPT_RECORD},
    {"replay", required_argument, NULL, OPT_REPLAY},
    {"control", required_argument, NULL, OPT_CONTROL},
    {"qmp", required_argument, NULL, OPT_QMP},
    {"cpu-quota", required_argument, NULL, OPT_CPU_QUOTA},
    {"api", required_argument, NULL, OPT_API},
    {"name", required_argument, NULL, OPT_NAME},
    {"daemon", no_argument, NULL, OPT_DAEMON},
    {"gdb", required_argument, NULL, OPT_GDB},
    {"snapshots", required_argument, NULL, OPT_SNAPSHOTS},
    {"engines", required_argument, NULL, OPT_ENGINES},
    {"every", required_argument, NULL, OPT_EVERY},
    {"input", required_argument, NULL, OPT_INPUT},
    {"inject", required_argument, NULL, OPT_INJECT},
    {"for", required_argument, NULL, OPT_FOR},
    {"verbose", no_argument, NULL, OPT_VERBOSE},
    {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

static bool engine_known(const char *name) {
    char list[128] = "auto";
    size_t count;
    const struct engine_ops *const *engines = machine_engines(&count);

    if (!strcmp(name, "auto"))
        return true;
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(list);

        if (!strcmp(name, engines[i]->name))
            return true;
        snprintf(list + len, sizeof(list) - len, ", %s", engines[i]->name);
    }
    log_error("--engine wants one of %s, not '%s'", list, name);
    return false;
}

/* A number of instructions. */
static bool take_count(const char *option, const char *text, uint64_t *out) {
    char *rest;

    errno = 0;
    *out = strtoull(text, &rest, 10);
    if (!errno && rest != text && !*rest && *text != '-' && *out)
        return true;
    log_error("%s wants a number of instructions, not '%s'", option, text);
    return false;
}

static bool take_cpus(const char *text, unsigned *out) {
    char *rest;
    unsigned long n;

    errno = 0;
    n = strtoul(text, &rest, 10);
    *out = (unsigned)n;
    if (!errno && *text >= '0' && *text <= '9' && !*rest && n >= 1 && n <= MACHINE_CPUS)
        return true;
    log_error("--cpus wants a number of CPUs from 1 to %u, not '%s'", MACHINE_CPUS, text);
    return false;
}

/* The number of a control character. */
static bool take_escape(const char *text, uint8_t *out) {
    char *rest;
    unsigned long n = strtoul(text, &rest, 0);

    *out = (uint8_t)n;
    if (*text >= '0' && *text <= '9' && !*rest && n >= 1 && n <= 31)
        return true;
    log_error("--escape wants the number of a control character, 1 (Ctrl-A) to 31, not "
              "'%s'",
              text);
    return false;
}

/* N, or N@ADDR. */
static bool take_inject(struct run_options *o, char *text) {
    char *at = strchr(text, '@'), *rest;

    o->inject_at = UINT64_MAX;
    if (at) {
        *at++ = 0;
        errno = 0;
        o->inject_at = strtoull(at, &rest, 0);
        if (errno || rest == at || *rest || *at == '-') {
            log_error("--inject wants an address of guest memory after the @, not '%s'",
                      at);
            return false;
        }
    }
    return take_count("--inject", text, &o->inject);
}

/* DIR, or DIR,every=N. */
static bool take_snapshots(struct run_options *o, char *text) {
    char *every = strstr(text, ",every=");

    o->snapshots = text;
    if (!every)
        return true;
    *every = 0;
    return take_count("--snapshots: every=", every + strlen(",every="),
                      &o->snapshots_every);
}

static bool take_boot_once(struct run_options *o) {
    static const char *const names[] = {"disk", "cdrom", "net"};
    size_t choice;

    if (!options_choice("--boot-once", optarg, names, 3, &choice))
        return false;
    o->machine.boot_once = MACHINE_ONCE_DISK + (enum machine_boot_once)choice;
    return true;
}

/* The word after FILE is its text, if it is no option. */
static bool take_module(struct run_options *o, int argc, char **argv) {
    struct run_module *m = &o->modules[o->module_count];

    if (o->module_count == RUN_MODULES) {
        log_error("--module is possible %u times at most", RUN_MODULES);
        return false;
    }
    *m = (struct run_module){.path = optarg};
    if (optind < argc && argv[optind][0] != '-')
        m->args = argv[optind++];
    o->module_count++;
    return true;
}

/* Text that would look like an option. */
static bool take_module_args(struct run_options *o) {
    if (o->module_count) {
        o->modules[o->module_count - 1].args = optarg;
        return true;
    }
    log_error("--module-args is the text of the --module before it, and there is none");
    return false;
}

bool run_options_close(struct run_options *o, struct boot_image *image) {
    boot_image_close(image);
    free((uint8_t *)(uintptr_t)o->machine.vga_bios);
    o->machine.vga_bios = NULL;
    return firmware_vars_close(&o->machine.vars);
}

int run_options_open(struct run_options *o, bool later, struct boot_image **out,
                     char *why, size_t why_size) {
    const char *path;
    int rc;

    if (o->firmware) {
        path = firmware_find(o->firmware, why, why_size);
        rc = path ? boot_image_open_firmware(path, out, why, why_size) : -EINVAL;
        if (rc)
            return rc;
        o->machine.vga_bios = firmware_vga_bios(&o->machine.vga_bios_size);
        rc = firmware_vars_open(o->firmware, o->firmware_vars, &o->machine.vars, why,
                                why_size);
        if (rc)
            run_options_close(o, *out);
        return rc;
    }
    rc = boot_image_open_later(o->kernel, o->initrd, out, why, why_size);
    if (rc)
        return rc;
    for (size_t i = 0; !rc && i < o->module_count; i++)
        rc = boot_image_add_module(*out, o->modules[i].path, o->modules[i].args, why,
                                   why_size);
    if (!rc && !later)
        rc = boot_image_read(*out, why, why_size);
    if (rc)
        boot_image_close(*out);
    return rc;
}

/* Does the option belong to this command? */
static bool fits(enum run_kind kind, int opt) {
    if (opt >= ENGINE_OPTION_FIRST)
        return kind == RUN_PLAIN || engine_option_owner(opt)->counts;
    switch (opt) {
    case OPT_ENGINES:
    case OPT_EVERY:
    case OPT_INPUT:
    case OPT_INJECT:
    case OPT_FOR:
        return kind == RUN_LOCKSTEP;
    case OPT_ENGINE:
    case OPT_CPUS:
    case OPT_FIRMWARE_VARS:
    case OPT_DIRECT:
    case OPT_RECORD:
    case OPT_CONTROL:
    case OPT_CPU_QUOTA:
    case OPT_API:
    case OPT_NAME:
    case OPT_DAEMON:
    case OPT_GDB:
    case OPT_SNAPSHOTS:
    case OPT_CONSOLE:
    case OPT_SERIAL:
    case OPT_MONITOR:
    case OPT_ESCAPE:
    case OPT_VSOCK:
    case OPT_SHARE:
    case OPT_DISPLAY:
    case OPT_BALLOON:
    case OPT_MEMORY_CEILING:
    case OPT_STATS:
    case OPT_PERF_MAP:
        return kind == RUN_PLAIN;
    default:
        return true;
    }
}

bool run_options_takes(enum run_kind kind, const char *word) {
    const struct option *all = engine_option_table(long_options);
    size_t len = strcspn(word, "=");

    for (const struct option *l = all; l->name; l++)
        if (strlen(l->name) == len && !strncmp(word, l->name, len))
            return fits(kind, l->val);
    return false;
}

/* Takes one option; false when its value is bad. */
static bool take_option(struct run_options *o, int opt, int argc, char **argv) {
    size_t choice;

    if (opt >= ENGINE_OPTION_FIRST)
        return engine_option_take(&o->machine.options, opt, optarg);
    switch (opt) {
    case OPT_KERNEL:
        o->kernel = optarg;
        return true;
    case OPT_INITRD:
        o->initrd = optarg;
        return true;
    case OPT_MODULE:
        return take_module(o, argc, argv);
    case OPT_MODULE_ARGS:
        return take_module_args(o);
    case OPT_FIRMWARE:
        o->firmware = optarg;
        return true;
    case OPT_FIRMWARE_VARS:
        o->firmware_vars = optarg;
        return true;
    case OPT_BOOT_MENU:
        o->machine.boot_menu = true;
        return true;
    case OPT_BOOT_ONCE:
        return take_boot_once(o);
    case OPT_APPEND:
        o->append = optarg;
        return true;
    case OPT_MEMORY:
        return options_size("--memory", optarg, &o->machine.memory);
    case OPT_CPUS:
        return take_cpus(optarg, &o->machine.cpus);
    case OPT_DISK:
        return disk_option_take(&o->disks, optarg);
    case OPT_CDROM:
        return disk_option_take_cdrom(&o->disks, optarg);
    case OPT_NET:
        return net_option_take(&o->nets, optarg);
    case OPT_ENGINE:
        o->machine.engine = optarg;
        return engine_known(optarg);
    case OPT_CPU: /* whoever calls looks at it */
        return true;
    case OPT_PROTOCOL:
        if (!options_choice("--boot-protocol", optarg, protocol_names,
                            ARRAY_SIZE(protocol_names), &choice))
            return false;
        o->machine.boot.protocol = (enum boot_protocol)choice;
        return true;
    case OPT_RETENTION:
        if (!options_choice("--retention", optarg, policy_names, ARRAY_SIZE(policy_names),
                            &choice))
            return false;
        o->machine.policy = (enum mmu_policy)choice;
        return true;
    case OPT_JAIL:
        if (!options_choice("--jail", optarg, jail_names, ARRAY_SIZE(jail_names),
                            &choice))
            return false;
        o->jail = choice == ARRAY_SIZE(jail_names) - 1 ? JAIL_ON : (enum jail_want)choice;
        return true;
    case OPT_DIRECT:
        return direct_option_parse(optarg, &o->machine);
    case OPT_VIRTIO:
        if (!options_choice("--virtio", optarg, virtio_names, ARRAY_SIZE(virtio_names),
                            &choice))
            return false;
        o->machine.virtio = (enum machine_virtio)choice;
        return true;
    case OPT_CONSOLE:
        return console_option_take(&o->consoles, optarg);
    case OPT_SERIAL:
        return serial_option_take(&o->serials, optarg);
    case OPT_MONITOR:
        if (!strncmp(optarg, "socket=", 7) && optarg[7]) {
            o->control[CONTROL_WORDS] = optarg + 7;
            return true;
        }
        if (!options_choice("--monitor", optarg, monitor_names, ARRAY_SIZE(monitor_names),
                            &choice))
            return false;
        o->monitor = (enum console_monitor)choice;
        return true;
    case OPT_ESCAPE:
        return take_escape(optarg, &o->escape);
    case OPT_VSOCK:
        return vsock_option_take(&o->vsock, optarg);
    case OPT_SHARE:
        return share_option_take(&o->shares, optarg);
    case OPT_SMBIOS:
        return smbios_option_take(&o->identity, optarg);
    case OPT_FW_CFG:
        return fw_cfg_option_take(&o->identity, optarg);
    case OPT_DISPLAY:
        return display_option_take(&o->display, optarg);
    case OPT_BALLOON:
        o->machine.balloon = true;
        o->machine.balloon_strict |= optarg != NULL;
        return !optarg || options_choice("--balloon", optarg, &strict_name, 1, &choice);
    case OPT_MEMORY_CEILING:
        return options_size("--memory-ceiling", optarg, &o->memory_ceiling);
    case OPT_NO_RNG:
        o->machine.rng = false;
        return true;
    case OPT_NO_PARAVIRT:
        o->machine.paravirt = false;
        return true;
    case OPT_NO_PCI:
        o->machine.no_pci = true;
        return true;
    case OPT_NO_REBOOT:
        o->no_reboot = true;
        return true;
    case OPT_STATS:
        o->stats = true;
        o->stats_path = optarg;
        return true;
    case OPT_PERF_MAP:
        o->perf_map = true;
        return true;
    case OPT_RECORD:
        o->record = optarg;
        return true;
    case OPT_REPLAY:
        o->replay = optarg;
        return true;
    case OPT_CONTROL:
        o->control[CONTROL_JSON] = optarg;
        return true;
    case OPT_QMP:
        o->control[CONTROL_QMP] = optarg;
        return true;
    case OPT_CPU_QUOTA:
        return options_percent("--cpu-quota", optarg, MACHINE_QUOTA_MAX,
                               &o->machine.cpu_quota);
    case OPT_API:
        o->api = optarg;
        return true;
    case OPT_NAME:
        o->name = optarg;
        return runtime_check_name(optarg);
    case OPT_DAEMON:
        o->daemon = true;
        return true;
    case OPT_GDB:
        o->gdb = optarg;
        return true;
    case OPT_SNAPSHOTS:
        return take_snapshots(o, optarg);
    case OPT_ENGINES:
        o->engines = optarg;
        return true;
    case OPT_EVERY:
        return take_count("--every", optarg, &o->every);
    case OPT_INPUT:
        o->input = optarg;
        return true;
    case OPT_FOR:
        return take_count("--for", optarg, &o->limit);
    case OPT_INJECT:
        return take_inject(o, optarg);
    case OPT_VERBOSE:
        log_set_level(LOG_INFO);
        return true;
    case OPT_LOG_LEVEL:
        return options_log_level(optarg);
    default:
        return false; /* getopt_long() has complained */
    }
}

/* What the machine is, and what it is connected to: a snapshot keeps these. Not where the
 * run can be steered from, and what it tells. */
static bool is_kept(int opt) {
    switch (opt) {
    case OPT_KERNEL:
    case OPT_INITRD:
    case OPT_MODULE:
    case OPT_MODULE_ARGS:
    case OPT_FIRMWARE:
    case OPT_FIRMWARE_VARS:
    case OPT_BOOT_MENU:
    case OPT_BOOT_ONCE:
    case OPT_APPEND:
    case OPT_MEMORY:
    case OPT_CPUS:
    case OPT_DISK:
    case OPT_VIRTIO:
    case OPT_CONSOLE:
    case OPT_SERIAL:
    case OPT_VSOCK:
    case OPT_SHARE:
    case OPT_SMBIOS:
    case OPT_FW_CFG:
    case OPT_BALLOON:
    case OPT_MEMORY_CEILING:
    case OPT_NO_RNG:
    case OPT_CDROM:
    case OPT_NET:
    case OPT_ENGINE:
    case OPT_CPU:
    case OPT_PROTOCOL:
    case OPT_RETENTION:
    case OPT_NO_PARAVIRT:
    case OPT_NO_PCI:
    case OPT_NO_REBOOT:
        return true;
    default:
        return false;
    }
}

static void keep(struct run_options *o, int opt, const char *value) {
    const struct option *l = long_options;

    if (!is_kept(opt) || o->given_count == RUN_GIVEN)
        return;
    while (l->val != opt)
        l++;
    o->given[o->given_count++] = (struct run_given){l->name, value};
}

/* What is to be started is named, once; disks and networks alone are started by a BIOS.
 */
static bool check_source(struct run_options *o, const char *command) {
    const char *other = o->kernel         ? "kernel"
                        : o->initrd       ? "initrd"
                        : o->module_count ? "module"
                                          : NULL;

    bool net = net_options_boot(&o->nets);

    if (!other && !o->firmware && (o->disks.count || net) && !o->machine.no_pci)
        o->firmware = "bios";
    if (o->firmware && other)
        log_error("--%s does not go with --firmware, which loads its own", other);
    else if (!o->firmware && !o->kernel)
        log_error("--kernel FILE is missing; `%s --help` shows an example", command);
    else if (net && !o->firmware)
        log_error("--net: boot is the firmware's: it goes with --firmware");
    else if (o->firmware && o->machine.no_pci)
        log_error("--no-pci does not go with --firmware, which looks for a host bridge");
    else if (!o->firmware &&
             (o->machine.boot_menu || o->machine.boot_once || o->firmware_vars))
        log_error("--%s is the firmware's: it goes with --firmware",
                  o->firmware_vars       ? "firmware-vars"
                  : o->machine.boot_menu ? "boot-menu"
                                         : "boot-once");
    else
        return true;
    return false;
}

/* A machine with a name has a control socket; one in the background, some way in. */
static bool check_name(const struct run_options *o) {
    if (o->name && o->control[CONTROL_JSON])
        log_error("--name has a control socket of its own: leave --control out");
    else if (o->vsock.cid && !o->vsock.path && !o->name)
        log_error("--vsock wants CID=N,path=PATH: the path can be left out with --name");
    else if (o->daemon && !o->name && !o->control[CONTROL_JSON])
        log_error(
            "--daemon wants --name NAME or --control PATH: nobody could end the run");
    else if (o->daemon && o->monitor != CONSOLE_NO_MONITOR)
        log_error("--daemon leaves no terminal to --monitor");
    else if (o->daemon && o->display.kind == DISPLAY_TEXT)
        log_error("--daemon leaves no terminal to --display text");
    else
        return true;
    return false;
}

bool run_options_repeat(const struct run_options *o, const char *option) {
    if (o->firmware_vars) {
        log_error("%s: the run would change '%s', and could not be repeated; leave "
                  "--firmware-vars out",
                  option, o->firmware_vars);
        return false;
    }
    if (o->consoles.count || o->vsock.cid || o->serials.count || o->shares.count ||
        o->display.kind != DISPLAY_NONE) {
        log_error("%s: what comes from outside could not be repeated; leave --%s out",
                  option,
                  o->display.kind    ? "display"
                  : o->shares.count  ? "share"
                  : o->vsock.cid     ? "vsock"
                  : o->serials.count ? "serial"
                                     : "console");
        return false;
    }
    return disk_options_repeat(&o->disks, option) && net_options_repeat(&o->nets, option);
}

/* The balloon is to have what is above the ceiling. */
static void put_ceiling(struct run_options *o) {
    struct machine_config *m = &o->machine;

    if (!o->memory_ceiling)
        return;
    m->balloon = m->balloon_strict = true;
    if (m->memory > o->memory_ceiling)
        m->balloon_pages = (uint32_t)((m->memory - o->memory_ceiling) / 4096);
}

int run_options_parse(struct run_options *o, enum run_kind kind, int argc, char **argv) {
    const struct option *options = engine_option_table(long_options);
    int opt, which = 0, status;

    *o = (struct run_options){
        .engines = "interp,bt",
        .every = DEFAULT_EVERY,
        .machine = {.engine = "auto",
                    .memory = DEFAULT_MEMORY,
                    .paravirt = true,
                    .virtio = MACHINE_VIRTIO_PCI,
                    .rng = true,
                    .policy = MMU_PCID,
                    .direct = DIRECT_AUTO},
    };
    machine_options_default(&o->machine.options);
    direct_option_set.defaults(&o->machine.direct_options);
    argv[0] = (char *)(kind == RUN_PLAIN ? "bivisor run" : "bivisor lockstep");
    while ((opt = getopt_long(argc, argv, "", options, &which)) >= 0) {
        if (opt == OPT_HELP) {
            kind == RUN_PLAIN ? print_help() : print_lockstep_help();
            return CTL_OK;
        }
        if (!fits(kind, opt)) {
            log_error("--%s is no option of `%s`; `%s --help` lists them",
                      options[which].name, argv[0], argv[0]);
            return CTL_USAGE;
        }
        if (opt == OPT_DISK && disk_option_help(optarg))
            return CTL_OK;
        if (opt == OPT_VIRTIO && virtio_option_help(optarg))
            return CTL_OK;
        if ((opt == OPT_CONSOLE || opt == OPT_SERIAL || opt == OPT_MONITOR) &&
            console_option_help(optarg))
            return CTL_OK;
        if (opt == OPT_SHARE && share_option_help(optarg))
            return CTL_OK;
        if ((opt == OPT_SMBIOS || opt == OPT_FW_CFG) && identity_option_help(optarg))
            return CTL_OK;
        if (opt == OPT_DIRECT && direct_option_help(optarg))
            return CTL_OK;
        if (opt == OPT_DISPLAY && display_option_help(optarg))
            return CTL_OK;
        if (opt == OPT_NET && net_option_help(optarg))
            return CTL_OK;
        keep(o, opt, optarg);
        if (!take_option(o, opt, argc, argv))
            return CTL_USAGE;
        if (opt == OPT_CPU &&
            (status = cpu_option_take(optarg, &o->machine, o->cpu_name)) >= 0)
            return status;
    }
    if (optind < argc) {
        log_error("'%s' is not an option; `%s --help` lists them", argv[optind], argv[0]);
        return CTL_USAGE;
    }
    put_ceiling(o);
    identity_options_put(&o->identity, &o->machine);
    if (!check_source(o, argv[0]) || !check_name(o))
        return CTL_USAGE;
    if (o->monitor && o->display.kind == DISPLAY_TEXT) {
        log_error("--monitor wants the terminal that --display text has");
        return CTL_USAGE;
    }
    if (o->replay && (o->record || o->input)) {
        log_error("--replay has the input already: it does not go with --%s",
                  o->record ? "record" : "input");
        return CTL_USAGE;
    }
    if (o->record && !run_options_repeat(o, "--record"))
        return CTL_USAGE;
    if (o->replay && !run_options_repeat(o, "--replay"))
        return CTL_USAGE;
    o->machine.boot.cmdline = o->append ?: display_option_append(&o->display);
    return -1;
}

void run_options_count(struct run_options *o) {
    o->machine.counted = true;
    machine_options_counted(&o->machine.options);
}
