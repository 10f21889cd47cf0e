/*
 * Task switches through 16-bit and 32-bit TSSs, for jumps, calls, IRET and events.
 *
 * Up to the commit point every fault is one of the old task: the new TSS has been read
 * and the places to be written have been probed. After it the new task's registers are
 * loaded, its selectors as null segments first; a bad selector then raises #TS, #NP or
 * #SS in the new task, at its first instruction (v->rip is already the new one). The T
 * bit is no fault of the switch: it leaves a #DB in v->pending_db.
 *
 * AMD64 APM volume 2, "Task-Management Resources" and "Hardware Task-Management in
 * Legacy Mode"; Intel SDM volume 3, "Task Switching". No task switches in long mode.
 */
#include "sem/far_int.h"

#define TSS_T 1u

/* Where things are in a TSS. Segment selectors follow the order of tss_segs. */
struct layout {
    uint8_t size;  /* minimum, and what is read */
    uint8_t width; /* of a register */
    uint8_t ip;    /* then flags, eight registers, and the selectors of tss_segs */
    uint8_t nsegs; /* in tss_segs */
    uint8_t ldt;
};

static const struct layout layout16 = {44, 2, 0x0e, 4, 0x2a};
static const struct layout layout32 = {104, 4, 0x20, 6, 0x60};
static const uint8_t tss_segs[] = {SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS};
#define TSS32_CR3 0x1c
#define TSS32_T 0x64

struct task {
    const struct layout *l;
    uint16_t sel;
    uint64_t desc;
    struct segment tss;
    uint8_t image[104];
};

static uint64_t field(const struct task *t, unsigned off, unsigned width) {
    uint64_t val = 0;
    for (unsigned k = 0; k < width; k++)
        val |= (uint64_t)t->image[off + k] << (8 * k);
    return val;
}

/* Register K after ip: 0 ip, 1 flags, 2..9 the general registers, 10.. selectors. */
static uint64_t task_reg(const struct task *t, unsigned k) {
    return field(t, t->l->ip + k * t->l->width, t->l->width);
}

static const struct layout *layout_of(uint16_t ar) {
    return ar & 8 ? &layout32 : &layout16;
}

static int probe(struct vcpu *v, uint64_t at, unsigned len) {
    for (unsigned k = 0; k < len; k += 2) {
        int rc = mmu_probe(v, sem_sys_gva(v, at + k), 2, MMU_WRITE, true);
        if (rc)
            return rc;
    }
    return 0;
}

/* Checks the TSS descriptor that SEL names, and reads the TSS. */
static int read_task(struct vcpu *v, uint16_t sel, enum task_reason why, struct task *t) {
    uint8_t vector = why == TASK_IRET ? X86_TS : X86_GP;
    uint16_t err = sel & ~X86_SEL_RPL;
    uint64_t desc[2];
    if (!(sel & 0xfff8) || (sel & X86_SEL_TI))
        return sem_fault_err(v, vector, err);
    int rc = sem_read_desc(v, sel, vector, desc);
    if (rc)
        return rc;
    uint16_t ar = sem_desc_ar(desc[0]);
    unsigned type = ar & (X86_AR_TYPE | X86_AR_S);
    unsigned busy = why == TASK_IRET ? 2 : 0;
    if (type != (X86_DESC_TSS16 | busy) && type != (X86_DESC_TSS32 | busy))
        return sem_fault_err(v, vector, err);
    if (!(ar & X86_AR_P))
        return sem_fault_err(v, X86_NP, err);
    t->sel = sel;
    t->desc = desc[0];
    t->l = layout_of(ar);
    sem_unpack_desc(&t->tss, sel, desc[0]);
    if (t->tss.limit < t->l->size - 1u)
        return sem_fault_err(v, X86_TS, err);
    for (unsigned k = 0; k < t->l->size; k += 4) {
        rc = mmu_sys_read(v, sem_sys_gva(v, t->tss.base + k), t->image + k, 4);
        if (rc)
            return rc;
    }
    return 0;
}

/* The old task's registers into its TSS. FLAGS with NT as IRET wants it. */
static int save_task(struct vcpu *v, uint64_t next_rip, uint64_t flags) {
    const struct layout *l = layout_of(v->tr.ar);
    uint64_t at = v->tr.base + l->ip;
    uint64_t regs[16] = {next_rip, flags};
    unsigned n = 10u + l->nsegs;
    for (unsigned k = 0; k < 8; k++)
        regs[2 + k] = v->gpr[k];
    for (unsigned k = 0; k < l->nsegs; k++)
        regs[10 + k] = v->seg[tss_segs[k]].sel;
    for (unsigned k = 0; k < n; k++) {
        /* The upper half of a 32-bit TSS's selector fields stays as it is. */
        unsigned width = k < 10 ? l->width : 2;
        struct gva where = sem_sys_gva(v, at + k * l->width);
        int rc = mmu_sys_write(v, where, &regs[k], width);
        if (rc)
            return rc;
    }
    return 0;
}

/* Sets or clears the busy bit of TSS descriptor SEL; only probes it when !WRITE. */
static int set_busy(struct vcpu *v, uint16_t sel, bool busy, bool write) {
    struct gva at = sem_sys_gva(v, v->gdtr.base + (sel & 0xfff8) + 4);
    uint32_t high = 0;
    if (!write)
        return mmu_probe(v, at, 4, MMU_WRITE, true);
    int rc = mmu_sys_read(v, at, &high, 4);
    if (rc)
        return rc;
    for (uint32_t was;; high = was) {
        was = high;
        rc = mmu_sys_exchange(v, at, &was, busy ? high | 0x200 : high & ~0x200u);
        if (rc || was == high)
            return rc;
        if (busy && (was & 0x200)) /* another CPU has begun the task meanwhile */
            return sem_fault_err(v, X86_GP, sel & ~X86_SEL_RPL);
    }
}

/* Everything that the commit will write can be written. */
static int probe_all(struct vcpu *v, const struct task *t, enum task_reason why) {
    const struct layout *old = layout_of(v->tr.ar);
    if (v->tr.limit < old->size - 1u)
        return sem_fault_err(v, X86_TS, v->tr.sel & ~X86_SEL_RPL);
    int rc = probe(v, v->tr.base + old->ip, (10u + old->nsegs) * old->width);
    if (!rc && (why == TASK_CALL || why == TASK_EVENT))
        rc = probe(v, t->tss.base, 2);
    if (!rc && (why == TASK_JMP || why == TASK_IRET))
        rc = set_busy(v, v->tr.sel, false, false);
    if (!rc && why != TASK_IRET)
        rc = set_busy(v, t->sel, true, false);
    return rc;
}

/* Writes the old TSS, the link, and the busy bits. */
static int write_all(struct vcpu *v, const struct task *t, enum task_reason why,
                     uint64_t next_rip, uint64_t flags) {
    uint16_t link = v->tr.sel;
    if (why == TASK_IRET)
        flags &= ~(uint64_t)X86_FL_NT;
    int rc = save_task(v, next_rip, flags);
    if (!rc && (why == TASK_JMP || why == TASK_IRET))
        rc = set_busy(v, v->tr.sel, false, true);
    if (!rc && (why == TASK_CALL || why == TASK_EVENT))
        rc = mmu_sys_write(v, sem_sys_gva(v, t->tss.base), &link, 2);
    if (!rc && why != TASK_IRET)
        rc = set_busy(v, t->sel, true, true);
    return rc;
}

static int load_cr3(struct vcpu *v, const struct task *t) {
    if (t->l != &layout32 || !(v->cr0 & X86_CR0_PG))
        return 0;
    uint64_t cr3 = field(t, TSS32_CR3, 4);
    if (v->cr4 & X86_CR4_PAE) {
        int rc = mmu_load_pdptrs(v, cr3);
        if (rc)
            return rc;
    }
    v->cr3 = cr3;
    mmu_cr3_loaded(v, cr3);
    return 0;
}

/* TR, flags, rIP, general registers; segment registers hold unusable selectors. */
static void load_registers(struct vcpu *v, const struct task *t, enum task_reason why) {
    const uint64_t defined = X86_FL_STATUS | X86_FL_TF | X86_FL_IF | X86_FL_DF |
                             X86_FL_IOPL | X86_FL_NT | X86_FL_RF | X86_FL_VM | X86_FL_AC |
                             X86_FL_VIF | X86_FL_VIP | X86_FL_ID;
    uint64_t upper = t->l->width == 2 ? 0xffff0000u : 0;
    v->tr = t->tss;
    v->tr.ar |= 2; /* busy */
    v->cr0 |= X86_CR0_TS;
    v->dr[7] &= ~0x155ull; /* L0..L3 and LE belong to the task */
    v->rip = task_reg(t, 0);
    v->rflags = (task_reg(t, 1) & defined) | X86_FL_ONE;
    if (why == TASK_CALL || why == TASK_EVENT)
        v->rflags |= X86_FL_NT;
    for (unsigned k = 0; k < 8; k++)
        v->gpr[k] = (v->gpr[k] & upper) | task_reg(t, 2 + k);
    for (unsigned k = 0; k < ARRAY_SIZE(tss_segs); k++) {
        uint16_t sel = k < t->l->nsegs ? (uint16_t)task_reg(t, 10 + k) : 0;
        sem_null_seg(&v->seg[tss_segs[k]], sel);
    }
    sem_null_seg(&v->ldtr, (uint16_t)field(t, t->l->ldt, 2));
}

static int ts(struct vcpu *v, uint16_t sel) {
    return sem_fault_err(v, X86_TS, sel & ~X86_SEL_RPL);
}

static int load_ldt(struct vcpu *v) {
    uint16_t sel = v->ldtr.sel;
    uint64_t desc[2];
    if (!(sel & ~X86_SEL_RPL))
        return 0;
    if (sel & X86_SEL_TI)
        return ts(v, sel);
    int rc = sem_read_desc(v, sel, X86_TS, desc);
    if (rc)
        return rc;
    uint16_t ar = sem_desc_ar(desc[0]);
    if ((ar & (X86_AR_S | X86_AR_TYPE)) != X86_DESC_LDT || !(ar & X86_AR_P))
        return ts(v, sel);
    sem_unpack_desc(&v->ldtr, sel, desc[0]);
    return 0;
}

/* Reads a descriptor for a segment register of the new task, as #TS. */
static int read_seg(struct vcpu *v, uint16_t sel, uint64_t *desc) {
    uint64_t d[2];
    int rc = sem_read_target(v, sel, X86_TS, d);
    *desc = rc ? 0 : d[0];
    return rc;
}

static int load_cs(struct vcpu *v, uint16_t sel) {
    uint64_t desc;
    unsigned rpl = sel & X86_SEL_RPL;
    int rc = read_seg(v, sel, &desc);
    if (rc)
        return rc;
    uint16_t ar = sem_desc_ar(desc);
    unsigned dpl = sem_desc_dpl(desc);
    bool ok = sem_ar_is_code(ar) && (sem_ar_is_conforming(ar) ? dpl <= rpl : dpl == rpl);
    if (!ok)
        return ts(v, sel);
    if (!(ar & X86_AR_P))
        return sem_fault_err(v, X86_NP, sel & ~X86_SEL_RPL);
    rc = sem_mark_accessed(v, sel, desc);
    if (rc)
        return rc;
    struct segment cs;
    sem_unpack_desc(&cs, sel, desc | 1ull << 40);
    sem_set_cs(v, &cs, rpl);
    return 0;
}

static int load_ss(struct vcpu *v, uint16_t sel) {
    uint64_t desc;
    int rc = read_seg(v, sel, &desc);
    if (rc)
        return rc;
    uint16_t ar = sem_desc_ar(desc);
    if (!sem_ar_is_stack(ar) || sem_desc_dpl(desc) != v->cpl ||
        (sel & X86_SEL_RPL) != v->cpl)
        return ts(v, sel);
    if (!(ar & X86_AR_P))
        return sem_fault_err(v, X86_SS, sel & ~X86_SEL_RPL);
    rc = sem_mark_accessed(v, sel, desc);
    if (!rc)
        sem_unpack_desc(&v->seg[SEG_SS], sel, desc | 1ull << 40);
    return rc;
}

static int load_data(struct vcpu *v, unsigned seg, uint16_t sel) {
    uint64_t desc;
    if (!(sel & ~X86_SEL_RPL))
        return 0;
    int rc = read_seg(v, sel, &desc);
    if (rc)
        return rc;
    uint16_t ar = sem_desc_ar(desc);
    unsigned dpl = sem_desc_dpl(desc), rpl = sel & X86_SEL_RPL;
    bool code = ar & X86_AR_CODE;
    if (!(ar & X86_AR_S) || (code && !(ar & X86_AR_WRITE)))
        return ts(v, sel);
    if (!(code && sem_ar_is_conforming(ar)) && (dpl < v->cpl || dpl < rpl))
        return ts(v, sel);
    if (!(ar & X86_AR_P))
        return sem_fault_err(v, X86_NP, sel & ~X86_SEL_RPL);
    rc = sem_mark_accessed(v, sel, desc);
    if (!rc)
        sem_unpack_desc(&v->seg[seg], sel, desc | 1ull << 40);
    return rc;
}

static int load_segments(struct vcpu *v) {
    static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    int rc = load_ldt(v);
    if (rc)
        return rc;
    if (sem_is_v86(v)) {
        for (unsigned k = 0; k < ARRAY_SIZE(tss_segs); k++)
            if (tss_segs[k] != SEG_CS)
                sem_load_seg_real(v, tss_segs[k], v->seg[tss_segs[k]].sel);
        struct segment cs = sem_real_cs(v, v->seg[SEG_CS].sel);
        sem_set_cs(v, &cs, 3);
        return 0;
    }
    rc = load_cs(v, v->seg[SEG_CS].sel);
    if (!rc)
        rc = load_ss(v, v->seg[SEG_SS].sel);
    for (unsigned k = 0; !rc && k < ARRAY_SIZE(data); k++)
        rc = load_data(v, data[k], v->seg[data[k]].sel);
    vcpu_update_mode(v);
    return rc;
}

static int push_error(struct vcpu *v, const struct task *t, uint32_t error) {
    struct sem_stack st;
    struct sem_frame f;
    sem_frame_begin(&f, t->l->width);
    sem_stack_current(v, &st);
    sem_frame_push(&f, error);
    int rc = sem_frame_probe(v, &st, &f);
    if (!rc)
        rc = sem_frame_write(v, &st, &f);
    if (!rc)
        v->gpr[REG_RSP] = st.sp;
    return rc;
}

/* The part that runs in the new task and whose faults are its own. */
static int enter_task(struct vcpu *v, const struct task *t, bool has_error,
                      uint32_t error) {
    int rc = load_segments(v);
    if (!rc && has_error)
        rc = push_error(v, t, error);
    if (!rc)
        rc = sem_check_rip(v, &v->seg[SEG_CS], v->rip);
    /* A trap, taken at the boundary before the new task's first instruction. */
    if (!rc && t->l == &layout32 && (field(t, TSS32_T, 2) & TSS_T))
        v->pending_db |= X86_DR6_BT;
    return rc;
}

int sem_task_switch(struct vcpu *v, uint16_t sel, enum task_reason why, uint64_t next_rip,
                    uint64_t flags, bool has_error, uint32_t error) {
    struct task t;
    if (read_task(v, sel, why, &t) || probe_all(v, &t, why) ||
        write_all(v, &t, why, next_rip, flags))
        return SEM_FAULT;

    load_registers(v, &t, why);
    int rc = load_cr3(v, &t);
    /* Until CS says otherwise, tables are read and faults taken at level 0. */
    struct segment none = v->seg[SEG_CS];
    none.ar = X86_AR_DB;
    sem_set_cs(v, &none, sem_is_v86(v) ? 3 : none.sel & X86_SEL_RPL);
    mmu_breakpoints_changed(v);
    if (!rc)
        rc = enter_task(v, &t, has_error, error);
    return rc ? SEM_FAULT : 0;
}
