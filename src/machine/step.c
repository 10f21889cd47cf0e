/*
 * Single steps of a guest that is paused.
 *
 * A step is what the CPU does from one instruction boundary to the next: it takes the
 * interrupt that is due, if there is one, and then executes one instruction; or a piece
 * of a repeated string instruction, up to where that could be interrupted; or delivers
 * the fault that the instruction raises, and retires nothing. The guest's time goes on
 * for as long as the steps take, so that what is due comes due between them.
 *
 * All engines step by the interpreter, whose state is theirs between two entries.
 */
#include "cpu/smp.h"
#include "machine/machine_int.h"

/* How often a step may be kept from beginning by what is due. */
#define TRIES 64

struct steps {
    struct machine *m;
    uint64_t count;
    struct machine_steps *out;
};

/* A triple fault ends the life, as it does in the run loop. */
static void end_of(struct machine *m, enum exit_reason reason) {
    if (reason == EXIT_shutdown)
        machine_end_life(m, MACHINE_SHUTDOWN);
    else if (reason == EXIT_error)
        machine_end_life(m, MACHINE_ERROR);
}

static bool over(const struct machine_cpu *c) {
    return vcpu_events(c->vcpu) & VCPU_EVENT_STOP;
}

static void service_if_asked(struct machine_cpu *c) {
    if (!(vcpu_events(c->vcpu) & VCPU_EVENT_KICK))
        return;
    vcpu_clear(c->vcpu, VCPU_EVENT_KICK);
    machine_service_board(c);
}

/* False: the guest is halted, waits for its reader (in a counted run), or its life has
 * ended. */
static bool step_once(struct machine_cpu *c) {
    uint64_t rip = c->vcpu->rip, retired = c->counters.insns_retired;
    enum exit_reason reason;

    for (unsigned n = 0; n < TRIES && !over(c); n++) {
        service_if_asked(c);
        if (c->machine->cfg.counted && !machine_write_some(c))
            return false;
        vcpu_enter(c->vcpu);
        reason = c->ops->step(c->engine);
        vcpu_leave(c->vcpu);
        end_of(c->machine, reason);
        if (reason != EXIT_kick)
            return false;
        if (c->vcpu->rip != rip || c->counters.insns_retired != retired ||
            !(vcpu_events(c->vcpu) & VCPU_EVENT_KICK))
            break;
    }
    return !over(c);
}

static void step_here(void *arg) {
    struct steps *s = arg;
    struct machine *m = s->m;
    struct machine_cpu *c = machine_boot_cpu(m);
    uint64_t before = c->counters.insns_retired;

    *s->out = (struct machine_steps){0};
    if (!machine_paused(m))
        return;
    machine_time_go(m);
    machine_service_board(c);
    while (s->out->steps < s->count && step_once(c))
        s->out->steps++;
    machine_time_stop(m);
    s->out->insns = c->counters.insns_retired - before;
    s->out->halted = c->vcpu->halted;
    s->out->waits = !machine_write_some(c);
    s->out->ended = over(c);
    s->out->rip = c->vcpu->rip;
}

void machine_step(struct machine *m, uint64_t count, struct machine_steps *out) {
    struct steps s = {m, count, out};

    machine_pause(m);
    machine_call(m, step_here, &s);
}
