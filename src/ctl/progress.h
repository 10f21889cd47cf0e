/* How far long work is, in a line of standard error, if that is a terminal. */
#ifndef CTL_PROGRESS_H
#define CTL_PROGRESS_H

#include "base/types.h"

/* Shows WHAT, and how many hundredths DONE is of TOTAL (0: nobody knows); in place of
 * what is shown. Not more often than can be read. */
void progress_show(const char *what, uint64_t done, uint64_t total);
/* Takes the line away, if there is one. */
void progress_end(void);

#endif
