/*
 * The translator as a running machine: kicks that stop loops of every kind and change
 * nothing, code that is the same bytes in two modes, what is counted, much memory.
 */
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "cpu/vec.h"
#include "lib/bt.h"
#include "lib/long.h"
#include "lib/unit.h"
#include "x86/cr.h"
#include "x86/exception.h"

/* --- kicks --- */

BLOB(l_jmp_self, "1: jmp 1b");
BLOB(l_jmp, "1: inc %rax; jmp 1b");
BLOB(l_jcc, "1: inc %rax; test %rsp, %rsp; jnz 1b; hlt");
BLOB(l_jcc_fwd, "1: test %rsp, %rsp; jnz 2f; hlt; 2: inc %rax; jmp 1b");
BLOB(l_mem, "1: incq 0x90000; jno 1b; hlt");
BLOB(l_indirect, "lea 1f(%rip), %rbx; 1: inc %rax; jmp *%rbx");
BLOB(l_indirect_r15, "lea 1f(%rip), %r15; 1: inc %r14; jmp *%r15");
BLOB(l_indirect_mem, "lea 1f(%rip), %rbx; mov %rbx, 0x90000; 1: jmp *0x90000");
BLOB(l_call_ret, "1: call 2f; jmp 1b; 2: inc %rax; ret");
BLOB(l_recursion, "1: mov $0x80000, %rsp; mov $50, %ecx; call 2f; jmp 1b;"
                  "2: dec %ecx; jz 3f; call 2b; 3: ret");
BLOB(l_push_ret, "lea 1f(%rip), %rbx; 1: push %rbx; ret");
BLOB(l_loop, "1: mov $-1, %rcx; 2: inc %rax; loop 2b; jmp 1b");
BLOB(l_loope, "1: mov $-1, %rcx; 2: cmp %eax, %eax; loope 2b; jmp 1b");
BLOB(l_jrcxz, "xor %ecx, %ecx; 1: inc %rax; jrcxz 1b; hlt");
BLOB(l_string, "1: mov $0x90000, %edi; mov $100, %ecx; rep stosb; jmp 1b");
/* More than a TU, entered near its end: the path that becomes hot ends before its start.
 */
BLOB(l_forward, "jmp 1f; 2: .fill 32, 1, 0x90; 1: .fill 8, 1, 0x90; inc %rax; jmp 2b");
BLOB(l_fault, "1: ud2");
BLOB(l_cli, "1: cli; sti; jmp 1b");

static const struct {
    const char *name;
    const uint8_t *begin, *end;
} loops[] = {
#define LOOP(n)                                                                          \
    { #n, n##_begin, n##_end }
    LOOP(l_jmp_self), LOOP(l_jmp),       LOOP(l_jcc),          LOOP(l_jcc_fwd),
    LOOP(l_mem),      LOOP(l_indirect),  LOOP(l_indirect_r15), LOOP(l_indirect_mem),
    LOOP(l_call_ret), LOOP(l_recursion), LOOP(l_push_ret),     LOOP(l_loop),
    LOOP(l_loope),    LOOP(l_jrcxz),     LOOP(l_string),       LOOP(l_fault),
    LOOP(l_cli),      LOOP(l_forward),
};

static uint64_t now_us(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static uint64_t kicked_at;

static void *kick_once(void *arg) {
    usleep(3000);
    kicked_at = now_us();
    vcpu_raise(G.v, VCPU_EVENT_KICK);
    bt_kick(G.bt);
    return NULL;
}

static void kick_loops(const char *options, uint64_t offset) {
    long_use(options);
    for (size_t k = 0; k < ARRAY_SIZE(loops); k++) {
        for (unsigned n = 0; n < 3; n++) {
            pthread_t t;

            long_start();
            G.v->rip = CODE + offset;
            guest_write(&G, G.v->rip, loops[k].begin,
                        (unsigned)(loops[k].end - loops[k].begin));
            if (loops[k].begin == l_fault_begin) /* it comes back by itself */
                guest_write(&G, HANDLER, "\x48\x83\xc4\x00\x48\xcf", 6);
            pthread_create(&t, NULL, kick_once, NULL);
            if (guest_run(&G) != EXIT_kick)
                fail_msg("%s ended", loops[k].name);
            pthread_join(t, NULL);
            if (now_us() - kicked_at > 1000000)
                fail_msg("%s: %llu us after the kick", loops[k].name,
                         (unsigned long long)(now_us() - kicked_at));
        }
    }
}

static void test_kicks(void **state) {
    kick_loops("chain", 0);
    kick_loops("chain", 0xff8); /* across a page's end */
    kick_loops("no-chain", 0);
    kick_loops("tu=1", 0xffb);
}

/* A sum that every kind of branch and access takes part in. */
BLOB(sum, "mov $300000, %ecx; xor %eax, %eax; mov $0x90000, %esi; lea 5f(%rip), %r15;"
          "1: mov %ecx, %ebx; and $63, %ebx; mov %rax, (%rsi,%rbx,8); imul $69069, %rax;"
          "add %rcx, %rax; adc $0, %rdx; call 3f; test $4, %al; jz 2f; xor %rdx, %rax;"
          "2: jmp *%r15;"
          "3: push %rax; rcl $3, %rax; pop %rbx; lahf; add %rbx, %rax; pushf; popf; ret;"
          "5: setc %bl; movzx %bl, %ebx; add %rbx, %r14; cmp (%rsi), %rax; adc $1, %r13;"
          "movq %rax, %xmm1; paddq %xmm1, %xmm2; cmovs %r13, %rdx; dec %ecx; jnz 1b;"
          "movq %xmm2, %rdi; hlt");

static bool stop_kicking;

static void *kick_often(void *arg) {
    while (!__atomic_load_n(&stop_kicking, __ATOMIC_ACQUIRE)) {
        vcpu_raise(G.v, VCPU_EVENT_KICK);
        bt_kick(G.bt);
        usleep(20);
    }
    return NULL;
}

/* How often it was stopped. */
static unsigned run_sum(uint64_t *out, bool kicks) {
    pthread_t t;
    unsigned stops = 0;

    long_start();
    for (unsigned k = 0; k < 64; k++)
        guest_put64(&G, 0x90000 + 8 * k, 0);
    memset(G.v->gpr, 0, 16 * 8);
    G.v->gpr[REG_RSP] = STACK;
    PLACE(sum, CODE);
    stop_kicking = false;
    if (kicks)
        pthread_create(&t, NULL, kick_often, NULL);
    for (;;) {
        enum exit_reason why = guest_run(&G);

        if (why == EXIT_halt)
            break;
        assert_int_equal(why, EXIT_kick);
        stops++;
        vcpu_clear(G.v, VCPU_EVENT_KICK);
    }
    __atomic_store_n(&stop_kicking, true, __ATOMIC_RELEASE);
    if (kicks)
        pthread_join(t, NULL);
    memcpy(out, G.v->gpr, 16 * 8);
    return stops;
}

static void test_kicked_sum(void **state) {
    static const char *const options[] = {"chain", "no-chain", "no-liveness", "tu=1",
                                          "tu=64"};
    uint64_t want[16], got[16];

    long_use("chain");
    run_sum(want, false);
    for (size_t k = 0; k < ARRAY_SIZE(options); k++) {
        unsigned stops = 0;

        long_use(options[k]);
        /* On a busy host the kicking thread may sleep through a run. */
        for (unsigned n = 0; n < 30 && stops <= 10; n++) {
            stops += run_sum(got, true);
            for (unsigned r = 0; r < 16; r++)
                if (got[r] != want[r])
                    fail_msg("--bt %s: register %u is %llx, not %llx", options[k], r,
                             (unsigned long long)got[r], (unsigned long long)want[r]);
        }
        assert_true(stops > 10);
    }
}

static void test_keys(void **state) {
    /* mov eax, fs:[0x100] in 32-bit code; in 64-bit code the same bytes are
     * RIP-relative: the displacement makes both read what is at hand. */
    long_use("chain");
    for (unsigned k = 0; k < 6; k++) {
        long_start();
        guest_write(&G, CODE, "\xbb\x00\x00\x02\x00\xff\xd3\xff\xd3\xf4",
                    10);                                 /* call ebx, twice */
        guest_write(&G, 0x20000, "\x64\x8b\x06\xc3", 4); /* mov eax, fs:[rsi]; ret */
        guest_put64(&G, 0x40000, 0x1111);
        guest_put64(&G, 0x50000, 0x2222);
        G.v->gpr[REG_RSI] = 0x40000;
        if (k & 1)
            G.v->seg[SEG_FS].base = 0x10000;
        if (k & 2)
            G.v->seg[SEG_CS].ar = 0xc09b;
        vcpu_update_mode(G.v);
        mmu_mode_changed(G.v);
        assert_int_equal(guest_run(&G), EXIT_halt);
        assert_int_equal(G.v->gpr[REG_RAX], k & 1 ? 0x2222 : 0x1111);
    }
}

/* Flags that live across LOOP and JRCXZ, where one way leads to another page. */
static void test_loop_flags(void **state) {
    static const char *const code[] = {
        "\xf9\xe2\x10\x0f\x92\xc0\xf4",         /* stc; loop +10; setc al; hlt */
        "\xf9\xe3\x10\x0f\x92\xc0\xf4",         /* stc; jrcxz +10 */
        "\x90\x90\xf9\xe2\xfb\x0f\x92\xc0\xf4", /* nop; nop; stc; loop to the first */
    };

    long_use("chain");
    for (unsigned k = 0; k < 3; k++)
        for (unsigned cx = 0; cx < 6; cx++) {
            long_start();
            G.v->rip = CODE + (k == 2 ? 0xffb : 0xffd);
            guest_write(&G, G.v->rip, code[k], k == 2 ? 9 : 7);
            guest_write(&G, CODE + 0x1010, "\x0f\x92\xc0\xf4", 4);
            G.v->gpr[REG_RAX] = 0;
            G.v->gpr[REG_RCX] = k == 2 ? cx + 1 : cx % 3;
            assert_int_equal(guest_run(&G), EXIT_halt);
            assert_int_equal(G.v->gpr[REG_RAX], 1);
        }
}

/* Two accesses off one base whose 32-bit offsets lie 8 bytes apart and whose addresses
 * lie 4 GiB apart: the segment's base is added after the offset is cut to 32 bits. */
static void test_offset_wraps(void **state) {
    static const char code[] = "\x64\x67\x8b\x43\xf8\x64\x67\x8b\x13\xf4";

    long_use("chain"); /* mov eax, fs:[ebx-8]; mov edx, fs:[ebx]; hlt */
    long_start();
    guest_write(&G, CODE, code, sizeof(code) - 1);
    G.v->gpr[REG_RBX] = 0;
    G.v->seg[SEG_FS].base = 0xffffffff00008008;
    vcpu_update_mode(G.v);
    assert_int_equal(guest_run(&G), EXIT_halt);
    assert_int_equal(G.v->rip, HANDLER + 1);
    assert_int_equal(G.v->cr2, 0xffffffff00008008);
}

/* The stack pointer may lie anywhere, in the signal stack too, when a host fault comes.
 */
BLOB(divide, "1: xor %ecx, %ecx; div %ecx");

static void test_stack_pointer(void **state) {
    long_use("chain");
    for (unsigned k = 0; k < 64; k++) {
        long_start();
        PLACE(divide, CODE);
        G.v->gpr[REG_RSP] = k & 1 ? (uint64_t)(uintptr_t)&k + (k << 10) : 1ull << k;
        enum exit_reason why = guest_run(&G);
        assert_true(why == EXIT_shutdown || why == EXIT_halt);
    }
    assert_int_equal(guest_get(&G, 0, 8), 0);
}

/* --- what is counted --- */

/* 100 rounds of: a copied instruction, one with another operand, a callout, a call. */
BLOB(counted, "mov $0x20000, %ebx; mov $100, %ecx;"
              "1: lea 1(%rax), %rax; mov %rdx, 8(%rsp); sldt %esi; str %edx; call *%rbx;"
              "dec %ecx; jnz 1b; hlt");
BLOB(just_ret, "ret");

static uint64_t callouts[2]; /* sldt, str */

static void on_figure(void *arg, const char *name, uint64_t value) {
    if (!strcmp(name, "callouts_sldt") || !strcmp(name, "callouts_str"))
        callouts[!strcmp(name, "callouts_str")] = value;
    else
        assert_true(!strncmp(name, "callouts_", 9) && value);
}

static void test_statistics(void **state) {
    long_use("count");
    long_start();
    PLACE(counted, CODE);
    PLACE(just_ret, 0x20000);
    memset(&G.cnt, 0, sizeof(G.cnt));
    assert_int_equal(guest_run(&G), EXIT_halt);
    bt_stats(G.bt, on_figure, NULL);
    assert_int_equal(callouts[0], 100);
    assert_int_equal(callouts[1], 100);
    assert_in_range(G.cnt.bt_callouts, 200, 210);
    assert_in_range(G.cnt.bt_insns, 12, 60); /* fragments may overlap */
    assert_in_range(G.cnt.bt_insns_ident, 3, G.cnt.bt_insns);
    assert_in_range(G.cnt.bt_insns_operand, 1, 8);
    assert_in_range(G.cnt.bt_insns_callout, 3, 12);
    assert_true(G.cnt.bt_host_bytes > G.cnt.bt_guest_bytes);
    assert_true(G.cnt.bt_chained);
    assert_true(G.cnt.bt_translator_ticks);
    /* A call and a return each round; each target is missed once or twice. */
    assert_in_range(G.cnt.bt_indirect_hits, 190, 200);
    assert_in_range(G.cnt.bt_leave_indirect, 2, 10);
    assert_int_equal(G.cnt.bt_again_written, 0);
}

/* An interrupt that the guest holds back keeps nothing from being linked. */
static void test_held_back(void **state) {
    long_use("chain");
    long_start();
    PLACE(counted, CODE);
    PLACE(just_ret, 0x20000);
    G.v->rflags &= ~(uint64_t)X86_FL_IF;
    memset(&G.cnt, 0, sizeof(G.cnt));
    vcpu_raise(G.v, VCPU_EVENT_IRQ);
    assert_int_equal(guest_run(&G), EXIT_halt);
    vcpu_clear(G.v, VCPU_EVENT_IRQ);
    assert_true(G.cnt.bt_chained);
    assert_in_range(G.cnt.bt_leave_link, 1, 20);
}

/* --- much memory --- */

static long resident_pages(void) {
    long size, resident = -1;
    FILE *f = fopen("/proc/self/statm", "r");

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld", &size, &resident), 2);
    fclose(f);
    return resident;
}

/* What the guest does not touch costs the host nothing, however much it is. */
static void test_much_memory(void **state) {
    const struct bt_options opt = bt_defaults();
    const struct guest_config cfg = {.ram = 64ull << 30, .policy = MMU_PCID, .bt = &opt};
    long before = resident_pages();
    struct guest big;

    guest_new(&big, &cfg);
    bt_flush(big.bt);
    assert_true(resident_pages() - before < (64 << 20) / 4096);
    guest_free(&big);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kicks),        cmocka_unit_test(test_kicked_sum),
        cmocka_unit_test(test_keys),         cmocka_unit_test(test_loop_flags),
        cmocka_unit_test(test_offset_wraps), cmocka_unit_test(test_stack_pointer),
        cmocka_unit_test(test_statistics),   cmocka_unit_test(test_held_back),
        cmocka_unit_test(test_much_memory),
    };

    return cmocka_run_group_tests(tests, long_setup, long_teardown);
}
