/*
 * Events in protected mode: exceptions and interrupts through gates of each kind, to
 * inner levels and back, faults on the way, and tasks that they switch to. The whole
 * effect is checked: registers, the frame in memory, or the fault with its error code.
 */
#include "lib/far.h"
#include "lib/unit.h"
#include "x86/pte.h"

/* --- protected mode, events --- */

static void exception_same_level(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    far_idt32(f, X86_GP, X86_DESC_INTGATE32, 0, CODE0);
    v->rflags = X86_FL_ONE | X86_FL_IF | X86_FL_TF | X86_FL_NT;
    v->halted = v->irq_shadow = true;
    assert_int_equal(far_raise(v, X86_GP, true, 0x1234), SEM_BRANCH);
    far_at(v, CODE0, HANDLER, STACK0 - 16);
    assert_int_equal(v->rflags, X86_FL_ONE);
    assert_int_equal(guest_get(f, STACK0 - 16, 4), 0x1234);
    assert_int_equal(guest_get(f, STACK0 - 12, 4), 0x7000);
    assert_int_equal(guest_get(f, STACK0 - 8, 4), CODE0);
    assert_int_equal(guest_get(f, STACK0 - 4, 4), 0x14302 | X86_FL_RF);
    assert_false(v->halted);
    assert_false(v->irq_shadow);
    assert_int_equal(f->cnt.exceptions_delivered, 1);
}

static void interrupt_to_inner_level_and_back(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    far_idt32(f, 0x30, X86_DESC_INTGATE32, 0, CODE0);
    far_ring3(f);
    v->rflags = X86_FL_ONE | X86_FL_IF;
    assert_int_equal(sem_interrupt(v, 0x30), SEM_BRANCH);
    far_at(v, CODE0, HANDLER, STACK0 - 20);
    assert_int_equal(v->seg[SEG_SS].sel, DATA0);
    assert_int_equal(guest_get(f, STACK0 - 4, 4), DATA3 | 3);
    assert_int_equal(guest_get(f, STACK0 - 8, 4), STACK3);
    assert_int_equal(guest_get(f, STACK0 - 12, 4), X86_FL_ONE | X86_FL_IF);
    assert_int_equal(guest_get(f, STACK0 - 16, 4), CODE3 | 3);
    assert_int_equal(guest_get(f, STACK0 - 20, 4), 0x7000);
    assert_int_equal(f->cnt.interrupts_delivered, 1);
    far_use_seg(f, SEG_ES, DATA0);
    v->nmi_blocked = true;
    assert_int_equal(far_go(v, OP_iret, 4, 0, 0), SEM_BRANCH);
    far_at(v, CODE3 | 3, 0x7000, STACK3);
    assert_int_equal(v->seg[SEG_ES].sel, 0); /* of ring 0: dropped */
    assert_int_equal(v->seg[SEG_DS].sel, DATA3 | 3);
    assert_true(v->rflags & X86_FL_IF);
    assert_false(v->nmi_blocked);
}

static void gate_errors(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    far_ring3(f);
    far_idt32(f, 0x40, X86_DESC_INTGATE32, 0, CODE0);
    far_soft(f, 0x40, X86_GP, 0x40 * 8 + 2); /* DPL */
    far_idt32(f, 0x40, X86_DESC_TSS32, 3, CODE0);
    far_soft(f, 0x40, X86_GP, 0x40 * 8 + 2); /* type */
    guest_put(f, IDT + 0x40 * 8 + 5, 0x6e, 1);
    far_soft(f, 0x40, X86_NP, 0x40 * 8 + 2); /* gate not present */
    far_idt32(f, 0x40, X86_DESC_INTGATE32, 3, 0);
    far_soft(f, 0x40, X86_GP, 0); /* null */
    far_idt32(f, 0x40, X86_DESC_INTGATE32, 3, DATA0);
    far_soft(f, 0x40, X86_GP, DATA0); /* not code */
    far_idt32(f, 0x40, X86_DESC_INTGATE32, 3, GONE_CODE);
    far_soft(f, 0x40, X86_NP, GONE_CODE);
    far_idt32(f, 0x40, X86_DESC_INTGATE32, 3, GDT_LIMIT + 1);
    far_soft(f, 0x40, X86_GP, GDT_LIMIT + 1);
    far_idt32(f, 0x40, X86_DESC_INTGATE32, 3, SMALL_CODE);
    far_soft(f, 0x40, X86_GP, 0); /* entry point beyond the limit */
    v->idtr.limit = 0x40 * 8 + 6;
    far_soft(f, 0x40, X86_GP, 0x40 * 8 + 2);
    far_at(v, CODE3 | 3, 0x7000, STACK3);
}

static void inner_stack_errors(void **state) {
    struct guest *f = *state;
    far_ring3(f);
    far_idt32(f, 0x40, X86_DESC_INTGATE32, 3, CODE0);
    guest_put(f, TSS + 8, 0, 4);
    far_soft(f, 0x40, X86_TS, 0);
    guest_put(f, TSS + 8, DATA0 | 1, 4);
    far_soft(f, 0x40, X86_TS, DATA0);
    guest_put(f, TSS + 8, CODE0, 4);
    far_soft(f, 0x40, X86_TS, CODE0);
    guest_put(f, TSS + 8, GDT_LIMIT + 1, 4);
    far_soft(f, 0x40, X86_TS, GDT_LIMIT + 1);
    guest_put(f, TSS + 8, GONE_DATA, 4);
    far_soft(f, 0x40, X86_SS, GONE_DATA);
    far_gdt(f, GONE_DATA,
            far_segment(0x4093, 0, 0xff)); /* too small for the stack pointer */
    far_soft(f, 0x40, X86_SS, GONE_DATA);
    f->v->tr.limit = 8;
    far_soft(f, 0x40, X86_TS, SEL_TSS);
}

static void nested_faults(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    /* An interrupt whose gate is missing: #NP with EXT. */
    far_idt32(f, X86_NP, X86_DESC_INTGATE32, 0, CODE0);
    guest_put(f, IDT + 0x30 * 8, (uint64_t)X86_DESC_INTGATE32 << 40, 8);
    assert_int_equal(sem_interrupt(v, 0x30), SEM_BRANCH);
    assert_int_equal(guest_get(f, v->gpr[REG_RSP], 4), 0x30 * 8 + 3);
    /* #GP without a gate: #DF. */
    far_ring0(f);
    far_idt32(f, X86_DF, X86_DESC_INTGATE32, 0, CODE0);
    assert_int_equal(far_raise(v, X86_GP, true, 0), SEM_BRANCH);
    far_at(v, CODE0, HANDLER, STACK0 - 16);
    assert_int_equal(guest_get(f, STACK0 - 16, 4), 0);
    assert_int_equal(guest_get(f, STACK0 - 12, 4), 0x7000);
    /* #UD is benign: its missing gate is plain #NP or #GP. */
    far_ring0(f);
    far_idt32(f, X86_GP, X86_DESC_INTGATE32, 0, CODE0);
    assert_int_equal(far_raise(v, X86_UD, false, 0), SEM_BRANCH);
    assert_int_equal(guest_get(f, STACK0 - 16, 4), X86_UD * 8 + 3);
    /* No #DF gate: shutdown. */
    far_ring0(f);
    guest_put(f, IDT + X86_GP * 8, 0, 8);
    guest_put(f, IDT + X86_DF * 8, 0, 8);
    assert_int_equal(far_raise(v, X86_GP, true, 0), SEM_SHUTDOWN);
}

static void debug_and_nmi(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    far_idt32(f, X86_DB, X86_DESC_TRAPGATE32, 0, CODE0);
    far_idt32(f, X86_NMI, X86_DESC_INTGATE32, 0, CODE0);
    v->rflags = X86_FL_ONE | X86_FL_IF | X86_FL_TF;
    v->dr[6] = X86_DR6_FIXED | 3;
    v->dr[7] |= X86_DR7_GD;
    v->fault = (struct fault){.vector = X86_DB, .trap = true, .dr6 = X86_DR6_BS};
    assert_int_equal(sem_deliver(v), SEM_BRANCH);
    assert_int_equal(v->dr[6], X86_DR6_FIXED | X86_DR6_BS);
    assert_false(v->dr[7] & X86_DR7_GD);
    assert_int_equal(v->rflags, X86_FL_ONE | X86_FL_IF); /* a trap gate keeps IF */
    assert_false(guest_get(f, STACK0 - 4, 4) & X86_FL_RF);
    assert_int_equal(sem_nmi(v), SEM_BRANCH);
    assert_true(v->nmi_blocked);
}

static void gate16(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    far_idt32(f, 0x40, X86_DESC_TRAPGATE16, 0, CODE0);
    assert_int_equal(sem_interrupt(v, 0x40), SEM_BRANCH);
    far_at(v, CODE0, HANDLER, STACK0 - 6);
    assert_int_equal(guest_get(f, STACK0 - 6, 2), 0x7000);
    assert_int_equal(guest_get(f, STACK0 - 4, 2), CODE0);
}

/* --- tasks --- */

static void task2(struct guest *f) {
    static const uint8_t at_off[] = {0x20, 0x24, 0x28, 0x38, 0x48, 0x4c,
                                     0x50, 0x54, 0x58, 0x5c, 0x60};
    static const uint32_t val[] = {HANDLER, X86_FL_ONE, 0xaaaa, STACK_IST, DATA0, CODE0,
                                   DATA0,   DATA0,      0,      0,         0};
    for (unsigned k = 0; k < ARRAY_SIZE(val); k++)
        guest_put(f, TSS2 + at_off[k], val[k], 4);
}

static void task_call_and_iret(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    task2(f);
    v->gpr[REG_RAX] = 0x1111;
    v->dr[7] |= 0x3;
    assert_int_equal(far_go(v, OP_call_far, 4, TASKGATE, 0), SEM_BRANCH);
    far_at(v, CODE0, HANDLER, STACK_IST);
    assert_int_equal(v->tr.sel, SEL_TSS2);
    assert_int_equal(v->gpr[REG_RAX], 0xaaaa);
    assert_true(v->rflags & X86_FL_NT);
    assert_true(v->cr0 & X86_CR0_TS);
    assert_int_equal(v->dr[7] & 3, 2);
    assert_int_equal(guest_get(f, TSS2, 2), SEL_TSS);
    assert_int_equal(guest_get(f, TSS + 0x20, 4), 0x7002);
    assert_int_equal(guest_get(f, TSS + 0x28, 4), 0x1111);
    assert_int_equal(guest_get(f, TSS + 0x4c, 2), CODE0);
    assert_int_equal(guest_get(f, GDT + SEL_TSS + 5, 1), 0x8b);
    assert_int_equal(guest_get(f, GDT + SEL_TSS2 + 5, 1), 0x8b);
    far_faults(v, OP_jmp_far, 4, SEL_TSS, 0, X86_GP, SEL_TSS); /* busy */
    assert_int_equal(far_go(v, OP_iret, 4, 0, 0), SEM_BRANCH);
    far_at(v, CODE0, 0x7002, STACK0);
    assert_int_equal(v->gpr[REG_RAX], 0x1111);
    assert_int_equal(v->tr.sel, SEL_TSS);
    assert_int_equal(guest_get(f, GDT + SEL_TSS2 + 5, 1), 0x89);
    assert_false(guest_get(f, TSS2 + 0x24, 4) & X86_FL_NT);
}

/* The way in which 32-bit Linux reports a double fault. */
static void task_double_fault(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    task2(f);
    guest_put(f, IDT + X86_DF * 8, far_gate(X86_DESC_TASKGATE, 0, SEL_TSS2, 0, 0), 8);
    v->gpr[REG_RSP] = 0x10;
    v->seg[SEG_SS].limit = 3; /* no stack to push #GP on */
    vcpu_update_mode(v);
    far_idt32(f, X86_GP, X86_DESC_INTGATE32, 0, CODE0);
    assert_int_equal(far_raise(v, X86_GP, true, 0), SEM_BRANCH);
    far_at(v, CODE0, HANDLER, STACK_IST - 4);
    assert_int_equal(guest_get(f, STACK_IST - 4, 4), 0);
    assert_int_equal(guest_get(f, TSS + 0x20, 4), 0x7000);
    assert_int_equal(guest_get(f, TSS + 0x38, 4), 0x10);
}

/* The T bit of the #DF handler's task: a #DB waits there, and it is no shutdown. */
static void task_double_fault_traced(void **state) {
    struct guest *f = *state;
    task2(f);
    guest_put(f, TSS2 + 0x64, 1, 2);
    guest_put(f, IDT + X86_DF * 8, far_gate(X86_DESC_TASKGATE, 0, SEL_TSS2, 0, 0), 8);
    far_idt32(f, X86_DB, X86_DESC_TRAPGATE32, 0, CODE0);
    assert_int_equal(far_raise(f->v, X86_GP, true, 0), SEM_BRANCH);
    far_at(f->v, CODE0, HANDLER, STACK_IST - 4);
    assert_int_equal(f->v->pending_db, X86_DR6_BT);
    assert_int_equal(f->v->tr.sel, SEL_TSS2);
}

static void task_errors(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    task2(f);
    far_gdt(f, SEL_TSS2, far_segment(0x09, TSS2, 0x67));
    far_faults(v, OP_jmp_far, 4, SEL_TSS2, 0, X86_NP, SEL_TSS2);
    far_gdt(f, SEL_TSS2, far_segment(0x89, TSS2, 0x66));
    far_faults(v, OP_jmp_far, 4, SEL_TSS2, 0, X86_TS, SEL_TSS2);
    far_gdt(f, SEL_TSS2, far_segment(0x89, TSS2, 0x67));
    /* A bad SS is found in the new task. */
    guest_put(f, TSS2 + 0x50, CODE0, 4);
    assert_int_equal(far_go(v, OP_jmp_far, 4, SEL_TSS2, 0), SEM_FAULT);
    assert_int_equal(v->fault.vector, X86_TS);
    assert_int_equal(v->fault.error, CODE0);
    assert_int_equal(v->tr.sel, SEL_TSS2);
    assert_int_equal(v->rip, HANDLER);
    assert_int_equal(guest_get(f, GDT + SEL_TSS + 5, 1), 0x89);
    /* The link of an IRET must be a busy TSS. */
    v->rflags |= X86_FL_NT;
    guest_put(f, TSS2, SEL_TSS, 2);
    assert_int_equal(far_go(v, OP_iret, 4, 0, 0), SEM_FAULT);
    assert_int_equal(v->fault.vector, X86_TS);
    assert_int_equal(v->fault.error, SEL_TSS);
}

static void task_trap_bit(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    task2(f);
    guest_put(f, TSS2 + 0x64, 1, 2);
    assert_int_equal(far_go(v, OP_jmp_far, 4, SEL_TSS2, 0), SEM_BRANCH);
    assert_int_equal(v->pending_db, X86_DR6_BT);
    far_at(v, CODE0, HANDLER, STACK_IST);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        T32(exception_same_level),
        T32(interrupt_to_inner_level_and_back),
        T32(gate_errors),
        T32(inner_stack_errors),
        T32(nested_faults),
        T32(debug_and_nmi),
        T32(gate16),
        T32(task_call_and_iret),
        T32(task_double_fault),
        T32(task_double_fault_traced),
        T32(task_errors),
        T32(task_trap_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
