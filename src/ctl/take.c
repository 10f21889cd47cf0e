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

#include "api/gate.h"
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

/* TARGET, from the root or in the directory of snapshots, as it is seen from where the
 * job's state is. */
static void seen_from(const struct take *t, const char *target, char out[FREEZE_PATH]) {
    const char *from = t->job.state, *end = strrchr(from, '/');
    size_t dir = t->job.anywhere && end ? (size_t)(end - from) + 1 : 0;

    if (dir && !strncmp(target, from, dir) && !strchr(target + dir, '/'))
        target += dir;
    else if (t->job.anywhere && *target != '/') {
        snprintf(out, FREEZE_PATH, "%s/%.*s", snapshots_path(t->files),
                 (int)SNAPSHOTS_NAME, target);
        return;
    }
    snprintf(out, FREEZE_PATH, "%s", target);
}

static int write_increment(struct take *t, struct snapshot *s) {
    struct freeze_increment i = {.there = true};
    int rc = list_runs(t, &i);

    memcpy(i.base_id, t->job.line->base[0].id, FREEZE_ID);
    seen_from(t, t->job.line->base[0].path, i.base);
    if (!rc && !freeze_increment(s, &i))
        rc = -ENOMEM;
    free(i.run);
    return rc;
}

static int write_rest(struct take *t, struct snapshot *s, uint8_t id[FREEZE_ID]) {
    bool signed_ram = true;
    const uint8_t *bytes;
    size_t len;
    int rc = 0;

    if (t->todo) {
        collect(t);
        begin_list(t);
        rc = step_through(t);
    }
    if (!rc)
        rc = freeze_sign(t->job.fd[1], machine_ram_pages(t->m) * 4096, id);
    freeze_write(t->freeze, s);
    freeze_ram(s, id, &signed_ram);
    if (t->job.anywhere) {
        char memory[FREEZE_PATH];

        seen_from(t, t->job.memory, memory);
        freeze_memory(s, memory);
    }
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
    snprintf(l->base[0].path, FREEZE_PATH, "%s",
             t->job.anywhere ? t->job.state : t->job.name);
    snprintf(l->base[0].memory, FREEZE_PATH, "%s", t->job.memory);
    memcpy(l->base[0].id, id, FREEZE_ID);
}

static void answer(struct take *t, int rc, const char *why) {
    struct control_request *r = t->job.r;
    char file[PATH_MAX + SNAPSHOTS_NAME];

    if (rc) {
        if (rc == -EPIPE)
            why = "the process that makes its files has ended";
        control_refuse(r, "no snapshot was made: %s", why ? why : strerror(-rc));
        return;
    }
    if (t->job.anywhere) {
        control_put_text(r, "file", t->job.state);
        return;
    }
    snprintf(file, sizeof(file), "%s/%s", snapshots_path(t->files), t->job.name);
    control_put_text(r, "name", t->job.name);
    control_put_text(r, "file", file);
}

static void close_files(int fd[2]) {
    for (unsigned n = 0; n < 2; n++)
        if (fd[n] >= 0)
            close(fd[n]);
    fd[0] = fd[1] = -1;
}

static int begin_files(struct take *t) {
    struct take_job *j = &t->job;

    return j->anywhere ? gate_begin(t->gate, j->named[0], j->named[1], j->fd, j->why,
                                    sizeof(j->why))
                       : snapshots_begin(t->files, j->name, j->fd);
}

static int name_files(struct take *t, bool whole) {
    struct take_job *j = &t->job;

    if (!j->anywhere)
        return snapshots_end(t->files, j->name, j->fd, whole);
    close_files(j->fd);
    return gate_end(t->gate, whole);
}

/* The files get their names, or are gone. True: who packs them tells when that is. */
static bool end_files(struct take *t, int *rc) {
    struct take_job *j = &t->job;
    int end;

    if (!j->started)
        return false;
    if (*rc || !j->packed) {
        end = name_files(t, !*rc);
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
        ended(t, rc, s ? snapshot_why(s) : *t->job.why ? t->job.why : NULL);
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
    rc = begin_files(t);
    if (rc)
        return rc;
    j->started = true;
    if (j->line != &t->copies || !j->incremental) /* copies have that of the whole one */
        machine_warm_note(t->m);
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

/* B's files, or their names, are among these two. */
static bool is_base(const struct take *t, const struct take_base *b, const char *state,
                    const char *memory) {
    char path[2 * FREEZE_PATH], ram[2 * FREEZE_PATH + 8];

    if (*b->path == '/' || !t->files)
        snprintf(path, sizeof(path), "%s", b->path);
    else
        snprintf(path, sizeof(path), "%s/%s", snapshots_path(t->files), b->path);
    snprintf(ram, sizeof(ram), "%s.ram", path);
    if (*b->memory)
        snprintf(ram, sizeof(ram), "%s", b->memory);
    return !strcmp(path, state) || !strcmp(path, memory) || !strcmp(ram, state) ||
           !strcmp(ram, memory);
}

static bool is_in_line(const struct take *t, const struct take_line *l, const char *state,
                       const char *memory) {
    for (unsigned n = 0; n < l->bases; n++)
        if (is_base(t, &l->base[n], state, memory))
            return true;
    return false;
}

/* One sentence, or NULL. */
static const char *no_increment(const struct take_line *l) {
    if (!l->bases)
        return "there is no snapshot yet that an incremental one could be based on";
    if (l->bases == CHAIN_MAX)
        return "too many incremental ones lead to this one: make one that is not";
    return NULL;
}

static bool may_start(const struct take *t, const struct take_line *l,
                      struct control_request *r) {
    const char *why = NULL;

    if (t->job.r)
        why = "another snapshot is being made";
    else if (!freeze_disks_last(t->freeze))
        why = "what the guest writes with overlay=temp ends with this run: take "
              "overlay=FILE";
    else if (control_bool(r, "incremental", false))
        why = no_increment(l);
    if (why)
        control_refuse(r, "%s", why);
    return !why;
}

static bool may_be_called(const struct take *t, const struct take_line *l,
                          struct control_request *r, const char *name) {
    char state[2 * FREEZE_PATH], memory[2 * FREEZE_PATH + 8];

    if (!t->files) {
        control_refuse(r, "the run has nowhere to put it: start it with --snapshots DIR");
        return false;
    }
    if (!snapshots_name_good(name)) {
        control_refuse(r,
                       "'%s' cannot be a snapshot's name: letters, digits, '.', '_' "
                       "and '-'",
                       name);
        return false;
    }
    snprintf(state, sizeof(state), "%s/%s", snapshots_path(t->files), name);
    snprintf(memory, sizeof(memory), "%s.ram", state);
    if (!control_bool(r, "incremental", false) || !is_in_line(t, l, state, memory))
        return true;
    control_refuse(r, "it would take the place of one that it is based on");
    return false;
}

static void run_snapshot(void *arg, struct control_request *r) {
    struct take *t = arg;
    const char *name = control_text(r, "name", "");
    struct take_line *line = control_bool(r, "copies", false) ? &t->copies : &t->kept;

    if (!may_be_called(t, line, r, name) || !may_start(t, line, r))
        return;
    t->job = (struct take_job){.line = line,
                               .incremental = control_bool(r, "incremental", false),
                               .quit = control_bool(r, "quit", false),
                               .packed = control_bool(r, "zstd", false),
                               .fd = {-1, -1}};
    strcpy(t->job.name, name);
    start(t, r);
}

/* PATH from the root. False: it is too long. */
static bool from_root(const struct take *t, const char *path, char out[FREEZE_PATH]) {
    return (size_t)snprintf(out, FREEZE_PATH, "%s%s%s", *path == '/' ? "" : t->here,
                            *path == '/' ? "" : "/", path) < FREEZE_PATH;
}

/* What has changed is not enough for who writes it to a file that it is based on: that
 * one gets all, as if the changes had been written over it. */
static void run_snapshot_to(void *arg, struct control_request *r) {
    struct take *t = arg;
    const char *state = control_text(r, "state", ""),
               *memory = control_text(r, "memory", "");
    char from[2][FREEZE_PATH];

    if (!t->gate || !from_root(t, state, from[0]) || !from_root(t, memory, from[1])) {
        control_refuse(r, t->gate ? "a file's path is too long"
                                  : "clients of the API alone name files anywhere");
        return;
    }
    if (!may_start(t, &t->kept, r))
        return;
    t->job = (struct take_job){.line = &t->kept,
                               .incremental = control_bool(r, "incremental", false) &&
                                              !is_in_line(t, &t->kept, from[0], from[1]),
                               .anywhere = true,
                               .fd = {-1, -1}};
    memcpy(t->job.state, from[0], FREEZE_PATH);
    memcpy(t->job.memory, from[1], FREEZE_PATH);
    snprintf(t->job.named[0], FREEZE_PATH, "%s", state);
    snprintf(t->job.named[1], FREEZE_PATH, "%s", memory);
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

static const struct control_arg snapshot_to_args[] = {
    {"state", CONTROL_TEXT, true, 1, FREEZE_PATH - 1, "path of a file"},
    {"memory", CONTROL_TEXT, true, 1, FREEZE_PATH - 1, "path of another"},
    {"incremental", CONTROL_BOOL, false, 0, 0,
     "only what memory holds that the last one does not have"},
    {0},
};

static const struct control_command commands[] = {
    {.name = "snapshot",
     .what = "writes all of the machine to two files in the directory of --snapshots",
     .args = snapshot_args,
     .run = run_snapshot},
    {.name = "snapshot-to",
     .what = "the same to two files anywhere, which a client of the API has named",
     .args = snapshot_to_args,
     .run = run_snapshot_to},
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

static void real_path(const char *path, char out[FREEZE_PATH]) {
    char *real = realpath(path, NULL);

    snprintf(out, FREEZE_PATH, "%s", real ? real : path);
    free(real);
}

/* Of L, as snapshots in the directory of T name it. */
static void name_base(const struct take *t, const struct chain_link *l,
                      struct take_base *b) {
    const char *dir = t->files ? snapshots_path(t->files) : "";
    size_t len = strlen(dir);

    real_path(l->path, b->path);
    real_path(l->memory, b->memory);
    if (len && !strncmp(b->path, dir, len) && b->path[len] == '/' &&
        !strchr(b->path + len + 1, '/'))
        memmove(b->path, b->path + len + 1, strlen(b->path + len + 1) + 1);
    memcpy(b->id, l->id, FREEZE_ID);
}

void take_from(struct take *t, const struct chain *c) {
    if (!getcwd(t->here, sizeof(t->here)))
        *t->here = 0;
    if (!c || !(t->files || t->gate) || !c->link[0].named || !make_lists(t))
        return;
    for (unsigned n = 0; n < c->count; n++)
        name_base(t, &c->link[n], &t->kept.base[n]);
    machine_track_first(t->m);
    t->kept.bases = machine_track(t->m) ? c->count : 0;
}

void take_end(struct take *t) {
    if (t->job.r && t->job.packing) {
        packed(t);
    } else if (t->job.r) {
        name_files(t, false);
        control_finish(t->job.r);
        t->job.r = NULL;
    }
    free(t->kept.since);
    free(t->copies.since);
    free(t->todo);
    t->kept.since = t->copies.since = t->todo = NULL;
}
