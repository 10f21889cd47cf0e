/* What the kernel is to keep a process of ours from, by limits ("getrlimit(2)"); what is
 * limited already stays so. */
#ifndef BASE_OS_LIMIT_H
#define BASE_OS_LIMIT_H

#include "base/types.h"

#define LIMIT_FILES_ANY UINT32_MAX

/* No core, no locked memory, no message queues; unless it FORKS, no processes; and FILES
 * descriptors at most. For the whole process, for good. */
void limit_process(bool forks, unsigned files);
/* The highest descriptor that is open. */
unsigned limit_highest_open(void);

#endif
