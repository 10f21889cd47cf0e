/* 8254 interval timer, and port 0x61: speaker gate, refresh toggle, OUT2. */
#ifndef DEV_PIT_H
#define DEV_PIT_H

#include "base/counters.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/irq.h"

#define PIT_HZ 1193182u

struct pit;
struct snapshot;

/* IRQ is channel 0's output. NULL when out of memory or of places on the bus. */
struct pit *pit_new(struct bus *bus, struct vclock *clock, struct irq_line irq,
                    struct counters *cnt);
void pit_free(struct pit *p);
void pit_reset(struct pit *p);

/* Its record of a snapshot (snapshot/snapshot.h). */
void pit_state(struct pit *p, struct snapshot *s);

#endif
