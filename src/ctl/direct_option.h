/* --direct MODE[,SWITCH,...]: what user code runs on this CPU as it is. */
#ifndef CTL_DIRECT_OPTION_H
#define CTL_DIRECT_OPTION_H

#include "machine/machine.h"

/* VALUE is a request for help, which has been printed. */
bool direct_option_help(const char *value);

/* Puts VALUE into CFG, which has its defaults. False: it was wrong, and that is logged.
 */
bool direct_option_parse(const char *value, struct machine_config *cfg);

#endif
