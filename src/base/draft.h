/*
 * Files that get their names when they are whole. Until then FILE of a directory is
 * called .FILE.new there, which nobody takes for FILE; a file of that name that is there
 * already is replaced at the end, at once. For processes in a jail: openat(2),
 * unlinkat(2) and renameat2(2) are called, and nothing else.
 */
#ifndef BASE_DRAFT_H
#define BASE_DRAFT_H

#include "base/types.h"

/* A new one in the directory DIR: a descriptor, for reading and writing, or -errno. One
 * that nobody has finished goes. */
int draft_make(int dir, const char *file);
/* The same again, for reading. */
int draft_open(int dir, const char *file);
/* It gets its name. 0 or -errno. */
int draft_keep(int dir, const char *file);
void draft_drop(int dir, const char *file);

#endif
