/* Shared by the files of the control socket's protocol. */
#ifndef CONTROL_CONTROL_INT_H
#define CONTROL_CONTROL_INT_H

#include "control/control.h"

/* help.c: `help` is a command of each table; ARG is the table. */
extern const struct control_command control_help[];

/* qmp.c. What a client is told first. */
extern const char qmp_greeting[];
/* The answer to a request, with the events that it led to, as lines: the caller's to
 * free(). NULL: out of memory. */
char *qmp_answer(const struct control_table *t, const char *line, size_t len);
/* The bytes of the first request of LEN bytes, or of a line that is none, with what is
 * blank before it; 0: it has not ended. */
size_t qmp_length(const char *in, size_t len);
/* The line by which EVENT is told, with QEMU's REASON for it; NULL: it has none. */
void qmp_event(char *to, size_t size, const char *event, const char *reason);

/* As control_name(). */
bool qmp_name(const char *line, size_t len, char *path, size_t size);
/* The same of a line of the monitor's, a text (words.c). */
bool words_name(const char *line, char *path, size_t size);

/* LEN bytes of anything as a text of UTF-8, the caller's to free(); NULL: out of memory.
 */
char *check_make_text(const char *bytes, size_t len);

#endif
