/*
 * Stacks and frames of control transfers: where the stack of an inner level is, whether a
 * frame fits on it, and the frame's bytes; and the checks of code and stack segments that
 * all far transfers share.
 *
 * AMD64 APM volume 2, "Stack Switching" in "Segment-Protection Checks" and in "Interrupt
 * Control Transfers". Not here: who pushes what (event.c, far.c).
 */
#include "cpu/cpuid.h"
#include "sem/far_int.h"

bool sem_canonical(const struct vcpu *v, uint64_t addr) {
    unsigned shift = v->cr4 & X86_CR4_LA57 ? 7 : 16;
    return (uint64_t)((int64_t)(addr << shift) >> shift) == addr;
}

bool sem_is_amd(const struct vcpu *v) {
    return cpuid_is_amd(v->cpuid);
}

void sem_stack_current(const struct vcpu *v, struct sem_stack *st) {
    *st = (struct sem_stack){
        .ss = v->seg[SEG_SS],
        .sp = v->gpr[REG_RSP],
        .mask = sem_sp_mask(v),
        .wide = v->mode == MODE_64,
        .flat = (v->seg_flat_r & v->seg_flat_w & 1u << SEG_SS) && v->stack32,
    };
}

static int ts_fault(struct vcpu *v, uint16_t sel) {
    return sem_fault_err(v, X86_TS, sel & ~X86_SEL_RPL);
}

int sem_tss64_rsp(struct vcpu *v, unsigned offset, uint64_t *rsp) {
    if (offset + 7 > v->tr.limit)
        return ts_fault(v, v->tr.sel);
    return mmu_sys_read(v, sem_sys_gva(v, v->tr.base + offset), rsp, 8);
}

static int inner_long(struct vcpu *v, unsigned dpl, struct sem_stack *st) {
    *st = (struct sem_stack){.mask = ~0ull, .wide = true, .sys = true, .flat = true};
    sem_null_seg(&st->ss, (uint16_t)dpl);
    return sem_tss64_rsp(v, 4 + 8 * dpl, &st->sp);
}

/* SS and SP of a 16-bit or 32-bit TSS. */
static int read_tss_stack(struct vcpu *v, unsigned dpl, uint16_t *sel, uint64_t *sp) {
    bool tss32 = v->tr.ar & 8;
    unsigned width = tss32 ? 4 : 2;
    unsigned off = tss32 ? 4 + 8 * dpl : 2 + 4 * dpl;
    if (off + width + 1 > v->tr.limit)
        return ts_fault(v, v->tr.sel);
    *sp = 0;
    int rc = mmu_sys_read(v, sem_sys_gva(v, v->tr.base + off), sp, width);
    return rc ? rc : mmu_sys_read(v, sem_sys_gva(v, v->tr.base + off + width), sel, 2);
}

int sem_stack_inner(struct vcpu *v, unsigned dpl, struct sem_stack *st) {
    if (v->long_mode)
        return inner_long(v, dpl, st);
    uint16_t sel = 0;
    uint64_t sp = 0, desc[2];
    int rc = read_tss_stack(v, dpl, &sel, &sp);
    if (rc)
        return rc;
    if (!(sel & ~X86_SEL_RPL) || (sel & X86_SEL_RPL) != dpl)
        return ts_fault(v, sel);
    rc = sem_read_desc(v, sel, X86_TS, desc);
    if (rc)
        return rc;
    uint16_t ar = sem_desc_ar(desc[0]);
    if (sem_desc_dpl(desc[0]) != dpl || !sem_ar_is_stack(ar))
        return ts_fault(v, sel);
    if (!(ar & X86_AR_P))
        return sem_fault_err(v, X86_SS, sel & ~X86_SEL_RPL);
    rc = sem_mark_accessed(v, sel, desc[0]);
    if (rc)
        return rc;
    *st = (struct sem_stack){
        .sp = sp,
        .mask = ar & X86_AR_DB ? 0xffffffffull : 0xffffull,
        .sys = true,
        .err = sel & ~X86_SEL_RPL,
    };
    sem_unpack_desc(&st->ss, sel, desc[0] | 1ull << 40);
    st->flat =
        (ar & (X86_AR_DB | X86_AR_EXPDOWN)) == X86_AR_DB && st->ss.limit == 0xffffffff;
    return 0;
}

/* Offset within SS of the bytes at sp + DELTA. */
static uint64_t stack_off(const struct sem_stack *st, uint64_t delta) {
    return (st->sp + delta) & st->mask;
}

/* Limit, type and canonical form of SIZE bytes at OFF; #SS. */
static int stack_check(struct vcpu *v, const struct sem_stack *st, uint64_t off,
                       unsigned size, bool write) {
    if (st->wide) {
        if (!sem_canonical(v, off) || !sem_canonical(v, off + size - 1))
            return sem_fault_err(v, X86_SS, st->err);
        return 0;
    }
    const struct segment *ss = &st->ss;
    uint64_t last = off + size - 1;
    /* Real mode knows limits, but neither types nor null selectors. */
    bool ok =
        vcpu_is_real(v) || ((ss->ar & X86_AR_P) && (!write || (ss->ar & X86_AR_WRITE)));
    if ((ss->ar & (X86_AR_CODE | X86_AR_EXPDOWN)) == X86_AR_EXPDOWN) {
        uint64_t top = ss->ar & X86_AR_DB ? 0xffffffffull : 0xffffull;
        ok = ok && off > ss->limit && last <= top;
    } else {
        ok = ok && last <= ss->limit;
    }
    return ok ? 0 : sem_fault_err(v, X86_SS, st->err);
}

/* The whole of F in one piece, which may be written. */
static uint8_t *frame_hit(const struct vcpu *v, const struct sem_stack *st,
                          const struct sem_frame *f) {
    unsigned len = f->n * f->size;

    return sem_stack_hit(v, st, -(uint64_t)len, len, MMU_WRITE);
}

int sem_frame_probe(struct vcpu *v, const struct sem_stack *st,
                    const struct sem_frame *f) {
    if (likely(frame_hit(v, st, f)))
        return 0;
    for (unsigned k = 1; k <= f->n; k++) {
        uint64_t off = stack_off(st, -(uint64_t)(k * f->size));
        int rc = stack_check(v, st, off, f->size, true);
        if (rc)
            return rc;
        struct gva at = sem_stack_gva(st, off);
        const struct shadow_bank *bank = st->sys ? v->mmu->sys : v->mmu->data;
        if (mmu_hit(bank, at, f->size, MMU_WRITE))
            continue;
        rc = mmu_probe(v, at, f->size, MMU_WRITE, st->sys);
        if (rc)
            return rc;
    }
    return 0;
}

static void put(uint8_t *p, uint64_t val, unsigned size) {
    if (size == 8)
        *(unaligned_u64 *)p = val;
    else if (size == 4)
        *(unaligned_u32 *)p = (uint32_t)val;
    else
        *(unaligned_u16 *)p = (uint16_t)val;
}

static int stack_store(struct vcpu *v, const struct sem_stack *st, uint64_t off,
                       uint64_t val, unsigned size) {
    struct gva at = sem_stack_gva(st, off);
    if (!st->sys)
        return mmu_store(v, at, size, val);
    uint8_t *p = mmu_hit(v->mmu->sys, at, size, MMU_WRITE);
    if (unlikely(!p))
        return mmu_sys_write(v, at, &val, size);
    put(p, val, size);
    return 0;
}

int sem_frame_write(struct vcpu *v, struct sem_stack *st, const struct sem_frame *f) {
    uint8_t *all = frame_hit(v, st, f);
    for (unsigned k = 1; k <= f->n; k++) {
        uint64_t off = stack_off(st, -(uint64_t)(k * f->size));
        if (likely(all)) {
            put(all + (f->n - k) * f->size, f->slot[k - 1], f->size);
            continue;
        }
        int rc = stack_store(v, st, off, f->slot[k - 1], f->size);
        if (rc)
            return rc;
    }
    st->sp = (st->sp & ~st->mask) | stack_off(st, -(uint64_t)(f->n * f->size));
    return 0;
}

int sem_stack_aligned(struct vcpu *v, const struct sem_stack *st, struct gva at,
                      unsigned size) {
    bool checked =
        !st->sys && v->cpl == 3 && (v->cr0 & X86_CR0_AM) && (v->rflags & X86_FL_AC);
    return checked && (at.a & (size - 1)) ? sem_fault_err(v, X86_AC, 0) : 0;
}

int sem_stack_read_slow(struct vcpu *v, const struct sem_stack *st, unsigned off,
                        unsigned size, uint64_t *val) {
    uint64_t at = stack_off(st, off);
    int rc = stack_check(v, st, at, size, false);
    if (rc)
        return rc;
    struct gva lin = sem_stack_gva(st, at);
    *val = 0;
    rc = mmu_read_slow(v, lin, val, size, st->sys);
    /* Alignment comes after the page. Intel SDM volume 3, "Priority Among Simultaneous
     * Exceptions and Interrupts". The caller's stack alone: no frame is delivered here.
     */
    return rc ? rc : sem_stack_aligned(v, st, lin, size);
}

uint64_t sem_cut_rip(const struct vcpu *v, const struct segment *cs, uint64_t rip) {
    return (cs->ar & X86_AR_L) || sem_is_amd(v) ? rip : (uint32_t)rip;
}

int sem_check_rip(struct vcpu *v, const struct segment *cs, uint64_t rip) {
    bool bad =
        v->long_mode && (cs->ar & X86_AR_L) ? !sem_canonical(v, rip) : rip > cs->limit;
    return bad ? sem_fault_err(v, X86_GP, 0) : 0;
}

int sem_read_target(struct vcpu *v, uint16_t sel, uint8_t vector, uint64_t desc[2]) {
    if (!(sel & ~X86_SEL_RPL))
        return sem_fault_err(v, vector, 0);
    return sem_read_desc(v, sel, vector, desc);
}

int sem_mark_accessed(struct vcpu *v, uint16_t sel, uint64_t desc) {
    return desc & 1ull << 40 ? 0 : sem_set_accessed(v, sel, desc);
}

struct segment sem_real_cs(const struct vcpu *v, uint16_t sel) {
    struct segment cs = v->seg[SEG_CS];
    if (sem_is_v86(v)) {
        cs.ar = X86_AR_P | X86_AR_DPL | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED;
        cs.limit = 0xffff;
    }
    cs.sel = sel;
    cs.base = (uint64_t)sel << 4;
    return cs;
}

void sem_enter(struct vcpu *v, const struct segment *cs, unsigned cpl, uint64_t rip) {
    v->rip = rip;
    sem_set_cs(v, cs, cpl);
}

void sem_null_seg(struct segment *s, uint16_t sel) {
    *s = (struct segment){.sel = sel};
}

/* Null selectors become 0, whichever of the four they were; a base stays, and FS and GS
 * in 64-bit code go on with it. Intel SDM volume 2, "IRET", which forgets the selector
 * alone; processors of both vendors. */
void sem_drop_inner_segs(struct vcpu *v, unsigned cpl) {
    static const uint8_t segs[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    for (unsigned k = 0; k < ARRAY_SIZE(segs); k++) {
        struct segment *s = &v->seg[segs[k]];
        bool conforming = sem_ar_is_code(s->ar) && sem_ar_is_conforming(s->ar);
        unsigned dpl = (s->ar & X86_AR_DPL) >> X86_AR_DPL_SHIFT;
        if (!(s->ar & X86_AR_P) || (!conforming && dpl < cpl))
            *s = (struct segment){.base = s->base};
    }
}
