/* `bivisor run`: boots a kernel and is its terminal until it ends. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/bug.h"
#include "base/log.h"
#include "base/os.h"
#include "ctl/console.h"
#include "ctl/ctl.h"
#include "ctl/outputs.h"
#include "ctl/run_options.h"
#include "ctl/stats.h"
#include "machine/machine.h"
#include "replay/tape.h"

/* A signal handler has no argument: what it stops, and the signal. */
static struct machine *volatile signal_machine;
static struct console *volatile signal_console;
static volatile int signal_seen;
static volatile bool report_wanted; /* before there was a machine to report of */

/* What report() needs. */
struct reporter {
    const struct run_options *o;
    struct outputs *outputs;
};

static void on_signal(int signo) {
    signal_seen = signo;
    if (signal_machine) {
        console_abandon(signal_console);
        machine_quit(signal_machine);
    }
}

static void on_report(int signo) {
    report_wanted = true;
    if (signal_machine)
        machine_report(signal_machine);
}

static void dump(void *arg) {
    char text[4096];

    for (unsigned cpu = 0; cpu < machine_cpus(arg); cpu++) {
        vcpu_dump(machine_vcpu(arg, cpu), text, sizeof(text));
        fprintf(stderr, "%s", text);
    }
}

static const char *end_name(enum machine_end end) {
    static const char *const names[] = {
        [MACHINE_POWEROFF] = "powered off",
        [MACHINE_RESET] = "reset",
        [MACHINE_DEBUG_EXIT] = "debug exit",
        [MACHINE_SHUTDOWN] = "triple fault",
        [MACHINE_QUIT] = "stopped from outside",
        [MACHINE_ERROR] = "host failure",
        [MACHINE_PAUSED] = "paused",
        [MACHINE_ASLEEP] = "asleep for ever",
    };

    return names[end];
}

/* Lives of the machine until one of them is the last. */
static int live(struct machine *m, const struct run_options *o, struct tape *tape,
                enum machine_end *end) {
    char why[512];

    for (;;) {
        int rc = machine_boot(m, why, sizeof(why));

        if (rc) {
            log_error("%s", why);
            *end = MACHINE_ERROR;
            return ctl_status_of(rc);
        }
        rc = tape_start(tape, m);
        if (rc) {
            *end = MACHINE_ERROR;
            return ctl_status_of(rc);
        }
        *end = machine_run(m);
        switch (*end) {
        case MACHINE_POWEROFF:
        case MACHINE_QUIT:
            return CTL_OK;
        case MACHINE_DEBUG_EXIT:
            return machine_exit_code(m);
        case MACHINE_PAUSED: /* not asked for here */
        case MACHINE_ERROR:
            return CTL_HOST_FAILURE;
        case MACHINE_ASLEEP:
            log_error("the guest waits for what the recording does not have");
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

/* A replay takes no input, and leaves the terminal as it is. */
static bool take_terminal(struct machine *m, struct console *console, bool input) {
    int rc;

    signal_console = console;
    signal_machine = m;
    if (report_wanted)
        machine_report(m);
    rc = os_on_stop_signals(on_signal);
    if (!rc)
        rc = console_open(console, input, quit_machine, m);
    if (rc && !signal_seen)
        log_error("cannot take over the terminal: %s", strerror(-rc));
    return !rc;
}

/* What went wrong on our side makes a good end a bad one; the guest's own verdict stands.
 */
static int worsen(int status, bool failed) {
    return failed && status == CTL_OK ? CTL_HOST_FAILURE : status;
}

static bool write_perf_map(const struct machine *m, struct output *map) {
    int rc;

    machine_perf_map(m, output_begin(map));
    rc = output_end(map);
    if (rc)
        log_error("cannot write %s: %s", map->path, strerror(-rc));
    return !rc;
}

/* On SIGUSR1: what --stats and --perf-map write at the end, as it is now. */
static void report(void *arg, const struct machine *m) {
    const struct reporter *r = arg;
    struct output *now = &r->outputs->now;
    const struct stats_run figures = {
        .end = "still running",
        .wall_seconds = (double)(os_monotonic_ns() - r->o->start_ns) * 1e-9,
        .cpu_seconds = cpu_seconds(),
    };

    if (r->outputs->map.f)
        write_perf_map(m, &r->outputs->map);
    if (now->f)
        stats_write(m, &figures, now);
    else
        log_error("cannot write statistics to '%s': %s", now->name, strerror(now->error));
}

/* With the kernel open and the machine made: run, tell what happened. */
static int run_machine(struct machine *m, struct console *console,
                       const struct run_options *o, struct tape *tape,
                       struct outputs *outputs) {
    struct stats_run stats = {0};
    enum machine_end end;
    uint64_t start;
    int status;

    if (!take_terminal(m, console, !o->replay))
        return CTL_HOST_FAILURE;
    log_info("engine %s", machine_engine_name(m));
    if (!jail_enter(o->jail, machine_ioctls(m))) {
        console_close(console);
        return CTL_HOST_FAILURE;
    }
    start = os_monotonic_ns();
    status = live(m, o, tape, &end);
    if (!tape_stop(tape, end, signal_seen))
        status = CTL_HOST_FAILURE;
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
    if (outputs->map.f)
        status = worsen(status, !write_perf_map(m, &outputs->map));
    if (outputs->stats.f)
        status = worsen(status, stats_write(m, &stats, &outputs->stats));
    return status;
}

static int with_machine(struct machine *m, const struct run_options *o, struct tape *tape,
                        struct console *console, struct outputs *outputs) {
    int status = outputs_open(outputs, o);

    if (status >= 0)
        return status;
    tape->file = &outputs->record;
    bug_set_dump(dump, m);
    status = run_machine(m, console, o, tape, outputs);
    bug_set_dump(NULL, NULL);
    signal_machine = NULL;
    return worsen(status, !outputs_close(outputs));
}

static int with_image(struct run_options *o, struct tape *tape, struct console *console) {
    struct outputs outputs;
    struct reporter reporter = {.o = o, .outputs = &outputs};
    struct machine *m;
    char why[512];
    int status, rc;

    o->machine.report = report;
    o->machine.report_arg = &reporter;
    rc = machine_create(&o->machine, &m, why, sizeof(why));
    if (rc) {
        log_error("%s", why);
        return ctl_status_of(rc);
    }
    status = with_machine(m, o, tape, console, &outputs);
    machine_free(m);
    return status;
}

static int load_tape(struct tape *tape, struct run_options *o, struct console *console) {
    const struct tape_order order = {
        .record = o->record, .replay = o->replay, .no_reboot = o->no_reboot};
    const struct input_source source = console_source(console);

    if (o->record || o->replay)
        run_options_count(o);
    return tape_load(tape, &order, &o->machine, &source);
}

int ctl_cmd_run(int argc, char **argv) {
    struct run_options o;
    struct boot_image *image;
    struct console console = {0};
    struct tape tape;
    char why[512];
    int status = run_options_parse(&o, RUN_PLAIN, argc, argv);
    int rc;

    if (status >= 0)
        return status;
    os_on_report_signal(on_report);
    rc = run_options_open(&o, &image, why, sizeof(why));
    if (rc) {
        log_error("%s", why);
        return ctl_status_of(rc);
    }
    o.machine.image = image;
    o.machine.console = console_ops(&console);
    o.start_ns = os_monotonic_ns();
    rc = load_tape(&tape, &o, &console);
    status = rc ? ctl_status_of(rc) : with_image(&o, &tape, &console);
    boot_image_close(image);
    if (!signal_seen && status == CTL_OK)
        signal_seen = tape_signal(&tape);
    tape_unload(&tape);
    if (signal_seen)
        os_die_of(signal_seen); /* so that the caller sees what happened */
    return status;
}
