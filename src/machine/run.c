/*
 * The life of a CPU's thread: its engine runs the guest, and between two entries it
 * serves the board, or sleeps while the guest is halted; until something ends the run.
 */
#include "machine/machine_int.h"

/* --- what ends a run --- */

void machine_end_life(struct machine *m, enum machine_end end) {
    machine_park(m);
    if (vcpu_events(machine_boot_cpu(m)->vcpu) & VCPU_EVENT_STOP)
        return;
    m->end = end;
    for (unsigned n = 0; n < m->cpus; n++)
        vcpu_raise(m->cpu[n].vcpu, VCPU_EVENT_STOP);
}

static void on_poweroff(void *arg) {
    machine_end_life(arg, MACHINE_POWEROFF);
}

static void on_reset(void *arg) {
    machine_end_life(arg, MACHINE_RESET);
}

static void on_debug_exit(void *arg, uint32_t value) {
    struct machine *m = arg;

    m->exit_value = value;
    machine_end_life(m, MACHINE_DEBUG_EXIT);
}

/* With the gate's position the meaning of every cached translation changes. */
static void on_a20(void *arg, bool on) {
    struct machine *m = arg;

    machine_park(m);
    for (unsigned n = 0; n < m->cpus; n++)
        if (m->cpu[n].vcpu->mmu)
            mmu_flush_all(m->cpu[n].vcpu);
}

struct dev_host machine_dev_host(struct machine *m) {
    return (struct dev_host){.poweroff = on_poweroff,
                             .reset = on_reset,
                             .debug_exit = on_debug_exit,
                             .a20 = on_a20,
                             .arg = m};
}

/* --- the run loop's needs --- */

static void report_if_asked(struct machine *m) {
    if (__atomic_exchange_n(&m->report, false, __ATOMIC_ACQ_REL) && m->cfg.report)
        m->cfg.report(m->cfg.report_arg, m);
}

static void service(void *arg) {
    struct machine *m = ((struct machine_cpu *)arg)->machine;

    vclock_run(m->clock);
    machine_take_input(m);
    report_if_asked(m);
}

static void counted_service(void *arg) {
    struct machine_cpu *c = arg;
    struct machine *m = c->machine;

    vclock_run(m->clock);
    machine_watch_commands(m);
    machine_take_counted_input(m);
    report_if_asked(m);
    counted_aim(&m->counted);
    if (machine_insns(m) >= m->counted.until || c->vcpu->step)
        machine_end_life(m, MACHINE_PAUSED);
}

static void counted_idle(struct machine_cpu *c) {
    struct machine *m = c->machine;
    const struct machine_input *in = &m->cfg.input;
    uint64_t ns = counted_sleep_ns(&m->counted), passed = ns;

    if (in->sleep_fd)
        passed = machine_sleep_ns(m, in->sleep_fd(in->arg), ns);
    if (passed == VCLOCK_NEVER) {
        machine_end_life(m, MACHINE_ASLEEP);
        return;
    }
    m->counted.slept += passed;
    if (passed < ns) /* for input */
        m->counted.input_at = counted_now(&m->counted);
    vcpu_raise(c->vcpu, VCPU_EVENT_KICK);
}

static void idle(void *arg) {
    struct machine_cpu *c = arg;

    c->counters.halts++;
    uart_flush(c->machine->board.uart);
    if (c->machine->cfg.counted)
        counted_idle(c);
    else
        machine_sleep(c);
}

/* --- running --- */

/* On the CPU's own thread. */
static enum run_end run_cpu(struct machine_cpu *c) {
    struct run_board board = {.service =
                                  c->machine->cfg.counted ? counted_service : service,
                              .idle = idle,
                              .arg = c};

    return engine_run_loop(c->ops, c->engine, c->vcpu, &board, &c->exits);
}

static enum machine_end run(struct machine *m) {
    enum run_end end;

    if (m->quit)
        return MACHINE_QUIT;
    m->end = MACHINE_QUIT;
    machine_watch_console(m);
    end = run_cpu(machine_boot_cpu(m));
    if (m->end != MACHINE_PAUSED)
        uart_flush(m->board.uart);
    switch (end) {
    case RUN_STOPPED:
        return m->end;
    case RUN_SHUTDOWN:
        return MACHINE_SHUTDOWN;
    default:
        return MACHINE_ERROR;
    }
}

enum machine_end machine_run(struct machine *m) {
    if (!m->cfg.counted)
        return run(m);
    return machine_run_to(m, UINT64_MAX);
}

enum machine_end machine_run_to(struct machine *m, uint64_t insns) {
    enum machine_end end;

    if (insns <= machine_insns(m))
        return MACHINE_PAUSED;
    m->counted.until = insns;
    if (m->cfg.input.next && m->counted.input_at == VCLOCK_NEVER)
        m->counted.input_at = m->cfg.input.next(m->cfg.input.arg, machine_now_ns(m));
    counted_aim(&m->counted);
    end = run(m);
    for (unsigned n = 0; end == MACHINE_PAUSED && n < m->cpus; n++)
        vcpu_clear(m->cpu[n].vcpu, VCPU_EVENT_STOP);
    return end;
}

enum machine_end machine_run_fragment(struct machine *m, uint64_t insns) {
    struct vcpu *v = m->counted.vcpu;
    enum machine_end end;

    v->step = true;
    end = machine_run_to(m, insns);
    v->step = false;
    return end;
}
