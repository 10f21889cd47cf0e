/* Single instructions at CPL 0, in rows of 16 so that the loop around them does not
 * count. */
#include "frob.h"

#define ROW(text) ".rept 16\n" text "\n.endr"

/* --- in: what a guest does most with a device; port 0x80 has none behind it --- */

static uint64_t run_in(ulong rounds) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--)
        __asm__ volatile(ROW("inb $0x80, %%al")::: "eax", "memory");
    return rdtsc() - start;
}

/* The port keeps what was written or floats; either way it says the same twice. */
static bool check_in(uint64_t ops) {
    return inb(0x80) == inb(0x80);
}

/* --- cr8wr --- */

#if FROB_BITS == 64
static ulong read_cr8(void) {
    ulong v;

    __asm__ volatile("mov %%cr8, %0" : "=r"(v));
    return v;
}

static uint64_t run_cr8(ulong rounds) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--)
        __asm__ volatile(".rept 8\nmov %0, %%cr8\nmov %1, %%cr8\n.endr" ::"r"(0ul),
                         "r"(5ul)
                         : "memory");
    return rdtsc() - start;
}

static bool check_cr8(uint64_t ops) {
    return read_cr8() == 5;
}

static void finish_cr8(void) {
    __asm__ volatile("mov %0, %%cr8" ::"r"(0ul) : "memory");
}
#endif

/* --- callret, icall --- */

__asm__(".text\n.balign 64\ncallee0: ret\n.balign 64\ncallee1: ret\n.balign 64\n"
        "callee2: ret\n.balign 64\ncallee3: ret\n");
void callee0(void);
void callee1(void);
void callee2(void);
void callee3(void);

static uint64_t run_callret(ulong rounds) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--)
        __asm__ volatile(ROW("call callee0")::: "memory");
    return rdtsc() - start;
}

static uint64_t run_icall(ulong rounds) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--)
        __asm__ volatile(
            ".rept 4\ncall *%0\ncall *%1\ncall *%2\ncall *%3\n.endr" ::"r"(callee0),
            "r"(callee1), "r"(callee2), "r"(callee3)
            : "memory");
    return rdtsc() - start;
}

/* A call that did not come back would not get here. */
static bool check_nothing(uint64_t ops) {
    return true;
}

/* --- rdtsc --- */

static uint64_t run_rdtsc(ulong rounds) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--)
        __asm__ volatile(ROW("rdtsc")::: "eax", "edx", "memory");
    return rdtsc() - start;
}

static bool check_rdtsc(uint64_t ops) {
    uint64_t a = rdtsc(), b = rdtsc();

    return b > a;
}

/* --- cli_sti: the pair --- */

static uint64_t run_cli_sti(ulong rounds) {
    uint64_t start, t;

    sti();
    start = rdtsc();
    for (; rounds; rounds--)
        __asm__ volatile(ROW("cli\nsti")::: "memory");
    t = rdtsc() - start;
    cli();
    return t;
}

static bool check_cli_sti(uint64_t ops) {
    bool off, on;

    cli();
    off = !(read_flags() & X86_FL_IF);
    sti();
    on = read_flags() & X86_FL_IF;
    cli();
    return on && off;
}

/* --- popf: a push and a POPF, which sets IF every other time --- */

static uint64_t run_popf(ulong rounds) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--)
        __asm__ volatile(".rept 8\npush %0\npopf\npush %1\npopf\n.endr" ::"r"(
                             (ulong)(X86_FL_ONE | X86_FL_IF)),
                         "r"((ulong)X86_FL_ONE)
                         : "memory", "cc");
    return rdtsc() - start;
}

static bool check_popf(uint64_t ops) {
    ulong on, off;

    __asm__ volatile("push %2\npopf\npushf\npop %0\npush %3\npopf\npushf\npop %1"
                     : "=&r"(on), "=&r"(off)
                     : "r"((ulong)(X86_FL_ONE | X86_FL_IF)), "r"((ulong)X86_FL_ONE)
                     : "memory", "cc");
    return (on & X86_FL_IF) && !(off & X86_FL_IF);
}

/* --- cpuid --- */

static uint32_t cpuid_wanted, cpuid_got;

static bool prepare_cpuid(void) {
    uint32_t r[4];

    cpuid(0, 0, r);
    cpuid_wanted = r[REG_EBX];
    return true;
}

static uint64_t run_cpuid(ulong rounds) {
    uint32_t r[4] = {0};
    uint64_t start = rdtsc();

    for (; rounds; rounds--)
        cpuid(0, 0, r);
    start = rdtsc() - start;
    cpuid_got = r[REG_EBX];
    return start;
}

static bool check_cpuid(uint64_t ops) {
    return cpuid_got == cpuid_wanted;
}

const struct bench cpu_benches[] = {
    {.name = "in", .per_round = 16, .run = run_in, .check = check_in},
#if FROB_BITS == 64
    {.name = "cr8wr",
     .per_round = 16,
     .run = run_cr8,
     .check = check_cr8,
     .finish = finish_cr8},
#endif
    {.name = "callret", .per_round = 16, .run = run_callret, .check = check_nothing},
    {.name = "icall", .per_round = 16, .run = run_icall, .check = check_nothing},
    {.name = "rdtsc", .per_round = 16, .run = run_rdtsc, .check = check_rdtsc},
    {.name = "cli_sti", .per_round = 16, .run = run_cli_sti, .check = check_cli_sti},
    {.name = "popf", .per_round = 16, .run = run_popf, .check = check_popf},
    {.name = "cpuid",
     .per_round = 1,
     .prepare = prepare_cpuid,
     .run = run_cpuid,
     .check = check_cpuid},
    {0},
};
