/*
 * The requests that a running machine makes of KVM; what is missing here kills the run
 * (base/os_jail.c). Setting a machine up (setup.c, probe.c)
 * comes before, and is not in the list.
 */
#include <linux/kvm.h>

#include "kvm/kvm.h"

const unsigned long kvm_ioctls[] = {
    KVM_RUN,
    /* run.c: what is injected. */
    KVM_INTERRUPT,
    KVM_NMI,
    /* state.c: to KVM, after a reset and where the interpreter was, and from it. */
    KVM_SET_REGS,
    KVM_GET_REGS,
    KVM_SET_SREGS,
    KVM_GET_SREGS,
    KVM_SET_MSRS,
    KVM_GET_MSRS,
    KVM_SET_XCRS,
    KVM_GET_XCRS,
    KVM_SET_XSAVE,
    KVM_GET_XSAVE,
    KVM_SET_DEBUGREGS,
    KVM_GET_DEBUGREGS,
    KVM_SET_VCPU_EVENTS,
    KVM_GET_VCPU_EVENTS,
    KVM_SET_MP_STATE,
    KVM_GET_MP_STATE,
    KVM_SET_LAPIC,
    KVM_SET_DEVICE_ATTR, /* the TSC's offset */
    KVM_SET_GUEST_DEBUG, /* debug.c */
    /* slots.c: the memory map, at a reset; what was written to. */
    KVM_SET_USER_MEMORY_REGION,
    KVM_GET_DIRTY_LOG,
    /* stats.c */
    KVM_GET_STATS_FD,
    0,
};

/* Of any thread that runs a device. msi.c: messages to a local APIC of the kernel's. */
const unsigned long kvm_device_ioctls[] = {
    KVM_SIGNAL_MSI,
    KVM_SET_GSI_ROUTING,
    0,
};
