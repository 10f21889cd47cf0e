/*
 * Work that is done in a process of its own, one after the other: each can go into the
 * jail, which nobody leaves, and the caller stays outside.
 */
#ifndef REPLAY_APART_H
#define REPLAY_APART_H

#include "base/types.h"

/* FN(COPY) in a new process, which ends when we do; COPY is of the SIZE bytes at ARG, and
 * what FN has made of it is in ARG afterwards. 0, -errno, or the exit status of a process
 * that did not return from FN. We die of the signal that it dies of. */
int apart_run(void (*fn)(void *copy), void *arg, size_t size);

#endif
