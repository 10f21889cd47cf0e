/*
 * The guest's serial console on this process's standard input and output.
 *
 * On a terminal: raw mode, and Ctrl-A, or another key of the user's choice, starts a
 * command (x quits, h helps, c changes to the monitor and back if there is one, a sends
 * Ctrl-A; followed by anything else both bytes are the guest's). Elsewhere every byte of
 * the input is the guest's, and its end is not the end of the run.
 *
 * Nothing typed or piped is lost: what the guest has no room for stays in the pipe, or is
 * held here when it comes from a terminal. Output waits here for its reader, as much as
 * there is room for, until console_abandon(); then the guest's port has no room.
 *
 * Threads: the loop's reads what is typed at a terminal as soon as it is there, so that
 * Ctrl-A is seen whatever the guest does. What comes in a pipe it does not read: it wakes
 * the machine, whose CPU's thread reads as much as the guest has room for. Where standard
 * input and output are lent to a stream (a second serial port's, a virtio console's) all
 * of it is the loop's, and `pump` moves it on. Output comes
 * from the threads of all CPUs, and the loop's. `lock` guards what is held, `out_lock`
 * the output.
 */
#ifndef CTL_CONSOLE_H
#define CTL_CONSOLE_H

#include <pthread.h>

#include "base/os_loop.h"
#include "ctl/monitor.h"
#include "ctl/serial_option.h"
#include "replay/input.h"

struct console_config {
    bool input;     /* is wanted */
    uint8_t escape; /* a control character; 0: Ctrl-A */
    enum console_monitor monitor;
    const struct control_table *words; /* the monitor's */
    struct stream *lend; /* to whom instead of the machine's console; NULL: nobody */
};

struct console {
    bool is_tty;     /* the input */
    bool out_is_tty; /* the output */
    struct machine *m;

    /* the loop's thread */
    uint8_t escape_key;
    bool escape; /* it was typed */
    enum console_monitor has_monitor;
    bool in_monitor;
    struct monitor monitor;
    struct stream *lent; /* NULL: the machine's console has it */
    bool ended;          /* it was told that there is no more input */
    struct os_task pump;
    struct os_watch full; /* the output was */
    struct os_watch input;
    struct os_watch help;  /* Ctrl-A h was typed, and the output takes nothing now */
    struct os_task listen; /* the input is to be watched again */

    bool watched;   /* a pipe: the loop tells of more; atomic */
    bool eof;       /* end of input; atomic */
    bool abandoned; /* console_abandon() was called; atomic */
    pthread_mutex_t lock;
    size_t held_len; /* typed, and not taken by the guest yet */
    uint8_t held[65536];

    /* output; the threads of all CPUs, and the loop's */
    bool at_line_start; /* of our own output */
    int out_fd;
    pthread_mutex_t out_lock;
    bool wanting;   /* there was no room for all of it */
    int error;      /* errno of the output, which is given up then; or 0 */
    size_t out_len; /* what the guest wrote, and the reader has not taken yet */
    uint8_t out[65536];
};

/* Takes the terminal, unless no input is wanted, and hangs itself into M's loop: M is to
 * quit when the user asks for it or the output breaks. 0 or -errno. */
int console_open(struct console *c, const struct console_config *cfg, struct machine *m);
/* Gives the terminal back; the cursor is left at the start of a line. */
void console_close(struct console *c);
/* From now on output is dropped rather than waited for; async-signal-safe. */
void console_abandon(struct console *c);

/* The operations for struct machine_config. */
struct machine_console console_ops(struct console *c);
/* The same for a run that is recorded. */
struct input_source console_source(struct console *c);

#endif
