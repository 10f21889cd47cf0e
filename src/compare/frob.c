/*
 * frob on every engine. Engines of ours run it once for each benchmark, with --stats, and
 * once without any: what a run counted, less what starting and ending frob counts,
 * divided by the operations that frob says it did, is what an operation causes. A
 * benchmark that an engine cannot do ends its own run only. QEMU counts nothing for us
 * and is started once.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "compare/bare.h"
#include "compare/compare.h"
#include "compare/frob_image.h"
#include "compare/spawn.h"

/* The loads stand behind the benchmarks in struct frob_output. */
static int figure_index(const char *name) {
    for (unsigned n = 0; n < COMPARE_LOADS; n++)
        if (!strcmp(name, compare_loads[n]))
            return (int)(COMPARE_BENCHES + n);
    return compare_index(name);
}

static bool write_image(const char *dir, const char *name, const uint8_t *from,
                        const uint8_t *to) {
    char path[128];
    FILE *f;
    bool bad;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "we");
    bad = !f || fwrite(from, 1, (size_t)(to - from), f) != (size_t)(to - from);
    if (f)
        bad |= fclose(f) != 0;
    if (bad)
        log_error("cannot write %s: %s", path, strerror(errno));
    return !bad;
}

bool frob_install(const struct compare_setup *s) {
    return write_image(s->dir, "frob32", _binary_frob32_start, _binary_frob32_end) &&
           write_image(s->dir, "frob64", _binary_frob64_start, _binary_frob64_end);
}

/* --- what frob prints --- */

/* The value of KEY= in LINE, or "". */
static const char *field(const char *line, const char *key, char *buf, size_t size) {
    size_t n = 0, len = strlen(key);
    const char *p = line;

    while ((p = strstr(p, key)) && !(p > line && p[-1] == ' ' && p[len] == '='))
        p++;
    for (p = p ? p + len + 1 : ""; *p && *p != ' ' && n < size - 1; p++)
        buf[n++] = *p;
    buf[n] = 0;
    return buf;
}

static double number(const char *line, const char *key) {
    char buf[32];

    return strtod(field(line, key, buf, sizeof(buf)), NULL);
}

static void take_bench(struct frob_output *o, const char *line) {
    char name[32];
    int n = figure_index(field(line, "name", name, sizeof(name)));
    struct compare_figure *f = n < 0 ? NULL : &o->figure[n];

    if (!f)
        return;
    *f = (struct compare_figure){
        .state = number(line, "ok") == 1 ? FIGURE_OK : FIGURE_FAILED,
        .min = number(line, "min"),
        .median = number(line, "median"),
        .max = number(line, "max"),
        .samples = (unsigned)number(line, "samples"),
    };
    o->total[n] = (uint64_t)number(line, "total");
    if (f->state == FIGURE_FAILED)
        snprintf(f->why, sizeof(f->why), "the result was wrong");
}

static void take_self(struct frob_output *o, const char *line) {
    struct compare_self *c;

    if (o->selfs == COMPARE_SELF)
        return;
    c = &o->self[o->selfs++];
    field(line, "name", c->name, sizeof(c->name));
    field(line, "got", c->got, sizeof(c->got));
    field(line, "want", c->want, sizeof(c->want));
    c->ok = number(line, "ok") == 1;
}

static void take_line(struct frob_output *o, const char *line) {
    char name[32];

    if (!strncmp(line, "frob ", 5)) {
        o->lines++;
    } else if (!strncmp(line, "bench ", 6)) {
        take_bench(o, line);
    } else if (!strncmp(line, "absent ", 7)) {
        int n = figure_index(field(line, "name", name, sizeof(name)));

        if (n >= 0)
            o->figure[n].state = FIGURE_ABSENT;
    } else if (!strncmp(line, "self ", 5)) {
        take_self(o, line);
    } else if (!strncmp(line, "fatal ", 6)) {
        snprintf(o->trouble, sizeof(o->trouble), "frob gave up: %s", line + 6);
    } else if (!strncmp(line, "bivisor: error: ", 16) && !o->trouble[0]) {
        snprintf(o->trouble, sizeof(o->trouble), "%s", line + 16);
    } else if (!strncmp(line, "done ", 5)) {
        o->done = true;
    }
}

static void take_output(struct frob_output *o, char *text) {
    char *save = NULL;

    for (char *line = strtok_r(text, "\r\n", &save); line;
         line = strtok_r(NULL, "\r\n", &save))
        take_line(o, line);
}

static cJSON *read_stats(const char *path) {
    char buf[16384];
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(buf, 1, sizeof(buf) - 1, f) : 0;

    if (f)
        fclose(f);
    buf[n] = 0;
    return cJSON_Parse(buf);
}

static void why_not_done(const struct frob_run *run, const struct spawn_result *r,
                         struct frob_output *out) {
    if (out->done || out->trouble[0])
        return;
    if (r->timed_out)
        snprintf(out->trouble, sizeof(out->trouble), "not done after %.0f s", run->limit);
    else
        snprintf(out->trouble, sizeof(out->trouble), "ended with status %d", r->status);
}

int frob_run(const struct compare_setup *s, const struct frob_run *run,
             struct frob_output *out) {
    char kernel[96], append[256], stats[128], stats_path[96];
    const char *ours[] = {s->self,
                          "run",
                          "--engine",
                          run->engine,
                          "--kernel",
                          kernel,
                          "--append",
                          append,
                          "--memory",
                          "64M",
                          "--no-reboot",
                          stats,
                          "--retention",
                          run->retention ? run->retention : "pcid",
                          run->direct ? "--direct" : NULL,
                          run->direct,
                          NULL};
    struct emulator tcg;
    struct bare_command bare;
    struct spawn_result r;
    int rc;

    memset(out, 0, sizeof(*out));
    snprintf(kernel, sizeof(kernel), "%s/frob%u", s->dir, run->bits);
    snprintf(append, sizeof(append), "%s%s%s", s->brief ? "samples=3 target=20000 " : "",
             run->only ? "only=" : "", run->only ? run->only : "");
    snprintf(stats_path, sizeof(stats_path), "%s/stats", s->dir);
    snprintf(stats, sizeof(stats), "--stats=%s", stats_path);
    remove(stats_path);
    emulator_make(&tcg, EMULATOR_CPU, 64);
    emulator_add(&tcg, "-kernel", kernel);
    emulator_add(&tcg, "-append", append);
    if (run->words)
        bare_command(&bare, s, run->words, 64, kernel, append);
    rc = spawn_run(run->words    ? bare.qemu.argv
                   : run->engine ? ours
                                 : tcg.argv,
                   run->limit, &r);
    if (rc)
        return rc;
    if (run->words)
        out->stats = bare_stats(r.out);
    else if (run->engine)
        out->stats = read_stats(stats_path);
    take_output(out, r.out);
    why_not_done(run, &r, out);
    free(r.out);
    return 0;
}

/* --- columns --- */

/* What runs frob in column C, with WIDE bits, as far as the column says it. */
static struct frob_run run_of(const struct compare_column *c, unsigned wide,
                              const char *only) {
    bool directly = c->direct && !strcmp(c->direct, "auto");

    return (struct frob_run){.engine = c->direct ? "bt" : c->name,
                             .direct = directly ? "on" : c->direct,
                             .words = c->words,
                             .bits = wide ? 64 : 32,
                             .only = only,
                             .limit = c->words ? 120 : 30};
}

static bool has_row(const struct compare_column *c, unsigned n) {
    return !c->direct || strcmp(c->direct, "auto") || compare_benches[n].user;
}

static void fail(struct compare_figure *f, const char *why) {
    f->state = FIGURE_FAILED;
    snprintf(f->why, sizeof(f->why), "%s", why);
}

static void run_one(struct compare_column *c, const struct compare_setup *s,
                    unsigned wide, unsigned n, const cJSON *base) {
    const struct frob_run run = run_of(c, wide, compare_benches[n].name);
    struct compare_figure *f = &c->frob[wide][n];
    struct frob_output *o = malloc(sizeof(*o));

    if (!o || frob_run(s, &run, o)) {
        fail(f, "could not be started");
        free(o);
        return;
    }
    *f = o->figure[n];
    /* What happens less often than once in ten operations is what printing costs. */
    if (f->state == FIGURE_OK && o->total[n]) {
        compare_add_events(f, o->stats, base, (double)o->total[n], 0.1);
    } else if (f->state == FIGURE_NONE && o->trouble[0]) {
        fail(f, o->trouble);
    }
    cJSON_Delete(o->stats);
    free(o);
}

/* All benchmarks on an engine of ours. The first run, without any but with a line as long
 * as a result's, is to be subtracted.
 */
static void run_ours(struct compare_column *c, const struct compare_setup *s,
                     unsigned wide) {
    const struct frob_run none = run_of(c, wide, "none pad=92");
    struct frob_output *o = malloc(sizeof(*o));

    if (!o || frob_run(s, &none, o)) {
        snprintf(c->unusable, sizeof(c->unusable), "could not be started");
        free(o);
        return;
    }
    c->self_count[wide] = o->selfs;
    memcpy(c->self[wide], o->self, sizeof(o->self));
    if (!o->lines)
        snprintf(c->unusable, sizeof(c->unusable), "%s", o->trouble);
    for (unsigned n = 0; n < compare_bench_count && o->lines; n++)
        if (compare_in_list(s->only, compare_benches[n].name) && has_row(c, n))
            run_one(c, s, wide, n, o->stats);
    cJSON_Delete(o->stats);
    free(o);
}

static void run_tcg(struct compare_column *c, const struct compare_setup *s,
                    unsigned wide) {
    const struct frob_run run = {.bits = wide ? 64 : 32, .only = s->only, .limit = 120};
    struct frob_output *o = malloc(sizeof(*o));

    if (!o || frob_run(s, &run, o)) {
        snprintf(c->unusable, sizeof(c->unusable), "could not be started");
        free(o);
        return;
    }
    c->self_count[wide] = o->selfs;
    memcpy(c->self[wide], o->self, sizeof(o->self));
    if (!o->lines)
        snprintf(c->unusable, sizeof(c->unusable), "%s", o->trouble);
    for (unsigned n = 0; n < compare_bench_count; n++) {
        c->frob[wide][n] = o->figure[n];
        if (o->figure[n].state == FIGURE_NONE && o->trouble[0] &&
            compare_in_list(s->only, compare_benches[n].name))
            fail(&c->frob[wide][n], o->trouble);
    }
    free(o);
}

/* Whatever its probe says: hardware would run a call at CPL 0 as fast as this process
 * runs it. */
static void judge_hardware(struct compare_report *r, struct compare_column *c) {
    int n = compare_index("callret");
    double native = r->native[n].min;

    for (unsigned wide = 0; wide < 2; wide++) {
        const struct compare_figure *f = &c->frob[wide][n];

        if (c->hardware && f->state == FIGURE_OK && f->min > 8 * native)
            c->emulated = true;
    }
}

void compare_frob(struct compare_report *r, const struct compare_setup *s) {
    for (unsigned n = 0; n < r->columns; n++) {
        struct compare_column *c = &r->column[n];

        for (unsigned wide = 0; wide < 2; wide++) {
            if (!r->widths[wide] || (!wide && c->direct && strcmp(c->direct, "off")))
                continue;
            log_info("frob%s on %s", wide ? "64" : "32", c->name);
            if (c->ours)
                run_ours(c, s, wide);
            else
                run_tcg(c, s, wide);
        }
        judge_hardware(r, c);
    }
    r->has_frob = true;
}
