/* Several processors in a guest: brings the others up and gives all of them work. */
#ifndef GUEST_SMP_H
#define GUEST_SMP_H

#include "guest.h"

#define SMP_CPUS 4 /* what tests/guest/run gives a guest whose name begins with smp */
#define SMP_IPI 0x70

/* Sends INIT and SIPI to all others and waits until SMP_CPUS - 1 of them are there. */
void smp_start(void);
/* FN(n) on all processors at once, n from 0 on; comes back when all have ended. The
 * others run it with interrupts on. */
void smp_together(void (*fn)(unsigned cpu));
/* Within FN: all have come as far. */
void smp_meet(void);
/* An interrupt to all others: smp_ipi_hook() is called there. */
void smp_interrupt_others(void);
extern void (*volatile smp_ipi_hook)(void);

static inline void pause(void) {
    __asm__ volatile("pause" ::: "memory");
}

#endif
