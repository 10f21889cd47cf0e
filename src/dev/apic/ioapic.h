/* I/O APIC with 24 inputs, version 0x20 (with an EOI register). */
#ifndef DEV_IOAPIC_H
#define DEV_IOAPIC_H

#include "base/counters.h"
#include "bus/bus.h"
#include "dev/apic/apic.h"

#define IOAPIC_BASE 0xfec00000u
#define IOAPIC_PINS 24u

struct ioapic;
struct snapshot;

/* DELIVER(ARG, message) sends to the local APICs; false when nobody took it. NULL when
 * out of memory. */
struct ioapic *ioapic_new(struct bus *bus,
                          bool (*deliver)(void *arg, const struct apic_msg *m), void *arg,
                          struct counters *cnt);
void ioapic_free(struct ioapic *io);
void ioapic_reset(struct ioapic *io);

/* Drives pin N (ignored when there is none); has the shape of irq_line.set. On the PC the
 * 8254 (ISA IRQ 0) is on pin 2, the other ISA lines are on their own numbers. */
void ioapic_set(void *ioapic, unsigned n, bool level);

/* SERVED(ARG) is called when a system may have dealt with what a pin's level asked for:
 * at the end of such an interrupt, before the level is looked at again, and when an entry
 * is unmasked. NULL: nobody wants to know. */
void ioapic_on_served(struct ioapic *io, void (*served)(void *arg), void *arg);

/* A local APIC ended the level-triggered interrupt VECTOR. */
void ioapic_eoi(struct ioapic *io, uint8_t vector);

/* Its record of a snapshot (snapshot/snapshot.h). */
void ioapic_state(struct ioapic *io, struct snapshot *s);

#endif
