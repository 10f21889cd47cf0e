/*
 * -readconfig: a file of options. Its groups are options of the command line, with an id
 * or without one, and the lines behind them their properties:
 *
 *     [device "d0"]
 *       driver = "virtio-blk-pci"
 *
 * Here they become words as they would stand there: -device virtio-blk-pci,id=d0. See
 * qemu_int.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu/qemu_int.h"

/* A group that is open: what its option will be. */
struct group {
    const char *file;
    unsigned line;
    const char *name; /* NULL: there is none yet */
    const char *id;
    const char *head, *rest;
};

static void put(struct qemu *q, char *word) {
    if (q->word_count == QEMU_WORDS)
        qemu_refuse(q, "more than %u words are not possible", QEMU_WORDS);
    else
        q->word[q->word_count++] = word;
}

/* The option of a group, where that has another name, and the property that stands first
 * in it, without its name. */
static const struct {
    const char *group, *option, *first;
} groups[] = {
    {"memory", "m", NULL},
    {"smp-opts", "smp", NULL},
    {"boot-opts", "boot", NULL},
    {"device", "device", "driver"},
    {"object", "object", "qom-type"},
    {"fsdev", "fsdev", "fsdriver"},
    {"virtfs", "virtfs", "fsdriver"},
    {"vnc", "vnc", "vnc"},
};

static const char *first_of(const char *group) {
    for (size_t n = 0; n < ARRAY_SIZE(groups); n++)
        if (!strcmp(groups[n].group, group))
            return groups[n].first;
    return NULL;
}

static const char *option_of(const char *group) {
    for (size_t n = 0; n < ARRAY_SIZE(groups); n++)
        if (!strcmp(groups[n].group, group))
            return groups[n].option;
    return group;
}

/* The group's words. */
static void end_group(struct qemu *q, const struct group *g) {
    const char *head = g->head ? g->head : "";

    if (!g->name)
        return;
    put(q, qemu_format(q, "-%s", option_of(g->name)));
    put(q, qemu_format(q, "%s%s%s%s%s", head, *head && *g->rest ? "," : "", g->rest,
                       !g->id              ? ""
                       : *head || *g->rest ? ",id="
                                           : "id=",
                       g->id ? g->id : ""));
}

static bool bad_line(struct qemu *q, const struct group *g) {
    return qemu_refuse(q,
                       "-readconfig: line %u of '%s' is neither [GROUP \"ID\"] nor "
                       "NAME = \"VALUE\"",
                       g->line, g->file);
}

static bool take_group(struct qemu *q, struct group *g, const char *text) {
    char name[64], id[64], end;
    int parts = sscanf(text, "[%63[^] \"] \"%63[^\"]\" %c", name, id, &end);

    if (parts != 3 || end != ']') {
        if (sscanf(text, "[%63[^] \"] %c", name, &end) != 2 || end != ']')
            return bad_line(q, g);
        parts = 1;
    }
    end_group(q, g);
    g->name = qemu_format(q, "%s", name);
    g->id = parts == 3 ? qemu_format(q, "%s", id) : NULL;
    g->head = NULL;
    g->rest = "";
    return true;
}

static bool take_property(struct qemu *q, struct group *g, const char *text) {
    size_t len = strcspn(text, " \t=");
    const char *at = text + len + strspn(text + len, " \t"), *end;
    const char *name, *value, *first = g->name ? first_of(g->name) : NULL;

    if (!len || !g->name || *at != '=')
        return bad_line(q, g);
    at += 1 + strspn(at + 1, " \t");
    end = *at == '"' ? strchr(at + 1, '"') : NULL;
    if (!end || end[1 + strspn(end + 1, " \t\r\n")])
        return bad_line(q, g);
    name = qemu_format(q, "%.*s", (int)len, text);
    value = qemu_escape(q, qemu_format(q, "%.*s", (int)(end - at - 1), at + 1));
    if (first && !strcmp(name, first))
        g->head = value;
    else
        g->rest = qemu_format(q, "%s%s%s=%s", g->rest, *g->rest ? "," : "", name, value);
    return true;
}

static bool take_line(struct qemu *q, struct group *g, const char *line) {
    g->line++;
    line += strspn(line, " \t\r\n");
    if (!*line || *line == '#')
        return true;
    return *line == '[' ? take_group(q, g, line) : take_property(q, g, line);
}

static bool read_config(struct qemu *q, const char *file) {
    struct group g = {.file = file};
    FILE *f = fopen(file, "re");
    char *line = NULL;
    size_t size = 0;
    bool good = f;

    if (!f)
        return qemu_refuse(q, "-readconfig: cannot read '%s': %s", file, strerror(errno));
    while (good && getline(&line, &size, f) >= 0)
        good = take_line(q, &g, line);
    if (good && ferror(f))
        good = qemu_refuse(q, "-readconfig: cannot read '%s': %s", file, strerror(errno));
    free(line);
    fclose(f);
    end_group(q, &g);
    return good;
}

bool qemu_expand(struct qemu *q, int argc, char **argv) {
    bool good = true;

    for (int at = 0; at < argc && good; at++) {
        const char *name = argv[at] + (argv[at][0] == '-' && argv[at][1] == '-');

        if (strcmp(name, "-readconfig") != 0)
            put(q, argv[at]);
        else if (at + 1 < argc)
            good = read_config(q, argv[++at]);
        else
            good = qemu_refuse(q, "-readconfig wants a value");
    }
    return good && !q->why[0];
}
