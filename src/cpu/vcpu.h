/*
 * The guest vCPU: everything that the architecture calls the processor's state, and
 * before it what engines keep beside that. cpu/state.def lists the former, part by part.
 *
 * What is exact when: `rip` is the address of the instruction being executed
 * (interpreter) or next to be executed (between instructions). `rflags` is always exact
 * in the interpreter. `vec` is exact only while !vec_live (cpu/vec.h).
 *
 * Effective values: seg[].base is the hidden base as loaded. Memory operands use
 * `segbase[]`, which is 0 for CS, DS, ES and SS in 64-bit mode. `seg_flat_r/w` has a bit
 * for each segment register through which an access of that kind needs no further check
 * (64-bit mode, or a present, suitable type with base anything and limit 4 GiB - 1).
 * vcpu_update_mode() recomputes all of these and must be called after any change to CS,
 * SS, DS, ES, FS, GS, CR0, CR4, EFER, RFLAGS.VM or the CPL.
 *
 * Locking: all of it belongs to the vCPU's thread, except `events`, which other threads
 * may set atomically through vcpu_raise().
 */
#ifndef CPU_VCPU_H
#define CPU_VCPU_H

#include "base/counters.h"
#include "base/types.h"
#include "cpu/exit.h"
#include "cpu/vcpu_shadow.h"

enum vcpu_reg {
    REG_RAX,
    REG_RCX,
    REG_RDX,
    REG_RBX,
    REG_RSP,
    REG_RBP,
    REG_RSI,
    REG_RDI,
    REG_R8,
    REG_R9,
    REG_R10,
    REG_R11,
    REG_R12,
    REG_R13,
    REG_R14,
    REG_R15,
    REG_ZERO, /* always 0: the base or index of an operand that has none */
    REG_RIP,  /* vcpu.rip seen as a base register */
    REG_COUNT
};

enum vcpu_seg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

struct segment {
    uint16_t sel;
    uint16_t ar;    /* X86_AR_*; P clear: unusable */
    uint32_t limit; /* in bytes, granularity applied */
    uint64_t base;
};

struct desc_table {
    uint64_t base;
    uint16_t limit;
};

/* An exception on its way to the guest. */
struct fault {
    uint8_t vector;
    bool has_error;
    bool trap; /* delivered after the instruction (rip already advanced) */
    uint32_t error;
    uint64_t addr; /* CR2 for #PF */
    uint32_t dr6;  /* bits to set in DR6 for #DB */
};

/* How the current code is fetched, decoded and protected. */
enum cpu_mode {
    MODE_16,
    MODE_32,
    MODE_64
}; /* default operand size of CS; MODE_64: long mode, CS.L */

enum vcpu_event {
    VCPU_EVENT_KICK = 1u << 0, /* leave the engine: the run loop has work */
    VCPU_EVENT_IRQ = 1u << 1,  /* the interrupt controllers hold a vector for us */
    VCPU_EVENT_NMI = 1u << 2,
    VCPU_EVENT_STOP = 1u << 3,   /* the run is over (power off, reset, debug exit) */
    VCPU_EVENT_CALL = 1u << 4,   /* others wait for vcpu_serve(): cpu/smp.h */
    VCPU_EVENT_ACTION = 1u << 5, /* leave the engine: the run loop calls vcpu_act() */
    VCPU_EVENT_DEBUG = 1u << 6,  /* leave the engine: see vcpu.hit. Its own thread's */
};

/* What an engine leaves its run for. */
#define VCPU_EVENTS_LEAVE                                                                \
    (VCPU_EVENT_KICK | VCPU_EVENT_STOP | VCPU_EVENT_CALL | VCPU_EVENT_ACTION |           \
     VCPU_EVENT_DEBUG)

/* Why a debugger's stop has come (cpu/stops.h): where, of a watched range the first byte
 * that was touched. */
enum vcpu_hit_why { VCPU_HIT_NONE, VCPU_HIT_BREAK, VCPU_HIT_WATCH, VCPU_HIT_STEP };
struct vcpu_hit {
    uint64_t at;
    uint8_t why; /* enum vcpu_hit_why */
};

struct vcpu;

/* What the rest of the machine does for the vCPU. Installed by machine/. */
struct vcpu_hooks {
    /* Carries out a synchronous exit: counts it, finds the device, fills e->data. */
    void (*exit)(void *arg, struct vcpu *v, struct exit *e);
    /* Takes the vector of the highest-priority interrupt, or -1 (spurious: nothing). */
    int (*irq_ack)(void *arg);
    /* Guest TSC now. */
    uint64_t (*tsc)(void *arg);
    void (*tsc_write)(void *arg, uint64_t value);
    /* CR8: the task-priority register, bits 7..4 of the APIC's TPR. */
    unsigned (*cr8_read)(void *arg);
    void (*cr8_write)(void *arg, unsigned value);
    /* The A20 gate. */
    bool (*a20)(void *arg);
    /* Its thread is about to let others run, for a while in which it executes nothing;
     * and executes again: then its TLB may be emptied. At a quiet place, IN (cpu/smp.h).
     */
    void (*away)(void *arg, bool away);
    /* An engine with a local APIC of its own: it ended the level-triggered VECTOR. */
    void (*eoi)(void *arg, uint8_t vector);
};

struct mmu;
struct mem;
struct interp;
struct cpuid_model;
struct vcpu_smp;
struct vcpu_stops;

/* Shortcuts that an engine takes through system calls and their returns. */
#define VCPU_GATES 4

/* Bytes for an engine's own; and for what it counts, in front of the vCPU, where emitted
 * code finds it at the same distance from each. A page right before the vCPU is nobody's.
 */
#define VCPU_ENGINE_SIZE 640u
#define VCPU_COUNTS_SIZE (644u << 10)

/* The standard format as far as AVX-512: 2688 bytes on Intel's CPUs, 2432 on AMD's. */
#define VCPU_XSAVE_SIZE 2688u

struct vcpu {
    /* --- what engines keep beside the architecture. It comes first: an overrun of what
     * the guest sees goes away from it, and over `canary` at the other end
     * (vcpu_intact()). --- */
    struct mmu *mmu;
    struct counters *cnt;
    struct mem *mem;
    const struct vcpu_hooks *hooks;
    void *hooks_arg;
    const struct cpuid_model *cpuid;
    /* The parked image has this host address as that of the last x87 instruction, or
     * x87_at says where it is: if that is the engine's code, fip, fcs and fop become what
     * they are to the guest. NULL: the engine has no code. */
    void (*x87_ran)(struct vcpu *v, uint64_t host_ip);
    uint32_t x87_at; /* in the engine's code, 0: none; where the host does not keep FIP */
    bool step;       /* the engine comes back after each piece of code */
    bool away;       /* user code of this address space is run elsewhere (direct/) */
    bool single;     /* a debugger's: the run loop has it step */
    const struct vcpu_stops *stops; /* a debugger's (cpu/stops.h); NULL: none */
    struct vcpu_hit hit;            /* the last of these, until it is taken */
    /* The page of code at linear address PAGE, in which there are breakpoints, is at HOST
     * for fetches from now on. NULL: the engine looks itself. */
    void (*code_mapped)(struct vcpu *v, uint64_t page, uint8_t *host);
    uint32_t gate_key[VCPU_GATES]; /* what each shortcut holds for; 0: it does not */
    struct vcpu_shadow shadow;     /* the MMU's */
    struct fault fault;            /* valid when a semantic function returns SEM_FAULT */
    uint64_t tsc_base;             /* guest TSC = host TSC + tsc_base, when tsc_host */
    /* A counted run: time is the number of instructions retired, and an engine raises
     * VCPU_EVENT_KICK exactly when insns_retired has reached `stop`. The hooks find
     * insns_retired exact, may move `stop`, and set leave_code to be noticed. Random
     * numbers come from `random`. */
    uint64_t stop;
    uint64_t random;
    struct vcpu_smp *member; /* its part in the machine's group; NULL: it is alone */
    _Alignas(
        64) uint8_t engine[VCPU_ENGINE_SIZE]; /* as the engine lays it out (tr/vcpu.h) */
    uint64_t canary[2];

    /* --- at hand for emitted code and the interpreter's inner loop: what follows from
     * the architecture (vcpu_update_mode()), and what engines watch --- */
    uint64_t segbase[SEG_COUNT]; /* effective, for operands */
    uint64_t lin_mask;           /* linear addresses are cut to this */
    uint32_t events;             /* VCPU_EVENT_*, atomic */
    uint32_t vec_mask; /* XSAVE components that are parked and loaded: cpu/vec.c */
    uint8_t seg_flat_r, seg_flat_w; /* bit per enum vcpu_seg */
    bool long_mode;                 /* EFER.LMA */
    bool stack32;    /* SS.B, or 64-bit mode: stack pointer is not 16 bits wide */
    bool vec_live;   /* guest vector state is in the host's registers */
    bool leave_code; /* the block or fragment is left behind this instruction: its code
                      * was written, or somebody is to be noticed */
    bool counted;    /* a counted run: see `stop` */
    bool tsc_host;   /* see tsc_base; else ask the hook */
    uint8_t mode;    /* enum cpu_mode; of one word with the next three (bt/gate.c) */

    /* --- the architectural state. cpu/state.def lists each byte from here on; the fields
     * are ordered so that nothing is between them. --- */
    uint8_t cpl;
    bool irq_shadow; /* sti, mov ss, pop ss: no interrupt before the next instruction ends
                      */
    bool halted;
    uint32_t pending_db; /* DR6 bits of a #DB that is due at the next boundary: a data or
                          * I/O breakpoint that the instruction hit, a single step, the T
                          * bit of a task */
    union {
        uint64_t gpr[REG_COUNT]; /* enum vcpu_reg: an operand's base may be any of them */
        struct {
            uint64_t general[16];
            uint64_t zero;
            uint64_t rip;
        };
    };
    uint64_t rflags;
    struct segment seg[SEG_COUNT];
    struct segment ldtr, tr;
    struct desc_table gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4;
    uint64_t pdpte[4]; /* PAE paging's, as they were when CR3 was loaded */
    uint64_t efer, xcr0;
    uint64_t dr[8]; /* dr[4], dr[5] unused */
    uint64_t star, lstar, cstar, sfmask;
    uint64_t kernel_gs_base, tsc_aux;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, misc_enable, spec_ctrl;
    uint64_t mtrr_deftype, mtrr_fixed[11], mtrr_var[16];
    uint64_t hwcr, syscfg, mcg_status, tsc_adjust;
    /* x87 pointers, tracked because the host's would be ours (sem/native/). After
     * translated code they follow from the host's; see x87_ran. */
    uint64_t fip, fdp;
    uint16_t fcs, fds, fop;
    bool nmi_blocked;     /* until iret */
    uint8_t state_end[0]; /* of what is not in the image */

    _Alignas(64) uint8_t vec[VCPU_XSAVE_SIZE]; /* XSAVE image, standard format */
};

_Static_assert(offsetof(struct vcpu, zero) == offsetof(struct vcpu, gpr) + REG_ZERO * 8,
               "zero");
_Static_assert(offsetof(struct vcpu, rip) == offsetof(struct vcpu, gpr) + REG_RIP * 8,
               "rip");

/* A vCPU, and its counts in front of it, all zero; NULL: no memory. */
struct vcpu *vcpu_new(void);
void vcpu_free(struct vcpu *v); /* V may be NULL */
/* The VCPU_COUNTS_SIZE bytes for what V's engine counts. Of a vCPU from vcpu_new(). */
static inline void *vcpu_counts(const struct vcpu *v) {
    return (uint8_t *)(uintptr_t)v - VCPU_COUNTS_SIZE;
}

/*
 * State after power-up: real mode at f000:fff0.
 * AMD64 APM volume 2, "Processor Initialization and Long Mode Activation".
 * Keeps the pointers to the world.
 */
void vcpu_reset(struct vcpu *v);
/* State after INIT: as vcpu_reset(), but for what INIT leaves alone: vector and x87
 * state, MSRs but EFER, XCR0, the cache bits of CR0, and an NMI that waits (it may have
 * come after the INIT). On the vCPU's thread, parked. */
void vcpu_init(struct vcpu *v);

/* Recomputes mode, cpl-dependent and segment-derived fields; see the head of the file. */
void vcpu_update_mode(struct vcpu *v);

/* Nothing has run over what lies between the guest's state and ours. */
#define VCPU_CANARY 0x7d3f9a1c5be80246ull
static inline bool vcpu_intact(const struct vcpu *v) {
    return v->canary[0] == VCPU_CANARY && v->canary[1] == ~VCPU_CANARY;
}

/* Sets event bits from any thread. */
static inline void vcpu_raise(struct vcpu *v, uint32_t events) {
    __atomic_or_fetch(&v->events, events, __ATOMIC_RELEASE);
}

static inline void vcpu_clear(struct vcpu *v, uint32_t events) {
    __atomic_and_fetch(&v->events, ~events, __ATOMIC_ACQ_REL);
}

static inline uint32_t vcpu_events(const struct vcpu *v) {
    return __atomic_load_n(&v->events, __ATOMIC_RELAXED);
}

/* The MSRs of system calls, EFER, CR0, CR4 or DR7 are not what they were: no shortcut
 * holds any more. */
static inline void vcpu_forget_gates(struct vcpu *v) {
    for (unsigned n = 0; n < VCPU_GATES; n++)
        v->gate_key[n] = 0;
}

/* Instructions until an engine has to stop. */
static inline uint64_t vcpu_left(const struct vcpu *v) {
    uint64_t retired = v->cnt->insns_retired;

    return !v->counted ? UINT64_MAX : v->stop > retired ? v->stop - retired : 0;
}

static inline bool vcpu_is_real(const struct vcpu *v) {
    return !(v->cr0 & 1);
}

/* A screen of text: all of the state but vector registers. SIZE bytes at BUF. */
void vcpu_dump(const struct vcpu *v, char *buf, size_t size);

#endif
