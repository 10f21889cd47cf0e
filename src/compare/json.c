/* A report as JSON: everything in it, under the names of compare.h. */
#include <cjson/cJSON.h>
#include <string.h>

#include "compare/compare.h"

static cJSON *figure(const struct compare_figure *f) {
    static const char *const states[] = {"none", "ok", "absent", "failed"};
    cJSON *o = cJSON_CreateObject();

    cJSON_AddStringToObject(o, "state", states[f->state]);
    if (f->state == FIGURE_FAILED)
        cJSON_AddStringToObject(o, "why", f->why);
    if (f->state == FIGURE_OK) {
        cJSON_AddNumberToObject(o, "min", f->min);
        cJSON_AddNumberToObject(o, "median", f->median);
        cJSON_AddNumberToObject(o, "max", f->max);
        cJSON_AddNumberToObject(o, "samples", f->samples);
    }
    return o;
}

static cJSON *events(const struct compare_figure *f, bool exits) {
    cJSON *o = cJSON_CreateObject();

    for (unsigned n = 0; n < f->event_count; n++)
        if (f->events[n].exit == exits)
            cJSON_AddNumberToObject(o, f->events[n].name, f->events[n].each);
    return o;
}

/* With what happened, if that was looked at. */
static cJSON *counted(const struct compare_figure *f) {
    cJSON *o = figure(f);

    if (f->event_count) {
        cJSON_AddItemToObject(o, "exits", events(f, true));
        cJSON_AddItemToObject(o, "events", events(f, false));
    }
    return o;
}

static void add_self(cJSON *to, const struct compare_column *c, unsigned wide) {
    cJSON *o = cJSON_AddObjectToObject(to, "self");

    for (unsigned n = 0; n < c->self_count[wide]; n++) {
        cJSON *one = cJSON_AddObjectToObject(o, c->self[wide][n].name);

        cJSON_AddStringToObject(one, "got", c->self[wide][n].got);
        cJSON_AddStringToObject(one, "want", c->self[wide][n].want);
        cJSON_AddBoolToObject(one, "ok", c->self[wide][n].ok);
    }
}

static void add_frob(cJSON *to, const struct compare_column *c, unsigned wide) {
    cJSON *o = cJSON_AddObjectToObject(to, wide ? "frob64" : "frob32");
    cJSON *benches = cJSON_AddObjectToObject(o, "cycles");

    for (unsigned n = 0; n < compare_bench_count; n++) {
        const struct compare_figure *f = &c->frob[wide][n];
        cJSON *one;

        if (f->state == FIGURE_NONE)
            continue;
        one = figure(f);
        if (f->state == FIGURE_OK && c->ours) {
            cJSON_AddItemToObject(one, "exits", events(f, true));
            cJSON_AddItemToObject(one, "events", events(f, false));
        }
        cJSON_AddItemToObject(benches, compare_benches[n].name, one);
    }
    add_self(o, c, wide);
}

static void add_columns(cJSON *root, const struct compare_report *r) {
    cJSON *all = cJSON_AddArrayToObject(root, "columns");

    for (unsigned n = 0; n < r->columns; n++) {
        const struct compare_column *c = &r->column[n];
        cJSON *o = cJSON_CreateObject();

        cJSON_AddItemToArray(all, o);
        cJSON_AddStringToObject(o, "name", c->name);
        cJSON_AddBoolToObject(o, "ours", c->ours);
        cJSON_AddBoolToObject(o, "hardware", c->hardware);
        cJSON_AddBoolToObject(o, "emulated_underneath", c->emulated);
        if (c->unusable[0])
            cJSON_AddStringToObject(o, "unusable", c->unusable);
        for (unsigned wide = 0; wide < 2; wide++)
            if (r->has_frob && r->widths[wide])
                add_frob(o, c, wide);
        if (r->has_macro) {
            cJSON *macro = cJSON_AddObjectToObject(o, "linux");

            for (unsigned m = 0; m < r->macros; m++)
                cJSON_AddItemToObject(macro, r->macro[m].name, counted(&c->macro[m]));
        }
    }
}

static void add_native(cJSON *root, const struct compare_report *r) {
    cJSON *o = cJSON_AddObjectToObject(root, "native");
    cJSON *frob = cJSON_AddObjectToObject(o, "cycles");

    for (unsigned n = 0; n < compare_bench_count; n++)
        if (r->native[n].state == FIGURE_OK)
            cJSON_AddItemToObject(frob, compare_benches[n].name, figure(&r->native[n]));
    if (r->has_macro) {
        cJSON *macro = cJSON_AddObjectToObject(o, "linux");

        for (unsigned m = 0; m < r->macros; m++)
            cJSON_AddItemToObject(macro, r->macro[m].name, figure(&r->macro[m].native));
    }
}

static void add_paper(cJSON *root) {
    cJSON *o = cJSON_AddObjectToObject(root, "paper");

    for (unsigned n = 0; n < compare_bench_count; n++) {
        const struct compare_bench *b = &compare_benches[n];
        cJSON *one;

        if (!b->paper_native)
            continue;
        one = cJSON_AddObjectToObject(o, b->name);
        cJSON_AddNumberToObject(one, "native", b->paper_native);
        cJSON_AddNumberToObject(one, "bt", b->paper_bt);
        cJSON_AddNumberToObject(one, "vt", b->paper_vt);
    }
}

static void add_shadow(cJSON *root, const struct compare_report *r) {
    cJSON *o = cJSON_AddObjectToObject(root, "shadow");

    cJSON_AddStringToObject(o, "engine", r->shadow_engine);
    for (unsigned l = 0; l < COMPARE_LOADS; l++) {
        cJSON *load = cJSON_AddObjectToObject(o, compare_loads[l]);

        for (unsigned p = 0; p < COMPARE_POLICIES; p++) {
            const struct compare_shadow_cell *c = &r->shadow[l][p];
            cJSON *one = figure(&c->figure);

            cJSON_AddItemToObject(load, compare_policies[p], one);
            cJSON_AddNumberToObject(one, "hidden_page_faults", c->hidden_faults);
            cJSON_AddNumberToObject(one, "true_page_faults", c->true_faults);
            cJSON_AddNumberToObject(one, "trace_hits", c->trace_hits);
            cJSON_AddNumberToObject(one, "trace_drops", c->trace_drops);
            cJSON_AddNumberToObject(one, "space_switches", c->switches);
            cJSON_AddNumberToObject(one, "space_misses", c->space_misses);
        }
    }
}

char *compare_json(const struct compare_report *r) {
    cJSON *root = cJSON_CreateObject();
    char *text;

    cJSON_AddStringToObject(root, "host", r->host);
    cJSON_AddBoolToObject(root, "host_is_virtual", r->host_is_virtual);
    cJSON_AddNumberToObject(root, "tsc_mhz", r->tsc_mhz);
    cJSON_AddStringToObject(root, "date", r->date);
    cJSON_AddBoolToObject(root, "brief", r->brief);
    add_native(root, r);
    add_paper(root);
    add_columns(root, r);
    if (r->has_shadow)
        add_shadow(root, r);
    text = cJSON_Print(root);
    cJSON_Delete(root);
    return text;
}
