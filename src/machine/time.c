/*
 * Where the virtual clock's time comes from: the host's monotonic clock and TSC or, in a
 * counted run, the guest's instructions (machine/counted.h). The clock asks in the middle
 * of a guest instruction too, so that the vector state is parked first.
 */
#include <errno.h>

#include "base/os.h"
#include "machine/machine_int.h"

static uint64_t host_now(void *arg) {
    struct machine *m = arg;

    machine_park(m);
    return os_monotonic_ns() - m->start_ns;
}

static uint64_t host_ticks(void *arg) {
    struct machine *m = arg;

    machine_park(m);
    return os_tsc() - m->start_tsc;
}

static void host_deadline(void *arg, uint64_t deadline) {
    struct machine *m = arg;

    machine_park(m);
    machine_wake_at(m, deadline < VCLOCK_NEVER - m->start_ns ? deadline + m->start_ns
                                                             : UINT64_MAX);
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

uint64_t machine_insns(const struct machine *m) {
    uint64_t sum = 0;

    for (unsigned n = 0; n < m->cpus; n++)
        sum += m->cpu[n].counters.insns_retired;
    return sum;
}
