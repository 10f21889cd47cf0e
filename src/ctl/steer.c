/* Steering a run from outside; see steer.h. On the loop's thread. */
#include "ctl/steer.h"

#include <stdio.h>
#include <unistd.h>

#include "base/os.h"
#include "ctl/screen.h"
#include "ctl/stats.h"
#include "dev/pc/vga.h"

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

    console_abandon(s->console);
    machine_quit(s->m);
}

struct look {
    struct steer *s;
    struct cJSON *figures;
};

static void look_here(void *arg) {
    struct look *l = arg;
    const struct stats_run figures = stats_so_far(l->s->o->start_ns);

    l->figures = stats_json(l->s->m, &figures);
}

static void run_stats(void *arg, struct control_request *r) {
    struct look l = {.s = arg};

    machine_call(l.s->m, look_here, &l);
    put_paused(l.s, r);
    control_put(r, "stats", l.figures);
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

static const struct control_arg quota_args[] = {
    {"cpu", CONTROL_NUMBER, false, 0, MACHINE_QUOTA_MAX,
     "percent of one CPU of the host's; 0: what there is"},
    {0},
};

static void run_quota(void *arg, struct control_request *r) {
    struct steer *s = arg;
    int64_t percent = control_number(r, "cpu", -1);

    if (percent >= 0)
        machine_quota_set(s->m, (unsigned)percent);
    control_put_number(r, "cpu", machine_quota(s->m));
}

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

    machine_reset(s->m);
}

static void run_powerdown(void *arg, struct control_request *r) {
    struct steer *s = arg;

    machine_power_button(s->m);
}

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
    {.name = "quit", .what = "ends the run, as Ctrl-A x does", .run = run_quit},
    {.name = "stats",
     .what = "what --stats tells at the end, as it is now",
     .run = run_stats},
    {.name = "screen", .what = "what is on the guest's text screen", .run = run_screen},
    {.name = "picture",
     .what = "the picture on the guest's screen: deflated lines of a PNG, in base64",
     .run = run_picture},
    {.name = "reset", .what = "as the reset button", .run = run_reset},
    {.name = "powerdown",
     .what = "as the power button: the guest may shut down",
     .run = run_powerdown},
    {0},
};

void steer_add(struct steer *s, struct control_table *t) {
    control_add(t, commands, s);
}
