/* The engines of machine_engines(), by name. */
#ifndef LIB_ENGINES_H
#define LIB_ENGINES_H

#include <string.h>

#include "machine/machine.h"

/* NAME is that of one. */
static inline const struct engine_ops *engine_named(const char *name) {
    size_t count, n = 0;
    const struct engine_ops *const *all = machine_engines(&count);

    while (strcmp(all[n]->name, name))
        n++;
    return all[n];
}

#endif
