/*
 * The vCPU run loop: the same for every engine. Executes the guest until the board says
 * that the run is over, sleeping while the guest is halted.
 */
#ifndef ENGINE_RUN_H
#define ENGINE_RUN_H

#include "engine/engine.h"

/* Exits by reason, synchronous ones included: the board counts those. */
struct exit_counts {
    uint64_t n[EXIT_COUNT];
};

struct run_board {
    /* After VCPU_EVENT_KICK: run due timers, move console bytes. */
    void (*service)(void *arg);
    /* The guest is halted: sleep until some event is raised. */
    void (*idle)(void *arg);
    /* A debugger has vcpu.single set: one step, as engine_ops.step(). */
    enum exit_reason (*step)(void *arg);
    /* After VCPU_EVENT_DEBUG: stands until the debugger lets it go on. */
    void (*stopped)(void *arg);
    void *arg;
};

enum run_end {
    RUN_STOPPED,  /* VCPU_EVENT_STOP: the board knows why */
    RUN_SHUTDOWN, /* triple fault */
    RUN_ERROR,    /* the engine failed; it has logged why */
};

enum run_end engine_run_loop(const struct engine_ops *ops, struct engine *e,
                             struct vcpu *v, const struct run_board *board,
                             struct exit_counts *counts);

#endif
