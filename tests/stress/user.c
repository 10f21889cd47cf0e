/*
 * What makes a translator stumble, as one static Linux program: code generated, patched
 * and remapped; faults with the registers looked at; timers in the middle of sums;
 * threads; forks; single-stepping. Prints only what is the same on every correct CPU:
 * tests/stress/run compares it with the host's.
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
typedef unsigned long u64;
typedef unsigned u32;
static volatile unsigned ticks;
static void on_alrm(int s) {
    ticks++;
}
static u32 crc(const unsigned char *p, size_t n, u32 c) {
    while (n--) {
        c ^= *p++;
        for (int k = 0; k < 8; k++)
            c = c >> 1 ^ (0xedb88320 & -(c & 1));
    }
    return c;
}
static int jit(int alias) {
    int fd = memfd_create("j", 0);
    if (fd < 0 || ftruncate(fd, 65536))
        return 1;
    unsigned char *w, *x;
    if (alias) {
        w = mmap(0, 65536, 3, MAP_SHARED, fd, 0);
        x = mmap(0, 65536, 5, MAP_SHARED, fd, 0);
    } else
        w = x = mmap(0, 65536, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    u64 sum = 0;
    for (u32 n = 0; n < 20000; n++) {
        unsigned at = (n * 37) % 4000 * 16;
        if (at + 32 > 65536)
            at &= 4095;
        at = at % 65500;
        unsigned char c[] = {0xb8, 0, 0, 0, 0, 0x05, 0, 0, 0, 0, 0xc3};
        u32 a = n * 2654435761u, b = n ^ 0x1234;
        memcpy(c + 1, &a, 4);
        memcpy(c + 6, &b, 4);
        memcpy(w + at, c, sizeof c);
        u32 r = ((u32(*)(void))(x + at))();
        if (r != a + b) {
            printf("jit bad %u\n", n);
            return 1;
        }
        sum += r;
        if (n % 3 == 0) {
            w[at + 1] ^= 0x55;
            r = ((u32(*)(void))(x + at))();
            if (r != (a ^ 0x55) + b) {
                printf("jit patch bad %u\n", n);
                return 1;
            }
        }
        *(volatile u32 *)(w + (at + 2048) % 65000) = n * 0; /* data beside code */
    }
    printf("jit%d %lx\n", alias, sum);
    munmap(w, 65536);
    if (alias)
        munmap(x, 65536);
    close(fd);
    return 0;
}
static int remap(void) { /* page remapped to other contents at the same address */
    unsigned char *x = mmap(0, 8192, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    u64 s = 0;
    for (u32 n = 0; n < 2000; n++) {
        if (mmap(x, 8192, 7, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != x)
            return 1;
        unsigned char c[] = {0xb8, 0, 0, 0, 0, 0xc3};
        memcpy(c + 1, &n, 4);
        unsigned at = 4093 - (n & 1);
        memcpy(x + at, c, 6);
        if (n & 4)
            mprotect(x, 8192, 5);
        u32 r = ((u32(*)(void))(x + at))();
        if (r != n) {
            printf("remap bad %u %u\n", n, r);
            return 1;
        }
        s += r;
        if (n & 4)
            mprotect(x, 8192, 7);
    }
    printf("remap %lu\n", s);
    return 0;
}
static sigjmp_buf jb;
static volatile u64 fault_addr;
static volatile int fsig;
static volatile u64 frbx, frip, fr14;
static void on_fault(int s, siginfo_t *si, void *c) {
    ucontext_t *u = c;
    fsig = s;
    fault_addr = (u64)si->si_addr;
    frbx = u->uc_mcontext.gregs[REG_RBX];
    fr14 = u->uc_mcontext.gregs[REG_R14];
    frip = u->uc_mcontext.gregs[REG_RIP];
    if (s == SIGTRAP)
        return;
    siglongjmp(jb, 1);
}
static int faults(void) {
    struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &a, 0);
    sigaction(SIGFPE, &a, 0);
    sigaction(SIGILL, &a, 0);
    sigaction(SIGBUS, &a, 0);
    char *p = mmap(0, 3 * 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(p + 4096, 4096, 0);
    u64 h = 0;
    for (int n = 0; n < 4000; n++) {
        int off = 4096 - (n % 40);
        if (!sigsetjmp(jb, 1)) {
            u64 v = n;
            switch (n % 6) {
            case 0:
                __asm__ volatile(
                    "mov %1,%%rbx; mov %2,%%r14; movq (%0),%%rax" ::"r"(p + off), "r"(v),
                    "r"(v * 3)
                    : "rax", "rbx", "r14", "memory");
                break;
            case 1:
                __asm__ volatile(
                    "mov %1,%%rbx; mov %2,%%r14; addq %%r14,(%0)" ::"r"(p + off), "r"(v),
                    "r"(v * 3)
                    : "rax", "rbx", "r14", "memory");
                break;
            case 2:
                __asm__ volatile(
                    "mov %1,%%rbx; mov %2,%%r14; movups (%0),%%xmm0" ::"r"(p + off),
                    "r"(v), "r"(v * 3)
                    : "xmm0", "rbx", "r14", "memory");
                break;
            case 3:
                __asm__ volatile("mov %1,%%rbx; mov %2,%%r14; xor %%edx,%%edx; xor "
                                 "%%ecx,%%ecx; div %%ecx" ::"r"(p + off),
                                 "r"(v), "r"(v * 3)
                                 : "rax", "rcx", "rdx", "rbx", "r14", "memory");
                break;
            case 4:
                __asm__ volatile(
                    "mov %1,%%rbx; mov %2,%%r14; movaps 1(%0),%%xmm0" ::"r"(p), "r"(v),
                    "r"(v * 3)
                    : "xmm0", "rbx", "r14", "memory");
                break;
            case 5:
                __asm__ volatile(
                    "mov %1,%%rbx; mov %2,%%r14; cmpxchg %%r14,(%0)" ::"r"(p + off),
                    "r"(v), "r"(v * 3)
                    : "rax", "rbx", "r14", "memory");
                break;
            }
            fsig = 0;
        } else {
            if (frbx != (u64)n || fr14 != (u64)n * 3) {
                printf("fault state bad %d: %lx %lx\n", n, frbx, fr14);
                return 1;
            }
            if (fsig == SIGSEGV && n % 6 != 4 && fault_addr != (u64)p + 4096) {
                printf("fault addr %d %lx\n", n, fault_addr - (u64)p);
                return 1;
            }
        }
        h = h * 31 + fsig;
    }
    printf("faults %lx\n", h);
    return 0;
}
static int timers(void) {
    struct itimerval t = {{0, 1000}, {0, 1000}};
    signal(SIGALRM, on_alrm);
    static unsigned char b[1 << 16];
    for (unsigned k = 0; k < sizeof b; k++)
        b[k] = k * 7;
    u32 want = crc(b, sizeof b, 1);
    setitimer(ITIMER_REAL, &t, 0);
    int bad = 0;
    double x = 0;
    for (int k = 0; k < 60; k++) {
        if (crc(b, sizeof b, 1) != want)
            bad++;
        x += sin(k) * sqrt(k + 1);
    }
    /* Signals that come while the host runs something else count once: wait for more. */
    for (time_t end = time(0) + 60; ticks <= 3 && time(0) < end;)
        if (crc(b, sizeof b, 1) != want)
            bad++;
    t = (struct itimerval){0};
    setitimer(ITIMER_REAL, &t, 0);
    printf("timers bad %d x %.12f ticked %d\n", bad, x, ticks > 3);
    return bad;
}
static void *thr(void *a) {
    volatile u64 *c = a;
    for (int k = 0; k < 200000; k++) {
        __atomic_add_fetch(c, 1, 5);
    }
    return 0;
}
static int threads(void) {
    pthread_t t[6];
    static u64 c;
    for (int k = 0; k < 6; k++)
        pthread_create(t + k, 0, thr, &c);
    for (int k = 0; k < 6; k++)
        pthread_join(t[k], 0);
    printf("threads %lu\n", c);
    return 0;
}
static int forks(void) {
    u64 h = 0;
    for (int k = 0; k < 150; k++) {
        int p[2];
        if (pipe(p))
            return 1;
        pid_t c = fork();
        if (!c) {
            u64 v = k * k;
            write(p[1], &v, 8);
            _exit(k & 63);
        }
        u64 v;
        int st;
        if (read(p[0], &v, 8) != 8)
            return 1;
        waitpid(c, &st, 0);
        h = h * 31 + v + WEXITSTATUS(st);
        close(p[0]);
        close(p[1]);
    }
    printf("forks %lx\n", h);
    return 0;
}
static int stepping(void) { /* TF in user mode */
    struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &a, 0);
    u64 r;
    __asm__ volatile("pushfq; orq $0x100,(%%rsp); popfq; mov $1,%%rax; add $2,%%rax; add "
                     "$3,%%rax; pushfq; andq $~0x100,(%%rsp); popfq; mov %%rax,%0"
                     : "=r"(r)::"rax", "memory");
    printf("step %lu sig %d\n", r, fsig == SIGTRAP);
    return 0;
}
int main(int c, char **v) {
    int r = 0;
    setvbuf(stdout, 0, _IONBF, 0);
    r |= jit(0);
    r |= jit(1);
    r |= remap();
    r |= faults();
    r |= timers();
    r |= threads();
    r |= forks();
    r |= stepping();
    printf("st %s\n", r ? "FAILED" : "ok");
    return r;
}
