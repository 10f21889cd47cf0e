/*
 * What becomes of translated code: a cache that fills up, and code that changes under it
 * in the ways that no interpreter minds: through an alias, on the second page of an
 * instruction, by remapping, by an invalidation that names another part of a large page.
 */
#include "cpu/vec.h"
#include "lib/bt.h"
#include "lib/long.h"
#include "lib/unit.h"
#include "x86/cr.h"
#include "x86/exception.h"

/* --- a cache that fills up --- */

enum { FUNCTIONS = 20000 };

/* Calls FUNCTIONS functions, 64 bytes apart from 2 MiB on, three times over. */
BLOB(call_all, "mov $3, %r12d; 1: mov $0x200000, %ebx; mov $20000, %ecx;"
               "2: call *%rbx; add $64, %rbx; dec %ecx; jnz 2b; dec %r12d; jnz 1b; hlt");
/* add $imm, %rax; test; jz over; nops; ret */
BLOB(function, "add $0x11223344, %rax; test %rax, %rax; jz 1f; inc %rdx; 1: ret");

static void full_cache(const char *options) {
    uint64_t want = 0;

    long_use(options);
    long_start();
    PLACE(call_all, CODE);
    G.v->gpr[REG_RAX] = G.v->gpr[REG_RDX] = 0;
    for (unsigned k = 0; k < FUNCTIONS; k++) {
        uint32_t imm = k * 77 + 1;
        uint64_t at = 0x200000 + 64 * k;

        PLACE(function, at);
        guest_write(&G, at + 2, &imm, 4); /* 48 05 imm32 */
        want += 3 * (uint64_t)imm;
    }
    memset(&G.cnt, 0, sizeof(G.cnt));
    assert_int_equal(guest_run(&G), EXIT_halt);
    assert_int_equal(G.v->gpr[REG_RAX], want);
    assert_int_equal(G.v->gpr[REG_RDX], 3 * FUNCTIONS);
}

static void test_flush(void **state) {
    full_cache("cache=1,no-evict");
    assert_true(G.cnt.bt_flushes >= 3);
    assert_int_equal(G.cnt.bt_evictions, 0);
}

/* The oldest go, the loop that calls them is translated again now and then. */
static void test_eviction(void **state) {
    full_cache("cache=1");
    assert_true(G.cnt.bt_evictions >= 24);
    assert_true(G.cnt.bt_evicted >= FUNCTIONS);
    assert_true(G.cnt.bt_again_evicted >= FUNCTIONS / 2);
    assert_int_equal(G.cnt.bt_flushes, 0);
    full_cache("cache=1,hot=2");
    assert_true(G.cnt.bt_evictions >= 24);
}

/* --- code that changes --- */

/* mov eax, 1; ret at 0x20000, called and changed through an alias at 0x30000. */
BLOB(alias, "mov $0x20000, %ebx; mov $0x30001, %esi; xor %edx, %edx; mov $200, %ecx;"
            "1: mov %cl, (%rsi); call *%rbx; add %rax, %rdx; dec %ecx; jnz 1b; hlt");
BLOB(mov_ret, "mov $1, %eax; ret");

static void test_alias(void **state) {
    long_use("chain");
    memset(&G.cnt, 0, sizeof(G.cnt));
    long_start();
    PLACE(alias, CODE);
    PLACE(mov_ret, 0x20000);
    guest_put64(&G, PT + 8 * 0x30, 0x20000 | RWP);
    mmu_flush_all(G.v);
    assert_int_equal(guest_run(&G), EXIT_halt);
    assert_int_equal(G.v->gpr[REG_RDX], 200 * 201 / 2);
    assert_in_range(G.cnt.bt_again_written, 190, 400);
}

/* An instruction whose immediate lies on the second page, which is mapped to two pages
 * in turn. */
BLOB(crossing, "mov $0x20ffe, %ebx; xor %edx, %edx; mov $100, %ecx;"
               "1: mov $0x28003, %eax; test $1, %cl; jz 2f; mov $0x29003, %eax;"
               "2: mov %rax, 0x5108; invlpg 0x21000; call *%rbx; add %rax, %rdx;"
               "dec %ecx; jnz 1b; hlt");

static void test_crossing(void **state) {
    long_use("chain");
    long_start();
    PLACE(crossing, CODE);
    guest_write(&G, 0x20ffe, "\xb8\x05", 2); /* mov eax, xxxxxx05 */
    guest_write(&G, 0x28000, "\x00\x00\x00\xc3", 4);
    guest_write(&G, 0x29000, "\x01\x00\x00\xc3", 4);
    assert_int_equal(guest_run(&G), EXIT_halt);
    assert_int_equal(G.v->gpr[REG_RDX], 100 * 5 + 50 * 0x100);
}

/* A function is called directly and through a register, and its page is mapped elsewhere
 * half way: what led to the old code is turned to the new, instead of being refused each
 * time. */
BLOB(remapped, "mov $0x20000, %ebx; xor %edx, %edx; mov $2, %esi; 1: mov $500, %ecx;"
               "2: call remapped_begin + 0x10000; add %rax, %rdx; call *%rbx;"
               "add %rax, %rdx; dec %ecx; jnz 2b; movq $0x29003, 0x5100; invlpg 0x20000;"
               "dec %esi; jnz 1b; hlt");

static void test_remapped(void **state) {
    static const char *const options[] = {"chain", "hot=0", "hot=2"};

    for (size_t k = 0; k < ARRAY_SIZE(options); k++) {
        long_use(options[k]);
        memset(&G.cnt, 0, sizeof(G.cnt));
        long_start();
        PLACE(remapped, CODE);
        guest_put64(&G, PT + 8 * 0x20, 0x28000 | RWP);
        guest_write(&G, 0x28000, "\xb8\x01\x00\x00\x00\xc3", 6);
        guest_write(&G, 0x29000, "\xb8\x10\x00\x00\x00\xc3", 6);
        mmu_flush_all(G.v);
        assert_int_equal(guest_run(&G), EXIT_halt);
        assert_int_equal(G.v->gpr[REG_RDX], 1000 * 0x11);
        assert_in_range(G.cnt.bt_leave_check, 1, 10);
    }
}

/* A 2 MiB page is mapped elsewhere; the INVLPG names its first byte, the code is in its
 * middle. AMD64 APM volume 3, INVLPG: the whole translation goes. */
BLOB(large, "mov $0x480000, %ebx; call *%rbx; mov %rax, %rdx;"
            "movq $0x600083, 0x4010; invlpg 0x400000; call *%rbx; add %rax, %rdx;"
            "call *%rbx; add %rax, %rdx; hlt");
BLOB(large_jmp, "1: jmp 2f; .fill 0x70, 1, 0x90; 2: mov $100, %eax; ret");
BLOB(large_jmp2, "1: jmp 2f; .fill 0x70, 1, 0x90; 2: mov $1, %eax; ret");

static void test_large_page(void **state) {
    long_use("chain");
    for (unsigned k = 0; k < 3; k++) {
        long_start();
        PLACE(large, CODE);
        PLACE(large_jmp, LARGE + 0x80000);
        PLACE(large_jmp2, OTHER + 0x80000);
        assert_int_equal(guest_run(&G), EXIT_halt);
        assert_int_equal(G.v->gpr[REG_RDX], 102);
    }
}

/* A loop that patches its own next instruction, writes data beside itself, and copies
 * itself over itself. */
BLOB(own, "xor %eax, %eax; mov $300, %ecx; lea 2f(%rip), %rbx; lea 3f(%rip), %rsi;"
          "1: mov %cl, 1(%rbx); 2: mov $0, %edx; add %rdx, %rax; add %ecx, (%rsi);"
          "mov %rcx, %r8; lea 1b(%rip), %rdi; push %rsi; mov %rdi, %rsi; mov $64, %ecx;"
          "rep movsb; pop %rsi; mov %r8, %rcx; dec %ecx; jnz 1b; mov (%rsi), %edx; hlt;"
          ".p2align 6; 3: .long 0");

static void test_own(void **state) {
    static const char *const options[] = {"chain", "no-chain", "tu=1", "tu=64"};
    uint64_t want = 0;

    for (unsigned k = 1; k <= 300; k++)
        want += k & 0xff;
    for (size_t k = 0; k < ARRAY_SIZE(options); k++) {
        long_use(options[k]);
        long_start();
        PLACE(own, CODE);
        assert_int_equal(guest_run(&G), EXIT_halt);
        assert_int_equal(G.v->gpr[REG_RAX], want);
        assert_int_equal(G.v->gpr[REG_RDX], 300 * 301 / 2);
    }
}

/* Code that runs in two modes and with two sets of segments: at the same address. */
int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flush),    cmocka_unit_test(test_eviction),
        cmocka_unit_test(test_alias),    cmocka_unit_test(test_crossing),
        cmocka_unit_test(test_remapped), cmocka_unit_test(test_large_page),
        cmocka_unit_test(test_own),
    };

    return cmocka_run_group_tests(tests, long_setup, long_teardown);
}
