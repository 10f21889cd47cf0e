/*
 * Taking a snapshot; see take.h. On the loop's thread.
 *
 * Memory is written while the guest runs, some of it in each turn of the loop. Then what
 * the guest has written to meanwhile is written once more, and again as long as that is
 * much; and then the machine stands, for its state and the rest. An incremental one
 * begins with what was written to since the last.
 *
 * A line's `since` has all pages that differ from its last snapshot, as far as it was
 * asked for; what was written to since is machine_written()'s. A snapshot that fails
 * leaves both as they are: the next has what it would have had. `bivisor fork` has a line
 * of its own, since its files are gone when the copies run: what is kept leads to none of
 * them. Its incremental ones are all based on the last whole one, which the copies have.
 *
 * Where nobody can wait for the answer, or an engine does not tell what is written to,
 * the machine stands from the beginning.
 */
#include "ctl/take.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"

#define TURN_PARTS 4u    /* pieces of memory in a turn of the loop */
#define TURN_PAGES 1024u /* or so many single pages */
#define REST_PAGES 4096u /* are written while the machine stands */
#define PASSES_MAX 5u    /* a guest may write faster than we do */

static size_t words(const struct take *t) {
    return (machine_ram_pages(t->m) + 63) / 64;
}

static bool has(const uint64_t *bits, uint64_t page) {
    return bits[page / 64] >> page % 64 & 1;
}

/* The next run of pages at or after *FROM, of MOST at most. False: there is none. */
static bool next_run(const uint64_t *bits, uint64_t pages, uint64_t most, uint64_t *from,
                     uint64_t *end) {
    while (*from < pages && !has(bits, *from))
        *from += bits[*from / 64] ? 1 : 64 - *from % 64;
    if (*from >= pages)
        return false;
    for (*end = *from + 1; *end < pages && *end - *from < most && has(bits, *end);)
        ++*end;
    return true;
}

/* The lists, when they are wanted first. */
static bool make_lists(struct take *t) {
    uint64_t **list[] = {&t->kept.since, &t->copies.since, &t->todo};

    for (unsigned n = 0; n < ARRAY_SIZE(list); n++)
        if (!*list[n] && !(*list[n] = calloc(words(t), sizeof(**list[n]))))
            return false;
    return true;
}

/* TODO is what was written to since somebody asked last. */
static void collect(struct take *t) {
    memset(t->todo, 0, words(t) * sizeof(*t->todo));
    machine_written(t->m, t->todo);
    for (size_t n = 0; n < words(t); n++) {
        t->kept.since[n] |= t->todo[n];
        t->copies.since[n] |= t->todo[n];
    }
}

/* --- passes --- */

/* One step of a pass: how many pages that may have been, 0 when that was the last, or
 * -errno. */
static int step(struct take *t) {
    struct take_job *j = &t->job;
    uint64_t end, from;
    int rc;

    if (!j->listed) {
        rc = machine_save_ram_part(t->m, j->fd[1], &j->at);
        return rc > 0 ? (int)(TURN_PAGES / TURN_PARTS) : rc;
    }
    if (!next_run(t->todo, machine_ram_pages(t->m), TURN_PAGES, &j->at, &end))
        return 0;
    from = j->at;
    rc = machine_save_ram_pages(t->m, j->fd[1], from, end);
    j->at = end;
    return rc ? rc : (int)(end - from);
}

static int step_through(struct take *t) {
    int rc;

    do
        rc = step(t);
    while (rc > 0);
    return rc;
}

static void begin_list(struct take *t) {
    t->job.listed = true;
    t->job.at = 0;
    t->job.passes++;
}

/* --- the end of it --- */

static int list_runs(const struct take *t, struct freeze_increment *i) {
    uint64_t pages = machine_ram_pages(t->m), end;
    size_t room = 0;

    for (uint64_t at = 0; next_run(t->job.line->since, pages, UINT64_MAX, &at, &end);
         at = end) {
        struct freeze_run *more = i->run;

        if (i->count == room) {
            room = room ? 2 * room : 1024;
            more = realloc(i->run, room * sizeof(*more));
        }
        if (!more)
            return -ENOMEM;
        i->run = more;
        i->run[i->count++] = (struct freeze_run){at, end};
    }
    return 0;
}

static int write_increment(struct take *t, struct snapshot *s) {
    struct freeze_increment i = {.there = true};
    int rc = list_runs(t, &i);

    memcpy(i.base_id, t->job.line->base[0].id, FREEZE_ID);
    snprintf(i.base, sizeof(i.base), "%s", t->job.line->base[0].path);
    if (!rc && !freeze_increment(s, &i))
        rc = -ENOMEM;
    free(i.run);
    return rc;
}

static int write_rest(struct take *t, struct snapshot *s, uint8_t id[FREEZE_ID]) {
    const uint8_t *bytes;
    size_t len;
    int rc = 0;

    if (t->todo) {
        collect(t);
        begin_list(t);
        rc = step_through(t);
    }
    freeze_write(t->freeze, s);
    freeze_ram(s, id);
    if (!rc && t->job.incremental)
        rc = write_increment(t, s);
    bytes = rc ? NULL : snapshot_finish(s, &len);
    if (!rc && !bytes)
        rc = -ENOMEM;
    return rc ? rc : os_write_at(t->job.fd[0], bytes, len, 0);
}

/* The machine does, or ends. */
static void go_on(struct take *t, int rc) {
    if (!rc && t->job.quit)
        machine_quit(t->m); /* it stands until then */
    machine_saved(t->m);
}

/* The machine stands, and goes on. */
static int finish_files(struct take *t, struct snapshot *s, uint8_t id[FREEZE_ID]) {
    struct take_job *j = &t->job;
    int rc;

    if (!j->stands)
        j->start_ns = os_monotonic_ns();
    rc = machine_save(t->m, s);
    if (!rc)
        rc = write_rest(t, s, id);
    j->held = !rc && j->quit && j->packed;
    if (!j->held)
        go_on(t, rc);
    control_put_number(j->r, "pause_ms",
                       (double)(os_monotonic_ns() - j->start_ns) * 1e-6);
    return rc;
}

/* The next incremental one of its line has the changes to this. */
static void be_base(struct take *t, const uint8_t id[FREEZE_ID]) {
    struct take_line *l = t->job.line;
    unsigned old = t->job.incremental ? l->bases : 0;

    if (!t->todo || (l == &t->copies && t->job.incremental))
        return;
    memset(l->since, 0, words(t) * sizeof(*l->since));
    old = old < CHAIN_MAX ? old : CHAIN_MAX - 1;
    memmove(&l->base[1], &l->base[0], old * sizeof(l->base[0]));
    l->bases = old + 1;
    snprintf(l->base[0].path, sizeof(l->base[0].path), "%s", t->job.name);
    memcpy(l->base[0].id, id, FREEZE_ID);
}

static void answer(struct take *t, int rc, const char *why) {
    struct control_request *r = t->job.r;
    char file[PATH_MAX + SNAPSHOTS_NAME];

    if (rc) {
        control_refuse(r, "no snapshot was made: %s", why ? why : strerror(-rc));
        return;
    }
    snprintf(file, sizeof(file), "%s/%s", snapshots_path(t->files), t->job.name);
    control_put_text(r, "name", t->job.name);
    control_put_text(r, "file", file);
}

/* The files get their names, or are gone. True: who packs them tells when that is. */
static bool end_files(struct take *t, int *rc) {
    struct take_job *j = &t->job;
    int end;

    if (!j->started)
        return false;
    if (*rc || !j->packed) {
        end = snapshots_end(t->files, j->name, j->fd, !*rc);
        *rc = *rc ? *rc : end;
        return false;
    }
    *rc = snapshots_pack(t->files, j->name, j->fd);
    if (!*rc && !j->later)
        *rc = snapshots_packed(t->files);
    return !*rc && j->later;
}

static void ended(struct take *t, int rc, const char *why) {
    if (!rc)
        be_base(t, t->id);
    answer(t, rc, why);
    if (t->job.held)
        go_on(t, rc);
    t->job.held = t->job.started = t->job.stands = t->job.packing = false;
}

static void finish(struct take *t, int rc) {
    struct take_job *j = &t->job;
    struct snapshot *s = rc ? NULL : snapshot_new();

    if (!rc && !s)
        rc = -ENOMEM;
    if (!rc && os_random(t->id, sizeof(t->id)) != sizeof(t->id))
        rc = -EIO;
    if (!rc)
        rc = finish_files(t, s, t->id);
    else if (j->stands)
        machine_saved(t->m);
    j->packing = end_files(t, &rc);
    if (!j->packing)
        ended(t, rc, s ? snapshot_why(s) : NULL);
    snapshot_free(s);
}

/* --- its turns --- */

static void finished(struct take *t) {
    struct control_request *r = t->job.r;

    t->job.r = NULL;
    if (t->job.later)
        control_finish(r);
}

static void packed(struct take *t) {
    os_watch_stop(&t->watch);
    ended(t, snapshots_packed(t->files), NULL);
    finished(t);
}

static void on_packed(void *arg, unsigned ready) {
    (void)ready;
    packed(arg);
}

/* Then the answer may come at once, or when the memory is packed. */
static void finish_job(struct take *t, int rc) {
    finish(t, rc);
    if (!t->job.packing)
        finished(t);
    else if (os_watch_start(&t->watch, t->loop, snapshots_socket(t->files), OS_READ,
                            on_packed, t))
        packed(t); /* no memory for that: it is waited for */
}

static void turn(void *arg) {
    struct take *t = arg;
    int rc = 1;

    if (!t->job.r || t->job.packing)
        return;
    for (unsigned pages = 0; pages < TURN_PAGES && rc > 0; pages += (unsigned)rc)
        rc = step(t);
    if (!rc && machine_written_count(t->m) > REST_PAGES && t->job.passes < PASSES_MAX) {
        collect(t);
        begin_list(t);
        rc = 1;
    }
    if (rc > 0)
        os_task_post(&t->task, t->loop);
    else
        finish_job(t, rc);
}

/* The machine stands for all of it. */
static int write_at_once(struct take *t) {
    t->job.start_ns = os_monotonic_ns();
    machine_hold(t->m);
    t->job.stands = true;
    return step_through(t);
}

/* What the first pass is over. */
static int begin(struct take *t) {
    struct take_job *j = &t->job;
    bool told = machine_track(t->m);
    int rc;

    if (told && !make_lists(t))
        return -ENOMEM;
    rc = snapshots_begin(t->files, j->name, j->fd);
    if (rc)
        return rc;
    j->started = true;
    rc = machine_save_ram_begin(t->m, j->fd[1]);
    if (rc || !told)
        return rc;
    collect(t);
    if (j->incremental) {
        memcpy(t->todo, j->line->since, words(t) * sizeof(*t->todo));
        begin_list(t);
    }
    return 0;
}

static void start(struct take *t, struct control_request *r) {
    struct control_request *later = NULL;
    int rc = begin(t);

    if (!rc && (t->todo || t->job.packed))
        later = control_later(r);
    t->job.later = later;
    t->job.r = later ? later : r;
    if (later && t->todo)
        os_task_post(&t->task, t->loop);
    else
        finish_job(t, rc ? rc : write_at_once(t));
}

/* --- the command --- */

/* One sentence, or NULL. */
static const char *no_increment(const struct take_line *l, const char *name) {
    if (!l->bases)
        return "there is no snapshot yet that an incremental one could be based on";
    if (l->bases == CHAIN_MAX)
        return "too many incremental ones lead to this one: make one that is not";
    for (unsigned n = 0; n < l->bases; n++)
        if (!strcmp(l->base[n].path, name))
            return "it would take the place of one that it is based on";
    return NULL;
}

static bool may_start(const struct take *t, const struct take_line *l,
                      struct control_request *r, const char *name) {
    const char *why = NULL;

    if (!t->files)
        why = "the run has nowhere to put it: start it with --snapshots DIR";
    else if (t->job.r)
        why = "another snapshot is being made";
    else if (!freeze_disks_last(t->freeze))
        why = "what the guest writes with overlay=temp ends with this run: take "
              "overlay=FILE";
    else if (control_bool(r, "incremental", false))
        why = no_increment(l, name);
    if (why)
        control_refuse(r, "%s", why);
    else if (!snapshots_name_good(name))
        control_refuse(r,
                       "'%s' cannot be a snapshot's name: letters, digits, '.', '_' "
                       "and '-'",
                       name);
    else
        return true;
    return false;
}

static void run_snapshot(void *arg, struct control_request *r) {
    struct take *t = arg;
    const char *name = control_text(r, "name", "");
    struct take_line *line = control_bool(r, "copies", false) ? &t->copies : &t->kept;

    if (!may_start(t, line, r, name))
        return;
    t->job = (struct take_job){.line = line,
                               .incremental = control_bool(r, "incremental", false),
                               .quit = control_bool(r, "quit", false),
                               .packed = control_bool(r, "zstd", false),
                               .fd = {-1, -1}};
    strcpy(t->job.name, name);
    start(t, r);
}

/* How far it is; "what" is missing when none is made. */
static void run_progress(void *arg, struct control_request *r) {
    const struct take *t = arg;
    const struct take_job *j = &t->job;
    uint64_t pages = machine_ram_pages(t->m);

    if (!j->r)
        return;
    control_put_text(r, "what",
                     j->packing  ? "packing"
                     : j->listed ? "changes"
                                 : "memory");
    if (j->packing)
        return;
    control_put_number(r, "done", (double)j->at);
    control_put_number(r, "total", (double)(j->listed ? pages : pages * 4096));
}

static const struct control_arg snapshot_args[] = {
    {"name", CONTROL_TEXT, true, 1, SNAPSHOTS_NAME - 17, "of its files"},
    {"quit", CONTROL_BOOL, false, 0, 0, "the run ends there"},
    {"incremental", CONTROL_BOOL, false, 0, 0,
     "only what memory holds that the last one does not have"},
    {"zstd", CONTROL_BOOL, false, 0, 0, "its memory is packed, once it is written"},
    {"copies", CONTROL_BOOL, false, 0, 0,
     "for copies: later ones without it are not based on it; incremental, with it: only "
     "what the last whole one with it does not have"},
    {0},
};

static const struct control_command commands[] = {
    {.name = "snapshot",
     .what = "writes all of the machine to two files in the directory of --snapshots",
     .args = snapshot_args,
     .run = run_snapshot},
    {.name = "progress",
     .what = "how far the snapshot is that is being made",
     .run = run_progress},
    {0},
};

void take_add(struct take *t, struct control_table *table) {
    t->task = (struct os_task){.fn = turn, .arg = t};
    control_add(table, commands, t);
}

/* --- the run --- */

/* PATH as snapshots in the directory of T name it. */
static void name_base(const struct take *t, const char *path, struct take_base *b) {
    const char *dir = snapshots_path(t->files);
    size_t len = strlen(dir);
    char *real = realpath(path, NULL);

    if (real && !strncmp(real, dir, len) && real[len] == '/' &&
        !strchr(real + len + 1, '/'))
        snprintf(b->path, sizeof(b->path), "%s", real + len + 1);
    else
        snprintf(b->path, sizeof(b->path), "%s", real ? real : path);
    free(real);
}

void take_from(struct take *t, const struct chain *c) {
    if (!c || !t->files || !c->link[0].named || !make_lists(t))
        return;
    for (unsigned n = 0; n < c->count; n++) {
        name_base(t, c->link[n].path, &t->kept.base[n]);
        memcpy(t->kept.base[n].id, c->link[n].id, FREEZE_ID);
    }
    machine_track_first(t->m);
    t->kept.bases = machine_track(t->m) ? c->count : 0;
}

void take_end(struct take *t) {
    if (t->job.r && t->job.packing) {
        packed(t);
    } else if (t->job.r) {
        snapshots_end(t->files, t->job.name, t->job.fd, false);
        control_finish(t->job.r);
        t->job.r = NULL;
    }
    free(t->kept.since);
    free(t->copies.since);
    free(t->todo);
    t->kept.since = t->copies.since = t->todo = NULL;
}
