/*
 * A monitor: a few commands, with the names that QEMU's has, for a user at the console's
 * terminal. On the loop's thread. Programs use the control socket instead.
 */
#ifndef CTL_MONITOR_H
#define CTL_MONITOR_H

#include "base/types.h"

struct machine;

#define MONITOR_LINE 256u

struct monitor {
    struct machine *m;
    void (*say)(void *arg, const char *text); /* to the user's screen */
    void (*quit)(void *arg);
    void *arg;
    char line[MONITOR_LINE];
    size_t len;
};

/* The user has come to it. */
void monitor_greet(struct monitor *mon);
/* The user typed BYTE: the line is edited, or executed. */
void monitor_key(struct monitor *mon, uint8_t byte);

#endif
