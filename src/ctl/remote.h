/* The command `exec` of the control socket and of the API: runs one in the guest, by the
 * agent that it has (exec/remote.h). */
#ifndef CTL_REMOTE_H
#define CTL_REMOTE_H

#include "control/control.h"
#include "exec/remote.h"

#define REMOTE_JOBS 4u /* at once */

struct vsock;

struct remote {
    struct vsock *vsock; /* NULL: there is no way to the guest */
    struct os_loop *loop;
    struct os_timer limit; /* of the one whose time is over first */
    struct remote_job {
        struct remote *remote;
        struct control_request *r; /* who waits; NULL: nobody, it is free */
        struct exec_order order;
        char **argv, **env;
        char *cwd, *input;
        uint64_t until;           /* then it is given up */
        struct exec_remote *runs; /* NULL: it is not connected yet */
    } job[REMOTE_JOBS];
};

/* R has its first two members. Before the jail. 0 or -errno. */
int remote_start(struct remote *r);
/* R must stay as long as the table is used. */
void remote_add(struct remote *r, struct control_table *t);
/* While the loop does not run: what runs is given up. */
void remote_end(struct remote *r);

#endif
