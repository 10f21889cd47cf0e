/*
 * Ways into the kernel and back: system calls from CPL 3, and exceptions that code at CPL
 * 3 raises. The clock runs at CPL 3, around a loop of nothing else. The handlers (trap.S)
 * are as short as they can be, so that the figure is the way and not the work.
 */
#include "frob.h"

static uint64_t user_cycles;

static bool check_faults(uint64_t ops) {
    return fault_count == (ulong)ops;
}

/* --- syscall: SYSCALL and SYSRET in 64 bits, SYSENTER and SYSEXIT in 32 --- */

static void user_syscalls(ulong rounds) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--) {
#if FROB_BITS == 64
        __asm__ volatile(".rept 16\nsyscall\n.endr" ::: "rcx", "r11", "memory");
#else
        __asm__ volatile(
            ".rept 16\nmov $1f, %%edx\nmov %%esp, %%ecx\nsysenter\n1:\n.endr" ::
                : "ecx", "edx", "memory", "cc");
#endif
    }
    user_cycles = rdtsc() - start;
}

static bool prepare_syscall(void) {
#if FROB_BITS == 64
    /* SYSCALL: CS = STAR[47:32], SS = that + 8. SYSRET: CS = STAR[63:48] + 16, SS = + 8.
     */
    wrmsr(X86_MSR_STAR, (uint64_t)(KERNEL_CS | (uint64_t)((USER_DS - 8) | 3) << 16)
                            << 32);
    wrmsr(X86_MSR_LSTAR, (ulong)on_syscall);
    wrmsr(X86_MSR_SFMASK, X86_FL_IF | X86_FL_TF);
#else
    if (!cpu_has(1, REG_EDX, 11))
        return false;
    wrmsr(X86_MSR_SYSENTER_CS, KERNEL_CS);
    wrmsr(X86_MSR_SYSENTER_ESP, (ulong)trap_stack + TRAP_STACK_SIZE);
    wrmsr(X86_MSR_SYSENTER_EIP, (ulong)on_syscall);
#endif
    return true;
}

static uint64_t run_syscall(ulong rounds) {
    user_call(user_syscalls, rounds);
    return user_cycles;
}

/* --- int 0x80 --- */

static void user_int80s(ulong rounds) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--)
        __asm__ volatile(".rept 16\nint $0x80\n.endr" ::: "memory");
    user_cycles = rdtsc() - start;
}

static bool prepare_int80(void) {
    idt_set(0x80, on_int80, 3);
    return true;
}

static uint64_t run_int80(ulong rounds) {
    user_call(user_int80s, rounds);
    return user_cycles;
}

static void finish_int80(void) {
    idt_set(0x80, NULL, 0);
}

/* --- pgfault: a load from a page that the guest's own tables do not map --- */

#if FROB_BITS == 64
#define RESUME "lea 1f(%%rip), %%rbx\n"
#define CLOBBER_RESUME "rbx"
#else
#define RESUME "mov $1f, %%ebx\n"
#define CLOBBER_RESUME "ebx"
#endif

static void user_faults(ulong rounds) {
    const ulong at = WINDOW + 0x5000;
    uint64_t start = rdtsc();

    for (; rounds; rounds--)
        __asm__ volatile(".rept 4\n" RESUME "movl (%0), %%eax\n1:\n.endr" ::"r"(at)
                         : "eax", CLOBBER_RESUME, "memory");
    user_cycles = rdtsc() - start;
}

static struct space fault_space;

static bool prepare_pgfault(void) {
    if (!fault_space.root)
        space_new(&fault_space);
    space_use(&fault_space);
    idt_set(X86_PF, on_page_fault, 0);
    return true;
}

static uint64_t run_pgfault(ulong rounds) {
    user_call(user_faults, rounds);
    return user_cycles;
}

static bool check_pgfault(uint64_t ops) {
    return check_faults(ops) && fault_error == X86_PF_U && read_cr2() == WINDOW + 0x5000;
}

static void finish_pgfault(void) {
    idt_set(X86_PF, NULL, 0);
    space_leave();
}

/* --- divzero --- */

static void user_divides(ulong rounds) {
    uint64_t start = rdtsc();

    for (; rounds; rounds--)
        __asm__ volatile(".rept 4\n" RESUME "divl %0\n1:\n.endr" ::"r"(0)
                         : "eax", "edx", CLOBBER_RESUME, "memory", "cc");
    user_cycles = rdtsc() - start;
}

static bool prepare_divzero(void) {
    idt_set(X86_DE, on_divide_error, 0);
    return true;
}

static uint64_t run_divzero(ulong rounds) {
    user_call(user_divides, rounds);
    return user_cycles;
}

static void finish_divzero(void) {
    idt_set(X86_DE, NULL, 0);
}

const struct bench trap_benches[] = {
    {.name = "syscall",
     .per_round = 16,
     .prepare = prepare_syscall,
     .run = run_syscall,
     .check = check_faults},
    {.name = "int80",
     .per_round = 16,
     .prepare = prepare_int80,
     .run = run_int80,
     .check = check_faults,
     .finish = finish_int80},
    {.name = "pgfault",
     .per_round = 4,
     .prepare = prepare_pgfault,
     .run = run_pgfault,
     .check = check_pgfault,
     .finish = finish_pgfault},
    {.name = "divzero",
     .per_round = 4,
     .prepare = prepare_divzero,
     .run = run_divzero,
     .check = check_faults,
     .finish = finish_divzero},
    {0},
};
