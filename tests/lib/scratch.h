/* A directory of the test's own, which it works in: for files that it makes by name. */
#ifndef LIB_SCRATCH_H
#define LIB_SCRATCH_H

/* For cmocka: a group's set-up and its end, and what takes all files away after a test.
 * In memory, where that is possible: a flush costs nothing there. */
int scratch_enter(void **state);
int scratch_leave(void **state);
int scratch_clear(void **state);
/* Where it is. */
const char *scratch_path(void);

#endif
