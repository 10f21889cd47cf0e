/*
 * The host as the oracle of instructions that run natively, and the guest that is
 * compared with it: one page table in RAM, all of it mapped at its own address; random
 * states.
 *
 * To be included by a test that is one file, behind the system's headers: <signal.h> of
 * _GNU_SOURCE has its own REG_RAX and so on, so that the test must not define that.
 */
#ifndef LIB_ORACLE_H
#define LIB_ORACLE_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/os.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "decode/decode.h"
#include "mmu/mmu.h"
#include "sem/sem_int.h"

#define RAM (8u << 20)
#define PT 0x4000u

/* --- the host as the oracle --- */

struct host_regs {
    uint64_t gpr[16];
    uint64_t rflags;
};

/* Loads COMPONENTS of the XSAVE image and all registers but rsp, calls CODE, stores them
 * back. */
void host_run(struct host_regs *r, const void *code, void *image, uint32_t components);
__asm__(".text\n.globl host_run\nhost_run:\n"
        "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "push %rcx\npush %rdx\npush %rdi\npush %rsi\n"
        "mov %rdx,%r8\nmov %ecx,%eax\nxor %edx,%edx\nxrstor64 (%r8)\n"
        "push 128(%rdi)\npopfq\n"
        "mov %rdi,%r15\n"
        "mov 0(%r15),%rax\nmov 8(%r15),%rcx\nmov 16(%r15),%rdx\nmov 24(%r15),%rbx\n"
        "mov 40(%r15),%rbp\nmov 48(%r15),%rsi\nmov 56(%r15),%rdi\n"
        "mov 64(%r15),%r8\nmov 72(%r15),%r9\nmov 80(%r15),%r10\nmov 88(%r15),%r11\n"
        "mov 96(%r15),%r12\nmov 104(%r15),%r13\nmov 112(%r15),%r14\n"
        "mov 120(%r15),%r15\n"
        "call *(%rsp)\n"
        "pushfq\npush %r15\nmov 24(%rsp),%r15\npop 120(%r15)\npop 128(%r15)\n"
        "mov %rax,0(%r15)\nmov %rcx,8(%r15)\nmov %rdx,16(%r15)\nmov %rbx,24(%r15)\n"
        "mov %rbp,40(%r15)\nmov %rsi,48(%r15)\nmov %rdi,56(%r15)\n"
        "mov %r8,64(%r15)\nmov %r9,72(%r15)\nmov %r10,80(%r15)\nmov %r11,88(%r15)\n"
        "mov %r12,96(%r15)\nmov %r13,104(%r15)\nmov %r14,112(%r15)\n"
        "mov 16(%rsp),%r8\nmov 24(%rsp),%eax\nxor %edx,%edx\nxsave64 (%r8)\n"
        "fninit\nmovl $0x1f80,-8(%rsp)\nldmxcsr -8(%rsp)\nvzeroupper\n"
        "pop %rsi\npop %rdi\npop %rdx\npop %rcx\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n");

static struct os_code code;
static int host_trap; /* vector of the last host fault, or -1 */
static uint64_t host_addr;
static uint32_t host_components = 7;

static bool on_host_fault(void *arg, struct os_fault *f) {
    host_trap = (int)f->trapno;
    host_addr = f->addr;
    f->regs.rip = (uint64_t)(uintptr_t)code.rx + 64; /* a ret */
    return true;
}

static int host_execute(struct host_regs *r, const uint8_t *bytes, unsigned len,
                        void *image) {
    uint32_t a = 0, b, c = 0, d;

    memcpy(code.rw, bytes, len);
    code.rw[len] = 0xc3;
    code.rw[64] = 0xc3;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
    host_trap = -1;
    host_run(r, code.rx, image, host_components);
    return host_trap;
}

/* --- the guest --- */

static struct vcpu *v;
static struct counters counters;
static struct mem *ram;
static uint8_t *guest;

static void set_pte(uint64_t at, uint64_t pte) {
    memcpy(guest + at, &pte, 8);
}

static void set_segment(unsigned s, uint16_t ar) {
    v->seg[s] = (struct segment){.sel = (uint16_t)(s * 8), .ar = ar, .limit = 0xffffffff};
}

static void set_mode(enum cpu_mode mode) {
    uint16_t type = X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED;

    for (unsigned s = 0; s < SEG_COUNT; s++)
        set_segment(s, type | X86_AR_DB | X86_AR_G);
    set_segment(SEG_CS, type | X86_AR_CODE | X86_AR_G |
                            (mode == MODE_64   ? X86_AR_L
                             : mode == MODE_32 ? X86_AR_DB
                                               : 0));
    vcpu_update_mode(v);
    mmu_mode_changed(v);
}

/* cmocka puts its own signal handlers in place for each test: ours go over them. */
static struct sigaction fault_action;

static void arm(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};

    for (size_t k = 0; k < ARRAY_SIZE(signals); k++)
        sigaction(signals[k], &fault_action, NULL);
}

static void guest_start(void) {
    struct cpuid_config cfg = {.model = "host", .tsc_hz = 1000000000};

    vec_init();
    assert_int_equal(sem_init(), 0);
    assert_int_equal(os_code_map(4096, &code), 0);
    assert_int_equal(os_fault_range(code.rx, code.rx + 64, on_host_fault, NULL), 0);
    sigaction(SIGSEGV, NULL, &fault_action);
    v = aligned_alloc(64, (sizeof(*v) + 63) & ~63ull);
    memset(v, 0, sizeof(*v));
    v->cnt = &counters;
    assert_int_equal(mem_create(RAM, &ram), 0);
    v->mem = ram;
    guest = mem_ram_base(ram);
    v->cpuid = cpuid_model_new(&cfg);
    assert_non_null(v->cpuid);
    assert_int_equal(mmu_create(v, MMU_FLUSH), 0);
    mmu_hook(v);
    vcpu_reset(v);
    set_pte(0x1000, 0x2007);
    set_pte(0x2000, 0x3007);
    set_pte(0x3000, PT | 7);
    for (unsigned k = 0; k < 512; k++)
        set_pte(PT + 8 * k, k << 12 | 7);
    v->cr3 = 0x1000;
    v->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    v->efer = X86_EFER_LME | X86_EFER_LMA;
    v->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_NE | X86_CR0_ET | X86_CR0_MP;
    v->xcr0 = vec_supported();
    set_mode(MODE_64);
}

static int teardown(void **state) {
    mmu_destroy(v);
    cpuid_model_free((struct cpuid_model *)v->cpuid);
    mem_destroy(ram);
    free(v);
    os_code_unmap(&code);
    return 0;
}

static uint64_t seed = 0x243f6a8885a308d3ull;

static uint64_t rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* Random bytes, floats of moderate size, doubles, or few bits. */
static void fill(uint8_t *p, unsigned len, unsigned pattern) {
    for (unsigned k = 0; k + 8 <= len; k += 8) {
        uint64_t x = rnd();
        double d = (double)(int64_t)(x >> 40) / 16 - 300000;
        float f[2] = {(float)(int)(x & 0xffff) / 8 - 3000, (float)(int)(x >> 48)};

        if (pattern == 1)
            memcpy(&x, &d, 8);
        else if (pattern == 2)
            memcpy(&x, f, 8);
        else if (pattern == 3)
            x &= rnd() & rnd() & 0x8001800180018001ull;
        memcpy(p + k, &x, 8);
    }
}

#endif
