/*
 * Assertions about ourselves. Guest input can never reach one: a guest fault is a
 * returned value (docs/architecture.md).
 */
#ifndef BASE_BUG_H
#define BASE_BUG_H

#include "base/types.h"

/* Prints the place and the dump that bug_set_dump() installed, then aborts. */
_Noreturn void bug_die(const char *file, int line, const char *what);

/* FN(ARG) prints what is known of the VM; called once, from bug_die(). */
void bug_set_dump(void (*fn)(void *arg), void *arg);

#define BUG_ON(cond)                                                                     \
    do {                                                                                 \
        if (unlikely(cond))                                                              \
            bug_die(__FILE__, __LINE__, #cond);                                          \
    } while (0)

#endif
