/*
 * The directory that snapshots of a run are put into (--snapshots DIR).
 *
 * A run that is locked up can open no files. A process that is forked before does it, and
 * hands the descriptors over: new files of that directory, by names that lead nowhere
 * else. A snapshot NAME is two files, NAME and NAME.ram, which get these names when they
 * are whole; or NAME and NAME.ram.zst, which is packed (pack.h).
 */
#ifndef CTL_SNAPSHOTS_H
#define CTL_SNAPSHOTS_H

#include "base/jail.h"
#include "base/types.h"

#define SNAPSHOTS_NAME 64u /* bytes of a name, with its 0 */

struct snapshots;

/* Before the jail, and before there are threads. 0, or -errno with one sentence in WHY.
 */
int snapshots_open(const char *dir, enum jail_want jail, struct snapshots **out,
                   char *why, size_t why_size);
void snapshots_close(struct snapshots *s); /* S may be NULL */
/* The directory: an absolute path. */
const char *snapshots_path(const struct snapshots *s);
/* For the jail: a connected socket (base/os.h). */
int snapshots_socket(const struct snapshots *s);

/* NAME can be one of a snapshot's: letters, digits, '.', '_' and '-', no '.' first. */
bool snapshots_name_good(const char *name);
/* Two files to be written: the state's, the memory's. 0 or -errno. */
int snapshots_begin(struct snapshots *s, const char *name, int fd[2]);
/* They are whole, or to be thrown away. Closes them. 0 or -errno. */
int snapshots_end(struct snapshots *s, const char *name, int fd[2], bool whole);

/* They are whole, and the memory's is to be packed: takes its time. Closes them. 0 or
 * -errno; then nothing else may be asked until snapshots_packed(), which waits for the
 * end of it: 0, or -errno and they are gone. snapshots_socket() is ready to be read when
 * it need not wait. */
int snapshots_pack(struct snapshots *s, const char *name, int fd[2]);
int snapshots_packed(struct snapshots *s);

#endif
