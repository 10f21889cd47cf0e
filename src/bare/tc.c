/*
 * What translated code needs of base/os.h: the base of %gs, the poll page, which emitted
 * code names in 32 bits. Those are in the image, which lies low and is mapped by pages of
 * 4 KiB.
 *
 * os_poll_set() runs in the handlers of interrupts, too: it changes one entry of tables
 * that are there. A page may be closed by another CPU than the one that touches it, which
 * is told, but not waited for.
 */
#include <errno.h>

#include "bare/bare_int.h"
#include "base/os.h"
#include "mem/mem.h"
#include "x86/msr.h"
#include "x86/pte.h"

#define POLLS 32u
#define POLL_FLAGS (X86_PTE_W | X86_PTE_NX)

static _Alignas(4096) uint8_t poll[POLLS][X86_PAGE_SIZE];
static bool poll_used[POLLS];

int os_gs_base(void *p) {
    bare_wrmsr(X86_MSR_GS_BASE, (uintptr_t)p);
    return 0;
}

/* Interrupts and exceptions have stacks of their own (trap.c). */
int os_signal_stack(void) {
    return 0;
}

int os_filled_alloc(uint64_t word, size_t size, unsigned n, void **out) {
    int rc = 0;

    for (unsigned k = 0; k < n; k++) {
        uint64_t *p = bare_demand(size);

        for (size_t at = 0; p && at < size / sizeof(word); at++)
            p[at] = word;
        out[k] = p;
        if (!p)
            rc = -ENOMEM;
    }
    return rc;
}

void os_filled_free(void *p, size_t size) {
    bare_demand_free(p);
}

int os_guarded_alloc(size_t size, const uint8_t **out) {
    *out = bare_demand(size);
    return *out ? 0 : -ENOMEM;
}

void os_guarded_free(const uint8_t *p, size_t size) {
    bare_demand_free((void *)(uintptr_t)p);
}

int os_poll_page(uint8_t **page) {
    for (unsigned n = 0; n < POLLS; n++) {
        if (poll_used[n])
            continue;
        poll_used[n] = true;
        *page = poll[n];
        return 0;
    }
    return -ENOMEM;
}

void os_poll_page_free(uint8_t *page) {
    os_poll_set(page, true);
    poll_used[(size_t)(page - poll[0]) / X86_PAGE_SIZE] = false;
}

void os_poll_set(uint8_t *page, bool open) {
    if (open) {
        bare_map((uintptr_t)page, (uintptr_t)page, POLL_FLAGS);
        return;
    }
    bare_unmap((uintptr_t)page);
    bare_tlb_flush_others_soon();
}
