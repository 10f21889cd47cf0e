/*
 * Entering the guest, interrupts on their way in, and the kick.
 *
 * A kick comes from another thread or from a signal handler: it sets immediate_exit, so
 * that a KVM_RUN that is about to begin returns at once, and signals the thread if that
 * is inside. The event bits were set before. The vCPU's thread goes the other way round:
 * it says that it is inside, clears immediate_exit, and only then looks at the events.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "base/os.h"
#include "cpu/smp.h"
#include "kvm/kvm_int.h"

/* With the A20 gate closed KVM cannot run the guest; the interpreter does, so many
 * instructions at a time. */
#define A20_SLICE 10000

void kvm_kick(struct kvm *k) {
    __atomic_store_n(&k->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&k->inside, __ATOMIC_SEQ_CST))
        os_kick(__atomic_load_n(&k->tid, __ATOMIC_SEQ_CST));
}

int kvm_sync(struct kvm *k) {
    return kvm_state_pull(k);
}

/* --- interrupts --- */

/* A halted guest of which we keep the local APIC sleeps in the run loop, which sees from
 * the flag whether an interrupt wakes it. */
static bool still_halted(struct kvm *k, uint32_t events) {
    struct vcpu *v = k->v;

    if (!v->halted || !k->loaded)
        return false;
    if ((events & VCPU_EVENT_NMI) || ((events & VCPU_EVENT_IRQ) && k->run->if_flag))
        v->halted = false;
    return v->halted;
}

static int inject_nmi(struct kvm *k) {
    vcpu_clear(k->v, VCPU_EVENT_NMI);
    return ioctl(k->fd, KVM_NMI, 0);
}

static int inject_irq(struct kvm *k) {
    struct kvm_interrupt irq;
    int vector = k->v->hooks->irq_ack(k->v->hooks_arg);

    if (vector < 0)
        return 0;
    irq.irq = (unsigned)vector;
    k->run->ready_for_interrupt_injection = 0;
    k->v->cnt->interrupts_delivered++;
    return ioctl(k->fd, KVM_INTERRUPT, &irq);
}

/* Gives KVM what it can take now and asks to be told when it can take more. */
static int inject(struct kvm *k, uint32_t events) {
    int rc = 0;

    if (events & VCPU_EVENT_NMI)
        rc = inject_nmi(k);
    if (!rc && (events & VCPU_EVENT_IRQ) && k->run->ready_for_interrupt_injection)
        rc = inject_irq(k);
    k->run->request_interrupt_window = !!(vcpu_events(k->v) & VCPU_EVENT_IRQ);
    return rc;
}

/* --- the loop --- */

static void tpr_in(struct kvm *k) {
    if (!k->kernel_lapic)
        k->run->cr8 = k->v->hooks->cr8_read(k->v->hooks_arg);
}

static void tpr_out(struct kvm *k) {
    struct vcpu *v = k->v;

    if (!k->kernel_lapic && k->run->cr8 != v->hooks->cr8_read(v->hooks_arg))
        v->hooks->cr8_write(v->hooks_arg, (unsigned)k->run->cr8 & 15);
}

static enum exit_reason enter_failed(struct kvm *k, int error) {
    if (error == EINTR || error == EAGAIN)
        return EXIT_COUNT;
    if (error == EFAULT)
        log_error("KVM: the host has no memory for the guest where it touched it");
    else
        log_error("KVM: the CPU cannot be entered: %s; `--engine bt` does without KVM",
                  strerror(error));
    return EXIT_error;
}

static enum exit_reason enter_once(struct kvm *k) {
    int rc, error;

    tpr_in(k);
    k->v->cnt->kvm_entries++;
    rc = ioctl(k->fd, KVM_RUN, 0);
    error = errno;
    k->unsettled = false;
    tpr_out(k);
    return rc ? enter_failed(k, error) : kvm_handle_exit(k);
}

static bool gate_open(const struct vcpu *v) {
    return !v->hooks->a20 || v->hooks->a20(v->hooks_arg);
}

static bool load(struct kvm *k) {
    if (k->first->map_error) {
        log_error("KVM: it does not take the guest's memory: %s",
                  strerror(-k->first->map_error));
        return false;
    }
    kvm_flush_later(k);
    return !kvm_state_push(k);
}

/* One turn: EXIT_COUNT to go on. */
static enum exit_reason turn(struct kvm *k, uint32_t events) {
    /* The interpreter cannot see a local APIC of the kernel's; then the gate is taken for
     * open, as it is on today's hardware. */
    if (unlikely(!gate_open(k->v)) && !k->kernel_lapic)
        return kvm_emulate(k, A20_SLICE);
    if (!k->loaded && k->v->halted && !k->kernel_lapic)
        return kvm_emulate(k, 1);
    /* The interpreter's last instruction left a debug trap, and was kicked before it
     * could deliver it. */
    if (!k->loaded && k->v->pending_db)
        return kvm_emulate(k, 1);
    if (!k->loaded && !load(k))
        return EXIT_error;
    if (still_halted(k, events))
        return EXIT_halt;
    if (inject(k, events)) {
        log_error("KVM: it does not take an interrupt: %s", strerror(errno));
        return EXIT_error;
    }
    return enter_once(k);
}

enum exit_reason kvm_enter(struct kvm *k) {
    enum exit_reason out;

    __atomic_store_n(&k->tid, os_thread_id(), __ATOMIC_SEQ_CST);
    do {
        uint32_t events;

        __atomic_store_n(&k->inside, true, __ATOMIC_SEQ_CST);
        __atomic_store_n(&k->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        events = vcpu_events(k->v);
        if (events & VCPU_EVENT_CALL)
            vcpu_serve(k->v);
        events &= ~(uint32_t)VCPU_EVENT_CALL;
        out = events & VCPU_EVENTS_LEAVE ? EXIT_kick : turn(k, events);
    } while (out == EXIT_COUNT);
    __atomic_store_n(&k->inside, false, __ATOMIC_SEQ_CST);
    return out;
}
