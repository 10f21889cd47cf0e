/*
 * A report as one page that needs nothing else: style and charts are in it, there is no
 * script, and it fetches nothing. Bars are on a logarithmic scale, since the same
 * operation costs 1 cycle here and 10,000 there; the thin line over a bar is least to
 * most of the samples.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compare/compare.h"

static const char style[] =
    ":root{--fg:#1d2330;--dim:#5d6678;--bg:#f6f7f9;--card:#fff;--line:#dfe3ea;"
    "--grid:#eceff4;--c0:#8a94a6;--c1:#2f6fdf;--c2:#16a085;--c3:#c0392b;--c4:#d68910;"
    "--c5:#7d3c98;--paper:#b9c0cc}\n"
    "@media(prefers-color-scheme:dark){:root{--fg:#e4e8f0;--dim:#98a2b5;--bg:#12151c;"
    "--card:#1b202a;--line:#2c3442;--grid:#262d3a;--paper:#4a5364;--c1:#5b93f5;"
    "--c2:#2bbd9e;--c3:#e4604f;--c4:#e5a63a;--c5:#a66bc2}}\n"
    "*{box-sizing:border-box}\n"
    "body{font:15px/1.45 system-ui,-apple-system,'Segoe UI',sans-serif;color:var(--fg);"
    "background:var(--bg);margin:0 auto;padding:28px 20px 60px;max-width:1240px}\n"
    "h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 6px}\n"
    "p{margin:4px 0 12px;max-width:80ch}.dim{color:var(--dim)}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:6px 18px;margin:10px 0 "
    "14px;font-size:14px}\n"
    ".legend span{display:inline-flex;align-items:center;gap:7px}\n"
    ".legend i{width:14px;height:14px;border-radius:3px;display:inline-block}\n"
    ".cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(370px,1fr));"
    "gap:14px}\n"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:8px;"
    "padding:11px 14px 10px}\n"
    ".card h3{font-size:15px;margin:0}.card h3+div{font-size:13px;color:var(--dim);"
    "margin-bottom:7px}\n"
    ".row{display:grid;grid-template-columns:84px 1fr 62px "
    "62px;gap:8px;align-items:center;"
    "height:20px;font-size:13px}\n"
    ".row b{font-weight:400;text-align:right;font-variant-numeric:tabular-nums}\n"
    ".row>span:first-child{white-space:nowrap}\n"
    ".row em{font-style:normal;font-size:12px;color:var(--dim);text-align:right}\n"
    ".track{position:relative;height:13px;border-radius:3px;background:var(--grid) "
    "linear-gradient(90deg,var(--line) 1px,transparent 1px) 0 0/var(--decade) 100%}\n"
    ".d6{--decade:16.6667%}.d4{--decade:25%}.d3{--decade:33.3333%}\n"
    ".bar{position:absolute;left:0;top:0;bottom:0;border-radius:3px;min-width:2px}\n"
    ".whisker{position:absolute;top:6px;height:1px;background:var(--fg);opacity:.65}\n"
    ".emulated{background-image:repeating-linear-gradient(45deg,transparent 0 4px,"
    "var(--card) 4px 7px)}\n"
    ".paper .bar{background:var(--paper)}.paper{color:var(--dim)}\n"
    ".row.paper:not(.paper+.paper){margin-top:4px}\n"
    ".fails{color:var(--c3)}\n"
    "details{margin:14px 0}summary{cursor:pointer}\n"
    ".scroll{overflow-x:auto}\n"
    "table{border-collapse:collapse;font-size:13px;margin-top:8px;"
    "font-variant-numeric:tabular-nums}\n"
    "th,td{padding:3px 10px;border-bottom:1px solid var(--line);text-align:right;"
    "white-space:nowrap}\n"
    "th:first-child,td:first-child,td.text,th.text{text-align:left}\n"
    "td.wrap{white-space:normal;text-align:left;min-width:320px}\n";

static void escaped(FILE *f, const char *s) {
    for (; *s; s++) {
        switch (*s) {
        case '<':
            fputs("&lt;", f);
            break;
        case '>':
            fputs("&gt;", f);
            break;
        case '&':
            fputs("&amp;", f);
            break;
        case '"':
            fputs("&quot;", f);
            break;
        default:
            fputc(*s, f);
        }
    }
}

/* --- bars --- */

/* A chart's scale: FLOOR and less is the left edge, TOP the right one. GRID is the class
 * that draws a line at each power of ten. */
struct scale {
    double floor, top;
    const char *grid;
};

static double at(const struct scale *s, double v) {
    double x = v <= s->floor ? 0 : log(v / s->floor) / log(s->top / s->floor) * 100;

    return x > 100 ? 100 : x;
}

struct bar {
    const char *label;
    const char *kind;  /* class of the row, or "" */
    const char *color; /* of style, or NULL */
    bool emulated;
    const char *unit;
    const struct compare_figure *base; /* what to give a ratio to, or NULL */
    const char *base_name;
};

static void empty_row(FILE *f, const struct bar *b, const char *text, const char *why) {
    fprintf(f, "<div class=\"row %s\"><span>", b->kind);
    escaped(f, b->label);
    fprintf(f, "</span><span class=\"track\"></span><b class=\"fails\" title=\"");
    escaped(f, why);
    fprintf(f, "\">%s</b><em></em></div>\n", text);
}

static void bar_row(FILE *f, const struct scale *s, const struct bar *b,
                    const struct compare_figure *g) {
    char buf[32];

    if (g->state == FIGURE_FAILED) {
        empty_row(f, b, "fails", g->why);
        return;
    }
    if (g->state != FIGURE_OK)
        return;
    fprintf(f, "<div class=\"row %s\"><span>", b->kind);
    escaped(f, b->label);
    fprintf(f,
            "</span><span class=\"track %s\"><span class=\"bar%s\" "
            "style=\"width:%.1f%%%s%s%s\">"
            "</span>",
            s->grid, b->emulated ? " emulated" : "", at(s, g->median),
            b->color ? ";background-color:var(--" : "", b->color ? b->color : "",
            b->color ? ")" : "");
    if (g->max > g->min)
        fprintf(f, "<span class=\"whisker\" style=\"left:%.1f%%;width:%.1f%%\"></span>",
                at(s, g->min), at(s, g->max) - at(s, g->min));
    fprintf(f, "</span><b>%s%s</b><em>", compare_number(g->median, buf, sizeof(buf)),
            b->unit ? b->unit : "");
    if (b->base && b->base->state == FIGURE_OK && b->base->median > 0)
        fprintf(f, "%.2f %s", g->median / b->base->median, b->base_name);
    fprintf(f, "</em></div>\n");
}

static const char *color_of(const struct compare_report *r, unsigned n) {
    static const char *const colors[] = {"c1", "c2", "c5", "c3"};

    if (!r->column[n].ours)
        return "c4";
    return colors[n % ARRAY_SIZE(colors)];
}

static void legend(const struct compare_report *r, bool paper, FILE *f) {
    char name[32];

    fprintf(f,
            "<div class=\"legend\"><span><i style=\"background:var(--c0)\"></i>native, "
            "user mode</span>");
    for (unsigned n = 0; n < r->columns; n++)
        fprintf(
            f,
            "<span><i class=\"%s\" style=\"background-color:var(--%s)\"></i>%s%s</span>",
            r->column[n].emulated ? "emulated" : "", color_of(r, n),
            r->column[n].ours ? compare_column_label(&r->column[n], name, sizeof(name))
                              : "QEMU TCG",
            r->column[n].emulated ? " emulated underneath" : "");
    if (paper)
        fprintf(f, "<span><i style=\"background:var(--paper)\"></i>the paper, 2006"
                   "</span>");
    fprintf(f, "</div>\n");
}

/* --- frob --- */

static bool wanted(const struct compare_report *r, unsigned wide, unsigned b) {
    for (unsigned n = 0; n < r->columns; n++)
        if (r->column[n].frob[wide][b].state != FIGURE_NONE)
            return true;
    return false;
}

static void paper_rows(FILE *f, const struct scale *s, const struct compare_bench *d) {
    const struct {
        const char *label;
        double v;
    } paper[] = {{"paper native", d->paper_native},
                 {"paper BT", d->paper_bt},
                 {"paper VT", d->paper_vt}};

    for (unsigned n = 0; d->paper_native && n < ARRAY_SIZE(paper); n++) {
        const struct bar b = {.label = paper[n].label, .kind = "paper"};
        const struct compare_figure g = {.state = FIGURE_OK,
                                         .median = paper[n].v,
                                         .min = paper[n].v,
                                         .max = paper[n].v};

        bar_row(f, s, &b, &g);
    }
}

static void frob_card(const struct compare_report *r, unsigned wide, unsigned n,
                      FILE *f) {
    static const struct scale s = {.floor = 1, .top = 1e6, .grid = "d6"};
    const struct compare_bench *d = &compare_benches[n];
    const struct compare_column *tcg = compare_tcg(r);
    struct bar b = {.label = "native", .kind = "", .color = "c0", .base_name = "tcg"};

    fprintf(f, "<div class=\"card\"><h3>%s</h3><div>%s</div>\n", d->name, d->what);
    bar_row(f, &s, &b, &r->native[n]);
    for (unsigned k = 0; k < r->columns; k++) {
        char name[32];

        b.label = compare_column_label(&r->column[k], name, sizeof(name));
        b.color = color_of(r, k);
        b.emulated = r->column[k].emulated;
        b.base = tcg && r->column[k].ours ? &tcg->frob[wide][n] : NULL;
        bar_row(f, &s, &b, &r->column[k].frob[wide][n]);
    }
    paper_rows(f, &s, d);
    fprintf(f, "</div>\n");
}

static void events_row(const char *what, const struct compare_column *c,
                       const struct compare_figure *g, FILE *f) {
    char buf[32];

    if (!c->ours || (g->state != FIGURE_OK && g->state != FIGURE_FAILED))
        return;
    fprintf(f, "<tr><td>%s</td><td class=\"text\">%s</td>", what, c->name);
    for (int exits = 1; exits >= 0; exits--) {
        fprintf(f, "<td class=\"wrap\">");
        if (g->state == FIGURE_FAILED && exits)
            escaped(f, g->why);
        for (unsigned k = 0; k < g->event_count; k++)
            if (g->events[k].exit == exits)
                fprintf(f, "%s %s ", g->events[k].name,
                        compare_number(g->events[k].each, buf, sizeof(buf)));
        fprintf(f, "</td>");
    }
    fprintf(f, "</tr>\n");
}

static void frob_events(const struct compare_report *r, unsigned wide, FILE *f) {
    fprintf(f,
            "<details><summary>Exits by reason behind each figure</summary>"
            "<div class=\"scroll\"><table><tr><th>benchmark</th><th class=\"text\">engine"
            "</th><th class=\"text\">exits, for each operation</th><th class=\"text\">"
            "other events, for each operation</th></tr>\n");
    for (unsigned b = 0; b < compare_bench_count; b++)
        for (unsigned n = 0; n < r->columns; n++)
            events_row(compare_benches[b].name, &r->column[n],
                       &r->column[n].frob[wide][b], f);
    fprintf(f, "</table></div></details>\n");
}

static void frob_self(const struct compare_report *r, unsigned wide, FILE *f) {
    const struct compare_column *first = NULL;

    for (unsigned n = 0; n < r->columns && !first; n++)
        if (r->column[n].self_count[wide])
            first = &r->column[n];
    if (!first)
        return;
    fprintf(f, "<details><summary>What the guest sees of itself: CPL in %%cs, IF after "
               "POPF at each CPL, SGDT and SIDT in user mode</summary><div "
               "class=\"scroll\"><table><tr><th>check</th><th>architecture</th>");
    for (unsigned n = 0; n < r->columns; n++)
        fprintf(f, "<th>%s</th>", r->column[n].name);
    fprintf(f, "</tr>\n");
    for (unsigned k = 0; k < first->self_count[wide]; k++) {
        fprintf(f, "<tr><td>%s</td><td>%s</td>", first->self[wide][k].name,
                first->self[wide][k].want);
        for (unsigned n = 0; n < r->columns; n++) {
            const struct compare_self *c = &r->column[n].self[wide][k];

            fprintf(f, "<td%s>%s</td>", c->ok ? "" : " class=\"fails\"",
                    k < r->column[n].self_count[wide] ? c->got : "-");
        }
        fprintf(f, "</tr>\n");
    }
    fprintf(f, "</table></div></details>\n");
}

static void frob_part(const struct compare_report *r, unsigned wide, FILE *f) {
    fprintf(
        f,
        "<h2>Single operations, %s-bit guest</h2><p class=\"dim\">Cycles of the "
        "time-stamp counter for one operation: median, on a logarithmic scale from 1 to "
        "1,000,000 with a line at each power of ten; the thin line over a bar is the "
        "spread of the samples. Shorter is better. On the right, the ratio to TCG.</p>\n",
        wide ? "64" : "32");
    legend(r, true, f);
    fprintf(f, "<div class=\"cards\">\n");
    for (unsigned n = 0; n < compare_bench_count; n++)
        if (wanted(r, wide, n))
            frob_card(r, wide, n, f);
    fprintf(f, "</div>\n");
    frob_events(r, wide, f);
    frob_self(r, wide, f);
}

/* --- Linux --- */

/* A figure as times native. */
static struct compare_figure times(const struct compare_figure *f,
                                   const struct compare_figure *native) {
    struct compare_figure g = *f;

    if (f->state != FIGURE_OK || native->state != FIGURE_OK || native->median <= 0)
        return g;
    g.min /= native->median;
    g.median /= native->median;
    g.max /= native->median;
    return g;
}

static void macro_card(const struct compare_report *r, unsigned m, FILE *f) {
    static const struct scale s = {.floor = 1, .top = 1000, .grid = "d3"};
    const struct compare_macro *d = &r->macro[m];
    const double paper[] = {d->paper_bt, d->paper_vt};
    struct bar b = {.kind = "", .unit = "&times;"};
    char buf[32];

    fprintf(f, "<div class=\"card\"><h3>%s</h3><div>native: %s %s</div>\n", d->name,
            compare_number(d->native.median, buf, sizeof(buf)),
            d->result[0] ? "s" : "ns");
    for (unsigned k = 0; k < r->columns; k++) {
        struct compare_figure g = times(&r->column[k].macro[m], &d->native);
        char name[32];

        b.label = compare_column_label(&r->column[k], name, sizeof(name));
        b.color = color_of(r, k);
        bar_row(f, &s, &b, &g);
    }
    for (unsigned n = 0; d->paper_bt && n < 2; n++) {
        const struct bar p = {
            .label = n ? "paper VT" : "paper BT", .kind = "paper", .unit = "&times;"};
        const struct compare_figure g = {
            .state = FIGURE_OK, .median = paper[n], .min = paper[n], .max = paper[n]};

        bar_row(f, &s, &p, &g);
    }
    fprintf(f, "</div>\n");
}

static void macro_part(const struct compare_report *r, FILE *f) {
    fprintf(f,
            "<h2>Programs under Linux</h2><p class=\"dim\">Time relative to this host, "
            "native, on a logarithmic scale from 1 to 1,000. Shorter is better."
            "</p>\n<div class=\"cards\">\n");
    for (unsigned m = 0; m < r->macros; m++)
        macro_card(r, m, f);
    fprintf(f,
            "</div>\n<details><summary>Exits by reason for each fork and wait, and for "
            "the compilation</summary><div class=\"scroll\"><table><tr><th>program</th>"
            "<th class=\"text\">engine</th><th class=\"text\">exits</th>"
            "<th class=\"text\">other events</th></tr>\n");
    for (unsigned m = 0; m < r->macros; m++)
        for (unsigned n = 0; n < r->columns; n++)
            if (r->column[n].macro[m].event_count)
                events_row(r->macro[m].name, &r->column[n], &r->column[n].macro[m], f);
    fprintf(f, "</table></div></details>\n");
}

/* --- shadow --- */

static void shadow_part(const struct compare_report *r, FILE *f) {
    static const char *const colors[] = {"c1", "c2", "c4"};
    static const struct {
        const char *name, *unit;
        size_t offset;
        struct scale scale;
    } rows[] = {
        {"hidden faults",
         "",
         offsetof(struct compare_shadow_cell, hidden_faults),
         {.01, 100, "d4"}},
        {"true faults",
         "",
         offsetof(struct compare_shadow_cell, true_faults),
         {.01, 100, "d4"}},
        {"traced stores",
         "",
         offsetof(struct compare_shadow_cell, trace_hits),
         {.01, 100, "d4"}},
        {"empty spaces",
         "",
         offsetof(struct compare_shadow_cell, space_misses),
         {.01, 100, "d4"}},
    };
    static const struct scale cycles = {.floor = 10, .top = 1e5, .grid = "d4"};

    fprintf(f,
            "<h2>Retention policies of the shadow MMU</h2><p class=\"dim\">Engine %s. "
            "Three guests under each policy: cycles for one operation, and what was paid "
            "in hidden faults, traced stores and shadows begun empty, for each "
            "operation. Logarithmic.</p>\n<div class=\"cards\">\n",
            r->shadow_engine);
    for (unsigned l = 0; l < COMPARE_LOADS; l++) {
        fprintf(f, "<div class=\"card\"><h3>%s</h3><div>%s</div>\n", compare_loads[l],
                compare_load_what[l]);
        for (unsigned p = 0; p < COMPARE_POLICIES; p++) {
            const struct compare_shadow_cell *c = &r->shadow[l][p];
            struct bar b = {.label = compare_policies[p], .kind = "", .color = colors[p]};

            bar_row(f, &cycles, &b, &c->figure);
        }
        for (unsigned n = 0; n < ARRAY_SIZE(rows); n++) {
            fprintf(f, "<div class=\"dim\" style=\"margin-top:6px\">%s</div>\n",
                    rows[n].name);
            for (unsigned p = 0; p < COMPARE_POLICIES; p++) {
                const char *cell = (const char *)&r->shadow[l][p];
                double v = *(const double *)(const void *)(cell + rows[n].offset);
                struct bar b = {
                    .label = compare_policies[p], .kind = "", .color = colors[p]};
                const struct compare_figure g = {
                    .state = FIGURE_OK, .median = v, .min = v, .max = v};

                bar_row(f, &rows[n].scale, &b, &g);
            }
        }
        fprintf(f, "</div>\n");
    }
    fprintf(f, "</div>\n");
}

static void notes(const struct compare_report *r, FILE *f) {
    fprintf(f,
            "<h2>How to read this</h2>\n<p>Native figures are measured in user mode of "
            "this host, and only where the very same instructions can run there. The "
            "paper is Adams and Agesen, <i>A Comparison of Software and Hardware "
            "Techniques for x86 Virtualization</i>, ASPLOS 2006, on a 3.8 GHz Pentium "
            "4.</p>\n");
    if (r->host_is_virtual)
        fprintf(
            f, "<p>This host is a virtual machine itself: its native CPUID is an exit to "
               "its own hypervisor.</p>\n");
    for (unsigned n = 0; n < r->columns; n++) {
        const struct compare_column *c = &r->column[n];

        if (c->emulated)
            fprintf(
                f,
                "<p>* The hardware support that %s uses is <b>emulated underneath</b> "
                "this host: its figures are the emulator's, not hardware's.</p>\n",
                c->name);
        if (c->unusable[0]) {
            fprintf(f, "<p>%s: ", c->name);
            escaped(f, c->unusable);
            fprintf(f, "</p>\n");
        }
    }
}

void compare_html(const struct compare_report *r, FILE *f) {
    fprintf(
        f,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
        "<title>bivisor: engines compared</title>\n<style>\n%s</style></head><body>\n",
        style);
    fprintf(f, "<h1>Engines compared</h1><p class=\"dim\">");
    escaped(f, r->host);
    fprintf(f, ", time-stamp counter at %.0f MHz, %s%s</p>\n", r->tsc_mhz, r->date,
            r->brief ? ", few samples: noisy figures" : "");
    for (unsigned wide = 2; wide-- && r->has_frob;)
        if (r->widths[wide])
            frob_part(r, wide, f);
    if (r->has_macro)
        macro_part(r, f);
    if (r->has_shadow)
        shadow_part(r, f);
    notes(r, f);
    fprintf(f, "</body></html>\n");
}
