/*
 * The translator as a running machine: kicks that stop loops of every kind and change
 * nothing, a cache that fills up, and code that changes under it in the ways that no
 * interpreter minds: through an alias, on the second page of an instruction, by
 * remapping, by an invalidation that names another part of a large page.
 *
 * Guests are 64-bit code at CPL 0; pages of 4 KiB for the first 2 MiB, of 2 MiB after.
 */
/* <signal.h> of _GNU_SOURCE has its own REG_RAX and so on. */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "bt/bt_int.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "interp/interp.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "soft/soft.h"
#include "x86/cr.h"
#include "x86/exception.h"
#include "x86/pte.h"

enum {
    RAM = 16 << 20,
    IDT = 0x1000,
    PML4 = 0x2000,
    PDPT = 0x3000,
    PD = 0x4000,
    PT = 0x5000,
    GDT = 0x6000,
    HANDLER = 0x7000,
    CODE = 0x10000,
    STACK = 0x80000,
    LARGE = 0x400000, /* a large page that is remapped */
    OTHER = 0x600000, /* to this */
};
#define RWP (X86_PTE_P | X86_PTE_W)

static struct vcpu *v;
static struct counters counters;
static struct interp *ip;
static struct bt *bt;
static struct soft soft;

static int on_irq_ack(void *arg) {
    return -1;
}

static uint64_t device; /* all addresses without memory are one register */

static void device_exit(void *arg, struct vcpu *vcpu, struct exit *e) {
    assert_int_equal(e->reason, EXIT_mmio);
    if (e->write)
        device = e->data;
    else
        e->data = device;
}

static const struct vcpu_hooks hooks = {.irq_ack = on_irq_ack, .exit = device_exit};

static void poke(uint64_t at, const void *p, unsigned len) {
    assert_true(mem_write(v->mem, gpa(at), p, len));
}

static void poke64(uint64_t at, uint64_t val) {
    poke(at, &val, 8);
}

static uint64_t peek64(uint64_t at) {
    uint64_t val = 0;

    assert_true(mem_read(v->mem, gpa(at), &val, 8));
    return val;
}

static struct sigaction fault_action;

/* cmocka puts its own signal handlers in place for each test: ours go over them. */
static void signals_back(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};

    for (size_t k = 0; k < ARRAY_SIZE(signals); k++)
        sigaction(signals[k], &fault_action, NULL);
}

static void engine(const char *options) {
    struct bt_options opt = bt_defaults();
    char why[128];

    assert_int_equal(bt_options_parse(&opt, options, why, sizeof(why)), 0);
    opt.verify = true; /* a finding ends the run */
    signals_back();
    bt_free(bt);
    bt = NULL;
    assert_int_equal(bt_new(v, ip, &opt, &bt), 0);
    soft = (struct soft){.v = v, .ip = ip, .bt = bt};
}

static void start(void) {
    vcpu_reset(v);
    for (unsigned n = 0; n < 32; n++) {
        poke64(IDT + 16 * n, (HANDLER & 0xffff) | 8ull << 16 | 0x8e00ull << 32);
        poke64(IDT + 16 * n + 8, 0);
    }
    poke(HANDLER, "\xf4", 1);
    poke64(GDT + 8, 0x00af9b000000ffff);
    poke64(GDT + 16, 0x00cf93000000ffff);
    poke64(PML4, PDPT | RWP);
    poke64(PDPT, PD | RWP);
    poke64(PD, PT | RWP);
    poke64(PDPT + 8, 0x40000000 | RWP | X86_PTE_PS); /* nothing is there */
    for (unsigned k = 1; k < RAM >> 21; k++)
        poke64(PD + 8 * k, (uint64_t)k << 21 | RWP | X86_PTE_PS);
    for (unsigned k = 0; k < 512; k++)
        poke64(PT + 8 * k, k << 12 | RWP);
    for (unsigned s = 0; s < SEG_COUNT; s++)
        v->seg[s] = (struct segment){.sel = s == SEG_CS ? 8 : 16,
                                     .ar = s == SEG_CS ? 0xa09b : 0xc093,
                                     .limit = 0xffffffff};
    v->cr0 |= X86_CR0_PE | X86_CR0_PG | X86_CR0_WP | X86_CR0_NE;
    v->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR;
    v->cr3 = PML4;
    v->efer = X86_EFER_LME | X86_EFER_LMA;
    v->gdtr = (struct desc_table){.base = GDT, .limit = 23};
    v->idtr = (struct desc_table){.base = IDT, .limit = 511};
    v->halted = false;
    vcpu_clear(v, ~0u);
    vcpu_update_mode(v);
    mmu_flush_all(v);
    v->rip = CODE;
    v->gpr[REG_RSP] = STACK;
}

#define BLOB(name, text)                                                                 \
    extern const uint8_t name##_begin[], name##_end[];                                   \
    __asm__(".pushsection .rodata\n" #name "_begin:\n" text "\n" #name                   \
            "_end:\n.popsection\n")

#define PLACE(name, at) poke(at, name##_begin, (unsigned)(name##_end - name##_begin))

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
    vcpu_raise(v, VCPU_EVENT_KICK);
    bt_kick(bt);
    return NULL;
}

static void kick_loops(const char *options, uint64_t offset) {
    engine(options);
    for (size_t k = 0; k < ARRAY_SIZE(loops); k++) {
        for (unsigned n = 0; n < 3; n++) {
            pthread_t t;

            start();
            v->rip = CODE + offset;
            poke(v->rip, loops[k].begin, (unsigned)(loops[k].end - loops[k].begin));
            if (loops[k].begin == l_fault_begin) /* it comes back by itself */
                poke(HANDLER, "\x48\x83\xc4\x00\x48\xcf", 6);
            pthread_create(&t, NULL, kick_once, NULL);
            if (soft_run(&soft) != EXIT_kick)
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
        vcpu_raise(v, VCPU_EVENT_KICK);
        bt_kick(bt);
        usleep(20);
    }
    return NULL;
}

/* How often it was stopped. */
static unsigned run_sum(uint64_t *out, bool kicks) {
    pthread_t t;
    unsigned stops = 0;

    start();
    for (unsigned k = 0; k < 64; k++)
        poke64(0x90000 + 8 * k, 0);
    memset(v->gpr, 0, 16 * 8);
    v->gpr[REG_RSP] = STACK;
    PLACE(sum, CODE);
    stop_kicking = false;
    if (kicks)
        pthread_create(&t, NULL, kick_often, NULL);
    for (;;) {
        enum exit_reason why = soft_run(&soft);

        if (why == EXIT_halt)
            break;
        assert_int_equal(why, EXIT_kick);
        stops++;
        vcpu_clear(v, VCPU_EVENT_KICK);
    }
    __atomic_store_n(&stop_kicking, true, __ATOMIC_RELEASE);
    if (kicks)
        pthread_join(t, NULL);
    memcpy(out, v->gpr, 16 * 8);
    return stops;
}

static void test_kicked_sum(void **state) {
    static const char *const options[] = {"chain", "no-chain", "no-liveness", "tu=1",
                                          "tu=64"};
    uint64_t want[16], got[16];

    engine("chain");
    run_sum(want, false);
    for (size_t k = 0; k < ARRAY_SIZE(options); k++) {
        unsigned stops = 0;

        engine(options[k]);
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

/* --- a cache that fills up --- */

enum { FUNCTIONS = 20000 };

/* Calls FUNCTIONS functions, 64 bytes apart from 2 MiB on, three times over. */
BLOB(call_all, "mov $3, %r12d; 1: mov $0x200000, %ebx; mov $20000, %ecx;"
               "2: call *%rbx; add $64, %rbx; dec %ecx; jnz 2b; dec %r12d; jnz 1b; hlt");
/* add $imm, %rax; test; jz over; nops; ret */
BLOB(function, "add $0x11223344, %rax; test %rax, %rax; jz 1f; inc %rdx; 1: ret");

static void full_cache(const char *options) {
    uint64_t want = 0;

    engine(options);
    start();
    PLACE(call_all, CODE);
    v->gpr[REG_RAX] = v->gpr[REG_RDX] = 0;
    for (unsigned k = 0; k < FUNCTIONS; k++) {
        uint32_t imm = k * 77 + 1;
        uint64_t at = 0x200000 + 64 * k;

        PLACE(function, at);
        poke(at + 2, &imm, 4); /* 48 05 imm32 */
        want += 3 * (uint64_t)imm;
    }
    memset(&counters, 0, sizeof(counters));
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_int_equal(v->gpr[REG_RAX], want);
    assert_int_equal(v->gpr[REG_RDX], 3 * FUNCTIONS);
}

static void test_flush(void **state) {
    full_cache("cache=1,no-evict");
    assert_true(counters.bt_flushes >= 3);
    assert_int_equal(counters.bt_evictions, 0);
}

/* The oldest go, the loop that calls them is translated again now and then. */
static void test_eviction(void **state) {
    full_cache("cache=1");
    assert_true(counters.bt_evictions >= 24);
    assert_true(counters.bt_evicted >= FUNCTIONS);
    assert_true(counters.bt_again_evicted >= FUNCTIONS / 2);
    assert_int_equal(counters.bt_flushes, 0);
    full_cache("cache=1,hot=2");
    assert_true(counters.bt_evictions >= 24);
}

/* --- code that changes --- */

/* mov eax, 1; ret at 0x20000, called and changed through an alias at 0x30000. */
BLOB(alias, "mov $0x20000, %ebx; mov $0x30001, %esi; xor %edx, %edx; mov $200, %ecx;"
            "1: mov %cl, (%rsi); call *%rbx; add %rax, %rdx; dec %ecx; jnz 1b; hlt");
BLOB(mov_ret, "mov $1, %eax; ret");

static void test_alias(void **state) {
    engine("chain");
    memset(&counters, 0, sizeof(counters));
    start();
    PLACE(alias, CODE);
    PLACE(mov_ret, 0x20000);
    poke64(PT + 8 * 0x30, 0x20000 | RWP);
    mmu_flush_all(v);
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_int_equal(v->gpr[REG_RDX], 200 * 201 / 2);
    assert_in_range(counters.bt_again_written, 190, 400);
}

/* An instruction whose immediate lies on the second page, which is mapped to two pages
 * in turn. */
BLOB(crossing, "mov $0x20ffe, %ebx; xor %edx, %edx; mov $100, %ecx;"
               "1: mov $0x28003, %eax; test $1, %cl; jz 2f; mov $0x29003, %eax;"
               "2: mov %rax, 0x5108; invlpg 0x21000; call *%rbx; add %rax, %rdx;"
               "dec %ecx; jnz 1b; hlt");

static void test_crossing(void **state) {
    engine("chain");
    start();
    PLACE(crossing, CODE);
    poke(0x20ffe, "\xb8\x05", 2); /* mov eax, xxxxxx05 */
    poke(0x28000, "\x00\x00\x00\xc3", 4);
    poke(0x29000, "\x01\x00\x00\xc3", 4);
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_int_equal(v->gpr[REG_RDX], 100 * 5 + 50 * 0x100);
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
        engine(options[k]);
        memset(&counters, 0, sizeof(counters));
        start();
        PLACE(remapped, CODE);
        poke64(PT + 8 * 0x20, 0x28000 | RWP);
        poke(0x28000, "\xb8\x01\x00\x00\x00\xc3", 6);
        poke(0x29000, "\xb8\x10\x00\x00\x00\xc3", 6);
        mmu_flush_all(v);
        assert_int_equal(soft_run(&soft), EXIT_halt);
        assert_int_equal(v->gpr[REG_RDX], 1000 * 0x11);
        assert_in_range(counters.bt_leave_check, 1, 10);
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
    engine("chain");
    for (unsigned k = 0; k < 3; k++) {
        start();
        PLACE(large, CODE);
        PLACE(large_jmp, LARGE + 0x80000);
        PLACE(large_jmp2, OTHER + 0x80000);
        assert_int_equal(soft_run(&soft), EXIT_halt);
        assert_int_equal(v->gpr[REG_RDX], 102);
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
        engine(options[k]);
        start();
        PLACE(own, CODE);
        assert_int_equal(soft_run(&soft), EXIT_halt);
        assert_int_equal(v->gpr[REG_RAX], want);
        assert_int_equal(v->gpr[REG_RDX], 300 * 301 / 2);
    }
}

/* Code that runs in two modes and with two sets of segments: at the same address. */
static void test_keys(void **state) {
    /* mov eax, fs:[0x100] in 32-bit code; in 64-bit code the same bytes are
     * RIP-relative: the displacement makes both read what is at hand. */
    engine("chain");
    for (unsigned k = 0; k < 6; k++) {
        start();
        poke(CODE, "\xbb\x00\x00\x02\x00\xff\xd3\xff\xd3\xf4", 10); /* call ebx, twice */
        poke(0x20000, "\x64\x8b\x06\xc3", 4); /* mov eax, fs:[rsi]; ret */
        poke64(0x40000, 0x1111);
        poke64(0x50000, 0x2222);
        v->gpr[REG_RSI] = 0x40000;
        if (k & 1)
            v->seg[SEG_FS].base = 0x10000;
        if (k & 2)
            v->seg[SEG_CS].ar = 0xc09b;
        vcpu_update_mode(v);
        mmu_mode_changed(v);
        assert_int_equal(soft_run(&soft), EXIT_halt);
        assert_int_equal(v->gpr[REG_RAX], k & 1 ? 0x2222 : 0x1111);
    }
}

/* Flags that live across LOOP and JRCXZ, where one way leads to another page. */
static void test_loop_flags(void **state) {
    static const char *const code[] = {
        "\xf9\xe2\x10\x0f\x92\xc0\xf4",         /* stc; loop +10; setc al; hlt */
        "\xf9\xe3\x10\x0f\x92\xc0\xf4",         /* stc; jrcxz +10 */
        "\x90\x90\xf9\xe2\xfb\x0f\x92\xc0\xf4", /* nop; nop; stc; loop to the first */
    };

    engine("chain");
    for (unsigned k = 0; k < 3; k++)
        for (unsigned cx = 0; cx < 6; cx++) {
            start();
            v->rip = CODE + (k == 2 ? 0xffb : 0xffd);
            poke(v->rip, code[k], k == 2 ? 9 : 7);
            poke(CODE + 0x1010, "\x0f\x92\xc0\xf4", 4);
            v->gpr[REG_RAX] = 0;
            v->gpr[REG_RCX] = k == 2 ? cx + 1 : cx % 3;
            assert_int_equal(soft_run(&soft), EXIT_halt);
            assert_int_equal(v->gpr[REG_RAX], 1);
        }
}

/* Two accesses off one base whose 32-bit offsets lie 8 bytes apart and whose addresses
 * lie 4 GiB apart: the segment's base is added after the offset is cut to 32 bits. */
static void test_offset_wraps(void **state) {
    static const char code[] = "\x64\x67\x8b\x43\xf8\x64\x67\x8b\x13\xf4";

    engine("chain"); /* mov eax, fs:[ebx-8]; mov edx, fs:[ebx]; hlt */
    start();
    poke(CODE, code, sizeof(code) - 1);
    v->gpr[REG_RBX] = 0;
    v->seg[SEG_FS].base = 0xffffffff00008008;
    vcpu_update_mode(v);
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_int_equal(v->rip, HANDLER + 1);
    assert_int_equal(v->cr2, 0xffffffff00008008);
}

/* The stack pointer may lie anywhere, in the signal stack too, when a host fault comes.
 */
BLOB(divide, "1: xor %ecx, %ecx; div %ecx");

static void test_stack_pointer(void **state) {
    engine("chain");
    for (unsigned k = 0; k < 64; k++) {
        start();
        PLACE(divide, CODE);
        v->gpr[REG_RSP] = k & 1 ? (uint64_t)(uintptr_t)&k + (k << 10) : 1ull << k;
        enum exit_reason why = soft_run(&soft);
        assert_true(why == EXIT_shutdown || why == EXIT_halt);
    }
    assert_int_equal(peek64(0), 0);
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
    engine("count");
    start();
    PLACE(counted, CODE);
    PLACE(just_ret, 0x20000);
    memset(&counters, 0, sizeof(counters));
    assert_int_equal(soft_run(&soft), EXIT_halt);
    bt_stats(bt, on_figure, NULL);
    assert_int_equal(callouts[0], 100);
    assert_int_equal(callouts[1], 100);
    assert_in_range(counters.bt_callouts, 200, 210);
    assert_in_range(counters.bt_insns, 12, 60); /* fragments may overlap */
    assert_in_range(counters.bt_insns_ident, 3, counters.bt_insns);
    assert_in_range(counters.bt_insns_operand, 1, 8);
    assert_in_range(counters.bt_insns_callout, 3, 12);
    assert_true(counters.bt_host_bytes > counters.bt_guest_bytes);
    assert_true(counters.bt_chained);
    assert_true(counters.bt_translator_ticks);
    /* A call and a return each round; each target is missed once or twice. */
    assert_in_range(counters.bt_indirect_hits, 190, 200);
    assert_in_range(counters.bt_leave_indirect, 2, 10);
    assert_int_equal(counters.bt_again_written, 0);
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
    static const struct cpuid_config cfg = {.tsc_hz = 1000000000};
    const struct bt_options opt = bt_defaults();
    struct vcpu *big = aligned_alloc(64, (sizeof(*big) + 63) & ~63ull);
    struct bt *translator = NULL;
    struct interp *reference;
    long before = resident_pages();

    memset(big, 0, sizeof(*big));
    big->cnt = &counters;
    big->hooks = &hooks;
    big->cpuid = cpuid_model_new(&cfg);
    assert_int_equal(mem_create(64ull << 30, &big->mem), 0);
    assert_int_equal(mmu_create(big, MMU_PCID), 0);
    reference = interp_new(big);
    assert_non_null(reference);
    assert_int_equal(bt_new(big, reference, &opt, &translator), 0);
    bt_flush(translator);
    assert_true(resident_pages() - before < (64 << 20) / 4096);
    bt_free(translator);
    interp_free(reference);
    mmu_destroy(big);
    mem_destroy(big->mem);
    cpuid_model_free((struct cpuid_model *)big->cpuid);
    free(big);
}

/* --- what keeps trapping --- */

/* 2000 rounds of a store to [rsi] with a read back, among accesses that do not trap. */
BLOB(storing,
     "mov $2000, %ecx; xor %eax, %eax; xor %ebx, %ebx;"
     "1: inc %rax; add %rax, (%rdi); cmp $7, %al; mov %rax, (%rsi); setc %dl;"
     "add (%rsi), %rbx; movzx %dl, %edx; add %rdx, 8(%rdi); dec %ecx; jnz 1b; hlt");
enum { ROUNDS = 2000, PLAIN = 0x90000, TRACED = CODE + 0x800, BESIDE = 0x70000 };

/* Runs it with rSI there. */
static void store_to(uint64_t rsi) {
    static const uint64_t zero[2];

    poke(PLAIN, zero, sizeof(zero));
    memset(&counters, 0, sizeof(counters));
    poke64(PT + 8 * 0x72, 0x7a000 | RWP); /* no neighbour of 0x71000 */
    mmu_flush_all(v);
    v->rip = CODE;
    v->halted = false;
    v->gpr[REG_RSI] = rsi;
    v->gpr[REG_RDI] = PLAIN;
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_int_equal(v->gpr[REG_RBX], ROUNDS * (ROUNDS + 1) / 2);
    assert_int_equal(peek64(PLAIN), ROUNDS * (ROUNDS + 1) / 2);
    assert_int_equal(peek64(PLAIN + 8), 7 * (ROUNDS / 256) + 6); /* of al below 7 */
}

/* Two engines: one that stays as it is, one that designs the trap in. */
static void trapping(uint64_t rsi, const char *with, const char *without, unsigned each) {
    engine(without);
    start();
    PLACE(storing, CODE);
    store_to(rsi);
    assert_true(counters.bt_emulated >= each * ROUNDS);
    engine(with);
    start();
    PLACE(storing, CODE);
    store_to(rsi);
    assert_in_range(counters.bt_emulated, 16, 100);
    assert_in_range(counters.bt_again_traps, 1, 8);
    assert_true(counters.bt_callouts > each * (ROUNDS - 200));
    /* The verdict is over, and what trapped does not trap any more. */
    bt_review(bt, UINT64_MAX >> 1);
    assert_true(counters.bt_acquitted >= each);
    store_to(BESIDE);
    assert_true(counters.bt_again_review >= 1);
    assert_true(counters.bt_callouts < 50);
    assert_true(counters.bt_emulated < 50);
}

static void test_traced(void **state) {
    trapping(TRACED, "adapt", "no-adapt", 1);
    assert_true(peek64(TRACED));
    trapping(TRACED, "hot=3", "no-adapt,hot=3", 1);
}

static void test_device(void **state) {
    trapping(0x40000000, "adapt", "no-adapt", 2);
    assert_int_equal(device, ROUNDS);
    trapping(0x40000000, "no-stay,no-liveness", "no-adapt,no-stay", 2);
}

/* Code that traps in one use and not in the others goes free after a trial. */
BLOB(mostly, "mov $20, %edx; 2: mov %r8, %rsi; call 3f; mov %r9, %rsi; mov $1000, %ebx;"
             "1: call 3f; dec %ebx; jnz 1b; dec %edx; jnz 2b; hlt;"
             "3: mov $40, %ecx; cmp %r8, %rsi; je 4f; mov $1, %ecx;"
             "4: mov %rax, (%rsi); dec %ecx; jnz 4b; ret");

static void test_trial(void **state) {
    engine("adapt");
    start();
    PLACE(mostly, CODE);
    memset(&counters, 0, sizeof(counters));
    v->gpr[8] = TRACED;
    v->gpr[9] = PLAIN;
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_in_range(counters.bt_again_traps, 1, 6);
    assert_true(counters.bt_acquitted >= 1);
    assert_in_range(counters.bt_callouts, 200, 2000); /* of 20,800 stores */
}

/* The same instruction in two fragments: the verdict is for both. */
BLOB(two_ways, "mov $2000, %ecx; 1: test $1, %cl; jz 2f; call 3f; jmp 4f; 2: call 5f;"
               "4: dec %ecx; jnz 1b; hlt; 3: nop; 5: mov %rax, (%rsi); ret");

static void test_two_fragments(void **state) {
    engine("hot=0");
    start();
    PLACE(two_ways, CODE);
    memset(&counters, 0, sizeof(counters));
    v->gpr[REG_RSI] = TRACED;
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_in_range(counters.bt_again_traps, 2, 6);
    assert_in_range(counters.bt_emulated, 32, 150);
}

/* Another instruction in the place of one that trapped: a branch, of which both ways are
 * taken. */
static void test_verdict_on_other_code(void **state) {
    static const uint8_t mov[] = {0x48, 0x89, 0x06}, jc_over_stc[] = {0x72, 0x01, 0xf9};
    static const uint64_t zero[3];
    const uint8_t *at = storing_begin;

    engine("hot=3");
    start();
    PLACE(storing, CODE);
    while (memcmp(at, mov, sizeof(mov)))
        at++;
    store_to(TRACED);
    assert_in_range(counters.bt_again_traps, 1, 8);
    poke(CODE + (uint64_t)(at - storing_begin), jc_over_stc, sizeof(jc_over_stc));
    poke(PLAIN, zero, sizeof(zero));
    v->rip = CODE;
    v->halted = false;
    v->gpr[REG_RSI] = PLAIN + 16;
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_int_equal(peek64(PLAIN + 8), ROUNDS); /* the carry was set each time */
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
        engine(options[k]);
        start();
        for (unsigned n = 0; n < 5; n++) { /* no neighbours */
            poke64(PT + 8 * (0x70 + n), (0xa0000 + 0x2000 * n) | RWP);
            poke64(0xa0000 + 0x2000 * n, 0);
        }
        mmu_flush_all(v);
        PLACE(records, CODE);
        memset(&counters, 0, sizeof(counters));
        assert_int_equal(soft_run(&soft), EXIT_halt);
        for (unsigned n = 1; n < 5; n++)
            assert_int_equal(peek64(0xa0000 + 0x2000 * n), 250);
        assert_in_range(counters.bt_singles, 900, 1100);
        assert_in_range(counters.bt_emulated, 0, 20);
        assert_in_range(counters.bt_translations, 3, 20);
    }
}

static int setup(void **state) {
    static const struct cpuid_config cfg = {.tsc_hz = 1000000000};
    struct mem_hooks *h;

    vec_init();
    v = aligned_alloc(64, (sizeof(*v) + 63) & ~63ull);
    memset(v, 0, sizeof(*v));
    v->cnt = &counters;
    v->hooks = &hooks;
    v->cpuid = cpuid_model_new(&cfg);
    if (sem_init() || mem_create(RAM, &v->mem) || mmu_create(v, MMU_PCID))
        return -1;
    sigaction(SIGSEGV, NULL, &fault_action);
    ip = interp_new(v);
    h = mem_hooks(v->mem);
    h->on_write[__builtin_ctz(MEM_TRACE_CODE)] = interp_code_written;
    h->on_write_arg[__builtin_ctz(MEM_TRACE_CODE)] = ip;
    return v->cpuid && ip ? 0 : -1;
}

/* --- what stays in the cache --- */

BLOB(divisions,
     "1: xor %edx, %edx; mov $7, %eax; div %ebx; add %rax, %r13; dec %ecx; jnz 1b; hlt");
/* #DE: goes on behind the division, and counts. */
BLOB(skip_division, "addq $2, (%rsp); inc %r12; iretq");

static void run_divisions(uint64_t divisor, uint64_t count) {
    v->halted = false;
    v->rip = CODE;
    v->gpr[REG_RSP] = STACK;
    v->gpr[REG_RBX] = divisor;
    v->gpr[REG_RCX] = count;
    v->gpr[REG_R12] = v->gpr[REG_R13] = 0;
    assert_int_equal(soft_run(&soft), EXIT_halt);
}

/* A division that faults costs the host's signal a few times (once for each fragment that
 * it is in), not always; and one that has stopped to is copied again. */
static void test_division(void **state) {
    uint64_t before;

    engine("adapt");
    start();
    PLACE(divisions, CODE);
    PLACE(skip_division, HANDLER);
    before = counters.bt_leave_fault;
    run_divisions(0, 5000);
    assert_int_equal(v->gpr[REG_R12], 5000);
    assert_int_equal(v->gpr[REG_R13], 5000 * 7); /* rax stays what it was */
    assert_in_range(counters.bt_leave_fault - before, 1, 4);
    before = counters.bt_callouts;
    run_divisions(7, 20000);
    assert_int_equal(v->gpr[REG_R12], 0);
    assert_int_equal(v->gpr[REG_R13], 20000);
    assert_in_range(counters.bt_callouts - before, 4000, 12000);
    before = counters.bt_callouts;
    run_divisions(7, 20000);
    assert_in_range(counters.bt_callouts - before, 0, 10);
    before = counters.bt_leave_fault;
    run_divisions(0, 50); /* guilty anew */
    assert_int_equal(v->gpr[REG_R12], 50);
    assert_in_range(counters.bt_leave_fault - before, 1, 4);

    engine("no-adapt");
    start();
    PLACE(divisions, CODE);
    PLACE(skip_division, HANDLER);
    before = counters.bt_leave_fault;
    run_divisions(0, 100);
    assert_int_equal(v->gpr[REG_R12], 100);
    assert_int_equal(counters.bt_leave_fault - before, 100);
}

BLOB(popf_pushf, "push %rax; popf; pushf; pop %rcx; hlt");

/* POPF at CPL 0 with each flag alone and all together, from all clear and from all set.
 */
static void test_popf(void **state) {
    const uint64_t mask = X86_FL_STATUS | X86_FL_IF | X86_FL_DF | X86_FL_IOPL |
                          X86_FL_NT | X86_FL_AC | X86_FL_ID;
    static const char *const options[] = {"chain", "no-stay", "no-liveness", "tu=1"};

    for (size_t o = 0; o < ARRAY_SIZE(options); o++) {
        engine(options[o]);
        for (unsigned bit = 0; bit < 23; bit++) {
            for (int all = 0; all < 2; all++) {
                uint64_t value = bit < 22 ? 1ull << bit : ~0ull;

                start();
                PLACE(popf_pushf, CODE);
                v->rflags = all ? mask | X86_FL_ONE : X86_FL_ONE;
                v->gpr[REG_RAX] = value & ~(uint64_t)X86_FL_TF;
                assert_int_equal(soft_run(&soft), EXIT_halt);
                assert_int_equal(v->gpr[REG_RCX], (value & mask) | X86_FL_ONE);
                assert_int_equal(v->rflags, (value & mask) | X86_FL_ONE);
            }
        }
    }
}

BLOB(read_crs, "mov %cr0, %rax; mov %cr2, %rbx; mov %cr3, %rcx; mov %cr4, %r14; hlt");

static void test_control_registers(void **state) {
    engine("chain");
    start();
    PLACE(read_crs, CODE);
    v->cr2 = 0x123456789abcdef0;
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_int_equal(v->gpr[REG_RAX], v->cr0);
    assert_int_equal(v->gpr[REG_RBX], 0x123456789abcdef0);
    assert_int_equal(v->gpr[REG_RCX], PML4);
    assert_int_equal(v->gpr[REG_R14], v->cr4);
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

    engine("liveness");
    for (size_t k = 0; k < ARRAY_SIZE(cases); k++) {
        start();
        poke(CODE, cases[k].begin, (unsigned)(cases[k].end - cases[k].begin));
        PLACE(take_frame, HANDLER);
        poke64(IDT + 16 * X86_PF, (HANDLER & 0xffff) | 8ull << 16 | 0x8e01ull << 32);
        poke64(0x8000 + 0x24, STACK);
        v->tr = (struct segment){.sel = 0x18, .ar = 0x8b, .limit = 103, .base = 0x8000};
        assert_int_equal(soft_run(&soft), EXIT_halt);
        assert_int_equal(v->cr2 & ~7ull, k ? 0x80000008 : 0x80000000);
        assert_int_equal(v->gpr[REG_R15] & X86_FL_STATUS, cases[k].flags);
    }
}

/* Traps and returns in a row: with the switch on, the dispatcher sees next to none. */
BLOB(traps, "1: int3; dec %ecx; jnz 1b; hlt");
BLOB(trap_return, "inc %r12; iretq");

static void test_stay(void **state) {
    for (int on = 0; on < 2; on++) {
        uint64_t before;

        engine(on ? "stay" : "no-stay");
        start();
        PLACE(traps, CODE);
        PLACE(trap_return, HANDLER);
        v->gpr[REG_RCX] = 1000;
        v->gpr[REG_R12] = 0;
        before = counters.bt_entries;
        assert_int_equal(soft_run(&soft), EXIT_halt);
        assert_int_equal(v->gpr[REG_R12], 1000);
        if (on)
            assert_in_range(counters.bt_entries - before, 1, 50);
        else
            assert_in_range(counters.bt_entries - before, 2000, 3000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kicks),
        cmocka_unit_test(test_kicked_sum),
        cmocka_unit_test(test_flush),
        cmocka_unit_test(test_eviction),
        cmocka_unit_test(test_alias),
        cmocka_unit_test(test_crossing),
        cmocka_unit_test(test_remapped),
        cmocka_unit_test(test_large_page),
        cmocka_unit_test(test_own),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_stack_pointer),
        cmocka_unit_test(test_loop_flags),
        cmocka_unit_test(test_offset_wraps),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_traced),
        cmocka_unit_test(test_device),
        cmocka_unit_test(test_page_crossing),
        cmocka_unit_test(test_trial),
        cmocka_unit_test(test_singles),
        cmocka_unit_test(test_two_fragments),
        cmocka_unit_test(test_verdict_on_other_code),
        cmocka_unit_test(test_division),
        cmocka_unit_test(test_popf),
        cmocka_unit_test(test_control_registers),
        cmocka_unit_test(test_stay),
        cmocka_unit_test(test_dead_flags),
        cmocka_unit_test(test_much_memory),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
