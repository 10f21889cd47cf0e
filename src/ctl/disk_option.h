/* --disk and --cdrom: what they ask for, and opening it. */
#ifndef CTL_DISK_OPTION_H
#define CTL_DISK_OPTION_H

#include "block/block.h"
#include "machine/machine.h"

struct disk_options {
    struct disk_option {
        struct block_spec spec; /* its strings are `text`'s */
        enum machine_disk_kind kind;
        struct rate_limit limit[BLOCK_LIMITS];
        char *text;
    } disk[MACHINE_DISKS];
    unsigned count;
};

/* Takes the value of --disk: FILE[,NAME[=VALUE]...]; ",," is a comma in FILE. False after
 * a message. */
bool disk_option_take(struct disk_options *o, const char *value);
/* Takes the value of --cdrom, a file. */
bool disk_option_take_cdrom(struct disk_options *o, const char *value);
void disk_options_free(struct disk_options *o);

/* The file that the guest's writes go to instead; NULL: there is none. */
const char *disk_option_overlay(const struct disk_option *d);

/* What OPTION, which repeats a run, needs: no disk that the run changes. False after a
 * message. */
bool disk_options_repeat(const struct disk_options *o, const char *option);

/* Opens them all, into the configuration. 0, or -errno after a message. */
int disk_options_open(const struct disk_options *o, enum jail_want jail,
                      struct machine_config *cfg);
/* False after a message: not everything could be written back. */
bool disk_options_close(struct machine_config *cfg);

/* `--disk help`: prints what there is to say, and returns true. */
bool disk_option_help(const char *value);

#endif
