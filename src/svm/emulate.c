/*
 * The interpreter in the hardware's place: for what is intercepted, for what is a
 * device's, while the A20 gate is closed, and for single steps from outside. The state
 * moves to struct vcpu and stays there until the next entry.
 *
 * The guest has stored to its memory without our traces seeing it, so nothing that the
 * interpreter or the MMU derived before may be used.
 */
#include "interp/interp.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "svm/svm_int.h"
#include "x86/cr.h"
#include "x86/pte.h"

/* The event that the hardware was delivering. One of an instruction (INT n, INT3, INTO)
 * is not: the instruction is executed again. */
static int deliver(struct svm *s) {
    struct vcpu *v = s->v;
    uint64_t e = s->event;
    uint8_t vector = e & X86_SVM_EVENT_VECTOR;

    s->event = 0;
    if (!(e & X86_SVM_EVENT_VALID))
        return SEM_NEXT;
    switch (e & X86_SVM_EVENT_TYPE) {
    case X86_SVM_EVENT_INTR:
        return sem_interrupt(v, vector);
    case X86_SVM_EVENT_NMI:
        return sem_nmi(v);
    case X86_SVM_EVENT_EXCEPTION:
        v->fault = (struct fault){.vector = vector,
                                  .has_error = e & X86_SVM_EVENT_HAS_ERROR,
                                  .error = (uint32_t)(e >> 32),
                                  .addr = v->cr2};
        return sem_deliver(v);
    default:
        return SEM_NEXT;
    }
}

/* EXIT_COUNT: the interpreter can go on. */
static enum exit_reason take_over(struct svm *s, bool *delivered) {
    struct vcpu *v = s->v;
    bool waits = s->event & X86_SVM_EVENT_VALID;

    if (s->loaded && !s->shadow)
        interp_flush(s->interp);
    svm_pull(s);
    if (!s->shadow && (v->cr0 & X86_CR0_PG) && (v->cr4 & X86_CR4_PAE) && !v->long_mode)
        mmu_load_pdptrs(v,
                        v->cr3); /* hardware with nested paging reads them as it goes */
    s->cnt.emulated++;
    *delivered = waits;
    return deliver(s) == SEM_SHUTDOWN ? EXIT_shutdown : EXIT_COUNT;
}

enum exit_reason svm_step(struct svm *s) {
    bool delivered;
    enum exit_reason out = take_over(s, &delivered);

    return out == EXIT_COUNT ? interp_step(s->interp, 1) : out;
}

static bool stopping(const struct vcpu *v) {
    return vcpu_events(v) & VCPU_EVENTS_LEAVE;
}

enum exit_reason svm_emulate(struct svm *s, uint64_t count) {
    struct vcpu *v = s->v;
    bool delivered;
    enum exit_reason out = take_over(s, &delivered);

    if (out != EXIT_COUNT || delivered)
        return out;
    out = interp_step(s->interp, count);
    /* A debug trap of the last instruction is delivered at the boundary after it. */
    while (out == EXIT_kick && v->pending_db && !stopping(v))
        out = interp_step(s->interp, 1);
    return out == EXIT_kick ? EXIT_COUNT : out;
}
