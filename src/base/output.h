/*
 * A file that a run writes, opened before the run (ctl/outputs.h) and written later, when
 * nothing can be opened any more: once, or again and again in place of what was there.
 */
#ifndef BASE_OUTPUT_H
#define BASE_OUTPUT_H

#include <stdio.h>

#include "base/types.h"

struct output {
    FILE *f;          /* NULL: it is not there */
    const char *path; /* NULL: standard error */
    int error;        /* errno, why it is not there */
    char name[4096];  /* PATH, when we made it up */
};

/* Throws away what has been written, where the file allows that; returns o->f. */
FILE *output_begin(struct output *o);
/* What was written since then is in the file: 0, or -errno. */
int output_end(struct output *o);

#endif
