/* Shared by the files of the control socket's protocol. */
#ifndef CONTROL_CONTROL_INT_H
#define CONTROL_CONTROL_INT_H

#include "control/control.h"

/* help.c: `help` is a command of each table; ARG is the table. */
extern const struct control_command control_help[];

#endif
