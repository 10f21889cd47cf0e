/*
 * What KVM_RUN came back for. Most exits are for a device and carry all that it needs in
 * struct kvm_run; each becomes one synchronous exit of the common vocabulary.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "cpu/msr.h"
#include "kvm/kvm_int.h"
#include "x86/cr.h"
#include "x86/msr.h"

static void hook(struct kvm *k, struct exit *e) {
    k->v->hooks->exit(k->v->hooks_arg, k->v, e);
}

/* --- ports and MMIO --- */

/* A repeated INS or OUTS comes as several elements. */
static enum exit_reason port_io(struct kvm *k) {
    struct kvm_run *run = k->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    k->unsettled = true;
    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        struct exit e = {.reason = EXIT_io,
                         .write = run->io.direction == KVM_EXIT_IO_OUT,
                         .size = run->io.size,
                         .port = run->io.port};

        if (e.write)
            memcpy(&e.data, data, run->io.size);
        hook(k, &e);
        if (!e.write)
            memcpy(data, &e.data, run->io.size);
    }
    return EXIT_COUNT;
}

/* The widest access that LEN bytes at ADDR begin with: KVM cuts at page boundaries. */
static unsigned piece(uint64_t addr, unsigned len) {
    unsigned n = 8;

    while (n > len || (len != n && addr % n))
        n /= 2;
    return n;
}

static enum exit_reason mmio(struct kvm *k) {
    struct kvm_run *run = k->run;
    unsigned n;

    k->unsettled = true;
    for (unsigned at = 0; at < run->mmio.len && at < sizeof(run->mmio.data); at += n) {
        struct exit e = {.reason = EXIT_mmio,
                         .write = run->mmio.is_write,
                         .gpa = gpa(run->mmio.phys_addr + at)};

        n = piece(e.gpa.a, run->mmio.len - at);
        e.size = (uint8_t)n;
        if (e.write)
            memcpy(&e.data, run->mmio.data + at, n);
        hook(k, &e);
        if (!e.write)
            memcpy(run->mmio.data + at, &e.data, n);
    }
    return EXIT_COUNT;
}

/* --- MSRs --- */

static enum msr_result msr_access(struct kvm *k, struct exit *e) {
    if (kvm_msr_is_hw(k, e->msr, e->write))
        return MSR_FAULT; /* KVM has refused it */
    if (e->write)
        return msr_write(k->v, e->msr, e->data);
    return msr_read(k->v, e->msr, &e->data);
}

static enum exit_reason msr(struct kvm *k, bool write) {
    struct kvm_run *run = k->run;
    struct exit e = {.reason = EXIT_msr,
                     .write = write,
                     .size = 8,
                     .msr = run->msr.index,
                     .data = run->msr.data};
    enum msr_result rc = msr_access(k, &e);

    k->unsettled = true;
    k->v->cnt->kvm_msr_exits++;
    if (rc == MSR_NOT_OURS)
        hook(k, &e);
    if (!write && e.msr == X86_MSR_ARCH_CAPABILITIES)
        e.data &= k->arch_caps;
    run->msr.error = rc == MSR_FAULT || e.failed;
    run->msr.data = e.data;
    if (write && e.msr == X86_MSR_APIC_BASE && !run->msr.error)
        kvm_apic_base_push(k, e.data);
    if (k->v->tsc_base != k->tsc_base && kvm_tsc_push(k))
        return EXIT_error;
    return EXIT_COUNT;
}

/* --- the ends --- */

static enum exit_reason shutdown(struct kvm *k) {
    return kvm_state_pull(k) ? EXIT_error : EXIT_shutdown;
}

static enum exit_reason halt(struct kvm *k) {
    struct vcpu *v = k->v;

    v->halted = true;
    /* What else of the flags is stale does not matter: KVM has them. */
    v->rflags = (v->rflags & ~(uint64_t)X86_FL_IF) | (k->run->if_flag ? X86_FL_IF : 0);
    return EXIT_COUNT;
}

static enum exit_reason entry_refused(struct kvm *k) {
    log_error("KVM: the hardware refuses the guest's state (reason 0x%llx); "
              "`--engine bt` does without KVM",
              (unsigned long long)k->run->fail_entry.hardware_entry_failure_reason);
    kvm_state_pull(k);
    return EXIT_error;
}

/*
 * KVM's own emulator did not know an instruction, or an exit came in the middle of the
 * delivery of an event: the reference knows how.
 */
static enum exit_reason internal_error(struct kvm *k) {
    switch (k->run->internal.suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
    case KVM_INTERNAL_ERROR_SIMUL_EX:
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
        k->v->cnt->kvm_emulated++;
        return kvm_emulate(k, 1);
    default:
        log_error("KVM: internal error %u; `--engine bt` does without KVM",
                  k->run->internal.suberror);
        kvm_state_pull(k);
        return EXIT_error;
    }
}

static enum exit_reason end_of_interrupt(struct kvm *k) {
    if (k->v->hooks->eoi)
        k->v->hooks->eoi(k->v->hooks_arg, k->run->eoi.vector);
    return EXIT_COUNT;
}

static enum exit_reason unknown(struct kvm *k) {
    log_error("KVM: exit %u that we do not know (0x%llx); `--engine bt` does without KVM",
              k->run->exit_reason, (unsigned long long)k->run->hw.hardware_exit_reason);
    kvm_state_pull(k);
    return EXIT_error;
}

enum exit_reason kvm_handle_exit(struct kvm *k) {
    switch (k->run->exit_reason) {
    case KVM_EXIT_IO:
        return port_io(k);
    case KVM_EXIT_MMIO:
        return mmio(k);
    case KVM_EXIT_X86_RDMSR:
        return msr(k, false);
    case KVM_EXIT_X86_WRMSR:
        return msr(k, true);
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        k->v->cnt->kvm_irq_windows++;
        return EXIT_COUNT;
    case KVM_EXIT_SET_TPR: /* taken over after every exit */
    case KVM_EXIT_INTR:
        return EXIT_COUNT;
    case KVM_EXIT_HLT:
        return halt(k);
    case KVM_EXIT_DEBUG:
        return kvm_debug_exit(k);
    case KVM_EXIT_IOAPIC_EOI:
        return end_of_interrupt(k);
    case KVM_EXIT_SHUTDOWN:
        return shutdown(k);
    case KVM_EXIT_FAIL_ENTRY:
        return entry_refused(k);
    case KVM_EXIT_INTERNAL_ERROR:
        return internal_error(k);
    default:
        return unknown(k);
    }
}
