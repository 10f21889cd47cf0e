/* Figures for Prometheus; see prometheus.h. */
#include "api/prometheus.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* What goes down, too, or is no count. All else only grows while the process lives. */
static const char *const gauges[] = {"wall_seconds", "resident_kib",
                                     "insns_per_cpu_second", "translation"};

static bool is_gauge(const char *name) {
    for (size_t n = 0; n < ARRAY_SIZE(gauges); n++)
        if (!strcmp(gauges[n], name))
            return true;
    return false;
}

static void put_name(FILE *f, const char *part, const char *name) {
    fputs("bivisor_", f);
    if (part)
        fprintf(f, "%s_", part);
    for (; *name; name++)
        putc(isalnum((unsigned char)*name) ? *name : '_', f);
}

static void put_figure(FILE *f, const char *part, const cJSON *v) {
    bool gauge = is_gauge(part ? part : v->string);

    fputs("# TYPE ", f);
    put_name(f, part, v->string);
    fprintf(f, " %s\n", gauge ? "gauge" : "counter");
    put_name(f, part, v->string);
    fprintf(f, " %.17g\n", v->valuedouble);
}

char *prometheus_text(const cJSON *stats, size_t *len) {
    const cJSON *v, *w;
    char *text = NULL;
    FILE *f = open_memstream(&text, len);

    if (!f)
        return NULL;
    cJSON_ArrayForEach(v, stats) {
        if (cJSON_IsNumber(v))
            put_figure(f, NULL, v);
        if (cJSON_IsObject(v))
            cJSON_ArrayForEach(w, v) {
                if (cJSON_IsNumber(w))
                    put_figure(f, v->string, w);
            }
    }
    if (!fclose(f))
        return text;
    cJSON_free(text);
    return NULL;
}
