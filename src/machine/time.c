/*
 * Where the virtual clock's time comes from: the host's monotonic clock and TSC or, in a
 * counted run, the guest's instructions (machine/counted.h). The clock asks in the middle
 * of a guest instruction too, so that the vector state is parked first. Who asks holds
 * the board's lock.
 *
 * The host's time can be stopped, for as long as the guest is paused: `start_ns` and
 * `start_tsc` then move on by what has passed, so that the guest finds its clock, its TSC
 * and all that is computed from these (kvmclock, timers) where it left them. Counted time
 * stops by itself.
 */
#include <errno.h>

#include "base/os.h"
#include "machine/machine_int.h"

static uint64_t host_now(void *arg) {
    struct machine *m = arg;

    machine_park(m);
    return (m->stopped ? m->stopped_ns : os_monotonic_ns()) - m->start_ns;
}

static uint64_t host_ticks(void *arg) {
    struct machine *m = arg;

    machine_park(m);
    return (m->stopped ? m->stopped_tsc : os_tsc()) - m->start_tsc;
}

static void host_deadline(void *arg, uint64_t deadline) {
    struct machine *m = arg;

    machine_park(m);
    machine_wake_at(m, deadline < VCLOCK_NEVER - m->start_ns ? deadline + m->start_ns
                                                             : UINT64_MAX);
}

void machine_time_stop(struct machine *m) {
    board_enter(&m->board, NULL);
    m->stopped_ns = os_monotonic_ns();
    m->stopped_tsc = os_tsc();
    m->stopped = true;
    board_leave(&m->board);
}

void machine_time_go(struct machine *m) {
    board_enter(&m->board, NULL);
    m->start_ns += os_monotonic_ns() - m->stopped_ns;
    m->start_tsc += os_tsc() - m->stopped_tsc;
    m->stopped = false;
    if (!m->cfg.counted) {
        board_tsc_moved(&m->board);
        host_deadline(m, vclock_next(m->clock));
    }
    board_leave(&m->board);
}

static uint64_t counted_source(void *arg) {
    struct machine *m = arg;

    machine_park(m);
    return counted_now(&m->counted);
}

static void counted_deadline(void *arg, uint64_t deadline) {
    struct machine *m = arg;

    machine_park(m);
    counted_aim(&m->counted);
}

uint64_t machine_counted_realtime(void *arg) {
    struct machine *m = arg;

    machine_park(m);
    return m->cfg.start_ns + counted_now(&m->counted);
}

int machine_time_create(struct machine *m) {
    const struct vclock_source host = {.now_ns = host_now,
                                       .ticks = host_ticks,
                                       .tick_hz = os_tsc_hz(),
                                       .deadline_changed = host_deadline,
                                       .arg = m};
    const struct vclock_source counted = {.now_ns = counted_source,
                                          .ticks = counted_source,
                                          .tick_hz = COUNTED_TSC_HZ,
                                          .deadline_changed = counted_deadline,
                                          .arg = m};

    m->start_ns = os_monotonic_ns();
    m->start_tsc = os_tsc();
    m->clock = vclock_new(m->cfg.counted ? &counted : &host);
    m->counted.clock = m->clock;
    return m->clock ? 0 : -ENOMEM;
}

uint64_t machine_now_ns(const struct machine *m) {
    return counted_now(&m->counted);
}
