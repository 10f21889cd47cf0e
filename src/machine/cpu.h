/*
 * A CPU of the machine, as the board sees it: the vCPU with its MMU, the engine that
 * executes it, its local APIC and the clock of that, and what is counted for it. The
 * machine has an array of them; the first is the boot processor.
 *
 * Who owns what: the slot owns its vCPU (and with it the MMU), its clock and its engine;
 * its local APIC is the board's to make and free (machine/board.h).
 *
 * Locking: a slot's parts are its own thread's, but for those marked "atomic",
 * vcpu.events, the engine's kick(), the bell, and the local APIC where it says so: these
 * are for anybody.
 */
#ifndef MACHINE_CPU_H
#define MACHINE_CPU_H

#include "base/counters.h"
#include "base/os_loop.h"
#include "cpu/vcpu.h"
#include "engine/engine.h"
#include "engine/run.h"

struct board;
struct lapic;
struct machine;
struct os_bell;
struct os_thread;
struct steal;
struct vclock;

/* What a CPU was sent that changes it as a whole; SIGNAL_VECTOR() is the SIPI's. */
#define SIGNAL_INIT 1u
#define SIGNAL_SIPI 2u
#define SIGNAL_VECTOR(s) ((uint8_t)((s) >> 8))

enum machine_order { MACHINE_REST, MACHINE_LIVE, MACHINE_LEAVE };

struct machine_cpu {
    unsigned index;
    struct machine *machine;
    struct board *board; /* set by board_create() */
    struct vcpu *vcpu;
    const struct engine_ops *ops; /* of the engine; all CPUs have the same */
    struct engine *engine;        /* NULL: not chosen yet */
    struct lapic *lapic;          /* NULL: the engine has it */
    struct vclock *clock;         /* its TSC, and its local APIC's timer */
    struct os_timer due;          /* of that clock's deadline */
    uint64_t deadline; /* which is this, of the host's clock; UINT64_MAX: none */
    struct counters counters;
    struct exit_counts exits;
    struct os_thread *thread; /* runs its lives; in machine_run_to() the caller does */
    struct os_bell *bell;     /* by which that thread sleeps */
    struct steal *steal;      /* NULL: it is not offered */
    int waits;                /* with both, how long the thread waits for a CPU; or < 0 */
    uint32_t signals;         /* SIGNAL_*, not acted upon yet; atomic */
    bool waiting;             /* for a SIPI: it executes nothing */
    bool asleep;              /* or about to be: to be woken by its bell; atomic */
    uint32_t look;        /* ns: before it sleeps, it looks out for so long; its own */
    bool unhalt;          /* its HLT, or the next one, is to end; atomic */
    bool outside;         /* it may wait for the console; atomic */
    uint32_t order;       /* for the thread, enum machine_order; atomic */
    bool held;            /* by a debugger; changes while all CPUs stand, or by itself */
    struct vcpu_hit stop; /* why it has stopped for a debugger (debug.c) */
    uint64_t step_from, step_to; /* it steps on while its rip is within; or once */
    uint32_t answered;           /* the last call that it came to (call.c) */
};

/* Events for the CPU, from whichever thread: it leaves its engine soon. */
void machine_cpu_kick(struct machine_cpu *c, uint32_t events);
/* The same, and its thread wakes from whatever it sleeps for; async-signal-safe. */
void machine_cpu_wake(struct machine_cpu *c, uint32_t events);
/* An interrupt (IRQ or NMI) for the CPU, from another thread: it is looked at before the
 * next instruction, or ends its sleep if it is halted. Costs nothing where that event is
 * there already: whoever raised it has done the rest. */
void machine_cpu_interrupted(struct machine_cpu *c, uint32_t event);
/* Ends its HLT, whether it takes interrupts or not; or the next one. */
void machine_cpu_unhalt(struct machine_cpu *c);
/* INIT or SIPI for the CPU, from whichever thread. */
void machine_cpu_init(struct machine_cpu *c);
void machine_cpu_sipi(struct machine_cpu *c, uint8_t vector);

/* On the CPU's own thread, between two instructions (startup.c). INIT: the boot processor
 * begins anew at the reset vector, the others wait for a SIPI. 0, or -errno, logged: the
 * engine's state cannot be had. */
int machine_cpu_start_init(struct machine_cpu *c);
/* SIPI: one that does not wait for it does not notice. */
void machine_cpu_start_sipi(struct machine_cpu *c, uint8_t vector);

#endif
