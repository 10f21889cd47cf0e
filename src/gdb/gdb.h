/*
 * GDB's remote serial protocol: a debugger for all CPUs of a machine, at a socket. Each
 * CPU is a thread, CPU 0 thread 1; they stop together, and go on as the client says.
 *
 * It knows machine/debug.h and nothing below. docs/gdb.md is what a user sees.
 * GDB's manual, "GDB Remote Serial Protocol".
 *
 * Clients are hostile: each is one of the machine's user's, but what it sends may be
 * anything. All of it runs on the loop's thread.
 */
#ifndef GDB_GDB_H
#define GDB_GDB_H

#include "base/types.h"

struct gdb;
struct machine;

/* Which registers a client is told of, and how wide they are. */
enum gdb_arch {
    GDB_ARCH_AUTO, /* 32 bits where the boot CPU pages without long mode, else 64 */
    GDB_ARCH_16,
    GDB_ARCH_32,
    GDB_ARCH_64,
};

/* `unix:PATH` or `tcp:ADDR:PORT`, and after commas `wait` (the machine stands before its
 * first instruction until a client has it go on) and `arch=16`, 32 or 64. Listens: before
 * the jail, and before there are threads (os_listener_open()). 0, or -errno with one
 * sentence in WHY. */
int gdb_open(const char *spec, struct gdb **out, char *why, size_t why_size);
/* The socket, for os_jail_enter(). */
int gdb_socket(const struct gdb *g);
/* Takes clients from now on: M outlives it. QUIT(ARG) is to end the run, which a client
 * has asked for. 0 or -errno. */
int gdb_start(struct gdb *g, struct machine *m, void (*quit)(void *arg), void *arg);
/* Before machine_run() of each life: the first time, with `wait`, the machine is stopped.
 */
void gdb_before_run(struct gdb *g);
/* There is no further life: the run ends with STATUS, or by a signal that is not 0. */
void gdb_ended(struct gdb *g, int status, int signal);
void gdb_close(struct gdb *g); /* G may be NULL */

#endif
