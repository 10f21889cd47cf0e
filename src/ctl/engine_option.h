/* The engines' options on a command line, as their tables have them. */
#ifndef CTL_ENGINE_OPTION_H
#define CTL_ENGINE_OPTION_H

#include <getopt.h>

#include "machine/machine.h"

/* Values of getopt_long() from here on are the engines'. */
#define ENGINE_OPTION_FIRST 4096

/* OWN, up to its empty entry, and the engines' options behind it; in memory of its own,
 * until the next call. */
const struct option *engine_option_table(const struct option *own);

/* What getopt_long() found, with its value: onto *O. False after a message. */
bool engine_option_take(struct machine_options *o, int opt, const char *value);

/* Whose it is. */
const struct engine_ops *engine_option_owner(int opt);

/* Help for all of them, or only for engines that can count: lines in two columns. */
void engine_option_help(bool counting);

#endif
