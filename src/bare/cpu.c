/*
 * What each CPU has of its own (struct bare_cpu). Thread-local variables are below %fs,
 * which has its own address at its base: System V ABI, AMD64 supplement; "ELF Handling
 * For Thread-Local Storage", variant II. A guest's FS is there only while GIF is clear.
 */
#include <string.h>

#include "bare/bare_int.h"
#include "base/bug.h"
#include "x86/cr.h"
#include "x86/msr.h"

_Thread_local struct bare_cpu *bare_self;

static struct bare_cpu first, *cpu[BARE_CPUS] = {&first};
static unsigned count = 1;

unsigned bare_cpus(void) {
    return __atomic_load_n(&count, __ATOMIC_ACQUIRE);
}

unsigned bare_cpu_number(void) {
    return bare_self->number;
}

struct bare_cpu *bare_cpu_first(void) {
    return &first;
}

struct bare_cpu *bare_cpu(unsigned n) {
    return cpu[n];
}

void bare_cpu_add(struct bare_cpu *c) {
    cpu[c->number] = c;
    __atomic_store_n(&count, c->number + 1, __ATOMIC_RELEASE);
}

void bare_cpu_is(struct bare_cpu *c) {
    size_t size = (uintptr_t)bare_tls_size;
    uint64_t base = (uintptr_t)c->tls + size;

    memcpy(c->tls, bare_tls, (uintptr_t)bare_tls_data);
    *(uint64_t *)base = base;
    bare_wrmsr(X86_MSR_FS_BASE, base);
    bare_self = c;
    BUG_ON(size + sizeof(base) > sizeof(c->tls));
}

/* What the rooms above take from the host: XSAVE, and the base registers. */
void bare_features(void) {
    uint32_t r[4];
    uint64_t cr4;

    bare_cpuid(1, r);
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    cr4 |= X86_CR4_PGE;
    if (r[2] >> 26 & 1) {
        uint32_t x[4];

        __asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | X86_CR4_OSXSAVE));
        bare_cpuid(0xd, x);
        x[0] &= X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX | X86_XCR0_AVX512;
        if ((x[0] & X86_XCR0_AVX512) != X86_XCR0_AVX512)
            x[0] &= ~X86_XCR0_AVX512;
        __asm__ volatile("xsetbv" : : "c"(0), "a"(x[0]), "d"(0));
        return;
    }
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4));
}
