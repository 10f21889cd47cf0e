/*
 * Larger programs under Linux (bench/macro), each engine and TCG beside this host: what
 * section 6 of the paper does with forkwait, a compilation and a compute set. The guest's
 * own clock times them; what they compute has to be the same everywhere.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "compare/compare.h"
#include "compare/spawn.h"

#define LIMIT 900.0

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

/* False: it could not be run, or ended badly; why is in WHY. */
static bool run(struct compare_report *r, struct compare_column *c,
                const char *const *argv, char why[120]) {
    struct spawn_result out;
    char *save = NULL;
    bool ok;

    snprintf(why, 120, "could not be started");
    if (spawn_run(argv, LIMIT, &out))
        return false;
    for (char *line = strtok_r(out.out, "\r\n", &save); line;
         line = strtok_r(NULL, "\r\n", &save))
        take_line(r, c, line);
    free(out.out);
    ok = !out.timed_out && out.status == 0;
    if (out.timed_out)
        snprintf(why, 120, "not done after %.0f s", LIMIT);
    else
        snprintf(why, 120, "ended with status %d", out.status);
    return ok;
}

static void run_column(struct compare_report *r, const struct compare_setup *s,
                       struct compare_column *c) {
    char kernel[512], initrd[512], why[120];
    const char *append = "console=ttyS0 quiet";
    const char *ours[] = {s->self,    "run",      "--engine",    c->name,    "--kernel",
                          kernel,     "--initrd", initrd,        "--append", append,
                          "--memory", "768M",     "--no-reboot", NULL};
    const char *tcg[] = {"qemu-system-x86_64",
                         "-accel",
                         "tcg,thread=single",
                         "-cpu",
                         "max,-la57,-smap,-pku,-erms,-fsrm",
                         "-m",
                         "768",
                         "-kernel",
                         kernel,
                         "-initrd",
                         initrd,
                         "-append",
                         append,
                         "-nographic",
                         "-no-reboot",
                         NULL};

    snprintf(kernel, sizeof(kernel), "%s/vmlinuz", s->linux_dir);
    snprintf(initrd, sizeof(initrd), "%s/initrd", s->linux_dir);
    log_info("Linux on %s", c->name);
    if (run(r, c, c->ours ? ours : tcg, why))
        why[0] = 0;
    for (unsigned m = 0; m < r->macros; m++) {
        struct compare_figure *f = &c->macro[m];

        if (f->state != FIGURE_NONE)
            continue;
        f->state = FIGURE_FAILED;
        snprintf(f->why, sizeof(f->why), "%s", why[0] ? why : "no result");
    }
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
    if (!run(r, NULL, native, why)) {
        log_error("%s: %s", program, why);
        return false;
    }
    for (unsigned n = 0; n < r->columns; n++) {
        struct compare_column *c = &r->column[n];

        /* Emulated hardware would take hours, and say nothing about hardware. */
        if (!c->unusable[0] && !c->emulated)
            run_column(r, s, c);
    }
    r->has_macro = true;
    return true;
}
