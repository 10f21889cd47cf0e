/*
 * Another file for a disk of a machine that runs; see exchange.h. On the loop's thread.
 *
 * The file is opened by the process that a client has named it to (api/gate.h). From then
 * on the options of the run name it, as a snapshot does that is made later.
 */
#include "ctl/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/gate.h"

/* The option that disk N is of. NULL: it is not kept. */
static struct run_given *given_of(struct run_options *o, unsigned n) {
    for (size_t k = 0; k < o->given_count; k++) {
        struct run_given *g = &o->given[k];

        if ((!strcmp(g->name, "disk") || !strcmp(g->name, "cdrom")) && !n--)
            return g;
    }
    return NULL;
}

/* As --disk has it: "," is written twice. NULL: out of memory. */
static char *disk_word(const char *path, bool readonly) {
    static const char tail[] = ",format=raw,readonly";
    char *word = malloc(2 * strlen(path) + sizeof(tail)), *to = word;

    for (; word && *path; path++) {
        *to++ = *path;
        if (*path == ',')
            *to++ = ',';
    }
    if (word)
        strcpy(to, readonly ? tail : ",format=raw");
    return word;
}

/* What is needed to name it. False: out of memory. */
static bool prepare(const struct disk_option *d, const char *path, char **text,
                    char **word) {
    *text = strdup(path);
    *word =
        d->kind == MACHINE_DISK_CDROM ? strdup(path) : disk_word(path, d->spec.readonly);
    if (*text && *word)
        return true;
    free(*text);
    free(*word);
    return false;
}

/* Disk N has the file TEXT from now on, of which FD is one more descriptor; all three are
 * taken over. */
static void name_it(struct exchange *x, unsigned n, char *text, char *word, int fd) {
    struct disk_option *d = &x->o->disks.disk[n];
    struct run_given *g = given_of(x->o, n);
    char *old = d->text;

    d->text = text;
    d->spec.path = text;
    d->spec.format = BLOCK_RAW;
    d->spec.overlay = NULL;
    freeze_exchanged(x->freeze, n, old, fd);
    free(old);
    if (g)
        g->value = word;
    free(x->word[n]);
    x->word[n] = word;
    forker_exchanged(x->forker);
}

static void run_drive(void *arg, struct control_request *r) {
    struct exchange *x = arg;
    const char *path = control_text(r, "path", "");
    unsigned n = (unsigned)control_number(r, "number", 0);
    struct block_facts facts;
    char why[512], *text, *word;
    int fd[2];

    if (!x->gate || n >= x->o->disks.count) {
        control_refuse(r, x->gate ? "there is no such disk"
                                  : "clients of the API alone name files");
        return;
    }
    if (!prepare(&x->o->disks.disk[n], path, &text, &word)) {
        control_refuse(r, "out of memory");
        return;
    }
    if (!gate_drive(x->gate, control_text(r, "drive", ""), path, fd, &facts, why,
                    sizeof(why))) {
        if (!machine_disk_exchange(x->m, n, fd[0], &facts, path, why, sizeof(why))) {
            name_it(x, n, text, word, fd[1]);
            return;
        }
        close(fd[1]);
    }
    control_refuse(r, "%s", why);
    free(text);
    free(word);
}

/* --- discs --- */

static int disc_exchange(struct exchange *x, struct gate *gate, struct control_request *r,
                         int *left, char *why, size_t why_size) {
    const char *path = control_text(r, "path", "");
    struct block_facts facts;
    int fd[2], rc;

    rc = gate_disc(gate, path, fd, &facts, why, why_size);
    if (rc)
        return rc;
    rc = machine_disc_exchange(x->m, (unsigned)control_number(r, "drive", 0), fd[0],
                               control_bool(r, "force", false), &facts, path, why,
                               why_size);
    if (rc)
        close(fd[1]);
    *left = fd[1];
    return rc;
}

static void run_disc(void *arg, struct control_request *r) {
    const struct exchange_door *door = arg;
    struct exchange *x = door->exchange;
    int fd,
        n = machine_config_cdrom(&x->o->machine, (unsigned)control_number(r, "drive", 0));
    char why[512], *text, *word;

    if (!door->gate || n < 0) {
        control_refuse(r, "%s",
                       n < 0 ? "there is no such CD-ROM drive"
                             : "a disc is changed at --control, --qmp or a monitor's "
                               "socket, in a run that is not to be repeated");
        return;
    }
    if (!prepare(&x->o->disks.disk[n], control_text(r, "path", ""), &text, &word)) {
        control_refuse(r, "out of memory");
        return;
    }
    if (!disc_exchange(x, door->gate, r, &fd, why, sizeof(why))) {
        name_it(x, (unsigned)n, text, word, fd);
        return;
    }
    control_refuse(r, "%s", why);
    free(text);
    free(word);
}

static const struct control_arg disc_args[] = {
    {"path", CONTROL_TEXT, true, 1, 4095, "of the file, an image of a CD or DVD"},
    {"drive", CONTROL_NUMBER, false, 0, MACHINE_DISKS - 1,
     "which --cdrom, 0 being the first"},
    {"force", CONTROL_BOOL, false, 0, 0, "though the guest holds the tray"},
    {0},
};

static const struct control_command disc_commands[] = {
    {.name = "disc",
     .what = "puts another disc into a CD-ROM drive",
     .args = disc_args,
     .run = run_disc},
    {0},
};

void exchange_add_discs(struct exchange *x, struct gate *gate, struct control_table *t) {
    struct exchange_door *door = &x->door[x->doors++];

    *door = (struct exchange_door){x, gate};
    control_add(t, disc_commands, door);
}

/* --- drives --- */

static const struct control_arg args[] = {
    {"number", CONTROL_NUMBER, true, 0, MACHINE_DISKS - 1, "of the disk"},
    {"drive", CONTROL_TEXT, true, 1, 64, "what a client calls the disk"},
    {"path", CONTROL_TEXT, true, 1, 4095, "of the file, which a client has named"},
    {0},
};

static const struct control_command commands[] = {
    {.name = "drive",
     .what = "gives a disk another file, which a client of the API has named",
     .args = args,
     .run = run_drive},
    {0},
};

void exchange_add(struct exchange *x, struct control_table *t) {
    control_add(t, commands, x);
}

void exchange_end(struct exchange *x) {
    for (unsigned n = 0; n < MACHINE_DISKS; n++) {
        free(x->word[n]);
        x->word[n] = NULL;
    }
}
