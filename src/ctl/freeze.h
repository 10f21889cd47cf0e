/* The command `snapshot` of the control socket, and what it puts into a snapshot that is
 * the command line's: the options of the run, for `bivisor restore`. */
#ifndef CTL_FREEZE_H
#define CTL_FREEZE_H

#include "control/control.h"
#include "ctl/run_options.h"
#include "ctl/snapshots.h"
#include "machine/machine.h"
#include "snapshot/snapshot.h"

#define FREEZE_BOOT 36u

struct freeze {
    struct machine *m;
    struct snapshots *files; /* NULL: nobody said where */
    const struct run_options *options;
    struct {
        const char *path;
        int fd;
        uint64_t changed;
    } watch[MACHINE_DISKS]; /* disks that others could write to */
    unsigned watched;
    char boot[FREEZE_BOOT]; /* of the host: which start of it; empty: unknown */
};

/* Before the jail: what is looked at later. And the end. */
void freeze_look(struct freeze *f);
void freeze_watch(struct freeze *f);
void freeze_end(struct freeze *f);

/* F must stay as long as the table is used. */
void freeze_add(struct freeze *f, struct control_table *t);

/* The disks of the run that S is of are what they were then, as far as files tell: else
 * false, with one sentence in WHY. WORDS are those that the run that is to go on has from
 * it. */
bool freeze_disks(struct snapshot *s, char *why, size_t why_size);

/* Takes what S says of the host, if it is this one: what need not be measured again. */
void freeze_host(struct snapshot *s);

/* The options of the run that S is of: as many words as *COUNT says, which are BUF's
 * (SIZE bytes), into WORDS (of MAX). False: there is none, or they are too many. */
bool freeze_options(struct snapshot *s, char *buf, size_t size, const char **words,
                    size_t max, size_t *count);

#endif
