/*
 * Larger programs under Linux (bench/macro), each engine and TCG beside this host: what
 * section 6 of the paper does with forkwait, a compilation and a compute set. The guest's
 * own clock times them; what they compute has to be the same everywhere.
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "compare/bare.h"
#include "compare/compare.h"
#include "compare/spawn.h"

#define LIMIT 900.0
#define LIMIT_EMULATED 3600.0 /* on hardware that is an emulator's */

/* What macro.c does of them in forkwait: an operation. */
#define FORKS 2000.0

/* Times native in the paper's section 6.2: 6.0 s native, 36.9 BT, 106.4 VT. */
#define FORKWAIT_BT (36.9 / 6.0)
#define FORKWAIT_VT (106.4 / 6.0)

static struct compare_macro *macro_named(struct compare_report *r, const char *name,
                                         bool make) {
    struct compare_macro *m;

    for (unsigned n = 0; n < r->macros; n++)
        if (!strcmp(r->macro[n].name, name))
            return &r->macro[n];
    if (!make || r->macros == COMPARE_MACRO)
        return NULL;
    m = &r->macro[r->macros++];
    snprintf(m->name, sizeof(m->name), "%s", name);
    if (!strcmp(name, "forkwait")) {
        m->paper_bt = FORKWAIT_BT;
        m->paper_vt = FORKWAIT_VT;
    }
    return m;
}

/* "macro name=N seconds=S result=R" or bench's "@ GROUP N NANOSECONDS @". */
static bool parse_line(const char *line, char name[24], double *value, char result[32]) {
    const char *at = strstr(line, "macro name="); /* behind a firmware's escape codes */

    result[0] = 0;
    if (at &&
        sscanf(at, "macro name=%23s seconds=%lf result=%31s", name, value, result) == 3)
        return true;
    return sscanf(line, "@ %*s %23s %lf", name, value) == 2;
}

static void take_line(struct compare_report *r, struct compare_column *c,
                      const char *line) {
    char name[24], result[32];
    struct compare_figure *f;
    struct compare_macro *m;
    double value;

    if (!parse_line(line, name, &value, result))
        return;
    m = macro_named(r, name, !c);
    if (!m)
        return;
    if (!c)
        memcpy(m->result, result, sizeof(result));
    f = c ? &c->macro[m - r->macro] : &m->native;
    *f = (struct compare_figure){
        .state = FIGURE_OK, .min = value, .median = value, .max = value, .samples = 1};
    if (c && strcmp(m->result, result)) {
        f->state = FIGURE_FAILED;
        snprintf(f->why, sizeof(f->why), "the result %s is not the native one, %s",
                 result, m->result);
    }
}

/* False: it could not be run, or ended badly; why is in WHY. STATS, if it is not NULL,
 * are bivisor.elf's figures, whose machine ends with another status. */
static bool run(struct compare_report *r, struct compare_column *c,
                const char *const *argv, char why[120], cJSON **stats) {
    struct spawn_result out;
    double limit = stats ? LIMIT_EMULATED : LIMIT;
    char *save = NULL;
    bool ok;

    snprintf(why, 120, "could not be started");
    if (spawn_run(argv, limit, &out))
        return false;
    if (stats)
        *stats = bare_stats(out.out);
    for (char *line = strtok_r(out.out, "\r\n", &save); line;
         line = strtok_r(NULL, "\r\n", &save))
        take_line(r, c, line);
    free(out.out);
    ok = !out.timed_out && out.status == (stats ? BARE_WELL : 0) && (!stats || *stats);
    if (out.timed_out)
        snprintf(why, 120, "not done after %.0f s", limit);
    else
        snprintf(why, 120, "ended with status %d", out.status);
    return ok;
}

static void fail(struct compare_figure *f, const char *why) {
    f->state = FIGURE_FAILED;
    snprintf(f->why, sizeof(f->why), "%s", why);
}

static const char *engine_of(const struct compare_column *c) {
    return c->direct ? "bt" : c->name;
}

static const char *direct_of(const struct compare_column *c) {
    return c->direct ? c->direct : "off";
}

static void run_column(struct compare_report *r, const struct compare_setup *s,
                       struct compare_column *c) {
    char kernel[512], initrd[512], why[120];
    const char *append = "console=ttyS0 quiet";
    const char *ours[] = {s->self,       "run",      "--engine",   engine_of(c),
                          "--kernel",    kernel,     "--initrd",   initrd,
                          "--append",    append,     "--memory",   "768M",
                          "--no-reboot", "--direct", direct_of(c), NULL};
    struct emulator tcg;

    snprintf(kernel, sizeof(kernel), "%s/vmlinuz", s->linux_dir);
    snprintf(initrd, sizeof(initrd), "%s/initrd", s->linux_dir);
    emulator_make(&tcg, EMULATOR_CPU, 768);
    emulator_add(&tcg, "-kernel", kernel);
    emulator_add(&tcg, "-initrd", initrd);
    emulator_add(&tcg, "-append", append);
    log_info("Linux on %s", c->name);
    if (run(r, c, c->ours ? ours : tcg.argv, why, NULL))
        why[0] = 0;
    for (unsigned m = 0; m < r->macros; m++) {
        struct compare_figure *f = &c->macro[m];

        if (f->state == FIGURE_NONE)
            fail(f, why[0] ? why : "no result");
    }
}

/* --- what it counts --- */

static cJSON *file_stats(const char *path) {
    char buf[16384];
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(buf, 1, sizeof(buf) - 1, f) : 0;

    if (f)
        fclose(f);
    buf[n] = 0;
    return cJSON_Parse(buf);
}

/* A boot with that PROGRAM of bench/macro alone. NULL: it failed. */
static cJSON *count(struct compare_report *r, const struct compare_setup *s,
                    struct compare_column *c, const char *program, char why[120]) {
    char kernel[512], initrd[512], both[1100], append[64], stats[128], path[96];
    const char *ours[] = {
        s->self,       "run",  "--engine", engine_of(c), "--kernel", kernel,
        "--initrd",    initrd, "--append", append,       "--memory", "768M",
        "--no-reboot", stats,  "--direct", direct_of(c), NULL};
    struct bare_command bare;
    cJSON *got = NULL;
    bool ok;

    snprintf(kernel, sizeof(kernel), "%s/vmlinuz", s->linux_dir);
    snprintf(initrd, sizeof(initrd), "%s/initrd", s->linux_dir);
    snprintf(both, sizeof(both), "%s,%s", kernel, initrd);
    snprintf(append, sizeof(append), "console=ttyS0 quiet macro=%s", program);
    snprintf(path, sizeof(path), "%s/stats", s->dir);
    snprintf(stats, sizeof(stats), "--stats=%s", path);
    remove(path);
    log_info("Linux on %s, counting: %s", c->name, program);
    if (c->words)
        bare_command(&bare, s, c->words, 768, both, append);
    ok = run(r, c->words ? c : NULL, c->words ? bare.qemu.argv : ours, why,
             c->words ? &got : NULL);
    if (ok && !c->words)
        got = file_stats(path);
    if (ok)
        return got;
    cJSON_Delete(got);
    return NULL;
}

/* What forkwait and the compilation cause, less what booting does. */
static void count_column(struct compare_report *r, const struct compare_setup *s,
                         struct compare_column *c) {
    static const struct {
        const char *name;
        double ops;
    } programs[] = {{"forkwait", FORKS}, {"compile", 1}};
    char why[120];
    cJSON *none = count(r, s, c, "none", why);

    for (unsigned n = 0; n < ARRAY_SIZE(programs); n++) {
        struct compare_macro *m = macro_named(r, programs[n].name, false);
        struct compare_figure *f = m ? &c->macro[m - r->macro] : NULL;
        cJSON *stats = none && f ? count(r, s, c, programs[n].name, why) : NULL;

        if (stats)
            compare_add_events(f, stats, none, programs[n].ops, 0.1);
        else if (f && f->state != FIGURE_OK)
            fail(f, why);
        cJSON_Delete(stats);
    }
    cJSON_Delete(none);
}

bool compare_linux(struct compare_report *r, const struct compare_setup *s) {
    char program[512], root[512], why[120];
    const char *native[] = {program, root, NULL};

    snprintf(program, sizeof(program), "%s/root/bin/macro", s->linux_dir);
    snprintf(root, sizeof(root), "%s/root", s->linux_dir);
    if (access(program, X_OK)) {
        log_error("'%s' is not what bench/macro/make makes: it has no root/bin/macro",
                  s->linux_dir);
        return false;
    }
    log_info("natively");
    if (!run(r, NULL, native, why, NULL)) {
        log_error("%s: %s", program, why);
        return false;
    }
    for (unsigned n = 0; n < r->columns; n++) {
        struct compare_column *c = &r->column[n];

        /* Emulated hardware would take hours, and say nothing about hardware; what is
         * counted does, where it is our own that counts. */
        if (c->unusable[0] || (c->emulated && !c->words))
            continue;
        if (!c->words)
            run_column(r, s, c);
        if (c->words || !strcmp(c->name, "bt"))
            count_column(r, s, c);
    }
    r->has_macro = true;
    return true;
}
