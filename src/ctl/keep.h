/* Snapshots that a counted run keeps on its way (--snapshots DIR,every=N). */
#ifndef CTL_KEEP_H
#define CTL_KEEP_H

#include "ctl/take.h"

struct keep {
    struct take *take;
    struct control_table table; /* of the commands of TAKE */
    struct os_task task;
    uint64_t last; /* instructions, at the last one */
};

/* K, which outlives the machine, is called every so many instructions of it. Before it is
 * made. */
void keep_config(struct keep *k, struct machine_config *cfg, uint64_t every);
/* TAKE has its machine and files. Before the first life. */
void keep_begin(struct keep *k, struct take *take);

#endif
