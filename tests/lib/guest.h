/*
 * A guest without a board: RAM, a vCPU with its CPUID model and its MMU and, when they
 * are wanted, the interpreter and the translator. Here alone it is said how these are put
 * together for a test.
 *
 * What the host cannot give ends the program (lib/need.h).
 */
#ifndef LIB_GUEST_H
#define LIB_GUEST_H

#include "base/counters.h"
#include "bt/bt.h"
#include "cpu/cpuid.h"
#include "cpu/vcpu.h"
#include "interp/interp.h"
#include "mem/mem.h"
#include "mmu/mmu.h"

struct guest {
    struct vcpu *v;
    struct counters cnt;
    struct interp *ip; /* NULL: none */
    struct bt *bt;     /* NULL: none */
    uint8_t *ram;
    bool own_vcpu;            /* allocated here */
    struct vcpu_group *group; /* one of two, OTHER is the second; NULL: alone */
    struct vcpu *other;
    /* Of the hooks below. */
    uint64_t asked; /* how often the guest has asked for anything */
    uint64_t seen;  /* digest of the devices' accesses */
    bool a20;
};

struct guest_config {
    uint64_t ram;    /* bytes; 0: MEM_MIN_RAM */
    struct mem *mem; /* instead: memory that is there, and becomes the guest's */
    enum mmu_policy policy;
    struct cpuid_config cpuid;      /* a frequency of 0 is 1 GHz */
    const struct vcpu_hooks *hooks; /* their argument is the guest; may be NULL */
    struct vcpu *vcpu;              /* where the vCPU is; NULL: it is allocated */
    bool interp;
    const struct bt_options *bt; /* and the interpreter; NULL: no translator */
    bool counted;
    bool smp; /* one of two vCPUs, the other of which does not run */
};

/* The vCPU is reset. */
void guest_new(struct guest *g, const struct guest_config *cfg);
void guest_free(struct guest *g);
/* Another translator; a finding of its verifier ends the run when the options say so. */
void guest_use_bt(struct guest *g, const struct bt_options *opt);

/* Runs it on the translator, until it comes back. */
enum exit_reason guest_run(struct guest *g);

/* RAM zeroed, the vCPU as after power-up, nothing derived kept. */
void guest_reset(struct guest *g);
/* A vCPU out of reset, in 64-bit mode at CPL 0: flat segments, of which the descriptors
 * are at 8 (code) and 16 in the table at GDT; 32 gates at IDT; nothing waits. */
void guest_start_long(struct vcpu *v, uint64_t cr3, uint64_t gdt, uint64_t idt);
/* Registers were set by hand: all that follows from them is derived anew. */
void guest_state_changed(struct guest *g);

/* Guest-physical memory; what is none ends the program. */
void guest_write(struct guest *g, uint64_t at, const void *p, size_t len);
void guest_put(struct guest *g, uint64_t at, uint64_t value, unsigned len);
void guest_put32(struct guest *g, uint64_t at, uint32_t value);
void guest_put64(struct guest *g, uint64_t at, uint64_t value);
uint64_t guest_get(const struct guest *g, uint64_t at, unsigned len);

/* Devices and a TSC that answer from what they have been asked so far, so that a run
 * depends on its program alone. No interrupts. */
extern const struct vcpu_hooks guest_steady_hooks;
/* The same with what a driver meets rarely: every other exit fails, and interrupts have
 * any vector, or none. */
extern const struct vcpu_hooks guest_fickle_hooks;

/* What must hold of any vCPU between instructions, and of its shadow: the program ends
 * where it does not. */
void guest_check(const struct guest *g);

#endif
