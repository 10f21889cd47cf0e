/* Two 8259A interrupt controllers in the PC's cascade, with edge/level registers. */
#ifndef DEV_PIC_H
#define DEV_PIC_H

#include "base/counters.h"
#include "bus/bus.h"
#include "bus/irq.h"

struct pic;
struct snapshot;

/* OUTPUT(ARG, level) follows the master's INT pin. NULL when out of memory or
 * of places on the bus. */
struct pic *pic_new(struct bus *bus, void (*output)(void *arg, bool level), void *arg,
                    struct counters *cnt);
void pic_free(struct pic *p);

/* Power-up state: uninitialised, all inputs as their lines are. */
void pic_reset(struct pic *p);

/* Drives input N (0..15; 2 is the cascade and ignored); has the shape of irq_line.set. */
void pic_set(void *pic, unsigned n, bool level);

/* SERVED(ARG) is called when a system may have dealt with what an input asked for: at the
 * end of an interrupt, and when an input is unmasked. NULL: nobody wants to know. */
void pic_on_served(struct pic *p, void (*served)(void *arg), void *arg);

bool pic_pending(const struct pic *p);
/* The processor's acknowledge cycle: a vector, IRQ7's or IRQ15's when it was spurious. */
int pic_ack(struct pic *p);

/* Its record of a snapshot (snapshot/snapshot.h). Who listens to its output has one of
 * his own: he is told nothing. */
void pic_state(struct pic *p, struct snapshot *s);

#endif
