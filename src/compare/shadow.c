/*
 * The three-way trade-off of a shadow MMU, shown: three loads of frob under each
 * retention policy of docs/mmu.md, on the first engine of ours among the columns that has
 * a shadow.
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "compare/compare.h"

static void not_started(struct compare_figure *f) {
    f->state = FIGURE_FAILED;
    snprintf(f->why, sizeof(f->why), "could not be started");
}

static void run_cell(struct compare_report *r, const struct compare_setup *s,
                     unsigned load, unsigned policy) {
    struct compare_shadow_cell *c = &r->shadow[load][policy];
    const struct frob_run run = {.engine = r->shadow_engine,
                                 .retention = compare_policies[policy],
                                 .bits = r->widths[1] ? 64 : 32,
                                 .only = compare_loads[load],
                                 .limit = 60};
    struct frob_run none = run;
    struct frob_output *o = malloc(2 * sizeof(*o));
    double ops;

    none.only = "none pad=92";
    if (!o || frob_run(s, &none, &o[0])) {
        not_started(&c->figure);
        free(o);
        return;
    }
    if (frob_run(s, &run, &o[1])) {
        not_started(&c->figure);
        cJSON_Delete(o[0].stats);
        free(o);
        return;
    }
    c->figure = o[1].figure[COMPARE_BENCHES + load];
    ops = (double)o[1].total[COMPARE_BENCHES + load];
    if (c->figure.state == FIGURE_NONE) {
        c->figure.state = FIGURE_FAILED;
        memcpy(c->figure.why, o[1].trouble, sizeof(c->figure.why));
    } else if (ops > 0) {
        const struct {
            const char *name;
            double *to;
        } counted[] = {
            {"hidden_page_faults", &c->hidden_faults},
            {"true_page_faults", &c->true_faults},
            {"trace_hits_pt", &c->trace_hits},
            {"trace_invalidations", &c->trace_drops},
            {"shadow_space_switches", &c->switches},
            {"shadow_space_misses", &c->space_misses},
        };

        for (unsigned n = 0; n < ARRAY_SIZE(counted); n++)
            *counted[n].to =
                compare_counted(o[1].stats, o[0].stats, "counters", counted[n].name) /
                ops;
    }
    cJSON_Delete(o[0].stats);
    cJSON_Delete(o[1].stats);
    free(o);
}

void compare_shadow(struct compare_report *r, const struct compare_setup *s) {
    for (unsigned n = 0; n < r->columns && !r->has_shadow; n++) {
        const struct compare_column *c = &r->column[n];

        /* With hardware's nested paging there is no shadow. */
        if (!c->ours || c->hardware || c->words)
            continue;
        snprintf(r->shadow_engine, sizeof(r->shadow_engine), "%s", c->name);
        r->has_shadow = true;
    }
    for (unsigned l = 0; l < COMPARE_LOADS && r->has_shadow; l++) {
        for (unsigned p = 0; p < COMPARE_POLICIES; p++) {
            log_info("%s with %s on %s", compare_loads[l], compare_policies[p],
                     r->shadow_engine);
            run_cell(r, s, l, p);
        }
    }
}
