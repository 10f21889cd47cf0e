/* The engines' options in a machine's configuration: bytes that each engine's table gives
 * a meaning to (engine/options.h). */
#include <string.h>

#include "machine/machine.h"

/* The engine's place in the table of engines. */
static size_t place_of(const struct engine_ops *engine) {
    size_t count, n = 0;
    const struct engine_ops *const *all = machine_engines(&count);

    while (n + 1 < count && all[n] != engine)
        n++;
    return n;
}

void *machine_options_of(struct machine_options *o, const struct engine_ops *engine) {
    return engine->options ? o->of[place_of(engine)].bytes : NULL;
}

void machine_options_default(struct machine_options *o) {
    size_t count;
    const struct engine_ops *const *all = machine_engines(&count);

    memset(o, 0, sizeof(*o));
    for (size_t n = 0; n < count; n++)
        if (all[n]->options)
            all[n]->options->defaults(o->of[n].bytes);
}

int machine_options_parse(struct machine_options *o, const struct engine_ops *engine,
                          const char *text, char *why, size_t why_size) {
    return engine_options_parse(engine->options, machine_options_of(o, engine),
                                &o->of[place_of(engine)].given, text, why, why_size);
}

void machine_options_counted(struct machine_options *o) {
    size_t count;
    const struct engine_ops *const *all = machine_engines(&count);

    for (size_t n = 0; n < count; n++)
        if (all[n]->options)
            engine_options_apply(all[n]->options, o->of[n].bytes, o->of[n].given,
                                 all[n]->options->counted);
}

void machine_options_single(struct machine_options *o) {
    size_t count;
    const struct engine_ops *const *all = machine_engines(&count);

    for (size_t n = 0; n < count; n++)
        if (all[n]->options)
            engine_options_apply(all[n]->options, o->of[n].bytes, 0,
                                 all[n]->options->single);
}

bool machine_options_exact(const struct machine_options *o) {
    size_t count;
    const struct engine_ops *const *all = machine_engines(&count);

    for (size_t n = 0; n < count; n++)
        if (all[n]->options && all[n]->options->exact &&
            !all[n]->options->exact(o->of[n].bytes))
            return false;
    return true;
}
