/*
 * What gdb's `monitor` says: a command in words, and text for an answer.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gdb/gdb_int.h"

#define LINE_MAX_BYTES 256u
#define PHYS_MAX 1024u

/* Text, as digits. */
__attribute__((format(printf, 2, 3))) static void say(struct gdb *g, const char *format,
                                                      ...) {
    char text[4096];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (n > 0)
        gdb_put_bytes(&g->reply, text,
                      (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

static unsigned cpu_of(const struct gdb *g) {
    return g->cpu == GDB_CPU_ALL ? 0 : g->cpu;
}

/* "0x1000" or "4096"; what follows it comes next. */
static bool number(char **args, uint64_t *out) {
    char *rest;

    if (!isdigit((unsigned char)**args))
        return false;
    *out = strtoull(*args, &rest, 0);
    if (*rest && *rest != ' ')
        return false;
    *args = rest + strspn(rest, " ");
    return true;
}

static void show_registers(struct gdb *g, char *args) {
    char text[4096];

    vcpu_dump(machine_debug_vcpu(g->m, cpu_of(g)), text, sizeof(text));
    say(g, "%s", text);
}

static void show_line(struct gdb *g, uint64_t at, const uint8_t *bytes, uint64_t len) {
    say(g, "%016llx:", (unsigned long long)at);
    for (uint64_t n = 0; n < len; n++)
        say(g, " %02x", bytes[n]);
    say(g, "\n");
}

static void show_physical(struct gdb *g, char *args) {
    uint64_t at, len = 64, n;
    uint8_t buf[PHYS_MAX];

    if (!number(&args, &at) || (*args && !number(&args, &len)) || len > sizeof(buf)) {
        say(g, "phys ADDRESS [LENGTH], of at most %u bytes\n", PHYS_MAX);
        return;
    }
    len = machine_debug_read(g->m, cpu_of(g), true, at, buf, len);
    if (!len)
        say(g, "there is no memory at 0x%llx\n", (unsigned long long)at);
    for (uint64_t done = 0; done < len; done += n) {
        n = len - done < 16 ? len - done : 16;
        show_line(g, at + done, buf + done, n);
    }
}

static void show_translation(struct gdb *g, char *args) {
    uint64_t at, to;

    if (!number(&args, &at))
        say(g, "translate ADDRESS\n");
    else if (machine_debug_translate(g->m, cpu_of(g), at, &to))
        say(g, "0x%llx\n", (unsigned long long)to);
    else
        say(g, "0x%llx is not mapped\n", (unsigned long long)at);
}

static void hold_interrupts(struct gdb *g, char *args) {
    bool held = g->sstep & GDB_SSTEP_NOIRQ;

    if (!strcmp(args, "on"))
        held = false;
    else if (!strcmp(args, "off"))
        held = true;
    else if (*args)
        say(g, "interrupts on or interrupts off\n");
    g->sstep = GDB_SSTEP_ENABLE | (held ? GDB_SSTEP_NOIRQ | GDB_SSTEP_NOTIMER : 0);
    machine_debug_hold_interrupts(g->m, held);
    say(g, "a single step %s\n", held ? "holds interrupts off" : "takes interrupts");
}

static void choose_arch(struct gdb *g, char *args) {
    static const char *const names[] = {"auto", "16", "32", "64"};

    for (unsigned n = 0; n < ARRAY_SIZE(names); n++)
        if (!strcmp(args, names[n])) {
            g->want = (enum gdb_arch)n;
            say(g, "from the next connection on\n");
            return;
        }
    say(g, "arch auto, 16, 32 or 64\n");
}

static void show_help(struct gdb *g, char *args);

static const struct {
    const char *name, *what;
    void (*run)(struct gdb *g, char *args);
} commands[] = {
    {"arch", "auto|16|32|64: what registers the next client is told of", choose_arch},
    {"help", "this", show_help},
    {"interrupts", "[on|off]: whether single steps take them", hold_interrupts},
    {"phys", "ADDRESS [LENGTH]: memory by physical address", show_physical},
    {"registers", "all registers of the thread's CPU but the vectors", show_registers},
    {"translate", "ADDRESS: the physical address that it is mapped to", show_translation},
};

static void show_help(struct gdb *g, char *args) {
    for (unsigned n = 0; n < ARRAY_SIZE(commands); n++)
        say(g, "%-11s %s\n", commands[n].name, commands[n].what);
}

void gdb_cmd_monitor(struct gdb *g, struct gdb_text t) {
    char line[LINE_MAX_BYTES + 1], *args;
    size_t len = gdb_left(&t) / 2;

    if (len > LINE_MAX_BYTES || gdb_left(&t) % 2 ||
        !gdb_bytes(&t, (uint8_t *)line, len)) {
        gdb_put_error(&g->reply, GDB_ERROR_PARSE);
        return;
    }
    line[len] = 0;
    args = line + strcspn(line, " ");
    if (*args)
        *args++ = 0;
    args += strspn(args, " ");
    for (unsigned n = 0; n < ARRAY_SIZE(commands); n++)
        if (!strcmp(line, commands[n].name)) {
            commands[n].run(g, args);
            return;
        }
    say(g, "there is no such command; `monitor help` lists them\n");
}
