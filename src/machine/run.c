/*
 * The life of a CPU's thread: its engine runs the guest, and between two entries it
 * serves the board, the console and those who call, or sleeps while the guest is halted;
 * until something ends the run. Between two lives it waits for orders, and for calls.
 *
 * machine_run() gives the order and turns the loop meanwhile. The runs that count to an
 * instruction (machine_run_to()) are their caller's: lockstep makes millions of them, and
 * nobody else is there.
 */
#include "base/os.h"
#include "machine/machine_int.h"

/* --- what ends a run --- */

static void on_poweroff(void *arg) {
    machine_park(arg);
    machine_end_life(arg, MACHINE_POWEROFF);
}

static void on_reset(void *arg) {
    machine_park(arg);
    machine_end_life(arg, MACHINE_RESET);
}

static void on_debug_exit(void *arg, uint32_t value) {
    struct machine *m = arg;

    machine_park(m);
    m->exit_value = value;
    machine_end_life(m, MACHINE_DEBUG_EXIT);
}

/* With the gate's position the meaning of every cached translation changes. */
static void on_a20(void *arg, bool on) {
    struct machine *m = arg;

    machine_park(m);
    vcpu_stop(m->group);
    for (unsigned n = 0; n < m->cpus; n++)
        if (m->cpu[n].vcpu->mmu)
            mmu_flush_all(m->cpu[n].vcpu);
    vcpu_go(m->group);
}

struct dev_host machine_dev_host(struct machine *m) {
    return (struct dev_host){.poweroff = on_poweroff,
                             .reset = on_reset,
                             .debug_exit = on_debug_exit,
                             .a20 = on_a20,
                             .arg = m};
}

/* --- the run loop's needs --- */

void machine_service_board(struct machine_cpu *c) {
    struct machine *m = c->machine;

    board_enter(&m->board, c);
    vclock_run(m->clock);
    board_leave(&m->board);
    if (!m->cfg.counted) {
        machine_take_input(c);
        return;
    }
    machine_take_counted_input(c);
    counted_aim(&m->counted);
    if (machine_insns(m) >= m->counted.until || c->vcpu->step)
        machine_end_life(m, MACHINE_PAUSED);
}

static void service(void *arg) {
    struct machine_cpu *c = arg;

    machine_service_board(c);
    machine_write_output(c, false);
    machine_serve(c);
}

static void counted_idle(struct machine_cpu *c) {
    struct machine *m = c->machine;
    uint64_t ns = counted_sleep_ns(&m->counted), passed = ns;

    if (m->cfg.input.host_time)
        passed = machine_sleep_ns(c, ns);
    if (passed == VCLOCK_NEVER) {
        machine_end_life(m, MACHINE_ASLEEP);
        return;
    }
    m->counted.slept += passed;
    if (passed < ns) /* for input */
        m->counted.input_at = counted_now(&m->counted);
    vcpu_raise(c->vcpu, VCPU_EVENT_KICK);
}

/* What the serial port has collected goes to the console. */
static void flush_serial(struct machine_cpu *c) {
    board_enter(c->board, c);
    uart_flush(c->board->uart);
    board_leave(c->board);
}

static void idle(void *arg) {
    struct machine_cpu *c = arg;

    c->counters.halts++;
    flush_serial(c);
    if (c->machine->cfg.counted)
        counted_idle(c);
    else
        machine_sleep(c);
}

/* --- running, on the CPU's thread --- */

static enum machine_end run(struct machine *m) {
    struct machine_cpu *c = machine_boot_cpu(m);
    const struct run_board board = {.service = service, .idle = idle, .arg = c};
    enum run_end end;

    if (__atomic_load_n(&m->quit, __ATOMIC_SEQ_CST))
        return MACHINE_QUIT;
    m->end = MACHINE_QUIT;
    if (!m->cfg.counted || m->paused) /* input is looked for, a pause goes on */
        vcpu_raise(c->vcpu, VCPU_EVENT_KICK);
    end = engine_run_loop(c->ops, c->engine, c->vcpu, &board, &c->exits);
    if (m->end != MACHINE_PAUSED) {
        flush_serial(c);
        machine_write_output(c, true);
    }
    switch (end) {
    case RUN_STOPPED:
        return m->end;
    case RUN_SHUTDOWN:
        return MACHINE_SHUTDOWN;
    default:
        return MACHINE_ERROR;
    }
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

/* --- device code on the loop's thread --- */

void machine_board_enter(struct machine *m) {
    board_enter(&m->board, NULL);
}

void machine_board_leave(struct machine *m) {
    board_leave(&m->board);
}

/* --- the thread --- */

static void live(struct machine *m) {
    m->result = m->cfg.counted ? machine_run_to(m, UINT64_MAX) : run(m);
    os_loop_stop(m->loop);
}

static void cpu_thread(void *arg) {
    struct machine_cpu *c = arg;
    struct machine *m = c->machine;

    for (;;) {
        int order = __atomic_exchange_n(&m->order, MACHINE_REST, __ATOMIC_SEQ_CST);

        if (order == MACHINE_LEAVE)
            return;
        if (order == MACHINE_LIVE) {
            live(m);
            continue;
        }
        machine_answer(c);
        os_bell_wait(c->bell, -1, 0, UINT64_MAX);
    }
}

static void give_order(struct machine *m, int order) {
    __atomic_store_n(&m->order, order, __ATOMIC_SEQ_CST);
    os_bell_ring(machine_boot_cpu(m)->bell);
}

int machine_start_threads(struct machine *m) {
    struct machine_cpu *c = machine_boot_cpu(m);

    return os_thread_start(cpu_thread, c, &c->thread);
}

void machine_end_threads(struct machine *m) {
    if (!m->cpus || !m->cpu[0].thread)
        return;
    give_order(m, MACHINE_LEAVE);
    os_thread_join(m->cpu[0].thread);
}

enum machine_end machine_run(struct machine *m) {
    give_order(m, MACHINE_LIVE);
    os_loop_run(m->loop);
    machine_wake_ended(m);
    return m->result;
}
