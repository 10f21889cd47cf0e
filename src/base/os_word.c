/*
 * Sleeping by a word of memory, and locks: futex(2), by the instruction itself. No code
 * of libc's runs that might use vector registers, so that a CPU's thread may wait while
 * they hold the guest's (docs/architecture.md, "The rule of the vector state").
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>

#include "base/os.h"

/* A lock's holder is soon done: that long a look is cheaper than a sleep, which costs two
 * switches of threads. */
#define LOOKS 100

static long futex(uint32_t *word, int op, uint32_t value) {
    register long timeout __asm__("r10") = 0;
    long rc;

    __asm__ volatile("syscall"
                     : "=a"(rc)
                     : "0"((long)SYS_futex), "D"(word), "S"((long)op),
                       "d"((unsigned long)value), "r"(timeout)
                     : "rcx", "r11", "memory");
    return rc;
}

void os_yield(void) {
    long rc;

    __asm__ volatile("syscall"
                     : "=a"(rc)
                     : "0"((long)SYS_sched_yield)
                     : "rcx", "r11", "memory");
}

void os_word_wait(uint32_t *word, uint32_t old) {
    futex(word, FUTEX_WAIT_PRIVATE, old);
}

void os_word_wake(uint32_t *word, unsigned count) {
    futex(word, FUTEX_WAKE_PRIVATE, count);
}

void os_mutex_wait(struct os_mutex *x) {
    for (unsigned n = 0; n < LOOKS; n++) {
        if (__atomic_load_n(&x->state, __ATOMIC_RELAXED) == 0 && os_mutex_try(x))
            return;
        __builtin_ia32_pause();
    }
    /* Who has slept does not know whether others still do. */
    while (__atomic_exchange_n(&x->state, 2, __ATOMIC_ACQUIRE))
        os_word_wait(&x->state, 2);
}

void os_mutex_wake(struct os_mutex *x) {
    os_word_wake(&x->state, 1);
}
