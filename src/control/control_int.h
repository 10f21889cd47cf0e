/* Shared by the files of the control socket's protocol. */
#ifndef CONTROL_CONTROL_INT_H
#define CONTROL_CONTROL_INT_H

#include "control/control.h"

/* check.c: NULL, or one sentence that says why LINE is not to be parsed. */
const char *control_check(const char *line, size_t len);

/* help.c: `help` is a command of each table; ARG is the table. */
extern const struct control_command control_help[];

#endif
