/* The commands `drive`, for clients of the API: a disk has another file while the machine
 * runs; and `disc`, for those of control sockets: a CD-ROM drive has. */
#ifndef CTL_EXCHANGE_H
#define CTL_EXCHANGE_H

#include "control/control.h"
#include "ctl/forker.h"
#include "ctl/freeze.h"
#include "ctl/run_options.h"
#include "machine/machine.h"

struct gate;

/* Where clients may change discs. */
struct exchange_door {
    struct exchange *exchange;
    struct gate *gate; /* NULL: nobody opens files for them, which is said */
};

struct exchange {
    struct machine *m;
    struct gate *gate;     /* NULL: nobody opens files */
    struct run_options *o; /* say what the disk has, for snapshots */
    struct freeze *freeze;
    struct forker *forker;     /* or NULL */
    char *word[MACHINE_DISKS]; /* of options in the place of the command line's */
    struct exchange_door door[CONTROL_SPEECHES + 1];
    unsigned doors;
};

/* X, which has its members, must stay as long as the table is used. */
void exchange_add(struct exchange *x, struct control_table *t);
/* `disc`, for clients of T, whose files GATE opens. */
void exchange_add_discs(struct exchange *x, struct gate *gate, struct control_table *t);
void exchange_end(struct exchange *x);

#endif
