/*
 * Shared inside sem/: effective addresses, segment checks, operand access, and the tables
 * by which sem_bind() finds a function.
 */
#ifndef SEM_INT_H
#define SEM_INT_H

#include "cpu/smp.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/exception.h"

_Static_assert((int)MMU_FAULT == (int)SEM_FAULT,
               "a fault of the MMU is one of the instruction");

static inline void *sem_reg(struct vcpu *v, unsigned off) {
    return (uint8_t *)v->gpr + off;
}

/* Real and virtual-8086 mode know no VEX prefix: 0, or SEM_FAULT with #UD. Intel SDM
 * volume 2, "VEX Encoded Instructions". */
static inline int sem_check_vex(struct vcpu *v) {
    bool known = (v->cr0 & X86_CR0_PE) && !(v->rflags & X86_FL_VM);
    return likely(known) ? 0 : sem_fault(v, X86_UD);
}

/* A serializing instruction: all that was stored before it is there for the others before
 * anything is read behind it. AMD64 APM volume 2, "Serializing Instructions". Kernels
 * rely on it, for CR3 above all. */
static inline void sem_serialize(const struct vcpu *v) {
    if (unlikely(vcpu_has_others(v)))
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static inline uint64_t sem_addr_mask(unsigned addrsize) {
    return addrsize == 8 ? ~0ull : addrsize == 4 ? 0xffffffffull : 0xffffull;
}

/* Offset within the segment. */
static inline uint64_t sem_ea(const struct vcpu *v, const struct insn *i) {
    const struct mem_operand *m = &i->mem;
    uint64_t a = v->gpr[m->base] + (v->gpr[m->index] << m->scale) + (uint64_t)m->disp;
    return a & sem_addr_mask(i->addrsize);
}

/* Checks an access that the flat bitmaps do not clear: limit, type, canonical form, null.
 * 0, or SEM_FAULT with #GP, #SS or #AC in v->fault. sem/segment.c. */
int sem_seg_check_slow(struct vcpu *v, unsigned seg, uint64_t off, unsigned len,
                       bool write);

/* Segment offset to linear address, checked. */
static inline int sem_linear(struct vcpu *v, unsigned seg, uint64_t off, unsigned len,
                             bool write, struct gva *out) {
    unsigned flat = write ? v->seg_flat_w : v->seg_flat_r;
    if (unlikely(!(flat & (1u << seg)))) {
        if (sem_seg_check_slow(v, seg, off, len, write))
            return SEM_FAULT;
    }
    *out = gva((off + v->segbase[seg]) & v->lin_mask);
    return 0;
}

/* What a failed access through SEG returns. The MMU reports a non-canonical address as
 * #GP(0); in the stack segment it is #SS(0). AMD64 APM volume 2, "#SS - Stack Exception".
 */
static inline int sem_fix_stack_fault(struct vcpu *v, unsigned seg) {
    if (seg == SEG_SS && v->mode == MODE_64 && v->fault.vector == X86_GP)
        v->fault.vector = X86_SS;
    return SEM_FAULT;
}

static inline int sem_load(struct vcpu *v, unsigned seg, uint64_t off, unsigned len,
                           uint64_t *val) {
    struct gva at;
    if (unlikely(sem_linear(v, seg, off, len, false, &at)))
        return SEM_FAULT;
    return likely(!mmu_load(v, at, len, val)) ? 0 : sem_fix_stack_fault(v, seg);
}

static inline int sem_store(struct vcpu *v, unsigned seg, uint64_t off, unsigned len,
                            uint64_t val) {
    struct gva at;
    if (unlikely(sem_linear(v, seg, off, len, true, &at)))
        return SEM_FAULT;
    return likely(!mmu_store(v, at, len, val)) ? 0 : sem_fix_stack_fault(v, seg);
}

/* --- segment.c --- */
/* Reads a descriptor of GDT or LDT; faults carry VECTOR and the selector as error code.
 * DESC[1] is the upper half of a 16-byte system descriptor in long mode, else 0. The
 * caller has excluded null selectors. */
int sem_read_desc(struct vcpu *v, uint16_t sel, uint8_t vector, uint64_t desc[2]);
/* Loads a data or stack segment register as MOV/POP do. */
int sem_load_seg(struct vcpu *v, unsigned seg, uint16_t sel);
/* Fills a segment register as in real and virtual-8086 mode. */
void sem_load_seg_real(struct vcpu *v, unsigned seg, uint16_t sel);
/* The low half of a descriptor; of a 16-byte one the caller adds the base's upper half.
 */
void sem_unpack_desc(struct segment *s, uint16_t sel, uint64_t desc);
/* Sets CS, CPL and what follows from them; calls vcpu_update_mode and the MMU. */
void sem_set_cs(struct vcpu *v, const struct segment *cs, unsigned cpl);
/* Sets the accessed bit in the table if DESC, as read, lacks it. */
int sem_set_accessed(struct vcpu *v, uint16_t sel, uint64_t desc);

/* --- system.c --- */
/* POPF and IRET share it: changes the bits of MASK and tells whoever must know. */
void sem_write_flags(struct vcpu *v, uint64_t value, uint64_t mask);
/* May SIZE bytes at PORT be accessed now? 0, or a fault. Notes I/O breakpoints in
 * v->pending_db: to be called once for each access that then takes place. */
int sem_io_check(struct vcpu *v, uint16_t port, unsigned size);
/* May the current code access SIZE ports from PORT on (IOPL and the I/O permission map)?
 * 0, or nonzero with the exception in v->fault. */
int sem_io_check(struct vcpu *v, uint16_t port, unsigned size);

/* --- event.c: software interrupts of INT n (needs the gate's DPL checked) --- */
int sem_soft_interrupt(struct vcpu *v, uint8_t vector, unsigned insn_len,
                       bool is_int3_into);

/* --- task.c --- */
enum task_reason { TASK_JMP, TASK_CALL, TASK_IRET, TASK_EVENT };
/* NEXT_RIP and FLAGS are what the old task goes on with. 0 or SEM_FAULT. */
int sem_task_switch(struct vcpu *v, uint16_t sel, enum task_reason why, uint64_t next_rip,
                    uint64_t flags, bool has_error, uint32_t error);

/* --- stack helpers, segment.c: size 2, 4 or 8; rSP moves only on success --- */
int sem_push(struct vcpu *v, unsigned size, uint64_t val);
int sem_pop(struct vcpu *v, unsigned size, uint64_t *val);
/* The bits of rSP that the stack segment's size uses. */
static inline uint64_t sem_sp_mask(const struct vcpu *v) {
    return v->mode == MODE_64 ? ~0ull : v->stack32 ? 0xffffffffull : 0xffffull;
}
static inline void sem_set_sp(struct vcpu *v, uint64_t sp) {
    uint64_t mask = sem_sp_mask(v);
    if (mask == 0xffffffffull)
        v->gpr[REG_RSP] = sp & mask;
    else
        v->gpr[REG_RSP] = (v->gpr[REG_RSP] & ~mask) | (sp & mask);
}

/* --- tables, one a file: the function for an instruction, or NULL if not of this family
 * --- */
/* For one of several vCPUs, before all others. */
insn_exec_fn *sem_bind_locked(const struct insn *i);
insn_exec_fn *sem_bind_alu(const struct insn *i);
insn_exec_fn *sem_bind_bits(const struct insn *i);
insn_exec_fn *sem_bind_move(const struct insn *i);
insn_exec_fn *sem_bind_branch(const struct insn *i);
insn_exec_fn *sem_bind_string(const struct insn *i);
insn_exec_fn *sem_bind_far(const struct insn *i);
insn_exec_fn *sem_bind_segment(const struct insn *i);
insn_exec_fn *sem_bind_system(const struct insn *i);
insn_exec_fn *sem_bind_native(const struct vcpu *v, const struct insn *i);
insn_exec_fn sem_exec_ud; /* raises #UD; sem/fault.c */

#endif
