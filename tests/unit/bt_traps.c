/*
 * Instructions that trap again and again, and what the translator makes of them: stores
 * to traced pages and devices, records across pages, divisions by zero, flags and control
 * registers that are read; and when it stays in the cache all the same.
 */
#include "cpu/vec.h"
#include "lib/bt.h"
#include "lib/long.h"
#include "lib/unit.h"
#include "x86/cr.h"
#include "x86/exception.h"

/* --- what keeps trapping --- */

/* Eight bytes among code: all blobs begin with them. */
#define DATA "jmp 9f; .balign 8; .skip 8; 9:"

/* 2000 rounds of a store to [rsi] with a read back, among accesses that do not trap. */
BLOB(storing,
     DATA "mov $2000, %ecx; xor %eax, %eax; xor %ebx, %ebx;"
          "1: inc %rax; add %rax, (%rdi); cmp $7, %al; mov %rax, (%rsi); setc %dl;"
          "add (%rsi), %rbx; movzx %dl, %edx; add %rdx, 8(%rdi); dec %ecx; jnz 1b; hlt");
enum { ROUNDS = 2000, PLAIN = 0x90000, TRACED = CODE + 8, BESIDE = 0x70000 };

/* Runs it with rSI there. */
static void store_to(uint64_t rsi) {
    static const uint64_t zero[2];

    guest_write(&G, PLAIN, zero, sizeof(zero));
    memset(&G.cnt, 0, sizeof(G.cnt));
    guest_put64(&G, PT + 8 * 0x72, 0x7a000 | RWP); /* no neighbour of 0x71000 */
    mmu_flush_all(G.v);
    G.v->rip = CODE;
    G.v->halted = false;
    G.v->gpr[REG_RSI] = rsi;
    G.v->gpr[REG_RDI] = PLAIN;
    assert_int_equal(guest_run(&G), EXIT_halt);
    assert_int_equal(G.v->gpr[REG_RBX], ROUNDS * (ROUNDS + 1) / 2);
    assert_int_equal(guest_get(&G, PLAIN, 8), ROUNDS * (ROUNDS + 1) / 2);
    assert_int_equal(guest_get(&G, PLAIN + 8, 8),
                     7 * (ROUNDS / 256) + 6); /* of al below 7 */
}

/* Two engines: one that stays as it is, one that designs the trap in. */
static void trapping(uint64_t rsi, const char *with, const char *without, unsigned each) {
    long_use(without);
    long_start();
    PLACE(storing, CODE);
    store_to(rsi);
    assert_true(G.cnt.bt_emulated >= each * ROUNDS);
    long_use(with);
    long_start();
    PLACE(storing, CODE);
    store_to(rsi);
    assert_in_range(G.cnt.bt_emulated, 16, 100);
    assert_in_range(G.cnt.bt_again_traps, 1, 8);
    assert_true(G.cnt.bt_callouts > each * (ROUNDS - 200));
    /* The verdict is over, and what trapped does not trap any more. */
    bt_review(G.bt, UINT64_MAX >> 1);
    assert_true(G.cnt.bt_verdicts_over >= each);
    store_to(BESIDE);
    assert_true(G.cnt.bt_again_review >= 1);
    assert_true(G.cnt.bt_callouts < 50);
    assert_true(G.cnt.bt_emulated < 50);
}

static void test_traced(void **state) {
    trapping(TRACED, "adapt", "no-adapt", 1);
    assert_true(guest_get(&G, TRACED, 8));
    trapping(TRACED, "hot=3", "no-adapt,hot=3", 1);
}

/* On the page of the code, but not next to it: no trap at all. */
static void test_beside_code(void **state) {
    static const char *const options[] = {"no-groups", "hot=3", "no-anchors"};

    for (size_t k = 0; k < ARRAY_SIZE(options); k++) {
        long_use(options[k]);
        long_start();
        PLACE(storing, CODE);
        store_to(CODE + 0x800);
        assert_int_equal(guest_get(&G, CODE + 0x800, 8), ROUNDS);
        assert_true(G.cnt.trace_hits_beside >= ROUNDS - 100);
        assert_in_range(G.cnt.bt_emulated, 0, 100);
        /* And no entry lets the next store through to the code. */
        assert_null(mmu_hit(G.v->mmu->data, gva(CODE + 0x800), 1, MMU_WRITE));
    }
}

static void test_device(void **state) {
    trapping(0x40000000, "adapt", "no-adapt", 2);
    assert_int_equal(long_device, ROUNDS);
    trapping(0x40000000, "no-stay,no-liveness", "no-adapt,no-stay", 2);
}

/* Code that traps in one use and not in the others goes free after a trial. */
BLOB(mostly,
     DATA "mov $20, %edx; 2: mov %r8, %rsi; call 3f; mov %r9, %rsi; mov $1000, %ebx;"
          "1: call 3f; dec %ebx; jnz 1b; dec %edx; jnz 2b; hlt;"
          "3: mov $40, %ecx; cmp %r8, %rsi; je 4f; mov $1, %ecx;"
          "4: mov %rax, (%rsi); dec %ecx; jnz 4b; ret");

static void test_trial(void **state) {
    long_use("adapt");
    long_start();
    PLACE(mostly, CODE);
    memset(&G.cnt, 0, sizeof(G.cnt));
    G.v->gpr[8] = TRACED;
    G.v->gpr[9] = PLAIN;
    assert_int_equal(guest_run(&G), EXIT_halt);
    assert_in_range(G.cnt.bt_again_traps, 1, 6);
    assert_true(G.cnt.bt_verdicts_over >= 1);
    assert_in_range(G.cnt.bt_callouts, 200, 2000); /* of 20,800 stores */
}

/* A pointer that goes from page to page, of %r8 bytes a step: 300,000 steps. */
BLOB(strides, "mov $300000, %ecx; xor %edx, %edx; xor %ebx, %ebx;"
              "1: mov %edx, %esi; and $0x3ffff, %esi; add %r8d, %edx;"
              "add 0x100000(%rsi), %rbx; dec %ecx; jnz 1b; hlt");

/* Is its code made again in one of ten runs? Hosts are busy, and what counts is time. */
static bool made_again(uint64_t step) {
    for (unsigned n = 0; n < 10; n++) {
        memset(&G.cnt, 0, sizeof(G.cnt));
        G.v->rip = CODE;
        G.v->halted = false;
        G.v->gpr[8] = step;
        assert_int_equal(guest_run(&G), EXIT_halt);
        assert_int_equal(G.v->gpr[REG_RBX], step == 4096 ? 4688 : 10);
        if (G.cnt.bt_again_checks)
            return true;
    }
    return false;
}

static void start_strides(const char *options) {
    long_use(options);
    long_start();
    PLACE(strides, CODE);
    guest_put64(&G, 0x100000, 1);
}

/* Its anchor goes, and comes back when the verdict is over. */
static void test_anchor_that_misses(void **state) {
    unsigned n = 0;

    start_strides("adapt");
    assert_false(made_again(8));
    assert_true(made_again(4096));
    while (made_again(4096)) /* the hot path, and then no more */
        assert_true(++n < 5);
    bt_review(G.bt, UINT64_MAX >> 1);
    assert_true(G.cnt.bt_verdicts_over >= 1);
    assert_true(made_again(4096));
    start_strides("no-adapt");
    assert_false(made_again(4096));
}

/* The same instruction in two fragments: the verdict is for both. */
BLOB(two_ways,
     DATA "mov $2000, %ecx; 1: test $1, %cl; jz 2f; call 3f; jmp 4f; 2: call 5f;"
          "4: dec %ecx; jnz 1b; hlt; 3: nop; 5: mov %rax, (%rsi); ret");

static void test_two_fragments(void **state) {
    long_use("hot=0");
    long_start();
    PLACE(two_ways, CODE);
    memset(&G.cnt, 0, sizeof(G.cnt));
    G.v->gpr[REG_RSI] = TRACED;
    assert_int_equal(guest_run(&G), EXIT_halt);
    assert_in_range(G.cnt.bt_again_traps, 2, 6);
    assert_in_range(G.cnt.bt_emulated, 16, 150);
}

/* Another instruction in the place of one that trapped: a branch, of which both ways are
 * taken. */
static void test_verdict_on_other_code(void **state) {
    static const uint8_t mov[] = {0x48, 0x89, 0x06}, jc_over_stc[] = {0x72, 0x01, 0xf9};
    static const uint64_t zero[3];
    const uint8_t *at = storing_begin;

    long_use("hot=3");
    long_start();
    PLACE(storing, CODE);
    while (memcmp(at, mov, sizeof(mov)))
        at++;
    store_to(TRACED);
    assert_in_range(G.cnt.bt_again_traps, 1, 8);
    guest_write(&G, CODE + (uint64_t)(at - storing_begin), jc_over_stc,
                sizeof(jc_over_stc));
    guest_write(&G, PLAIN, zero, sizeof(zero));
    G.v->rip = CODE;
    G.v->halted = false;
    G.v->gpr[REG_RSI] = PLAIN + 16;
    assert_int_equal(guest_run(&G), EXIT_halt);
    assert_int_equal(guest_get(&G, PLAIN + 8, 8),
                     ROUNDS); /* the carry was set each time */
}

static void test_page_crossing(void **state) {
    trapping(0x71ffd, "adapt", "no-adapt", 1); /* the store: reads are copied */
}

/* A record lies across two pages: it is tried as a whole, and then gone through field by
 * field, by the same code each time. */
BLOB(records, "mov $1000, %ecx; 1: mov %ecx, %edx; and $3, %edx; shl $12, %edx;"
              "lea 0x70ff0(%rdx), %rsi; mov (%rsi), %rax; add 8(%rsi), %rax;"
              "incq 16(%rsi); mov %rax, 24(%rsi); dec %ecx; jnz 1b; hlt");

static void test_singles(void **state) {
    static const char *const options[] = {"no-adapt,hot=0", "no-adapt,hot=3"};

    for (size_t k = 0; k < ARRAY_SIZE(options); k++) {
        long_use(options[k]);
        long_start();
        for (unsigned n = 0; n < 5; n++) { /* no neighbours */
            guest_put64(&G, PT + 8 * (0x70 + n), (0xa0000 + 0x2000 * n) | RWP);
            guest_put64(&G, 0xa0000 + 0x2000 * n, 0);
        }
        mmu_flush_all(G.v);
        PLACE(records, CODE);
        memset(&G.cnt, 0, sizeof(G.cnt));
        assert_int_equal(guest_run(&G), EXIT_halt);
        for (unsigned n = 1; n < 5; n++)
            assert_int_equal(guest_get(&G, 0xa0000 + 0x2000 * n, 8), 250);
        assert_in_range(G.cnt.bt_singles, 900, 1100);
        assert_in_range(G.cnt.bt_emulated, 0, 100);
        assert_in_range(G.cnt.bt_translations, 3, 20);
    }
}

/* --- what stays in the cache --- */

BLOB(divisions,
     "1: xor %edx, %edx; mov $7, %eax; div %ebx; add %rax, %r13; dec %ecx; jnz 1b; hlt");
/* #DE: goes on behind the division, and counts. */
BLOB(skip_division, "addq $2, (%rsp); inc %r12; iretq");

static void run_divisions(uint64_t divisor, uint64_t count) {
    G.v->halted = false;
    G.v->rip = CODE;
    G.v->gpr[REG_RSP] = STACK;
    G.v->gpr[REG_RBX] = divisor;
    G.v->gpr[REG_RCX] = count;
    G.v->gpr[REG_R12] = G.v->gpr[REG_R13] = 0;
    assert_int_equal(guest_run(&G), EXIT_halt);
}

/* A division that faults costs the host's signal a few times (once for each fragment that
 * it is in), not always; and one that has stopped to is copied again. */
static void test_division(void **state) {
    uint64_t before;

    long_use("adapt");
    long_start();
    PLACE(divisions, CODE);
    PLACE(skip_division, HANDLER);
    before = G.cnt.bt_leave_fault;
    run_divisions(0, 5000);
    assert_int_equal(G.v->gpr[REG_R12], 5000);
    assert_int_equal(G.v->gpr[REG_R13], 5000 * 7); /* rax stays what it was */
    assert_in_range(G.cnt.bt_leave_fault - before, 1, 4);
    before = G.cnt.bt_callouts;
    run_divisions(7, 20000);
    assert_int_equal(G.v->gpr[REG_R12], 0);
    assert_int_equal(G.v->gpr[REG_R13], 20000);
    assert_in_range(G.cnt.bt_callouts - before, 4000, 12000);
    before = G.cnt.bt_callouts;
    run_divisions(7, 20000);
    assert_in_range(G.cnt.bt_callouts - before, 0, 10);
    before = G.cnt.bt_leave_fault;
    run_divisions(0, 50); /* guilty anew */
    assert_int_equal(G.v->gpr[REG_R12], 50);
    assert_in_range(G.cnt.bt_leave_fault - before, 1, 4);

    long_use("no-adapt");
    long_start();
    PLACE(divisions, CODE);
    PLACE(skip_division, HANDLER);
    before = G.cnt.bt_leave_fault;
    run_divisions(0, 100);
    assert_int_equal(G.v->gpr[REG_R12], 100);
    assert_int_equal(G.cnt.bt_leave_fault - before, 100);
}

BLOB(popf_pushf, "push %rax; popf; pushf; pop %rcx; hlt");

/* POPF at CPL 0 with each flag alone and all together, from all clear and from all set.
 */
static void test_popf(void **state) {
    const uint64_t mask = X86_FL_STATUS | X86_FL_IF | X86_FL_DF | X86_FL_IOPL |
                          X86_FL_NT | X86_FL_AC | X86_FL_ID;
    static const char *const options[] = {"chain", "no-stay", "no-liveness", "tu=1"};

    for (size_t o = 0; o < ARRAY_SIZE(options); o++) {
        long_use(options[o]);
        for (unsigned bit = 0; bit < 23; bit++) {
            for (int all = 0; all < 2; all++) {
                uint64_t value = bit < 22 ? 1ull << bit : ~0ull;

                long_start();
                PLACE(popf_pushf, CODE);
                G.v->rflags = all ? mask | X86_FL_ONE : X86_FL_ONE;
                G.v->gpr[REG_RAX] = value & ~(uint64_t)X86_FL_TF;
                assert_int_equal(guest_run(&G), EXIT_halt);
                assert_int_equal(G.v->gpr[REG_RCX], (value & mask) | X86_FL_ONE);
                assert_int_equal(G.v->rflags, (value & mask) | X86_FL_ONE);
            }
        }
    }
}

BLOB(read_crs, "mov %cr0, %rax; mov %cr2, %rbx; mov %cr3, %rcx; mov %cr4, %r14; hlt");

static void test_control_registers(void **state) {
    long_use("chain");
    long_start();
    PLACE(read_crs, CODE);
    G.v->cr2 = 0x123456789abcdef0;
    assert_int_equal(guest_run(&G), EXIT_halt);
    assert_int_equal(G.v->gpr[REG_RAX], G.v->cr0);
    assert_int_equal(G.v->gpr[REG_RBX], 0x123456789abcdef0);
    assert_int_equal(G.v->gpr[REG_RCX], PML4);
    assert_int_equal(G.v->gpr[REG_R14], G.v->cr4);
}

/* Flags that are written again before anything reads them: the handler of a fault between
 * sees them all the same. */
BLOB(dead_flags, "mov $1, %eax; mov $0x80000000, %ebx; sub $2, %eax; mov %eax, (%rbx);"
                 "add $1, %eax; hlt");
BLOB(dead_flags_push, "mov $0x80000010, %esp; mov $0x7f, %al; add $1, %al; push %rax;"
                      "xor %eax, %eax; hlt");
BLOB(take_frame, "pop %r12; pop %r13; pop %r14; pop %r15; hlt");

static void test_dead_flags(void **state) {
    static const struct {
        const uint8_t *begin, *end;
        unsigned flags;
    } cases[] = {
        {dead_flags_begin, dead_flags_end, X86_FL_CF | X86_FL_PF | X86_FL_AF | X86_FL_SF},
        {dead_flags_push_begin, dead_flags_push_end, X86_FL_AF | X86_FL_SF | X86_FL_OF},
    };

    long_use("liveness");
    for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
        long_start();
        guest_write(&G, CODE, cases[k].begin, (unsigned)(cases[k].end - cases[k].begin));
        PLACE(take_frame, HANDLER);
        guest_put64(&G, IDT + 16 * X86_PF,
                    (HANDLER & 0xffff) | 8ull << 16 | 0x8e01ull << 32);
        guest_put64(&G, 0x8000 + 0x24, STACK);
        G.v->tr = (struct segment){.sel = 0x18, .ar = 0x8b, .limit = 103, .base = 0x8000};
        assert_int_equal(guest_run(&G), EXIT_halt);
        assert_int_equal(G.v->cr2 & ~7ull, k ? 0x80000008 : 0x80000000);
        assert_int_equal(G.v->gpr[REG_R15] & X86_FL_STATUS, cases[k].flags);
    }
}

/* Traps and returns in a row: with the switch on, the dispatcher sees next to none. */
BLOB(traps, "1: int3; dec %ecx; jnz 1b; hlt");
BLOB(trap_return, "inc %r12; iretq");

static void test_stay(void **state) {
    for (int on = 0; on < 2; on++) {
        uint64_t before;

        long_use(on ? "stay" : "no-stay");
        long_start();
        PLACE(traps, CODE);
        PLACE(trap_return, HANDLER);
        G.v->gpr[REG_RCX] = 1000;
        G.v->gpr[REG_R12] = 0;
        before = G.cnt.bt_entries;
        assert_int_equal(guest_run(&G), EXIT_halt);
        assert_int_equal(G.v->gpr[REG_R12], 1000);
        if (on)
            assert_in_range(G.cnt.bt_entries - before, 1, 50);
        else
            assert_in_range(G.cnt.bt_entries - before, 2000, 3000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_traced),
        cmocka_unit_test(test_beside_code),
        cmocka_unit_test(test_device),
        cmocka_unit_test(test_trial),
        cmocka_unit_test(test_anchor_that_misses),
        cmocka_unit_test(test_two_fragments),
        cmocka_unit_test(test_verdict_on_other_code),
        cmocka_unit_test(test_page_crossing),
        cmocka_unit_test(test_singles),
        cmocka_unit_test(test_division),
        cmocka_unit_test(test_popf),
        cmocka_unit_test(test_control_registers),
        cmocka_unit_test(test_dead_flags),
        cmocka_unit_test(test_stay),
    };

    return cmocka_run_group_tests(tests, long_setup, long_teardown);
}
