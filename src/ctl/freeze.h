/* The command `snapshot` of the control socket, and what it puts into a snapshot that is
 * the command line's: the options of the run, for `bivisor restore`. */
#ifndef CTL_FREEZE_H
#define CTL_FREEZE_H

#include "control/control.h"
#include "ctl/run_options.h"
#include "ctl/snapshots.h"
#include "machine/machine.h"
#include "snapshot/snapshot.h"

struct freeze {
    struct machine *m;
    struct snapshots *files; /* NULL: nobody said where */
    const struct run_options *options;
};

/* F must stay as long as the table is used. */
void freeze_add(struct freeze *f, struct control_table *t);

/* The options of the run that S is of: as many words as *COUNT says, which are BUF's
 * (SIZE bytes), into WORDS (of MAX). False: there is none, or they are too many. */
bool freeze_options(struct snapshot *s, char *buf, size_t size, const char **words,
                    size_t max, size_t *count);

#endif
