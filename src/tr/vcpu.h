/*
 * Where the guest is while translated code runs:
 *   - host %gs base is the vCPU: gs:[offsetof(struct vcpu, x)] is our private data;
 *   - guest rax..r13, rsp included, are in the host registers of the same name;
 *   - guest r14 and r15 are in vcpu.gpr[]; host r14 (T0) and r15 (T1) are scratch;
 *   - guest vector state is in the host's registers (cpu/vec.h);
 *   - guest status flags are in one of three places, known at translation time:
 *       FLAGS_REGS  the host's flags
 *       FLAGS_MEM   tr_vcpu.flags (AH as LAHF gives it, AL = OF)
 *       FLAGS_DEAD  nowhere: nothing reads them before all of them are written
 *   - all other flags are in vcpu.rflags; the host's DF, TF, AC... stay clear.
 */
#ifndef TR_VCPU_H
#define TR_VCPU_H

#include "cpu/vcpu.h"

#define T0 REG_R14
#define T1 REG_R15

enum flags_place { FLAGS_REGS, FLAGS_MEM, FLAGS_DEAD };

#define TR_HELD 12

/* A system call or its return, as it was done last (bt/gate.c); vcpu.gate_key[] says what
 * it holds for. */
struct tr_gate_state {
    uint32_t keep;   /* flags that it does not clear */
    uint64_t select; /* tr_vcpu.select afterwards */
    void *jump;      /* tr_vcpu.jump afterwards */
    uint64_t cs, ss; /* selector, rights, limit */
    uint64_t target, sp;
    uint8_t **slot; /* of target, in the jump table */
};

/* What translated code keeps in the vCPU beside the registers: vcpu.engine. */
struct tr_vcpu {
    uint64_t host_sp;  /* the translator's stack while the guest's rSP is in the CPU */
    uint64_t resume;   /* where a stub goes back to */
    uint64_t tmp;      /* of an expansion, across its accesses */
    uint64_t spill[2]; /* of a stub */
    uint64_t held[TR_HELD]; /* host addresses that a fragment is to need again */
    void *self;             /* the vCPU */
    void *owner;            /* the dispatcher */
    uint64_t count;         /* instructions, with the switch `count` */
    uint64_t indirect_hits; /* the same */
    void *jump;             /* the table of indirect branches, or NULL */
    union {
        struct {
            uint32_t key;             /* whose table that is */
            uint16_t selected, other; /* its number, and the one before it: tc/jumps.c */
        };
        uint64_t select; /* all of this, for gates */
    };
    const uint8_t *poll; /* this vCPU's poll page */
    uint64_t here;       /* guest address of the page that is being executed */
    uint64_t x87_here;   /* the same at the last x87 instruction of shared code */
    struct tr_gate_state gate[VCPU_GATES];
    uint64_t gates;          /* gone through */
    uint64_t arg;            /* qualifies reason */
    const void *borrowed_by; /* code whose registers vcpu.gpr[] holds */
    /* Counted runs (vcpu.counted). FUEL is an address: of the fuel page plus how many
     * instructions may still begin. A fragment takes all of its own at its entry, so that
     * OWED of them are to be given back when it is left early. MARK is FUEL + OWED at the
     * last time that insns_retired was brought up to date. */
    uint64_t fuel, mark;
    uint32_t owed;
    bool fault_known; /* `fault` is what the instruction at rip raises */
    bool single;      /* go on at rip with a check for each access */
    uint32_t reason, site, status;
    uint32_t anchor_left; /* misses of anchors until one of them goes the slow way */
    uint16_t flags;       /* status flags: AH as LAHF gives them, AL = OF */
};
_Static_assert(sizeof(struct tr_vcpu) <= VCPU_ENGINE_SIZE, "it is in vcpu.engine");
_Static_assert(offsetof(struct vcpu, engine) + VCPU_ENGINE_SIZE <=
                       offsetof(struct vcpu, canary) &&
                   offsetof(struct vcpu, canary) < offsetof(struct vcpu, gpr),
               "the canary is between it and what the guest sees");

static inline struct tr_vcpu *tr_vcpu(const struct vcpu *v) {
    return (struct tr_vcpu *)(uintptr_t)v->engine;
}

/* Counts of executions, and the last targets of indirect branches: one for so many bytes
 * of code, in tables of so many pages. */
#define TR_HEAT_BITS 17
#define TR_HEAT_BYTES 3
#define TR_GUESS_BITS 14
#define TR_GUESS_BYTES 5

struct tr_counts {
    uint32_t heat[1u << TR_HEAT_BITS];   /* executions until code is hot: tr_heat() */
    uint64_t guess[1u << TR_GUESS_BITS]; /* where indirect branches went: tr_guess() */
};
_Static_assert(sizeof(struct tr_counts) <= VCPU_COUNTS_SIZE - 4096,
               "it is vcpu_counts()");

static inline struct tr_counts *tr_counts(const struct vcpu *v) {
    return vcpu_counts(v);
}

/* Where emitted code finds a field of struct vcpu, and of struct tr_vcpu, behind gs. */
#define GS(field) offsetof(struct vcpu, field)
#define GS_GPR(r) (offsetof(struct vcpu, gpr) + 8 * (r))
#define GS_COUNTS(field) (offsetof(struct tr_counts, field) - VCPU_COUNTS_SIZE)
#define GS_TR(field) (offsetof(struct vcpu, engine) + offsetof(struct tr_vcpu, field))

#endif
