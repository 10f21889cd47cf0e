/* A run: boots a kernel and is its terminal until it ends. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/api.h"
#include "api/gate.h"
#include "base/bug.h"
#include "base/log.h"
#include "base/os.h"
#include "block/block.h"
#include "control/control.h"
#include "ctl/chain.h"
#include "ctl/console.h"
#include "ctl/copy.h"
#include "ctl/ctl.h"
#include "ctl/daemon.h"
#include "ctl/exchange.h"
#include "ctl/forker.h"
#include "ctl/forwards.h"
#include "ctl/gates.h"
#include "ctl/keep.h"
#include "ctl/outputs.h"
#include "ctl/remote.h"
#include "ctl/run_options.h"
#include "ctl/runtime.h"
#include "ctl/serial_option.h"
#include "ctl/snapshots.h"
#include "ctl/stats.h"
#include "ctl/steer.h"
#include "ctl/take.h"
#include "gdb/gdb.h"
#include "machine/machine.h"
#include "replay/tape.h"
#include "stream/stream.h"
#include "vsock/vsock.h"

struct run {
    struct run_options o;
    struct machine *m;
    struct console console;
    struct tape tape;
    struct outputs outputs;
    /* Where it is steered from, by what is spoken there; NULL: nobody listens. */
    struct control *control[CONTROL_SPEECHES];
    struct control_table words; /* the console's monitor has */
    struct gdb *gdb;            /* NULL: no debugger may come */
    struct steer steer;
    enum machine_end end;        /* of the last life */
    struct snapshots *snapshots; /* NULL: there are to be none */
    struct freeze freeze;
    struct take take;
    struct keep keep;
    struct remote remote;
    struct forwards forwards;
    struct exchange exchange;
    struct gates gates;
    struct forker_plan plan;
    struct forker *forker;           /* NULL: clients of the API can make no copies */
    const struct ctl_frozen *frozen; /* what it goes on from; NULL: it boots */
    struct boot_image *image;
    struct os_task report;
    const struct ctl_front *front; /* all zero: `bivisor run` itself */
    struct api *api;               /* NULL: nobody comes */
    bool api_ours;                 /* it was opened here */
    int ready;                     /* who waits for it in the foreground; -1: nobody */
    int copy;                      /* who prepared it as a copy; -1: nobody */
    char dir[RUNTIME_PATH];        /* of machines with names */
    char control_path[RUNTIME_PATH];
    char console_how[RUNTIME_PATH + 8];
    char vsock_path[RUNTIME_PATH];
};

/* A signal handler has no argument: the run whose machine is there, and the signal. */
static struct run *volatile signalled;
static volatile int signal_seen;
static volatile bool report_wanted; /* before there was a machine to report of */

static void on_signal(int signo) {
    struct run *r = signalled;

    signal_seen = signo;
    if (r) {
        console_abandon(&r->console);
        machine_quit(r->m);
    }
}

static void on_report(int signo) {
    struct run *r = signalled;

    report_wanted = true;
    if (r)
        os_task_post(&r->report, machine_loop(r->m));
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
        [MACHINE_REWOUND] = "rewound",
        [MACHINE_ASLEEP] = "asleep for ever",
    };

    return names[end];
}

/* QEMU's word for why the run has ended. */
static const char *cause_of(const struct run *r) {
    switch (r->end) {
    case MACHINE_POWEROFF:
    case MACHINE_DEBUG_EXIT:
        return "guest-shutdown";
    case MACHINE_RESET:
    case MACHINE_SHUTDOWN:
        return r->steer.resets ? "host-qmp-system-reset" : "guest-reset";
    case MACHINE_QUIT:
        return signal_seen ? "host-signal" : r->steer.quits ? "host-qmp-quit" : "host-ui";
    default:
        return "host-error";
    }
}

/* Waits for what has changed since the snapshot that a copy has been prepared from. */
static int begin_copy(struct run *r, const struct ctl_frozen *f) {
    struct copy_rest rest;
    char why[512];
    int rc = copy_wait(f->copy, &f->chain->link[0], &rest, why, sizeof(why));

    if (!rc) {
        rc = chain_show_changes(r->m, rest.ram, &rest.increment);
        snprintf(why, sizeof(why), "its memory: %s", strerror(-rc));
    }
    if (!rc)
        rc = machine_restore(r->m, rest.state, why, sizeof(why));
    copy_rest_free(&rest);
    if (rc)
        log_error("the copy does not run: %s", why);
    return rc;
}

/* The first life may be that of a snapshot. 0, or -errno after a message. */
static int begin_life(struct run *r) {
    const struct ctl_frozen *f = r->frozen;
    char why[512];
    int rc;

    if (!f) {
        rc = boot_image_read(r->image, why, sizeof(why));
        if (!rc)
            rc = machine_boot(r->m, why, sizeof(why));
        if (rc)
            log_error("%s", why);
        return rc;
    }
    r->frozen = NULL;
    if (f->copy >= 0) {
        rc = begin_copy(r, f);
    } else {
        rc = machine_restore(r->m, f->state, why, sizeof(why));
        if (rc)
            log_error("cannot restore '%s': %s", f->path, why);
    }
    if (!rc && !r->o.machine.counted) /* there the future is the same, too */
        machine_generation_next(r->m);
    return rc;
}

/* The life that a debugger wants once more. The same. */
static int go_back(struct run *r) {
    char why[512];
    int rc = machine_rewind(r->m, why, sizeof(why));

    if (rc)
        log_error("cannot go back: %s", why);
    return rc;
}

/* Lives of the machine until one of them is the last. */
static int live(struct run *r) {
    enum machine_end *end = &r->end;
    struct machine *m = r->m;
    bool rewound = false, waits = r->front->paused;

    for (;;) {
        int rc = rewound ? go_back(r) : begin_life(r);

        rewound = false;
        if (rc) {
            *end = MACHINE_ERROR;
            return ctl_status_of(rc);
        }
        rc = tape_start(&r->tape, m);
        if (rc) {
            *end = MACHINE_ERROR;
            return ctl_status_of(rc);
        }
        machine_checkpoints_begin(m);
        if (!daemon_ready(&r->ready))
            machine_quit(m);
        if (r->copy >= 0)
            copy_runs(&r->copy);
        if (r->api)
            api_running(r->api);
        if (r->gdb)
            gdb_before_run(r->gdb);
        if (waits)
            machine_pause(m);
        waits = false;
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
        case MACHINE_REWOUND:
            rewound = true;
            break;
        case MACHINE_ASLEEP:
            log_error("the guest waits for what the recording does not have");
            return CTL_HOST_FAILURE;
        case MACHINE_RESET:
            if (r->o.no_reboot)
                return CTL_OK;
            break;
        case MACHINE_SHUTDOWN:
            if (r->o.no_reboot)
                return r->front->qemu ? CTL_OK : CTL_TRIPLE_FAULT;
            log_info("triple fault: the machine is reset");
            break;
        }
        if (!rewound)
            control_event(r->control[CONTROL_QMP], "RESET", cause_of(r));
        r->steer.resets = false;
    }
}

/* A replay takes no input, and leaves the terminal as it is; one that shows the screen is
 * taken later. */
static bool take_terminal(struct run *r) {
    const bool shown = r->o.display.kind == DISPLAY_TEXT;
    const struct console_config cfg = {.input = !r->o.replay && !shown,
                                       .escape = r->o.escape,
                                       .monitor = r->o.monitor,
                                       .words = &r->words,
                                       .lend = serial_options_lent(&r->o.machine)};
    int rc;

    signalled = r;
    if (report_wanted)
        os_task_post(&r->report, machine_loop(r->m));
    rc = os_on_stop_signals(on_signal);
    if (!rc)
        rc = console_open(&r->console, &cfg, r->m);
    if (rc && !signal_seen)
        log_error("cannot take over the terminal: %s", strerror(-rc));
    return !rc;
}

static bool start_control(struct run *r) {
    int rc = 0;

    r->steer = (struct steer){.m = r->m, .console = &r->console, .o = &r->o};
    steer_add(&r->steer, &r->words);
    forwards_add(&r->forwards, &r->words);
    exchange_add_discs(&r->exchange, NULL, &r->words);
    rc = remote_start(&r->remote);
    for (unsigned n = 0; n < CONTROL_SPEECHES && !rc; n++) {
        if (!r->control[n])
            continue;
        steer_add(&r->steer, control_table(r->control[n]));
        forwards_add(&r->forwards, control_table(r->control[n]));
        exchange_add_discs(&r->exchange, r->gates.gate[n], control_table(r->control[n]));
        if (n == CONTROL_JSON) {
            take_add(&r->take, control_table(r->control[n]));
            remote_add(&r->remote, control_table(r->control[n]));
        }
        rc = control_start(r->control[n], machine_loop(r->m));
    }
    if (!rc && r->api) {
        steer_add(&r->steer, api_table(r->api));
        take_add(&r->take, api_table(r->api));
        remote_add(&r->remote, api_table(r->api));
        forwards_add(&r->forwards, api_table(r->api));
        forker_add(r->forker, api_table(r->api));
        exchange_add(&r->exchange, api_table(r->api));
        rc = forker_start(r->forker, machine_loop(r->m));
        if (!rc)
            rc = api_start(r->api, machine_loop(r->m));
    }
    if (rc)
        log_error("cannot wait for clients: %s", strerror(-rc));
    return !rc;
}

static void quit(void *arg) {
    struct run *r = arg;

    console_abandon(&r->console);
    machine_quit(r->m);
}

static bool start_gdb(struct run *r) {
    int rc = r->gdb ? gdb_start(r->gdb, r->m, quit, r) : 0;

    if (rc)
        log_error("--gdb: cannot listen: %s", strerror(-rc));
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
static void report_here(void *arg) {
    struct run *r = arg;
    struct output *now = &r->outputs.now;
    const struct stats_run figures = stats_so_far(r->o.start_ns);

    if (r->outputs.map.f)
        write_perf_map(r->m, &r->outputs.map);
    if (now->f)
        stats_write(r->m, &figures, now);
    else
        log_error("cannot write statistics to '%s': %s", now->name, strerror(now->error));
}

static void report(void *arg) {
    struct run *r = arg;

    machine_call(r->m, report_here, r);
}

/* Everything is open: run, and tell what happened. */
static int run_locked_up(struct run *r) {
    struct outputs *outputs = &r->outputs;
    struct stats_run stats = {0};
    uint64_t start = os_monotonic_ns();
    int status = live(r);

    if (r->gdb)
        gdb_ended(r->gdb, status, signal_seen);
    if (!tape_stop(&r->tape, r->end, signal_seen))
        status = CTL_HOST_FAILURE;
    stats.wall_seconds = (double)(os_monotonic_ns() - start) * 1e-9;
    stats.cpu_seconds = stats_cpu_seconds();
    stats.end = end_name(r->end);
    display_option_stop(&r->o.display);
    console_close(&r->console);
    if (status == CTL_TRIPLE_FAULT && r->end == MACHINE_SHUTDOWN) {
        log_error("triple fault; the guest's CPU:");
        dump(r->m);
    }
    if (r->console.error)
        log_error("cannot write to standard output: %s", strerror(r->console.error));
    status = worsen(status, r->console.error);
    if (outputs->map.f)
        status = worsen(status, !write_perf_map(r->m, &outputs->map));
    if (outputs->stats.f)
        status = worsen(status, stats_write(r->m, &stats, &outputs->stats));
    return status;
}

static int serve_metadata(const struct run *r) {
    const struct machine_config *cfg = &r->o.machine;
    struct net *nets[MACHINE_NETS];

    for (unsigned n = 0; n < cfg->net_count; n++)
        nets[n] = cfg->nets[n].net;
    return r->api ? api_serve_metadata(r->api, nets, cfg->net_count) : 0;
}

/* And the console's streams. */
static bool start_nets(struct run *r) {
    int rc = serve_metadata(r);

    if (!rc)
        rc = machine_start_nets(r->m);

    if (rc)
        log_error("cannot wait for the network: %s", strerror(-rc));
    if (!rc && ((rc = machine_start_consoles(r->m)) || (rc = machine_start_vsock(r->m)) ||
                (rc = machine_start_shares(r->m))))
        log_error("cannot wait for the other side of a device: %s", strerror(-rc));
    return !rc;
}

/* Where clients and peers come, and a -1. */
static void list_listeners(const struct run *r, int *out) {
    const struct machine_config *cfg = &r->o.machine;

    for (unsigned n = 0; n < CONTROL_SPEECHES; n++)
        if (r->control[n])
            *out++ = control_socket(r->control[n]);
    if (r->api && api_gate(r->api))
        *out++ = gate_listener(api_gate(r->api));
    if (r->gdb)
        *out++ = gdb_socket(r->gdb);
    for (unsigned n = 0; n < cfg->net_count; n++)
        if (net_listener(cfg->nets[n].net) >= 0)
            *out++ = net_listener(cfg->nets[n].net);
    for (unsigned n = 0; n < cfg->console_count; n++)
        if (stream_listener(cfg->consoles[n].stream) >= 0)
            *out++ = stream_listener(cfg->consoles[n].stream);
    for (unsigned n = 0; n < cfg->serial_count; n++)
        if (cfg->serials[n].stream && stream_listener(cfg->serials[n].stream) >= 0)
            *out++ = stream_listener(cfg->serials[n].stream);
    if (cfg->vsock)
        *out++ = vsock_listener(cfg->vsock);
    *out = -1;
}

/* Where processes are asked for files, with a client if one has come; and a -1. */
static void list_gates(const struct run *r, int *out) {
    out += gates_list(&r->gates, out);
    if (r->api && api_gate(r->api))
        *out++ = gate_socket(api_gate(r->api));
    *out = -1;
}

/* Where processes hand over what may not be opened here: connections to disks' servers
 * and for the guest, files of snapshots; and a -1. */
static void list_handing(const struct run *r, int *out) {
    const struct machine_config *cfg = &r->o.machine;

    for (unsigned n = 0; n < cfg->disk_count; n++)
        out += block_sockets(cfg->disks[n].block, out);
    if (cfg->vsock)
        *out++ = vsock_connector(cfg->vsock);
    if (r->snapshots)
        *out++ = snapshots_socket(r->snapshots);
    if (r->copy >= 0)
        *out++ = r->copy;
    list_gates(r, out);
}

static int run_machine(struct run *r) {
    int listeners[MACHINE_NETS + MACHINE_CONSOLES + MACHINE_SERIALS + 5];
    int handing[MACHINE_DISKS * BLOCK_SOCKETS_MAX + 5 + CONTROL_SPEECHES];
    int sending[CONTROL_SPEECHES + 2];
    const struct os_jail_needs needs = {.cpu_ioctls = machine_ioctls(r->m),
                                        .device_ioctls = machine_device_ioctls(r->m),
                                        .listeners = listeners,
                                        .handing = handing,
                                        .sending = sending,
                                        .any_thread = r->o.machine.counted};

    list_listeners(r, listeners);
    list_handing(r, handing);
    list_gates(r, sending);
    if (!take_terminal(r))
        return CTL_HOST_FAILURE;
    log_info("engine %s", machine_engine_name(r->m));
    if (!r->o.machine.counted)
        os_thread_prompt(); /* clients wait for it while CPUs compute */
    if (start_control(r) && start_gdb(r) && start_nets(r) &&
        display_option_start(&r->o.display, r->o.escape, r->m, quit, r) &&
        (!r->front->ready || r->front->ready(r->front->arg)) &&
        (!r->api || api_settle(r->api)) && gates_settle(&r->gates) &&
        jail_enter(r->o.jail, &needs))
        return run_locked_up(r);
    display_option_stop(&r->o.display);
    console_close(&r->console);
    return CTL_HOST_FAILURE;
}

static int with_outputs(struct run *r) {
    int status = outputs_open(&r->outputs, &r->o);

    if (status >= 0)
        return status;
    r->tape.file = &r->outputs.record;
    bug_set_dump(dump, r->m);
    status = run_machine(r);
    bug_set_dump(NULL, NULL);
    signalled = NULL;
    return worsen(status, !outputs_close(&r->outputs));
}

static void close_controls(struct run *r) {
    for (unsigned n = 0; n < CONTROL_SPEECHES; n++) {
        control_close(r->control[n]);
        r->control[n] = NULL;
    }
    gates_close(&r->gates);
}

/* What it goes on from has memory, and says what was hot. */
static int show_memory(struct run *r) {
    const struct ctl_frozen *f = r->frozen;
    int rc = f ? chain_show(f->chain, r->m) : 0;

    if (rc || !f || machine_warm_begin(r->m, f->state))
        return rc;
    log_error("cannot restore '%s': %s", f->path, snapshot_why(f->state));
    return -EINVAL;
}

static int with_machine(struct run *r) {
    char why[512];
    int status, rc;

    r->report = (struct os_task){.fn = report, .arg = r};
    r->end = MACHINE_ERROR; /* if nothing comes to run */
    rc = machine_create(&r->o.machine, &r->m, why, sizeof(why));
    if (rc) {
        log_error("%s", why);
        return ctl_status_of(rc);
    }
    rc = show_memory(r);
    r->take.m = r->m;
    r->take.loop = machine_loop(r->m);
    r->take.freeze = &r->freeze;
    r->take.files = r->snapshots;
    r->take.gate = r->api ? api_gate(r->api) : NULL;
    r->exchange = (struct exchange){.m = r->m,
                                    .gate = r->take.gate,
                                    .o = &r->o,
                                    .freeze = &r->freeze,
                                    .forker = r->forker};
    r->forwards.machine = &r->o.machine;
    r->remote.vsock = r->o.machine.vsock;
    r->remote.loop = machine_loop(r->m);
    if (!rc)
        take_from(&r->take, r->frozen ? r->frozen->chain : NULL);
    keep_begin(&r->keep, &r->take);
    status = rc ? ctl_status_of(rc) : with_outputs(r);
    if (r->api)
        api_stop(r->api);
    control_event(r->control[CONTROL_QMP], "SHUTDOWN", cause_of(r));
    close_controls(r);
    forker_stop(r->forker);
    take_end(&r->take);
    exchange_end(&r->exchange);
    remote_end(&r->remote);
    gdb_close(r->gdb);
    r->gdb = NULL;
    machine_stop_nets(r->m);
    machine_stop_consoles(r->m);
    machine_stop_vsock(r->m);
    machine_stop_shares(r->m);
    machine_free(r->m);
    return status;
}

/* As with_control(). */
static int with_nets(struct run *r) {
    struct machine_config *cfg = &r->o.machine;
    int rc = net_options_open(&r->o.nets, r->o.jail, cfg), status;

    if (rc)
        return ctl_status_of(rc);
    rc = outputs_spare(&r->o) ? console_options_open(&r->o.consoles, cfg) : -EINVAL;
    if (!rc)
        rc = serial_options_open(&r->o.serials, r->o.monitor,
                                 r->o.display.kind == DISPLAY_TEXT, cfg);
    if (!rc)
        rc = vsock_option_open(&r->o.vsock, r->o.jail, cfg);
    if (!rc)
        rc = share_options_open(&r->o.shares, r->o.jail, cfg);
    if (!rc)
        rc = display_option_open(&r->o.display, r->o.jail, cfg);
    status = rc ? ctl_status_of(rc) : with_machine(r);
    display_option_close(&r->o.display);
    share_options_close(cfg);
    vsock_option_close(cfg);
    serial_options_close(cfg);
    console_options_close(cfg);
    net_options_close(cfg);
    return status;
}

/* What the guest writes to a disk is there in its second life, too. */
static bool rewinds(const struct run_options *o) {
    const struct machine_config *cfg = &o->machine;

    for (unsigned n = 0; n < cfg->disk_count; n++)
        if (!block_readonly(cfg->disks[n].block))
            return false;
    return o->replay && o->gdb;
}

/* From a snapshot of a run that counted time. */
static bool goes_on_counting(const struct run *r) {
    return r->frozen && r->frozen->counted;
}

static int load_tape(struct run *r) {
    struct run_options *o = &r->o;
    const struct ctl_frozen *f = r->frozen;
    const bool frozen = goes_on_counting(r);
    const struct tape_order order = {.record = o->record,
                                     .replay = o->replay,
                                     .no_reboot = o->no_reboot,
                                     .frozen = frozen,
                                     .start_ns = frozen ? f->start_ns : 0};
    const struct input_source source = console_source(&r->console);

    if (o->record || o->replay || frozen)
        run_options_count(o);
    if (o->snapshots_every && !o->machine.counted) {
        log_error("--snapshots: every= counts instructions, which --record and --replay "
                  "do");
        return -EINVAL;
    }
    keep_config(&r->keep, &o->machine, o->snapshots_every);
    o->machine.rewinds = rewinds(o);
    return tape_load(&r->tape, &order, &o->machine, &source);
}

/* As with_control(). */
static int with_gdb(struct run *r) {
    char why[512];
    int rc = r->o.gdb ? gdb_open(r->o.gdb, &r->gdb, why, sizeof(why)) : 0;
    int status;

    if (rc) {
        log_error("%s", why);
        return ctl_status_of(rc);
    }
    status = with_nets(r);
    gdb_close(r->gdb);
    return status;
}

/* As with_control(): the process is the last that is made before threads. */
static int with_copies(struct run *r) {
    char *const *words = r->api && r->front->copies ? api_copy_words(r->api) : NULL;
    int rc = 0, status;

    if (words && r->snapshots) {
        r->plan = (struct forker_plan){.of = &r->o,
                                       .dir = snapshots_path(r->snapshots),
                                       .option = words,
                                       .make = r->front->copies};
        rc = forker_open(&r->plan, &r->forker);
    }
    if (rc) {
        log_error("cannot make the process that makes copies: %s", strerror(-rc));
        return ctl_status_of(rc);
    }
    status = with_gdb(r);
    forker_close(r->forker);
    return status;
}

/* As with_control(). */
static int with_snapshots(struct run *r) {
    char why[512];
    int rc = 0, status;

    if (r->o.snapshots)
        rc = snapshots_open(r->o.snapshots, r->o.jail, &r->snapshots, why, sizeof(why));
    if (rc) {
        log_error("--snapshots: %s", why);
        return ctl_status_of(rc);
    }
    r->freeze = (struct freeze){.options = &r->o, .api = r->api};
    r->o.machine.notes = r->snapshots || r->api;
    if (r->snapshots || r->api) {
        freeze_look(&r->freeze);
        freeze_watch(&r->freeze);
    }
    status = with_copies(r);
    freeze_end(&r->freeze);
    snapshots_close(r->snapshots);
    return status;
}

/* As with_control(). */
static int with_api(struct run *r) {
    const struct api_about about = {.id = r->o.name ? r->o.name : "bivisor",
                                    .version = CTL_VERSION};
    char why[512];
    int rc = 0, status;

    r->api_ours = r->o.api && !r->api;
    if (r->api_ours)
        rc = api_open(r->o.api, &about, &r->api, why, sizeof(why));
    if (!rc && r->api_ours && r->frozen)
        rc = api_restored(r->api, r->frozen->api, why, sizeof(why));
    if (rc) {
        log_error("--api: %s", why);
        return ctl_status_of(rc);
    }
    status = with_snapshots(r);
    if (r->api_ours)
        api_close(r->api);
    return status;
}

/* Nobody else may take the name, or remove the socket, meanwhile. */
static int open_named(struct run *r, char *why, size_t why_size) {
    int lock = runtime_lock(r->dir), rc;

    if (lock < 0) {
        snprintf(why, why_size, "cannot lock '%s': %s", r->dir, strerror(-lock));
        return lock;
    }
    rc = control_open(r->control_path, CONTROL_JSON, &r->control[CONTROL_JSON], why,
                      why_size);
    if (rc == -EADDRINUSE)
        snprintf(why, why_size, "a machine called '%s' runs already", r->o.name);
    close(lock);
    return rc;
}

/* The sockets make a process each, and are therefore before there are threads. */
static int with_control(struct run *r) {
    static const char *const options[] = {
        [CONTROL_JSON] = "control", [CONTROL_QMP] = "qmp", [CONTROL_WORDS] = "monitor"};
    char why[512];
    int rc = r->o.name ? open_named(r, why, sizeof(why)) : 0, status;

    if (rc)
        log_error("--name: %s", why);
    for (unsigned n = 0; n < CONTROL_SPEECHES && !rc; n++) {
        if (r->o.control[n])
            rc = control_open(r->o.control[n], n, &r->control[n], why, sizeof(why));
        if (rc)
            log_error("--%s: %s", options[n], why);
    }
    if (!rc)
        rc = gates_open(&r->gates, &r->o.machine, r->control);
    status = rc ? ctl_status_of(rc) : with_api(r);
    close_controls(r);
    return status;
}

static int with_disks(struct run *r) {
    struct machine_config *cfg = &r->o.machine;
    int rc = disk_options_open(&r->o.disks, r->o.jail, cfg), status;

    if (rc)
        return ctl_status_of(rc);
    rc = load_tape(r);
    status = rc ? ctl_status_of(rc) : with_control(r);
    return worsen(status, !disk_options_close(cfg));
}

static int with_image(struct run *r) {
    struct run_options *o = &r->o;
    struct boot_image *image;
    char why[512];
    int rc = run_options_open(o, r->frozen, &image, why, sizeof(why)), status;

    if (rc) {
        log_error("%s", why);
        return ctl_status_of(rc);
    }
    o->machine.image = r->image = image;
    o->machine.console = console_ops(&r->console);
    o->start_ns = os_monotonic_ns();
    status = with_disks(r);
    status = worsen(status, !run_options_close(o, image));
    if (!signal_seen && status == CTL_OK)
        signal_seen = tape_signal(&r->tape);
    tape_unload(&r->tape);
    return status;
}

/* The status as QEMU has it: what the guest said at the debug-exit port is odd, all that
 * went wrong is 1, and all else 0. */
static int as_qemu(int status) {
    signal_seen = 0;
    return status == CTL_USAGE ? CTL_HOST_FAILURE : status;
}

/* What --name and --daemon say about sockets and the console. -1, or the exit status. */
static int place(struct run *r) {
    struct run_options *o = &r->o;

    if (o->name && !(runtime_dir(true, r->dir, sizeof(r->dir)) &&
                     runtime_path(r->dir, o->name, RUNTIME_CONTROL, r->control_path)))
        return CTL_HOST_FAILURE;
    if (o->vsock.cid && !o->vsock.path) {
        if (!runtime_path(r->dir, o->name, RUNTIME_VSOCK, r->vsock_path))
            return CTL_HOST_FAILURE;
        o->vsock.path = r->vsock_path;
    }
    if (!o->daemon || o->serials.count)
        return -1;
    strcpy(r->console_how, "null");
    if (o->name && !o->record && !o->replay && !goes_on_counting(r)) {
        if (!runtime_path(r->dir, o->name, RUNTIME_CONSOLE, o->console_path))
            return CTL_HOST_FAILURE;
        snprintf(r->console_how, sizeof(r->console_how), "socket=%s", o->console_path);
    }
    return serial_option_take(&o->serials, r->console_how) ? -1 : CTL_USAGE;
}

static int go_behind(struct run *r) {
    if (r->o.daemon || r->front->daemonize)
        return daemon_start(r->front->qemu ? "-daemonize" : "--daemon", &r->ready);
    return -1;
}

int ctl_run(int argc, char **argv, const struct ctl_front *front) {
    static const struct ctl_front plain;
    struct run *r = calloc(1, sizeof(*r));
    int status;

    if (!r) {
        log_error("out of memory");
        return CTL_HOST_FAILURE;
    }
    r->front = front ? front : &plain;
    r->api = r->front->api;
    r->frozen = r->front->frozen;
    r->ready = -1;
    r->copy = r->frozen ? r->frozen->copy : -1;
    status = run_options_parse(&r->o, RUN_PLAIN, argc, argv);
    if (status < 0 && goes_on_counting(r) &&
        !run_options_repeat(&r->o, "a snapshot of a counted run"))
        status = CTL_USAGE;
    if (status < 0)
        status = place(r);
    if (status < 0)
        status = go_behind(r);
    if (status < 0) {
        os_on_report_signal(on_report);
        status = with_image(r);
    }
    if (r->front->qemu)
        status = as_qemu(status);
    disk_options_free(&r->o.disks);
    net_options_free(&r->o.nets);
    console_options_free(&r->o.consoles);
    vsock_option_free(&r->o.vsock);
    share_options_free(&r->o.shares);
    identity_options_free(&r->o.identity);
    display_option_free(&r->o.display);
    free(r);
    if (signal_seen)
        os_die_of(signal_seen); /* so that the caller sees what happened */
    return status;
}
