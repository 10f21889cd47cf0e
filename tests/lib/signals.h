/* cmocka puts its own signal handlers in place for each test, and ours, which turn the
 * host's faults into the guest's (base/os.h), have to go over them. Without <signal.h>,
 * whose names are also those of registers (cpu/vcpu.h). */
#ifndef LIB_SIGNALS_H
#define LIB_SIGNALS_H

/* Ours are in place: remembers them. Once, before the tests. */
void signals_remember(void);
/* Puts them back. In each test. */
void signals_back(void);

#endif
