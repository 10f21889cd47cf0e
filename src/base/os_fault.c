/*
 * Host faults in code that runs for the guest.
 *
 * A table of address ranges, each with a function that says where to go on. The table is
 * a global because a signal handler carries no argument. An entry is published by its end
 * (0: free), written last and taken back first.
 *
 * The kernel gives the handler a clean x87 and MXCSR, and puts the interrupted state back
 * from the signal frame when the handler returns: a resumed stub finds the guest's vector
 * state as the faulting instruction left it.
 *
 * A fault outside every range goes to whoever handled the signal before us; with nobody,
 * the terminal is restored, a sentence says where it was, and the process dies of the
 * signal.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/os.h"

#define MAX_RANGES 32

static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};

/* ucontext's number for each register, in the order of enum vcpu_reg. */
static const uint8_t greg[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                 REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                 REG_R12, REG_R13, REG_R14, REG_R15};

static struct range {
    uintptr_t lo;
    atomic_uintptr_t hi;
    bool (*fn)(void *arg, struct os_fault *f);
    void *arg;
} ranges[MAX_RANGES];
static atomic_uint nranges;
static struct sigaction previous[ARRAY_SIZE(signals)];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool offer(int signo, const siginfo_t *si, ucontext_t *uc) {
    greg_t *g = uc->uc_mcontext.gregs;
    struct os_fault f = {.signo = signo,
                         .code = si->si_code,
                         .trapno = (unsigned)g[REG_TRAPNO],
                         .error = (uint64_t)g[REG_ERR],
                         .addr = (uint64_t)(uintptr_t)si->si_addr};
    unsigned n = atomic_load_explicit(&nranges, memory_order_acquire);

    if (si->si_code <= 0 && si->si_code != SI_KERNEL)
        return false; /* sent by someone, not raised by the instruction */
    for (unsigned i = 0; i < 16; i++)
        f.regs.gpr[i] = (uint64_t)g[greg[i]];
    f.regs.rip = (uint64_t)g[REG_RIP];
    f.regs.rflags = (uint64_t)g[REG_EFL];
    for (unsigned i = 0; i < n; i++) {
        if (f.regs.rip >= ranges[i].hi || f.regs.rip < ranges[i].lo)
            continue;
        if (!ranges[i].fn(ranges[i].arg, &f))
            continue;
        for (unsigned k = 0; k < 16; k++)
            g[greg[k]] = (greg_t)f.regs.gpr[k];
        g[REG_RIP] = (greg_t)f.regs.rip;
        g[REG_EFL] = (greg_t)f.regs.rflags;
        return true;
    }
    return false;
}

/* Nobody's fault but ours, which ends us: what is to be known of it. */
static void tell(int signo, const siginfo_t *si, const ucontext_t *u) {
    char line[160];
    int len = snprintf(line, sizeof(line),
                       "bivisor: bug: signal %d at 0x%llx, trap %lld, address 0x%llx\n",
                       signo, (unsigned long long)u->uc_mcontext.gregs[REG_RIP],
                       (long long)u->uc_mcontext.gregs[REG_TRAPNO],
                       (unsigned long long)(uintptr_t)si->si_addr);

    if (write(STDERR_FILENO, line, (size_t)len) < 0)
        return;
}

static void pass_on(int signo, siginfo_t *si, void *context) {
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        const struct sigaction *old = &previous[i];

        if (signals[i] != signo)
            continue;
        if (old->sa_flags & SA_SIGINFO) {
            old->sa_sigaction(signo, si, context);
            return;
        }
        if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) {
            old->sa_handler(signo);
            return;
        }
    }
    os_tty_restore();
    if (si->si_code > 0)
        tell(signo, si, context);
    signal(signo, SIG_DFL);
    if (si->si_code <= 0) /* not raised again by returning */
        raise(signo);
}

static void on_fault(int signo, siginfo_t *si, void *context) {
    int saved_errno = errno;

    if (!offer(signo, si, context))
        pass_on(signo, si, context);
    errno = saved_errno;
}

static int install(void) {
    struct sigaction act = {.sa_sigaction = on_fault,
                            .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

    for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
        if (sigaction(signals[i], &act, &previous[i]) < 0)
            return -errno;
    return 0;
}

int os_fault_range(const void *lo, const void *hi,
                   bool (*fn)(void *arg, struct os_fault *f), void *arg) {
    unsigned n, used;
    int rc = 0;

    pthread_mutex_lock(&lock);
    used = atomic_load_explicit(&nranges, memory_order_relaxed);
    for (n = 0; n < used && ranges[n].hi; n++)
        ;
    if (n == MAX_RANGES)
        rc = -ENOSPC;
    else if (used == 0)
        rc = install();
    if (!rc) {
        ranges[n].lo = (uintptr_t)lo;
        ranges[n].fn = fn;
        ranges[n].arg = arg;
        atomic_store_explicit(&ranges[n].hi, (uintptr_t)hi, memory_order_release);
        if (n == used)
            atomic_store_explicit(&nranges, n + 1, memory_order_release);
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

void os_fault_range_remove(const void *lo) {
    unsigned used;

    pthread_mutex_lock(&lock);
    used = atomic_load_explicit(&nranges, memory_order_relaxed);
    for (unsigned n = 0; n < used; n++)
        if (ranges[n].hi && ranges[n].lo == (uintptr_t)lo)
            atomic_store_explicit(&ranges[n].hi, 0, memory_order_release);
    pthread_mutex_unlock(&lock);
}
