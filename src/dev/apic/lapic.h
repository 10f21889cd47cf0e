/* Local APIC: xAPIC and x2APIC, with its timer. */
#ifndef DEV_LAPIC_H
#define DEV_LAPIC_H

#include "base/counters.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "dev/apic/apic.h"

#define LAPIC_BASE 0xfee00000u
#define LAPIC_BUS_HZ 1000000000u /* timer input before the divider */
/* Shortest period of the periodic timer: a shorter one runs at this. */
#define LAPIC_MIN_PERIOD_NS 20000u

struct lapic;

struct lapic_host {
    /* lapic_pending() changed to PENDING. */
    void (*output)(void *arg, bool pending);
    void (*nmi)(void *arg);
    /* INIT arrived for this CPU; may be NULL: ignored. */
    void (*init)(void *arg);
    /* Acknowledge cycle to the 8259s, for ExtINT: a vector, or -1. */
    int (*extint_ack)(void *arg);
    /* End of a level-triggered interrupt, for the I/O APIC. */
    void (*eoi)(void *arg, uint8_t vector);
    void *arg;
};

/* NULL when out of memory. The CPU is the BSP, APIC ID 0. Its page is the CPU's own, and
 * wherever the guest moves it, it hides other devices: to be made before them. */
struct lapic *lapic_new(struct bus *bus, struct vclock *clock,
                        const struct lapic_host *host, struct counters *cnt);
void lapic_free(struct lapic *l);

/* State in which PC firmware leaves it: enabled, virtual wire (LINT0 ExtINT, LINT1 NMI).
 * MultiProcessor Specification 1.4, "Virtual Wire Mode". */
void lapic_reset(struct lapic *l);

/* An interrupt waits that the priorities let through (or the 8259s' through LINT0). */
bool lapic_pending(const struct lapic *l);
/* Takes it: its vector, or -1 when there is none. */
int lapic_ack(struct lapic *l);

/* Drives LINT0 (pin 0; the 8259s' output) or LINT1 (pin 1; NMI). */
void lapic_lint(struct lapic *l, unsigned pin, bool level);
/* A message from I/O APIC or MSI; false when it is not for this CPU. */
bool lapic_deliver(struct lapic *l, const struct apic_msg *m);

/* APIC_BASE, TSC_DEADLINE and the x2APIC range. */
bool lapic_owns_msr(uint32_t msr);
/* RDMSR or WRMSR of one that lapic_owns_msr(); false: #GP. */
bool lapic_msr(struct lapic *l, uint32_t msr, bool write, uint64_t *value);
uint64_t lapic_base_msr(const struct lapic *l); /* APIC_BASE, for CPUID */

/* CR8: bits 7..4 of TPR. */
unsigned lapic_cr8(const struct lapic *l);
void lapic_cr8_set(struct lapic *l, unsigned value);

/* The guest's TSC was set: the TSC deadline lies elsewhere in time now. */
void lapic_tsc_changed(struct lapic *l);

#endif
