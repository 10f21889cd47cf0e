/*
 * Far jumps, calls and returns, in real, protected and virtual-8086 mode, on descriptor
 * tables built in RAM. Each test sets a level, runs one transfer, and checks the whole
 * effect: registers, the frame in memory, or the fault with its error code and an
 * unchanged vCPU.
 */
#include "lib/far.h"
#include "lib/unit.h"
#include "x86/pte.h"

/* --- real mode --- */

static void real_interrupt_and_iret(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    guest_put(f, 0x21 * 4, 0x02000050, 4);
    v->rflags = X86_FL_ONE | X86_FL_IF | X86_FL_TF | X86_FL_CF;
    struct insn i = far_insn(OP_int, 2, v);
    i.imm = 0x21;
    assert_int_equal(far_run(v, &i), SEM_BRANCH);
    assert_int_equal(v->seg[SEG_CS].sel, 0x200);
    assert_int_equal(v->seg[SEG_CS].base, 0x2000);
    assert_int_equal(v->rip, 0x50);
    assert_int_equal(v->gpr[REG_RSP], 0x7ffa);
    assert_int_equal(v->rflags, X86_FL_ONE | X86_FL_CF);
    assert_int_equal(guest_get(f, 0x7ffa, 2), 0x125);
    assert_int_equal(guest_get(f, 0x7ffc, 2), 0x100);
    assert_int_equal(guest_get(f, 0x7ffe, 2), 0x303);
    assert_int_equal(f->cnt.software_interrupts, 1);
    i = far_insn(OP_iret, 2, v);
    assert_int_equal(far_run(v, &i), SEM_BRANCH);
    assert_int_equal(v->seg[SEG_CS].sel, 0x100);
    assert_int_equal(v->rip, 0x125);
    assert_int_equal(v->gpr[REG_RSP], 0x8000);
    assert_int_equal(v->rflags, X86_FL_ONE | X86_FL_IF | X86_FL_TF | X86_FL_CF);
}

static void real_call_and_ret(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    assert_int_equal(far_go(v, OP_call_far, 2, 0x300, 0x44), SEM_BRANCH);
    assert_int_equal(v->seg[SEG_CS].base, 0x3000);
    assert_int_equal(v->rip, 0x44);
    assert_int_equal(guest_get(f, 0x7ffc, 4), 0x01000125);
    struct insn i = far_insn(OP_ret_far, 2, v);
    i.nops = 1;
    i.imm = 6;
    assert_int_equal(far_run(v, &i), SEM_BRANCH);
    assert_int_equal(v->rip, 0x125);
    assert_int_equal(v->gpr[REG_RSP], 0x8006);
}

static void real_limits(void **state) {
    struct vcpu *v = ((struct guest *)*state)->v;
    v->idtr.limit = 0x83;
    struct insn i = far_insn(OP_int, 2, v);
    i.imm = 0x21;
    assert_int_equal(far_run(v, &i), SEM_FAULT);
    assert_int_equal(v->fault.vector, X86_GP);
    v->gpr[REG_RSP] = 1;
    far_faults(v, OP_call_far, 2, 0x300, 0, X86_SS, 0);
    /* No vector at all: #GP, #DF and then shutdown. */
    v->idtr.limit = 0;
    assert_int_equal(far_raise(v, X86_UD, false, 0), SEM_SHUTDOWN);
}

/* --- protected mode, jumps, calls, returns --- */

static void jump_checks(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    far_faults(v, OP_jmp_far, 4, 0, 0, X86_GP, 0);
    far_faults(v, OP_jmp_far, 4, GDT_LIMIT + 1, 0, X86_GP, GDT_LIMIT + 1);
    far_faults(v, OP_jmp_far, 4, DATA0, 0, X86_GP, DATA0);
    far_faults(v, OP_jmp_far, 4, CODE3, 0, X86_GP, CODE3);
    far_faults(v, OP_jmp_far, 4, CODE0 | 3, 0, X86_GP, CODE0);
    far_faults(v, OP_jmp_far, 4, GONE_CODE, 0, X86_NP, GONE_CODE);
    far_faults(v, OP_jmp_far, 4, SMALL_CODE, 0x100, X86_GP, 0);
    far_faults(v, OP_jmp_far, 4, LDT_TYPE, 0, X86_GP, LDT_TYPE);
    assert_int_equal(far_go(v, OP_jmp_far, 4, SMALL_CODE, 0xff), SEM_BRANCH);
    far_at(v, SMALL_CODE, 0xff, STACK0);
    far_ring3(f);
    far_faults(v, OP_jmp_far, 4, CODE0 | 3, 0, X86_GP, CODE0);
    assert_int_equal(far_go(v, OP_jmp_far, 4, CONF0, 0x6000), SEM_BRANCH);
    far_at(v, CONF0 | 3, 0x6000, STACK3);
    far_faults(v, OP_jmp_far, 4, GATE, 0, X86_GP, CODE0); /* a jump keeps its level */
}

static void call_direct_and_ret(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    assert_int_equal(far_go(v, OP_call_far, 4, CODE0, 0x6000), SEM_BRANCH);
    far_at(v, CODE0, 0x6000, STACK0 - 8);
    assert_int_equal(guest_get(f, STACK0 - 8, 4), 0x7002);
    assert_int_equal(guest_get(f, STACK0 - 4, 4), CODE0);
    assert_int_equal(far_go(v, OP_ret_far, 4, 0, 0), SEM_BRANCH);
    far_at(v, CODE0, 0x7002, STACK0);
    /* Indirect, with a 16-bit pointer. */
    guest_put(f, 0x6100, 0x1234 | CODE0 << 16, 4);
    struct insn i = far_insn(OP_jmp_far, 2, v);
    i.nops = 1;
    i.mem.disp = 0x6100;
    assert_int_equal(far_run(v, &i), SEM_BRANCH);
    far_at(v, CODE0, 0x1234, STACK0);
}

static void call_gate_with_parameters(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    far_ring3(f);
    v->gpr[REG_RSP] = STACK3 - 8;
    guest_put(f, STACK3 - 8, 0x2222222211111111, 8);
    assert_int_equal(far_go(v, OP_call_far, 4, GATE | 3, 0xdead), SEM_BRANCH);
    far_at(v, CODE0, HANDLER, STACK0 - 24);
    static const uint32_t frame[] = {0x7002,     CODE3 | 3,  0x11111111,
                                     0x22222222, STACK3 - 8, DATA3 | 3};
    for (unsigned k = 0; k < 6; k++)
        assert_int_equal(guest_get(f, STACK0 - 24 + 4 * k, 4), frame[k]);
    struct insn i = far_insn(OP_ret_far, 4, v);
    i.nops = 1;
    i.imm = 8;
    assert_int_equal(far_run(v, &i), SEM_BRANCH);
    far_at(v, CODE3 | 3, 0x7002, STACK3);
    far_gdt(f, GATE, far_gate(X86_DESC_CALLGATE32, 2, CODE0, HANDLER, 2));
    far_faults(v, OP_call_far, 4, GATE, 0, X86_GP, GATE);
    far_gdt(f, GATE, far_gate(X86_DESC_CALLGATE32, 3, CODE0, HANDLER, 2) & ~(1ull << 47));
    far_faults(v, OP_call_far, 4, GATE, 0, X86_NP, GATE);
    far_gdt(f, GATE, far_gate(X86_DESC_CALLGATE32, 3, GONE_CODE, HANDLER, 2));
    far_faults(v, OP_call_far, 4, GATE, 0, X86_NP, GONE_CODE);
}

static void return_errors(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    v->gpr[REG_RSP] = STACK0 - 20;
    static const struct {
        uint32_t cs, ss;
        uint8_t vector;
        uint16_t error;
    } t[] = {
        {0, DATA3 | 3, X86_GP, 0},
        {DATA3 | 3, DATA3 | 3, X86_GP, DATA3},
        {CODE3, DATA3 | 3, X86_GP, CODE3},     /* RPL != DPL */
        {GONE_CODE, DATA0, X86_NP, GONE_CODE}, /* same level */
        {CODE3 | 3, 0, X86_GP, 0},
        {CODE3 | 3, DATA0 | 3, X86_GP, DATA0},
        {CODE3 | 3, DATA3, X86_GP, DATA3},
        {CODE3 | 3, CODE3 | 3, X86_GP, CODE3},
    };
    guest_put(f, STACK0 - 12, X86_FL_ONE, 4);
    for (unsigned k = 0; k < ARRAY_SIZE(t); k++) {
        guest_put(f, STACK0 - 16, t[k].cs, 4);
        guest_put(f, STACK0 - 4, t[k].ss, 4);
        far_faults(v, OP_iret, 4, 0, 0, t[k].vector, t[k].error);
    }
    far_gdt(f, DATA3, far_segment(0xc073, 0, 0xfffff));
    guest_put(f, STACK0 - 4, DATA3 | 3, 4);
    far_faults(v, OP_iret, 4, 0, 0, X86_SS, DATA3);
    far_gdt(f, DATA3, far_segment(0xc0f3, 0, 0xfffff));
    far_ring3(f);
    v->gpr[REG_RSP] = STACK3 - 12;
    guest_put(f, STACK3 - 8, CODE0, 4);
    far_faults(v, OP_iret, 4, 0, 0, X86_GP, CODE0); /* inwards */
}

/* ESP's upper half survives a return to a 16-bit stack. */
static void return_to_16bit_stack(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    v->gpr[REG_RSP] = STACK0 + 0x30000 - 20;
    static const uint32_t frame[] = {0x7000, CODE3 | 3, X86_FL_ONE, 0x12340010,
                                     DATA16_3 | 3};
    for (unsigned k = 0; k < 5; k++)
        guest_put(f, v->gpr[REG_RSP] + 4 * k, frame[k], 4);
    assert_int_equal(far_go(v, OP_iret, 4, 0, 0), SEM_BRANCH);
    far_at(v, CODE3 | 3, 0x7000, 0x30010);
}

static void iret_keeps_privileged_flags(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    far_ring3(f);
    v->rflags = X86_FL_ONE | X86_FL_IF;
    v->gpr[REG_RSP] = STACK3 - 12;
    guest_put(f, STACK3 - 12, 0x7100, 4);
    guest_put(f, STACK3 - 8, CODE3 | 3, 4);
    guest_put(f, STACK3 - 4, X86_FL_IOPL | X86_FL_CF | X86_FL_VM | X86_FL_ID, 4);
    assert_int_equal(far_go(v, OP_iret, 4, 0, 0), SEM_BRANCH);
    assert_int_equal(v->rflags, X86_FL_ONE | X86_FL_IF | X86_FL_CF | X86_FL_ID);
}

/* --- virtual-8086 mode --- */

static void to_v86(struct guest *f, uint32_t flags) {
    struct vcpu *v = f->v;
    uint32_t frame[] = {0x10,  0x500, flags | X86_FL_VM | X86_FL_ONE,
                        0x100, 0x900, 0x901,
                        0x902, 0x903, 0x904};
    far_ring0(f);
    v->gpr[REG_RSP] = STACK0 - sizeof(frame);
    for (unsigned k = 0; k < ARRAY_SIZE(frame); k++)
        guest_put(f, v->gpr[REG_RSP] + 4 * k, frame[k], 4);
    assert_int_equal(far_go(v, OP_iret, 4, 0, 0), SEM_BRANCH);
}

static void v86_in_and_out(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    far_idt32(f, 0x30, X86_DESC_INTGATE32, 0, CODE0);
    to_v86(f, X86_FL_IF);
    assert_int_equal(v->cpl, 3);
    assert_int_equal(v->seg[SEG_CS].base, 0x5000);
    assert_int_equal(v->seg[SEG_GS].base, 0x9040);
    assert_int_equal(v->rip, 0x10);
    assert_int_equal(v->gpr[REG_RSP], 0x100);
    assert_int_equal(v->mode, MODE_16);
    struct insn i = far_insn(OP_int, 2, v);
    i.imm = 0x30;
    assert_int_equal(far_run(v, &i), SEM_FAULT); /* IOPL 0 */
    assert_int_equal(v->fault.vector, X86_GP);
    assert_int_equal(v->fault.error, 0);
    far_faults(v, OP_iret, 2, 0, 0, X86_GP, 0);
    assert_int_equal(sem_interrupt(v, 0x30), SEM_BRANCH);
    far_at(v, CODE0, HANDLER, STACK0 - 36);
    assert_false(v->rflags & X86_FL_VM);
    static const uint32_t frame[] = {0x10,  0x500, X86_FL_VM | X86_FL_IF | X86_FL_ONE,
                                     0x100, 0x900, 0x901,
                                     0x902, 0x903, 0x904};
    for (unsigned k = 0; k < ARRAY_SIZE(frame); k++)
        assert_int_equal(guest_get(f, STACK0 - 36 + 4 * k, 4), frame[k]);
    assert_int_equal(v->seg[SEG_DS].sel, 0);
    /* Not to a conforming segment. */
    to_v86(f, X86_FL_IF | X86_FL_IOPL);
    far_idt32(f, 0x30, X86_DESC_INTGATE32, 3, CONF0);
    assert_int_equal(far_run(v, &i), SEM_FAULT);
    assert_int_equal(v->fault.error, CONF0);
}

static void v86_redirection(void **state) {
    struct guest *f = *state;
    struct vcpu *v = f->v;
    v->cr4 |= X86_CR4_VME;
    guest_put(f, TSS + 102, 0x88, 2); /* redirection map at 0x68, all clear */
    guest_put(f, 0x30 * 4, 0x02000050, 4);
    to_v86(f, X86_FL_VIF);
    struct insn i = far_insn(OP_int, 2, v);
    i.imm = 0x30;
    assert_int_equal(far_run(v, &i), SEM_BRANCH);
    assert_int_equal(v->seg[SEG_CS].base, 0x2000);
    assert_true(v->rflags & X86_FL_VM);
    assert_false(v->rflags & X86_FL_VIF);
    assert_int_equal(guest_get(f, 0x90fe, 2), X86_FL_IF | X86_FL_IOPL | X86_FL_ONE);
    assert_int_equal(far_go(v, OP_iret, 2, 0, 0), SEM_BRANCH);
    assert_true(v->rflags & X86_FL_VIF);
    assert_false(v->rflags & (X86_FL_IF | X86_FL_IOPL));
    assert_int_equal(v->rip, 0x12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        T16(real_interrupt_and_iret),
        T16(real_call_and_ret),
        T16(real_limits),
        T32(jump_checks),
        T32(call_direct_and_ret),
        T32(call_gate_with_parameters),
        T32(return_errors),
        T32(return_to_16bit_stack),
        T32(iret_keeps_privileged_flags),
        T32(v86_in_and_out),
        T32(v86_redirection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
