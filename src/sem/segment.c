/*
 * Segmentation: the checks that the flat bitmaps do not clear, reading and loading
 * descriptors, and the stack helpers that everything else uses.
 *
 * A descriptor travels as one 64-bit value, as it lies in memory. Nothing in the vCPU
 * changes before the last check, the accessed bit in the table included.
 * AMD64 APM volume 2, "Segmented Virtual Memory".
 *
 * The instructions that use this are in descinsn.c.
 */
#include "cpu/cpuid.h"
#include "sem/segment_int.h"

/* --- access checks --- */

static bool canonical(uint64_t a) {
    return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

static int seg_fault(struct vcpu *v, unsigned seg) {
    return sem_fault_err(v, seg == SEG_SS ? X86_SS : X86_GP, 0);
}

static bool type_allows(const struct segment *s, bool write) {
    if (!(s->ar & X86_AR_P) || !(s->ar & X86_AR_S))
        return false;
    if (s->ar & X86_AR_CODE)
        return !write && (s->ar & X86_AR_WRITE);
    return !write || (s->ar & X86_AR_WRITE);
}

/* The last byte decides; a segment of 4 GiB wraps. */
static bool limit_allows(const struct segment *s, bool expand_down, uint64_t off,
                         unsigned len) {
    uint64_t last = off + len - 1;
    if (!expand_down)
        return s->limit == 0xffffffffu || last <= s->limit;
    uint64_t top = s->ar & X86_AR_DB ? 0xffffffffu : 0xffffu;
    return off > s->limit && last <= top;
}

/* Intel SDM volume 3, "Alignment Requirements by Data Type"; of vector operands only
 * those of up to 8 bytes raise #AC on Intel's CPUs (volume 2, "Exceptions Type 4"). */
static unsigned required_alignment(const struct vcpu *v, unsigned len) {
    if (len == 6)
        return 4;
    if (len == 10)
        return 8;
    unsigned low = len & -len;
    if (low > 8)
        return cpuid_is_amd(v->cpuid) ? 16 : 1;
    return low ? low : 1;
}

int sem_seg_check_slow(struct vcpu *v, unsigned seg, uint64_t off, unsigned len,
                       bool write) {
    const struct segment *s = &v->seg[seg];
    uint64_t lin = (off + v->segbase[seg]) & v->lin_mask;
    unsigned last = len ? len - 1 : 0;
    if (v->mode == MODE_64) {
        if (!canonical(lin) || (!canonical(lin + last) && cpuid_is_amd(v->cpuid)))
            return seg_fault(v, seg);
    } else {
        bool checked = (v->cr0 & X86_CR0_PE) && !(v->rflags & X86_FL_VM);
        bool down = checked && !(s->ar & X86_AR_CODE) && (s->ar & X86_AR_EXPDOWN);
        if ((checked && !type_allows(s, write)) ||
            !limit_allows(s, down, off, len ? len : 1))
            return seg_fault(v, seg);
    }
    if ((v->cr0 & X86_CR0_AM) && (v->rflags & X86_FL_AC) && v->cpl == 3 &&
        (lin & (required_alignment(v, len) - 1)))
        return sem_fault_err(v, X86_AC, 0);
    /* An operand that runs out of the lower half: Intel's CPUs look at its alignment
     * first. */
    return v->mode == MODE_64 && !canonical(lin + last) ? seg_fault(v, seg) : 0;
}

/* --- descriptors --- */

static uint64_t table_mask(const struct vcpu *v) {
    return v->long_mode ? ~0ull : 0xffffffffull;
}

/* Where SEL's descriptor lies; false: beyond its table's limit by at least one of SIZE
 * bytes, or no LDT. */
static bool desc_place(const struct vcpu *v, uint16_t sel, unsigned size,
                       struct gva *at) {
    uint32_t off = sel & ~7u;
    bool local = sel & X86_SEL_TI;
    if (local && !(v->ldtr.ar & X86_AR_P))
        return false;
    if (off + size - 1 > (local ? v->ldtr.limit : v->gdtr.limit))
        return false;
    *at = gva(((local ? v->ldtr.base : v->gdtr.base) + off) & table_mask(v));
    return true;
}

/* LDT, TSS and call gate take 16 bytes in long mode. */
static bool is_wide(const struct vcpu *v, uint64_t desc) {
    unsigned type = (unsigned)(desc >> 40) & 0x1f;
    return v->long_mode && (type == X86_DESC_LDT || type == X86_DESC_TSS32 ||
                            type == X86_DESC_TSS32_BUSY || type == X86_DESC_CALLGATE32);
}

int sem_probe_desc(struct vcpu *v, uint16_t sel, uint64_t desc[2], bool *found) {
    struct gva at;
    desc[0] = desc[1] = 0;
    *found = false;
    if (!desc_place(v, sel, 8, &at))
        return 0;
    if (mmu_sys_read(v, at, &desc[0], 8))
        return SEM_FAULT;
    if (is_wide(v, desc[0])) {
        if (!desc_place(v, sel, 16, &at))
            return 0;
        if (mmu_sys_read(v, gva(at.a + 8), &desc[1], 8))
            return SEM_FAULT;
    }
    *found = true;
    return 0;
}

int sem_read_desc(struct vcpu *v, uint16_t sel, uint8_t vector, uint64_t desc[2]) {
    bool found;
    if (sem_probe_desc(v, sel, desc, &found))
        return SEM_FAULT;
    return found ? 0 : sem_fault_err(v, vector, sel & ~X86_SEL_RPL);
}

void sem_unpack_desc(struct segment *s, uint16_t sel, uint64_t desc) {
    uint32_t limit = (uint32_t)(desc & 0xffff) | ((uint32_t)(desc >> 32) & 0xf0000);
    s->sel = sel;
    s->ar = (uint16_t)((desc >> 40) & 0xf0ff);
    s->limit = s->ar & X86_AR_G ? limit << 12 | 0xfff : limit;
    s->base = ((desc >> 16) & 0xffffff) | ((desc >> 32) & 0xff000000);
}

/* ORs BITS into byte 5 of SEL's descriptor, which is DESC: a locked access, and another
 * CPU may have come before us. AMD64 APM volume 2, "Processor Bus Lock"; Intel SDM volume
 * 3, "Automatic Locking". A task that it has made busy is not ours; what else it has put
 * in the descriptor's place is not marked, for it was not loaded. */
int sem_mark_desc(struct vcpu *v, uint16_t sel, uint64_t desc, uint8_t bits) {
    struct gva at;
    uint32_t high = (uint32_t)(desc >> 32), old = high;
    if (!desc_place(v, sel, 8, &at))
        return sem_fault_err(v, X86_GP, sel & ~X86_SEL_RPL);
    at = gva((at.a + 4) & table_mask(v));
    if (mmu_sys_exchange(v, at, &old, high | (uint32_t)bits << 8))
        return SEM_FAULT;
    return old != high && bits == 2 ? sem_fault_err(v, X86_GP, sel & ~X86_SEL_RPL) : 0;
}

int sem_set_accessed(struct vcpu *v, uint16_t sel, uint64_t desc) {
    if ((desc >> 40) & X86_AR_ACCESSED)
        return 0;
    return sem_mark_desc(v, sel, desc, X86_AR_ACCESSED);
}

/* --- loading --- */

/* In real mode limit, G and D stay what protected mode left there ("big real mode"). */
void sem_load_seg_real(struct vcpu *v, unsigned seg, uint16_t sel) {
    struct segment *s = &v->seg[seg];
    uint16_t kept = s->ar & (X86_AR_DB | X86_AR_G);
    s->sel = sel;
    s->base = (uint64_t)sel << 4;
    s->ar = X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED;
    if (v->rflags & X86_FL_VM) {
        s->ar |= X86_AR_DPL;
        s->limit = 0xffff;
    } else {
        s->ar |= kept;
    }
    vcpu_update_mode(v);
}

static int check_stack_seg(struct vcpu *v, uint16_t sel, uint16_t ar) {
    unsigned dpl = (ar & X86_AR_DPL) >> X86_AR_DPL_SHIFT;
    uint16_t kind = ar & (X86_AR_S | X86_AR_CODE | X86_AR_WRITE);
    if ((sel & X86_SEL_RPL) != v->cpl || dpl != v->cpl ||
        kind != (X86_AR_S | X86_AR_WRITE))
        return sem_fault_err(v, X86_GP, sel & ~X86_SEL_RPL);
    return ar & X86_AR_P ? 0 : sem_fault_err(v, X86_SS, sel & ~X86_SEL_RPL);
}

static int check_data_seg(struct vcpu *v, uint16_t sel, uint16_t ar) {
    unsigned dpl = (ar & X86_AR_DPL) >> X86_AR_DPL_SHIFT;
    unsigned rpl = sel & X86_SEL_RPL;
    bool code = ar & X86_AR_CODE;
    bool conforming = code && (ar & X86_AR_EXPDOWN);
    if (!(ar & X86_AR_S) || (code && !(ar & X86_AR_WRITE)) ||
        (!conforming && (rpl > dpl || v->cpl > dpl)))
        return sem_fault_err(v, X86_GP, sel & ~X86_SEL_RPL);
    return ar & X86_AR_P ? 0 : sem_fault_err(v, X86_NP, sel & ~X86_SEL_RPL);
}

/* A null selector clears base and limit, as the CPUID model says of itself. */
static int load_null(struct vcpu *v, unsigned seg, uint16_t sel) {
    if (seg == SEG_SS &&
        (v->mode != MODE_64 || v->cpl == 3 || (sel & X86_SEL_RPL) != v->cpl))
        return sem_fault_err(v, X86_GP, 0);
    v->seg[seg] = (struct segment){.sel = sel};
    vcpu_update_mode(v);
    return 0;
}

int sem_load_seg(struct vcpu *v, unsigned seg, uint16_t sel) {
    uint64_t desc[2];
    if (!(v->cr0 & X86_CR0_PE) || (v->rflags & X86_FL_VM)) {
        sem_load_seg_real(v, seg, sel);
        return 0;
    }
    if (!(sel & ~X86_SEL_RPL))
        return load_null(v, seg, sel);
    if (sem_read_desc(v, sel, X86_GP, desc))
        return SEM_FAULT;
    uint16_t ar = (uint16_t)((desc[0] >> 40) & 0xf0ff);
    if (seg == SEG_SS ? check_stack_seg(v, sel, ar) : check_data_seg(v, sel, ar))
        return SEM_FAULT;
    if (sem_set_accessed(v, sel, desc[0]))
        return SEM_FAULT;
    sem_unpack_desc(&v->seg[seg], sel, desc[0] | (uint64_t)X86_AR_ACCESSED << 40);
    vcpu_update_mode(v);
    return 0;
}

void sem_set_cs(struct vcpu *v, const struct segment *cs, unsigned cpl) {
    v->seg[SEG_CS] = *cs;
    v->cpl = (uint8_t)cpl;
    vcpu_update_mode(v);
    mmu_context_changed(v);
}

/* A far branch within CPL 3, without the branch. */
static int adopt_code(struct vcpu *v, uint16_t sel) {
    const uint16_t must = X86_AR_P | X86_AR_S | X86_AR_CODE | X86_AR_DPL;
    struct segment cs;
    uint64_t desc[2];

    if (!(sel & ~X86_SEL_RPL))
        return sem_fault_err(v, X86_GP, 0);
    if (sem_read_desc(v, sel, X86_GP, desc))
        return SEM_FAULT;
    sem_unpack_desc(&cs, sel, desc[0] | (uint64_t)X86_AR_ACCESSED << 40);
    if ((cs.ar & must) != must)
        return sem_fault_err(v, X86_GP, sel & ~X86_SEL_RPL);
    sem_set_cs(v, &cs, 3);
    return 0;
}

int sem_adopt_segments(struct vcpu *v, const uint16_t *sel) {
    for (unsigned seg = 0; seg < SEG_COUNT; seg++) {
        uint64_t base = v->seg[seg].base;
        bool null = !(sel[seg] & ~X86_SEL_RPL);

        if (sel[seg] == v->seg[seg].sel)
            continue;
        if (seg == SEG_CS ? adopt_code(v, sel[seg]) : sem_load_seg(v, seg, sel[seg]))
            return SEM_FAULT;
        /* WRFSBASE, WRGSBASE behind it: what the host loads begins at 0. */
        if ((null || base) && (seg == SEG_FS || seg == SEG_GS))
            v->seg[seg].base = base;
    }
    vcpu_update_mode(v);
    return 0;
}

/* --- stack --- */

int sem_push(struct vcpu *v, unsigned size, uint64_t val) {
    uint64_t sp = (v->gpr[REG_RSP] - size) & sem_sp_mask(v);
    if (sem_store(v, SEG_SS, sp, size, val))
        return SEM_FAULT;
    sem_set_sp(v, sp);
    return 0;
}

int sem_pop(struct vcpu *v, unsigned size, uint64_t *val) {
    uint64_t sp = v->gpr[REG_RSP] & sem_sp_mask(v);
    if (sem_load(v, SEG_SS, sp, size, val))
        return SEM_FAULT;
    sem_set_sp(v, sp + size);
    return 0;
}
