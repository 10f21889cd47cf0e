/*
 * Translated code that is shared: one page of RAM mapped at several addresses and in
 * several address spaces runs by the same fragments, which are counted, and every address
 * that it makes is right at each of them; with and without hot paths.
 */
#include "lib/bt.h"
#include "lib/long.h"
#include "lib/unit.h"
#include "x86/cr.h"
#include "x86/exception.h"

enum {
    SHARED = 0x30000,     /* the RAM page that most tests map elsewhere */
    NEXT = 0x31000,       /* what follows it in one place, */
    OTHER_NEXT = 0x32000, /* and in another */
    A = 0x100000,
    B = 0x140000,
    SPACE2 = 0x8000, /* page tables of a second address space: four pages */
};

static void map(uint64_t va, uint64_t pa, uint64_t flags) {
    guest_put64(&G, PT + 8 * (va >> 12), pa | flags);
}

/* The function is called COUNT times at A, then at B, and so on for so many rounds; what
 * it gives is summed up in rdx for A, in rbp for B. */
BLOB(caller, "xor %edx, %edx; xor %ebp, %ebp; mov $3, %esi; 1: mov %r8, %rcx;"
             "2: call *%rbx; add %rax, %rdx; dec %rcx; jnz 2b; mov %r8, %rcx;"
             "3: call *%rdi; add %rax, %rbp; dec %rcx; jnz 3b; dec %esi; jnz 1b; hlt");

/* Addresses of all kinds, relative to that of the page: what a call leaves on the stack,
 * operands off RIP, LEA, a callout (SLDT), an indirect jump, branches within the page. */
BLOB(kinds,
     "push %rbx; push %rcx; push %rdx; lea kinds_begin(%rip), %r9; xor %r10d, %r10d;"
     "call 1f; 1: pop %rax; sub %r9, %rax; add %rax, %r10;"
     "mov kinds_begin + 0x1000(%rip), %eax; add %rax, %r10;"
     "incl kinds_begin + 0x1000(%rip); decl kinds_begin + 0x1000(%rip);"
     "lea 2f(%rip), %rax; jmp *%rax; ud2; 2: sldt %eax;"
     "lea 3f(%rip), %rax; sub %r9, %rax; add %rax, %r10; test %r9, %r9; jnz 3f; ud2;"
     "3: lea (%r10, %r9), %rax; pop %rdx; pop %rcx; pop %rbx; ret");

static void start_two(void) {
    long_start();
    PLACE(caller, CODE);
    map(A, SHARED, RWP);
    map(B, SHARED, RWP);
    mmu_flush_all(G.v);
    G.v->gpr[REG_RBX] = A;
    G.v->gpr[REG_RDI] = B;
    memset(&G.cnt, 0, sizeof(G.cnt));
}

/* The page that follows it at VA, and its first word. */
static void put_data(uint64_t va, uint64_t pa, uint32_t value) {
    map(va + 4096, pa, RWP);
    guest_put32(&G, pa, value);
    mmu_flush_all(G.v);
}

static void test_two_addresses(void **state) {
    static const char *const options[] = {"hot=0", "hot=2", "hot=2,no-chain",
                                          "tu=1,hot=3"};

    for (size_t k = 0; k < ARRAY_SIZE(options); k++) {
        uint64_t before, paths, parts;

        long_use(options[k]);
        start_two();
        PLACE(kinds, SHARED);
        put_data(A, NEXT, 1000);
        put_data(B, OTHER_NEXT, 1000);
        G.v->gpr[REG_R8] = 20;
        assert_int_equal(guest_run(&G), EXIT_halt);
        parts = G.v->gpr[REG_RDX] / 60 - A;
        assert_int_equal(G.v->gpr[REG_RDX], 60 * (A + parts));
        assert_int_equal(G.v->gpr[REG_RBP], 60 * (B + parts));
        assert_in_range(parts, 1000, 2000);
        /* More of them: nothing is translated but hot paths, and in the end not even
         * those, for the ones of before are for all. */
        before = G.cnt.bt_translations - G.cnt.bt_hot_paths;
        for (unsigned n = 0, same = 0; same < 4; n++) {
            uint64_t va = 0x180000 + 0x2000 * n;

            assert_true(n < 60);
            paths = G.cnt.bt_hot_paths;
            map(va, SHARED, RWP);
            put_data(va, NEXT, 1000);
            G.v->gpr[REG_RDI] = va;
            G.v->rip = CODE;
            G.v->halted = false;
            assert_int_equal(guest_run(&G), EXIT_halt);
            assert_int_equal(G.v->gpr[REG_RBP], 60 * (va + parts));
            assert_int_equal(G.cnt.bt_translations - G.cnt.bt_hot_paths, before);
            same = G.cnt.bt_hot_paths == paths ? same + 1 : 0;
        }
        assert_true((paths > 0) == (k > 0));
    }
}

/* Code that runs over the end of its page, by an instruction and by falling through: the
 * next page is another one at each address. */
BLOB(tail, "nop; mov $5, %r12d; 1: dec %r12d; jnz 1b; .byte 0xb8, 0x11");
BLOB(next, ".byte 0x11, 0, 0; ret");
BLOB(other_next, ".byte 0x22, 0, 0; inc %eax; ret");

static void test_next_page(void **state) {
    static const char *const options[] = {"hot=0", "hot=2", "hot=1", "tu=1"};
    uint64_t at = 4096 - (uint64_t)(tail_end - tail_begin);

    for (size_t k = 0; k < ARRAY_SIZE(options); k++) {
        long_use(options[k]);
        start_two();
        PLACE(tail, SHARED + at);
        PLACE(next, NEXT);
        PLACE(other_next, OTHER_NEXT);
        map(A + 4096, NEXT, RWP);
        map(B + 4096, OTHER_NEXT, RWP);
        mmu_flush_all(G.v);
        G.v->gpr[REG_RBX] = A + at;
        G.v->gpr[REG_RDI] = B + at;
        G.v->gpr[REG_R8] = 1;
        for (unsigned n = 0; n < 30; n++) {
            G.v->rip = CODE;
            G.v->halted = false;
            assert_int_equal(guest_run(&G), EXIT_halt);
        }
        assert_int_equal(G.v->gpr[REG_RDX], 3 * 0x1111);
        assert_int_equal(G.v->gpr[REG_RBP], 3 * 0x2212);
    }
}

/* What page faults leave in CR2 and the error code, by address. */
static void expect_fault(uint64_t at, uint64_t error) {
    uint64_t pushed;

    G.v->gpr[REG_RDI] = at;
    G.v->gpr[REG_RSP] = STACK;
    G.v->rip = CODE;
    G.v->halted = false;
    assert_int_equal(guest_run(&G), EXIT_halt);
    assert_int_equal(G.v->rip, HANDLER + 1);
    assert_int_equal(G.v->cr2, at);
    pushed = guest_get(&G, G.v->gpr[REG_RSP], 8);
    assert_int_equal(pushed, error);
}

/* Executable here, not there; a supervisor's page here, a user's there (SMEP). */
BLOB(one, "mov $1, %eax; ret");

static void test_rights(void **state) {
    static const char *const options[] = {"hot=0", "hot=2"};

    for (size_t k = 0; k < ARRAY_SIZE(options); k++) {
        long_use(options[k]);
        start_two();
        G.v->efer |= X86_EFER_NXE;
        mmu_mode_changed(G.v);
        PLACE(one, SHARED);
        map(B, SHARED, RWP | X86_PTE_NX);
        mmu_flush_all(G.v);
        G.v->gpr[REG_R8] = 20;
        expect_fault(B, 0x11); /* present, fetch */
        assert_int_equal(G.v->gpr[REG_RDX], 20);
        /* The rights that it has get lost. */
        map(A, SHARED, RWP | X86_PTE_NX);
        mmu_invlpg(G.v, gva(A));
        G.v->gpr[REG_RBX] = B;
        map(B, SHARED, RWP);
        mmu_invlpg(G.v, gva(B));
        expect_fault(A, 0x11);
        assert_int_equal(G.v->gpr[REG_RDX], 20);
    }
}

/* One space writes to the page through one of its addresses: all see the new code. */
BLOB(writer, "mov $3, %esi; 1: mov %r8, %rcx; 2: call *%rbx; add %rax, %rdx; call *%rdi;"
             "add %rax, %rdx; dec %rcx; jnz 2b; incb 1(%r9); dec %esi; jnz 1b; hlt");

static void test_written(void **state) {
    static const char *const options[] = {"hot=0", "hot=2", "no-chain"};

    for (size_t k = 0; k < ARRAY_SIZE(options); k++) {
        long_use(options[k]);
        start_two();
        PLACE(writer, CODE);
        PLACE(one, SHARED);
        G.v->gpr[REG_RDX] = 0;
        G.v->gpr[REG_R8] = 10;
        G.v->gpr[REG_R9] = SHARED; /* a third address */
        assert_int_equal(guest_run(&G), EXIT_halt);
        assert_int_equal(G.v->gpr[REG_RDX], 20 * (1 + 2 + 3));
    }
}

/* Two address spaces, which map A differently but share all else; CR3 goes to and fro. */
BLOB(spaces,
     "xor %edx, %edx; mov $40, %esi; 1: mov %r10, %cr3; call *%rbx; add %rax, %rdx;"
     "mov %r11, %cr3; call *%rbx; add %rax, %rdx; dec %esi; jnz 1b; hlt");
BLOB(hop, "jmp hop_begin + 0x1010");
BLOB(ten, ".fill 0x10, 1, 0x90; mov $10, %eax; ret");
BLOB(twenty, ".fill 0x10, 1, 0x90; mov $20, %eax; ret");

static void second_space(void) {
    for (unsigned n = 0; n < 512; n++) {
        guest_put64(&G, SPACE2 + 8 * n, n ? 0 : (SPACE2 + 0x1000) | RWP);
        guest_put64(&G, SPACE2 + 0x1000 + 8 * n, n ? 0 : (SPACE2 + 0x2000) | RWP);
        guest_put64(&G, SPACE2 + 0x2000 + 8 * n, n ? 0 : (SPACE2 + 0x3000) | RWP);
        guest_put64(&G, SPACE2 + 0x3000 + 8 * n, guest_get(&G, PT + 8 * n, 8));
    }
}

static void test_spaces(void **state) {
    static const char *const options[] = {"hot=0", "hot=2", "no-chain", "no-stay,hot=3"};

    for (size_t k = 0; k < ARRAY_SIZE(options); k++) {
        long_use(options[k]);
        start_two();
        PLACE(spaces, CODE);
        PLACE(hop, SHARED); /* the same page in both, which leads to different ones */
        PLACE(ten, NEXT);
        PLACE(twenty, OTHER_NEXT);
        second_space();
        map(A + 4096, NEXT, RWP);
        guest_put64(&G, SPACE2 + 0x3000 + 8 * ((A + 4096) >> 12), OTHER_NEXT | RWP);
        mmu_flush_all(G.v);
        G.v->gpr[REG_R10] = PML4;
        G.v->gpr[REG_R11] = SPACE2;
        assert_int_equal(guest_run(&G), EXIT_halt);
        assert_int_equal(G.v->gpr[REG_RDX], 40 * (10 + 20));
        assert_in_range(G.cnt.bt_translations - G.cnt.bt_hot_paths, 1, 16);
    }
}

/* The cache is too small, while hot paths of several addresses come and go. */
static void test_evicted(void **state) {
    uint64_t parts = 0;

    long_use("cache=1,hot=2");
    for (unsigned n = 0; n < 60; n++) {
        start_two();
        for (unsigned k = 0; k < 64; k++)
            PLACE(kinds, 0xa0000 + 4096 * k); /* other code, to fill it */
        PLACE(kinds, SHARED);
        put_data(A, NEXT, 1000);
        put_data(B, OTHER_NEXT, 1000);
        G.v->gpr[REG_R8] = 8;
        if (n % 3) {
            map(A, 0xa0000 + 4096 * (n % 64), RWP);
            mmu_flush_all(G.v);
        }
        assert_int_equal(guest_run(&G), EXIT_halt);
        if (!parts)
            parts = G.v->gpr[REG_RDX] / 24 - A;
        assert_int_equal(G.v->gpr[REG_RDX], 24 * (A + parts));
        assert_int_equal(G.v->gpr[REG_RBP], 24 * (B + parts));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_addresses), cmocka_unit_test(test_next_page),
        cmocka_unit_test(test_rights),        cmocka_unit_test(test_written),
        cmocka_unit_test(test_spaces),        cmocka_unit_test(test_evicted),
    };

    return cmocka_run_group_tests(tests, long_setup, long_teardown);
}
