/*
 * Local APIC: xAPIC and x2APIC, with its timer.
 *
 * Locking: none. All of it belongs to the thread of its CPU, but for lapic_deliver(),
 * lapic_lint() and what tells how it is addressed, which are for any thread. These post
 * to words that are changed atomically (lapic_int.h); the owner takes what was posted
 * when it is told to look, and before anybody sees its registers (lapic_settle()).
 */
#ifndef DEV_LAPIC_H
#define DEV_LAPIC_H

#include "base/counters.h"
#include "bus/clock.h"
#include "dev/apic/apic.h"

#define LAPIC_BASE 0xfee00000u
#define LAPIC_BUS_HZ 1000000000u /* timer input before the divider */
/* Shortest period of the periodic timer: a shorter one runs at this. */
#define LAPIC_MIN_PERIOD_NS 20000u

struct lapic;
struct snapshot;

/* All may be NULL. Those of the first group are called on the CPU's own thread. */
struct lapic_host {
    /* lapic_pending() changed to PENDING, or may have. */
    void (*output)(void *arg, bool pending);
    /* Acknowledge cycle to the 8259s, for ExtINT: a vector, or -1. */
    int (*extint_ack)(void *arg);
    /* End of a level-triggered interrupt, for the I/O APIC. */
    void (*eoi)(void *arg, uint8_t vector);
    /* An interrupt command, to be sent to whom it is for: also to this one, if so. */
    void (*send)(void *arg, const struct apic_msg *m, enum apic_to to);

    /* Called on any thread; MINE: on the CPU's own. Another thread has posted something:
     * the owner is to call lapic_settle() before its CPU's next instruction. */
    void (*look)(void *arg);
    void (*nmi)(void *arg, bool mine);
    void (*init)(void *arg, bool mine);
    void (*sipi)(void *arg, uint8_t vector, bool mine);
    void *arg;
};

/* NULL when out of memory. ID is its APIC ID, CLOCK the CPU's; the one with ID 0 is the
 * boot processor's. */
struct lapic *lapic_new(unsigned id, struct vclock *clock, const struct lapic_host *host,
                        struct counters *cnt);
void lapic_free(struct lapic *l);

/* State in which PC firmware leaves it. The boot processor's: enabled, virtual wire
 * (LINT0 ExtINT, LINT1 NMI); MultiProcessor Specification 1.4, "Virtual Wire Mode". The
 * others': as after INIT. */
void lapic_reset(struct lapic *l);
/* INIT: all but APIC_BASE and the ID. Intel SDM volume 3, "Local APIC State After It
 * Receives an INIT-Deassert IPI". */
void lapic_init(struct lapic *l);

/* Takes what others have posted; output() says what has come of it. */
void lapic_settle(struct lapic *l);
/* An interrupt waits that the priorities let through (or the 8259s' through LINT0). */
bool lapic_pending(const struct lapic *l);
/* Takes it: its vector, or -1 when there is none. */
int lapic_ack(struct lapic *l);

/* Drives LINT0 (pin 0; the 8259s' output) or LINT1 (pin 1; NMI). MINE: on the thread of
 * the CPU. The threads that drive a pin take turns. */
void lapic_lint(struct lapic *l, unsigned pin, bool level, bool mine);
/* A message arrives; MINE: on the thread of the CPU. False: it is not accepted. */
bool lapic_deliver(struct lapic *l, const struct apic_msg *m, bool mine);
/* Is this one of those that M's destination names? */
bool lapic_addressed(const struct lapic *l, const struct apic_msg *m);
/* For the choice of the one with the lowest priority: that of its task; above 255: it
 * takes no interrupts. */
unsigned lapic_priority(const struct lapic *l);

/* The page of registers: is AT in it (nowhere, in x2APIC mode)? Accesses of SIZE bytes, 1
 * to 8, at an offset in it. What the page lies over is hidden from its CPU. */
bool lapic_page(const struct lapic *l, struct gpa at);
uint64_t lapic_read(struct lapic *l, unsigned at, unsigned size);
void lapic_write(struct lapic *l, unsigned at, unsigned size, uint64_t value);

/* APIC_BASE, TSC_DEADLINE and the x2APIC range. */
bool lapic_owns_msr(uint32_t msr);
/* RDMSR or WRMSR of one that lapic_owns_msr(); false: #GP. */
bool lapic_msr(struct lapic *l, uint32_t msr, bool write, uint64_t *value);
uint64_t lapic_base_msr(const struct lapic *l); /* APIC_BASE, for CPUID */

/* CR8: bits 7..4 of TPR. */
unsigned lapic_cr8(const struct lapic *l);
void lapic_cr8_set(struct lapic *l, unsigned value);

/* The CPU's TSC was set: the TSC deadline lies elsewhere in time now. */
void lapic_tsc_changed(struct lapic *l);

/* Its record of a snapshot (snapshot/snapshot.h): on its CPU's thread, or while that
 * stands. */
void lapic_state(struct lapic *l, struct snapshot *s);

#endif
