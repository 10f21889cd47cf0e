/*
 * What the translator is given once, by the dispatcher: the vCPU, its options, the places
 * that emitted code names, and whom to ask what is known of an address. The verifier and
 * listings look the same places up here.
 */
#ifndef TR_ENV_H
#define TR_ENV_H

#include "base/os.h"
#include "decode/insn.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "tr/code.h"
#include "tr/options.h"
#include "tr/vcpu.h"

/* Common code at the start of the cache, RX. */
struct tr_stubs {
    uint8_t *enter, *leave, *leave_bare;
    uint8_t *anchor[2]; /* by enum mmu_access: read, write */
    uint8_t *hot, *link, *link_regs, *indirect, *check, *check_shared;
    uint8_t *slow, *emulate, *callout, *transfer;
    uint8_t *gate[VCPU_GATES]; /* by enum tr_gate */
};

struct tr_span;

/* What is known of guest code, and who is told of it; each with `arg` first. */
struct tr_advice {
    /* Code is about to be read from that page of RAM: from now on, until the fragment is
     * kept or given up, nobody stores there without being seen. */
    void (*reads)(void *arg, uint8_t *page);
    /* Is there a hot path at VA, on PAGE, for KEY? */
    bool (*is_hot)(void *arg, uint64_t va, const uint8_t *page, uint32_t key);
    /* Is I, at VA on PAGE, to be a callout, since it keeps trapping? It is no branch. */
    bool (*traps)(void *arg, const struct insn *i, uint64_t va, const uint8_t *page);
    /* A copy of such an instruction, made in SPAN, whose callout counts its traps. NULL:
     * no room. */
    struct insn *(*trapping)(void *arg, struct tr_span *span, const struct insn *i,
                             uint64_t va, uint8_t *page);
    /* Is what would be checked together with the access at VA, on PAGE, no good? */
    bool (*no_group)(void *arg, uint64_t va, const uint8_t *page);
    /* No anchor of a pointer's own there: it goes from page to page. */
    bool (*no_anchor)(void *arg, uint64_t va, const uint8_t *page);
    /* Is the instruction at CODE, in RAM, never to be translated, since a debugger's
     * breakpoint is or was there? What comes before it ends there. */
    bool (*breaks)(void *arg, const uint8_t *code);
    /* Has the division at VA raised #DE? */
    bool (*division_faults)(void *arg, uint64_t va);
};

/* The table of indirect branches (tr_vcpu.jump) has 2^TR_JUMP_BITS entries. */
#define TR_JUMP_BITS 16
_Static_assert(TR_JUMP_BITS == 16, "emitted code takes the low word");

struct tr_env {
    struct vcpu *v; /* the one for which it translates now */
    bool nowhere;   /* the code is at no address of V's: what comes behind its page is not
                     * known */
    struct tr_options opt;
    bool smp;       /* code is executed while it is changed, and memory is shared */
    bool no_splits; /* locked accesses across a cache line are not made by the host */
    bool has_bmi2;  /* the host */
    struct os_code code;
    bool sealed;              /* it can be written only where it is open: seal.c */
    uint8_t *open, *open_end; /* RW: a fragment is made there; NULL: none */
    uint8_t *common_end;      /* RX: common code ends here, and translated code begins */
    const uint8_t *records;   /* where records of code lie */
    size_t records_size;
    struct tr_stubs stub;
    uint8_t *poll_page; /* readable, or not while a kick is pending; with SMP each vCPU
                         * has one of its own (tr_vcpu.poll) */
    const struct tr_advice *advice;
    void *arg;
};

/* RX - RW */
static inline ptrdiff_t tr_delta(const struct tr_env *env) {
    return env->code.rx - env->code.rw;
}

/* Emitted code names a record to stubs by its offset. */
static inline uint64_t tr_record_number(const struct tr_env *env, const void *record) {
    return (uint64_t)((uintptr_t)record - (uintptr_t)env->records);
}

static inline void *tr_record_at(const struct tr_env *env, uint64_t number) {
    return (void *)((uintptr_t)env->records + number);
}

/* A place of code: where its first byte is in RAM, on the page at PAGE (host). */
static inline uint64_t tr_place(const struct tr_env *env, const uint8_t *page,
                                uint64_t va) {
    return (uint64_t)(page - mem_ram_base(env->v->mem)) + (va & 4095);
}

/* Both tables are the vCPU's own: several that count in one would have its cache lines go
 * to and fro between the host's cores all the time. Neighbours in code have neighbouring
 * slots, for they are executed one after the other; where a page's slots are, and in
 * which order lines of them, is a hash. */
static inline unsigned tr_slot(uint64_t place, unsigned bits, unsigned bytes) {
    unsigned in_page = 12 - bytes;
    uint64_t h = (place >> 12) * 0x9e3779b97f4a7c15ull;
    unsigned lines = (unsigned)(h >> 8) & ((1u << in_page) - 16);

    return (unsigned)(h >> (64 - (bits - in_page))) << in_page |
           ((unsigned)((place & 4095) >> bytes) ^ lines);
}

static inline unsigned tr_guess_slot(uint64_t place) {
    return tr_slot(place, TR_GUESS_BITS, TR_GUESS_BYTES);
}

static inline unsigned tr_heat_slot(uint64_t place) {
    return tr_slot(place, TR_HEAT_BITS, TR_HEAT_BYTES);
}

static inline uint64_t *tr_guess(const struct tr_env *env, uint64_t place) {
    return &tr_counts(env->v)->guess[tr_guess_slot(place)];
}

static inline uint32_t *tr_heat(const struct tr_env *env, uint64_t place) {
    return &tr_counts(env->v)->heat[tr_heat_slot(place)];
}

/* System calls and their returns have stubs of their own. */
static inline bool tr_transfers(const struct insn *i) {
    return i->op == OP_syscall || i->op == OP_sysret || i->op == OP_sysenter ||
           i->op == OP_sysexit;
}

enum tr_gate {
    TR_GATE_SYSCALL,
    TR_GATE_SYSRET,
    TR_GATE_SYSENTER,
    TR_GATE_SYSEXIT,
    TR_GATE_NONE,
};

/* The gate that I, in a mode, is to go through. */
enum tr_gate tr_gate_of(const struct insn *i, unsigned mode);

/* Is RX where translated code leaves an instruction to C? */
static inline bool tr_is_callout(const struct tr_env *env, const uint8_t *rx) {
    for (unsigned n = 0; n < VCPU_GATES; n++)
        if (rx == env->stub.gate[n])
            return true;
    return rx == env->stub.callout || rx == env->stub.transfer;
}

#endif
