/* Snapshots of a run; see freeze.h. On the loop's thread. */
#include "ctl/freeze.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"
#include "cpu/cpuid.h"

/* --- the options --- */

struct words {
    const struct run_options *o;
    char *buf; /* reading */
    size_t size;
    const char **word;
    size_t max, count;
};

static void put_word(struct snapshot *s, const char *text) {
    snapshot_bytes(s, (void *)(uintptr_t)text, strlen(text) + 1);
}

static void put_option(struct snapshot *s, const struct run_given *g) {
    char name[64];

    snprintf(name, sizeof(name), "--%s", g->name);
    put_word(s, name);
    if (g->value)
        put_word(s, g->value);
}

/* The CPU is named, whichever another host's default is. */
static void write_words(struct words *w, struct snapshot *s) {
    bool cpu = false;

    for (size_t n = 0; n < w->o->given_count; n++) {
        cpu |= !strcmp(w->o->given[n].name, "cpu");
        put_option(s, &w->o->given[n]);
    }
    if (!cpu)
        put_option(s, &(struct run_given){"cpu", cpuid_model_default()});
}

static void words_state(void *arg, struct snapshot *s) {
    struct words *w = arg;
    size_t len, at = 0;

    if (!snapshot_reading(s)) {
        write_words(w, s);
        return;
    }
    len = snapshot_left(s);
    if (len >= w->size) {
        snapshot_need(s, false);
        return;
    }
    snapshot_bytes(s, w->buf, len);
    w->buf[len] = 0;
    while (at < len && w->count < w->max) {
        w->word[w->count++] = w->buf + at;
        at += strlen(w->buf + at) + 1;
    }
    snapshot_need(s, at == len);
}

bool freeze_options(struct snapshot *s, char *buf, size_t size, const char **words,
                    size_t max, size_t *count) {
    struct words w = {.buf = buf, .size = size, .word = words, .max = max};

    snapshot_optional(s, "options", 0, 1, words_state, &w);
    *count = w.count;
    return snapshot_good(s) && w.count;
}

/* --- the command --- */

static int write_state(int fd, const uint8_t *bytes, size_t len) {
    while (len) {
        ssize_t n = write(fd, bytes, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

/* While the machine stands. */
static int write_files(struct freeze *f, struct snapshot *s, const int fd[2]) {
    struct words w = {.o = f->options};
    const uint8_t *bytes;
    size_t len;
    int rc;

    snapshot_optional(s, "options", 0, 1, words_state, &w);
    bytes = snapshot_finish(s, &len);
    if (!bytes)
        return -ENOMEM;
    rc = machine_save_ram(f->m, fd[1]);
    return rc ? rc : write_state(fd[0], bytes, len);
}

static int save(struct freeze *f, struct snapshot *s, const int fd[2],
                struct control_request *r) {
    uint64_t start = os_monotonic_ns();
    int rc = machine_save(f->m, s);

    if (!rc)
        rc = write_files(f, s, fd);
    machine_saved(f->m);
    control_put_number(r, "pause_ms", (double)(os_monotonic_ns() - start) * 1e-6);
    return rc;
}

static void run_snapshot(void *arg, struct control_request *r) {
    struct freeze *f = arg;
    const char *name = control_text(r, "name", "");
    struct snapshot *s;
    int fd[2], rc, end;

    if (!f->files) {
        control_refuse(r, "the run has nowhere to put it: start it with --snapshots DIR");
        return;
    }
    if (!snapshots_name_good(name)) {
        control_refuse(r,
                       "'%s' cannot be a snapshot's name: letters, digits, '.', '_' "
                       "and '-'",
                       name);
        return;
    }
    s = snapshot_new();
    rc = s ? snapshots_begin(f->files, name, fd) : -ENOMEM;
    if (!rc) {
        rc = save(f, s, fd, r);
        end = snapshots_end(f->files, name, fd, !rc);
        rc = rc ? rc : end;
    }
    if (rc)
        control_refuse(r, "no snapshot was made: %s",
                       s && snapshot_why(s) ? snapshot_why(s) : strerror(-rc));
    else
        control_put_text(r, "name", name);
    snapshot_free(s);
}

static const struct control_arg snapshot_args[] = {
    {"name", CONTROL_TEXT, true, 1, SNAPSHOTS_NAME - 17, "of its files"},
    {0},
};

static const struct control_command commands[] = {
    {.name = "snapshot",
     .what = "writes all of the machine to two files in the directory of --snapshots",
     .args = snapshot_args,
     .run = run_snapshot},
    {0},
};

void freeze_add(struct freeze *f, struct control_table *t) {
    control_add(t, commands, f);
}
