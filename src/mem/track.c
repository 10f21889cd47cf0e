/*
 * Which pages have been written to since somebody looked: for snapshots that have only
 * those, and for copying memory while the guest runs.
 *
 * A page that nobody has written to has MEM_TRACE_DIRTY, so that no shadow has a write
 * entry for it. The first store takes the slow path, ends in mem_trace_hit() as that to
 * any traced page does, and takes the trace off: the page is dirty, and costs nothing any
 * more. So the traces are the list, and every way to memory that honours traces is in it.
 *
 * Who writes to memory past the shadow and past mem_store() (a kernel's hypervisor, for
 * its guest) keeps a list of its own, and says what is in it (mem_track_written()).
 *
 * A page whose traces go as a whole (mem_reset(), a region that is removed) is dirty,
 * too.
 */
#include "mem/mem_int.h"

#define EIGHT 0x0101010101010101ull

/* Pages 8 N to 8 N + 7 as one word of their bytes. */
static uint64_t *eight(const struct mem *m, uint64_t n) {
    return (uint64_t *)(void *)(m->page + 8 * n);
}

bool mem_tracked(const struct mem *m) {
    return m->tracked;
}

static void watch_page(struct mem *m, uint64_t page) {
    __atomic_fetch_or(&m->page[page], (uint8_t)MEM_TRACE_DIRTY, __ATOMIC_SEQ_CST);
}

void mem_track_start(struct mem *m) {
    const uint64_t all = MEM_TRACE_DIRTY * EIGHT;
    uint64_t pages = m->host >> PAGE_SHIFT;

    mem_lock(m);
    m->tracked = true;
    for (uint64_t n = 0; n < pages / 8; n++)
        __atomic_fetch_or(eight(m, n), all, __ATOMIC_RELAXED);
    for (uint64_t page = pages & ~7ull; page < pages; page++)
        watch_page(m, page);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (m->hooks.drop_writes)
        m->hooks.drop_writes(m->hooks.drop_arg);
    mem_unlock(m);
}

/* Those of the page's word that have been written to, as their lowest bits. */
static uint64_t written_of(const struct mem *m, uint64_t n) {
    return ~__atomic_load_n(eight(m, n), __ATOMIC_RELAXED) / MEM_TRACE_DIRTY & EIGHT;
}

uint64_t mem_track_count(const struct mem *m) {
    uint64_t pages = m->host >> PAGE_SHIFT, count = 0;

    if (!m->tracked)
        return pages;
    for (uint64_t n = 0; n < pages / 8; n++)
        count += (unsigned)__builtin_popcountll(written_of(m, n));
    for (uint64_t page = pages & ~7ull; page < pages; page++)
        count += !(m->page[page] & MEM_TRACE_DIRTY);
    return count;
}

static void take(struct mem *m, uint64_t page, uint64_t *bits) {
    bits[page / 64] |= 1ull << page % 64;
    mem_trace_add(m, m->layout.base + (page << PAGE_SHIFT), MEM_TRACE_DIRTY);
}

void mem_track_collect(struct mem *m, uint64_t *bits) {
    uint64_t pages = m->host >> PAGE_SHIFT;

    mem_lock(m);
    for (uint64_t n = 0; n < pages / 8; n++)
        for (uint64_t w = written_of(m, n); w; w &= w - 1)
            take(m, 8 * n + (unsigned)__builtin_ctzll(w) / 8, bits);
    for (uint64_t page = pages & ~7ull; page < pages; page++)
        if (!(m->page[page] & MEM_TRACE_DIRTY))
            take(m, page, bits);
    mem_unlock(m);
}

void mem_track_written(struct mem *m, uint64_t page) {
    if (page < m->host >> PAGE_SHIFT)
        __atomic_fetch_and(&m->page[page], (uint8_t)~MEM_TRACE_DIRTY, __ATOMIC_SEQ_CST);
}
