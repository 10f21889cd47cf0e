/*
 * What a debugger does to the machine: stops it, looks at it and changes it, has its CPUs
 * step or go on, and is told when one of them has come to a breakpoint or touched what is
 * watched (cpu/stops.h). All CPUs stop together, between two instructions; they may go on
 * one by one.
 *
 * All of it is for the loop's thread. What reads and changes the guest is for while the
 * machine is stopped by machine_debug_stop(), or by itself.
 */
#ifndef MACHINE_DEBUG_H
#define MACHINE_DEBUG_H

#include "cpu/stops.h"
#include "machine/machine.h"

/* From now on STOPPED(ARG) is called when a CPU has stopped of its own accord; all others
 * stand by then. One debugger at a time. */
void machine_debug_begin(struct machine *m, void (*stopped)(void *arg), void *arg);
/* It leaves: no stops are left, and all CPUs go on. */
void machine_debug_end(struct machine *m);

/* All CPUs stand. */
void machine_debug_stop(struct machine *m);

/* Why a CPU stopped, since it went on last; VCPU_HIT_NONE: because another one did, or
 * machine_debug_told() was called. */
struct vcpu_hit machine_debug_why(const struct machine *m, unsigned cpu);
/* The debugger has seen that. */
void machine_debug_told(struct machine *m, unsigned cpu);

/* What a CPU is to do. */
struct machine_go {
    enum { MACHINE_HOLDS, MACHINE_RUNS, MACHINE_STEPS } how;
    /* It steps on while the linear address of its next instruction is in [FROM, TO). */
    uint64_t from, to;
};
/* One for each CPU. A CPU that steps stops when it has made a step (machine/step.c); one
 * that sleeps does so when it has been woken. What waits to be told, STOPPED is called
 * for at once. */
void machine_debug_go(struct machine *m, const struct machine_go *go);
/* Counted runs that can be had once more (machine_config.rewinds): the CPU goes back by
 * one instruction, or, with SCAN, to where it stopped last before, or else to the
 * beginning. machine_run() ends with MACHINE_REWOUND meanwhile, perhaps twice. */
bool machine_debug_can_go_back(const struct machine *m);
void machine_debug_go_back(struct machine *m, bool scan);
/* The debugger changes a CPU's state: what comes now is not what a recording has. */
void machine_debug_meddled(struct machine *m);
/* It is where the run began, and was to go further back. */
bool machine_debug_at_start(const struct machine *m);
/* Steps take no interrupts; counted runs excepted, where they belong to the run. */
void machine_debug_hold_interrupts(struct machine *m, bool on);

/* Where to stop from now on. 0, or -ENOSPC: the engine cannot do that, and all is as it
 * was. */
int machine_debug_set(struct machine *m, const struct vcpu_stops *s);

/* A CPU's state. Its general registers, rip and vectors may be changed as they are; after
 * a change of anything else machine_debug_changed() is to be called. */
struct vcpu *machine_debug_vcpu(struct machine *m, unsigned cpu);
void machine_debug_changed(struct machine *m, unsigned cpu);
/* CR8 is the local APIC's; 0 where the engine has that. */
unsigned machine_debug_cr8(struct machine *m, unsigned cpu);
/* It waits to be started by another CPU. */
bool machine_debug_waits(const struct machine *m, unsigned cpu);

/* Memory as the CPU's page tables have it, with a supervisor's rights, or by physical
 * address: how many bytes could be read or written, from the first on. No bit of a page
 * table changes, no fault is raised, no device is touched; ROM can be written. */
uint64_t machine_debug_read(struct machine *m, unsigned cpu, bool physical, uint64_t at,
                            void *buf, uint64_t len);
uint64_t machine_debug_write(struct machine *m, unsigned cpu, bool physical, uint64_t at,
                             const void *buf, uint64_t len);
/* The physical address of AT. False: it is not mapped. */
bool machine_debug_translate(struct machine *m, unsigned cpu, uint64_t at, uint64_t *out);

#endif
