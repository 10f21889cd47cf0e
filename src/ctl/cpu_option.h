/* --cpu: which CPU the guest sees. */
#ifndef CTL_CPU_OPTION_H
#define CTL_CPU_OPTION_H

#include "machine/machine.h"

#define CPU_OPTION_NAME 64

/* Takes the value of --cpu, a name and changes to what the CPU says, into C; the name is
 * kept in NAME. -1 to go on, or the exit status after a list ("help") or a message. */
int cpu_option_take(const char *value, struct machine_config *c,
                    char name[CPU_OPTION_NAME]);

#endif
