/* `bivisor run`: boots a kernel and is its terminal until it ends. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bug.h"
#include "base/log.h"
#include "base/os.h"
#include "ctl/console.h"
#include "ctl/ctl.h"
#include "ctl/options.h"
#include "ctl/stats.h"
#include "machine/machine.h"

#define DEFAULT_MEMORY (512ull << 20)
#define DEFAULT_APPEND "console=ttyS0"

struct run_options {
    struct machine_config machine;
    const char *kernel;
    const char *initrd;
    const char *append;
    bool no_reboot;
    bool stats;
    bool perf_map;
    const char *stats_path; /* NULL: stderr */
};

/* A signal handler has no argument: what it stops, and the signal. */
static struct machine *volatile signal_machine;
static struct console *volatile signal_console;
static volatile int signal_seen;

static void on_signal(int signo) {
    signal_seen = signo;
    if (signal_machine) {
        console_abandon(signal_console);
        machine_quit(signal_machine);
    }
}

static const char *const protocol_names[] = {"auto", "linux32", "linux64", "pvh",
                                             "multiboot"};
static const char *const irqchip_names[] = {"user", "kernel"};
static const char *const policy_names[] = {"flush", "pcid", "trace"};

static void print_help(void) {
    size_t count;
    const struct engine_ops *const *engines = machine_engines(&count);

    printf("usage: bivisor run --kernel FILE [OPTION...]\n"
           "\n"
           "Boots a kernel; its serial console is this terminal.\n"
           "\n"
           "  --kernel FILE        bzImage, ELF vmlinux (PVH) or multiboot kernel\n"
           "  --initrd FILE        initial RAM disk, or the first multiboot module\n"
           "  --append TEXT        kernel command line (default: " DEFAULT_APPEND ")\n"
           "  --memory SIZE        guest memory, such as 512M or 2G (default: 512M)\n"
           "  --engine NAME        how to execute the guest (default: auto)\n");
    for (size_t i = 0; i < count; i++)
        printf("                         %-8s %s\n", engines[i]->name, engines[i]->what);
    printf(
        "  --irqchip WHERE      with kvm, the local APIC is: user (ours), kernel\n"
        "  --boot-protocol P    auto, linux32, linux64, pvh or multiboot\n"
        "  --retention P        shadow MMU keeps address spaces by: flush, pcid, trace\n"
        "  --bt OPTION,...      switches of the translator; see `bivisor translate "
        "--help`\n"
        "  --no-paravirt        hide the KVM CPUID leaves and clock from the guest\n"
        "  --no-reboot          end the run where the guest would reboot\n"
        "  --stats[=FILE]       write statistics as JSON at the end (default: stderr)\n"
        "  --perf-map           write /tmp/perf-PID.map at the end: guest addresses for "
        "perf\n"
        "  --verbose            tell on stderr what is being done\n"
        "  --help               this text\n"
        "\n"
        "On a terminal, Ctrl-A x quits and Ctrl-A h helps. Elsewhere all input is the\n"
        "guest's, and its end does not end the run.\n"
        "\n"
        "exit status: 0 powered off, or quit by Ctrl-A x; 1 host failure; 2 bad usage "
        "or\n"
        "input file; 3 triple fault with --no-reboot; (N << 1) | 1 when the guest "
        "writes\n"
        "N to the debug-exit port 0xf4; death by the signal that ended the run.\n"
        "\n"
        "example: bivisor run --kernel vmlinuz --initrd initrd --memory 1G\n");
}

enum {
    OPT_KERNEL = 256,
    OPT_INITRD,
    OPT_APPEND,
    OPT_MEMORY,
    OPT_ENGINE,
    OPT_IRQCHIP,
    OPT_PROTOCOL,
    OPT_RETENTION,
    OPT_BT,
    OPT_NO_PARAVIRT,
    OPT_NO_REBOOT,
    OPT_STATS,
    OPT_PERF_MAP,
    OPT_VERBOSE,
    OPT_HELP
};

static const struct option long_options[] = {
    {"kernel", required_argument, NULL, OPT_KERNEL},
    {"initrd", required_argument, NULL, OPT_INITRD},
    {"append", required_argument, NULL, OPT_APPEND},
    {"memory", required_argument, NULL, OPT_MEMORY},
    {"engine", required_argument, NULL, OPT_ENGINE},
    {"irqchip", required_argument, NULL, OPT_IRQCHIP},
    {"boot-protocol", required_argument, NULL, OPT_PROTOCOL},
    {"retention", required_argument, NULL, OPT_RETENTION},
    {"bt", required_argument, NULL, OPT_BT},
    {"no-paravirt", no_argument, NULL, OPT_NO_PARAVIRT},
    {"no-reboot", no_argument, NULL, OPT_NO_REBOOT},
    {"stats", optional_argument, NULL, OPT_STATS},
    {"perf-map", no_argument, NULL, OPT_PERF_MAP},
    {"verbose", no_argument, NULL, OPT_VERBOSE},
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

/* Takes one option; false when its value is bad. */
static bool take_option(struct run_options *o, int opt) {
    size_t choice;

    switch (opt) {
    case OPT_KERNEL:
        o->kernel = optarg;
        return true;
    case OPT_INITRD:
        o->initrd = optarg;
        return true;
    case OPT_APPEND:
        o->append = optarg;
        return true;
    case OPT_MEMORY:
        return options_size("--memory", optarg, &o->machine.memory);
    case OPT_ENGINE:
        o->machine.engine = optarg;
        return engine_known(optarg);
    case OPT_IRQCHIP:
        if (!options_choice("--irqchip", optarg, irqchip_names, ARRAY_SIZE(irqchip_names),
                            &choice))
            return false;
        o->machine.kernel_lapic = choice == 1;
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
    case OPT_BT:
        return options_bt(optarg, &o->machine.bt);
    case OPT_NO_PARAVIRT:
        o->machine.paravirt = false;
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
    case OPT_VERBOSE:
        log_set_level(LOG_INFO);
        return true;
    default:
        return false; /* getopt_long() has complained */
    }
}

/* -1 to go on, or the exit status. */
static int parse(struct run_options *o, int argc, char **argv) {
    int opt;

    *o = (struct run_options){
        .append = DEFAULT_APPEND,
        .machine = {.engine = "auto",
                    .memory = DEFAULT_MEMORY,
                    .paravirt = true,
                    .policy = MMU_PCID,
                    .bt = bt_defaults()},
    };
    argv[0] = (char *)"bivisor run";
    while ((opt = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
        if (opt == OPT_HELP) {
            print_help();
            return CTL_OK;
        }
        if (!take_option(o, opt))
            return CTL_USAGE;
    }
    if (optind < argc) {
        log_error("'%s' is not an option; `bivisor run --help` lists them", argv[optind]);
        return CTL_USAGE;
    }
    if (!o->kernel) {
        log_error("--kernel FILE is missing; `bivisor run --help` shows an example");
        return CTL_USAGE;
    }
    o->machine.boot.cmdline = o->append;
    return -1;
}

static int status_of(int rc) {
    return rc == -EINVAL || rc == -ENOENT || rc == -EACCES || rc == -EISDIR ||
                   rc == -ENOTDIR || rc == -ENOEXEC || rc == -EFBIG || rc == -ELOOP
               ? CTL_USAGE
               : CTL_HOST_FAILURE;
}

static void dump(void *arg) {
    char text[4096];

    vcpu_dump(machine_vcpu(arg), text, sizeof(text));
    fprintf(stderr, "%s", text);
}

static const char *end_name(enum machine_end end) {
    static const char *const names[] = {
        [MACHINE_POWEROFF] = "powered off",      [MACHINE_RESET] = "reset",
        [MACHINE_DEBUG_EXIT] = "debug exit",     [MACHINE_SHUTDOWN] = "triple fault",
        [MACHINE_QUIT] = "stopped from outside", [MACHINE_ERROR] = "host failure",
    };

    return names[end];
}

/* Lives of the machine until one of them is the last. */
static int live(struct machine *m, const struct run_options *o, enum machine_end *end) {
    char why[512];

    for (;;) {
        int rc = machine_boot(m, why, sizeof(why));

        if (rc) {
            log_error("%s", why);
            *end = MACHINE_ERROR;
            return status_of(rc);
        }
        *end = machine_run(m);
        switch (*end) {
        case MACHINE_POWEROFF:
        case MACHINE_QUIT:
            return CTL_OK;
        case MACHINE_DEBUG_EXIT:
            return machine_exit_code(m);
        case MACHINE_ERROR:
            return CTL_HOST_FAILURE;
        case MACHINE_RESET:
            if (o->no_reboot)
                return CTL_OK;
            break;
        case MACHINE_SHUTDOWN:
            if (o->no_reboot)
                return CTL_TRIPLE_FAULT;
            log_info("triple fault: the machine is reset");
            break;
        }
    }
}

static double cpu_seconds(void) {
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void quit_machine(void *arg) {
    machine_quit(arg);
}

static bool take_terminal(struct machine *m, struct console *console) {
    int rc;

    signal_console = console;
    signal_machine = m;
    rc = os_on_stop_signals(on_signal);
    if (!rc)
        rc = console_open(console, quit_machine, m);
    if (rc && !signal_seen)
        log_error("cannot take over the terminal: %s", strerror(-rc));
    return !rc;
}

/* What went wrong on our side makes a good end a bad one; the guest's own verdict stands.
 */
static int worsen(int status, bool failed) {
    return failed && status == CTL_OK ? CTL_HOST_FAILURE : status;
}

/* perf reads it when it reports. In /tmp anyone may have put a link of that name. */
static bool write_perf_map(const struct machine *m) {
    char path[64];
    bool bad;
    int fd;
    FILE *f;

    snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
    unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    f = fd < 0 ? NULL : fdopen(fd, "w");
    bad = !f;
    if (f) {
        machine_perf_map(m, f);
        bad = ferror(f);
        bad |= fclose(f) != 0;
    }
    if (bad)
        log_error("cannot write %s: %s", path, strerror(errno));
    return !bad;
}

/* With the kernel open and the machine made: run, tell what happened. */
static int run_machine(struct machine *m, struct console *console,
                       const struct run_options *o, FILE *stats_file) {
    struct stats_run stats = {0};
    enum machine_end end;
    uint64_t start;
    int status;

    if (!take_terminal(m, console))
        return CTL_HOST_FAILURE;
    log_info("engine %s", machine_engine_name(m));
    start = os_monotonic_ns();
    status = live(m, o, &end);
    stats.wall_seconds = (double)(os_monotonic_ns() - start) * 1e-9;
    stats.cpu_seconds = cpu_seconds();
    stats.end = end_name(end);
    console_close(console);
    if (status == CTL_TRIPLE_FAULT && end == MACHINE_SHUTDOWN) {
        log_error("triple fault; the guest's CPU:");
        dump(m);
    }
    if (console->error)
        log_error("cannot write to standard output: %s", strerror(console->error));
    status = worsen(status, console->error);
    if (o->perf_map)
        status = worsen(status, !write_perf_map(m));
    if (stats_file)
        status = worsen(status, stats_write(m, &stats, stats_file, o->stats_path));
    return status;
}

/* *OUT is NULL when none are wanted. The file is opened before the run, whose figures
 * would be lost if that failed after it. */
static bool open_stats(const struct run_options *o, FILE **out) {
    *out = !o->stats ? NULL : o->stats_path ? fopen(o->stats_path, "we") : stderr;
    if (o->stats && !*out)
        log_error("cannot write statistics to '%s': %s", o->stats_path, strerror(errno));
    return !o->stats || *out;
}

static int with_image(const struct run_options *o, struct console *console) {
    struct machine *m;
    FILE *stats_file;
    char why[512];
    int status = CTL_HOST_FAILURE;
    int rc = machine_create(&o->machine, &m, why, sizeof(why));

    if (rc) {
        log_error("%s", why);
        return status_of(rc);
    }
    if (open_stats(o, &stats_file)) {
        bug_set_dump(dump, m);
        status = run_machine(m, console, o, stats_file);
        bug_set_dump(NULL, NULL);
        signal_machine = NULL;
    }
    machine_free(m);
    return status;
}

int ctl_cmd_run(int argc, char **argv) {
    struct run_options o;
    struct boot_image *image;
    struct console console = {0};
    char why[512];
    int status = parse(&o, argc, argv);
    int rc;

    if (status >= 0)
        return status;
    rc = boot_image_open(o.kernel, o.initrd, &image, why, sizeof(why));
    if (rc) {
        log_error("%s", why);
        return status_of(rc);
    }
    o.machine.image = image;
    o.machine.console = console_ops(&console);
    status = with_image(&o, &console);
    boot_image_close(image);
    if (signal_seen)
        os_die_of(signal_seen); /* so that the caller sees what happened */
    return status;
}
