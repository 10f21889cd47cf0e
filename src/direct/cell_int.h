/* Inside direct/: what a cell is, for cell.c and turn.c. */
#ifndef DIRECT_CELL_INT_H
#define DIRECT_CELL_INT_H

#include <sched.h>

#include "direct/cell.h"
#include "direct/spawner.h"

enum {
    CELL_NONE,   /* there is no process */
    CELL_IDLE,   /* nobody uses it, it maps nothing */
    CELL_USED,   /* a vCPU's */
    CELL_STARTS, /* a vCPU's, asked for */
    CELL_DEAD,   /* a vCPU's, to be given back */
    CELL_LOST,   /* there is no spawner any more */
};

struct cell {
    struct cell_pool *pool;
    unsigned slot;
    unsigned is; /* CELL_NONE and CELL_IDLE are changed atomically, by whoever takes it */
    unsigned faults; /* CELL_ bits */
    int cpu;         /* that it is pinned to; -1: none */
    uint64_t thread;
    struct cell_orders *orders;
    struct cell_resume *resume;
    struct cell_state *state; /* hostile */
    uint8_t *stack;           /* hostile */
};

struct cell_pool {
    uint8_t *slots;
    struct cell_gate gate;
    int socket;
    struct spawner_config cfg;
    /* cell_pool_cpu_ns()'s: of which threads, what each had when it was looked at last */
    uint64_t counted[CELLS_MAX], had_ns[CELLS_MAX], cpu_ns;
    unsigned can_fault;           /* CELL_ bits that this host has */
    cpu_set_t may;                /* where threads that are not pinned may run */
    uint32_t pinned[CPU_SETSIZE]; /* vCPUs of ours, atomic */
    struct cell cell[CELLS_MAX];
};

/* It can be kicked from here on. */
void cell_turn_begin(struct cell *c);
/* It goes in, behind its orders, and is out again. 0; -ENOMEM: it is not in, for not all
 * of them were carried out; -EIO: it is dead. */
int cell_turn(struct cell *c);
void cell_turn_end(struct cell *c);

#endif
