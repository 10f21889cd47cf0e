/*
 * The disks' workers: how their completions reach the board.
 *
 * Without virtual time a completion comes on a worker's thread, with the board's lock
 * held. In a counted run a request is executed at once, and delivered by a timer of the
 * virtual clock after DELAY_NS, so that runs repeat; what the host's disk took is not
 * seen.
 *
 * A disk of a server has workers of its own: who waits for a server that has gone keeps
 * no other disk waiting.
 */
#include <errno.h>
#include <stdio.h>

#include "base/os.h"
#include "dev/virtio/blk.h"
#include "machine/machine_int.h"

#define DELAY_NS 20000u /* of virtual time, as a fast disk needs */

static void deliver(void *arg) {
    struct machine *m = arg;

    machine_park(m);
    block_pool_deliver(m->disks, vclock_now(m->clock));
    if (block_pool_next(m->disks) != UINT64_MAX)
        vtimer_arm(m->clock, &m->disks_due, block_pool_next(m->disks));
}

static uint64_t due(void *arg) {
    struct machine *m = arg;
    uint64_t at = vclock_now(m->clock) + DELAY_NS;

    if (!m->disks_due.armed)
        vtimer_arm(m->clock, &m->disks_due, at);
    return at;
}

static int attach(struct machine *m, unsigned n, const struct block_host *host) {
    struct block *b = m->cfg.disks[n].block;
    int sockets[BLOCK_SOCKETS_MAX];
    int rc = block_sockets(b, sockets) ? block_pool_new(host, &m->servers[n]) : 0;

    if (rc)
        return rc;
    block_attach(b, m->servers[n] ? m->servers[n] : m->disks);
    for (unsigned k = 0; k < BLOCK_LIMITS; k++)
        block_limit(b, k, &m->cfg.disks[n].limit[k]);
    return 0;
}

bool machine_disk_limit(struct machine *m, unsigned n, enum block_limit which,
                        const struct rate_limit *l) {
    if (n >= m->cfg.disk_count || m->cfg.counted)
        return false;
    machine_board_enter(m);
    block_limit(m->cfg.disks[n].block, which, l);
    machine_board_leave(m);
    return true;
}

int machine_disk_exchange(struct machine *m, unsigned n, int fd,
                          const struct block_facts *facts, const char *path, char *why,
                          size_t why_size) {
    struct image *old = NULL;
    int rc = -EINVAL;

    if (n >= m->cfg.disk_count || !m->virtio_disks[n] || m->cfg.counted) {
        snprintf(why, why_size, "this disk keeps its file");
        os_socket_close(fd);
        return rc;
    }
    machine_board_enter(m);
    rc = block_exchange(m->cfg.disks[n].block, fd, facts, path, &old, why, why_size);
    if (!rc)
        virtio_blk_exchanged(m->virtio_disks[n]);
    machine_board_leave(m);
    block_put_away(old); /* its disk may take long */
    return rc;
}

int machine_disks_create(struct machine *m) {
    const struct block_host host = {.loop = m->loop,
                                    .enter = machine_guard_enter,
                                    .leave = machine_guard_leave,
                                    .due = m->cfg.counted ? due : NULL,
                                    .arg = m};
    int rc;

    if (!m->cfg.disk_count && !m->cfg.vars.block)
        return 0;
    m->disks_due = (struct vtimer){.fire = deliver, .arg = m};
    rc = block_pool_new(&host, &m->disks);
    for (unsigned n = 0; n < m->cfg.disk_count && !rc; n++)
        rc = attach(m, n, &host);
    if (!rc && m->cfg.vars.block)
        block_attach(m->cfg.vars.block, m->disks);
    return rc;
}

unsigned machine_disks_busy(const struct machine *m) {
    unsigned busy = 0;

    for (unsigned n = 0; n < m->cfg.disk_count; n++)
        if (m->cfg.disks[n].block)
            busy += block_in_flight(m->cfg.disks[n].block);
    if (m->cfg.vars.block)
        busy += block_in_flight(m->cfg.vars.block);
    return busy;
}

/* Workers deliver while the lock is not held; what they deliver may ask for more, as far
 * as the guest has asked. */
bool machine_disks_rest(struct machine *m) {
    for (unsigned patience = 0; patience < 100000; patience++) {
        if (m->disks) /* what was cancelled is delivered by the loop, which is here */
            block_pool_turn(m->disks);
        for (unsigned n = 0; n < m->cfg.disk_count; n++) {
            if (m->cfg.disks[n].block)
                block_hurry(m->cfg.disks[n].block);
        }
        if (!machine_disks_busy(m))
            return true;
        os_sleep_ns(100000);
    }
    return false;
}

void machine_disks_free(struct machine *m) {
    for (unsigned n = 0; n < MACHINE_DISKS; n++) {
        block_pool_free(m->servers[n]);
        m->servers[n] = NULL;
    }
    block_pool_free(m->disks);
    m->disks = NULL;
}
