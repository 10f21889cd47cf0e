/*
 * Who wakes whom. The alarm's helper thread (base/os_alarm.c) watches the clock's
 * earliest deadline and one descriptor, and takes the boot CPU out of its engine when
 * either is due; quits and reports come from other threads or from signal handlers.
 *
 * Locking: what these share with a CPU's thread is vcpu.events, the engine's kick() and
 * the two words of machine_quit() and machine_report().
 */
#include "base/os.h"
#include "machine/machine_int.h"

/* On the alarm's thread. */
static void alarm_fired(void *arg) {
    machine_cpu_kick(machine_boot_cpu(arg), VCPU_EVENT_KICK);
}

int machine_wake_create(struct machine *m) {
    return os_alarm_new(alarm_fired, m, &m->alarm);
}

void machine_wake_free(struct machine *m) {
    os_alarm_free(m->alarm);
}

void machine_wake_at(struct machine *m, uint64_t ns) {
    os_alarm_deadline(m->alarm, ns);
}

void machine_wake_on(struct machine *m, int fd) {
    os_alarm_watch(m->alarm, fd);
}

void machine_sleep(struct machine_cpu *c) {
    const uint32_t wakes = VCPU_EVENT_KICK | VCPU_EVENT_STOP | VCPU_EVENT_NMI;

    while (!(vcpu_events(c->vcpu) & wakes))
        os_alarm_wait(c->machine->alarm);
}

uint64_t machine_sleep_ns(struct machine *m, int fd, uint64_t ns) {
    return os_alarm_sleep(m->alarm, fd, ns);
}

void machine_quit(struct machine *m) {
    m->quit = true;
    for (unsigned n = 0; n < m->cpus; n++)
        machine_cpu_kick(&m->cpu[n], VCPU_EVENT_STOP | VCPU_EVENT_KICK);
    os_alarm_wake(m->alarm);
}

void machine_report(struct machine *m) {
    __atomic_store_n(&m->report, true, __ATOMIC_RELEASE);
    machine_cpu_kick(machine_boot_cpu(m), VCPU_EVENT_KICK);
    os_alarm_wake(m->alarm);
}
