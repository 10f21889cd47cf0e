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
#define OURS 384u /* MiB beside the guest's: the image, the modules, its own */

void bare_command(struct bare_command *b, const struct compare_setup *s,
                  const char *words, unsigned mib, const char *modules,
                  const char *append) {
    snprintf(b->append, sizeof(b->append), "%s memory=%u stats end=debug-exit -- %s",
             words, mib, append);
    snprintf(b->modules, sizeof(b->modules), "%s", modules);
    emulator_make(&b->qemu, "max", mib + OURS);
    emulator_add(&b->qemu, "-kernel", s->bare);
    emulator_add(&b->qemu, "-append", b->append);
    emulator_add(&b->qemu, "-initrd", b->modules);
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
