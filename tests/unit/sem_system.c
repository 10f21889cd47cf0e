/* Segments, ports and control registers: encodings through decode, sem and the MMU. */
#include "decode/decode.h"
#include "lib/exec.h"
#include "lib/unit.h"
#include "sem/sem_int.h"

enum { GDT = 0x1000, TSS = 0x2000, DATA = 0x3000 };
enum { CODE0 = 8, DATA0 = 16, DATA3 = 24, GONE = 32, SYS_TSS = 40, EXPDOWN = 48 };

static struct vcpu V;
static struct guest G;
static struct exit last;

static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
    last = *e;
    if (e->reason == EXIT_io && !e->write)
        e->data = 0x11223344;
    if (e->reason == EXIT_msr)
        e->failed = true;
}

static const struct vcpu_hooks hooks = {.exit = on_exit_hook};

static int setup(void **state) {
    const struct guest_config cfg = {
        .vcpu = &V, .cpuid = {.paravirt = true}, .hooks = &hooks};

    guest_new(&G, &cfg);
    guest_put64(&G, GDT + CODE0, 0x00cf9a000000ffff);
    guest_put64(&G, GDT + DATA0, 0x00cf92000000ffff);
    guest_put64(&G, GDT + DATA3, 0x00cff2000000ffff);
    guest_put64(&G, GDT + GONE, 0x00cf12000000ffff);
    guest_put64(&G, GDT + SYS_TSS, 0x0000890020000068);
    guest_put64(&G, GDT + EXPDOWN, 0x0040960000000fff);
    V.gdtr = (struct desc_table){GDT, 0x37};
    V.cr0 = X86_CR0_PE | X86_CR0_ET;
    sem_unpack_desc(&V.seg[SEG_CS], CODE0, 0x00cf9b000000ffff);
    for (unsigned s = 0; s < SEG_COUNT; s++) {
        if (s != SEG_CS)
            sem_unpack_desc(&V.seg[s], DATA0, 0x00cf93000000ffff);
    }
    sem_unpack_desc(&V.tr, SYS_TSS, 0x00008b0020000068);
    vcpu_update_mode(&V);
    mmu_mode_changed(&V);
    memset(&last, 0, sizeof(last));
    return 0;
}

static int teardown(void **state) {
    guest_free(&G);
    return 0;
}

#define RUN(s) EXEC(&V, s)

static void expect_fault(int rc, unsigned vector, uint32_t error) {
    assert_int_equal(rc, SEM_FAULT);
    assert_int_equal(V.fault.vector, vector);
    assert_int_equal(V.fault.has_error ? V.fault.error : 0, error);
}

static void set_cpl(unsigned cpl) {
    V.cpl = (uint8_t)cpl;
    vcpu_update_mode(&V);
    mmu_context_changed(&V);
}

static void test_load_seg(void **state) {
    V.gpr[REG_RAX] = DATA0;
    assert_int_equal(RUN("\x8e\xd8"), SEM_NEXT); /* mov ds, ax */
    assert_int_equal(G.ram[GDT + DATA0 + 5], 0x93);
    assert_int_equal(RUN("\x8e\xd0"), SEM_STOP); /* mov ss, ax */
    assert_true(V.irq_shadow);
    V.gpr[REG_RAX] = GONE;
    expect_fault(RUN("\x8e\xd8"), X86_NP, GONE);
    expect_fault(RUN("\x8e\xd0"), X86_SS, GONE);
    V.gpr[REG_RAX] = 0x40;
    expect_fault(RUN("\x8e\xd8"), X86_GP, 0x40);
    V.gpr[REG_RAX] = DATA3;
    expect_fault(RUN("\x8e\xd0"), X86_GP, DATA3);
    V.gpr[REG_RAX] = 3;
    expect_fault(RUN("\x8e\xd0"), X86_GP, 0);
    assert_int_equal(V.seg[SEG_DS].sel, DATA0);
    assert_int_equal(RUN("\x8e\xd8"), SEM_NEXT); /* null */
    expect_fault(RUN("\xa1\x00\x30\x00\x00"), X86_GP, 0);
}

static void test_expand_down(void **state) {
    uint64_t x;
    assert_int_equal(sem_load_seg(&V, SEG_ES, EXPDOWN), 0);
    expect_fault(sem_load(&V, SEG_ES, 0xfff, 1, &x), X86_GP, 0);
    assert_int_equal(sem_load(&V, SEG_ES, 0x1000, 4, &x), 0);
    expect_fault(sem_load(&V, SEG_ES, 0xfffffffe, 4, &x), X86_GP, 0);
}

static void test_alignment(void **state) {
    uint64_t x;
    V.cr0 |= X86_CR0_AM;
    set_cpl(3);
    sem_write_flags(&V, X86_FL_AC, X86_FL_AC);
    assert_int_equal(sem_load(&V, SEG_DS, DATA, 4, &x), 0);
    expect_fault(sem_load(&V, SEG_DS, DATA + 2, 4, &x), X86_AC, 0);
    sem_write_flags(&V, 0, X86_FL_AC);
    assert_int_equal(sem_load(&V, SEG_DS, DATA + 2, 4, &x), 0);
}

static void test_ports(void **state) {
    V.gpr[REG_RAX] = 0xffffffffffffff55;
    assert_int_equal(RUN("\xe6\x80"), SEM_STOP); /* out 0x80, al */
    assert_int_equal(last.port, 0x80);
    assert_int_equal(last.data, 0x55);
    V.gpr[REG_RDX] = 0x3f8;
    assert_int_equal(RUN("\xec"), SEM_STOP); /* in al, dx */
    assert_int_equal(V.gpr[REG_RAX] & 0xff, 0x44);
    assert_int_equal(V.gpr[REG_RAX] >> 8, 0xffffffffffffff);
    set_cpl(3);
    G.ram[TSS + 102] = 0x68; /* map at the end of the TSS: nothing is allowed */
    expect_fault(RUN("\xec"), X86_GP, 0);
    V.tr.limit = 0x68 + 0x80;
    G.ram[TSS + 0x68 + 0x7f] = 0xfe;
    assert_int_equal(RUN("\xec"), SEM_STOP);
    expect_fault(RUN("\xed"), X86_GP, 0); /* in eax, dx */
    V.cr4 |= X86_CR4_DE;
    V.dr[0] = 0x3f8;
    V.dr[7] = 0x400 | 1 | 2u << 16;
    assert_int_equal(RUN("\xec"), SEM_STOP);
    assert_int_equal(V.pending_db, 1);
}

static void test_interrupt_flag(void **state) {
    assert_int_equal(RUN("\xfb"), SEM_STOP);
    assert_true(V.irq_shadow);
    assert_false(sem_interruptible(&V));
    V.irq_shadow = false;
    assert_true(sem_interruptible(&V));
    assert_int_equal(RUN("\xfa"), SEM_NEXT);
    assert_false(sem_interruptible(&V));
    set_cpl(3);
    expect_fault(RUN("\xfb"), X86_GP, 0);
    expect_fault(RUN("\xf4"), X86_GP, 0);
    expect_fault(RUN("\x0f\x01\xca"), X86_UD, 0); /* clac */
}

static void test_control_registers(void **state) {
    V.gpr[REG_RAX] = X86_CR0_PG;
    expect_fault(RUN("\x0f\x22\xc0"), X86_GP, 0); /* PG without PE */
    V.gpr[REG_RAX] = X86_CR0_PE | X86_CR0_NW;
    expect_fault(RUN("\x0f\x22\xc0"), X86_GP, 0); /* NW without CD */
    V.efer = X86_EFER_LME;
    V.gpr[REG_RAX] = X86_CR0_PE | X86_CR0_PG;
    expect_fault(RUN("\x0f\x22\xc0"), X86_GP, 0); /* long mode without PAE */
    V.gpr[REG_RAX] = X86_CR4_PAE | 1u << 31;
    expect_fault(RUN("\x0f\x22\xe0"), X86_GP, 0);
    V.gpr[REG_RAX] = X86_CR4_PCIDE;
    expect_fault(RUN("\x0f\x22\xe0"), X86_GP, 0); /* not in long mode */
    V.gpr[REG_RAX] = X86_CR4_PAE;
    assert_int_equal(RUN("\x0f\x22\xe0"), SEM_STOP);
    V.gpr[REG_RAX] = X86_CR0_PE | X86_CR0_PG;
    assert_int_equal(RUN("\x0f\x22\xc0"), SEM_STOP);
    assert_true(V.long_mode);
    V.gpr[REG_RAX] = 0;
    expect_fault(RUN("\x0f\x22\xe0"), X86_GP, 0); /* PAE stays */
    V.gpr[REG_RAX] = X86_CR0_PE;
    assert_int_equal(RUN("\x0f\x22\xc0"), SEM_STOP);
    assert_false(V.long_mode);
}

static void test_debug_registers(void **state) {
    V.gpr[REG_RAX] = 0xffffffff;
    assert_int_equal(RUN("\x0f\x23\xf8"), SEM_STOP); /* mov dr7, eax */
    assert_int_equal(V.dr[7], 0xffff27ff);
    expect_fault(RUN("\x0f\x21\xf8"), X86_DB, 0); /* GD */
    assert_int_equal(V.fault.dr6, X86_DR6_BD);
    V.dr[7] = 0x400;
    assert_int_equal(RUN("\x0f\x21\xe3"), SEM_NEXT); /* mov ebx, dr4 */
    assert_int_equal(V.gpr[REG_RBX], 0xffff0ff0);
    V.cr4 |= X86_CR4_DE;
    expect_fault(RUN("\x0f\x21\xe3"), X86_UD, 0);
    set_cpl(3);
    expect_fault(RUN("\x0f\x21\xe3"), X86_GP, 0); /* the privilege comes first */
    expect_fault(RUN("\x0f\x21\xc3"), X86_GP, 0);
}

static void test_selectors_asked(void **state) {
    V.gpr[REG_RCX] = DATA0;
    assert_int_equal(RUN("\x0f\x03\xc1"), SEM_NEXT); /* lsl eax, ecx */
    assert_true(V.rflags & X86_FL_ZF);
    assert_int_equal(V.gpr[REG_RAX], 0xffffffff);
    assert_int_equal(RUN("\x0f\x00\xe9"), SEM_NEXT); /* verw cx */
    assert_true(V.rflags & X86_FL_ZF);
    V.gpr[REG_RCX] = 0x100;
    assert_int_equal(RUN("\x0f\x02\xc1"), SEM_NEXT); /* lar eax, ecx */
    assert_false(V.rflags & X86_FL_ZF);
    V.gpr[REG_RCX] = SYS_TSS;
    assert_int_equal(RUN("\x0f\x00\xd9"), SEM_NEXT); /* ltr cx */
    assert_int_equal(G.ram[GDT + SYS_TSS + 5], 0x8b);
    expect_fault(RUN("\x0f\x00\xd9"), X86_GP, SYS_TSS); /* busy */
    V.cr4 |= X86_CR4_UMIP;
    set_cpl(3);
    expect_fault(RUN("\x0f\x00\xc8"), X86_GP, 0); /* str eax */
}

static void test_msr_and_hypercall(void **state) {
    V.gpr[REG_RCX] = 0x1b;
    expect_fault(RUN("\x0f\x32"), X86_GP, 0); /* the device said no */
    assert_int_equal(last.msr, 0x1b);
    V.gpr[REG_RAX] = 77;
    assert_int_equal(RUN("\x0f\x01\xd9"), SEM_STOP);
    assert_int_equal((int32_t)V.gpr[REG_RAX], -1000);
    assert_int_equal(last.data, 77);
    expect_fault(RUN("\x0f\x01\xc8"), X86_UD, 0); /* monitor */
    expect_fault(RUN("\x0f\x01\xd0"), X86_UD, 0); /* xgetbv without OSXSAVE */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_load_seg, setup, teardown),
        cmocka_unit_test_setup_teardown(test_expand_down, setup, teardown),
        cmocka_unit_test_setup_teardown(test_alignment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ports, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupt_flag, setup, teardown),
        cmocka_unit_test_setup_teardown(test_control_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_debug_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_selectors_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_msr_and_hypercall, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
