#include "lib/need.h"

#include <stdio.h>
#include <stdlib.h>

void need(bool ok, const char *what) {
    if (ok)
        return;
    fprintf(stderr, "tests/lib: %s\n", what);
    abort();
}
