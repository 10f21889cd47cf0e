/* Steering a run from outside; see steer.h. On the loop's thread. */
#include "ctl/steer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "ctl/key_names.h"
#include "ctl/screen.h"
#include "ctl/stats.h"
#include "dev/pc/keyboard.h"
#include "dev/pc/vga.h"
#include "dev/tables/smbios.h"

/* A step takes a microsecond, or some of them on kvm; nobody else is served meanwhile. */
#define STEPS_MAX 1000000

static void put_paused(struct steer *s, struct control_request *r) {
    control_put_bool(r, "paused", machine_paused(s->m));
}

static void run_pause(void *arg, struct control_request *r) {
    struct steer *s = arg;

    machine_pause(s->m);
    put_paused(s, r);
}

static void run_resume(void *arg, struct control_request *r) {
    struct steer *s = arg;

    machine_resume(s->m);
    put_paused(s, r);
}

static void run_step(void *arg, struct control_request *r) {
    struct steer *s = arg;
    struct machine_steps done;
    char rip[32];

    machine_step(s->m, (uint64_t)control_number(r, "count", 1), &done);
    snprintf(rip, sizeof(rip), "0x%llx", (unsigned long long)done.rip);
    control_put_number(r, "steps", (double)done.steps);
    control_put_number(r, "insns", (double)done.insns);
    control_put_text(r, "rip", rip);
    control_put_bool(r, "halted", done.halted);
    control_put_bool(r, "waits", done.waits);
    control_put_bool(r, "ended", done.ended);
}

static void run_quit(void *arg, struct control_request *r) {
    struct steer *s = arg;

    s->quits = true;
    console_abandon(s->console);
    machine_quit(s->m);
}

/* The CPUs go on meanwhile: each figure is one that was right, and those of one moment do
 * not belong together to the instruction. Who wants that pauses the guest before. */
static void run_stats(void *arg, struct control_request *r) {
    struct steer *s = arg;
    const struct stats_run figures = stats_so_far(s->o->start_ns);

    put_paused(s, r);
    control_put(r, "stats", stats_json(s->m, &figures));
}

static void put_uuid(struct control_request *r, const struct smbios_identity *identity) {
    char text[2 * sizeof(identity->uuid) + 5], *to = text;

    if (!identity || !identity->has_uuid)
        return;
    for (unsigned n = 0; n < sizeof(identity->uuid); n++)
        to += sprintf(to, n == 4 || n == 6 || n == 8 || n == 10 ? "-%02x" : "%02x",
                      identity->uuid[n]);
    control_put_text(r, "uuid", text);
}

/* For `bivisor ps`: nothing of it waits for the guest. */
static void run_about(void *arg, struct control_request *r) {
    struct steer *s = arg;
    const struct run_options *o = s->o;

    if (o->name)
        control_put_text(r, "name", o->name);
    control_put_number(r, "pid", getpid());
    control_put_text(r, "engine", machine_engine_name(s->m));
    control_put_number(r, "cpus", machine_cpus(s->m));
    control_put_number(r, "memory", (double)o->machine.memory);
    put_paused(s, r);
    control_put_number(r, "seconds", (double)(os_monotonic_ns() - o->start_ns) * 1e-9);
    control_put_number(r, "cpu_seconds", stats_cpu_seconds());
    if (o->vsock.path)
        control_put_text(r, "vsock", o->vsock.path);
    if (*o->console_path)
        control_put_text(r, "console", o->console_path);
    put_uuid(r, o->machine.identity);
}

/* --- the balloon --- */

static void put_stat(void *arg, const char *name, uint64_t value) {
    control_put_number(arg, name, (double)value);
}

static void run_balloon(void *arg, struct control_request *r) {
    struct steer *s = arg;
    int64_t mib = control_number(r, "mib", -1);
    uint32_t pages;

    if (mib >= 0)
        machine_balloon_set(s->m, (uint32_t)mib << 8);
    if (machine_balloon_look(s->m, &pages, put_stat, r))
        control_put_number(r, "pages", pages);
    else
        control_refuse(r, "the machine has no balloon: --balloon gives it one");
}

static const struct control_arg balloon_args[] = {
    {"mib", CONTROL_NUMBER, false, 0, 1 << 20,
     "how much of its memory the guest is to give back"},
    {0},
};

/* --- quotas --- */

#define MIB_PAGES 256u

static const struct control_arg quota_args[] = {
    {"cpu", CONTROL_NUMBER, false, 0, MACHINE_QUOTA_MAX,
     "percent of one CPU of the host's; 0: what there is"},
    {"memory", CONTROL_NUMBER, false, 0, 1 << 20,
     "MiB that the balloon leaves the guest; 0: all that it has"},
    {0},
};

static void run_quota(void *arg, struct control_request *r) {
    struct steer *s = arg;
    int64_t percent = control_number(r, "cpu", -1), mib = control_number(r, "memory", -1);
    uint64_t all = s->o->machine.memory / 4096, ceiling = (uint64_t)mib * MIB_PAGES;
    uint32_t pages;

    if (mib >= 0 && !machine_balloon_set(
                        s->m, mib && ceiling < all ? (uint32_t)(all - ceiling) : 0)) {
        control_refuse(r, "the machine has no balloon: --balloon gives it one");
        return;
    }
    if (percent >= 0)
        machine_quota_set(s->m, (unsigned)percent);
    control_put_number(r, "cpu", machine_quota(s->m));
    if (machine_balloon_target(s->m, &pages))
        control_put_number(r, "memory", pages ? (double)((all - pages) / MIB_PAGES) : 0);
}

/* --- limits --- */

static const struct control_arg limit_args[] = {
    {"device", CONTROL_TEXT, true, 0, 16, "disk0, disk1..., net0..., rng0, serial0..."},
    {"what", CONTROL_TEXT, true, 0, 16,
     "bytes or operations of a disk or rng0; in, in-frames, out or out-frames of a card; "
     "bytes of a serial port"},
    {"amount", CONTROL_NUMBER, true, 0, 1ll << 53, "at most so many; 0: no limit"},
    {"ms", CONTROL_NUMBER, false, 1, 1000000000, "in so many milliseconds (1000)"},
    {"burst", CONTROL_NUMBER, false, 1, 1ll << 53,
     "and so many at once (a tenth of a second's)"},
    {"once", CONTROL_NUMBER, false, 0, 1ll << 53, "besides so many, only once (0)"},
    {0},
};

static bool limit_disk(struct machine *m, unsigned n, unsigned limit,
                       const struct rate_limit *l) {
    return machine_disk_limit(m, n, limit, l);
}

static bool limit_net(struct machine *m, unsigned n, unsigned limit,
                      const struct rate_limit *l) {
    return machine_net_limit(m, n, limit, l);
}

static bool limit_rng(struct machine *m, unsigned n, unsigned limit,
                      const struct rate_limit *l) {
    return !n && machine_rng_limit(m, limit, l);
}

static bool limit_serial(struct machine *m, unsigned n, unsigned limit,
                         const struct rate_limit *l) {
    return machine_serial_limit(m, n, l);
}

static const struct limit {
    const char *kind, *what;
    unsigned limit;
    bool (*set)(struct machine *m, unsigned n, unsigned limit,
                const struct rate_limit *l);
} limits[] = {
    {"disk", "bytes", BLOCK_BYTES, limit_disk},
    {"disk", "operations", BLOCK_OPERATIONS, limit_disk},
    {"net", "in", NET_IN_BYTES, limit_net},
    {"net", "in-frames", NET_IN_FRAMES, limit_net},
    {"net", "out", NET_OUT_BYTES, limit_net},
    {"net", "out-frames", NET_OUT_FRAMES, limit_net},
    {"rng", "bytes", RNG_BYTES, limit_rng},
    {"rng", "operations", RNG_OPERATIONS, limit_rng},
    {"serial", "bytes", 0, limit_serial},
};

static struct rate_limit limit_of(const struct control_request *r) {
    struct rate_limit l = {.amount = (uint64_t)control_number(r, "amount", 0),
                           .per_ns = (uint64_t)control_number(r, "ms", 1000) * 1000000,
                           .fill_ns = 100000000,
                           .once = (uint64_t)control_number(r, "once", 0)};
    int64_t burst = control_number(r, "burst", 0);

    if (burst)
        l.fill_ns = rate_fill_ns(&l, (uint64_t)burst);
    return l;
}

/* N of DEVICE, "KINDN"; above all of them, if it is none. */
static unsigned number_of(const char *device, const char *kind) {
    size_t len = strlen(kind), digits;

    if (strncmp(device, kind, len) != 0)
        return UINT32_MAX;
    digits = strspn(device + len, "0123456789");
    return digits >= 1 && digits <= 2 && !device[len + digits]
               ? (unsigned)strtoul(device + len, NULL, 10)
               : UINT32_MAX;
}

static void run_limit(void *arg, struct control_request *r) {
    struct steer *s = arg;
    const struct rate_limit l = limit_of(r);
    const char *what = control_text(r, "what", ""),
               *device = control_text(r, "device", "");
    bool done = false;

    for (size_t k = 0; k < ARRAY_SIZE(limits) && !done; k++) {
        unsigned n = number_of(device, limits[k].kind);

        done = n != UINT32_MAX && !strcmp(what, limits[k].what) &&
               limits[k].set(s->m, n, limits[k].limit, &l);
    }
    if (!done)
        control_refuse(r, "there is no '%s' of '%s' that could be limited", what, device);
}

/* --- the screen --- */

/* A line of the screen, without the spaces at its end; what is not ASCII is a '?'. */
static size_t put_row(const struct vga_text *t, unsigned y, char *out) {
    size_t len = 0;

    for (unsigned x = 0; x < t->columns; x++) {
        uint8_t c = t->cell[y][x] ? t->cell[y][x] : ' ';

        out[x] = c >= ' ' && c < 0x7f ? (char)c : '?';
        if (c != ' ')
            len = x + 1;
    }
    out[len++] = '\n';
    return len;
}

static void run_screen(void *arg, struct control_request *r) {
    char text[VGA_ROWS * (VGA_COLUMNS + 1) + 1];
    struct steer *s = arg;
    struct vga_text t;
    size_t len = 0;

    if (!machine_screen(s->m, &t)) {
        control_refuse(r, "the screen shows no text");
        return;
    }
    for (unsigned y = 0; y < t.rows; y++)
        len += put_row(&t, y, text + len);
    text[len] = 0;
    control_put_number(r, "columns", t.columns);
    control_put_number(r, "rows", t.rows);
    control_put_text(r, "text", text);
}

static void run_picture(void *arg, struct control_request *r) {
    struct steer *s = arg;

    screen_put_picture(s->m, r);
}

static void run_reset(void *arg, struct control_request *r) {
    struct steer *s = arg;

    s->resets = true;
    machine_reset(s->m);
}

static void run_powerdown(void *arg, struct control_request *r) {
    struct steer *s = arg;

    machine_power_button(s->m);
}

/* A machine without a keyboard has a button that a Linux listens to as well. */
static void run_ctrl_alt_del(void *arg, struct control_request *r) {
    static const unsigned keys[] = {0x1d, 0x38, KEYBOARD_EXTENDED | 0x53};
    struct steer *s = arg;
    bool taken = false;

    for (size_t n = 0; n < ARRAY_SIZE(keys); n++)
        taken |= machine_key(s->m, keys[n], true);
    for (size_t n = ARRAY_SIZE(keys); n--;)
        machine_key(s->m, keys[n], false);
    if (!taken)
        machine_power_button(s->m);
    control_put_text(r, "pressed", taken ? "keys" : "button");
}

/* --- keys --- */

#define KEYS_MAX 16u /* at once */

/* NAMES, with a hyphen between them. 0 after a refusal. */
static size_t find_keys(struct control_request *r, const char *names, unsigned *out) {
    size_t count = 0, len;
    char name[32];

    for (const char *at = names;; at += len + 1) {
        len = strcspn(at, "-");
        snprintf(name, sizeof(name), "%.*s", (int)len, at);
        out[count] = len < sizeof(name) ? key_names_find(name) : 0;
        if (!out[count]) {
            control_refuse(r, "there is no key '%s'", name);
            return 0;
        }
        if (++count == KEYS_MAX || !at[len])
            return count;
    }
}

/* All go down, and up again. */
static void run_keys(void *arg, struct control_request *r) {
    struct steer *s = arg;
    unsigned keys[KEYS_MAX];
    size_t count = find_keys(r, control_text(r, "keys", ""), keys);
    bool taken = true;

    for (size_t n = 0; n < count; n++)
        taken &= machine_key(s->m, keys[n], true);
    for (size_t n = count; n--;)
        machine_key(s->m, keys[n], false);
    if (!taken)
        control_refuse(r,
                       "the machine has no keyboard, or the guest has not read what was "
                       "typed before");
}

/* --- trays --- */

static void run_tray(void *arg, struct control_request *r) {
    struct steer *s = arg;
    bool open = control_bool(r, "open", true);
    int rc = machine_tray(s->m, (unsigned)control_number(r, "drive", 0), open,
                          control_bool(r, "force", false));
    char why[128];

    if (!rc) {
        control_put_bool(r, "open", open);
        return;
    }
    machine_tray_why(rc, why, sizeof(why));
    control_refuse(r, "%s", why);
}

static const struct control_arg tray_args[] = {
    {"drive", CONTROL_NUMBER, false, 0, MACHINE_DISKS - 1,
     "which --cdrom, 0 being the first"},
    {"open", CONTROL_BOOL, false, 0, 0, "false: it is closed again"},
    {"force", CONTROL_BOOL, false, 0, 0, "though the guest holds it"},
    {0},
};

static const struct control_arg keys_args[] = {
    {"keys", CONTROL_TEXT, true, 1, 127, "QEMU's names of keys, as ctrl-alt-f1"},
    {0},
};

static const struct control_arg step_args[] = {
    {"count", CONTROL_NUMBER, false, 1, STEPS_MAX, "how many steps (1)"},
    {0},
};

static const struct control_command commands[] = {
    {.name = "pause",
     .what = "stops the guest between two instructions, and its time",
     .run = run_pause},
    {.name = "resume", .what = "lets a paused guest go on", .run = run_resume},
    {.name = "step",
     .what = "pauses the guest and makes single steps",
     .args = step_args,
     .run = run_step},
    {.name = "balloon",
     .what = "asks the guest for memory, and tells what it said of it last",
     .args = balloon_args,
     .run = run_balloon},
    {.name = "about",
     .what = "what machine this is, and whether it runs",
     .run = run_about},
    {.name = "quota",
     .what = "bounds what the machine uses of the host",
     .args = quota_args,
     .run = run_quota},
    {.name = "limit",
     .what = "bounds what a disk or a network card may do",
     .args = limit_args,
     .run = run_limit},
    {.name = "quit", .what = "ends the run, as Ctrl-A x does", .run = run_quit},
    {.name = "stats",
     .what = "what --stats tells at the end, as it is now",
     .run = run_stats},
    {.name = "screen", .what = "what is on the guest's text screen", .run = run_screen},
    {.name = "picture",
     .what = "the picture on the guest's screen: deflated lines of a PNG, in base64",
     .run = run_picture},
    {.name = "reset", .what = "as the reset button", .run = run_reset},
    {.name = "ctrl-alt-del",
     .what = "presses these keys: a Linux that has no other wish reboots",
     .run = run_ctrl_alt_del},
    {.name = "keys",
     .what = "presses keys at once, and lets go of them",
     .args = keys_args,
     .run = run_keys},
    {.name = "tray",
     .what = "opens or closes a CD-ROM drive: its disc is out, or in again",
     .args = tray_args,
     .run = run_tray},
    {.name = "powerdown",
     .what = "as the power button: the guest may shut down",
     .run = run_powerdown},
    {0},
};

void steer_add(struct steer *s, struct control_table *t) {
    control_add(t, commands, s);
}
