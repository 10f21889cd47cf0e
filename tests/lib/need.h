/* For set-up code that is not a test itself: what it needs is there, or the program ends
 * with a sentence. */
#ifndef LIB_NEED_H
#define LIB_NEED_H

#include <stdbool.h>

/* WHAT is what could not be done. */
void need(bool ok, const char *what);

#endif
