/*
 * KVM's steal time and the flush of TLBs that rests on it: Linux,
 * Documentation/virt/kvm/x86/msr.rst, MSR_KVM_STEAL_TIME; cpuid.rst,
 * KVM_FEATURE_PV_TLB_FLUSH. A CPU that sleeps is left a bit in its record, without an
 * interrupt, and when it wakes it knows nothing of what was mapped before.
 */
#include "lib/smp.h"

const char guest_name[] = GUEST_NAME;

#define STEAL_TIME (1u << 5)
#define TLB_FLUSH (1u << 9)
#define ENABLE 1u
#define PREEMPTED 1u
#define FLUSH 2u

struct record {
    uint64_t steal;
    uint32_t version, flags;
    uint8_t preempted;
    uint8_t pad[47];
};
static volatile struct record record[SMP_CPUS] __attribute__((aligned(64)));
static uint32_t offered;

static uint64_t where(unsigned cpu) {
    return (ulong)&record[cpu];
}

static bool refused(uint64_t value) {
    regs_kernel();
    in.cx = X86_MSR_KVM_STEAL_TIME;
    in.ax = (uint32_t)value;
    in.dx = (uint32_t)(value >> 32);
    return RUN("wrmsr") == X86_GP;
}

/* --- the record --- */

static void numbers(void) {
    uint64_t last = 0;

    for (unsigned n = 1; n < 6; n++)
        check(refused(where(0) | 1u << n | ENABLE), "reserved bit %u", n);
    wrmsr(X86_MSR_KVM_STEAL_TIME, where(0) | ENABLE);
    check(rdmsr(X86_MSR_KVM_STEAL_TIME) == (where(0) | ENABLE),
          "the MSR keeps its value");
    for (unsigned n = 0; n < 200; n++) {
        uint32_t version = record[0].version;
        uint64_t steal = record[0].steal;

        check(!(version & 1), "a version of %u in the middle of nothing", version);
        check(steal >= last, "stolen time is given back");
        check_eq("preempted while it runs", record[0].preempted, 0);
        last = steal;
        for (unsigned k = 0; k < 1000; k++)
            pause();
    }
    check(record[0].version, "nothing was written");
    wrmsr(X86_MSR_KVM_STEAL_TIME, 0);
    /* Memory that is none. */
    wrmsr(X86_MSR_KVM_STEAL_TIME, 0xfffffff000ull | ENABLE);
    wrmsr(X86_MSR_KVM_STEAL_TIME, 0);
}

/* --- what sleeps is left alone --- */

#ifdef __x86_64__
#define VA 0x2800000ul /* a large page of the identity map */
#define FIRST 0x2a00000ul
#define SECOND 0x2c00000ul

static volatile uint64_t *pde_of(ulong va) {
    uint64_t *pml4 = (uint64_t *)(read_cr3() & ~0xffful);
    uint64_t *pdpt = (uint64_t *)(pml4[0] & ~0xffful);
    uint64_t *pd = (uint64_t *)(pdpt[0] & ~0xffful);

    return &pd[va >> 21];
}

static volatile unsigned turn, ready, woken, over, stale, asked, handled;
static volatile bool by_interrupt; /* CPU 1 is to flush when it is interrupted */

static void wake(void) {
    if (by_interrupt)
        invlpg(VA);
    woken = turn;
    __atomic_add_fetch(&handled, 1, __ATOMIC_SEQ_CST);
}

/* As Linux's kvm_flush_tlb_multi() does. True: CPU flushes before it goes on. */
static bool leave_flush(unsigned cpu) {
    uint8_t is = record[cpu].preempted;

    return (is & PREEMPTED) &&
           __atomic_compare_exchange_n((uint8_t *)&record[cpu].preempted, &is,
                                       (uint8_t)(is | FLUSH), false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}

/* CPU 1 reads, sleeps until it is interrupted, and reads again; CPU 0 moves the page
 * meanwhile and spoils the place where it was. Global, so that nothing but this flush
 * would take it out. */
static void sleeper(void) {
    unsigned seen = 0;

    while (!over) {
        __asm__ volatile("cli" ::: "memory");
        while (turn == seen && !over)
            pause();
        stale += *(volatile uint64_t *)VA != seen;
        ready = turn;
        while (woken == seen && !over)
            __asm__ volatile("sti\n hlt\n cli" ::: "memory");
        __asm__ volatile("sti" ::: "memory");
        if (over)
            break;
        stale += *(volatile uint64_t *)VA != seen + 1;
        seen++;
        __atomic_store_n(&asked, seen, __ATOMIC_SEQ_CST);
    }
}

/* KVM itself does not say of a CPU in HLT that it does not run (unsaid=1; since
 * Linux 5.19 only of one that the host took away between two instructions): it is
 * interrupted. */
static void mover(void) {
    bool unsaid = guest_option("unsaid", 0);
    unsigned left = 0, patience = unsaid ? 1000 : 100000000;
    unsigned rounds = unsaid ? 20 : 200;

    for (unsigned n = 0; n < rounds; n++) {
        ulong to = n & 1 ? FIRST : SECOND, from = n & 1 ? SECOND : FIRST;
        unsigned tries = 0;

        *(volatile uint64_t *)to = n + 1;
        turn = n + 1;
        while (ready != n + 1)
            pause();
        while (record[1].preempted != PREEMPTED && ++tries < patience)
            pause();
        *pde_of(VA) = to | X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_PS | X86_PTE_G;
        by_interrupt = !leave_flush(1);
        check(!by_interrupt || unsaid, "CPU 1 does not say that it sleeps");
        left += !by_interrupt;
        *(volatile uint64_t *)from = ~0ull;
        handled = 0;
        smp_interrupt_others();
        while (asked != n + 1 || handled != SMP_CPUS - 1)
            pause();
        check(!(record[1].preempted & FLUSH), "the flush is still asked for");
    }
    if (!unsaid)
        check_eq("flushes that were left", left, rounds);
    over = 1;
    smp_interrupt_others();
}

static void sleeping(unsigned cpu) {
    if (cpu == 1) {
        write_cr4(read_cr4() | X86_CR4_PGE);
        wrmsr(X86_MSR_KVM_STEAL_TIME, where(1) | ENABLE);
    }
    smp_meet();
    if (cpu == 1)
        sleeper();
    if (!cpu)
        mover();
    if (cpu == 1)
        wrmsr(X86_MSR_KVM_STEAL_TIME, 0);
}

static void flushes(void) {
    uint64_t was = *pde_of(VA);

    *(volatile uint64_t *)FIRST = 0;
    *pde_of(VA) = FIRST | X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_PS | X86_PTE_G;
    invlpg(VA);
    smp_ipi_hook = wake;
    smp_together(sleeping);
    check_eq("an old page was read after its flush", stale, 0);
    check_eq("a record that is gone", record[1].preempted, 0);
    *pde_of(VA) = was;
    invlpg(VA);
}
#endif

void guest_main(void) {
    uint32_t r[4];

    cpuid(0x40000000, 0, r);
    if (r[1] != 0x4b4d564b)
        return;
    cpuid(0x40000001, 0, r);
    offered = r[0];
    if (!(offered & STEAL_TIME)) {
        check(refused(where(0) | ENABLE), "it is there and not offered");
        return;
    }
    smp_start();
    numbers();
#ifdef __x86_64__
    if (offered & TLB_FLUSH)
        flushes();
#endif
}
