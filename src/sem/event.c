/*
 * Delivery of exceptions, interrupts and software interrupts through the IVT (real mode,
 * virtual-8086 mode extensions), the legacy IDT and the long-mode IDT.
 *
 * Each delivery computes everything, probes and writes the frame, then commits; a fault
 * on the way leaves the vCPU as it was and is left in v->fault. run_event() then decides
 * what a fault during delivery becomes: the next exception, #DF, or shutdown.
 *
 * AMD64 APM volume 2, "Exceptions and Interrupts" ("Double-Fault Exception" has the table
 * of contributory exceptions); "Real-Mode Interrupt Control Transfers", "Legacy
 * Protected-Mode Interrupt Control Transfers", "Long-Mode Interrupt Control Transfers",
 * "Virtual-8086 Mode Extensions". Intel SDM volume 3, "Error Code", for the EXT bit.
 */
#include "sem/far_int.h"

enum event_kind {
    EVENT_EXCEPTION,
    EVENT_EXTERNAL, /* interrupt or NMI */
    EVENT_INT1,     /* int1: no DPL check, but an instruction's trap */
    EVENT_INT,      /* int n: the gate's DPL is checked, IOPL in virtual-8086 mode */
    EVENT_INT3,     /* int3, into: the gate's DPL is checked */
};

struct event {
    enum event_kind kind;
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t rip;   /* to return to */
    uint64_t flags; /* to push */
};

/* A gate's target. */
struct target {
    struct segment cs;
    uint64_t rip;
    unsigned cpl;
    bool clear_if;
};

static uint32_t idt_error(uint8_t vector) {
    return vector * 8u + X86_SELERR_IDT;
}

static bool is_software(const struct event *e) {
    return e->kind == EVENT_INT || e->kind == EVENT_INT3;
}

/* What an interrupt's frame of protected or long mode ends with; all of it is written. */
static int push_return(struct vcpu *v, const struct event *e, struct sem_stack *st,
                       struct sem_frame *f) {
    int rc;

    sem_frame_push(f, e->flags);
    sem_frame_push(f, v->seg[SEG_CS].sel);
    sem_frame_push(f, e->rip);
    if (e->has_error)
        sem_frame_push(f, e->error);
    rc = sem_frame_probe(v, st, f);
    return rc ? rc : sem_frame_write(v, st, f);
}

/* --- real mode, and virtual-8086 mode with redirection --- */

static int push_real(struct vcpu *v, const struct event *e, uint64_t flags) {
    struct sem_stack st;
    struct sem_frame f;
    sem_frame_begin(&f, 2);
    sem_stack_current(v, &st);
    sem_frame_push(&f, flags);
    sem_frame_push(&f, v->seg[SEG_CS].sel);
    sem_frame_push(&f, e->rip);
    int rc = sem_frame_probe(v, &st, &f);
    if (!rc)
        rc = sem_frame_write(v, &st, &f);
    if (!rc)
        v->gpr[REG_RSP] = st.sp;
    return rc;
}

static int deliver_real(struct vcpu *v, const struct event *e) {
    uint32_t entry = 0;
    if (e->vector * 4u + 3 > v->idtr.limit)
        return sem_fault_err(v, X86_GP, idt_error(e->vector));
    int rc = mmu_sys_read(v, sem_sys_gva(v, v->idtr.base + e->vector * 4u), &entry, 4);
    if (rc)
        return rc;
    struct segment cs = sem_real_cs(v, (uint16_t)(entry >> 16));
    rc = sem_check_rip(v, &cs, entry & 0xffff);
    if (!rc)
        rc = push_real(v, e, e->flags);
    if (rc)
        return rc;
    v->rflags &= ~(uint64_t)(X86_FL_IF | X86_FL_TF | X86_FL_AC | X86_FL_RF);
    sem_enter(v, &cs, 0, entry & 0xffff);
    return 0;
}

/* The task's own handler of INT n, in its virtual-8086 IVT at linear 0. */
static int deliver_redirected(struct vcpu *v, const struct event *e) {
    uint32_t entry = 0;
    struct gva at = gva(e->vector * 4u);
    int rc = mmu_read_slow(v, at, &entry, 4, false);
    if (rc)
        return rc;
    bool iopl3 = (v->rflags & X86_FL_IOPL) == X86_FL_IOPL;
    uint64_t flags = e->flags;
    if (!iopl3) {
        flags = (flags & ~(uint64_t)X86_FL_IF) | X86_FL_IOPL;
        if (v->rflags & X86_FL_VIF)
            flags |= X86_FL_IF;
    }
    struct segment cs = sem_real_cs(v, (uint16_t)(entry >> 16));
    rc = push_real(v, e, flags);
    if (rc)
        return rc;
    v->rflags &=
        ~(uint64_t)(X86_FL_TF | X86_FL_NT | X86_FL_RF | (iopl3 ? X86_FL_IF : X86_FL_VIF));
    sem_enter(v, &cs, 3, entry & 0xffff);
    return 0;
}

/*
 * INT n in virtual-8086 mode: the interrupt-redirection bitmap ends where the TSS's I/O
 * permission bitmap begins. *REDIRECT: bit VECTOR is clear. A map that lies outside of
 * the TSS redirects nothing.
 */
static int v86_redirects(struct vcpu *v, uint8_t vector, bool *redirect) {
    *redirect = false;
    if (!(v->cr4 & X86_CR4_VME) || v->tr.limit < 103)
        return 0;
    uint16_t iomap = 0;
    uint8_t bits = 0;
    int rc = mmu_sys_read(v, sem_sys_gva(v, v->tr.base + 102), &iomap, 2);
    if (rc)
        return rc;
    unsigned off = iomap - 32u + vector / 8u;
    if (iomap < 32 || off > v->tr.limit)
        return 0;
    rc = mmu_sys_read(v, sem_sys_gva(v, v->tr.base + off), &bits, 1);
    *redirect = !rc && !(bits & 1u << (vector & 7));
    return rc;
}

/* --- protected mode --- */

/* Flags and registers that every delivery through an IDT changes. */
static void enter_handler(struct vcpu *v, const struct target *t,
                          const struct sem_stack *st, bool load_ss) {
    uint64_t clear = X86_FL_TF | X86_FL_NT | X86_FL_RF | X86_FL_VM;
    if (t->clear_if)
        clear |= X86_FL_IF;
    v->rflags &= ~clear;
    if (load_ss)
        v->seg[SEG_SS] = st->ss;
    v->gpr[REG_RSP] = st->sp;
    sem_enter(v, &t->cs, t->cpl, t->rip);
}

/* Checks the code segment of a gate and the level that it leads to. */
static int gate_target(struct vcpu *v, uint16_t sel, struct target *t) {
    uint64_t desc[2];
    uint16_t err = sel & ~X86_SEL_RPL;
    int rc = sem_read_target(v, sel, X86_GP, desc);
    if (rc)
        return rc;
    uint16_t ar = sem_desc_ar(desc[0]);
    unsigned dpl = sem_desc_dpl(desc[0]);
    if (!sem_ar_is_code(ar) || dpl > v->cpl)
        return sem_fault_err(v, X86_GP, err);
    if (v->long_mode && (ar & (X86_AR_L | X86_AR_DB)) != X86_AR_L)
        return sem_fault_err(v, X86_GP, err);
    if (!(ar & X86_AR_P))
        return sem_fault_err(v, X86_NP, err);
    t->cpl = sem_ar_is_conforming(ar) ? v->cpl : dpl;
    if (sem_is_v86(v) && t->cpl != 0)
        return sem_fault_err(v, X86_GP, err);
    rc = sem_mark_accessed(v, sel, desc[0]);
    if (rc)
        return rc;
    sem_unpack_desc(&t->cs, (uint16_t)(err | t->cpl), desc[0] | 1ull << 40);
    return sem_check_rip(v, &t->cs, t->rip);
}

/* Reads the gate and makes the checks that do not depend on its type. */
static int read_gate(struct vcpu *v, const struct event *e, unsigned size,
                     uint64_t gate[2]) {
    unsigned off = e->vector * size;
    if (off + size - 1 > v->idtr.limit)
        return sem_fault_err(v, X86_GP, idt_error(e->vector));
    int rc = mmu_sys_read(v, sem_sys_gva(v, v->idtr.base + off), gate, size);
    if (rc)
        return rc;
    unsigned type = (unsigned)(gate[0] >> 40) & 0x1f;
    bool known = type == X86_DESC_INTGATE32 || type == X86_DESC_TRAPGATE32;
    if (!v->long_mode)
        known = known || type == X86_DESC_TASKGATE || type == X86_DESC_INTGATE16 ||
                type == X86_DESC_TRAPGATE16;
    if (!known || (is_software(e) && sem_desc_dpl(gate[0]) < v->cpl))
        return sem_fault_err(v, X86_GP, idt_error(e->vector));
    if (!(sem_desc_ar(gate[0]) & X86_AR_P))
        return sem_fault_err(v, X86_NP, idt_error(e->vector));
    return 0;
}

static void push_v86_segs(const struct vcpu *v, struct sem_frame *f) {
    sem_frame_push(f, v->seg[SEG_GS].sel);
    sem_frame_push(f, v->seg[SEG_FS].sel);
    sem_frame_push(f, v->seg[SEG_DS].sel);
    sem_frame_push(f, v->seg[SEG_ES].sel);
}

static int deliver_legacy(struct vcpu *v, const struct event *e) {
    uint64_t gate[2] = {0, 0};
    int rc = read_gate(v, e, 8, gate);
    if (rc)
        return rc;
    unsigned type = (unsigned)(gate[0] >> 40) & 0xf;
    uint16_t sel = (uint16_t)(gate[0] >> 16);
    if (type == X86_DESC_TASKGATE)
        return sem_task_switch(v, sel, TASK_EVENT, e->rip, e->flags, e->has_error,
                               e->error);

    bool gate32 = type & 8;
    struct target t = {.clear_if = !(type & 1)};
    t.rip = (gate[0] & 0xffff) | (gate32 ? gate[0] >> 48 << 16 : 0);
    rc = gate_target(v, sel, &t);
    if (rc)
        return rc;

    bool v86 = sem_is_v86(v), inner = t.cpl < v->cpl;
    struct sem_stack st;
    struct sem_frame f;
    sem_frame_begin(&f, gate32 ? 4 : 2);
    if (inner) {
        rc = sem_stack_inner(v, t.cpl, &st);
        if (rc)
            return rc;
        if (v86)
            push_v86_segs(v, &f);
        sem_frame_push(&f, v->seg[SEG_SS].sel);
        sem_frame_push(&f, v->gpr[REG_RSP]);
    } else {
        sem_stack_current(v, &st);
    }
    rc = push_return(v, e, &st, &f);
    if (rc)
        return rc;
    if (v86) {
        static const uint8_t segs[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
        for (unsigned k = 0; k < ARRAY_SIZE(segs); k++)
            sem_null_seg(&v->seg[segs[k]], 0);
    }
    enter_handler(v, &t, &st, inner);
    return 0;
}

static int long_stack(struct vcpu *v, unsigned ist, unsigned cpl, struct sem_stack *st) {
    int rc = 0;
    if (cpl < v->cpl)
        sem_null_seg(&st->ss, (uint16_t)cpl);
    else
        st->ss = v->seg[SEG_SS];
    st->mask = ~0ull;
    st->wide = st->flat = true;
    /* From compatibility mode, too: explicit accesses would be cut to 32 bits there. */
    st->sys = cpl < v->cpl || (cpl < 3 && v->mode != MODE_64);
    st->err = 0;
    st->sp = v->gpr[REG_RSP];
    if (ist)
        rc = sem_tss64_rsp(v, 0x24 + 8 * (ist - 1), &st->sp);
    else if (cpl < v->cpl)
        rc = sem_tss64_rsp(v, 4 + 8 * cpl, &st->sp);
    if (!rc && !sem_canonical(v, st->sp))
        rc = sem_fault_err(v, X86_SS, 0);
    st->sp &= ~15ull;
    return rc;
}

static int deliver_long(struct vcpu *v, const struct event *e) {
    uint64_t gate[2] = {0, 0};
    int rc = read_gate(v, e, 16, gate);
    if (rc)
        return rc;
    unsigned type = (unsigned)(gate[0] >> 40) & 0xf;
    struct target t = {.clear_if = type == X86_DESC_INTGATE32};
    t.rip = (gate[0] & 0xffff) | (gate[0] >> 48 << 16) | gate[1] << 32;
    rc = gate_target(v, (uint16_t)(gate[0] >> 16), &t);
    if (rc)
        return rc;

    struct sem_stack st;
    struct sem_frame f;
    sem_frame_begin(&f, 8);
    rc = long_stack(v, (unsigned)(gate[0] >> 32) & 7, t.cpl, &st);
    if (rc)
        return rc;
    sem_frame_push(&f, v->seg[SEG_SS].sel);
    sem_frame_push(&f, v->gpr[REG_RSP]);
    rc = push_return(v, e, &st, &f);
    if (rc)
        return rc;
    enter_handler(v, &t, &st, t.cpl < v->cpl);
    return 0;
}

/* --- one event, and what becomes of a fault in it --- */

/* 0, or nonzero with v->fault. */
static int deliver(struct vcpu *v, const struct event *e) {
    int rc;
    if (vcpu_is_real(v))
        rc = deliver_real(v, e);
    else if (v->long_mode)
        rc = deliver_long(v, e);
    else
        rc = deliver_legacy(v, e);
    if (rc && !is_software(e) && v->fault.has_error && v->fault.vector != X86_PF &&
        v->fault.vector != X86_AC)
        v->fault.error |= X86_SELERR_EXT;
    return rc;
}

/* #DE, #TS, #NP, #SS and #GP. */
static bool is_contributory(uint8_t vector) {
    return vector == X86_DE || (vector >= X86_TS && vector <= X86_GP);
}

static bool is_benign(uint8_t vector) {
    return !is_contributory(vector) && vector != X86_PF;
}

static bool makes_double_fault(uint8_t first, uint8_t second) {
    if (is_contributory(first))
        return is_contributory(second);
    return first == X86_PF && !is_benign(second);
}

/* Registers that an exception changes when it is raised, whatever becomes of it. */
static void raise(struct vcpu *v) {
    if (v->fault.vector == X86_PF) {
        v->cr2 = v->fault.addr;
        v->cnt->true_page_faults++;
    } else if (v->fault.vector == X86_DB) {
        v->dr[6] = (v->dr[6] & ~0xfull) | v->fault.dr6;
        v->dr[7] &= ~(uint64_t)X86_DR7_GD;
    }
}

/* The event that v->fault is. A fault sets RF in what it pushes, but for an execution
 * breakpoint, whose handler decides. Intel SDM volume 3, "Instruction-Breakpoint
 * Exception Condition". */
static struct event fault_event(const struct vcpu *v) {
    const struct fault *f = &v->fault;
    struct event e = {
        .kind = EVENT_EXCEPTION,
        .vector = f->vector,
        .has_error = f->has_error,
        .error = f->error,
        .rip = v->rip,
        .flags = v->rflags,
    };
    bool execution = f->vector == X86_DB && !(f->dr6 & X86_DR6_BD);
    if (!f->trap && !execution && f->vector != X86_DF)
        e.flags |= X86_FL_RF;
    return e;
}

/* An interrupt or benign exception, a contributory one, #PF, #DF: the longest way to a
 * shutdown. Nothing that a delivery does raises a benign exception. */
#define DELIVERIES 4

static int run_event(struct vcpu *v, struct event e) {
    unsigned failed = 0;

    v->halted = false;
    v->irq_shadow = false;
    while (deliver(v, &e)) {
        raise(v);
        if (++failed == DELIVERIES || (e.kind == EVENT_EXCEPTION && e.vector == X86_DF))
            return SEM_SHUTDOWN;
        if (e.kind == EVENT_EXCEPTION && makes_double_fault(e.vector, v->fault.vector))
            v->fault = (struct fault){.vector = X86_DF, .has_error = true};
        e = fault_event(v);
    }
    if (e.kind == EVENT_EXCEPTION)
        v->cnt->exceptions_delivered++;
    return SEM_BRANCH;
}

int sem_deliver(struct vcpu *v) {
    raise(v);
    return run_event(v, fault_event(v));
}

int sem_interrupt(struct vcpu *v, uint8_t vector) {
    v->cnt->interrupts_delivered++;
    return run_event(v, (struct event){.kind = EVENT_EXTERNAL,
                                       .vector = vector,
                                       .rip = v->rip,
                                       .flags = v->rflags});
}

int sem_nmi(struct vcpu *v) {
    v->nmi_blocked = true;
    return sem_interrupt(v, X86_NMI);
}

/* --- instructions --- */

static int software(struct vcpu *v, uint8_t vector, unsigned len, enum event_kind kind) {
    uint64_t mask = v->mode == MODE_64 ? ~0ull : v->mode == MODE_32 ? 0xffffffff : 0xffff;
    struct event e = {
        .kind = kind,
        .vector = vector,
        .rip = (v->rip + len) & mask,
        .flags = v->rflags,
    };
    bool redirect = false;
    if (kind == EVENT_INT && sem_is_v86(v)) {
        if (v86_redirects(v, vector, &redirect))
            return SEM_FAULT;
        if (!redirect && (v->rflags & X86_FL_IOPL) != X86_FL_IOPL)
            return sem_fault_err(v, X86_GP, 0);
    }
    if (redirect ? deliver_redirected(v, &e) : deliver(v, &e))
        return SEM_FAULT;
    v->cnt->software_interrupts++;
    v->irq_shadow = false;
    return SEM_BRANCH;
}

int sem_soft_interrupt(struct vcpu *v, uint8_t vector, unsigned insn_len,
                       bool is_int3_into) {
    return software(v, vector, insn_len, is_int3_into ? EVENT_INT3 : EVENT_INT);
}

int sem_exec_int(struct vcpu *v, const struct insn *i) {
    return software(v, (uint8_t)i->imm, i->len, EVENT_INT);
}

int sem_exec_int3(struct vcpu *v, const struct insn *i) {
    return software(v, X86_BP, i->len, EVENT_INT3);
}

int sem_exec_into(struct vcpu *v, const struct insn *i) {
    return v->rflags & X86_FL_OF ? software(v, X86_OF, i->len, EVENT_INT3) : SEM_NEXT;
}

/* INT1 is a #DB of its own, and what an operand of MOV SS before it has hit is told by
 * the same one. It has no bit in DR6; B0 to B3 of the past go on Intel's CPUs, as with
 * every #DB, and stay on AMD's (Xen, x86_merge_dr6()). */
int sem_exec_int1(struct vcpu *v, const struct insn *i) {
    if (v->pending_db || !sem_is_amd(v))
        v->dr[6] = (v->dr[6] & ~0xfull) | v->pending_db;
    v->pending_db = 0;
    v->dr[7] &= ~(uint64_t)X86_DR7_GD;
    return software(v, X86_DB, i->len, EVENT_INT1);
}
