/*
 * What a program of a guest's can see of the CPU and the kernel that it runs on, and what
 * it can try: a Linux program that checks itself, for tests/direct/run. Prints a line for
 * each check that fails, and how many there were.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static unsigned checks, bad;

static void check(const char *what, int good) {
    checks++;
    if (good)
        return;
    bad++;
    printf("not ok %s\n", what);
}

/* --- faults --- */

static __thread sigjmp_buf back;
static __thread volatile int armed; /* a fault is expected */
static __thread volatile int seen, code, trap;
static __thread volatile uint64_t addr, err, rip;
static volatile unsigned ticks, traps;

static void on_fault(int signo, siginfo_t *si, void *context) {
    const ucontext_t *uc = context;

    seen = signo;
    code = si->si_code;
    addr = (uint64_t)si->si_addr;
    trap = (int)uc->uc_mcontext.gregs[REG_TRAPNO];
    err = (uint64_t)uc->uc_mcontext.gregs[REG_ERR];
    rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    if (!armed) {
        printf("not ok signal %d at %lx, address %lx\n", signo, rip, addr);
        _exit(1);
    }
    siglongjmp(back, 1);
}

static void on_trap(int signo, siginfo_t *si, void *context) {
    traps++;
}

static void on_tick(int signo) {
    ticks++;
}

static void handle(int signo, void (*fn)(int, siginfo_t *, void *)) {
    struct sigaction sa = {.sa_sigaction = fn, .sa_flags = SA_SIGINFO | SA_NODEFER};

    sigaction(signo, &sa, NULL);
}

#define FAULTS(text, ...)                                                                \
    ({                                                                                   \
        seen = 0;                                                                        \
        armed = 1;                                                                       \
        if (!sigsetjmp(back, 1))                                                         \
            __asm__ volatile(text ::__VA_ARGS__                                          \
                             : "rax", "rcx", "rdx", "rdi", "rsi", "r11", "memory");      \
        armed = 0;                                                                       \
        seen;                                                                            \
    })

static int reads(uint64_t at) {
    return FAULTS("mov (%0), %%al", "r"(at));
}

static int writes(uint64_t at) {
    return FAULTS("movb $0, (%0)", "r"(at));
}

static void test_faults(void) {
    check("read of nothing", reads(0x12345678) == SIGSEGV && code == SEGV_MAPERR &&
                                 addr == 0x12345678 && trap == 14 && err == 4);
    check("write to nothing", writes(0x12345678) == SIGSEGV && err == 6);
    check("write to code", writes((uint64_t)&test_faults) == SIGSEGV &&
                               code == SEGV_ACCERR && err == 7 &&
                               addr == (uint64_t)&test_faults);
    check("jump to data", FAULTS("jmp *%0", "r"(&checks)) == SIGSEGV &&
                              rip == (uint64_t)&checks && err == 0x15);
    check("not canonical",
          reads(1ull << 60) == SIGSEGV && code == SI_KERNEL && trap == 13);
    check("kernel memory", reads(0xffff888000000000) == SIGSEGV && trap == 14 &&
                               addr == 0xffff888000000000);
    check("kernel code", reads(0xffffffff81000000) == SIGSEGV && (err & ~1ull) == 4);
    check("jump to the kernel",
          FAULTS("jmp *%0", "r"(0xffffffff81000000)) == SIGSEGV && rip == addr);
    check("division", FAULTS("xor %%ecx, %%ecx; div %%ecx", "r"(0)) == SIGFPE &&
                          code == FPE_INTDIV && addr == rip);
    check("ud2", FAULTS("ud2", "r"(0)) == SIGILL && code == ILL_ILLOPN && addr == rip);
    /* tilezero tmm0: the guest's CPU has no tiles, and the host's may. */
    check("a tile", FAULTS(".byte 0xc4, 0xe2, 0x7b, 0x49, 0xc0", "r"(0)) == SIGILL &&
                        code == ILL_ILLOPN && addr == rip);
    check("hlt", FAULTS("hlt", "r"(0)) == SIGSEGV && trap == 13);
    check("cli", FAULTS("cli", "r"(0)) == SIGSEGV && trap == 13);
    check("in", FAULTS("in $0x60, %%al", "r"(0)) == SIGSEGV && trap == 13);
    check("mov cr3", FAULTS("mov %%cr3, %%rax", "r"(0)) == SIGSEGV && trap == 13);
    check("int 21h",
          FAULTS("int $0x21", "r"(0)) == SIGSEGV && trap == 13 && err == 0x10a);
    check("int3", FAULTS("int3", "r"(0)) == SIGTRAP && trap == 3);
    check("int1",
          FAULTS(".byte 0xf1", "r"(0)) == SIGTRAP && trap == 1 && code == TRAP_BRKPT);
}

/* --- what the CPU says of itself --- */

static int in_cpuinfo(const char *key, const char *value) {
    char line[8192];
    FILE *f = fopen("/proc/cpuinfo", "r");
    int found = 0;

    while (f && !found && fgets(line, sizeof(line), f))
        found = !strncmp(line, key, strlen(key)) && strstr(line, value);
    if (f)
        fclose(f);
    return found;
}

static void test_cpuid(void) {
    static _Alignas(64) unsigned char area[16384];
    unsigned r[13] = {0}, a, b, c, d, lo, hi;

    for (unsigned n = 0; n < 3; n++)
        __cpuid(0x80000002 + n, r[4 * n], r[4 * n + 1], r[4 * n + 2], r[4 * n + 3]);
    check("the name that CPUID says", in_cpuinfo("model name", (char *)r));
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    check("XCR0", !(lo & 0xe0) == !in_cpuinfo("flags", " avx512f "));
    __cpuid_count(0xd, 0, a, b, c, d);
    memset(area, 0xaa, sizeof(area));
    memset(area + 512, 0, 64);
    __asm__ volatile("xsave64 %0" : "+m"(area) : "a"(-1), "d"(-1) : "memory");
    for (c = b; c < sizeof(area) && area[c] == 0xaa; c++)
        ;
    check("what XSAVE writes", c == sizeof(area));
    for (unsigned n = 0; n < 200; n++) {
        unsigned cpu, aux;

        __asm__ volatile("rdtscp" : "=c"(aux) : : "rax", "rdx");
        cpu = (unsigned)sched_getcpu();
        if ((aux & 0xfff) != cpu && n == 199)
            check("the CPU's number", 0);
        if ((aux & 0xfff) == cpu)
            break;
    }
}

/* Functions in pages of their own: they loop, and return what CPUID says of leaf 0. */
#define ASKS(name)                                                                       \
    uint64_t name(uint64_t loops);                                                       \
    __asm__(".pushsection .text." #name ", \"ax\"\n .balign 4096\n" #name ":\n"          \
            "mov %rbx, %r8\n 1: dec %rdi\n jnz 1b\n xor %eax, %eax\n xor %ecx, %ecx\n"   \
            "cpuid\n mov %ebx, %eax\n mov %r8, %rbx\n ret\n .balign 4096\n .popsection")
ASKS(asks);
ASKS(asks_and_is_read);

static unsigned sum_of(const volatile unsigned char *page) {
    unsigned sum = 0;

    for (unsigned n = 0; n < 4096; n++)
        sum = sum * 31 + page[n];
    return sum;
}

/* Code that asks CPUID and computes, too; and that is read as data besides. */
static void test_asking_code(void) {
    const void *read = (const void *)(uintptr_t)asks_and_is_read;
    unsigned a, b, c, d, sum = sum_of(read), wrong = 0;

    __cpuid(0, a, b, c, d);
    for (unsigned n = 0; n < 200; n++) {
        wrong += asks(100000) != b;
        wrong += asks_and_is_read(1000) != b;
    }
    check("what CPUID says to code that computes", !wrong);
    check("code that is read", sum_of(read) == sum);
}

/* --- registers, flags, segments --- */

static void test_call_registers(void) {
    uint64_t rcx, r11, r12 = 0x1122334455667788, rbx = 0x99aabbccddeeff00, where;
    long rax = SYS_getpid;

    __asm__ volatile("lea 1f(%%rip), %3\n syscall\n 1:"
                     : "+a"(rax), "=c"(rcx), "+r"(r12), "=&r"(where), "+b"(rbx)
                     :
                     : "r11", "memory");
    __asm__ volatile("mov %%r11, %0" : "=r"(r11));
    check("a system call", rax == getpid() && rcx == where && r12 == 0x1122334455667788 &&
                               rbx == 0x99aabbccddeeff00);
    for (long n = 600; n < 700; n++)
        if (syscall(n) != -1 || errno != ENOSYS)
            check("a call of no number", 0);
    check("a negative call", syscall(-1) == -1 && errno == ENOSYS);
}

static __attribute__((noinline)) uint64_t sum(unsigned rounds) {
    uint64_t s = 1;

    for (unsigned n = 0; n < rounds; n++)
        s = s * 6364136223846793005ull + (s >> 7 ^ n);
    return s;
}

/* Amid ticks, faults and other processes, nothing of it changes. */
static void test_state(void) {
    uint64_t flags, fixed = sum(1000000);
    struct itimerval every = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    uint32_t mxcsr = 0x3f80, got;
    uint16_t fcw = 0x27f, fcw_got, ds;

    signal(SIGALRM, on_tick);
    setitimer(ITIMER_REAL, &every, NULL);
    __asm__ volatile("ldmxcsr %0; fldcw %1" ::"m"(mxcsr), "m"(fcw));
    __asm__ volatile("mov %0, %%ds" ::"r"(0x2b));
    __asm__ volatile("pushfq; orl $0x200000, (%%rsp); popfq" ::: "cc", "memory");
    for (unsigned n = 0; n < 200 && ticks < 50; n++)
        if (sum(1000000) != fixed)
            check("a sum", 0);
    __asm__ volatile("pushfq; pop %0" : "=r"(flags));
    __asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(got), "=m"(fcw_got));
    __asm__ volatile("mov %%ds, %0" : "=r"(ds));
    setitimer(ITIMER_REAL, &never, NULL);
    __asm__ volatile("mov %0, %%ds" ::"r"(0));
    check("flags", flags & 0x200000);
    check("mxcsr and fcw", got == mxcsr && fcw_got == fcw);
    check("ds", ds == 0x2b);
    mxcsr = 0x1f80;
    __asm__ volatile("ldmxcsr %0; fninit" ::"m"(mxcsr));
}

/* A base that is set behind its selector stays through what leaves user code. */
static void test_base(void) {
    uint64_t base = 0x123456789abc, got;

    __asm__ volatile("mov %1, %%gs; wrgsbase %2; syscall; rdgsbase %0"
                     : "=r"(got)
                     : "r"(0x2b), "r"(base), "a"(SYS_getpid)
                     : "rcx", "r11", "memory");
    __asm__ volatile("mov %0, %%gs" ::"r"(0));
    check("the base of gs", got == base);
}

static void test_step(void) {
    traps = 0;
    handle(SIGTRAP, on_trap);
    __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; nop; nop; nop;"
                     "pushfq; andl $~0x100, (%%rsp); popfq" ::
                         : "cc", "memory");
    check("single steps", traps == 7);
    handle(SIGTRAP, on_fault);
}

/* --- memory --- */

static unsigned char *some(size_t len, int prot) {
    return mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void test_memory(void) {
    unsigned char *p = some(512 << 12, PROT_READ | PROT_WRITE), *q;
    pid_t child;
    int status;

    for (unsigned n = 0; n < 64; n++)
        p[n << 12] = (unsigned char)n;
    mprotect(p, 32 << 12, PROT_READ);
    check("a page that became read-only",
          writes((uint64_t)p) == SIGSEGV && code == SEGV_ACCERR && p[5 << 12] == 5);
    mprotect(p, 32 << 12, PROT_NONE);
    check("a page that is not to be read", reads((uint64_t)p + 4096) == SIGSEGV);
    mprotect(p, 32 << 12, PROT_READ | PROT_WRITE);
    check("a page that may be again", !writes((uint64_t)p + 4096));
    q = mremap(p, 64 << 12, 64 << 12, MREMAP_MAYMOVE | MREMAP_FIXED, p + (256 << 12));
    check("pages that moved",
          q == p + (256 << 12) && q[63 << 12] == 63 && reads((uint64_t)p) == SIGSEGV);
    child = fork();
    if (!child) {
        for (unsigned n = 0; n < 64; n++)
            q[n << 12] = 200;
        _exit(q[9 << 12] == 200 && sum(100000) == sum(100000) ? 0 : 1);
    }
    waitpid(child, &status, 0);
    check("a child's copy", status == 0 && q[9 << 12] == 9);
    munmap(q, 64 << 12);
    check("pages that are gone", reads((uint64_t)q) == SIGSEGV && code == SEGV_MAPERR);
}

#define SAME_PLACES 128u /* pages */

/* Pages that a shadow of 2^18 places (src/mmu/mmu.h) has no room for at a time: each of
 * one half has the place of one of the other. What is done to one half is seen although
 * the other was touched since. */
static void test_places(void) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    size_t len = SAME_PLACES << 12;
    uint64_t at[2] = {0x123450000000, 0x123450000000 ^ 0x44400000ull};
    volatile unsigned char *p[2];
    int status, faults = 0, wrong = 0;
    pid_t child;

    for (unsigned k = 0; k < 2; k++) {
        p[k] = mmap((void *)at[k], len, PROT_READ | PROT_WRITE, flags, -1, 0);
        check("a place for pages", p[k] == (void *)at[k]);
        madvise((void *)at[k], len, MADV_NOHUGEPAGE);
    }
    for (unsigned round = 0; round < 4; round++)
        for (unsigned n = 0; n < 2 * SAME_PLACES; n++) {
            wrong += round && p[n & 1][(n / 2) << 12] != (unsigned char)(n + round - 1);
            p[n & 1][(n / 2) << 12] = (unsigned char)(n + round);
        }
    check("pages of the same place", !wrong);
    mprotect((void *)at[0], len, PROT_READ);
    for (unsigned n = 0; n < SAME_PLACES; n += 8)
        faults += writes(at[0] + ((uint64_t)n << 12)) == SIGSEGV;
    check("some that became read-only", faults == SAME_PLACES / 8);
    mprotect((void *)at[0], len, PROT_READ | PROT_WRITE);
    child = fork();
    for (unsigned n = 0; n < SAME_PLACES; n++) {
        wrong += p[0][n << 12] != (unsigned char)(2 * n + 3);
        p[0][n << 12] = child ? 1 : 2;
        p[1][n << 12] = 3;
    }
    for (unsigned n = 0; n < SAME_PLACES; n++)
        wrong += p[0][n << 12] != (child ? 1 : 2) || p[1][n << 12] != 3;
    if (!child)
        _exit(wrong != 0);
    waitpid(child, &status, 0);
    check("a child's and its parent's", !wrong && status == 0);
    madvise((void *)at[0], len, MADV_DONTNEED);
    for (unsigned n = 0; n < SAME_PLACES; n++)
        wrong += p[0][n << 12] != 0 || p[1][n << 12] != 3;
    check("pages that were given back", !wrong);
    munmap((void *)at[0], len);
    check("and are gone", reads(at[0] + 4096) == SIGSEGV && p[1][4096] == 3);
    munmap((void *)at[1], len);
}

#define MANY 64u /* pages: for more than 33 Linux flushes the whole TLB */

static int wrong_pages(const volatile unsigned char *p, unsigned first) {
    int wrong = 0;

    for (unsigned n = 0; n < MANY; n++)
        wrong += p[n << 12] != (unsigned char)(first + n);
    return wrong;
}

/* The pages of P and Q change places. */
static void exchange(unsigned char *p, unsigned char *q) {
    const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
    size_t len = MANY << 12;
    unsigned char *other = some(len, PROT_NONE);

    mremap(p, len, len, flags, other);
    mremap(q, len, len, flags, p);
    mremap(other, len, len, flags, q);
}

/* After a flush most is mapped as it was: what is not is seen, at the same address, too.
 */
static void test_flushes(size_t align) {
    size_t len = MANY << 12;
    unsigned char *all = some(4 * align, PROT_READ | PROT_WRITE), *p[3];
    int wrong = 0, status, faults = 0;
    pid_t child;

    all += -(uintptr_t)all & (align - 1);
    for (unsigned k = 0; k < 3; k++) {
        p[k] = all + k * align;
        for (unsigned n = 0; n < MANY; n++)
            p[k][n << 12] = (unsigned char)(k + n);
    }
    for (unsigned round = 0; round < 8; round++) {
        exchange(p[1], p[2]);
        wrong += wrong_pages(p[0], 0) + wrong_pages(p[1], 2 - round % 2) +
                 wrong_pages(p[2], 1 + round % 2);
    }
    check("pages that change places", !wrong);
    mprotect(p[1], len, PROT_READ);
    for (unsigned n = 0; n < MANY; n++)
        faults += writes((uint64_t)p[1] + (n << 12)) == SIGSEGV &&
                  !writes((uint64_t)p[0] + (n << 12));
    check("many that became read-only, beside others", faults == MANY);
    child = fork();
    for (unsigned n = 0; n < MANY; n++)
        p[0][n << 12] = (unsigned char)(n + (child ? 10 : 20));
    if (!child)
        _exit(wrong_pages(p[0], 20) || wrong_pages(p[2], 2));
    waitpid(child, &status, 0);
    check("many of a child's and its parent's", !status && !wrong_pages(p[0], 10));
    munmap(p[1], len);
    for (unsigned n = 0, gone = 0; n < MANY; n++) {
        gone += reads((uint64_t)p[1] + (n << 12)) == SIGSEGV;
        if (n == MANY - 1)
            check("many that are gone", gone == MANY && !wrong_pages(p[2], 2));
    }
    munmap(p[0], 3 * align);
}

#define SHARED 16u /* pages */

static volatile unsigned char *shared;
static volatile int enough;

static void *write_on(void *arg) {
    for (unsigned n = 0; !enough; n++)
        (void)FAULTS("incq (%0)", "r"(shared + (n % SHARED << 12)));
    return NULL;
}

/* What is in the pages while nobody may write to them, stays. */
static int changes(void) {
    uint64_t was[SHARED];
    int n = 0;

    for (unsigned k = 0; k < SHARED; k++)
        was[k] = *(volatile uint64_t *)(shared + (k << 12));
    sum(20000);
    for (unsigned k = 0; k < SHARED; k++)
        n += was[k] != *(volatile uint64_t *)(shared + (k << 12));
    return n;
}

/* Another thread writes all the time to pages that change their rights or are copied. */
static void test_shootdown(void) {
    int wrong = 0, status;
    pthread_t writer;
    pid_t child;

    enough = 0;
    shared = some(SHARED << 12, PROT_READ | PROT_WRITE);
    check("a thread", !pthread_create(&writer, NULL, write_on, NULL));
    for (unsigned round = 0; round < 40; round++) {
        mprotect((void *)shared, SHARED << 12, PROT_READ);
        wrong += changes();
        mprotect((void *)shared, SHARED << 12, PROT_READ | PROT_WRITE);
        if (round % 4)
            continue;
        child = fork();
        if (!child)
            _exit(changes() != 0);
        waitpid(child, &status, 0);
        wrong += status != 0;
        madvise((void *)shared, SHARED << 12, MADV_DONTNEED);
    }
    enough = 1;
    pthread_join(writer, NULL);
    check("pages that a thread writes to", !wrong);
    munmap((void *)shared, SHARED << 12);
}

#define HYPERVISOR 0x40000000 /* leaf of CPUID */

static void test_code(void) {
    /* push rbx; mov eax, HYPERVISOR; cpuid; mov eax, ebx; pop rbx; ret */
    static const unsigned char asks_it[] = "\x53\xb8\0\0\0\x40\x0f\xa2\x89\xd8\x5b\xc3";
    unsigned char *p = some(4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    int (*fn)(void) = (int (*)(void))p;
    unsigned a, b, c, d, lies = 0;
    int wrong = 0;

    __cpuid(HYPERVISOR, a, b, c, d);
    for (int n = 0; n < 3000; n++) {
        memcpy(p, "\xb8\0\0\0\0\xc3", 6);
        memcpy(p + 1, &n, 4);
        wrong += fn() != n;
        if (n % 10)
            continue;
        memcpy(p, asks_it, sizeof(asks_it));
        lies += (unsigned)fn() != b;
    }
    check("code that is written and run", !wrong);
    check("what CPUID says to it", !lies);
    for (int n = 0; n < 300; n++) {
        mprotect(p, 4096, PROT_READ | PROT_WRITE);
        memcpy(p + 1, &n, 4);
        mprotect(p, 4096, PROT_READ | PROT_EXEC);
        wrong += fn() != n;
    }
    check("code that is written or run", !wrong);
    munmap(p, 4096);
}

/* Linux flushes the whole TLB when a program gives back more than 33 pages. */
static void forget_pages(void) {
    unsigned char *p = some(64 << 12, PROT_READ | PROT_WRITE);

    for (unsigned n = 0; n < 64; n++)
        p[n << 12] = 1;
    munmap(p, 64 << 12);
}

/* Code that a program makes has numbers beside it, which look like XGETBV, CPUID, RDTSCP
 * and SMSW here, and are what they are when it reads them. */
static void test_numbers(void) {
    static const unsigned char numbers[] = "\x0f\x01\xd0\x90\x0f\xa2\x90\x0f\x01\xf9"
                                           "\x90\x0f\x01\xe0\x90\x0f\xae\x37\xc3";
    unsigned char *p = some(4096, PROT_READ | PROT_WRITE | PROT_EXEC), made[4096];
    int (*fn)(void) = (int (*)(void))p;
    unsigned calls = 0, reads = 0;

    memset(made, 0x90, sizeof(made));
    memcpy(made, "\xb8\0\0\0\0\xc3", 6);
    for (unsigned at = 64; at < 4000; at += 400)
        memcpy(made + at, numbers, sizeof(numbers) - 1);
    for (int n = 0; n < 40; n++) {
        struct timespec pause = {.tv_nsec = 2000000};

        if (n >= 20)
            mprotect(p, 4096, PROT_READ | PROT_WRITE);
        memcpy(made + 1, &n, 4);
        memcpy(p, made, sizeof(made));
        if (n >= 20)
            mprotect(p, 4096, PROT_READ | PROT_EXEC);
        forget_pages();
        calls += fn() != n;
        calls += fn() != n;
        reads += memcmp(p, made, sizeof(made)) != 0;
        if (n % 3 == 0) /* not so often written that nobody looks any more */
            nanosleep(&pause, NULL);
    }
    check("code beside numbers", !calls);
    check("numbers beside code", !reads);
    munmap(p, 4096);
}

/* --- a debugger --- */

static void test_ptrace(void) {
    struct user_regs_struct r;
    int status, steps = 0;
    long word;
    pid_t child = fork();

    if (!child) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        for (unsigned n = 0; n < 100; n++)
            if (sum(1000 + n) == 1)
                _exit(1);
        _exit(0);
    }
    waitpid(child, &status, 0);
    for (; steps < 200 && WIFSTOPPED(status); steps++) {
        ptrace(PTRACE_SINGLESTEP, child, NULL, NULL);
        waitpid(child, &status, 0);
    }
    check("a debugger's steps", steps == 200);
    errno = 0;
    word = ptrace(PTRACE_PEEKTEXT, child, sum, NULL);
    ptrace(PTRACE_POKETEXT, child, sum, (word & ~0xffl) | 0xcc);
    ptrace(PTRACE_CONT, child, NULL, NULL);
    waitpid(child, &status, 0);
    ptrace(PTRACE_GETREGS, child, NULL, &r);
    check("a breakpoint", WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP &&
                              r.rip == (uint64_t)sum + 1);
    ptrace(PTRACE_POKETEXT, child, sum, word);
    r.rip--;
    ptrace(PTRACE_SETREGS, child, NULL, &r);
    ptrace(PTRACE_CONT, child, NULL, NULL);
    waitpid(child, &status, 0);
    check("its end", WIFEXITED(status) && !WEXITSTATUS(status));
}

/* --- ways around --- */

static void test_other_calls(void) {
    int pid = 0, how;

    how = FAULTS("mov $20, %%eax; int $0x80; mov %%eax, %0", "m"(pid));
    check("int 80h", how == SIGSEGV || pid == getpid());
    how = FAULTS("xor %%edi, %%edi; xor %%esi, %%esi; call *%0", "r"(0xffffffffff600000));
    check("the vsyscall page", !how || (how == SIGSEGV && addr == 0xffffffffff600000));
    check("to write there", writes(0xffffffffff600000) == SIGSEGV);
}

/* A call of 32-bit code at PAGE, below 4 GiB: its stack is there, too, and it comes back
 * by a far jump to 64-bit code behind it. */
static void call_32(unsigned char *page) {
    static const unsigned char home[] = {0x48, 0x8b, 0x24, 0x25, 0, 4, 0, 0, 0xc3};
    uint32_t at = (uint32_t)(uintptr_t)page + 1024;

    memcpy(page + 512, home, sizeof(home)); /* mov rsp, [page + 1024]; ret */
    memcpy(page + 516, &at, 4);
    __asm__ volatile("lea -128(%%rsp), %%rsp\n lea 1f(%%rip), %%rax\n push %%rax\n"
                     "mov %%rsp, 1024(%0)\n lea 4096(%0), %%rsp\n"
                     "push $0x23\n push %0\n lretq\n 1: lea 128(%%rsp), %%rsp"
                     :
                     : "b"(page)
                     : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "memory", "cc");
}

/* EAX = N, by INT 80H if that is wanted, and one more; stored at PAGE + 2048. */
static uint32_t in_32_bits(unsigned char *page, uint32_t n, int call) {
    unsigned char code[] = {
        0xb8, 0, 0, 0, 0,    0x90, 0x90, 0x40, 0xba, 0x2b, 0, 0, 0, 0x8e, 0xda, 0xa3,
        0,    0, 0, 0, 0x31, 0xd2, 0x8e, 0xda, 0xea, 0,    0, 0, 0, 0x33, 0};
    uint32_t at = (uint32_t)(uintptr_t)page + 2048, home = at - 2048 + 512;

    memcpy(code + 1, &n, 4);
    memcpy(code + 16, &at, 4);
    memcpy(code + 25, &home, 4);
    if (call)
        memcpy(code + 5, "\xcd\x80", 2);
    memcpy(page, code, sizeof(code));
    call_32(page);
    memcpy(&n, page + 2048, 4);
    return n;
}

/* A 64-bit program that goes on in 32-bit code, and has data segments there. */
static void test_32_bits(void) {
    unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    unsigned wrong = 0;

    for (uint32_t n = 0; n < 50; n++)
        wrong += in_32_bits(page, n, 0) != n + 1;
    check("32-bit code", !wrong);
    check("a call of the kernel there",
          in_32_bits(page, 20, 1) == (uint32_t)getpid() + 1);
    munmap(page, 4096);
}

/* Where a cell's own pages are (src/direct/abi.h): what it is told cannot be written, and
 * from its code there is no way to anywhere. */
static void test_cell(void) {
    check("orders", writes(0x2b5e00100000) == SIGSEGV && addr == 0x2b5e00100000);
    check("the state to go on with", writes(0x2b5e00102010) == SIGSEGV);
    check("the cell's code", writes(0x2b5e00000000) == SIGSEGV);
}

/* --- locked accesses that cross a line: for so long that it is found there --- */

#define SPLITS_NS 300000000

static void test_splits(void) {
    _Alignas(64) char lines[128] = {0};
    volatile uint32_t *across = (volatile uint32_t *)(void *)(lines + 62);
    struct timespec from, now;
    uint32_t n = 0;

    clock_gettime(CLOCK_MONOTONIC, &from);
    do {
        for (unsigned k = 0; k < 64; k++)
            __asm__ volatile("lock incl %0" : "+m"(*across));
        n += 64;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - from.tv_sec) * 1000000000l + now.tv_nsec - from.tv_nsec <
             SPLITS_NS);
    check("locked increments across two lines", *across == n);
}

int main(int argc, char **argv) {
    char mem[64 << 10];
    stack_t alt = {.ss_sp = mem, .ss_size = sizeof(mem)};

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1 && setuid((uid_t)atoi(argv[1])))
        return 2;
    prctl(PR_SET_DUMPABLE, 1); /* setuid(2) has taken that away, and debuggers need it */
    sigaltstack(&alt, NULL);
    for (int n = 0; n < 5; n++)
        handle((int[]){SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}[n], on_fault);
    for (unsigned round = 0; round < 4; round++) {
        test_faults();
        test_cpuid();
        test_asking_code();
        test_call_registers();
        test_state();
        test_base();
        test_step();
        test_memory();
        test_places();
        test_flushes(MANY << 12);
        test_flushes(2 << 20); /* large pages, where the kernel has some */
        test_shootdown();
        test_code();
        test_numbers();
        test_ptrace();
        test_other_calls();
        test_cell();
        test_32_bits();
    }
    test_splits();
    printf("%u checks, %u bad\n", checks, bad);
    return bad != 0;
}
