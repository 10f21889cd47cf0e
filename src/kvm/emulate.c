/*
 * The interpreter in KVM's place: for an instruction that KVM's emulator does not know,
 * for an event whose delivery KVM gave up, while the A20 gate is closed, and for single
 * steps from outside. The state moves to struct vcpu and stays there until the next
 * entry.
 *
 * The guest has stored to its memory without our traces seeing it, so nothing that the
 * interpreter or the MMU derived before may be used.
 *
 * KVM has noted in the guest's record of steal time that the CPU does not run; others
 * then leave a request there instead of interrupting it, to flush its TLB before it runs
 * (Linux, Documentation/virt/kvm/x86/cpuid.rst, KVM_FEATURE_PV_TLB_FLUSH). While the
 * interpreter executes, the record says that it runs; a request that was there waits for
 * KVM.
 */
#include <sys/ioctl.h>

#include "interp/interp.h"
#include "kvm/kvm_int.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "x86/cr.h"
#include "x86/exception.h"
#include "x86/msr.h"

/* asm/kvm_para.h names them, which user space is not given everywhere. */
#define KVM_VCPU_PREEMPTED 1u
#define KVM_VCPU_FLUSH_TLB 2u

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

/* Where the record says whether the CPU runs; false: the guest has none. */
static bool preempted_at(const struct kvm *k, struct gpa *at) {
    const uint64_t enabled = 1, offset = 16;
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = {.head.nmsrs = 1, .entry.index = X86_MSR_KVM_STEAL_TIME};

    if (!(k->paravirt & CPUID_KVM_TLB_FLUSH) || ioctl(k->fd, KVM_GET_MSRS, &one) != 1 ||
        !(one.entry.data & enabled))
        return false;
    *at = (struct gpa){(one.entry.data & ~63ull) + offset};
    return true;
}

static void runs(struct kvm *k) {
    struct gpa at;
    int was = preempted_at(k, &at) ? mem_exchange(k->v->mem, at, 0) : 0;

    k->flush_owed |= was > 0 && (was & KVM_VCPU_FLUSH_TLB);
}

void kvm_flush_later(struct kvm *k) {
    struct gpa at;

    if (k->flush_owed && preempted_at(k, &at))
        mem_exchange(k->v->mem, at, KVM_VCPU_PREEMPTED | KVM_VCPU_FLUSH_TLB);
    k->flush_owed = false;
}

static bool stopping(const struct vcpu *v) {
    return vcpu_events(v) & VCPU_EVENTS_LEAVE;
}

/* EXIT_COUNT: the interpreter can go on. */
static enum exit_reason take_over(struct kvm *k) {
    struct vcpu *v = k->v;

    if (kvm_state_pull(k))
        return EXIT_error;
    runs(k);
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
