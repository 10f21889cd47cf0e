/* A command in the guest: what it is, and its start with pipes, or a terminal where its
 * caller has one. There is one a process. */
#ifndef GUEST_EXEC_COMMAND_H
#define GUEST_EXEC_COMMAND_H

#include "sys.h"

#define ARGS_MAX 4096

struct command {
    const char *who; /* begins what is said on its standard error when it cannot start */
    const char *cwd;
    unsigned uid, gid, tty; /* bits of its descriptors */
    unsigned columns, rows;
    unsigned groups[256];
    unsigned group_count;
    const char *argv[ARGS_MAX + 1], *envp[ARGS_MAX + 1];
    unsigned argc, envc;
};

extern struct command todo;
extern int master;    /* of the terminal; -1: there is none */
extern int input;     /* what it reads, by a pipe; -1: nothing any more */
extern int output[2]; /* what it writes */

/* Takes one string of a description, which stays where it is. False: it is none of ours.
 */
bool command_take(const char *s);
/* As if nothing had been taken. */
void command_forget(void);
/* Its process. What fails before that ends with fail(). */
long command_start(void);
void command_size(unsigned columns, unsigned rows);

/* Waits until all is written, or nobody reads. */
void write_all(int fd, const char *bytes, size_t len);
/* The program's: says what went wrong, and ends. */
_Noreturn void fail(const char *what, const char *which, long rc);

#endif
