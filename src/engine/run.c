/* The vCPU run loop; see run.h. Runs on the vCPU's thread, which owns the whole board. */
#include "engine/run.h"

#include "base/bug.h"
#include "cpu/smp.h"

enum run_end engine_run_loop(const struct engine_ops *ops, struct engine *e,
                             struct vcpu *v, const struct run_board *board,
                             struct exit_counts *counts) {
    for (;;) {
        uint32_t events = vcpu_events(v);
        enum exit_reason reason;

        if (events & VCPU_EVENT_ACTION) {
            vcpu_act(v);
            continue;
        }
        if (events & VCPU_EVENT_CALL)
            vcpu_clear(v, VCPU_EVENT_CALL); /* who is out has been served */
        if (events & VCPU_EVENT_STOP)
            return RUN_STOPPED;
        if (unlikely(events & VCPU_EVENT_DEBUG)) {
            vcpu_clear(v, VCPU_EVENT_DEBUG);
            board->stopped(board->arg);
            continue;
        }
        if (events & VCPU_EVENT_KICK) {
            /* Clear first: what arrives during service() is seen the next time round. */
            vcpu_clear(v, VCPU_EVENT_KICK);
            board->service(board->arg);
            continue;
        }

        vcpu_enter(v);
        reason = unlikely(v->single) ? board->step(board->arg) : ops->run(e);
        vcpu_leave(v);
        BUG_ON(v->vec_live);
        counts->n[reason]++;
        switch (reason) {
        case EXIT_kick:
            break;
        case EXIT_halt:
            board->idle(board->arg);
            break;
        case EXIT_shutdown:
            return RUN_SHUTDOWN;
        default:
            return RUN_ERROR;
        }
    }
}
