/*
 * Long mode's events, far transfers and system calls, and SYSENTER in 32-bit mode:
 * frames, interrupt stacks, canonical addresses. The whole effect is checked, or the
 * fault with its error code and an unchanged vCPU.
 */
#include "lib/far.h"
#include "lib/unit.h"
#include "x86/pte.h"

/* --- long mode --- */

static void long_interrupt_and_iret(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    far_idt64(f, 0x30, 0, CODE64, 0);
    far_enter(f, CODE64_3, DATA3, 3, STACK3 - 4);
    v->rflags = X86_FL_ONE | X86_FL_IF;
    assert_int_equal(sem_interrupt(v, 0x30), SEM_BRANCH);
    far_at(v, CODE64, HANDLER, STACK0 - 16 - 40);
    assert_int_equal(v->seg[SEG_SS].sel, 0);
    static const uint64_t frame[] = {0x7000, CODE64_3 | 3, X86_FL_ONE | X86_FL_IF,
                                     STACK3 - 4, DATA3 | 3};
    for (unsigned k = 0; k < 5; k++)
        assert_int_equal(guest_get(f, v->gpr[REG_RSP] + 8 * k, 8), frame[k]);
    assert_int_equal(far_go(v, OP_iret, 8, 0, 0), SEM_BRANCH);
    far_at(v, CODE64_3 | 3, 0x7000, STACK3 - 4);
    assert_int_equal(v->seg[SEG_SS].sel, DATA3 | 3);
    /* To compatibility mode. */
    assert_int_equal(sem_interrupt(v, 0x30), SEM_BRANCH);
    guest_put(f, v->gpr[REG_RSP] + 8, CODE3 | 3, 8);
    assert_int_equal(far_go(v, OP_iret, 8, 0, 0), SEM_BRANCH);
    assert_int_equal(v->mode, MODE_32);
    assert_int_equal(sem_interrupt(v, 0x30), SEM_BRANCH);
    assert_int_equal(v->mode, MODE_64);
}

static void long_ist_same_level(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    far_idt64(f, X86_PF, 0, CODE64, 1);
    v->fault =
        (struct fault){.vector = X86_PF, .has_error = true, .error = 2, .addr = 0x300000};
    assert_int_equal(sem_deliver(v), SEM_BRANCH);
    far_at(v, CODE64, HANDLER, STACK_IST - 48);
    assert_int_equal(v->cr2, 0x300000);
    assert_int_equal(v->seg[SEG_SS].sel, DATA0);
    assert_int_equal(guest_get(f, STACK_IST - 48, 8), 2);
    assert_int_equal(f->cnt.true_page_faults, 1);
    v->gpr[REG_RSP] += 8;
    guest_put(f, STACK_IST - 8, 0, 8); /* null SS, level 0 */
    assert_int_equal(far_go(v, OP_iret, 8, 0, 0), SEM_BRANCH);
    far_at(v, CODE64, 0x7000, STACK0);
}

static void long_errors(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    far_idt64(f, 0x40, 0, CODE0, 0); /* not a 64-bit segment */
    far_soft(f, 0x40, X86_GP, CODE0);
    far_idt64(f, 0x40, 0, CODE64, 0);
    guest_put(f, IDT + 0x40 * 16 + 8, 0x8000, 4); /* not canonical */
    far_soft(f, 0x40, X86_GP, 0);
    far_idt64(f, 0x40, 0, CODE64, 0);
    v->gpr[REG_RSP] = 0x0000900000000000;
    far_soft(f, 0x40, X86_SS, 0);
    /* A push into an absent page: #PF, and a second one makes #DF on the IST. */
    v->gpr[REG_RSP] = 0x280000;
    far_soft(f, 0x40, X86_PF, 2);
    assert_int_equal(v->fault.addr, 0x27fff8);
    far_idt64(f, X86_PF, 0, CODE64, 0);
    far_idt64(f, X86_DF, 0, CODE64, 1);
    assert_int_equal(sem_deliver(v), SEM_BRANCH);
    far_at(v, CODE64, HANDLER, STACK_IST - 48);
    assert_int_equal(v->cr2, 0x27fff8);
    assert_int_equal(guest_get(f, STACK_IST - 48, 8), 0);
    /* NT in long mode. */
    v->rflags |= X86_FL_NT;
    far_faults(v, OP_iret, 8, 0, 0, X86_GP, 0);
}

static void long_far(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    far_enter(f, CODE64_3, DATA3, 3, STACK3);
    guest_put(f, 0x6100, (uint64_t)(GATE | 3) << 32, 8);
    struct insn i = far_insn(OP_call_far, 4, v);
    i.nops = 1;
    i.mem.disp = 0x6100;
    assert_int_equal(far_run(v, &i), SEM_BRANCH);
    far_at(v, CODE64, HANDLER, STACK0 - 8 - 32);
    assert_int_equal(v->seg[SEG_SS].sel, 0);
    assert_int_equal(guest_get(f, STACK0 - 16, 8), DATA3 | 3);
    assert_int_equal(guest_get(f, STACK0 - 24, 8), STACK3);
    assert_int_equal(far_go(v, OP_ret_far, 8, 0, 0), SEM_BRANCH);
    far_at(v, CODE64_3 | 3, 0x7002, STACK3);
    guest_put(f, GDT + GATE + 8, 0x8000, 8); /* not canonical */
    assert_int_equal(far_run(v, &i), SEM_FAULT);
    assert_int_equal(v->fault.vector, X86_GP);
    assert_int_equal(v->fault.error, 0);
}

static void long_syscall(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    v->star = (uint64_t)(CODE64 << 0) << 32 | (uint64_t)0x33 << 48;
    v->lstar = 0xffffffff81000000;
    v->sfmask = X86_FL_IF | X86_FL_DF;
    far_enter(f, CODE64_3, DATA3, 3, STACK3);
    v->rflags = X86_FL_ONE | X86_FL_IF | X86_FL_DF | X86_FL_CF;
    assert_int_equal(far_go(v, OP_syscall, 8, 0, 0), SEM_BRANCH);
    far_at(v, CODE64, 0xffffffff81000000, STACK3);
    assert_int_equal(v->seg[SEG_SS].sel, CODE64 + 8);
    assert_int_equal(v->gpr[REG_RCX], 0x7002);
    assert_int_equal(v->gpr[REG_R11], X86_FL_ONE | X86_FL_IF | X86_FL_DF | X86_FL_CF);
    assert_int_equal(v->rflags, X86_FL_ONE | X86_FL_CF);
    struct insn i = far_insn(OP_sysret, 8, v);
    i.flags = INSN_REX_W;
    assert_int_equal(far_run(v, &i), SEM_BRANCH);
    far_at(v, 0x43, 0x7002, STACK3);
    assert_int_equal(v->seg[SEG_SS].sel, 0x3b);
    assert_int_equal(v->mode, MODE_64);
    assert_int_equal(v->rflags, X86_FL_ONE | X86_FL_IF | X86_FL_DF | X86_FL_CF);
    assert_int_equal(v->pending_db, 0);
    far_faults(v, OP_sysret, 8, 0, 0, X86_GP, 0);
    /* TF that it sets traps at once. */
    far_enter(f, CODE64, DATA0, 0, STACK0);
    v->gpr[REG_R11] = X86_FL_ONE | X86_FL_TF;
    assert_int_equal(far_run(v, &i), SEM_BRANCH);
    assert_int_equal(v->pending_db, X86_DR6_BS);
    v->efer &= ~(uint64_t)X86_EFER_SCE;
    far_faults(v, OP_syscall, 8, 0, 0, X86_UD, 0);
}

static void fast_system_call_32(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    far_ring3(f);
    far_faults(v, OP_sysenter, 4, 0, 0, X86_GP, 0);
    v->sysenter_cs = CODE0;
    v->sysenter_eip = 0x6000;
    v->sysenter_esp = STACK0;
    v->rflags = X86_FL_ONE | X86_FL_IF;
    assert_int_equal(far_go(v, OP_sysenter, 4, 0, 0), SEM_BRANCH);
    far_at(v, CODE0, 0x6000, STACK0);
    assert_int_equal(v->rflags, X86_FL_ONE);
    v->gpr[REG_RDX] = 0x7004;
    v->gpr[REG_RCX] = STACK3;
    assert_int_equal(far_go(v, OP_sysexit, 4, 0, 0), SEM_BRANCH);
    far_at(v, CODE3 | 3, 0x7004, STACK3);
    assert_int_equal(v->seg[SEG_SS].sel, DATA3 | 3);
    far_faults(v, OP_sysexit, 4, 0, 0, X86_GP, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        T64(long_interrupt_and_iret),
        T64(long_ist_same_level),
        T64(long_errors),
        T64(long_far),
        T64(long_syscall),
        T32(fast_system_call_32),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
