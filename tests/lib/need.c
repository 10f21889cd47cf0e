#include "lib/need.h"

#include <stdio.h>
#include <stdlib.h>

void need(bool ok, const char *what) {
    if (ok)
        return;
    fprintf(stderr, "tests/lib: %s\n", what);
    abort();
}

void need_holds(bool ok, const char *file, int line, const char *what) {
    if (ok)
        return;
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}
