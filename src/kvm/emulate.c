/*
 * The interpreter in KVM's place: for an instruction that KVM's emulator does not know,
 * for an event whose delivery KVM gave up, while the A20 gate is closed, and for single
 * steps from outside. The state moves to struct vcpu and stays there until the next
 * entry.
 *
 * The guest has stored to its memory without our traces seeing it, so nothing that the
 * interpreter or the MMU derived before may be used.
 */
#include "interp/interp.h"
#include "kvm/kvm_int.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "x86/cr.h"
#include "x86/exception.h"

/* INT3 and INTO are executed again: their vectors are not delivered here. */
static bool is_software(const struct kvm_vcpu_events *e) {
    return e->exception.nr == X86_BP || e->exception.nr == X86_OF;
}

/* What KVM was about to deliver when it stopped. */
static int deliver(struct kvm *k) {
    const struct kvm_vcpu_events *e = &k->events;
    struct vcpu *v = k->v;

    if (!k->events_in)
        return SEM_NEXT;
    k->events_in = false;
    if (e->nmi.pending)
        vcpu_raise(v, VCPU_EVENT_NMI);
    if (e->exception.injected && !is_software(e)) {
        v->fault = (struct fault){.vector = e->exception.nr,
                                  .has_error = e->exception.has_error_code,
                                  .error = e->exception.error_code,
                                  .addr = v->cr2};
        return sem_deliver(v);
    }
    if (e->nmi.injected)
        return sem_nmi(v);
    if (e->interrupt.injected && !e->interrupt.soft)
        return sem_interrupt(v, e->interrupt.nr);
    return SEM_NEXT;
}

static bool stopping(const struct vcpu *v) {
    return vcpu_events(v) & VCPU_EVENTS_LEAVE;
}

/* EXIT_COUNT: the interpreter can go on. */
static enum exit_reason take_over(struct kvm *k) {
    struct vcpu *v = k->v;

    if (kvm_state_pull(k))
        return EXIT_error;
    interp_flush(k->interp);
    /* KVM does not tell the four page-directory pointers of PAE paging. */
    if ((v->cr0 & X86_CR0_PG) && (v->cr4 & X86_CR4_PAE) && !v->long_mode)
        mmu_load_pdptrs(v, v->cr3);
    return deliver(k) == SEM_SHUTDOWN ? EXIT_shutdown : EXIT_COUNT;
}

enum exit_reason kvm_step(struct kvm *k) {
    enum exit_reason out = take_over(k);

    return out == EXIT_COUNT ? interp_step(k->interp, 1) : out;
}

enum exit_reason kvm_emulate(struct kvm *k, uint64_t count) {
    struct vcpu *v = k->v;
    enum exit_reason out = take_over(k);

    if (out != EXIT_COUNT)
        return out;
    out = interp_step(k->interp, count);
    /* A debug trap of the last instruction is delivered at the boundary after it. */
    while (out == EXIT_kick && v->pending_db && !stopping(v))
        out = interp_step(k->interp, 1);
    if (out == EXIT_kick || (out == EXIT_halt && k->kernel_lapic))
        return EXIT_COUNT;
    return out;
}
