/* Processes from before the jail that open discs for the clients of control sockets
 * (api/gate.h), one for each socket. */
#ifndef CTL_GATES_H
#define CTL_GATES_H

#include "control/control.h"
#include "machine/machine.h"

struct gate;

struct gates {
    struct gate *gate[CONTROL_SPEECHES]; /* NULL: nobody */
};

/* Where CFG has a CD-ROM drive, and the run need not be repeated: one for each of
 * CONTROL, NULL being none, whose clients come by way of it from now on. Before there are
 * threads. 0; or -errno, which has been logged, and gates_close() is to be called. */
int gates_open(struct gates *g, const struct machine_config *cfg,
               struct control *const control[CONTROL_SPEECHES]);
/* Where they are asked: how many sockets have been put into OUT. */
unsigned gates_list(const struct gates *g, int *out);
/* The jail is next. False: one has ended, which has been logged. */
bool gates_settle(const struct gates *g);
void gates_close(struct gates *g);

#endif
