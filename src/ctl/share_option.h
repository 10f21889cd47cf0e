/* --share: directories that the guest mounts. */
#ifndef CTL_SHARE_OPTION_H
#define CTL_SHARE_OPTION_H

#include "base/jail.h"
#include "machine/machine.h"
#include "share/share.h"

struct share_options {
    struct share_option {
        char *text; /* TAG and DIR are of it */
        const char *tag, *dir;
        bool readonly;
        enum share_protocol protocol;
        unsigned valid; /* share_config's */
    } share[MACHINE_SHARES];
    unsigned count;
};

/* `--share help`: prints what there is to say, and returns true. */
bool share_option_help(const char *value);
/* Takes TAG=DIR[,readonly][,type=9p|fs][,valid=SECONDS]. False after a message. */
bool share_option_take(struct share_options *o, const char *value);
void share_options_free(struct share_options *o);

/* Opens them all, into the configuration: makes processes, and is therefore before there
 * are threads. 0, or -errno after a message. */
int share_options_open(const struct share_options *o, enum jail_want jail,
                       struct machine_config *cfg);
void share_options_close(struct machine_config *cfg);

#endif
