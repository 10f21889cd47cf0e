/*
 * What this host's CPU takes for the same instructions, run by this process in user mode.
 * Only those benchmarks whose every instruction may run there are measured: a signal is
 * not a page fault's price, nor a call of the host's kernel that of an empty one. POPF
 * cannot move IF in user mode; it is the same instruction all the same.
 */
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/os.h"
#include "compare/compare.h"

#define SAMPLES 21
#define ROW(text) ".rept 16\n" text "\n.endr"

static void do_rdtsc(unsigned rounds, uint8_t *code) {
    for (; rounds; rounds--)
        __asm__ volatile(ROW("rdtsc")::: "eax", "edx", "memory");
}

/* Pushes go past the red zone. */
static void do_callret(unsigned rounds, uint8_t *code) {
    for (; rounds; rounds--)
        __asm__ volatile(
            "lea -128(%%rsp), %%rsp\n" ROW(
                "call 1f") "\njmp 2f\n.balign 64\n1: ret\n2: lea 128(%%rsp), %%rsp" ::
                : "memory");
}

static void do_icall(unsigned rounds, uint8_t *code) {
    for (; rounds; rounds--)
        __asm__ volatile(
            "lea -128(%%rsp), %%rsp\nlea 1f(%%rip), %%rax\n"
            "lea 2f(%%rip), %%rcx\nlea 3f(%%rip), %%rdx\nlea 4f(%%rip), %%rsi\n"
            ".rept 4\ncall *%%rax\ncall *%%rcx\ncall *%%rdx\ncall *%%rsi\n"
            ".endr\njmp 5f\n.balign 64\n1: ret\n.balign 64\n2: ret\n"
            ".balign 64\n3: ret\n.balign 64\n4: ret\n"
            "5: lea 128(%%rsp), %%rsp" ::
                : "rax", "rcx", "rdx", "rsi", "memory");
}

static void do_popf(unsigned rounds, uint8_t *code) {
    for (; rounds; rounds--)
        __asm__ volatile("lea -128(%%rsp), %%rsp\n.rept 8\npush %0\npopf\npush %1\npopf\n"
                         ".endr\nlea 128(%%rsp), %%rsp" ::"r"(0x202ul),
                         "r"(0x2ul)
                         : "memory", "cc");
}

static void do_cpuid(unsigned rounds, uint8_t *code) {
    for (; rounds; rounds--)
        __asm__ volatile("cpuid" ::"a"(0) : "ebx", "ecx", "edx", "memory");
}

static _Alignas(4096) const uint8_t copy_from[4096];
static _Alignas(4096) uint8_t copy_to[4096];

static void do_movs(unsigned rounds, uint8_t *code) {
    for (; rounds; rounds--) {
        const void *from = copy_from;
        void *to = copy_to;
        unsigned long count = 512;

        __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count)::"memory");
    }
}

static void do_smc(unsigned rounds, uint8_t *code) {
    for (; rounds; rounds--) {
        uint32_t got;

        *(volatile unaligned_u32 *)(code + 1) = rounds;
        __asm__ volatile("call *%1" : "=a"(got) : "r"(code) : "memory");
        if (got != rounds)
            abort();
    }
}

static const struct {
    const char *name;
    unsigned per_round;
    void (*run)(unsigned rounds, uint8_t *code);
} loops[] = {
    {"rdtsc", 16, do_rdtsc}, {"callret", 16, do_callret}, {"icall", 16, do_icall},
    {"popf", 16, do_popf},   {"cpuid", 1, do_cpuid},      {"movs4k", 1, do_movs},
    {"smc", 1, do_smc},
};

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double time_run(void (*run)(unsigned, uint8_t *), unsigned rounds, uint8_t *code) {
    uint64_t start = os_tsc();

    run(rounds, code);
    return (double)(os_tsc() - start);
}

/* CODE is a page with `mov $imm32, %eax; ret` that may be written and run. */
static void measure(struct compare_figure *f, unsigned n, double target, uint8_t *code) {
    double sample[SAMPLES];
    unsigned rounds = 1;

    while (time_run(loops[n].run, rounds, code) < target && rounds < 1u << 24)
        rounds *= 2;
    for (unsigned k = 0; k < SAMPLES; k++)
        sample[k] = time_run(loops[n].run, rounds, code) / rounds / loops[n].per_round;
    qsort(sample, SAMPLES, sizeof(sample[0]), by_value);
    *f = (struct compare_figure){.state = FIGURE_OK,
                                 .min = sample[0],
                                 .median = sample[SAMPLES / 2],
                                 .max = sample[SAMPLES - 1],
                                 .samples = SAMPLES};
}

void compare_native(struct compare_report *r, bool brief) {
    static const uint8_t function[] = {0xb8, 0, 0, 0, 0, 0xc3};
    uint32_t eax, ebx, ecx, edx;
    uint8_t *code;

    __cpuid(1, eax, ebx, ecx, edx);
    r->host_is_virtual = ecx >> 31;
    /* The host may forbid a page that can be both written and run. */
    code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED)
        code = NULL;
    else
        memcpy(code, function, sizeof(function));
    for (unsigned n = 0; n < ARRAY_SIZE(loops); n++)
        if (loops[n].run != do_smc || code)
            measure(&r->native[compare_index(loops[n].name)], n, brief ? 20000 : 300000,
                    code);
    if (code)
        munmap(code, 4096);
}
