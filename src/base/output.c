/* A file that a run writes; see output.h. */
#include "base/output.h"

#include <errno.h>
#include <stdio_ext.h>
#include <unistd.h>

FILE *output_begin(struct output *o) {
    clearerr(o->f);
    /* A pipe or a device can do neither, nor need it. */
    if (o->f != stderr && (fseek(o->f, 0, SEEK_SET) || ftruncate(fileno(o->f), 0)))
        errno = 0;
    return o->f;
}

int output_end(struct output *o) {
    int rc;

    errno = EIO;
    rc = fflush(o->f) || ferror(o->f) ? -errno : 0;
    if (rc)
        __fpurge(o->f); /* or closing it would fail once more */
    return rc;
}
