/* Processes that open discs; see gates.h. */
#include "ctl/gates.h"

#include <string.h>

#include "api/gate.h"
#include "base/log.h"

static int pass_to(void *arg, int fd) {
    return gate_pass(arg, fd);
}

int gates_open(struct gates *g, const struct machine_config *cfg,
               struct control *const control[CONTROL_SPEECHES]) {
    int rc = 0;

    if (cfg->counted || machine_config_cdrom(cfg, 0) < 0)
        return 0;
    for (unsigned n = 0; n < CONTROL_SPEECHES && !rc; n++) {
        if (!control[n])
            continue;
        rc = gate_open_control(n, control_socket(control[n]), &g->gate[n]);
        if (!rc)
            control_pass(control[n], pass_to, g->gate[n]);
    }
    if (rc)
        log_error("cannot make the process that opens discs: %s", strerror(-rc));
    return rc;
}

unsigned gates_list(const struct gates *g, int *out) {
    unsigned count = 0;

    for (unsigned n = 0; n < CONTROL_SPEECHES; n++)
        if (g->gate[n])
            out[count++] = gate_socket(g->gate[n]);
    return count;
}

bool gates_settle(const struct gates *g) {
    for (unsigned n = 0; n < CONTROL_SPEECHES; n++)
        if (g->gate[n] && !gate_settle(g->gate[n])) {
            log_error("the process that opens discs has ended");
            return false;
        }
    return true;
}

void gates_close(struct gates *g) {
    for (unsigned n = 0; n < CONTROL_SPEECHES; n++) {
        gate_close(g->gate[n]);
        g->gate[n] = NULL;
    }
}
