/*
 * Sleeping by a word of memory: futex(2), by the instruction itself. No code of libc's
 * runs that might use vector registers, so that a CPU's thread may wait while they hold
 * the guest's (docs/architecture.md, "The rule of the vector state").
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>

#include "base/os.h"

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
