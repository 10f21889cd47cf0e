/*
 * The hardware engine that owns its control block: fills a VMCB, executes VMRUN, reads
 * why the guest has come back, emulates, and enters again (AMD64 APM volume 2, "Secure
 * Virtual Machine"). What is emulated is done by the interpreter, which stands by as it
 * does for kvm/. docs/svm.md has the life of an exit.
 *
 * It asks of the machine that it runs on what is in struct svm_host: on the bare machine
 * that is hv/; a test has its own.
 */
#ifndef SVM_SVM_H
#define SVM_SVM_H

#include "base/types.h"
#include "cpu/cpuid.h"
#include "cpu/exit.h"

struct interp;
struct svm;
struct vcpu;
struct x86_vmcb;

/* What goes to the CPU with the control block, and comes back. */
struct svm_entry {
    struct x86_vmcb *vmcb;
    uint64_t *gpr;           /* enum vcpu_reg; RAX and RSP are the control block's */
    const uint64_t *dr;      /* DR0 to DR3; NULL: the guest has no breakpoint on */
    uint64_t xcr0;           /* 0: the CPU has none */
    const uint64_t *tsc_aux; /* NULL: the CPU has none */
    const uint32_t *events;  /* VCPU_EVENT_*: not entered for one of LEAVE, which */
    uint32_t leave;          /* is an exit for an interrupt, amid what is injected */
};

struct svm_host {
    /* Runs the guest until #VMEXIT; xcr0 is what it is then. Interrupts of the host's are
     * taken before it returns; one whose handler raises an event, for as long as that
     * lasts, keeps the guest from running. */
    void (*enter)(void *arg, struct svm_entry *e);
    /* SIZE zeroed bytes, whole pages in one piece; and a page back. NULL: no memory. */
    void *(*alloc)(void *arg, uint64_t size);
    void (*free)(void *arg, void *page);
    /* The physical address of memory that alloc() or mem/ gave, and back. */
    uint64_t (*phys)(void *arg, const void *p);
    void *(*virt)(void *arg, uint64_t phys);
    struct cpuid_regs (*cpuid)(void *arg, uint32_t leaf, uint32_t subleaf);
    /* WANTED ASIDs of the CPU's COUNT, 0 among these, for one vCPU alone, or fewer: how
     * many, from *FIRST on. 0: there are none left. NULL: there is one vCPU. */
    unsigned (*asids)(void *arg, unsigned count, unsigned wanted, unsigned *first);
    void *arg;
};

/* How far the VMM helps its guest, and trusts it: which exits are taken (permit.c). */
enum svm_exits {
    SVM_EXITS_MINIMAL, /* what must leave */
    SVM_EXITS_PURE,    /* all that can leave, each access to a port or a register */
    SVM_EXITS_COUNT
};

struct svm_options {
    bool shadow; /* page tables, which need no nested paging of the hardware; how long
                    they are retained is the MMU's policy */
    enum svm_exits exits;
    bool pauses; /* PAUSE leaves, for os_yield(): others want the CPU */
};

/* INTERP executes what the hardware leaves to it and
 * outlives the engine, as HOST does. 0, or -errno with one sentence in WHY. */
int svm_new(struct vcpu *v, struct interp *interp, const struct svm_host *host,
            const struct svm_options *options, struct svm **out, char *why,
            size_t why_size);
void svm_free(struct svm *s);
/* engine_ops of the same names. */
enum exit_reason svm_run(struct svm *s);
enum exit_reason svm_step(struct svm *s);
int svm_sync(struct svm *s);
void svm_reset(struct svm *s);
void svm_map_changed(struct svm *s);
void svm_stats(const struct svm *s,
               void (*emit)(void *arg, const char *name, uint64_t value), void *arg);

/* Whether the guest's IN and OUT at COUNT ports reach the host's without an exit, from
 * its next entry on at the latest. At first none do. Not on two CPUs at once. */
void svm_ports(struct svm *s, uint16_t first, unsigned count, bool open);

/* Dirty logging. With nested paging the guest's stores pass the traces by which mem/
 * knows what is written to (mem_track_start()): from now on they are noted by 4 KiB, or
 * no more; while the guest does not run. With shadow paging there is nothing to do. */
void svm_log_writes(struct svm *s, bool on);
/* What it has stored to since is told to mem/: then mem_track_collect() has all. While it
 * does not run. */
void svm_tell_written(struct svm *s);

/* For struct svm_host's asids(): one after the other, to vCPUs that stay for good. *LAST
 * of this CPU's was given last, 0 at first; COUNT is left for those that have to share.
 */
unsigned svm_asids_give(unsigned *last, unsigned count, unsigned wanted, unsigned *first);

/* How many ASIDs HOST's CPU has, and what of SVM it lacks, with what that costs, as one
 * line in TEXT. The CPU has SVM. */
void svm_lacks(const struct svm_host *host, char *text, size_t size);

#endif
