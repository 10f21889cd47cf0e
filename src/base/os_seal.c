/*
 * Code that cannot be written, at any address, but while it is made: os_code_map()'s
 * writable mapping is readable only, and pages of it are opened for as long as somebody
 * writes there. By the instruction itself, as in os_word.c: a CPU's thread may write
 * while vector registers hold the guest's.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/bug.h"
#include "base/os.h"

static long protect(uintptr_t from, uintptr_t to, long prot) {
    long rc;

    __asm__ volatile("syscall"
                     : "=a"(rc)
                     : "0"((long)SYS_mprotect), "D"(from), "S"(to - from), "d"(prot)
                     : "rcx", "r11", "memory");
    return rc;
}

static long protect_pages(const uint8_t *p, size_t len, long prot) {
    uintptr_t at = (uintptr_t)p;

    return protect(at & ~4095ul, (at + len + 4095) & ~4095ul, prot);
}

int os_code_seal(const struct os_code *c) {
    return (int)protect_pages(c->rw, c->size, PROT_READ);
}

/* A piece has mappings of its own while it is open: the kernel may have no room for one
 * more, and whoever writes would end with a fault that says less. */
void os_code_open(const uint8_t *rw, size_t len) {
    BUG_ON(protect_pages(rw, len, PROT_READ | PROT_WRITE));
}

void os_code_close(const uint8_t *rw, size_t len) {
    BUG_ON(protect_pages(rw, len, PROT_READ));
}
