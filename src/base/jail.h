/* --jail: whether a run is locked up before its first guest instruction. */
#ifndef BASE_JAIL_H
#define BASE_JAIL_H

#include "base/os.h"
#include "base/types.h"

enum jail_want {
    JAIL_AUTO, /* where the host can; else a warning */
    JAIL_ON,   /* or no run */
    JAIL_OFF,
};

/* All that the run needs is open, but for NEEDS. False after a message: there is to be no
 * run. */
bool jail_enter(enum jail_want want, const struct os_jail_needs *needs);

/* Why it cannot be, RC being what os_jail_enter() returned; for messages. */
const char *jail_why(int rc);

#endif
