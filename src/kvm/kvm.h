/*
 * The hardware engine, over the plain KVM API of Linux.
 *
 * The board is the same as for the software engines: its ports, its MMIO and its MSRs
 * leave through vcpu_hooks. Two arrangements of the interrupt controllers exist: all of
 * them ours, or the local APIC in the kernel and the rest ours (docs/kvm.md).
 *
 * Thread: everything but kvm_kick() belongs to the vCPU's thread.
 */
#ifndef KVM_KVM_H
#define KVM_KVM_H

#include "cpu/vcpu.h"
#include "engine/options.h"

struct kvm;
struct interp;

/* --- is it there, and is it worth taking? (probe.c) --- */

enum kvm_verdict {
    KVM_FAST,        /* hardware runs guest code, and exits are cheap enough */
    KVM_SLOW,        /* works, but the hardware is emulated underneath */
    KVM_MISSING,     /* no /dev/kvm */
    KVM_FORBIDDEN,   /* this user may not open it */
    KVM_NO_HARDWARE, /* the device node is there, no virtualization behind it */
    KVM_OTHER_API,   /* another interface than the one we speak */
    KVM_TOO_OLD,     /* lacks something that we need */
    KVM_BROKEN,      /* opens, but a small guest does not run */
};

struct kvm_probe {
    enum kvm_verdict verdict;
    int error;           /* errno behind the verdict, or 0 */
    const char *missing; /* KVM_TOO_OLD: what; KVM_BROKEN: what failed */
    bool cpu_can;        /* this CPU says that it has VMX or SVM */
    /* Figures, when a guest ran. */
    double loop_ns;        /* one turn of a two-instruction loop in the guest */
    double native_loop_ns; /* the same on the host */
    double exit_ns;        /* an OUT that reaches us, there and back */
    double touch_ns;       /* the first touch of a page of guest memory */
};

/* Opens /dev/kvm, looks, and runs a small guest for a few milliseconds. */
void kvm_probe(struct kvm_probe *p);
/* KVM_FAST or KVM_SLOW, from the figures alone. */
enum kvm_verdict kvm_probe_judge(const struct kvm_probe *p);
/* The verdict as part of a sentence, with the cause and, if there is one, the way out. */
void kvm_probe_text(const struct kvm_probe *p, char *buf, size_t size);

/* --- the engine --- */

/* Requests for ioctl(2) that a machine makes after kvm_new(), and a 0 (ioctls.c): on a
 * vCPU's thread and between lives, and on any thread. */
extern const unsigned long kvm_ioctls[], kvm_device_ioctls[];

struct kvm_config {
    unsigned kernel_lapic; /* the local APIC is the kernel's: 1, or 0 */
};
/* Its options by name; they are a struct kvm_config (options.c). */
extern const struct engine_options kvm_option_set;

/* V's memory map must stand. INTERP executes what KVM cannot. FIRST: of the machine's
 * first CPU, which outlives it; NULL: this is it. 0, or -errno with one sentence in WHY.
 * Replaces v->cpuid by a model that the hardware can keep. */
int kvm_new(struct vcpu *v, struct interp *interp, const struct kvm_config *cfg,
            struct kvm *first, struct kvm **out, char *why, size_t why_size);
void kvm_free(struct kvm *k);

/* Until an exit of the second group. Failures are logged (EXIT_error). */
enum exit_reason kvm_enter(struct kvm *k);
void kvm_kick(struct kvm *k); /* any thread; async-signal-safe */
/* Between two entries: all of the guest's state comes to struct vcpu. 0, or -errno,
 * logged. */
int kvm_sync(struct kvm *k);
/* The same, and the interpreter executes as interp_step(..., 1) does. It cannot see a
 * local APIC of the kernel's: no interrupt of its is taken. */
enum exit_reason kvm_step(struct kvm *k);
/* The vCPU's list of stops (cpu/stops.h) is another. 0; -ENOSPC: the hardware has no room
 * for it, -errno: KVM does not take it. */
int kvm_stops_changed(struct kvm *k);
/* struct vcpu was changed from outside: it is what counts now. */
void kvm_reset(struct kvm *k);

/* What is where in memory has changed: for the next entry of any CPU. Of the first. */
void kvm_map_changed(struct kvm *k);
/* What the guest has written to since the last call is said to mem/track.c; nothing the
 * first time, from which on it is known. On a vCPU's thread or between lives, while all
 * stand. 0 or -errno: it is not known. */
int kvm_tell_written(struct kvm *k);

/* A message to the local APIC, when that is the kernel's; false: nobody took it. */
bool kvm_msi(struct kvm *k, uint64_t addr, uint32_t data);

/* Calls EMIT for each figure that KVM itself keeps of this vCPU. */
void kvm_stats(struct kvm *k, void (*emit)(void *arg, const char *name, uint64_t value),
               void *arg);

#endif
