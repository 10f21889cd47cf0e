/*
 * Direct execution (direct/) needs processes of the host's for its cells; here are none,
 * and the software engine, which asks for it, has none to run (soft.direct is NULL).
 */
#include "base/bug.h"
#include "direct/direct.h"

void direct_sample(struct direct *d) {
    BUG_ON(d);
}

bool direct_wanted(struct direct *d) {
    BUG_ON(d);
    return false;
}

enum direct_out direct_run(struct direct *d) {
    BUG_ON(true);
    return DIRECT_SHUTDOWN;
}

void direct_rest(struct direct *d) {
    BUG_ON(d);
}
