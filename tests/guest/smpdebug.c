/*
 * What tests/gdb/run looks at with a debugger: calls that are counted, variables that are
 * stored to and read, on four processors; and nothing of it may be seen here. No code has
 * bytes that it did not have, no debug register is set, each counter has the value that
 * it was counted to.
 */
#include "lib/smp.h"

const char guest_name[] = GUEST_NAME;

#define TURNS 200
#define KEPT __attribute__((noinline, used))

volatile uint32_t visits[SMP_CPUS];
volatile uint32_t bumps, reads;
volatile uint8_t area[8192] __attribute__((aligned(4096)));
volatile uint32_t stepped;

/* The first bytes of functions, as they were compiled. */
static uint32_t sums[3];

KEPT void visit(unsigned cpu, unsigned turn) {
    visits[cpu] += 1 + 0 * turn;
}

KEPT void bump(void) {
    __asm__ volatile("lock incl %0" : "+m"(bumps) : : "cc");
}

KEPT void never(void) {
    __asm__ volatile("ud2");
}

KEPT void fill(uint8_t value) {
    volatile uint8_t *to = area;
    ulong count = sizeof(area);

    __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
}

KEPT unsigned look(unsigned at) {
    return area[at];
}

/* A single step that took an interrupt would be in its handler. */
KEPT void walk(void) {
    __asm__ volatile("incl %0; incl %0; incl %0; incl %0" : "+m"(stepped) : : "cc");
}

static uint32_t sum_of(const void *code) {
    const uint8_t *p = code;
    uint32_t sum = 0;

    for (unsigned n = 0; n < 16; n++)
        sum = sum * 31 + p[n];
    return sum;
}

static void add_sums(uint32_t out[3]) {
    out[0] = sum_of((const void *)(ulong)visit);
    out[1] = sum_of((const void *)(ulong)bump);
    out[2] = sum_of((const void *)(ulong)walk);
}

static void work(unsigned cpu) {
    for (unsigned n = 0; n < TURNS; n++) {
        visit(cpu, n);
        if (n % 50 == 49)
            bump();
    }
}

static ulong debug_control(void) {
    ulong dr7;

    __asm__ volatile("mov %%dr7, %0" : "=r"(dr7));
    return dr7;
}

void guest_main(void) {
    uint32_t now[3];

    add_sums(sums);
    smp_start();
    smp_together(work);
    fill(7);
    reads = look(4100);
    walk();
    if (bumps == 0xffff)
        never();
    for (unsigned n = 0; n < SMP_CPUS; n++)
        check_eq("visits", visits[n], TURNS);
    check_eq("bumps", bumps, SMP_CPUS * TURNS / 50);
    check_eq("read", reads, 7);
    check_eq("steps", stepped, 4);
    add_sums(now);
    for (unsigned n = 0; n < 3; n++)
        check_eq("code", now[n], sums[n]);
    check_eq("DR7", debug_control(), X86_DR7_FIXED);
}
