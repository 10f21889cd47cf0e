/*
 * Address spaces. Each shares the identity map of the first 4 GiB and has a window of its
 * own, 512 pages of 4 KiB, whose page table a benchmark may change as it likes.
 */
#include "frob.h"

extern ulong boot_root[];
extern uint8_t image_end[];
static ulong next_page, end_of_memory;

void space_init(ulong memory_end) {
    next_page = ((ulong)image_end + 4095) & ~4095ul;
    end_of_memory = memory_end;
#if FROB_BITS == 32
    boot_root[WINDOW >> 22] = 0; /* where nobody has a window, nothing is */
#endif
}

void *page_alloc(unsigned pages) {
    ulong at = next_page;
    ulong *p = (ulong *)at;

    if (end_of_memory < at || (end_of_memory - at) >> X86_PAGE_SHIFT < pages) {
        report_text("fatal frob needs 32 MiB of memory\n");
        report_end(2);
    }
    next_page += (ulong)pages << X86_PAGE_SHIFT;
    for (ulong n = 0; n < ((ulong)pages << X86_PAGE_SHIFT) / sizeof(*p); n++)
        p[n] = 0;
    return p;
}

void space_new(struct space *s) {
    ulong *root = page_alloc(1);

    for (unsigned n = 0; n < 4096 / sizeof(*root); n++)
        root[n] = boot_root[n];
    s->ptes = page_alloc(1);
#if FROB_BITS == 64
    ulong *pdpt = page_alloc(1), *pd = page_alloc(1);

    pd[0] = (ulong)s->ptes | PTE_RWU;
    pdpt[0] = (ulong)pd | PTE_RWU;
    root[WINDOW >> 39] = (ulong)pdpt | PTE_RWU;
#else
    root[WINDOW >> 22] = (ulong)s->ptes | PTE_RWU;
#endif
    s->root = (ulong)root;
}

void space_map(struct space *s, unsigned page, const void *to, ulong flags) {
    s->ptes[page] = (ulong)to | flags;
}

void space_use(const struct space *s) {
    write_cr3(s->root);
}

void space_leave(void) {
    write_cr3((ulong)boot_root);
}
