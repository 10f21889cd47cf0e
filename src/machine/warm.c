/*
 * Warm code: what the snapshot that a machine goes on from says was hot is made ready
 * while its boot CPU has nothing else to do, before the guest comes to it (bt/warm.c has
 * what that is).
 *
 * By that CPU's own thread, a piece at a time, and not by another: who makes code has the
 * lock of page traces, and a guest that runs wants it all the time, so that two take
 * longer than one where the host's CPUs are busy.
 */
#include "machine/machine_int.h"
#include "snapshot/snapshot.h"

static void state(void *arg, struct snapshot *s) {
    const struct machine_cpu *c = machine_boot_cpu(arg);

    c->ops->warm_state(c->engine, s);
}

static bool gets_warm(struct machine *m) {
    return !m->cfg.counted && machine_boot_cpu(m)->ops->warm_up;
}

void machine_warm_note(struct machine *m) {
    const struct machine_cpu *c = machine_boot_cpu(m);

    if (!gets_warm(m))
        return;
    c->ops->warm_note(c->engine);
    m->warm.noted = true;
}

void machine_warm_record(struct machine *m, struct snapshot *s) {
    if (m->warm.noted)
        snapshot_optional(s, "warm", 0, 1, state, m);
    m->warm.noted = false;
}

bool machine_warm_begin(struct machine *m, struct snapshot *s) {
    for (unsigned n = 0; n < m->cpus; n++)
        if (m->cpu[n].ops->cool)
            m->cpu[n].ops->cool(m->cpu[n].engine);
    if (!gets_warm(m))
        return true;
    snapshot_optional(s, "warm", 0, 1, state, m);
    m->warm.left = snapshot_good(s);
    return snapshot_good(s);
}

bool machine_warm_up(struct machine_cpu *c) {
    struct machine_warm *w = &c->machine->warm;

    if (c != machine_boot_cpu(c->machine) || !w->left)
        return false;
    w->left = c->ops->warm_up(c->engine);
    return w->left;
}
