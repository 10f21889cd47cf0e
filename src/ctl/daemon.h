/* Going on in the background (--daemon, QEMU's -daemonize): the process that was started
 * waits until the one that it makes is ready, passing on what that says, or returns its
 * status when it ends before. */
#ifndef CTL_DAEMON_H
#define CTL_DAEMON_H

#include "base/types.h"

/* Before there are threads. In the new process -1: it has no terminal, standard input and
 * output are /dev/null, and standard error is the caller's until it is ready, and
 * nobody's after that. In the old one the exit status. OPTION is for messages. */
int daemon_start(const char *option, int *ready);
/* READY (-1: nobody waits) is what daemon_start() gave; it is -1 from now on. May be
 * called in the jail. False: the one that waited has been ended. */
bool daemon_ready(int *ready);

#endif
