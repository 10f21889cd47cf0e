/*
 * A machine that goes on from a snapshot has memory that shows the snapshot's file, which
 * cells cannot map. When a program is first found that would run in a cell, memory is
 * copied to where they can: bit by bit while the guest runs, and what it has written to
 * since while it stands for a moment (mem/share.c). Until then no cell runs. Who never
 * computes never pays for it.
 *
 * Where that does not work no cell ever runs.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/os.h"
#include "direct/cell.h"
#include "machine/machine_int.h"
#include "mem/share.h"

#define BETWEEN_NS 500000u /* two pieces of 1 MiB: others use the host, too */

static int finish(struct machine *m) {
    int rc = -EBUSY;

    machine_pause_for(m, PAUSED_BY_SHARING);
    if (machine_disks_rest(m)) {
        machine_board_enter(m);
        rc = mem_share_finish(m->mem);
        machine_board_leave(m);
    }
    if (!rc)
        cell_pool_gate(m->cells)->closed = false;
    machine_resume_for(m, PAUSED_BY_SHARING);
    return rc;
}

static void step(void *arg) {
    struct machine *m = arg;
    int rc = mem_share_part(m->mem, &m->sharing.at);

    if (rc > 0) {
        os_timer_set(&m->sharing.next, os_monotonic_ns() + BETWEEN_NS);
        return;
    }
    if (!rc)
        rc = finish(m);
    if (rc)
        log_info("nothing is run directly: %s", strerror(-rc));
}

int machine_sharing_begin(struct machine *m) {
    struct machine_sharing *s = &m->sharing;
    int rc = mem_share_begin(m->mem);

    cell_pool_gate(m->cells)->closed = true;
    if (!rc)
        rc = os_timer_open(&s->next, m->loop, step, m);
    s->waits = !rc;
    return rc;
}

void machine_sharing_end(struct machine *m) {
    os_timer_close(&m->sharing.next);
    if (m->mem)
        mem_share_drop(m->mem);
}
