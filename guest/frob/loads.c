/*
 * Three loads for the retention policies of a shadow MMU (`bivisor compare --shadow`):
 * each leans on one corner of the trade-off between trace overhead, hidden faults and the
 * cost of a context switch. They run only when they are asked for by name.
 *
 *   load_switch   8 processes take turns; each touches 16 pages of its own in a turn, at
 *                 CPL 3, and gives way by an interrupt that loads CR3
 *   load_fault    a process that touches memory for the first time: fault, map, touch
 *   load_pt       a page table that is rewritten in place, 64 entries at a time, each
 *                 invalidated and a few of the pages touched
 *
 * With PCIDs, where the CPU has them, as an operating system uses them.
 */
#include "frob.h"

#define PROCESSES 8
#define WORKING_SET 16
#define REWRITE 64
#define SWITCH_VECTOR 0x82

static struct space process[PROCESSES];
static ulong *pool; /* WORKING_SET pages for each process */
static ulong noflush;
static ulong wrong;

static ulong *pool_page(unsigned p, unsigned n) {
    return pool + ((ulong)(p * WORKING_SET + n) << X86_PAGE_SHIFT) / sizeof(ulong);
}

static ulong root_of(unsigned p) {
    return process[p].root | (noflush ? (p + 1) | noflush : 0);
}

static void use_process(unsigned p) {
    write_cr3(root_of(p));
}

static bool prepare_processes(void) {
    wrong = 0;
    if (!pool) {
        pool = page_alloc(PROCESSES * WORKING_SET);
        for (unsigned p = 0; p < PROCESSES; p++)
            space_new(&process[p]);
    }
    for (unsigned p = 0; p < PROCESSES; p++)
        for (unsigned n = 0; n < WORKING_SET; n++) {
            *pool_page(p, n) = p * WORKING_SET + n;
            space_map(&process[p], n, pool_page(p, n), PTE_RWU);
        }
#if FROB_BITS == 64
    if (cpu_has(1, REG_ECX, 17)) {
        space_leave(); /* PCIDE is set with PCID 0 only */
        write_cr4(read_cr4() | X86_CR4_PCIDE);
        noflush = X86_CR3_NOFLUSH;
    }
#endif
    return true;
}

static void finish_processes(void) {
    space_leave();
#if FROB_BITS == 64
    write_cr4(read_cr4() & ~(ulong)X86_CR4_PCIDE);
    noflush = 0;
#endif
}

static bool check_processes(uint64_t ops) {
    return !wrong;
}

static uint64_t switch_cycles;

static void user_switches(ulong rounds) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--) {
        for (unsigned p = 0; p < PROCESSES; p++) {
            next_root = root_of(p);
            __asm__ volatile("int %0" ::"i"(SWITCH_VECTOR) : "memory");
            for (unsigned n = 0; n < WORKING_SET; n++)
                wrong += *window(n) != p * WORKING_SET + n;
        }
    }
    switch_cycles = rdtsc() - start;
}

static uint64_t run_switch(ulong rounds) {
    idt_set(SWITCH_VECTOR, on_switch, 3);
    user_call(user_switches, rounds);
    idt_set(SWITCH_VECTOR, NULL, 0);
    return switch_cycles;
}

/* --- load_fault: the kernel's part is done here, by hand, at the resume address --- */

static bool prepare_fault(void) {
    prepare_processes();
    idt_set(X86_PF, on_page_fault, 0);
    use_process(0);
    return true;
}

/* Reads a word; a fault leaves the result at -1. */
static ulong try_load(const volatile ulong *at) {
    ulong v;

#if FROB_BITS == 64
    __asm__ volatile("mov $-1, %0\nlea 1f(%%rip), %%rbx\nmov (%1), %0\n1:"
                     : "=&r"(v)
                     : "r"(at)
                     : "rbx", "memory");
#else
    __asm__ volatile("mov $-1, %0\nmov $1f, %%ebx\nmov (%1), %0\n1:"
                     : "=&r"(v)
                     : "r"(at)
                     : "ebx", "memory");
#endif
    return v;
}

static uint64_t run_fault(ulong rounds) {
    struct space *s = &process[0];
    uint64_t start = rdtsc();

    for (; rounds; rounds--) {
        for (unsigned n = 64; n < 64 + REWRITE; n++) {
            if (try_load(window(n)) != ~0ul)
                wrong++;
            space_map(s, n, pool_page(0, n % WORKING_SET), PTE_RWU);
            wrong += *window(n) != n % WORKING_SET;
        }
        for (unsigned n = 64; n < 64 + REWRITE; n++) {
            s->ptes[n] = 0;
            invlpg(window(n));
        }
    }
    return rdtsc() - start;
}

static bool check_fault(uint64_t ops) {
    return !wrong && fault_count == (ulong)ops;
}

static void finish_fault(void) {
    idt_set(X86_PF, NULL, 0);
    finish_processes();
}

static bool prepare_pt(void) {
    prepare_processes();
    use_process(0);
    return true;
}

static uint64_t run_pt(ulong rounds) {
    struct space *s = &process[0];
    uint64_t start = rdtsc();

    for (; rounds; rounds--) {
        for (unsigned n = 0; n < REWRITE; n++) {
            unsigned to = (unsigned)(n + rounds) % WORKING_SET;

            space_map(s, 128 + n, pool_page(0, to), PTE_RWU);
            invlpg(window(128 + n));
            if (n % 4 == 0)
                wrong += *window(128 + n) != to;
        }
    }
    return rdtsc() - start;
}

const struct bench load_benches[] = {
    {.name = "load_switch",
     .per_round = PROCESSES,
     .prepare = prepare_processes,
     .run = run_switch,
     .check = check_processes,
     .finish = finish_processes,
     .load = true},
    {.name = "load_fault",
     .per_round = REWRITE,
     .prepare = prepare_fault,
     .run = run_fault,
     .check = check_fault,
     .finish = finish_fault,
     .load = true},
    {.name = "load_pt",
     .per_round = REWRITE,
     .prepare = prepare_pt,
     .run = run_pt,
     .check = check_processes,
     .finish = finish_processes,
     .load = true},
    {0},
};
