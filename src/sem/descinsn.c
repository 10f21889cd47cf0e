/*
 * The instructions on segment registers, descriptor tables and descriptors.
 * AMD64 APM volume 3, "System Instruction Reference"; the checks of loads are in
 * segment.c.
 */
#include "cpu/cpuid.h"
#include "sem/operand.h"
#include "sem/segment_int.h"

static bool no_selectors(const struct vcpu *v) {
    return !(v->cr0 & X86_CR0_PE) || (v->rflags & X86_FL_VM);
}

static int gp0(struct vcpu *v) {
    return sem_fault_err(v, X86_GP, 0);
}

/* Register N gets VAL as wide as the operand; memory gets 16 bits. */
static int put_selector(struct vcpu *v, const struct insn *i, uint64_t val) {
    const struct operand *o = &i->opnd[0];
    if (o->kind == OPND_MEM)
        return sem_store_mem(v, i, 2, val);
    sem_put(v, o->off, o->size, val);
    return SEM_NEXT;
}

static int get_selector(struct vcpu *v, const struct insn *i, unsigned n, uint16_t *sel) {
    uint64_t val;
    if (sem_read(v, i, n, 2, &val))
        return SEM_FAULT;
    *sel = (uint16_t)val;
    return 0;
}

/* --- segment registers --- */

static int exec_mov_from_seg(struct vcpu *v, const struct insn *i) {
    return put_selector(v, i, v->seg[i->opnd[1].reg].sel);
}

static int exec_mov_to_seg(struct vcpu *v, const struct insn *i) {
    unsigned seg = i->opnd[0].reg;
    uint16_t sel;
    if (seg == SEG_CS || seg >= SEG_COUNT)
        return sem_fault(v, X86_UD);
    if (get_selector(v, i, 1, &sel) || sem_load_seg(v, seg, sel))
        return SEM_FAULT;
    if (seg != SEG_SS)
        return SEM_NEXT;
    v->irq_shadow = true;
    return SEM_STOP;
}

static unsigned stack_opsize(const struct insn *i) {
    return i->mode == MODE_64 && i->opsize == 4 ? 8 : i->opsize;
}

/* With 32 bits Intel's CPUs write the selector alone and leave the upper half of the
 * slot. Intel SDM volume 2, "PUSH". */
static int exec_push_seg(struct vcpu *v, const struct insn *i) {
    unsigned size = stack_opsize(i);
    uint64_t sel = v->seg[i->opnd[0].reg].sel, sp;
    if (size != 4 || cpuid_is_amd(v->cpuid))
        return sem_push(v, size, sel);
    sp = (v->gpr[REG_RSP] - size) & sem_sp_mask(v);
    if (sem_store(v, SEG_SS, sp, 2, sel))
        return SEM_FAULT;
    sem_set_sp(v, sp);
    return SEM_NEXT;
}

/* rSP moves as the stack's old width says, and only if the load succeeds. Intel's CPUs
 * read the selector alone, whatever the operand size. */
static int exec_pop_seg(struct vcpu *v, const struct insn *i) {
    unsigned seg = i->opnd[0].reg, size = stack_opsize(i);
    uint64_t mask = sem_sp_mask(v), sp = v->gpr[REG_RSP], val;
    unsigned read = cpuid_is_amd(v->cpuid) ? size : 2;
    if (sem_load(v, SEG_SS, sp & mask, read, &val) || sem_load_seg(v, seg, (uint16_t)val))
        return SEM_FAULT;
    uint64_t moved = (sp + size) & mask;
    v->gpr[REG_RSP] = mask == 0xffff ? (sp & ~mask) | moved : moved;
    if (seg != SEG_SS)
        return SEM_NEXT;
    v->irq_shadow = true;
    return SEM_STOP;
}

static int exec_load_far(struct vcpu *v, const struct insn *i) {
    unsigned seg = i->opnd[2].reg, size = i->opsize;
    uint64_t at = sem_ea(v, i), off, sel;
    uint64_t sel_at = (at + size) & sem_addr_mask(i->addrsize);
    if (sem_load(v, i->mem.seg, at, size, &off) ||
        sem_load(v, i->mem.seg, sel_at, 2, &sel) || sem_load_seg(v, seg, (uint16_t)sel))
        return SEM_FAULT;
    sem_put(v, i->opnd[0].off, size, off);
    return seg == SEG_SS ? SEM_STOP : SEM_NEXT;
}

/* --- GDTR, IDTR --- */

static int load_table(struct vcpu *v, const struct insn *i, struct desc_table *t) {
    unsigned width = v->mode == MODE_64 ? 8 : 4;
    uint64_t at = sem_ea(v, i), limit, base;
    if (v->cpl)
        return gp0(v);
    if (sem_load(v, i->mem.seg, at, 2, &limit) ||
        sem_load(v, i->mem.seg, (at + 2) & sem_addr_mask(i->addrsize), width, &base))
        return SEM_FAULT;
    if (v->mode == MODE_64 && !sem_canonical(v, base))
        return gp0(v);
    if (v->mode != MODE_64 && i->opsize == 2)
        base &= 0xffffff;
    sem_serialize(v);
    *t = (struct desc_table){.base = base, .limit = (uint16_t)limit};
    return SEM_NEXT;
}

static int exec_lgdt(struct vcpu *v, const struct insn *i) {
    return load_table(v, i, &v->gdtr);
}

static int exec_lidt(struct vcpu *v, const struct insn *i) {
    return load_table(v, i, &v->idtr);
}

/* User-mode instruction prevention. AMD64 APM volume 2, "CR4", UMIP. */
static bool prevented(const struct vcpu *v) {
    return v->cpl && (v->cr4 & X86_CR4_UMIP);
}

/* All bytes or none: one write of 6 or 10. */
static int store_table(struct vcpu *v, const struct insn *i, const struct desc_table *t) {
    uint8_t buf[10];
    unsigned len = v->mode == MODE_64 ? 10 : 6;
    struct gva at;
    if (prevented(v))
        return gp0(v);
    __builtin_memcpy(buf, &t->limit, 2);
    __builtin_memcpy(buf + 2, &t->base, 8);
    if (sem_linear(v, i->mem.seg, sem_ea(v, i), len, true, &at))
        return SEM_FAULT;
    return mmu_write_slow(v, at, buf, len, false) ? sem_fix_stack_fault(v, i->mem.seg)
                                                  : SEM_NEXT;
}

static int exec_sgdt(struct vcpu *v, const struct insn *i) {
    return store_table(v, i, &v->gdtr);
}

static int exec_sidt(struct vcpu *v, const struct insn *i) {
    return store_table(v, i, &v->idtr);
}

/* --- LDTR, TR --- */

static int store_system(struct vcpu *v, const struct insn *i, const struct segment *s) {
    if (no_selectors(v))
        return sem_fault(v, X86_UD);
    return prevented(v) ? gp0(v) : put_selector(v, i, s->sel);
}

static int exec_sldt(struct vcpu *v, const struct insn *i) {
    return store_system(v, i, &v->ldtr);
}

static int exec_str(struct vcpu *v, const struct insn *i) {
    return store_system(v, i, &v->tr);
}

/* Reads a system descriptor of the GDT and checks that its type is in TYPES (a bit for
 * each), then P and, in long mode, the base. */
static int read_system(struct vcpu *v, uint16_t sel, unsigned types, uint64_t desc[2],
                       struct segment *s) {
    uint32_t err = sel & ~X86_SEL_RPL;
    if (sel & X86_SEL_TI)
        return sem_fault_err(v, X86_GP, err);
    if (sem_read_desc(v, sel, X86_GP, desc))
        return SEM_FAULT;
    sem_unpack_desc(s, sel, desc[0]);
    if ((s->ar & X86_AR_S) || !(types & 1u << (s->ar & X86_AR_TYPE)))
        return sem_fault_err(v, X86_GP, err);
    if (!(s->ar & X86_AR_P))
        return sem_fault_err(v, X86_NP, err);
    if (v->long_mode) {
        s->base |= desc[1] << 32;
        /* The upper half's type field must be 0. */
        if (!sem_canonical(v, s->base) || (desc[1] >> 40 & 0x1f))
            return sem_fault_err(v, X86_GP, err);
    }
    return 0;
}

/* #UD, #GP and the operand of LLDT and LTR. */
static int system_operand(struct vcpu *v, const struct insn *i, uint16_t *sel) {
    if (no_selectors(v))
        return sem_fault(v, X86_UD);
    return v->cpl ? gp0(v) : get_selector(v, i, 0, sel);
}

static int exec_lldt(struct vcpu *v, const struct insn *i) {
    uint64_t desc[2];
    struct segment s = {0};
    uint16_t sel;
    if (system_operand(v, i, &sel))
        return SEM_FAULT;
    s.sel = sel;
    if ((sel & ~X86_SEL_RPL) && read_system(v, sel, 1u << X86_DESC_LDT, desc, &s))
        return SEM_FAULT;
    sem_serialize(v);
    v->ldtr = s;
    return SEM_NEXT;
}

static int exec_ltr(struct vcpu *v, const struct insn *i) {
    unsigned types = 1u << X86_DESC_TSS32 | (v->long_mode ? 0 : 1u << X86_DESC_TSS16);
    uint64_t desc[2];
    struct segment s;
    uint16_t sel;
    if (system_operand(v, i, &sel))
        return SEM_FAULT;
    if (!(sel & ~X86_SEL_RPL))
        return gp0(v);
    if (read_system(v, sel, types, desc, &s) || sem_mark_desc(v, sel, desc[0], 2))
        return SEM_FAULT;
    s.ar |= 2; /* busy */
    v->tr = s;
    return SEM_NEXT;
}

/* --- questions about selectors --- */

/* Types of system descriptors that LAR and LSL answer for. */
#define LAR_LEGACY 0x1a3eu /* 1..5, 9, 11, 12 */
#define LSL_LEGACY 0x0a0eu
#define LAR_LONG 0x1a04u /* 2, 9, 11, 12 */
#define LSL_LONG 0x0a04u

/* Descriptor of SEL if it exists and CPL and RPL may see it. A page fault is a fault. */
static int ask(struct vcpu *v, uint16_t sel, uint64_t *desc, bool *visible) {
    uint64_t d[2];
    *visible = false;
    if (!(sel & ~X86_SEL_RPL))
        return 0;
    if (sem_probe_desc(v, sel, d, visible))
        return SEM_FAULT;
    *desc = d[0];
    uint16_t ar = (uint16_t)((d[0] >> 40) & 0xf0ff);
    uint16_t conforming = X86_AR_S | X86_AR_CODE | X86_AR_EXPDOWN;
    unsigned dpl = (ar & X86_AR_DPL) >> X86_AR_DPL_SHIFT;
    if ((ar & conforming) != conforming && (v->cpl > dpl || (sel & X86_SEL_RPL) > dpl))
        *visible = false;
    return 0;
}

static void set_zf(struct vcpu *v, bool zf) {
    v->rflags = (v->rflags & ~(uint64_t)X86_FL_ZF) | (zf ? X86_FL_ZF : 0);
}

static int exec_lar_lsl(struct vcpu *v, const struct insn *i) {
    bool lar = i->op == OP_lar, ok;
    uint64_t desc;
    uint16_t sel;
    if (no_selectors(v))
        return sem_fault(v, X86_UD);
    if (get_selector(v, i, 1, &sel) || ask(v, sel, &desc, &ok))
        return SEM_FAULT;
    if (ok) {
        struct segment s;
        unsigned types =
            v->long_mode ? (lar ? LAR_LONG : LSL_LONG) : (lar ? LAR_LEGACY : LSL_LEGACY);
        sem_unpack_desc(&s, sel, desc);
        ok = (s.ar & X86_AR_S) || (types & 1u << (s.ar & X86_AR_TYPE));
        if (ok)
            sem_put(v, i->opnd[0].off, i->opnd[0].size,
                    lar ? desc >> 32 & 0xffff00 : s.limit);
    }
    set_zf(v, ok);
    return SEM_NEXT;
}

static int exec_verr_verw(struct vcpu *v, const struct insn *i) {
    uint64_t desc;
    uint16_t sel;
    bool ok;
    if (no_selectors(v))
        return sem_fault(v, X86_UD);
    if (get_selector(v, i, 0, &sel) || ask(v, sel, &desc, &ok))
        return SEM_FAULT;
    if (ok) {
        uint8_t ar = (uint8_t)(desc >> 40);
        bool code = ar & X86_AR_CODE, rw = ar & X86_AR_WRITE;
        ok = (ar & X86_AR_S) && (i->op == OP_verr ? !code || rw : !code && rw);
    }
    set_zf(v, ok);
    return SEM_NEXT;
}

static int exec_arpl(struct vcpu *v, const struct insn *i) {
    uint64_t dst, src;
    if (no_selectors(v) || v->mode == MODE_64)
        return sem_fault(v, X86_UD);
    if (sem_read(v, i, 0, 2, &dst) || sem_read(v, i, 1, 2, &src))
        return SEM_FAULT;
    bool raise = (dst & X86_SEL_RPL) < (src & X86_SEL_RPL);
    if (raise && sem_write(v, i, 0, 2, (dst & ~3ull) | (src & X86_SEL_RPL)))
        return SEM_FAULT;
    set_zf(v, raise);
    return SEM_NEXT;
}

/* --- FS and GS bases --- */

static int exec_seg_base(struct vcpu *v, const struct insn *i) {
    bool fs = i->op == OP_rdfsbase || i->op == OP_wrfsbase;
    unsigned seg = fs ? SEG_FS : SEG_GS;
    const struct operand *o = &i->opnd[0];
    if (v->mode != MODE_64 || !(v->cr4 & X86_CR4_FSGSBASE))
        return sem_fault(v, X86_UD);
    if (i->op == OP_rdfsbase || i->op == OP_rdgsbase) {
        sem_put(v, o->off, o->size, v->seg[seg].base);
        return SEM_NEXT;
    }
    uint64_t base = sem_get(v, o->off, o->size);
    if (!sem_canonical(v, base))
        return gp0(v);
    v->seg[seg].base = v->segbase[seg] = base;
    return SEM_NEXT;
}

static int exec_swapgs(struct vcpu *v, const struct insn *i) {
    uint64_t base = v->seg[SEG_GS].base;
    if (v->mode != MODE_64)
        return sem_fault(v, X86_UD);
    if (v->cpl)
        return gp0(v);
    v->seg[SEG_GS].base = v->segbase[SEG_GS] = v->kernel_gs_base;
    v->kernel_gs_base = base;
    return SEM_NEXT;
}

insn_exec_fn *sem_bind_segment(const struct insn *i) {
    static insn_exec_fn *const table[OP_COUNT] = {
        [OP_mov_from_seg] = exec_mov_from_seg,
        [OP_mov_to_seg] = exec_mov_to_seg,
        [OP_push_seg] = exec_push_seg,
        [OP_pop_seg] = exec_pop_seg,
        [OP_load_far] = exec_load_far,
        [OP_lgdt] = exec_lgdt,
        [OP_lidt] = exec_lidt,
        [OP_sgdt] = exec_sgdt,
        [OP_sidt] = exec_sidt,
        [OP_lldt] = exec_lldt,
        [OP_sldt] = exec_sldt,
        [OP_ltr] = exec_ltr,
        [OP_str] = exec_str,
        [OP_lar] = exec_lar_lsl,
        [OP_lsl] = exec_lar_lsl,
        [OP_verr] = exec_verr_verw,
        [OP_verw] = exec_verr_verw,
        [OP_arpl] = exec_arpl,
        [OP_rdfsbase] = exec_seg_base,
        [OP_rdgsbase] = exec_seg_base,
        [OP_wrfsbase] = exec_seg_base,
        [OP_wrgsbase] = exec_seg_base,
        [OP_swapgs] = exec_swapgs,
    };
    return table[i->op];
}
