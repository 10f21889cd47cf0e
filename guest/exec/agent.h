/* The agent: runs commands and copies files for the host (`bivisor do`, `bivisor cp`),
 * which connects to a port of the guest's socket device; src/exec/agent.h has what is
 * said. Each connection is one command or one file, and a process of its own. */
#ifndef GUEST_EXEC_AGENT_H
#define GUEST_EXEC_AGENT_H

/* In a process of its own, for as long as the machine runs. */
void agent_start(void);
/* The same in this one. Returns an error when the kernel has no such sockets. */
long agent_serve(void);

#endif
