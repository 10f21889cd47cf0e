/*
 * Operands of the integer instructions: registers by byte offset, memory through the
 * shadow, and the six status flags as the host's LAHF and SETO give them.
 *
 * Flags are never computed here: the same instruction runs on the host and its flags are
 * taken over, so that the undefined ones come out as in translated code. They travel in
 * "packed" form: OF in bit 0, the byte of LAHF in bits 15..8 (AL and AH). Host code that
 * needs the guest's flags begins with SEM_FLAGS_IN, and all of it ends with
 * SEM_FLAGS_OUT; both work on EAX.
 *
 * This is not a header for other rooms, nor for semantics beyond the integer families.
 */
#ifndef SEM_OPERAND_H
#define SEM_OPERAND_H

#include "sem/sem_int.h"

#define SEM_INLINE static inline __attribute__((always_inline))

#define SEM_FLAGS_IN "addb $0x7f, %%al\n\tsahf\n\t"
#define SEM_FLAGS_OUT "\n\tlahf\n\tseto %%al"

/* Which operand is where: the forms for which functions are made. */
enum shape { SHAPE_RR, SHAPE_RI, SHAPE_RM, SHAPE_MR, SHAPE_MI, SHAPE_COUNT };

/* The shape of a two-operand instruction, or -1. */
static inline int sem_shape(const struct insn *i) {
    unsigned a = i->opnd[0].kind, b = i->opnd[1].kind;

    if (a == OPND_REG)
        return b == OPND_REG   ? SHAPE_RR
               : b == OPND_IMM ? SHAPE_RI
               : b == OPND_MEM ? SHAPE_RM
                               : -1;
    if (a == OPND_MEM)
        return b == OPND_REG ? SHAPE_MR : b == OPND_IMM ? SHAPE_MI : -1;
    return -1;
}

/* 1, 2, 4, 8 bytes to 0..3. */
SEM_INLINE unsigned sem_log2(unsigned size) {
    return (unsigned)__builtin_ctz(size | 16) & 3;
}

SEM_INLINE uint64_t sem_size_mask(unsigned size) {
    return size >= 8 ? ~0ull : (1ull << (size * 8)) - 1;
}

SEM_INLINE int64_t sem_sign_extend(uint64_t x, unsigned size) {
    switch (size) {
    case 1:
        return (int8_t)x;
    case 2:
        return (int16_t)x;
    case 4:
        return (int32_t)x;
    default:
        return (int64_t)x;
    }
}

SEM_INLINE uint64_t sem_bytes_get(const void *p, unsigned size) {
    switch (size) {
    case 1:
        return *(const uint8_t *)p;
    case 2:
        return *(const unaligned_u16 *)p;
    case 4:
        return *(const unaligned_u32 *)p;
    default:
        return *(const unaligned_u64 *)p;
    }
}

SEM_INLINE void sem_bytes_put(void *p, unsigned size, uint64_t val) {
    switch (size) {
    case 1:
        *(uint8_t *)p = (uint8_t)val;
        break;
    case 2:
        *(unaligned_u16 *)p = (uint16_t)val;
        break;
    case 4:
        *(unaligned_u32 *)p = (uint32_t)val;
        break;
    default:
        *(unaligned_u64 *)p = val;
    }
}

/* A register of SIZE bytes at byte offset OFF of vcpu.gpr. */
SEM_INLINE uint64_t sem_get(const struct vcpu *v, unsigned off, unsigned size) {
    return sem_bytes_get((const uint8_t *)v->gpr + off, size);
}

/* 32-bit results clear the upper half. */
SEM_INLINE void sem_put(struct vcpu *v, unsigned off, unsigned size, uint64_t val) {
    if (size == 4)
        sem_bytes_put((uint8_t *)v->gpr + off, 8, (uint32_t)val);
    else
        sem_bytes_put((uint8_t *)v->gpr + off, size, val);
}

SEM_INLINE unsigned sem_flags_pack(const struct vcpu *v) {
    return ((unsigned)v->rflags & 0xd5) << 8 | ((unsigned)v->rflags >> 11 & 1);
}

/* Takes the flags of MASK (constant) over from packed FL. */
SEM_INLINE void sem_flags_set(struct vcpu *v, unsigned fl, unsigned mask) {
    unsigned f = (fl >> 8 & 0xd5) | (fl & 1) << 11;
    v->rflags = (v->rflags & ~(uint64_t)mask) | (f & mask);
}

/* Condition C (0..15, as in the opcode). */
SEM_INLINE bool sem_cond(uint64_t f, unsigned c) {
    bool less = !(f & X86_FL_SF) != !(f & X86_FL_OF), r;

    switch (c >> 1) {
    case 0:
        r = f & X86_FL_OF;
        break;
    case 1:
        r = f & X86_FL_CF;
        break;
    case 2:
        r = f & X86_FL_ZF;
        break;
    case 3:
        r = f & (X86_FL_CF | X86_FL_ZF);
        break;
    case 4:
        r = f & X86_FL_SF;
        break;
    case 5:
        r = f & X86_FL_PF;
        break;
    case 6:
        r = less;
        break;
    default:
        r = less || (f & X86_FL_ZF);
    }
    return r != (bool)(c & 1);
}

/* The instruction's memory operand. 0 or SEM_FAULT. */
SEM_INLINE int sem_load_mem(struct vcpu *v, const struct insn *i, unsigned size,
                            uint64_t *val) {
    return sem_load(v, i->mem.seg, sem_ea(v, i), size, val);
}

SEM_INLINE int sem_store_mem(struct vcpu *v, const struct insn *i, unsigned size,
                             uint64_t val) {
    return sem_store(v, i->mem.seg, sem_ea(v, i), size, val);
}

/* Operand N of SIZE bytes, whatever its kind. 0 or SEM_FAULT. */
SEM_INLINE int sem_read(struct vcpu *v, const struct insn *i, unsigned n, unsigned size,
                        uint64_t *val) {
    const struct operand *o = &i->opnd[n];

    if (o->kind == OPND_MEM)
        return sem_load_mem(v, i, size, val);
    *val = o->kind == OPND_REG ? sem_get(v, o->off, size) : (uint64_t)i->imm;
    return 0;
}

SEM_INLINE int sem_write(struct vcpu *v, const struct insn *i, unsigned n, unsigned size,
                         uint64_t val) {
    const struct operand *o = &i->opnd[n];

    if (o->kind == OPND_MEM)
        return sem_store_mem(v, i, size, val);
    sem_put(v, o->off, size, val);
    return 0;
}

/*
 * A place of up to 16 bytes that is read and written: a register or memory whose write
 * permission has been checked. sem_rmw_close() makes the change final; it cannot fault.
 */
struct rmw {
    void *p;
    bool window;
    bool reg32; /* the upper half of the register is to be cleared */
    struct mmu_window w;
};

/* Memory at OFF of SEG. sem/move.c. 0 or SEM_FAULT. */
int sem_rmw_open_at(struct vcpu *v, struct rmw *r, unsigned seg, uint64_t off,
                    unsigned size);

/* Operand N. 0 or SEM_FAULT. */
static inline int sem_rmw_open(struct vcpu *v, const struct insn *i, unsigned n,
                               unsigned size, struct rmw *r) {
    if (i->opnd[n].kind == OPND_MEM)
        return sem_rmw_open_at(v, r, i->mem.seg, sem_ea(v, i), size);
    r->p = sem_reg(v, i->opnd[n].off);
    r->window = false;
    r->reg32 = size == 4;
    return 0;
}

static inline void sem_rmw_close(struct vcpu *v, struct rmw *r) {
    if (r->reg32)
        *(uint64_t *)r->p = *(uint32_t *)r->p;
    if (r->window)
        mmu_window_commit(v, &r->w);
}

/* PUSH and POP: rSP moves only when the access succeeded. 0 or SEM_FAULT. */
SEM_INLINE int sem_push_inline(struct vcpu *v, unsigned size, uint64_t val) {
    uint64_t sp = (v->gpr[REG_RSP] - size) & sem_sp_mask(v);

    if (sem_store(v, SEG_SS, sp, size, val))
        return SEM_FAULT;
    sem_set_sp(v, sp);
    return 0;
}

/* The caller moves rSP, after whatever can still fail. */
SEM_INLINE int sem_top_inline(struct vcpu *v, unsigned size, uint64_t *val) {
    return sem_load(v, SEG_SS, v->gpr[REG_RSP] & sem_sp_mask(v), size, val);
}

/* Host pointer for a read and write of the memory operand, or NULL: take the slow way. */
SEM_INLINE uint8_t *sem_rmw_hit(struct vcpu *v, const struct insn *i, unsigned size) {
    unsigned seg = i->mem.seg;

    if (unlikely(!(v->seg_flat_w & (1u << seg))))
        return NULL;
    return mmu_hit(v->mmu->data, gva((sem_ea(v, i) + v->segbase[seg]) & v->lin_mask),
                   size, MMU_WRITE);
}

#endif
