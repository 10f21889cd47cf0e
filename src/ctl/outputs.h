/*
 * The files that a run writes: statistics, a recording, names for perf. All are opened
 * before the run: the jail lets nothing be opened in it, and figures would be lost if
 * that failed after it. (Those of --console are opened by stream/.)
 *
 * None of them destroys what is not meant: not a file that the run reads, or that another
 * of them is; not through a symbolic link to a file, which anyone may have put there.
 */
#ifndef CTL_OUTPUTS_H
#define CTL_OUTPUTS_H

#include "base/output.h"
#include "ctl/run_options.h"

struct outputs {
    struct output stats;  /* --stats */
    struct output now;    /* FILE.now, or standard error: statistics at SIGUSR1 */
    struct output record; /* --record */
    struct output map;    /* --perf-map */
};

/* Before streams are opened, which empties their files: none of these is a file that
 * outputs_open() would find taken. False after a message. */
bool outputs_spare(const struct run_options *o);
/* Opens what O asks for; -1, or the exit status after a message. FILE.now may be missing
 * (output.error). A recording that is there already stays as it is until it is begun. */
int outputs_open(struct outputs *out, const struct run_options *o);
/* False after a message: something did not reach its file. */
bool outputs_close(struct outputs *out);

#endif
