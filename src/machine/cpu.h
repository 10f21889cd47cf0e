/*
 * A CPU of the machine, as the board sees it: the vCPU with its MMU, the engine that
 * executes it, its local APIC, and what is counted for it. The machine has an array of
 * them; the first is the boot processor, whose thread also serves the board.
 *
 * Who owns what: the slot owns its vCPU (and with it the MMU) and its engine; its local
 * APIC is the board's to make and free (machine/board.h). A slot's parts are its own
 * thread's, but for vcpu.events, the engine's kick(), the bell and `outside`, which are
 * anybody's.
 */
#ifndef MACHINE_CPU_H
#define MACHINE_CPU_H

#include "base/counters.h"
#include "cpu/vcpu.h"
#include "engine/engine.h"
#include "engine/run.h"

struct board;
struct lapic;
struct machine;
struct os_bell;
struct os_thread;

struct machine_cpu {
    unsigned index;
    struct machine *machine;
    struct board *board; /* set by board_create() */
    struct vcpu *vcpu;
    const struct engine_ops *ops; /* of the engine; all CPUs have the same */
    struct engine *engine;        /* NULL: not chosen yet */
    struct lapic *lapic;          /* NULL: the engine has it */
    struct counters counters;
    struct exit_counts exits;
    struct os_thread *thread; /* runs its lives; in machine_run_to() the caller does */
    struct os_bell *bell;     /* by which that thread sleeps */
    bool outside;             /* it may wait for the console; atomic */
};

/* Events for the CPU, from whichever thread: it leaves its engine soon. */
void machine_cpu_kick(struct machine_cpu *c, uint32_t events);
/* The same, and its thread wakes if it sleeps; async-signal-safe. */
void machine_cpu_wake(struct machine_cpu *c, uint32_t events);

#endif
