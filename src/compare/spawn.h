/* Runs another program and takes what it prints. */
#ifndef COMPARE_SPAWN_H
#define COMPARE_SPAWN_H

#include "base/types.h"

struct spawn_result {
    char *out; /* standard output and error, ends with a zero byte; the caller frees it */
    int status;     /* exit status, or 128 + signal */
    bool timed_out; /* it was killed */
    double seconds; /* from start to end */
};

#define SPAWN_OUTPUT_MAX (1u << 20)

/* ARGV[0] is looked up in PATH. Standard input is empty. 0 or -errno, when nothing ran.
 */
int spawn_run(const char *const *argv, double limit_seconds, struct spawn_result *r);

#endif
