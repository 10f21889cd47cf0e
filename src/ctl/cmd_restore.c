/* `bivisor restore`: a run that goes on where a snapshot of another was made. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "ctl/copying.h"
#include "ctl/ctl.h"
#include "ctl/thaw.h"

static void print_help(void) {
    printf("usage: bivisor restore FILE [OPTION...]\n"
           "\n"
           "Goes on with the machine of the snapshot FILE, which the command `snapshot` "
           "of a\n"
           "run's control socket made (docs/snapshot.md). FILE.ram is its memory: it is "
           "read as\n"
           "the guest wants it, and must stay as it is meanwhile.\n"
           "\n"
           "The snapshot has the options that say what the machine is; --disk, --net, "
           "--console\n"
           "and others that are given here take the place of all of its own of that "
           "name. The\n"
           "others are as for `bivisor run`: `bivisor run --help`.\n"
           "\n"
           "example: bivisor restore snapshots/booted --engine bt\n");
}

int ctl_cmd_restore(int argc, char **argv) {
    const struct ctl_front front = {.copies = copying_for_api};

    if (argc < 2 || !strcmp(argv[1], "--help")) {
        print_help();
        return argc < 2 ? CTL_USAGE : CTL_OK;
    }
    if (argv[1][0] == '-') {
        log_error("the snapshot's file comes first; `bivisor restore --help` tells more");
        return CTL_USAGE;
    }
    return thaw(argv[1], NULL, -1, argc - 2, argv + 2, &front);
}
