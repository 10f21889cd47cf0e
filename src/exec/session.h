/* Commands and files in a guest that runs already and has the agent (guest/exec/agent.h),
 * by a connection to that. */
#ifndef EXEC_SESSION_H
#define EXEC_SESSION_H

#include "exec/exec.h"

/* FD is connected to a machine's --vsock path: to the agent from now on. 0 or -errno;
 * -ECONNREFUSED: there is none. */
int exec_session_connect(int fd);
/* Runs C, of which the words, the environment, the directory and the terminal count, and
 * passes on what goes in and out. Its status, or EXEC_MACHINE_FAILED after a message. */
int exec_session(int fd, const struct exec_command *c, unsigned uid, unsigned gid);
/* A file of the guest's becomes what IN has to be read; and OUT gets what a file of the
 * guest's has in it. 0, or -errno after a message. */
int exec_session_put(int fd, int in, unsigned mode, const char *path);
int exec_session_get(int fd, int out, unsigned *mode, const char *path);
/* The agent as a program, for guests that have none. */
void exec_agent_image(const uint8_t **bytes, size_t *len);

#endif
