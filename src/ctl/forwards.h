/* The command `forward` of the control socket and of the API: ports of the host that lead
 * to the guest, listed and changed while the machine runs. */
#ifndef CTL_FORWARDS_H
#define CTL_FORWARDS_H

#include "control/control.h"
#include "machine/machine.h"

struct forwards {
    const struct machine_config *machine;
    /* Who waits for a change of each network; NULL: nobody. */
    struct forwards_wait {
        struct control_request *r;
        bool add;
    } wait[MACHINE_NETS];
};

/* F, which has its first member, must stay as long as the table is used, and until the
 * networks have been stopped. */
void forwards_add(struct forwards *f, struct control_table *t);

#endif
