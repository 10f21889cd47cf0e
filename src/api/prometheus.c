/* Figures for Prometheus; see prometheus.h. */
#include "api/prometheus.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define COUNT_MAX 9007199254740992.0 /* every smaller whole number is a double */

/* What goes down, too, or is no count. All else only grows while the process lives. */
static const char *const gauges[] = {"wall_seconds", "resident_kib",
                                     "insns_per_cpu_second", "translation"};

static bool is_gauge(const char *name) {
    for (size_t n = 0; n < ARRAY_SIZE(gauges); n++)
        if (!strcmp(gauges[n], name))
            return true;
    return false;
}

#define NAME_MOST 128

/* bivisor_PART_NAME, of the characters that a name may have there. */
static void make_name(char out[NAME_MOST], const char *part, const char *name) {
    snprintf(out, NAME_MOST, "bivisor_%s%s%s", part ? part : "", part ? "_" : "", name);
    for (char *p = out; *p; p++)
        if (!isalnum((unsigned char)*p))
            *p = '_';
}

/* Most are counts, and a count is quicker to write. */
static void put_figure(FILE *f, const char *part, const cJSON *v) {
    const char *type = is_gauge(part ? part : v->string) ? "gauge" : "counter";
    double value = v->valuedouble;
    char name[NAME_MOST];

    make_name(name, part, v->string);
    fprintf(f, "# TYPE %s %s\n%s ", name, type, name);
    if (value >= 0 && value < COUNT_MAX && value == (double)(uint64_t)value)
        fprintf(f, "%llu\n", (unsigned long long)value);
    else
        fprintf(f, "%.17g\n", value);
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
