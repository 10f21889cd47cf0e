/* 8042 keyboard controller (ports 0x60 and 0x64) with nothing plugged in. */
#ifndef DEV_KBC_H
#define DEV_KBC_H

#include "bus/bus.h"
#include "bus/irq.h"
#include "dev/host.h"
#include "dev/pc/ports.h"

struct kbc;

/* IRQ1 and IRQ12 are the outputs for the two ports. NULL when out of memory or
 * of places on the bus. */
struct kbc *kbc_new(struct bus *bus, struct irq_line irq1, struct irq_line irq12,
                    struct ports *ports, const struct dev_host *host);
void kbc_free(struct kbc *k);
void kbc_reset(struct kbc *k);

#endif
