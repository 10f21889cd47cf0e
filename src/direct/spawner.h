/*
 * The spawner: a process that makes cells. It is forked before there are threads and
 * filters, for a cell's filters must not be stacked on the VMM's: the VMM's kill or trap
 * for what a cell's let through, or tell.
 *
 * It takes requests at a socket, and says what became of a cell where the cell itself
 * would: by adding CELL_ACK_DEAD to its ACK, and 1 to its OUT. It ends with the VMM, and
 * the cells with it. A cell that somebody stops (SIGSTOP) is continued.
 */
#ifndef DIRECT_SPAWNER_H
#define DIRECT_SPAWNER_H

#include "base/types.h"

#define CELLS_MAX 64u

enum spawner_what { SPAWNER_MAKE, SPAWNER_KILL };

/* What is asked at the socket. */
struct spawner_request {
    uint8_t what, slot;
    bool tsc_faults, cpuid_faults, pinned;
    uint16_t cpu; /* where the cell is to run, if it is pinned */
};

/* 0: it lives, as far as is known. It has ended; and nothing more is said of that by ACK
 * and OUT. */
enum spawner_dead { SPAWNER_DEAD = 1, SPAWNER_DEAD_AND_TOLD };

/* All descriptors are the caller's; the spawner has them by fork(2). */
struct spawner_config {
    int ram_fd, slots_fd;
    int ack[CELLS_MAX], out[CELLS_MAX], go[CELLS_MAX];
    int kick[CELLS_MAX]; /* the cell's ends of sockets, that KICKS are the others of */
    int kicks[CELLS_MAX];
    uint32_t *dead; /* of CELLS_MAX, shared: enum spawner_dead of the slot's cell */
};

/* 0 and the socket for requests, whose end is the spawner's; or -errno. */
int spawner_start(const struct spawner_config *cfg, int *socket);

#endif
