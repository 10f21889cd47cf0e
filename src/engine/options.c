/* Options by name: texts onto structures, by the tables of options.h. */
#include "engine/options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bug.h"

/* The option of that name; the name ends after LEN characters. */
static const struct engine_option *find(const struct engine_options *o, const char *name,
                                        size_t len) {
    for (size_t i = 0; i < o->count; i++)
        if (strlen(o->table[i].name) == len && !memcmp(o->table[i].name, name, len))
            return &o->table[i];
    return NULL;
}

static bool is_switch(const struct engine_option *o) {
    return !o->max && !o->choices;
}

static unsigned *number_of(const struct engine_option *o, void *options) {
    return (unsigned *)(void *)((char *)options + o->off);
}

static int complain_number(const struct engine_option *o, char *why, size_t why_size) {
    snprintf(why, why_size, "'%s' wants a number, as in %s=%u, from %u to %u", o->name,
             o->name, o->min, o->min, o->max);
    return -EINVAL;
}

/* The value has LEN characters. */
static int take_number(void *options, const struct engine_option *o, const char *value,
                       size_t len, char *why, size_t why_size) {
    unsigned long n = 0;

    if (!len)
        return complain_number(o, why, why_size);
    for (size_t i = 0; i < len; i++) {
        if (value[i] < '0' || value[i] > '9' || n > o->max)
            return complain_number(o, why, why_size);
        n = n * 10 + (unsigned)(value[i] - '0');
    }
    if (n < o->min || n > o->max)
        return complain_number(o, why, why_size);
    *number_of(o, options) = (unsigned)n;
    return 0;
}

static int take_choice(void *options, const struct engine_option *o, const char *value,
                       size_t len, char *why, size_t why_size) {
    char list[128] = "";

    for (unsigned n = 0; o->choices[n]; n++) {
        size_t at = strlen(list);

        if (strlen(o->choices[n]) == len && !memcmp(o->choices[n], value, len)) {
            *number_of(o, options) = n;
            return 0;
        }
        snprintf(list + at, sizeof(list) - at, "%s%s", n ? ", " : "", o->choices[n]);
    }
    snprintf(why, why_size, "'%s' wants one of %s, not '%.*s'", o->name, list,
             (int)(len < 40 ? len : 40), value);
    return -EINVAL;
}

/* "name=VALUE", of which VALUE has LEN characters; NULL: there was no '='. */
static int take_value(void *options, const struct engine_option *o, const char *value,
                      size_t len, char *why, size_t why_size) {
    if (o->choices)
        return take_choice(options, o, value ? value : "", value ? len : 0, why,
                           why_size);
    if (o->max)
        return take_number(options, o, value, value ? len : 0, why, why_size);
    snprintf(why, why_size, "'%s' takes no value; write %s or no-%s", o->name, o->name,
             o->name);
    return -EINVAL;
}

/* LEN characters that name one option, and its value. */
static int take(const struct engine_options *set, void *options, uint64_t keep,
                uint64_t *given, const char *text, size_t len, char *why,
                size_t why_size) {
    const char *equals = memchr(text, '=', len);
    size_t name_len = equals ? (size_t)(equals - text) : len;
    const struct engine_option *o = find(set, text, name_len);
    bool on = true;

    if (!o && len > 3 && !memcmp(text, "no-", 3)) {
        o = find(set, text + 3, len - 3);
        if (o && !is_switch(o))
            o = NULL;
        on = false;
    }
    if (!o) {
        snprintf(why, why_size, "%s has no option '%.*s'; `%s` lists them", set->of,
                 (int)(len < 40 ? len : 40), text, set->help);
        return -EINVAL;
    }
    if (keep >> (o - set->table) & 1)
        return 0;
    if (given)
        *given |= 1ull << (o - set->table);
    if (equals || !is_switch(o))
        return take_value(options, o, equals ? equals + 1 : NULL,
                          equals ? len - name_len - 1 : 0, why, why_size);
    *(bool *)(void *)((char *)options + o->off) = on;
    return 0;
}

static int take_all(const struct engine_options *o, void *options, uint64_t keep,
                    uint64_t *given, const char *text, char *why, size_t why_size) {
    for (;;) {
        size_t len = strcspn(text, ",");
        int rc = take(o, options, keep, given, text, len, why, why_size);

        if (rc || !text[len])
            return rc;
        text += len + 1;
    }
}

int engine_options_parse(const struct engine_options *o, void *options, uint64_t *given,
                         const char *text, char *why, size_t why_size) {
    return take_all(o, options, 0, given, text, why, why_size);
}

void engine_options_apply(const struct engine_options *o, void *options, uint64_t keep,
                          const char *text) {
    char why[128];

    BUG_ON(text && take_all(o, options, keep, NULL, text, why, sizeof(why)));
}
