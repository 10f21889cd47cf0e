/* How far long work is; see progress.h. */
#include "ctl/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "base/os.h"

#define BETWEEN_NS 100000000u

static struct {
    bool shown;
    uint64_t next_ns;
} line;

void progress_show(const char *what, uint64_t done, uint64_t total) {
    uint64_t now = os_monotonic_ns();

    if (now < line.next_ns || !isatty(STDERR_FILENO))
        return;
    line.next_ns = now + BETWEEN_NS;
    line.shown = true;
    fprintf(stderr, "\r\033[K%s", what);
    if (total)
        fprintf(stderr, " %.0f %%",
                done < total ? 100.0 * (double)done / (double)total : 100.0);
    fflush(stderr);
}

void progress_end(void) {
    if (line.shown)
        fputs("\r\033[K", stderr);
    line.shown = false;
    line.next_ns = 0;
}
