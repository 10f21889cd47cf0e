/* Going on from a snapshot: what `bivisor restore` and each copy of `bivisor fork` do. */
#ifndef CTL_THAW_H
#define CTL_THAW_H

struct ctl_front; /* ctl/ctl.h */

/* Runs the machine of the snapshot PATH, whose memory is in the file MEMORY (NULL: where
 * the snapshot says), with the ARGC options ARGV in place of its own
 * of these names, until it ends: the exit status. COPY: where a copy gets the rest from
 * (ctl/copy.h), or -1. FRONT, whose `frozen` is made here, may be NULL. */
int thaw(const char *path, const char *memory, int copy, int argc, char **argv,
         const struct ctl_front *front);

#endif
