/*
 * /init of a guest: unprivileged code that once read or overwrote the VMM's memory under
 * the translator. Each piece runs in a process of its own and says `right NAME` or `wrong
 * NAME`; names on the kernel's command line behind `--` choose some. Ends with power-off.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf back;
static greg_t fault[NGREG];

static void on_fault(int signo, siginfo_t *si, void *context) {
    memcpy(fault, ((ucontext_t *)context)->uc_mcontext.gregs, sizeof(fault));
    siglongjmp(back, signo);
}

static void *map(uint64_t at, uint64_t len) {
    return mmap((void *)at, len, PROT_READ | PROT_WRITE | PROT_EXEC,
                MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);
}

/* Each word holds its own address. */
static void *map_addresses(uint64_t at, uint64_t len) {
    uint64_t *m = map(at, len);

    for (uint64_t k = 0; k < len / 8; k++)
        m[k] = at + k * 8;
    return m;
}

/* What the code at C returns, or the signal that it ends with in *SIGNO. */
static uint64_t call(void *c, uint64_t arg, int *signo) {
    uint64_t (*f)(uint64_t) = (uint64_t(*)(uint64_t))c;

    *signo = sigsetjmp(back, 1);
    return *signo ? 0 : f(arg);
}

/* A PUSH from memory, and a later read off the same register, where the range of both
 * crosses a page: all of it was copied behind a buffer of 192 bytes. */
#define BOUNCE(gap, op)                                                                  \
    __asm__ volatile(op "\n\tmovq " gap "(%2), %1\n\tpopq %0\n\t"                        \
                     : "=&r"(a), "=&r"(b)                                                \
                     : "r"(p)                                                            \
                     : "memory")
static bool bounce(int far) { /* 1: by 0x3f8 bytes */
    uint64_t a, b;
    char *m = map(0, 1 << 20);
    bool ok = true;

    madvise(m, 1 << 20, MADV_NOHUGEPAGE);
    for (int i = 0; i < 256; i += 2) /* so that no neighbours are neighbours in RAM */
        m[i << 12] = 1;
    for (int i = 255; i > 0; i -= 2)
        m[i << 12] = 1;
    memset(m, 0x41, 1 << 20);
    for (int i = 0; i < 200; i++) {
        char *p = m + ((i + 1) << 12) - 0x10;

        if (far)
            BOUNCE("0x3f8", "pushq (%2)");
        else
            BOUNCE("0x300", "pushq (%2)");
        ok &= a == 0x4141414141414141 && b == a;
    }
    return ok;
}

/* Two MOVs with an offset off FS, 2^63 + D apart, once counted as one range. */
static bool moffs(int d) {
    uint8_t *m = map(0x200000, 1 << 16), *c = m + 0x8000, *p = c;
    uint64_t fs, near, far;
    int signo;

    syscall(SYS_arch_prctl, ARCH_GET_FS, &fs);
    memset(m, 0x41, 0x4000);
    near = (uint64_t)m + 0x1000 - fs;
    far = near + (1ull << 63) + (uint64_t)d;
    memcpy(p, "\x64\x48\xa1", 3), memcpy(p + 3, &far, 8), p += 11;
    memcpy(p, "\x48\x89\xc1\x64\x48\xa1", 6), memcpy(p + 6, &near, 8), p += 14;
    memcpy(p, "\x48\x91\xc3", 3); /* xchg rcx, rax; ret */
    call(c, 0, &signo);
    return signo == SIGSEGV;
}

/* REP MOVSB in a hot loop whose destination matched the mark of an unused place: the
 * host's addresses were in the registers that the signal handler gets. */
static bool repleak(int unused) {
    static char buf[64] = "hello";
    unsigned long n = 3000000;
    int signo = sigsetjmp(back, 1);

    if (!signo)
        __asm__ volatile("1: xorl %%ecx, %%ecx\n\t"
                         "movabs $0x8000000000000000, %%rdi\n\t"
                         "movq %2, %%rsi\n\t"
                         "cmpq $1, %0\n\t"
                         "cmoveq %1, %%rcx\n\t"
                         "rep movsb\n\t"
                         "decq %0\n\t"
                         "jnz 1b\n\t"
                         : "+r"(n)
                         : "r"(8ul), "r"((char *)buf)
                         : "rcx", "rsi", "rdi", "memory");
    return signo == SIGSEGV && fault[REG_RSI] == (greg_t)buf &&
           fault[REG_RDI] == INT64_MIN && fault[REG_RCX] == 8;
}

/* Sums of displacements that pass 2^63: an access below the page that was checked. */
static bool below(int unused) {
    uint8_t *c = map(0x10000000, 0x1000);
    uint64_t here = 0x201000, away = here + 0x7ffffffffffffffc;
    int signo;

    map_addresses(0x200000, 0x4000);
    memcpy(c, "\x48\xa1", 2), memcpy(c + 2, &here, 8);
    memcpy(c + 10, "\x48\xa1", 2), memcpy(c + 12, &away, 8);
    c[20] = 0xc3;
    call(c, 0, &signo);
    return signo == SIGSEGV;
}

/* 32-bit addresses come round at 4 GiB: mov rax, [edi]; mov rax, [edi+0x200] */
static bool round4g(int unused) {
    uint8_t *c = map(0x10000000, 0x1000);
    int signo;

    map_addresses(0xffff0000, 0x20000);
    memcpy(c, "\x67\x48\x8b\x07\x67\x48\x8b\x87\x00\x02\x00\x00\xc3", 13);
    call(c, 0xffffff00, &signo);
    return signo == SIGSEGV;
}

/* mov rax, [rdi-0x80000000]; sub rdi, 0x100; mov rax, [rdi-0x80000000] */
static bool cut(int unused) {
    uint8_t *c = map(0x10000000, 0x1000);
    uint64_t got;
    int signo;

    map_addresses(0x300000000, 0x10000);
    map_addresses(0x400000000, 0x10000);
    memcpy(c,
           "\x48\x8b\x87\x00\x00\x00\x80\x48\x81\xef\x00\x01\x00\x00"
           "\x48\x8b\x87\x00\x00\x00\x80\xc3",
           22);
    got = call(c, 0x380000800, &signo);
    return !signo && got == 0x300000700;
}

static const struct piece {
    const char *name;
    bool (*right)(int);
    int arg;
} pieces[] = {
    {"bounce", bounce, 0},          {"bounce-far", bounce, 1}, {"moffs", moffs, 0x40},
    {"moffs-far", moffs, 0x100000}, {"repleak", repleak, 0},   {"below", below, 0},
    {"round", round4g, 0},          {"cut", cut, 0},
};

static bool wanted(const char *name, int argc, char **argv) {
    for (int k = 1; k < argc; k++)
        if (!strcmp(argv[k], name))
            return true;
    return argc < 2;
}

static bool run(const struct piece *p) {
    struct sigaction act = {.sa_sigaction = on_fault,
                            .sa_flags = SA_NODEFER | SA_SIGINFO};
    int status;
    pid_t pid = fork();

    if (!pid) {
        sigaction(SIGSEGV, &act, NULL);
        sigaction(SIGBUS, &act, NULL);
        _exit(p->right(p->arg) ? 0 : 1);
    }
    return waitpid(pid, &status, 0) == pid && status == 0;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    for (size_t k = 0; k < sizeof(pieces) / sizeof(*pieces); k++)
        if (wanted(pieces[k].name, argc, argv))
            printf("%s %s\n", run(&pieces[k]) ? "right" : "wrong", pieces[k].name);
    printf("escape: end\n");
    reboot(RB_POWER_OFF);
    return 0;
}
