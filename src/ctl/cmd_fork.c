/* `bivisor fork`: copies of a machine that runs, each a process and a machine with a name
 * of its own (ctl/copying.h). */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/types.h"
#include "ctl/ask.h"
#include "ctl/copying.h"
#include "ctl/ctl.h"
#include "ctl/runtime.h"

struct fork_order {
    struct ask_machine m;
    struct copying c;
    bool waits; /* prepared, until somebody says so */
};

static void print_help(void) {
    printf("usage: bivisor fork [--wait] [--times] NAME COPY... [-- OPTION...]\n"
           "\n"
           "Makes machines called COPY that go on where NAME is now, in the background. "
           "NAME\n"
           "goes on, too. It has been started with --snapshots DIR, where its state and "
           "memory\n"
           "are put meanwhile. OPTIONs are as for `bivisor restore`: what the copies "
           "cannot\n"
           "share with NAME (a disk that is written to, a port of this host) has to be\n"
           "replaced. Where --net has mac=, or --vsock a CID, these count up from copy "
           "to copy.\n"
           "\n"
           "NAME is what its `bivisor run` has by --name, or --control PATH.\n"
           "--wait   says 'prepared' when all copies are, and goes on with them when a "
           "line\n"
           "         comes at standard input: that takes a few milliseconds\n"
           "--times  says how many, of each copy, from the request on until it runs\n"
           "\n"
           "exit status: 0; 1 when not all copies run\n"
           "\n"
           "example: bivisor fork web web1 web2 -- --net user\n");
}

/* Takes the options of our own: how many words. */
static int take_flags(int argc, char **argv, struct fork_order *o) {
    int n = 0;

    for (; n < argc; n++) {
        if (!strcmp(argv[n], "--wait"))
            o->waits = true;
        else if (!strcmp(argv[n], "--times"))
            o->c.times = true;
        else
            break;
    }
    return n;
}

/* False after a message. */
static bool take(int argc, char **argv, struct fork_order *o) {
    int flags = take_flags(argc - 1, argv + 1, o), words;

    argc -= 1 + flags;
    argv += 1 + flags;
    words = ask_take_machine("fork", argc, argv, &o->m);
    if (words < 0)
        return false;
    for (; words < argc && strcmp(argv[words], "--") != 0; words++) {
        if (o->c.count == COPYING_MAX || !runtime_check_name(argv[words]))
            break;
        o->c.copy[o->c.count++] = (struct copy){.name = argv[words], .socket = -1};
    }
    if (words < argc && strcmp(argv[words], "--") != 0 && o->c.count < COPYING_MAX)
        return false; /* no name, which has been said */
    if (!o->c.count || (words < argc && strcmp(argv[words], "--") != 0)) {
        log_error("fork wants a machine and names for its copies, at most %d",
                  COPYING_MAX);
        return false;
    }
    o->c.option = argv + words + (words < argc);
    o->c.options = argc - words - (words < argc);
    return true;
}

static void wait_for_word(void) {
    char c;

    printf("prepared\n");
    fflush(stdout);
    while (read(STDIN_FILENO, &c, 1) == 1 && c != '\n')
        ;
}

int ctl_cmd_fork(int argc, char **argv) {
    static struct fork_order o;
    int good;

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        print_help();
        return CTL_OK;
    }
    if (!take(argc, argv, &o))
        return CTL_USAGE;
    o.c.fd = ask_connect(&o.m, 0);
    if (o.c.fd < 0)
        return CTL_HOST_FAILURE;
    if (o.waits)
        o.c.prepared = wait_for_word;
    good = copying_run(&o.c);
    close(o.c.fd);
    return good == o.c.count ? CTL_OK : CTL_HOST_FAILURE;
}
