#include "soft/soft.h"
#include "bt/bt.h"
#include "cpu/smp.h"
#include "direct/direct.h"
#include "interp/interp.h"
#include "sem/sem.h"
#include "tr/key.h"

/* Instructions of 16-bit code, or so, that the interpreter runs before it is asked again.
 */
#define INTERP_SLICE 512

/* What only the interpreter does: traps at every instruction, interrupts. */
static bool needs_care(const struct vcpu *v, uint32_t events) {
    if ((v->rflags & (X86_FL_TF | X86_FL_RF)) || (v->dr[7] & 0xff) || v->irq_shadow ||
        v->pending_db || v->halted)
        return true;
    return ((events & VCPU_EVENT_IRQ) && sem_interruptible(v)) ||
           ((events & VCPU_EVENT_NMI) && !v->nmi_blocked);
}

/* The interpreter executes COUNT instructions. True: the run ends with *OUT. */
static bool interpret(struct soft *s, uint64_t count, enum exit_reason *out) {
    *out = interp_step(s->ip, count);
    return *out != EXIT_kick;
}

static bool translated(struct soft *s, enum exit_reason *out) {
    uint64_t count;

    switch (bt_go(s->bt, &count)) {
    case BT_OUT_INTERPRET:
        return interpret(s, count, out);
    case BT_OUT_SHUTDOWN:
        *out = EXIT_shutdown;
        return true;
    case BT_OUT_EVENTS:
        break;
    }
    return false;
}

/* Steps that the interpreter makes in a page that cells are not to run. */
#define BESIDE 400

/* The interpreter runs what is in this page, for a while; then translated code does. */
static bool beside(struct soft *s, enum exit_reason *out) {
    struct vcpu *v = s->v;
    uint64_t page = v->rip >> 12;

    for (unsigned n = 0; n < BESIDE; n++) {
        if (v->cpl != 3 || v->rip >> 12 != page || vcpu_events(v))
            return false;
        if (interpret(s, 1, out))
            return true;
    }
    direct_rest(s->direct);
    return false;
}

/* User code runs in a cell. True: the run ends with *OUT. */
static bool directly(struct soft *s, enum exit_reason *out) {
    bt_let_go(s->bt);
    switch (direct_run(s->direct)) {
    case DIRECT_INTERPRET:
        return interpret(s, 1, out);
    case DIRECT_TRANSLATE:
        return beside(s, out);
    case DIRECT_SHUTDOWN:
        *out = EXIT_shutdown;
        return true;
    case DIRECT_EVENTS:
        break;
    }
    return false;
}

void soft_cool(struct soft *s, uint64_t count) {
    if (s->cold && !count) /* what was decoded is not wanted any more, nor its traces */
        interp_drop(s->ip);
    s->cold = count;
}

/* True: the run ends with *OUT. */
static bool coldly(struct soft *s, enum exit_reason *out) {
    const uint64_t *retired = &s->v->cnt->insns_retired;
    uint64_t before = *retired, done;

    bt_let_go(s->bt);
    *out = interp_in_mode(s->ip, INTERP_SLICE);
    done = *retired - before;
    if (done < s->cold)
        s->cold -= done ? done : 1;
    else
        soft_cool(s, 0);
    return *out != EXIT_kick;
}

/* Up to the next look at events. True: the run ends with *OUT. */
static bool advance(struct soft *s, enum exit_reason *out) {
    struct vcpu *v = s->v;
    uint32_t events;

    if (unlikely(!bt_ready(s->bt))) {
        *out = EXIT_error;
        return true;
    }
    events = vcpu_events(v);
    if (unlikely(!vcpu_left(v))) {
        vcpu_raise(v, VCPU_EVENT_KICK);
        events |= VCPU_EVENT_KICK;
    }
    if (unlikely(events & VCPU_EVENT_CALL)) {
        bt_serve(s->bt);
        events = vcpu_events(v);
    }
    if (s->direct && events)
        direct_sample(s->direct);
    if (events & VCPU_EVENTS_LEAVE) {
        *out = EXIT_kick;
        return true;
    }
    bt_drop_rf(v);
    if (needs_care(v, events))
        return interpret(s, 1, out);
    if (v->away && direct_wanted(s->direct))
        return directly(s, out);
    if (unlikely(s->cold) && !v->counted && !v->step)
        return coldly(s, out);
    if (!tr_translatable(v)) {
        *out = interp_in_mode(s->ip, INTERP_SLICE);
        return *out != EXIT_kick;
    }
    return translated(s, out);
}

enum exit_reason soft_run(struct soft *s) {
    enum exit_reason out = EXIT_error;

    s->error = bt_begin(s->bt);
    if (s->error)
        return EXIT_error;
    while (!advance(s, &out))
        if (unlikely(s->v->step))
            vcpu_raise(s->v, VCPU_EVENT_KICK);
    bt_end(s->bt);
    return out;
}
