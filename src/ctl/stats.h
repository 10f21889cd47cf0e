/* --stats: what explains a run, as JSON. */
#ifndef CTL_STATS_H
#define CTL_STATS_H

#include "ctl/outputs.h"
#include "machine/machine.h"

struct stats_run {
    const char *end;     /* how the run ended, in words */
    double wall_seconds; /* from the first guest instruction */
    double cpu_seconds;  /* of this process */
};

struct cJSON;

/* Of a run that began at START_NS of the host's clock and goes on. */
struct stats_run stats_so_far(uint64_t start_ns);
double stats_cpu_seconds(void); /* of this process, so far */
/* The caller's to free; NULL: out of memory. */
struct cJSON *stats_json(const struct machine *m, const struct stats_run *run);
/* Instead of what was in O. What a file does not take goes to stderr. 0 or -errno
 * (logged). */
int stats_write(const struct machine *m, const struct stats_run *run, struct output *o);

#endif
