/*
 * IRET in every mode: real, virtual-8086 (IOPL, VME), protected to the same or an outer
 * level, to virtual-8086 mode, to the previous task, and long mode.
 *
 * AMD64 APM volume 3, "IRET", and volume 2, "Long-Mode Interrupt Control Transfers",
 * "Interrupt Returns". NMIs are let in again when the instruction completes.
 */
#include "sem/far_int.h"

#define FLAGS_USER                                                                       \
    (X86_FL_STATUS | X86_FL_TF | X86_FL_DF | X86_FL_NT)  /* any level, any size */
#define FLAGS_USER32 (X86_FL_RF | X86_FL_AC | X86_FL_ID) /* when 32 bits are popped */
#define FLAGS_KERNEL32 (X86_FL_VIF | X86_FL_VIP)         /* at CPL 0, protected mode */

static int done(struct vcpu *v) {
    v->nmi_blocked = false;
    v->irq_shadow = false;
    return SEM_BRANCH;
}

static int read_frame(struct vcpu *v, const struct sem_stack *st, unsigned size,
                      uint64_t *frame, unsigned n) {
    for (unsigned k = 0; k < n; k++)
        if (sem_stack_read(v, st, k * size, size, &frame[k]))
            return SEM_FAULT;
    return 0;
}

/* Real mode, and virtual-8086 mode where IOPL is 3. MASK: flags that may change. */
static int iret_real(struct vcpu *v, unsigned size, uint64_t mask) {
    struct sem_stack st;
    uint64_t frame[3];
    sem_stack_current(v, &st);
    if (read_frame(v, &st, size, frame, 3))
        return SEM_FAULT;
    struct segment cs = sem_real_cs(v, (uint16_t)frame[1]);
    if (sem_check_rip(v, &cs, frame[0]))
        return SEM_FAULT;
    if (size == 4)
        mask |= FLAGS_USER32;
    sem_set_sp(v, st.sp + 3 * size);
    sem_enter(v, &cs, v->cpl, frame[0]);
    sem_write_flags(v, frame[2], mask);
    return done(v);
}

/* Virtual-8086 mode with IOPL < 3: only with VME, 16 bits wide, and on VIF. */
static int iret_v86_virtual(struct vcpu *v, unsigned size) {
    struct sem_stack st;
    uint64_t frame[3];
    if (!(v->cr4 & X86_CR4_VME) || size != 2)
        return sem_fault_err(v, X86_GP, 0);
    sem_stack_current(v, &st);
    if (read_frame(v, &st, size, frame, 3))
        return SEM_FAULT;
    bool wants_if = frame[2] & X86_FL_IF;
    if ((frame[2] & X86_FL_TF) || (wants_if && (v->rflags & X86_FL_VIP)))
        return sem_fault_err(v, X86_GP, 0);
    struct segment cs = sem_real_cs(v, (uint16_t)frame[1]);
    if (sem_check_rip(v, &cs, frame[0]))
        return SEM_FAULT;
    sem_set_sp(v, st.sp + 3 * size);
    sem_enter(v, &cs, v->cpl, frame[0]);
    sem_write_flags(v, frame[2] | (wants_if ? X86_FL_VIF : 0), FLAGS_USER | X86_FL_VIF);
    return done(v);
}

static int iret_task(struct vcpu *v, const struct insn *i) {
    uint16_t link = 0;
    if (v->long_mode)
        return sem_fault_err(v, X86_GP, 0);
    if (mmu_sys_read(v, sem_sys_gva(v, v->tr.base), &link, 2) ||
        sem_task_switch(v, link, TASK_IRET, sem_next_rip(v, i), v->rflags, false, 0))
        return SEM_FAULT;
    return done(v);
}

/* EIP, CS and EFLAGS are followed by ESP, SS, ES, DS, FS, GS. */
static int iret_to_v86(struct vcpu *v, const struct sem_stack *st) {
    static const uint8_t segs[] = {SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    uint64_t frame[9];
    if (read_frame(v, st, 4, frame, 9))
        return SEM_FAULT;
    if (frame[0] > 0xffff)
        return sem_fault_err(v, X86_GP, 0);
    v->rflags |= X86_FL_VM;
    for (unsigned k = 0; k < ARRAY_SIZE(segs); k++)
        sem_load_seg_real(v, segs[k], (uint16_t)frame[4 + k]);
    struct segment cs = sem_real_cs(v, (uint16_t)frame[1]);
    v->gpr[REG_RSP] = frame[3];
    sem_enter(v, &cs, 3, frame[0]);
    sem_write_flags(v, frame[2],
                    FLAGS_USER | FLAGS_USER32 | FLAGS_KERNEL32 | X86_FL_IF | X86_FL_IOPL);
    return done(v);
}

static int iret_protected(struct vcpu *v, unsigned size) {
    struct sem_stack st;
    struct sem_return r;
    uint64_t flags;
    sem_stack_current(v, &st);
    if (sem_stack_read(v, &st, 2 * size, size, &flags))
        return SEM_FAULT;
    if (size == 4 && (flags & X86_FL_VM) && v->cpl == 0 && !v->long_mode)
        return iret_to_v86(v, &st);
    uint64_t mask = FLAGS_USER;
    if (size > 2)
        mask |= FLAGS_USER32;
    if (v->cpl <= (v->rflags & X86_FL_IOPL) >> X86_FL_IOPL_SHIFT)
        mask |= X86_FL_IF;
    if (v->cpl == 0)
        mask |= X86_FL_IOPL | (size > 2 ? FLAGS_KERNEL32 : 0);
    if (sem_check_return(v, &st, size, size, 3 * size, v->mode == MODE_64, &r))
        return SEM_FAULT;
    sem_commit_return(v, &st, 3 * size, &r);
    sem_write_flags(v, flags, mask);
    return done(v);
}

int sem_exec_iret(struct vcpu *v, const struct insn *i) {
    sem_serialize(v);
    if (vcpu_is_real(v))
        return iret_real(v, i->opsize, FLAGS_USER | X86_FL_IF | X86_FL_IOPL);
    if (sem_is_v86(v)) {
        if ((v->rflags & X86_FL_IOPL) != X86_FL_IOPL)
            return iret_v86_virtual(v, i->opsize);
        return iret_real(v, i->opsize, FLAGS_USER | X86_FL_IF);
    }
    if (v->rflags & X86_FL_NT)
        return iret_task(v, i);
    return iret_protected(v, i->opsize);
}
