/* The end of a run that should not have ended so: say where, show the VM, abort. */
#include "base/bug.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/os.h"

static void (*dump_fn)(void *arg);
static void *dump_arg;

void bug_set_dump(void (*fn)(void *arg), void *arg) {
    dump_fn = fn;
    dump_arg = arg;
}

void bug_die(const char *file, int line, const char *what) {
    void (*fn)(void *arg) = dump_fn;

    os_tty_restore();
    log_error("bug at %s:%d: %s", file, line, what);
    dump_fn = NULL; /* a bug inside the dump must not come back here */
    if (fn)
        fn(dump_arg);
    abort();
}
