/*
 * The guest's serial console on this process's standard input and output.
 *
 * On a terminal: raw mode, and Ctrl-A starts a command (x quits, h helps, a sends
 * Ctrl-A). Elsewhere every byte of the input is the guest's, and its end is not the end
 * of the run.
 */
#ifndef CTL_CONSOLE_H
#define CTL_CONSOLE_H

#include "machine/machine.h"

struct console {
    bool is_tty;
    bool at_line_start; /* of our own output */
    bool escape;        /* Ctrl-A was typed */
    bool eof;           /* end of input */
    bool broken;        /* the reader of our output is gone */
    void (*quit)(void *arg);
    void *quit_arg;
};

/* Takes the terminal. 0 or -errno. QUIT(ARG) is called when the user asks to leave or the
 * output breaks. */
int console_open(struct console *c, void (*quit)(void *arg), void *arg);
/* Gives the terminal back; the cursor is left at the start of a line. */
void console_close(struct console *c);

/* The operations for struct machine_config. */
struct machine_console console_ops(struct console *c);

#endif
