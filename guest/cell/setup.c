/*
 * A cell: a process in whose addresses guest user code runs on the host's CPU as it is.
 * It is started with the descriptors of direct/abi.h, the number of its slot, a t if
 * RDTSC is to fault, and a c if CPUID is. This file sets it up; then loops.S is all that
 * is left of it.
 *
 * The guest thread is the process's first. Its filter lets it tell and wait, each from
 * one instruction of this program. All else that it asks of the kernel is a signal, and
 * so the VMM's business: what the guest's system calls are, too. It can hold no signal
 * back.
 *
 * The helper thread maps and unmaps as ORDERS says, which the guest thread cannot write.
 */
#include <asm/fcntl.h>
#include <asm/prctl.h>
#include <asm/unistd.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/signal.h>
#include <stddef.h>

#include "direct/abi.h"

extern const char cell_handler[], cell_told[], cell_asked[];
_Noreturn void cell_tell(void);
_Noreturn void cell_help(long process);
_Noreturn void setup(const long *stack);

static long call6(long n, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;

    __asm__ volatile("syscall"
                     : "+a"(n)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return n;
}

static long call3(long n, long a, long b, long c) {
    return call6(n, a, b, c, 0, 0, 0);
}

static _Noreturn void die(int step) {
    for (;;)
        call3(__NR_exit_group, step, 0, 0);
}

/* STEP is the exit status that tells where it failed. */
static void must(int step, long rc) {
    if (rc < 0 && rc > -4096)
        die(step);
}

/* --- filters --- */

#define LOAD(what) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (what))
#define IS(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(value), yes, no)
#define BELOW(value, yes, no)                                                            \
    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (unsigned)(value), no, yes)
#define GIVE(what) BPF_STMT(BPF_RET | BPF_K, (what))
#define AT(field) offsetof(struct seccomp_data, field)
#define ARG(n) (AT(args) + 8 * (n))
#define LOW(v) ((long)(v)&0xffffffff)
#define HIGH(v) ((long)(v) >> 32)

static void filter(int step, const struct sock_filter *f, unsigned short len) {
    struct sock_fprog prog = {.len = len, .filter = (struct sock_filter *)f};

    must(step,
         call6(__NR_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, (long)&prog, 0, 0, 0));
}

#define FILTER(step, f) filter(step, f, sizeof(f) / sizeof((f)[0]))

/* Eight bytes to OUT from cell_told, eight from GO to cell_asked; the kernel says where
 * the instruction ends. */
static void filter_guest(void) {
    const struct sock_filter f[] = {
        LOAD(AT(arch)),
        IS(AUDIT_ARCH_X86_64, 0, 17),
        LOAD(AT(instruction_pointer) + 4),
        IS(HIGH(CELL_BASE), 0, 15),
        LOAD(ARG(2)),
        IS(8, 0, 13),
        LOAD(ARG(2) + 4),
        IS(0, 0, 11),
        LOAD(AT(instruction_pointer)),
        IS(LOW(cell_told), 0, 4),
        LOAD(AT(nr)),
        IS(__NR_write, 0, 7),
        LOAD(ARG(0)),
        IS(CELL_FD_OUT, 6, 5),
        IS(LOW(cell_asked), 0, 4),
        LOAD(AT(nr)),
        IS(__NR_read, 0, 2),
        LOAD(ARG(0)),
        IS(CELL_FD_GO, 1, 0),
        GIVE(SECCOMP_RET_TRAP),
        GIVE(SECCOMP_RET_ALLOW),
    };

    FILTER(13, f);
}

/* It has registers only, and what they hold came from ORDERS: this is the second line. Of
 * processes it may signal and move its own, PROCESS, alone (0 is itself). */
static void filter_helper(long process) {
    const struct sock_filter f[] = {
        LOAD(AT(arch)),
        IS(AUDIT_ARCH_X86_64, 0, 16),
        LOAD(AT(instruction_pointer) + 4),
        IS(HIGH(CELL_BASE), 0, 14),
        LOAD(AT(instruction_pointer)),
        BELOW(LOW(CELL_BASE) + CELL_TEXT_SIZE, 0, 12),
        LOAD(AT(nr)),
        IS(__NR_mmap, 9, 0),
        IS(__NR_munmap, 8, 0),
        IS(__NR_mprotect, 7, 0),
        IS(__NR_futex, 6, 0),
        IS(__NR_write, 5, 0),
        IS(__NR_tgkill, 1, 0),
        IS(__NR_sched_setaffinity, 0, 4),
        LOAD(ARG(0)),
        IS(process, 1, 0),
        IS(0, 0, 1),
        GIVE(SECCOMP_RET_ALLOW),
        GIVE(SECCOMP_RET_KILL_PROCESS),
    };

    FILTER(6, f);
}

/* --- the parts --- */

static void map_slot(long slot) {
    long at = slot * CELL_SLOT;

    must(1, call6(__NR_mmap, CELL_ORDERS, CELL_ORDERS_SIZE, PROT_READ,
                  MAP_SHARED | MAP_FIXED, CELL_FD_SLOTS, at));
    must(19, call6(__NR_mmap, CELL_ORDERS + CELL_ORDERS_SIZE, CELL_ZEROS_SIZE, PROT_READ,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    at += CELL_ORDERS_SIZE;
    must(2, call6(__NR_mmap, CELL_STATE, CELL_STATE_SIZE, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_FIXED, CELL_FD_SLOTS, at));
    at += CELL_STATE_SIZE;
    must(3, call6(__NR_mmap, CELL_STACK, CELL_STACK_SIZE, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_FIXED | MAP_POPULATE, CELL_FD_SLOTS, at));
}

#define SA_NODEFER_ 0x40000000
#define SA_RESTORER_ 0x04000000

/* Every signal comes out, and none holds others back. Nobody returns from the handler. */
static void take_signals(void) {
    struct {
        const void *handler;
        unsigned long flags;
        const void *restorer;
        unsigned long mask;
    } sa = {cell_handler, SA_RESTORER_ | SA_NODEFER_ | SA_SIGINFO | SA_ONSTACK, NULL, 0};
    struct {
        unsigned long sp;
        int flags;
        unsigned long size;
    } stack = {CELL_STACK, 0, CELL_STACK_SIZE};

    must(4, call3(__NR_sigaltstack, (long)&stack, 0, 0));
    for (int signo = 1; signo <= 31; signo++)
        if (signo != 9 && signo != 19)
            must(5, call6(__NR_rt_sigaction, signo, (long)&sa, 0, 8, 0, 0));
}

/* What arrives at KICK is a signal for the guest thread: for who kicks it while it runs,
 * that is soon, whereas the helper would have to get the CPU first. */
static void take_kicks(long thread) {
    const struct f_owner_ex owner = {F_OWNER_TID, (int)thread};

    must(16, call3(__NR_fcntl, CELL_FD_KICK, F_SETOWN_EX, (long)&owner));
    must(17, call3(__NR_fcntl, CELL_FD_KICK, F_SETSIG, SIGUSR1));
    must(18, call3(__NR_fcntl, CELL_FD_KICK, F_SETFL, O_NONBLOCK | FASYNC));
}

static _Noreturn void help(long process) {
    call3(__NR_close, CELL_FD_SLOTS, 0, 0);
    filter_helper(process);
    cell_help(process);
}

/* The new thread begins with help(PROCESS) below STACK, with descriptors of its own. */
static void start_helper(long *stack, long process) {
    long rc = __NR_clone;

    *--stack = process;
    *--stack = (long)help;
    __asm__ volatile(
        "syscall\n\t"
        "test %%rax, %%rax\n\t"
        "jnz 1f\n\t"
        "pop %%rax\n\t"
        "pop %%rdi\n\t"
        "call *%%rax\n"
        "1:"
        : "+a"(rc)
        : "D"(CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_FS | CLONE_SYSVSEM),
          "S"(stack), "d"(0)
        : "rcx", "r11", "memory");
    must(7, rc);
}

static void keep_two(void) {
    must(11, call3(__NR_close_range, 0, CELL_FD_OUT - 1, 0));
    must(12, call3(__NR_close_range, CELL_FD_GO + 1, ~0u, 0));
}

_Noreturn void setup(const long *stack) {
    const char *text = stack[0] > 1 ? (const char *)stack[2] : "";
    static const unsigned long block = ~0ul, none = 0;
    long slot = 0, pid = call3(__NR_getpid, 0, 0, 0);

    while (*text >= '0' && *text <= '9')
        slot = slot * 10 + (*text++ - '0');
    must(8, call6(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0));
    must(9, call3(__NR_prctl, PR_SET_DUMPABLE, 0, 0));
    call3(__NR_prctl, PR_SET_NAME, (long)"bivisor-cell", 0);
    if (*text == 't') {
        must(14, call3(__NR_prctl, PR_SET_TSC, PR_TSC_SIGSEGV, 0));
        text++;
    }
    map_slot(slot);
    ((volatile struct cell_state *)CELL_STATE)->thread = (unsigned long)pid;
    take_signals();
    take_kicks(pid);
    must(10, call6(__NR_rt_sigprocmask, 0, (long)&block, 0, 8, 0, 0));
    start_helper((long *)(((long)stack - 0x4000) & ~15l), pid);
    if (*text == 'c')
        must(20, call3(__NR_arch_prctl, ARCH_SET_CPUID, 0, 0));
    must(15, call6(__NR_rt_sigprocmask, 2, (long)&none, 0, 8, 0, 0));
    keep_two();
    filter_guest();
    cell_tell();
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call setup\n hlt");
