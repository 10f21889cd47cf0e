/*
 * Which machine of several that were one it is: see dev/pc/vmgenid.h. A counted run has
 * always the same, since what it reads must not be chance.
 */
#include "machine/machine_int.h"

#include "base/os.h"

static void choose(struct machine *m) {
    uint64_t id[2] = {1, 0};

    if (!m->cfg.counted && os_random(id, sizeof(id)) != sizeof(id))
        id[1] ^=
            os_realtime_ns(); /* a host without random numbers: better than the same */
    vmgenid_set(m->board.vmgenid, id);
}

void machine_generation_begin(struct machine *m) {
    choose(m);
}

void machine_generation_next(struct machine *m) {
    machine_board_enter(m);
    choose(m);
    pm_event(m->board.pm, PM_GPE_GENERATION);
    machine_board_leave(m);
}
