/*
 * Moving the guest's state between struct vcpu and KVM (kvm_int.h says when).
 *
 * Order of a push: the modes before what depends on them. KVM completes an instruction
 * that left for a device only at the next KVM_RUN; before a pull or a push it is let
 * finish, with immediate_exit set (Linux, Documentation/virt/kvm/api.rst, "KVM_RUN").
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "base/os.h"
#include "kvm/kvm_int.h"
#include "mmu/mmu.h"
#include "x86/cr.h"
#include "x86/msr.h"

#define LAPIC_ID 0x20
#define LAPIC_SVR 0xf0
#define LAPIC_DFR 0xe0
#define LAPIC_VERSION 0x30
#define LAPIC_LVT_TIMER 0x320
#define LAPIC_LVT_LINT0 0x350
#define LAPIC_LVT_LINT1 0x360
#define LAPIC_LVT_ERROR 0x370
#define LVT_MASKED 0x10000u
#define LVT_EXTINT 0x700u
#define LVT_NMI 0x400u

/* Header and entries in one piece, as KVM_GET_MSRS and KVM_SET_MSRS want. */
struct msr_list {
    struct kvm_msrs head;
    struct kvm_msr_entry entry[KVM_MSR_MAX];
};

static int failed(const char *what) {
    int rc = -errno;

    log_error("KVM: %s: %s; `--engine bt` does without KVM", what, strerror(-rc));
    return rc;
}

int kvm_settle(struct kvm *k) {
    int rc = 0;

    if (!k->unsettled)
        return 0;
    __atomic_store_n(&k->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    if (ioctl(k->fd, KVM_RUN, 0) < 0 && errno != EINTR)
        rc = failed("cannot finish an instruction");
    k->unsettled = false;
    return rc;
}

/* --- TSC --- */

int kvm_tsc_push(struct kvm *k) {
    struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL,
                                   .attr = KVM_VCPU_TSC_OFFSET,
                                   .addr = (uintptr_t)&k->v->tsc_base};
    struct msr_list tsc = {.head.nmsrs = 1};

    k->tsc_base = k->v->tsc_base;
    if (k->tsc_offset && ioctl(k->fd, KVM_SET_DEVICE_ATTR, &attr) == 0)
        return 0;
    k->tsc_offset = false;
    tsc.entry[0] =
        (struct kvm_msr_entry){.index = X86_MSR_TSC, .data = os_tsc() + k->tsc_base};
    return ioctl(k->fd, KVM_SET_MSRS, &tsc) == 1 ? 0 : failed("cannot set the TSC");
}

/* --- MSRs --- */

void kvm_apic_base_push(struct kvm *k, uint64_t value) {
    struct msr_list m = {.head.nmsrs = 1,
                         .entry[0] = {.index = X86_MSR_APIC_BASE, .data = value}};

    if (ioctl(k->fd, KVM_SET_MSRS, &m) == 1)
        k->apic_base = value;
}

static int push_msrs(struct kvm *k) {
    struct msr_list m = {.head.nmsrs = k->msr_count};

    for (unsigned i = 0; i < k->msr_count; i++)
        m.entry[i] = (struct kvm_msr_entry){
            .index = k->msr_index[i], .data = *kvm_msr_field(k->v, k->msr_index[i])};
    return ioctl(k->fd, KVM_SET_MSRS, &m) == (int)k->msr_count
               ? 0
               : failed("cannot set MSRs");
}

static int pull_msrs(struct kvm *k) {
    struct msr_list m = {.head.nmsrs = k->msr_count};

    for (unsigned i = 0; i < k->msr_count; i++)
        m.entry[i].index = k->msr_index[i];
    if (ioctl(k->fd, KVM_GET_MSRS, &m) != (int)k->msr_count)
        return failed("cannot read MSRs");
    for (unsigned i = 0; i < k->msr_count; i++)
        *kvm_msr_field(k->v, k->msr_index[i]) = m.entry[i].data;
    return 0;
}

/* --- the kernel's local APIC --- */

static void set_reg(struct kvm_lapic_state *l, unsigned at, uint32_t value) {
    memcpy(l->regs + at, &value, sizeof(value));
}

/* As firmware leaves it: the boot processor's is enabled, virtual wire. The same as
 * dev/apic/lapic.c's. */
static int reset_lapic(struct kvm *k) {
    struct kvm_lapic_state l = {0};

    set_reg(&l, LAPIC_ID, k->index << 24);
    set_reg(&l, LAPIC_VERSION, 0x50014);
    set_reg(&l, LAPIC_DFR, 0xffffffff);
    set_reg(&l, LAPIC_SVR, k->index ? 0xff : 0x1ff);
    for (unsigned lvt = LAPIC_LVT_TIMER; lvt <= LAPIC_LVT_ERROR; lvt += 0x10)
        set_reg(&l, lvt, LVT_MASKED);
    if (k->index == 0) {
        set_reg(&l, LAPIC_LVT_LINT0, LVT_EXTINT);
        set_reg(&l, LAPIC_LVT_LINT1, LVT_NMI);
    }
    return ioctl(k->fd, KVM_SET_LAPIC, &l) ? failed("cannot reset the local APIC") : 0;
}

/* --- the whole --- */

static int push_modes(struct kvm *k) {
    struct kvm_sregs s = {.apic_base = k->apic_base, .cr8 = k->cr8};
    struct kvm_regs r;

    kvm_regs_get(k->v, &r);
    kvm_sregs_get(k->v, &s);
    if (!k->kernel_lapic)
        s.cr8 = k->v->hooks->cr8_read(k->v->hooks_arg);
    /* Segments may be checked against RFLAGS.VM, so the flags go first. */
    if (ioctl(k->fd, KVM_SET_REGS, &r) || ioctl(k->fd, KVM_SET_SREGS, &s))
        return failed("cannot set registers");
    return 0;
}

static int push_vector(struct kvm *k) {
    struct kvm_xsave x;
    struct kvm_xcrs c = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = k->v->xcr0}};

    kvm_xsave_get(k->v, &x);
    if ((k->xcr0 && ioctl(k->fd, KVM_SET_XCRS, &c)) || ioctl(k->fd, KVM_SET_XSAVE, &x))
        return failed("cannot set vector registers");
    return 0;
}

static int push_events(struct kvm *k) {
    struct kvm_vcpu_events e;
    struct kvm_debugregs d;
    struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_RUNNABLE};

    if (k->kernel_lapic)
        mp.mp_state = k->v->halted ? KVM_MP_STATE_HALTED : k->mp_state;
    kvm_events_get(k->v, &e);
    if (k->events_in) /* and nobody has delivered them since */
        kvm_events_return(&k->events, &e);
    kvm_debugregs_get(k->v, &d);
    if (ioctl(k->fd, KVM_SET_DEBUGREGS, &d) || ioctl(k->fd, KVM_SET_VCPU_EVENTS, &e) ||
        ioctl(k->fd, KVM_SET_MP_STATE, &mp))
        return failed("cannot set pending events");
    if (k->kernel_lapic)
        k->v->halted = false; /* the kernel knows it now */
    return 0;
}

int kvm_state_push(struct kvm *k) {
    int rc = kvm_settle(k);

    if (!rc)
        rc = push_modes(k);
    if (!rc && k->kernel_lapic && !k->lapic_ready) {
        rc = reset_lapic(k);
        k->lapic_ready = true;
    }
    if (!rc)
        rc = push_vector(k);
    if (!rc)
        rc = push_msrs(k);
    if (!rc)
        rc = push_events(k);
    if (!rc)
        rc = kvm_tsc_push(k);
    /* What the last exit said about interrupts is not true any more. */
    k->run->ready_for_interrupt_injection = 0;
    k->events_in = false;
    k->loaded = !rc;
    return rc;
}

static int pull_modes(struct kvm *k) {
    struct kvm_sregs s;
    struct kvm_regs r;
    struct kvm_mp_state mp;

    if (ioctl(k->fd, KVM_GET_REGS, &r) || ioctl(k->fd, KVM_GET_SREGS, &s) ||
        ioctl(k->fd, KVM_GET_MP_STATE, &mp))
        return failed("cannot read registers");
    kvm_regs_set(k->v, &r);
    kvm_sregs_set(k->v, &s);
    k->apic_base = s.apic_base;
    k->cr8 = s.cr8;
    if (k->kernel_lapic) {
        k->v->halted = mp.mp_state == KVM_MP_STATE_HALTED;
        k->mp_state = k->v->halted ? KVM_MP_STATE_RUNNABLE : mp.mp_state;
    }
    return 0;
}

static int pull_rest(struct kvm *k) {
    struct kvm_xsave x;
    struct kvm_xcrs c = {0};
    struct kvm_debugregs d;

    if (ioctl(k->fd, KVM_GET_XSAVE, &x) || (k->xcr0 && ioctl(k->fd, KVM_GET_XCRS, &c)) ||
        ioctl(k->fd, KVM_GET_DEBUGREGS, &d) ||
        ioctl(k->fd, KVM_GET_VCPU_EVENTS, &k->events))
        return failed("cannot read registers");
    kvm_xsave_set(k->v, &x);
    for (unsigned i = 0; i < c.nr_xcrs && i < KVM_MAX_XCRS; i++)
        if (c.xcrs[i].xcr == 0)
            k->v->xcr0 = c.xcrs[i].value;
    kvm_debugregs_set(k->v, &d);
    kvm_events_set(k->v, &k->events);
    k->events_in = true;
    return 0;
}

int kvm_state_pull(struct kvm *k) {
    int rc;

    if (!k->loaded)
        return 0;
    rc = kvm_settle(k);
    if (!rc)
        rc = pull_modes(k);
    if (!rc)
        rc = pull_rest(k);
    if (!rc)
        rc = pull_msrs(k);
    if (rc)
        return rc;
    k->v->cnt->kvm_pulls++;
    k->loaded = false;
    /* The guest has stored to memory behind the shadow's back. */
    mmu_flush_all(k->v);
    mmu_mode_changed(k->v);
    mmu_context_changed(k->v);
    return 0;
}
