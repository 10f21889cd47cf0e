/* Thread state and the poll page for translated code; see os.h. */
#include <asm/prctl.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/os.h"

#define SIGNAL_STACK (64u << 10)
#define AUTODISARM (1u << 31) /* SS_AUTODISARM, which <signal.h> does not have */

int os_gs_base(void *p) {
    return syscall(SYS_arch_prctl, ARCH_SET_GS, p) < 0 ? -errno : 0;
}

/* Disarmed while in use: otherwise a stack pointer that lies in the alternate stack means
 * to the kernel that it is in use already, and the stack pointer may be the guest's. */
int os_signal_stack(void) {
    stack_t ss;

    if (sigaltstack(NULL, &ss) < 0)
        return -errno;
    if (!(ss.ss_flags & SS_DISABLE))
        return 0;
    ss = (stack_t){.ss_sp = mmap(NULL, SIGNAL_STACK, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0),
                   .ss_size = SIGNAL_STACK,
                   .ss_flags = (int)AUTODISARM};
    if (ss.ss_sp == MAP_FAILED)
        return -errno;
    if (sigaltstack(&ss, NULL) < 0) {
        int rc = -errno;

        munmap(ss.ss_sp, SIGNAL_STACK);
        return rc;
    }
    return 0;
}

void os_signal_stack_free(void) {
    const stack_t none = {.ss_flags = SS_DISABLE};
    stack_t ss;

    if (!sigaltstack(&none, &ss) && !(ss.ss_flags & SS_DISABLE))
        munmap(ss.ss_sp, ss.ss_size);
}

int os_guarded_alloc(size_t size, const uint8_t **out) {
    uint8_t *p = mmap(NULL, size + 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED)
        return -errno;
    if (mprotect(p, 4096, PROT_NONE) < 0) {
        int rc = -errno;

        munmap(p, size + 4096);
        return rc;
    }
    *out = p + 4096;
    return 0;
}

void os_guarded_free(const uint8_t *p, size_t size) {
    if (p)
        munmap((void *)(uintptr_t)(p - 4096), size + 4096);
}

static size_t pages(size_t size) {
    return (size + 4095) & ~(size_t)4095;
}

static int fenced(size_t size, int prot, void **out) {
    size_t whole = pages(size) + 2 * 4096;
    uint8_t *p = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int rc;

    if (p == MAP_FAILED)
        return -errno;
    if (mprotect(p + 4096, pages(size), prot) < 0) {
        rc = -errno;
        munmap(p, whole);
        return rc;
    }
    *out = p + 4096;
    return 0;
}

int os_fenced_alloc(size_t size, void **out) {
    return fenced(size, PROT_READ | PROT_WRITE, out);
}

int os_nowhere_alloc(size_t size, void **out) {
    return fenced(size, PROT_NONE, out);
}

void os_fenced_free(void *p, size_t size) {
    if (p)
        munmap((uint8_t *)p - 4096, pages(size) + 2 * 4096);
}

int os_poll_page(uint8_t **page) {
    void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

    if (p == MAP_FAILED)
        return -errno;
    *page = p;
    return 0;
}

void os_poll_page_free(uint8_t *page) {
    munmap(page, 4096);
}

void os_poll_set(uint8_t *page, bool open) {
    mprotect(page, 4096, open ? PROT_READ : PROT_NONE);
}
