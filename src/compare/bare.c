/*
 * A column that is a machine without Linux: bivisor.elf (docs/svm.md) on the processor
 * with SVM that QEMU's TCG emulates. What it counts is exact and what is looked at; the
 * times are the emulator's. It tells its figures at the end, as lines on the serial port.
 */
#include "compare/bare.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE "bivisor: warning: "
#define SVM_EXIT "svm_exit_"

static const char *const with[] = {"qemu-system-x86_64",
                                   "-accel",
                                   "tcg,thread=single",
                                   "-cpu",
                                   "max",
                                   "-display",
                                   "none",
                                   "-monitor",
                                   "none",
                                   "-serial",
                                   "stdio",
                                   "-no-reboot",
                                   "-device",
                                   "isa-debug-exit,iobase=0xf4,iosize=4"};

void bare_command(struct bare_command *b, const struct compare_setup *s,
                  const char *words, unsigned mib, const char *modules,
                  const char *append) {
    unsigned n = 0;

    for (; n < ARRAY_SIZE(with); n++)
        b->argv[n] = with[n];
    snprintf(b->memory, sizeof(b->memory), "%u", mib + 384);
    snprintf(b->append, sizeof(b->append), "%s memory=%u stats end=debug-exit -- %s",
             words, mib, append);
    snprintf(b->modules, sizeof(b->modules), "%s", modules);
    b->argv[n++] = "-kernel";
    b->argv[n++] = s->bare;
    b->argv[n++] = "-m";
    b->argv[n++] = b->memory;
    b->argv[n++] = "-append";
    b->argv[n++] = b->append;
    b->argv[n++] = "-initrd";
    b->argv[n++] = b->modules;
    b->argv[n] = NULL;
}

/* "exit NAME N" is what the board was asked, "svm_exit_NAME N" why the guest came back:
 * where there are both the latter are the exits. */
static void take_figure(cJSON *exits, cJSON *asked, cJSON *counters, const char *line) {
    char name[64];
    double value;

    if (sscanf(line, "exit %63s %lf", name, &value) == 2)
        cJSON_AddNumberToObject(asked, name, value);
    else if (sscanf(line, "%63s %lf", name, &value) != 2)
        return;
    else if (!strncmp(name, SVM_EXIT, strlen(SVM_EXIT)))
        cJSON_AddNumberToObject(exits, name + strlen(SVM_EXIT), value);
    else
        cJSON_AddNumberToObject(counters, name, value);
}

cJSON *bare_stats(const char *text) {
    cJSON *root = cJSON_CreateObject(), *exits = cJSON_CreateObject();
    cJSON *asked = cJSON_CreateObject();
    cJSON *counters = cJSON_AddObjectToObject(root, "counters");
    bool hardware, told;

    for (const char *p = text; (p = strstr(p, LINE)); p += strlen(LINE)) {
        char line[128];

        snprintf(line, sizeof(line), "%.*s", (int)strcspn(p + strlen(LINE), "\r\n"),
                 p + strlen(LINE));
        take_figure(exits, asked, counters, line);
    }
    hardware = exits && exits->child;
    told = hardware || (asked && asked->child);
    cJSON_AddItemToObject(root, "exits", hardware ? exits : asked);
    cJSON_Delete(hardware ? asked : exits);
    if (told)
        return root;
    cJSON_Delete(root);
    return NULL;
}
