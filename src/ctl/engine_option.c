/*
 * The engines' options on a command line; see engine_option.h.
 *
 * An engine's table is one option with a list of names as its value, or each of its
 * entries is an option by itself. getopt_long()'s value says which: the engine's place
 * times PLACES, plus 0 for the list or the entry's place plus 1.
 */
#include "ctl/engine_option.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

#define PLACES 65
#define OPTIONS_MAX 128

const struct engine_ops *engine_option_owner(int opt) {
    size_t count;

    return machine_engines(&count)[(opt - ENGINE_OPTION_FIRST) / PLACES];
}

/* The entry that is an option by itself, or NULL: the list. */
static const struct engine_option *entry_of(int opt) {
    int n = (opt - ENGINE_OPTION_FIRST) % PLACES;

    return n ? &engine_option_owner(opt)->options->table[n - 1] : NULL;
}

/* Calls EACH with the value of getopt_long() for each option that there is. */
static void for_each(void (*each)(void *arg, int opt), void *arg) {
    size_t count;
    const struct engine_ops *const *engines = machine_engines(&count);

    for (size_t i = 0; i < count; i++) {
        const struct engine_options *o = engines[i]->options;
        int first = ENGINE_OPTION_FIRST + (int)i * PLACES;

        if (o && o->flag)
            each(arg, first);
        for (size_t n = 0; o && !o->flag && n < o->count; n++)
            each(arg, first + 1 + (int)n);
    }
}

static const char *name_of(int opt) {
    const struct engine_option *e = entry_of(opt);

    return e ? e->name : engine_option_owner(opt)->options->flag;
}

static void add(void *arg, int opt) {
    struct option **at = arg;

    *(*at)++ = (struct option){name_of(opt), required_argument, NULL, opt};
}

const struct option *engine_option_table(const struct option *own) {
    static struct option table[OPTIONS_MAX];
    struct option *at = table;

    while (own->name)
        *at++ = *own++;
    for_each(add, &at);
    *at = (struct option){0};
    return table;
}

bool engine_option_take(struct machine_options *o, int opt, const char *value) {
    const struct engine_option *e = entry_of(opt);
    char text[256], why[256], *quoted;
    int rc;

    if (e)
        snprintf(text, sizeof(text), "%s=%s", e->name, value);
    rc = machine_options_parse(o, engine_option_owner(opt), e ? text : value, why,
                               sizeof(why));
    if (!rc)
        return true;
    /* An option by itself needs no second name. */
    quoted = e ? strstr(why, "' ") : NULL;
    log_error("--%s%s%s", name_of(opt), quoted ? "" : ": ", quoted ? quoted + 1 : why);
    return false;
}

static void print_line(void *arg, int opt) {
    const struct engine_ops *owner = engine_option_owner(opt);
    const struct engine_option *e = entry_of(opt);
    char left[40];

    if (*(bool *)arg && !owner->counts)
        return;
    snprintf(left, sizeof(left), "%s %s", name_of(opt),
             !e           ? "OPTION,..."
             : e->choices ? "WHERE"
                          : "N");
    printf("  --%-18s %s\n", left, e ? e->what : owner->options->what);
}

void engine_option_help(bool counting) {
    for_each(print_line, &counting);
}
