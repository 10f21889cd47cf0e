/* The commands that `--control PATH` has for the run (control/control.h; docs/control.md
 * lists them). */
#ifndef CTL_STEER_H
#define CTL_STEER_H

#include "control/control.h"
#include "ctl/console.h"
#include "ctl/run_options.h"

struct steer {
    struct machine *m;
    struct console *console;
    const struct run_options *o;
    bool quits, resets; /* a client has asked for that */
};

/* S must stay as long as the table is used. */
void steer_add(struct steer *s, struct control_table *t);

#endif
