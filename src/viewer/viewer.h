/*
 * Those who look at the guest's screen, and type and point at it: VNC clients, which a
 * server in a process of its own has, and a terminal that shows the text screen.
 *
 * Both hang in the machine's loop and act on its thread. They ask for a picture when
 * somebody wants one and not before: a machine that nobody looks at draws nothing.
 */
#ifndef VIEWER_VIEWER_H
#define VIEWER_VIEWER_H

#include "base/jail.h"
#include "base/types.h"

struct machine;

/* --- VNC (RFC 6143, "The Remote Framebuffer Protocol") --- */

struct vnc;

struct vnc_config {
    /* As VNC's clients name a server: [ADDR]:N, the display, [ADDR]::PORT, or unix:PATH.
     * ADDR is numeric, of IPv6 in brackets; without one it is 127.0.0.1. */
    const char *address;
    const char *password; /* a file, of whose first line clients have to know; or NULL */
    enum jail_want jail;
};

/* Makes a process, and is therefore before there are threads. 0, or -errno with one
 * sentence in WHY. */
int vnc_open(const struct vnc_config *cfg, struct vnc **out, char *why, size_t why_size);
/* Clients see M's screen from now on; the machine has a display. 0 or -errno. */
int vnc_start(struct vnc *v, struct machine *m);
/* Clients see nothing new; before the machine goes. */
void vnc_stop(struct vnc *v);
void vnc_close(struct vnc *v); /* V may be NULL */

/* --- the terminal --- */

struct terminal;

struct terminal_config {
    uint8_t escape; /* a control character; 0: Ctrl-A */
    /* The user wants the run to end. */
    void (*quit)(void *arg);
    void *arg;
};

/* What is wrong with standard input and output as a terminal; NULL: nothing. */
const char *terminal_refusal(void);
/* Takes the terminal, and shows M's screen there. 0 or -errno. */
int terminal_open(const struct terminal_config *cfg, struct machine *m,
                  struct terminal **out);
/* Gives the terminal back as it was; T may be NULL. */
void terminal_close(struct terminal *t);

#endif
