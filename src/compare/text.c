/* A report as tables for a terminal. */
#include <stdio.h>
#include <string.h>

#include "compare/compare.h"

#define CELL 11

const char *compare_number(double v, char *buf, size_t size) {
    if (v >= 1e7)
        snprintf(buf, size, "%.1f M", v / 1e6);
    else if (v >= 100)
        snprintf(buf, size, "%.0f", v);
    else if (v >= 10)
        snprintf(buf, size, "%.1f", v);
    else
        snprintf(buf, size, "%.2f", v);
    return buf;
}

const char *compare_column_label(const struct compare_column *c, char *buf, size_t size) {
    snprintf(buf, size, "%s%s", c->name, c->emulated ? "*" : "");
    return buf;
}

static void cell(FILE *f, const char *text) {
    fprintf(f, " %*s", CELL, text);
}

static void figure_cell(FILE *f, const struct compare_figure *g) {
    char buf[32];

    switch (g->state) {
    case FIGURE_OK:
        cell(f, compare_number(g->median, buf, sizeof(buf)));
        break;
    case FIGURE_FAILED:
        cell(f, "fails");
        break;
    default:
        cell(f, "-");
    }
}

static void ratio_cell(FILE *f, const struct compare_figure *g,
                       const struct compare_figure *base) {
    char buf[32];

    if (g->state != FIGURE_OK || base->state != FIGURE_OK || base->median <= 0) {
        cell(f, "-");
        return;
    }
    snprintf(buf, sizeof(buf), "%.2f", g->median / base->median);
    cell(f, buf);
}

static void paper_cell(FILE *f, double v) {
    char buf[32];

    snprintf(buf, sizeof(buf), "%.0f", v);
    cell(f, v ? buf : "");
}

const struct compare_column *compare_tcg(const struct compare_report *r) {
    for (unsigned n = 0; n < r->columns; n++)
        if (!r->column[n].ours)
            return &r->column[n];
    return NULL;
}

static void ratio_label(FILE *f, const struct compare_column *c, const char *to) {
    char text[48], name[32];

    snprintf(text, sizeof(text), "%s/%s", compare_column_label(c, name, sizeof(name)),
             to);
    cell(f, text);
}

static bool row_wanted(const struct compare_report *r, unsigned wide, unsigned b) {
    for (unsigned n = 0; n < r->columns; n++)
        if (r->column[n].frob[wide][b].state != FIGURE_NONE)
            return true;
    return false;
}

static void frob_header(const struct compare_report *r, unsigned wide, FILE *f) {
    const struct compare_column *tcg = compare_tcg(r);
    char name[32];

    fprintf(f, "\nfrob%s: cycles an operation, median\n\n%-12s", wide ? "64" : "32", "");
    cell(f, "native");
    for (unsigned n = 0; n < r->columns; n++)
        cell(f, compare_column_label(&r->column[n], name, sizeof(name)));
    for (unsigned n = 0; tcg && n < r->columns; n++)
        if (r->column[n].ours && !r->column[n].words)
            ratio_label(f, &r->column[n], "tcg");
    fprintf(f, "  |");
    cell(f, "paper:natv");
    cell(f, "BT");
    cell(f, "VT");
    fprintf(f, "\n");
}

static void frob_table(const struct compare_report *r, unsigned wide, FILE *f) {
    const struct compare_column *tcg = compare_tcg(r);

    frob_header(r, wide, f);
    for (unsigned b = 0; b < compare_bench_count; b++) {
        const struct compare_bench *d = &compare_benches[b];

        if (!row_wanted(r, wide, b))
            continue;
        fprintf(f, "%-12s", d->name);
        figure_cell(f, &r->native[b]);
        for (unsigned n = 0; n < r->columns; n++)
            figure_cell(f, &r->column[n].frob[wide][b]);
        for (unsigned n = 0; tcg && n < r->columns; n++)
            if (r->column[n].ours && !r->column[n].words)
                ratio_cell(f, &r->column[n].frob[wide][b], &tcg->frob[wide][b]);
        fprintf(f, "  |");
        paper_cell(f, d->paper_native);
        paper_cell(f, d->paper_bt);
        paper_cell(f, d->paper_vt);
        fprintf(f, "\n");
    }
}

static void event_line(const struct compare_figure *g, bool exits, FILE *f) {
    char buf[32];

    for (unsigned k = 0; k < g->event_count; k++)
        if (g->events[k].exit == exits)
            fprintf(f, " %s %s", g->events[k].name,
                    compare_number(g->events[k].each, buf, sizeof(buf)));
}

static void events_of(const struct compare_figure *g, FILE *f) {
    if (g->state == FIGURE_FAILED) {
        fprintf(f, "%s\n", g->why);
        return;
    }
    fprintf(f, "[");
    event_line(g, true, f);
    fprintf(f, " ]");
    event_line(g, false, f);
    fprintf(f, "\n");
}

static void events_table(const struct compare_report *r, unsigned wide, FILE *f) {
    char name[32];

    fprintf(f,
            "\nfrob%s: exits by reason [in brackets] and other events, for each "
            "operation\n\n",
            wide ? "64" : "32");
    for (unsigned b = 0; b < compare_bench_count; b++) {
        for (unsigned n = 0; n < r->columns; n++) {
            const struct compare_column *c = &r->column[n];
            const struct compare_figure *g = &c->frob[wide][b];

            if (!c->ours || g->state == FIGURE_NONE || g->state == FIGURE_ABSENT)
                continue;
            fprintf(f, "%-12s %-12s ", compare_benches[b].name,
                    compare_column_label(c, name, sizeof(name)));
            events_of(g, f);
        }
    }
}

static bool all_well(const struct compare_report *r, unsigned wide) {
    for (unsigned n = 0; n < r->columns; n++)
        for (unsigned k = 0; k < r->column[n].self_count[wide]; k++)
            if (!r->column[n].self[wide][k].ok)
                return false;
    return true;
}

static void self_table(const struct compare_report *r, unsigned wide, FILE *f) {
    fprintf(f,
            "\nfrob%s: what the guest sees of itself (CPL in %%cs, IF after POPF, "
            "SGDT and SIDT): ",
            wide ? "64" : "32");
    if (all_well(r, wide)) {
        fprintf(f, "as the architecture says, everywhere\n");
        return;
    }
    fprintf(f, "not everywhere\n");
    for (unsigned n = 0; n < r->columns; n++) {
        const struct compare_column *c = &r->column[n];

        for (unsigned k = 0; k < c->self_count[wide]; k++)
            if (!c->self[wide][k].ok)
                fprintf(f, "  %-8s %-18s is %s, and should be %s\n", c->name,
                        c->self[wide][k].name, c->self[wide][k].got,
                        c->self[wide][k].want);
    }
}

static void macro_table(const struct compare_report *r, FILE *f) {
    char name[32];

    fprintf(f,
            "\nUnder Linux: seconds, or nanoseconds for the compute set (from `fib` on); "
            "times native\n\n%-12s",
            "");
    cell(f, "native");
    for (unsigned n = 0; n < r->columns; n++)
        cell(f, compare_column_label(&r->column[n], name, sizeof(name)));
    for (unsigned n = 0; n < r->columns; n++)
        if (!r->column[n].words)
            ratio_label(f, &r->column[n], "native");
    fprintf(f, "  |");
    cell(f, "paper:BT");
    cell(f, "VT");
    fprintf(f, "\n");
    for (unsigned m = 0; m < r->macros; m++) {
        const struct compare_macro *d = &r->macro[m];
        char buf[32];

        fprintf(f, "%-12s", d->name);
        figure_cell(f, &d->native);
        for (unsigned n = 0; n < r->columns; n++)
            figure_cell(f, &r->column[n].macro[m]);
        for (unsigned n = 0; n < r->columns; n++)
            if (!r->column[n].words)
                ratio_cell(f, &r->column[n].macro[m], &d->native);
        fprintf(f, "  |");
        snprintf(buf, sizeof(buf), "%.1f", d->paper_bt);
        cell(f, d->paper_bt ? buf : "");
        snprintf(buf, sizeof(buf), "%.1f", d->paper_vt);
        cell(f, d->paper_vt ? buf : "");
        fprintf(f, "\n");
    }
    for (unsigned n = 0; n < r->columns; n++)
        for (unsigned m = 0; m < r->macros; m++)
            if (r->column[n].macro[m].state == FIGURE_FAILED)
                fprintf(f, "%s, %s: %s\n", r->column[n].name, r->macro[m].name,
                        r->column[n].macro[m].why);
}

static void macro_events(const struct compare_report *r, FILE *f) {
    char name[32];
    bool any = false;

    for (unsigned m = 0; m < r->macros; m++) {
        for (unsigned n = 0; n < r->columns; n++) {
            const struct compare_figure *g = &r->column[n].macro[m];

            if (!g->event_count)
                continue;
            if (!any)
                fprintf(f, "\nUnder Linux: exits by reason [in brackets] and other "
                           "events, for each fork and wait, and in\nall for the "
                           "compilation; less those of booting\n\n");
            any = true;
            fprintf(f, "%-12s %-12s ", r->macro[m].name,
                    compare_column_label(&r->column[n], name, sizeof(name)));
            events_of(g, f);
        }
    }
}

static void shadow_table(const struct compare_report *r, FILE *f) {
    fprintf(f,
            "\nRetention policies of the shadow MMU, engine %s, for each operation\n\n",
            r->shadow_engine);
    fprintf(f, "%-12s %-8s", "", "policy");
    cell(f, "cycles");
    cell(f, "hidden pf");
    cell(f, "true pf");
    cell(f, "traced st");
    cell(f, "drops");
    cell(f, "switches");
    cell(f, "empty");
    fprintf(f, "\n");
    for (unsigned l = 0; l < COMPARE_LOADS; l++) {
        for (unsigned p = 0; p < COMPARE_POLICIES; p++) {
            const struct compare_shadow_cell *c = &r->shadow[l][p];
            const double v[] = {c->hidden_faults, c->true_faults, c->trace_hits,
                                c->trace_drops,   c->switches,    c->space_misses};
            char buf[32];

            fprintf(f, "%-12s %-8s", compare_loads[l], compare_policies[p]);
            figure_cell(f, &c->figure);
            for (unsigned k = 0; k < ARRAY_SIZE(v); k++)
                cell(f, compare_number(v[k], buf, sizeof(buf)));
            fprintf(f, "%s%s\n", c->figure.why[0] ? "  " : "", c->figure.why);
        }
        fprintf(f, "  (%s)\n", compare_load_what[l]);
    }
    fprintf(f, "\nhidden pf: the shadow missed what the guest's tables map. traced st: "
               "stores to traced page tables;\ndrops: those that invalidated shadow "
               "entries. switches: CR3 loads that found their shadow; empty: that\n"
               "found none.\n");
}

static void notes(const struct compare_report *r, FILE *f) {
    fprintf(f,
            "\nnative: the same instructions in user mode of this host, where they can "
            "run there%s.\n",
            r->host_is_virtual
                ? ";\n        it is a virtual machine itself: CPUID there is its "
                  "hypervisor's"
                : "");
    fprintf(f, "paper:  Adams and Agesen, ASPLOS 2006, on a 3.8 GHz Pentium 4.\n");
    for (unsigned n = 0; n < r->columns; n++) {
        const struct compare_column *c = &r->column[n];

        if (c->words)
            fprintf(
                f,
                "*       %s is bivisor.elf on a CPU that QEMU emulates: these are the "
                "emulator's times, not hardware's.\n",
                c->name);
        else if (c->emulated)
            fprintf(f,
                    "*       %s's hardware support is emulated underneath: these are the "
                    "emulator's times, not hardware's.\n",
                    c->name);
        if (c->unusable[0])
            fprintf(f, "%s: %s\n", c->name, c->unusable);
        if (!c->ours)
            fprintf(f, "tcg:    QEMU's translator, emulated in software like bt and "
                       "interp.\n");
    }
}

void compare_text(const struct compare_report *r, FILE *f) {
    fprintf(f, "%s, TSC %.0f MHz, %s%s\n", r->host, r->tsc_mhz, r->date,
            r->brief ? ", brief: noisy figures" : "");
    for (unsigned wide = 2; wide-- && r->has_frob;) {
        if (!r->widths[wide])
            continue;
        frob_table(r, wide, f);
        events_table(r, wide, f);
        self_table(r, wide, f);
    }
    if (r->has_macro) {
        macro_table(r, f);
        macro_events(r, f);
    }
    if (r->has_shadow)
        shadow_table(r, f);
    notes(r, f);
}
