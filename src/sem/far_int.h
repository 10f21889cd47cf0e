/*
 * Shared by the far control transfers (far.c, iret.c, syscall.c), event delivery
 * (event.c) and task switches (task.c): stacks that are not yet loaded into SS:rSP, and
 * the frames pushed on them (frame.c).
 *
 * The order is always: read and check everything, probe the frame's bytes, write the
 * frame, then change registers. So a fault anywhere leaves the vCPU as it was.
 */
#ifndef SEM_FAR_INT_H
#define SEM_FAR_INT_H

#include "sem/sem_int.h"

/* A stack that a transfer pushes to or pops from. */
struct sem_stack {
    struct segment ss; /* to be loaded into SS; meaningless checks-wise when wide */
    uint64_t sp;
    uint64_t mask; /* bits of sp that move */
    bool wide;     /* 64-bit addressing: no base, no limit, canonical check */
    bool sys;      /* of a more privileged level than the CPL: supervisor accesses */
    bool flat;     /* only the page tables can be against an access */
    uint32_t err;  /* selector part of a #SS error code */
};

#define SEM_FRAME_MAX 42u /* 31 parameters, 10 registers, an error code */

struct sem_frame {
    uint64_t slot[SEM_FRAME_MAX]; /* in the order of the pushes */
    unsigned n;
    unsigned size; /* of a slot: 2, 4 or 8 */
};

/* Access-rights word of a raw descriptor, as in struct segment. */
static inline uint16_t sem_desc_ar(uint64_t desc) {
    return (uint16_t)((desc >> 40) & 0xf0ff);
}

static inline unsigned sem_desc_dpl(uint64_t desc) {
    return (unsigned)(desc >> 45) & 3;
}

static inline bool sem_ar_is_code(uint16_t ar) {
    return (ar & (X86_AR_S | X86_AR_CODE)) == (X86_AR_S | X86_AR_CODE);
}

static inline bool sem_ar_is_conforming(uint16_t ar) {
    return ar & X86_AR_EXPDOWN;
}

static inline bool sem_ar_is_stack(uint16_t ar) {
    return (ar & (X86_AR_S | X86_AR_CODE | X86_AR_WRITE)) == (X86_AR_S | X86_AR_WRITE);
}

static inline bool sem_is_v86(const struct vcpu *v) {
    return v->rflags & X86_FL_VM;
}

/* Linear addresses of system structures: 64 bits in long mode even from compatibility
 * mode, where v->lin_mask is for the code that runs. */
static inline struct gva sem_sys_gva(const struct vcpu *v, uint64_t a) {
    return gva(v->long_mode ? a : a & 0xffffffff);
}

static inline uint64_t sem_next_rip(const struct vcpu *v, const struct insn *i) {
    uint64_t mask = v->mode == MODE_64 ? ~0ull : v->mode == MODE_32 ? 0xffffffff : 0xffff;
    return (v->rip + i->len) & mask;
}

/* Instead of an initializer, which would clear all the slots. */
static inline void sem_frame_begin(struct sem_frame *f, unsigned size) {
    f->n = 0;
    f->size = size;
}

static inline void sem_frame_push(struct sem_frame *f, uint64_t val) {
    f->slot[f->n++] = val;
}

/* --- frame.c --- */

/* Is ADDR canonical under the current paging mode (48 or 57 bits)? */
bool sem_canonical(const struct vcpu *v, uint64_t addr);
/* Does the guest see an AMD (or Hygon) CPU? */
bool sem_is_amd(const struct vcpu *v);
/* SS:rSP as they are. */
void sem_stack_current(const struct vcpu *v, struct sem_stack *st);
/* The stack for level DPL, from the TSS; #TS, #SS. In long mode the SS of *ST is null
 * with RPL = DPL. Needs DPL < CPL, or virtual-8086 mode. */
int sem_stack_inner(struct vcpu *v, unsigned dpl, struct sem_stack *st);
/* 64-bit stack pointer N of the TSS (0..2: RSPn, IST: at its offset); #TS. */
int sem_tss64_rsp(struct vcpu *v, unsigned offset, uint64_t *rsp);
/* Can all of F be pushed? Every fault of the push is raised here. */
int sem_frame_probe(struct vcpu *v, const struct sem_stack *st,
                    const struct sem_frame *f);
/* Writes F below ST->sp and moves it. To be preceded by sem_frame_probe(). */
int sem_frame_write(struct vcpu *v, struct sem_stack *st, const struct sem_frame *f);
/* #AC where the code at level 3 wants it: of instructions, not of frames delivered. */
int sem_stack_aligned(struct vcpu *v, const struct sem_stack *st, struct gva at,
                      unsigned size);
int sem_stack_read_slow(struct vcpu *v, const struct sem_stack *st, unsigned off,
                        unsigned size, uint64_t *val);

/* The linear address of the bytes at OFF within SS. */
static inline struct gva sem_stack_gva(const struct sem_stack *st, uint64_t off) {
    return st->wide ? gva(off) : gva((st->ss.base + off) & 0xffffffff);
}

/* LEN bytes at ST->sp + DELTA that the shadow serves and nothing else is against, or
 * NULL. */
static inline uint8_t *sem_stack_hit(const struct vcpu *v, const struct sem_stack *st,
                                     uint64_t delta, unsigned len, enum mmu_access acc) {
    const struct shadow_bank *bank = st->sys ? v->mmu->sys : v->mmu->data;

    if (unlikely(!st->flat))
        return NULL;
    return mmu_hit(bank, sem_stack_gva(st, (st->sp + delta) & st->mask), len, acc);
}

/* Reads SIZE bytes at ST->sp + OFF: what a later pop would see. */
static inline int sem_stack_read(struct vcpu *v, const struct sem_stack *st, unsigned off,
                                 unsigned size, uint64_t *val) {
    const uint8_t *p = sem_stack_hit(v, st, off, size, MMU_READ);

    if (unlikely(!p))
        return sem_stack_read_slow(v, st, off, size, val);
    *val = size == 8   ? *(const unaligned_u64 *)p
           : size == 4 ? *(const unaligned_u32 *)p
                       : *(const unaligned_u16 *)p;
    return 0;
}
/* RIP as a transfer of 64 bits to CS takes it: outside 64-bit mode Intel's CPUs drop the
 * upper half, AMD's hold it against the limit. */
uint64_t sem_cut_rip(const struct vcpu *v, const struct segment *cs, uint64_t rip);
/* Is RIP a legal target in code segment CS? #GP(0) if not. */
int sem_check_rip(struct vcpu *v, const struct segment *cs, uint64_t rip);
/* Reads a code or stack descriptor, null and table limits checked; error code is the
 * selector with VECTOR. */
int sem_read_target(struct vcpu *v, uint16_t sel, uint8_t vector, uint64_t desc[2]);
/* As the name says; the descriptor's accessed bit is set in memory if needed. */
int sem_mark_accessed(struct vcpu *v, uint16_t sel, uint64_t desc);
/* The CS register for real and virtual-8086 mode. */
struct segment sem_real_cs(const struct vcpu *v, uint16_t sel);
/* Loads CS:rIP, SS and rSP of a transfer that cannot fault any more. */
void sem_enter(struct vcpu *v, const struct segment *cs, unsigned cpl, uint64_t rip);
/* DS, ES, FS, GS that level CPL may not use become null, selector 0; their base stays. */
void sem_drop_inner_segs(struct vcpu *v, unsigned cpl);
/* Makes a segment register null and unusable, keeping SEL. */
void sem_null_seg(struct segment *s, uint16_t sel);

/* --- far.c --- */
/*
 * The common part of far returns: checks CS:RIP at ST (and SS:rSP at SS_OFF when the
 * level changes or FORCE_SS), leaving what to load in *R.
 */
struct sem_return {
    struct segment cs, ss;
    uint64_t rip, rsp;
    unsigned cpl;
    bool outer, load_ss;
};
int sem_check_return(struct vcpu *v, const struct sem_stack *st, unsigned size,
                     unsigned cs_size, unsigned ss_off, bool force_ss,
                     struct sem_return *r);
/* Loads *R; without SS, rSP becomes ST->sp moved up by RELEASE. */
void sem_commit_return(struct vcpu *v, const struct sem_stack *st, unsigned release,
                       const struct sem_return *r);

/* far.c, iret.c, syscall.c, event.c */
insn_exec_fn sem_exec_jmp_far, sem_exec_call_far, sem_exec_ret_far;
insn_exec_fn sem_exec_iret;
insn_exec_fn sem_exec_syscall, sem_exec_sysret, sem_exec_sysenter, sem_exec_sysexit;
insn_exec_fn sem_exec_int, sem_exec_int1, sem_exec_int3, sem_exec_into;

#endif
