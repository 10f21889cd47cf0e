/*
 * Signals of this process as bytes of a pipe, for a loop that waits for other things,
 * too. One such pipe a process. SIGPIPE is ignored.
 */
#ifndef EXEC_SIGNALS_H
#define EXEC_SIGNALS_H

#include <stddef.h>

/* Each of the COUNT signals that is not ignored is a byte, its number, that can be read
 * from now on; what does not fit is lost. The descriptor, which does not block and is the
 * caller's, or -errno. */
int signals_catch(const int *signals, size_t count);

#endif
