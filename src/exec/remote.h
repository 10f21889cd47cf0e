/*
 * A command in a guest that has the agent, for one who has a loop and cannot wait: its
 * input is given before, its output comes when it has ended. What comes from the guest is
 * checked, and bounded.
 */
#ifndef EXEC_REMOTE_H
#define EXEC_REMOTE_H

#include "exec/exec.h"

struct os_loop;
struct exec_remote;

#define EXEC_REMOTE_OUTPUT (256u << 10) /* bytes that are kept, of each kind */

struct exec_remote_end {
    const char *why; /* one sentence: it could not be done; NULL: it could */
    unsigned status; /* as a shell has it */
    struct exec_text {
        const char *bytes;
        size_t len;
        bool cut; /* there was more */
    } out, err;
};

struct exec_order {
    struct exec_command command; /* as exec_session() */
    unsigned uid, gid;
    const char *input;
    size_t input_len;
};

/* FD, which is taken over, is connected to a machine's --vsock path. DONE is called once,
 * on the loop's thread, and not from in here; E is gone then. NULL: out of memory. */
struct exec_remote *
exec_remote_start(struct os_loop *loop, int fd, const struct exec_order *o,
                  void (*done)(void *arg, const struct exec_remote_end *end), void *arg);
/* Nobody wants to know any more. */
void exec_remote_stop(struct exec_remote *r);

#endif
