/*
 * Where the virtual clocks' time comes from: the host's monotonic clock and TSC or, in a
 * counted run, the guest's instructions (machine/counted.h). The clocks ask in the
 * middle of a guest instruction too, so that the vector state is parked first.
 *
 * The host's time can be stopped, for as long as the guest is paused: `start_ns` and
 * `start_tsc` then move on by what has passed, so that the guest finds its clock, its TSC
 * and all that is computed from these (kvmclock, timers) where it left them. Counted time
 * stops by itself.
 */
#include <errno.h>

#include "base/os.h"
#include "machine/machine_int.h"

/* --- the host's time --- */

static uint64_t host_ns(const struct machine *m) {
    return (m->stopped ? m->stopped_ns : os_monotonic_ns()) - m->start_ns;
}

static uint64_t host_tsc(const struct machine *m) {
    return (m->stopped ? m->stopped_tsc : os_tsc()) - m->start_tsc;
}

static uint64_t on_host(const struct machine *m, uint64_t deadline) {
    return deadline < VCLOCK_NEVER - m->start_ns ? deadline + m->start_ns : UINT64_MAX;
}

/* The board's clock: its lock is held. */
static uint64_t board_now(void *arg) {
    machine_park(arg);
    return host_ns(arg);
}

static uint64_t board_ticks(void *arg) {
    machine_park(arg);
    return host_tsc(arg);
}

static void board_deadline(void *arg, uint64_t deadline) {
    machine_park(arg);
    machine_wake_at(arg, on_host(arg, deadline));
}

/* A CPU's: on its thread, or while that stands. */
static uint64_t cpu_now(void *arg) {
    struct machine_cpu *c = arg;

    vec_park(c->vcpu);
    return host_ns(c->machine);
}

static uint64_t cpu_ticks(void *arg) {
    struct machine_cpu *c = arg;

    vec_park(c->vcpu);
    return host_tsc(c->machine);
}

static void cpu_deadline(void *arg, uint64_t deadline) {
    struct machine_cpu *c = arg;

    vec_park(c->vcpu);
    machine_cpu_wake_at(c, on_host(c->machine, deadline));
}

void machine_time_stop(struct machine *m) {
    board_enter(&m->board, NULL);
    m->stopped_ns = os_monotonic_ns();
    m->stopped_tsc = os_tsc();
    m->stopped = true;
    board_leave(&m->board);
}

static void set_start(struct machine *m, uint64_t ns, uint64_t tsc) {
    m->start_ns = ns;
    m->start_tsc = tsc;
    m->board.ticks_base = -tsc;
}

void machine_time_set(struct machine *m, uint64_t ns, uint64_t ticks) {
    set_start(m, m->stopped_ns - ns, m->stopped_tsc - ticks);
}

void machine_time_go(struct machine *m) {
    board_enter(&m->board, NULL);
    set_start(m, m->start_ns + (os_monotonic_ns() - m->stopped_ns),
              m->start_tsc + (os_tsc() - m->stopped_tsc));
    m->stopped = false;
    if (!m->cfg.counted) {
        board_tsc_moved(&m->board);
        board_deadline(m, vclock_next(m->clock));
        for (unsigned n = 0; n < m->cpus; n++)
            cpu_deadline(&m->cpu[n], vclock_next(m->cpu[n].clock));
    }
    board_leave(&m->board);
}

/* --- the instructions' --- */

static uint64_t counted_source(void *arg) {
    struct machine *m = arg;

    vec_park(m->counted.vcpu);
    return counted_now(&m->counted);
}

static void counted_deadline(void *arg, uint64_t deadline) {
    struct machine *m = arg;

    vec_park(m->counted.vcpu);
    counted_aim(&m->counted);
}

uint64_t machine_counted_realtime(void *arg) {
    struct machine *m = arg;

    machine_park(m);
    return m->cfg.start_ns + counted_now(&m->counted);
}

/* --- creation --- */

static struct vclock *new_clock(struct machine *m, struct machine_cpu *c) {
    const struct vclock_source board = {.now_ns = board_now,
                                        .ticks = board_ticks,
                                        .tick_hz = os_tsc_hz(),
                                        .deadline_changed = board_deadline,
                                        .arg = m};
    const struct vclock_source cpu = {.now_ns = cpu_now,
                                      .ticks = cpu_ticks,
                                      .tick_hz = os_tsc_hz(),
                                      .deadline_changed = cpu_deadline,
                                      .arg = c};
    const struct vclock_source counted = {.now_ns = counted_source,
                                          .ticks = counted_source,
                                          .tick_hz = COUNTED_TSC_HZ,
                                          .deadline_changed = counted_deadline,
                                          .arg = m};

    return vclock_new(m->cfg.counted ? &counted : c ? &cpu : &board);
}

int machine_time_create(struct machine *m) {
    set_start(m, os_monotonic_ns(), os_tsc());
    m->clock = new_clock(m, NULL);
    if (!m->clock)
        return -ENOMEM;
    for (unsigned n = 0; n < m->cpus; n++) {
        m->cpu[n].clock = new_clock(m, &m->cpu[n]);
        if (!m->cpu[n].clock)
            return -ENOMEM;
    }
    m->counted.clock[0] = m->clock;
    m->counted.clock[1] = machine_boot_cpu(m)->clock;
    return 0;
}

void machine_time_free(struct machine *m) {
    for (unsigned n = 0; n < m->cpus; n++)
        vclock_free(m->cpu[n].clock);
    vclock_free(m->clock);
}

uint64_t machine_now_ns(const struct machine *m) {
    return counted_now(&m->counted);
}
