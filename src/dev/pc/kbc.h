/* 8042 keyboard controller (ports 0x60 and 0x64), with or without a keyboard and a mouse.
 */
#ifndef DEV_KBC_H
#define DEV_KBC_H

#include "bus/bus.h"
#include "bus/irq.h"
#include "dev/host.h"
#include "dev/pc/mouse.h"
#include "dev/pc/ports.h"

struct kbc;
struct snapshot;

/* IRQ1 and IRQ12 are the outputs for the two ports. NULL when out of memory or
 * of places on the bus. */
struct kbc *kbc_new(struct bus *bus, struct irq_line irq1, struct irq_line irq12,
                    struct ports *ports, const struct dev_host *host);
void kbc_free(struct kbc *k);
/* A keyboard is plugged into the first port, for good; before the first reset. */
void kbc_plug_keyboard(struct kbc *k);
/* A key of it, as keyboard_key() has them (dev/pc/keyboard.h). False: the guest has not
 * taken what was typed before, or there is no such key or keyboard. */
bool kbc_key(struct kbc *k, unsigned key, bool down);
/* A mouse is plugged into the second port, for good; before the first reset. */
void kbc_plug_mouse(struct kbc *k);
/* It was moved, or its buttons; of none there is nothing to be told. */
void kbc_pointer(struct kbc *k, const struct mouse_event *e);
void kbc_reset(struct kbc *k);

/* The controller's record of a snapshot (snapshot/snapshot.h), and its keyboard's. */
void kbc_state(struct kbc *k, struct snapshot *s);

#endif
