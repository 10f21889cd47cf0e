/* A test's processes: what a function does in one of its own. */
#ifndef LIB_CHILD_H
#define LIB_CHILD_H

#include "base/types.h"

#define CHILD_DONE 77 /* a child's exit status: it got to its end */

struct child_end {
    int status;      /* of wait(2) */
    char text[4096]; /* on its stderr */
};

/* FN(ARG) in a child process, in which signals are as at its start. */
struct child_end child(void (*fn)(void *arg), void *arg);
/* In a child: ends it with a sentence, errno's among it, if not GOOD. */
void child_check(bool good, const char *what);
/* It got to its end, and said nothing. */
void assert_child_done(const struct child_end *e);

#endif
