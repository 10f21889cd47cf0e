/*
 * `bivisor exec`: what is needed to run a command in a machine whose root is a directory
 * of the host's. A kernel and its modules are found, an initial RAM disk is made of them
 * and of the first process (guest/exec/init.c), and while the machine runs, in a process
 * of its own, what goes in and out of the command is passed on.
 *
 * This room knows no machine: ctl/cmd_exec.c starts it.
 */
#ifndef EXEC_EXEC_H
#define EXEC_EXEC_H

#include "base/types.h"

/* --- the kernel (kernel.c) --- */

struct exec_kernel {
    char path[4096];
    char release[128];  /* as uname(1) tells it */
    char modules[4096]; /* a directory; empty: there is none */
};

/* NAME is a bzImage, a directory that a package was unpacked in, or NULL: the host's. 0,
 * or -errno with one sentence in WHY. */
int exec_kernel_find(const char *name, struct exec_kernel *k, char *why, size_t why_size);

/* --- modules (module.c) --- */

#define EXEC_MODULES 128

struct exec_modules {
    struct exec_module {
        char name[64];
        uint8_t *bytes; /* unpacked */
        uint64_t len;
    } module[EXEC_MODULES]; /* in the order in which they are loaded */
    unsigned count;
};

/* What the guest cannot do without: a module, or a part of the kernel. */
struct exec_need {
    const char *module; /* its name */
    const char *what;   /* for a message */
};

/* All modules of NEEDS (COUNT) and those that they need. What is built in is left out.
 * 0, or -errno with one sentence in WHY; and then there are none. */
int exec_modules_load(const struct exec_kernel *k, const struct exec_need *needs,
                      unsigned count, struct exec_modules *out, char *why,
                      size_t why_size);
void exec_modules_free(struct exec_modules *m);

/* --- the command --- */

struct exec_command {
    char **argv, **envp; /* each ends with a NULL */
    const char *cwd;
    bool rw, net;
    bool as_root;
    bool agent;                 /* others are run in the machine meanwhile */
    const char *type, *options; /* of the root's file system */
    const char *release;        /* of the kernel */
    /* Where its modules are in the root, or "": they are a share of their own; NULL: it
     * has none that the root does not have. */
    const char *tree;
    unsigned tty; /* a bit for each standard descriptor that is a terminal */
    uint16_t columns, rows;
};

/* An initial RAM disk (initrd.c), in a file without a name: its descriptor, or -errno. */
int exec_initrd_make(const struct exec_command *c, const struct exec_modules *m);

/* --- while it runs (pump.c) --- */

enum { EXEC_IN, EXEC_OUT, EXEC_ERR, EXEC_CTL, EXEC_PORTS };
extern const char *const exec_port_names[EXEC_PORTS];

struct exec_ends {
    int port[EXEC_PORTS]; /* sockets */
    int log;              /* what the kernel says; -1: nobody listens */
    int machine;          /* its process, a child of ours */
};

/* Passes on what goes in and out until the command has ended, and ends the machine. The
 * command's status as a shell has it; 125 after a message: the machine failed. */
#define EXEC_MACHINE_FAILED 125
int exec_pump(const struct exec_ends *e, const struct exec_command *c);

#endif
