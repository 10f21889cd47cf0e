/*
 * How much of the host's CPUs a machine may use: a bucket of CPU time, which fills at the
 * rate that is allowed and holds a tenth of a second's worth. When it is empty the guest
 * stands, as in a pause but with its clocks going on, until it is not.
 *
 * What counts is the time of all of the process's threads, so that translating and
 * devices are paid for by the guest that wants them, and of the cells that user code runs
 * in directly. What the loop uses while the guest stands is owed.
 *
 * All of it is the loop's thread's.
 */
#include "base/os.h"
#include "direct/cell.h"
#include "machine/machine_int.h"

#define LOOK_NS 10000000u /* between two looks at a guest that runs */
#define STAND_MOST                                                                       \
    100000000 /* a stop is no longer, so that a higher quota is soon seen */

static uint64_t used_ns(const struct machine *m) {
    return os_process_cpu_ns(0) + (m->cells ? cell_pool_cpu_ns(m->cells) : 0);
}

static void look_again(struct machine *m, uint64_t in_ns) {
    os_timer_set(&m->quota.look, os_monotonic_ns() + in_ns);
}

/* What has come into the bucket, and gone out of it, since the last look. */
static void settle(struct machine *m) {
    struct machine_quota *q = &m->quota;
    uint64_t now = os_monotonic_ns(), used = used_ns(m);
    double rate = q->percent / 100.0, most = rate * 1e8;

    q->tokens += (double)(now - q->seen_ns) * rate - (double)(used - q->used_ns);
    if (q->tokens > most)
        q->tokens = most;
    q->seen_ns = now;
    q->used_ns = used;
}

static void look(void *arg) {
    struct machine *m = arg;
    struct machine_quota *q = &m->quota;
    double wait;

    if (!q->percent)
        return;
    settle(m);
    if (q->tokens >= 0) {
        machine_resume_for(m, PAUSED_BY_QUOTA);
        look_again(m, LOOK_NS);
        return;
    }
    machine_pause_for(m, PAUSED_BY_QUOTA);
    wait = -q->tokens * 100.0 / q->percent;
    look_again(m, wait < STAND_MOST ? (uint64_t)wait + 1000000 : STAND_MOST);
}

int machine_quota_create(struct machine *m) {
    int rc = os_timer_open(&m->quota.look, m->loop, look, m);

    if (!rc && m->cfg.cpu_quota)
        machine_quota_set(m, m->cfg.cpu_quota);
    return rc;
}

void machine_quota_free(struct machine *m) {
    os_timer_close(&m->quota.look);
}

void machine_quota_set(struct machine *m, unsigned percent) {
    struct machine_quota *q = &m->quota;

    if (!percent && m->paused & PAUSED_BY_QUOTA)
        machine_resume_for(m, PAUSED_BY_QUOTA);
    if (!q->percent)
        *q = (struct machine_quota){
            .look = q->look, .seen_ns = os_monotonic_ns(), .used_ns = used_ns(m)};
    q->percent = percent;
    if (percent)
        look_again(m, LOOK_NS);
}

unsigned machine_quota(const struct machine *m) {
    return m->quota.percent;
}
