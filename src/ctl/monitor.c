/* The monitor; see monitor.h. */
#include "ctl/monitor.h"

#include <stdio.h>
#include <string.h>

#include "ctl/ctl.h"
#include "machine/machine.h"

#define PROMPT "(bivisor) "
#define BACKSPACE 0x08
#define DELETE 0x7f
#define KILL_LINE 0x15 /* Ctrl-U */

static void say(struct monitor *mon, const char *text) {
    mon->say(mon->arg, text);
}

/* --- commands --- */

static void do_quit(struct monitor *mon) {
    mon->quit(mon->arg);
}

static void do_stop(struct monitor *mon) {
    machine_pause(mon->m);
}

static void do_cont(struct monitor *mon) {
    machine_resume(mon->m);
}

static void do_reset(struct monitor *mon) {
    machine_reset(mon->m);
}

static void do_powerdown(struct monitor *mon) {
    machine_power_button(mon->m);
}

static void do_status(struct monitor *mon) {
    say(mon, machine_paused(mon->m) ? "VM status: paused\r\n" : "VM status: running\r\n");
}

static void do_version(struct monitor *mon) {
    say(mon, "bivisor " CTL_VERSION "\r\n");
}

static void do_help(struct monitor *mon);

static const struct command {
    const char *name, *other;
    void (*run)(struct monitor *mon);
    const char *what;
} commands[] = {
    {"help", "?", do_help, "this list"},
    {"info status", NULL, do_status, "whether the guest runs"},
    {"info version", NULL, do_version, "bivisor's version"},
    {"stop", "s", do_stop, "the guest, and its time, stand still"},
    {"cont", "c", do_cont, "they go on"},
    {"system_reset", NULL, do_reset, "as the reset button"},
    {"system_powerdown", NULL, do_powerdown,
     "as the power button: the guest may shut down"},
    {"quit", "q", do_quit, "the run ends now"},
};

static void do_help(struct monitor *mon) {
    char line[128];

    for (size_t n = 0; n < ARRAY_SIZE(commands); n++) {
        snprintf(line, sizeof(line), "%-18s%s\r\n", commands[n].name, commands[n].what);
        say(mon, line);
    }
}

static void execute(struct monitor *mon) {
    char *line = mon->line + strspn(mon->line, " ");
    char answer[MONITOR_LINE + 64];
    size_t len = strlen(line);

    while (len && line[len - 1] == ' ')
        line[--len] = 0;
    for (size_t n = 0; n < ARRAY_SIZE(commands); n++) {
        if (strcmp(line, commands[n].name) != 0 &&
            (!commands[n].other || strcmp(line, commands[n].other) != 0))
            continue;
        commands[n].run(mon);
        return;
    }
    if (!len)
        return;
    snprintf(answer, sizeof(answer), "unknown command: '%s'; help lists them\r\n", line);
    say(mon, answer);
}

/* --- keys --- */

void monitor_greet(struct monitor *mon) {
    mon->len = 0;
    say(mon, PROMPT);
}

void monitor_key(struct monitor *mon, uint8_t byte) {
    const char echo[] = {(char)byte, 0};

    if (byte == '\r' || byte == '\n') {
        say(mon, "\r\n");
        mon->line[mon->len] = 0;
        execute(mon);
        monitor_greet(mon);
    } else if (byte == BACKSPACE || byte == DELETE) {
        if (mon->len) {
            mon->len--;
            say(mon, "\b \b");
        }
    } else if (byte == KILL_LINE) {
        say(mon, "\r\n");
        monitor_greet(mon);
    } else if (byte >= ' ' && byte < DELETE && mon->len + 1 < sizeof(mon->line)) {
        mon->line[mon->len++] = (char)byte;
        say(mon, echo);
    }
}
