/*
 * The life of a CPU's thread: its engine runs the guest, and between two entries it
 * serves its timers, the console and those who call, or sleeps while its CPU is halted;
 * until something ends the run for all. Between two lives it waits for orders, and for
 * calls.
 *
 * machine_run() gives the order and turns the loop meanwhile. The runs that count to an
 * instruction (machine_run_to()) are their caller's: lockstep makes millions of them, and
 * nobody else is there.
 */
#include "base/os.h"
#include "direct/cell.h"
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
    /* Another CPU may have written one that ended the run already. */
    if (__atomic_load_n(&m->end, __ATOMIC_SEQ_CST) == MACHINE_GOES_ON)
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

static void run_timers(struct vclock *clock) {
    if (vclock_next(clock) != VCLOCK_NEVER)
        vclock_run(clock);
}

/* Memory that shows a snapshot's file is copied when the first program wants a cell
 * (sharing.c). */
static void look_for_cells(struct machine *m) {
    struct machine_sharing *s = &m->sharing;

    if (!s->waits ||
        !__atomic_load_n(&cell_pool_gate(m->cells)->wanted, __ATOMIC_RELAXED))
        return;
    s->waits = false;
    os_timer_set(&s->next, os_monotonic_ns());
}

static void keep(struct machine *m) {
    const struct machine_marks *marks = &m->cfg.marks;

    m->counted.keep = machine_insns(m) + marks->every;
    marks->reached(marks->arg);
}

void machine_service_board(struct machine_cpu *c) {
    struct machine *m = c->machine;

    run_timers(c->clock);
    if (c->steal)
        steal_update(c->steal);
    if (c != machine_boot_cpu(m))
        return;
    board_enter(&m->board, c);
    run_timers(m->clock);
    board_leave(&m->board);
    if (!m->cfg.counted) {
        look_for_cells(m);
        machine_take_input(c);
        return;
    }
    machine_take_counted_input(c);
    if (machine_insns(m) >= m->counted.mark)
        m->checkpoints.reached(m);
    if (machine_insns(m) >= m->counted.keep)
        keep(m);
    counted_aim(&m->counted);
    if (machine_insns(m) >= m->counted.reached)
        machine_debug_reached(c);
    if (machine_insns(m) >= m->counted.until || c->vcpu->step)
        machine_end_life(m, MACHINE_PAUSED);
}

static void service(void *arg) {
    struct machine_cpu *c = arg;

    machine_service_board(c);
    if (c->machine->cfg.counted)
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

/* What the serial ports have collected goes to their far ends. */
static void flush_serial(struct machine_cpu *c) {
    board_enter(c->board, c);
    for (unsigned n = 0; n < BOARD_SERIALS && c->board->uart[n]; n++)
        uart_flush(c->board->uart[n]);
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

/* Until the end of the life, which it may be the first to see. */
static void run(struct machine_cpu *c) {
    struct machine *m = c->machine;
    const struct run_board board = {.service = service,
                                    .idle = idle,
                                    .step = machine_debug_step,
                                    .stopped = machine_debug_stopped,
                                    .arg = c};

    if (__atomic_load_n(&m->quit, __ATOMIC_SEQ_CST))
        return;
    /* Input is looked for, a pause goes on, a CPU waits for its SIPI. */
    if (!m->cfg.counted || m->paused || c->waiting || c->held)
        vcpu_raise(c->vcpu, VCPU_EVENT_KICK);
    switch (engine_run_loop(c->ops, c->engine, c->vcpu, &board, &c->exits)) {
    case RUN_STOPPED:
        break;
    case RUN_SHUTDOWN:
        machine_end_life(m, MACHINE_SHUTDOWN);
        break;
    default:
        machine_end_life(m, MACHINE_ERROR);
    }
}

/* What C is the last to have run has ended: how. */
static enum machine_end finish(struct machine_cpu *c) {
    int end = __atomic_load_n(&c->machine->end, __ATOMIC_SEQ_CST);

    if (end != MACHINE_PAUSED) {
        flush_serial(c);
        machine_write_rest(c);
    }
    if (end == MACHINE_GOES_ON)
        return MACHINE_QUIT;
    return (enum machine_end)end;
}

enum machine_end machine_run_to(struct machine *m, uint64_t insns) {
    struct machine_cpu *c = machine_boot_cpu(m);
    enum machine_end end;

    if (insns <= machine_insns(m))
        return MACHINE_PAUSED;
    m->counted.until = insns;
    if (m->cfg.marks.every && m->counted.keep == UINT64_MAX)
        m->counted.keep = machine_insns(m) + m->cfg.marks.every;
    if (m->cfg.input.next && m->counted.input_at == VCLOCK_NEVER)
        m->counted.input_at = m->cfg.input.next(m->cfg.input.arg, machine_now_ns(m));
    counted_aim(&m->counted);
    m->end = MACHINE_GOES_ON;
    run(c);
    end = finish(c);
    if (end == MACHINE_PAUSED)
        vcpu_clear(c->vcpu, VCPU_EVENT_STOP);
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

/* --- the threads --- */

/* The last one ends the loop's turn. */
static void live(struct machine_cpu *c) {
    struct machine *m = c->machine;

    if (m->cfg.counted)
        m->result = machine_run_to(m, UINT64_MAX);
    else
        run(c);
    if (__atomic_sub_fetch(&m->living, 1, __ATOMIC_SEQ_CST))
        return;
    if (!m->cfg.counted)
        m->result = finish(c);
    os_loop_stop(m->loop);
}

static void cpu_thread(void *arg) {
    struct machine_cpu *c = arg;

    for (;;) {
        machine_answer(c);
        switch (__atomic_exchange_n(&c->order, MACHINE_REST, __ATOMIC_SEQ_CST)) {
        case MACHINE_LEAVE:
            return;
        case MACHINE_LIVE:
            live(c);
            break;
        default:
            os_bell_wait(c->bell, -1, 0, UINT64_MAX);
        }
    }
}

static void give_order(struct machine *m, enum machine_order order) {
    for (unsigned n = 0; n < m->cpus; n++) {
        if (!m->cpu[n].thread)
            continue;
        __atomic_store_n(&m->cpu[n].order, order, __ATOMIC_SEQ_CST);
        os_bell_ring(m->cpu[n].bell);
    }
}

static int start_thread(struct machine_cpu *c) {
    int rc = os_thread_start(OS_THREAD_CPU, cpu_thread, c, &c->thread);

    c->waits = -1;
    if (rc || !c->steal)
        return rc;
    c->waits = os_thread_waits_open(c->thread);
    return c->waits < 0 ? c->waits : 0;
}

int machine_start_threads(struct machine *m) {
    int rc = 0;

    for (unsigned n = 0; n < m->cpus && !rc; n++)
        rc = start_thread(&m->cpu[n]);
    return rc;
}

void machine_end_threads(struct machine *m) {
    give_order(m, MACHINE_LEAVE);
    for (unsigned n = 0; n < m->cpus; n++)
        os_thread_join(m->cpu[n].thread);
    for (unsigned n = 0; n < m->cpus; n++)
        if (m->cpu[n].thread)
            os_thread_waits_close(m->cpu[n].waits);
}

enum machine_end machine_run(struct machine *m) {
    m->end = MACHINE_GOES_ON;
    m->living = m->cpus;
    give_order(m, MACHINE_LIVE);
    os_loop_run(m->loop);
    machine_wake_ended(m);
    return m->result;
}
