/*
 * The monitor for a user at the console's terminal: a line is edited here, and executed
 * by control_words(). On the loop's thread.
 */
#ifndef CTL_MONITOR_H
#define CTL_MONITOR_H

#include "base/types.h"

struct control_table;

#define MONITOR_LINE 256u

struct monitor {
    const struct control_table *words;
    void (*say)(void *arg, const char *text); /* to the user's screen */
    void *arg;
    char line[MONITOR_LINE];
    size_t len;
};

/* The user has come to it. */
void monitor_greet(struct monitor *mon);
/* The user typed BYTE: the line is edited, or executed. */
void monitor_key(struct monitor *mon, uint8_t byte);

#endif
