/*
 * The guest's serial console on this process's standard input and output.
 *
 * On a terminal: raw mode, and Ctrl-A starts a command (x quits, h helps, a sends
 * Ctrl-A; followed by anything else both bytes are the guest's). Elsewhere every byte of
 * the input is the guest's, and its end is not the end of the run.
 *
 * Nothing typed or piped is lost: what the guest has no room for stays in the pipe, or is
 * held here when it comes from a terminal. Output waits for its reader, and with it the
 * guest, until console_abandon().
 */
#ifndef CTL_CONSOLE_H
#define CTL_CONSOLE_H

#include "replay/input.h"

struct console {
    bool is_tty;             /* the input */
    bool out_is_tty;         /* the output */
    bool at_line_start;      /* of our own output */
    bool escape;             /* Ctrl-A was typed */
    bool eof;                /* end of input */
    bool no_room;            /* the guest's queue was full when it was last looked at */
    int error;               /* errno of the output, which is given up then; or 0 */
    volatile bool abandoned; /* console_abandon() was called */
    void (*quit)(void *arg);
    void *quit_arg;
    size_t held_len; /* typed, and not taken by the guest yet */
    uint8_t held[65536];
};

/* Takes the terminal, unless no INPUT is wanted. 0 or -errno. QUIT(ARG) is called when
 * the user asks to leave or the output breaks. */
int console_open(struct console *c, bool input, void (*quit)(void *arg), void *arg);
/* Gives the terminal back; the cursor is left at the start of a line. */
void console_close(struct console *c);
/* From now on output is dropped rather than waited for; async-signal-safe. */
void console_abandon(struct console *c);

/* The operations for struct machine_config. */
struct machine_console console_ops(struct console *c);
/* The same for a run that is recorded. */
struct input_source console_source(struct console *c);

#endif
