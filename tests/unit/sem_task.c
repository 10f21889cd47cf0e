/*
 * Task switches through 16-bit and 32-bit TSSs and 16-bit call gates: what is saved, what
 * is loaded, in which task a fault is raised. Encodings go through decode, sem and the
 * MMU. AMD64 APM volume 2, "Hardware Task-Management in Legacy Mode"; Intel SDM volume 3,
 * "Task Switching".
 */
#include "decode/decode.h"
#include "lib/exec.h"
#include "lib/unit.h"
#include "sem/sem_int.h"
#include "x86/pte.h"

enum {
    GDT = 0x1000,
    LDT = 0x1800,
    IDT = 0x2000,
    OLD = 0x3000, /* TSS of the running task */
    NEW = 0x4000,
    HANDLER = 0x5000,
    STACK = 0x9000,
    NEW_STACK = 0xa000,
    PDPT = 0x10000, /* two of them, for PAE */
    PDPT2 = 0x10020,
    PD = 0x11000,
    CODE0 = 0x08,
    DATA0 = 0x10,
    CODE3 = 0x18,
    DATA3 = 0x20,
    SEL_OLD = 0x28,
    SEL_NEW = 0x30,
    GATE = 0x38,
    SEL_LDT = 0x40,
    GDT_LIMIT = 0x47,
};

static struct vcpu V;
static struct guest G;

static uint64_t gate(unsigned type, unsigned sel, unsigned off, unsigned params) {
    return off | (uint64_t)sel << 16 | (uint64_t)params << 32 |
           (uint64_t)(0xe0 | type) << 40;
}

/* A fresh machine at level CPL in a 32-bit task. */
static void start(unsigned cpl) {
    vcpu_reset(&V);
    memset(G.ram, 0, 0x20000);
    exec_flat_gdt(&G, GDT, GDT_LIMIT);
    guest_put(&G, GDT + SEL_OLD, 0x00008b0030000067, 8);
    guest_put(&G, GDT + SEL_NEW, 0x0000890040000067, 8);
    guest_put(&G, GDT + SEL_LDT, 0x000082001800001f, 8);
    guest_put(&G, LDT + 8, 0x0040f20050000fff, 8);
    guest_put(&G, OLD + 4, STACK, 4);
    guest_put(&G, OLD + 8, DATA0, 4);
    V.idtr = (struct desc_table){IDT, 0x7ff};
    V.tr = (struct segment){.sel = SEL_OLD, .ar = 0x8b, .limit = 0x67, .base = OLD};
    V.ldtr = (struct segment){0};
    V.cr0 = X86_CR0_PE | X86_CR0_ET;
    V.rip = 0x7000;
    V.gpr[REG_RSP] = STACK;
    exec_enter(&G, cpl ? CODE3 : CODE0, cpl ? DATA3 : DATA0, cpl);
}

/* A 32-bit TSS for a task at level 0. */
static void new_task(void) {
    static const uint8_t off[] = {0x20, 0x24, 0x28, 0x38, 0x48, 0x4c, 0x50, 0x54};
    static const uint32_t val[] = {HANDLER, X86_FL_ONE, 0xaaaa, NEW_STACK,
                                   DATA0,   CODE0,      DATA0,  DATA0};
    for (unsigned k = 0; k < ARRAY_SIZE(val); k++)
        guest_put(&G, NEW + off[k], val[k], 4);
}

/* A 16-bit one: descriptor and contents. */
static void new_task16(unsigned at, unsigned sel) {
    static const uint8_t off[] = {0x0e, 0x10, 0x12, 0x1a, 0x22, 0x24, 0x26, 0x28};
    static const uint16_t val[] = {
        HANDLER, X86_FL_ONE | X86_FL_CF, 0xbbbb, NEW_STACK, DATA0, CODE0, DATA0, DATA0};
    guest_put(&G, GDT + sel, 0x000081000000002bull | (uint64_t)at << 16, 8);
    for (unsigned k = 0; k < ARRAY_SIZE(val); k++)
        guest_put(&G, at + off[k], val[k], 2);
}

static int setup(void **state) {
    const struct guest_config cfg = {.vcpu = &V, .policy = MMU_TRACE};

    guest_new(&G, &cfg);
    return 0;
}

static int teardown(void **state) {
    guest_free(&G);
    return 0;
}

static int jmp(unsigned sel) {
    char b[7] = {'\xea', 0, 0, 0, 0, (char)sel, 0};
    return exec_bytes(&V, b, 7);
}

static int call(unsigned sel) {
    char b[7] = {'\x9a', 0, 0, 0, 0, (char)sel, 0};
    return exec_bytes(&V, b, 7);
}

static void faulted(int rc, unsigned vector, uint32_t error) {
    assert_int_equal(rc, SEM_FAULT);
    assert_int_equal(V.fault.vector, vector);
    assert_int_equal(V.fault.error, error);
}

/* Still in the old task, its state untouched. */
static void in_old_task(void) {
    assert_int_equal(V.tr.sel, SEL_OLD);
    assert_int_equal(V.rip, 0x7000);
    assert_int_equal(V.gpr[REG_RSP], STACK);
    assert_int_equal(guest_get(&G, GDT + SEL_OLD + 5, 1), 0x8b);
}

static void test_tss16(void **state) {
    start(0);
    new_task16(NEW, SEL_NEW);
    V.gpr[REG_RAX] = 0x12345678;
    V.gpr[REG_RCX] = 0x87654321;
    V.rflags |= X86_FL_ZF;
    assert_int_equal(jmp(SEL_NEW), SEM_BRANCH);
    assert_int_equal(V.rip, HANDLER);
    /* Upper halves are no part of a 16-bit task; FS and GS come out null. */
    assert_int_equal(V.gpr[REG_RAX], 0x1234bbbb);
    assert_int_equal(V.gpr[REG_RCX], 0x87650000);
    assert_int_equal(V.gpr[REG_RSP] & 0xffff, NEW_STACK);
    assert_int_equal(V.rflags, X86_FL_ONE | X86_FL_CF);
    assert_int_equal(V.seg[SEG_FS].ar & X86_AR_P, 0);
    assert_int_equal(V.seg[SEG_SS].sel, DATA0);
    assert_int_equal(V.tr.ar & 15, X86_DESC_TSS16_BUSY);
    assert_int_equal(guest_get(&G, GDT + SEL_OLD + 5, 1), 0x89);
    assert_int_equal(guest_get(&G, GDT + SEL_NEW + 5, 1), 0x83);
    assert_int_equal(guest_get(&G, OLD + 0x20, 4), 0x7007);
    assert_int_equal(guest_get(&G, OLD + 0x24, 4), X86_FL_ONE | X86_FL_ZF);
    assert_int_equal(guest_get(&G, OLD + 0x28, 4), 0x12345678);
    /* And back, from a 16-bit TSS to a 32-bit one. */
    V.gpr[REG_RAX] = 0xffff1111;
    guest_put(&G, NEW + 0x2a, 0x7777, 2); /* LDT: not written by a switch */
    assert_int_equal(jmp(SEL_OLD), SEM_BRANCH);
    assert_int_equal(V.rip, 0x7007);
    assert_int_equal(V.gpr[REG_RAX], 0x12345678);
    assert_int_equal(guest_get(&G, NEW + 0x0e, 2), HANDLER + 7);
    assert_int_equal(guest_get(&G, NEW + 0x12, 2), 0x1111);
    assert_int_equal(guest_get(&G, NEW + 0x2a, 2), 0x7777);
    /* Too small. */
    start(0);
    new_task16(NEW, SEL_NEW);
    guest_put(&G, GDT + SEL_NEW, 0x2a, 1);
    faulted(jmp(SEL_NEW), X86_TS, SEL_NEW);
    in_old_task();
}

/* A 16-bit task that calls another and returns to it: NT and the link. */
static void test_tss16_nested(void **state) {
    start(0);
    new_task16(NEW, SEL_NEW);
    assert_int_equal(call(SEL_NEW), SEM_BRANCH);
    assert_true(V.rflags & X86_FL_NT);
    assert_int_equal(guest_get(&G, NEW, 2), SEL_OLD);
    assert_int_equal(guest_get(&G, GDT + SEL_OLD + 5, 1), 0x8b);
    assert_int_equal(exec_bytes(&V, "\xcf", 1), SEM_BRANCH);
    assert_int_equal(V.tr.sel, SEL_OLD);
    assert_int_equal(V.rip, 0x7007);
    assert_false(V.rflags & X86_FL_NT);
    assert_int_equal(guest_get(&G, GDT + SEL_NEW + 5, 1), 0x81);
    assert_false(guest_get(&G, NEW + 0x10, 2) & X86_FL_NT);
}

/* A gate in the IDT: the flags that are saved are those that a frame would hold. */
static void test_task_gate_flags(void **state) {
    start(0);
    new_task();
    guest_put(&G, IDT + X86_UD * 8, gate(X86_DESC_TASKGATE, SEL_NEW, 0, 0), 8);
    V.rflags |= X86_FL_CF;
    V.fault = (struct fault){.vector = X86_UD};
    assert_int_equal(sem_deliver(&V), SEM_BRANCH);
    assert_int_equal(V.tr.sel, SEL_NEW);
    assert_int_equal(guest_get(&G, OLD + 0x20, 4), 0x7000);
    assert_int_equal(guest_get(&G, OLD + 0x24, 4), X86_FL_ONE | X86_FL_CF | X86_FL_RF);
    assert_true(V.rflags & X86_FL_NT);
    assert_false(V.rflags & X86_FL_RF);
    /* An interrupt saves them as they are. */
    start(0);
    new_task();
    guest_put(&G, IDT + 0x30 * 8, gate(X86_DESC_TASKGATE, SEL_NEW, 0, 0), 8);
    V.rflags |= X86_FL_IF;
    assert_int_equal(sem_interrupt(&V, 0x30), SEM_BRANCH);
    assert_int_equal(guest_get(&G, OLD + 0x24, 4), X86_FL_ONE | X86_FL_IF);
    assert_int_equal(V.gpr[REG_RSP], NEW_STACK);
    assert_int_equal(exec_bytes(&V, "\xcf", 1), SEM_BRANCH);
    assert_int_equal(V.rip, 0x7000);
    assert_int_equal(V.rflags, X86_FL_ONE | X86_FL_IF);
}

/* Faults after the switch belong to the new task and find its registers loaded. */
static void test_faults_in_new_task(void **state) {
    start(0);
    new_task();
    guest_put(&G, NEW + 0x54, GDT_LIMIT + 1, 2); /* DS */
    faulted(jmp(SEL_NEW), X86_TS, GDT_LIMIT + 1);
    assert_int_equal(V.tr.sel, SEL_NEW);
    assert_int_equal(V.rip, HANDLER);
    assert_int_equal(V.seg[SEG_SS].sel, DATA0);
    start(0);
    new_task();
    guest_put(&G, NEW + 0x4c, DATA0, 2); /* CS */
    faulted(jmp(SEL_NEW), X86_TS, DATA0);
    start(0);
    new_task();
    guest_put(&G, NEW + 0x60, DATA0, 2); /* LDT */
    faulted(jmp(SEL_NEW), X86_TS, DATA0);
    /* The LDT is there for the selectors that need it. */
    start(0);
    new_task();
    guest_put(&G, NEW + 0x60, SEL_LDT, 2);
    guest_put(&G, NEW + 0x54, 0x0f, 2);
    assert_int_equal(jmp(SEL_NEW), SEM_BRANCH);
    assert_int_equal(V.ldtr.base, LDT);
    assert_int_equal(V.seg[SEG_DS].base, 0x5000);
    /* Into virtual-8086 mode. */
    start(0);
    new_task();
    guest_put(&G, NEW + 0x24, X86_FL_ONE | X86_FL_VM | X86_FL_IF, 4);
    assert_int_equal(jmp(SEL_NEW), SEM_BRANCH);
    assert_int_equal(V.cpl, 3);
    assert_int_equal(V.mode, MODE_16);
    assert_int_equal(V.seg[SEG_CS].base, CODE0 << 4);
    assert_int_equal(V.seg[SEG_DS].limit, 0xffff);
    /* DPL of the TSS against CPL. */
    start(3);
    new_task();
    faulted(jmp(SEL_NEW), X86_GP, SEL_NEW);
    in_old_task();
}

/* CR3 comes from a 32-bit TSS when paging is on; with PAE its pointers are checked. */
static void test_cr3(void **state) {
    start(0);
    new_task();
    guest_put(&G, PDPT, PD | X86_PTE_P, 8);
    guest_put(&G, PDPT2, PD | X86_PTE_P, 8);
    guest_put(&G, PD, X86_PTE_P | X86_PTE_W | X86_PTE_PS, 8);
    guest_put(&G, NEW + 0x1c, PDPT2, 4);
    V.cr4 = X86_CR4_PAE;
    V.cr3 = PDPT;
    assert_int_equal(mmu_load_pdptrs(&V, PDPT), 0);
    V.cr0 |= X86_CR0_PG;
    mmu_mode_changed(&V);
    assert_int_equal(jmp(SEL_NEW), SEM_BRANCH);
    assert_int_equal(V.cr3, PDPT2);
    assert_int_equal(V.gpr[REG_RAX], 0xaaaa);
    uint64_t x;
    assert_int_equal(mmu_load(&V, gva(OLD + 0x20), 4, &x), 0);
    assert_int_equal(x, 0x7007);
    /* Reserved bits in a pointer: #GP(0), in the new task. */
    start(0);
    new_task();
    guest_put(&G, PDPT, PD | X86_PTE_P, 8);
    guest_put(&G, PDPT2, PD | X86_PTE_P | X86_PTE_W, 8);
    guest_put(&G, PD, X86_PTE_P | X86_PTE_W | X86_PTE_PS, 8);
    guest_put(&G, NEW + 0x1c, PDPT2, 4);
    V.cr4 = X86_CR4_PAE;
    V.cr3 = PDPT;
    assert_int_equal(mmu_load_pdptrs(&V, PDPT), 0);
    V.cr0 |= X86_CR0_PG;
    mmu_mode_changed(&V);
    faulted(jmp(SEL_NEW), X86_GP, 0);
    assert_int_equal(V.tr.sel, SEL_NEW);
}

/* --- 16-bit call gates --- */

static void test_gate16(void **state) {
    start(3);
    guest_put(&G, GDT + GATE, gate(X86_DESC_CALLGATE16, CODE0, HANDLER, 2), 8);
    V.gpr[REG_RSP] = NEW_STACK - 4;
    guest_put(&G, NEW_STACK - 4, 0x22221111, 4);
    assert_int_equal(call(GATE), SEM_BRANCH);
    assert_int_equal(V.rip, HANDLER);
    assert_int_equal(V.cpl, 0);
    assert_int_equal(V.seg[SEG_CS].sel, CODE0);
    assert_int_equal(V.gpr[REG_RSP], STACK - 12);
    static const uint16_t frame[] = {0x7007, CODE3 | 3,     0x1111,
                                     0x2222, NEW_STACK - 4, DATA3 | 3};
    for (unsigned k = 0; k < ARRAY_SIZE(frame); k++)
        assert_int_equal(guest_get(&G, STACK - 12 + 2 * k, 2), frame[k]);
    assert_int_equal(exec_bytes(&V, "\x66\xca\x04\x00", 4),
                     SEM_BRANCH); /* retf 4, 16 bits */
    assert_int_equal(V.cpl, 3);
    assert_int_equal(V.rip, 0x7007);
    assert_int_equal(V.gpr[REG_RSP], NEW_STACK);
    /* DS of level 0 does not survive the way out. */
    start(3);
    guest_put(&G, GDT + GATE, gate(X86_DESC_CALLGATE16, CODE0, HANDLER, 0), 8);
    assert_int_equal(call(GATE), SEM_BRANCH);
    V.gpr[REG_RAX] = DATA0;
    assert_int_equal(exec_bytes(&V, "\x8e\xd8", 2), SEM_NEXT);
    assert_int_equal(exec_bytes(&V, "\x66\xcb", 2), SEM_BRANCH);
    assert_int_equal(V.seg[SEG_DS].sel, 0);
    assert_int_equal(V.seg[SEG_ES].sel, DATA3 | 3);
    /* A JMP does not change the level. */
    start(3);
    guest_put(&G, GDT + GATE, gate(X86_DESC_CALLGATE16, CODE0, HANDLER, 0), 8);
    faulted(jmp(GATE), X86_GP, CODE0);
    guest_put(&G, GDT + GATE, gate(X86_DESC_CALLGATE16, CODE3, HANDLER, 0), 8);
    assert_int_equal(jmp(GATE), SEM_BRANCH);
    assert_int_equal(V.rip, HANDLER);
    assert_int_equal(V.gpr[REG_RSP], STACK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tss16),
        cmocka_unit_test(test_tss16_nested),
        cmocka_unit_test(test_task_gate_flags),
        cmocka_unit_test(test_faults_in_new_task),
        cmocka_unit_test(test_cr3),
        cmocka_unit_test(test_gate16),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
