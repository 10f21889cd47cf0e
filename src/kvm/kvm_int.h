/*
 * Shared by the files of the hardware engine.
 *
 * The guest's state is in one of two places: in KVM (`loaded`) or in struct vcpu. It
 * moves as a whole and only when it must: kvm_state_push() before the first entry after
 * a reset, kvm_state_pull() when the interpreter is to execute an instruction, when
 * somebody looks in from outside (kvm_sync()), or for a dump. What KVM was about to
 * deliver then is kept in `events`, for whoever comes first: the interpreter, or the next
 * push. An exit for a port, for MMIO or for an MSR needs neither: what it is about is in
 * struct kvm_run.
 *
 * The CPUs of a machine share a virtual machine, which is the first one's: its memory
 * slots, its MSR filter and its interrupt routes. All else is each one's own.
 *
 * What KVM never has: the MTRRs and the other registers of cpu/msr.c that are only
 * storage (their accesses leave, kvm_msr_is_hw() says which do not), the TSC's base
 * (v->tsc_base), and what belongs to devices.
 */
#ifndef KVM_KVM_INT_H
#define KVM_KVM_INT_H

#include <linux/kvm.h>

#include "cpu/cpuid.h"
#include "kvm/kvm.h"

#define KVM_MSR_MAX 16
#define KVM_ROUTES 24 /* level-triggered vectors whose end we are told of */

struct cpuid_model;

struct kvm {
    struct vcpu *v;
    struct interp *interp;
    const struct cpuid_model *outer; /* v->cpuid before ours */
    struct cpuid_model *model;
    struct kvm *first; /* whose virtual machine it is; itself, for the machine's first */
    unsigned index;    /* of the CPU: its APIC ID */
    int dev, vm, fd;   /* the device and the virtual machine are the first one's */
    struct kvm_run *run;
    size_t run_size;
    bool kernel_lapic;
    uint32_t paravirt; /* of CPUID_KVM_OPTIONAL, what KVM does for the guest */

    bool flush_owed; /* of the guest's TLB, asked for in its record; KVM's, when it enters
                      */

    bool loaded;    /* KVM has the guest's state */
    bool unsettled; /* KVM_RUN must be called to finish the last instruction */
    bool events_in; /* `events` holds what KVM was about to deliver */
    struct kvm_vcpu_events events;
    uint64_t apic_base; /* for KVM_SET_SREGS */
    uint64_t cr8;
    uint64_t tsc_base; /* what KVM was told of v->tsc_base */
    bool tsc_offset;   /* KVM takes an offset for the TSC */
    bool xcr0;         /* the guest's CPU has XSAVE */
    bool lapic_ready;  /* the kernel's local APIC has been reset */
    uint32_t
        mp_state; /* with it: whether the CPU waits for INIT or SIPI; KVM_MP_STATE_* */

    uint32_t msr_index[KVM_MSR_MAX]; /* those that move with the state */
    unsigned msr_count;
    uint64_t arch_caps; /* of ours, what KVM confirms */

    int map_error; /* of kvm_map_memory(), for the next entry; the first one's */
    struct kvm_slot {
        uint64_t start, size; /* of guest-physical memory */
        const uint8_t *host;
        bool rom;
    } * slot;         /* memory slots; the first one's */
    size_t slot_room; /* places there */
    unsigned slots;   /* in use */
    bool logging;     /* KVM keeps a log of what is written to */
    struct {
        uint64_t addr;
        uint32_t data;
    } route[KVM_ROUTES];
    unsigned route_next;

    int tid;     /* of the thread that enters */
    bool inside; /* it is in, or about to enter, KVM_RUN */
};

/* probe.c */
/* Opens and checks /dev/kvm: its descriptor, or -1 with P filled. */
int kvm_open(struct kvm_probe *p);
/* Does a hypercall come back, from a small guest whose CPU is AMD's, or not? Not where
 * KVM patches an instruction that still traps, as on some hardware that is emulated. */
bool kvm_answers_calls(int dev, bool amd);

/* setup.c */
/* KVM keeps the guest's record of steal time. */
static inline bool kvm_has_steal_time(const struct kvm *k) {
    return k->paravirt & CPUID_KVM_STEAL_TIME;
}
bool kvm_msr_is_hw(const struct kvm *k, uint32_t index, bool write);

/* slots.c */
/* KVM's slots become what the machine's memory is. Of the first. 0 or -errno. */
int kvm_map_memory(struct kvm *k);

/* convert.c: pure functions between struct vcpu and KVM's structures */
void kvm_regs_get(const struct vcpu *v, struct kvm_regs *r);
void kvm_regs_set(struct vcpu *v, const struct kvm_regs *r);
/* Leaves apic_base, cr8 and interrupt_bitmap alone. */
void kvm_sregs_get(const struct vcpu *v, struct kvm_sregs *s);
void kvm_sregs_set(struct vcpu *v, const struct kvm_sregs *s);
void kvm_xsave_get(const struct vcpu *v, struct kvm_xsave *x);
void kvm_xsave_set(struct vcpu *v, const struct kvm_xsave *x);
void kvm_debugregs_get(const struct vcpu *v, struct kvm_debugregs *d);
void kvm_debugregs_set(struct vcpu *v, const struct kvm_debugregs *d);
void kvm_events_get(const struct vcpu *v, struct kvm_vcpu_events *e);
/* Puts what KVM was about to deliver, KEPT, into E, which is of the vCPU. */
void kvm_events_return(const struct kvm_vcpu_events *kept, struct kvm_vcpu_events *e);
void kvm_events_set(struct vcpu *v, const struct kvm_vcpu_events *e);
/* The field of struct vcpu that holds an MSR which is a number of cpu/state.def, or NULL.
 */
uint64_t *kvm_msr_field(struct vcpu *v, uint32_t index);

/* state.c: 0 or -errno, logged */
int kvm_state_push(struct kvm *k);
int kvm_state_pull(struct kvm *k);
int kvm_settle(struct kvm *k);
int kvm_tsc_push(struct kvm *k);
/* The local APIC is ours, its bit in CPUID KVM's. */
void kvm_apic_base_push(struct kvm *k, uint64_t value);

/* debug.c: KVM_EXIT_DEBUG */
enum exit_reason kvm_debug_exit(struct kvm *k);

/* exits.c: handles the exit in k->run; EXIT_COUNT: go on */
enum exit_reason kvm_handle_exit(struct kvm *k);

/* emulate.c: the interpreter executes at most COUNT instructions; EXIT_COUNT: go on */
enum exit_reason kvm_emulate(struct kvm *k, uint64_t count);
/* Before KVM enters again: what was asked of the TLB before the interpreter stood in is
 * asked of KVM. */
void kvm_flush_later(struct kvm *k);

#endif
