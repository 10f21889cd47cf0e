/* For set-up code that is not a test itself: what it needs is there, and what must hold
 * does, or the program ends with a sentence. */
#ifndef LIB_NEED_H
#define LIB_NEED_H

#include <stdbool.h>

/* WHAT is what could not be done. */
void need(bool ok, const char *what);

/* What must hold whatever a guest does, also in a build without assertions. */
#define HOLDS(cond) need_holds(cond, __FILE__, __LINE__, #cond)
void need_holds(bool ok, const char *file, int line, const char *what);

#endif
