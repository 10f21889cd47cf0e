/*
 * MMU_TRACE: shadows of many address spaces are kept coherent with the guest's page
 * tables, so that a CR3 load need not drop anything.
 *
 * Every table page that an entry was filled from has a record (struct dep) that says for
 * which space, which linear range the table maps, and how much each of its entries maps;
 * and it carries MEM_TRACE_PT. Before a store changes a table entry that is present, what
 * was filled through that entry is dropped, in every space that has a record. An entry
 * that is not present has nothing in the shadow.
 *
 * A table page that is only written (it has become ordinary memory, or is being torn
 * down) gives up its trace after GIVE_UP stores: all that was filled through it is
 * dropped, then nothing depends on it.
 *
 * PAE page-directory pointers are registers (loaded by CR3 loads), not traced; spaces
 * are told apart by their values instead.
 */
#include "cpu/smp.h"
#include "mmu/mmu_int.h"
#include "x86/pte.h"

#include <errno.h>
#include <stdlib.h>

#define GIVE_UP 32

int mmu_dep_create(struct mmu_priv *m) {
    size_t pages = mem_host_size(m->mem) >> 12;
    m->dep = calloc(MMU_DEPS, sizeof(*m->dep));
    m->dep_head = calloc(pages, sizeof(*m->dep_head));
    m->dep_hits = calloc(pages, 1);
    if (!m->dep || !m->dep_head || !m->dep_hits)
        return -ENOMEM;
    for (uint32_t i = 1; i + 1 < MMU_DEPS; i++)
        m->dep[i].page_next = i + 1;
    m->dep_free = 1;
    return 0;
}

void mmu_dep_destroy(struct mmu_priv *m) {
    free(m->dep);
    free(m->dep_head);
    free(m->dep_hits);
}

static void unlink_from_page(struct mmu_priv *m, uint32_t id) {
    uint32_t page = m->dep[id].page;
    uint32_t *p = &m->dep_head[page];
    while (*p != id)
        p = &m->dep[*p].page_next;
    *p = m->dep[id].page_next;
    if (!m->dep_head[page])
        mem_trace_remove(m->mem, m->ram + ((size_t)page << 12), MEM_TRACE_PT);
}

static void unlink_from_space(struct mmu_priv *m, uint32_t id) {
    struct dep *d = &m->dep[id];
    if (d->space_next)
        m->dep[d->space_next].space_prev = d->space_prev;
    if (d->space_prev)
        m->dep[d->space_prev].space_next = d->space_next;
    else
        m->space[d->space].deps = d->space_next;
}

static void release(struct mmu_priv *m, uint32_t id) {
    m->dep[id].page_next = m->dep_free;
    m->dep_free = id;
}

/* The records of a space, whose entries the caller drops. */
void mmu_dep_drop_space(struct mmu_priv *m, struct space *s) {
    for (uint32_t id = s->deps, next; id; id = next) {
        next = m->dep[id].space_next;
        unlink_from_page(m, id);
        release(m, id);
    }
    s->deps = 0;
}

static void drop_everything(struct mmu_priv *m) {
    for (unsigned i = 0; i < m->space_count; i++) {
        mmu_space_flush(m, &m->space[i], false);
        mmu_dep_drop_space(m, &m->space[i]);
    }
}

/* Log2 of the bytes that a whole table maps, from what one of its entries maps. */
static unsigned table_shift(const struct mmu_priv *m, unsigned shift) {
    return shift + (m->paging == PAGING_32 ? 10 : 9);
}

static void add_step(struct mmu_priv *m, uint64_t at, const struct walk_step *step) {
    uint32_t page = (uint32_t)((size_t)(step->host - m->ram) >> 12);
    uint64_t base = at & ~((1ull << table_shift(m, step->shift)) - 1);
    uint8_t space = (uint8_t)(m->cur - m->space);
    m->dep_hits[page] = 0;
    for (uint32_t id = m->dep_head[page]; id; id = m->dep[id].page_next) {
        const struct dep *d = &m->dep[id];
        if (d->base == base && d->space == space && d->shift == step->shift)
            return;
    }
    uint32_t id = m->dep_free;
    struct dep *d = &m->dep[id];
    m->dep_free = d->page_next;
    *d = (struct dep){.base = base,
                      .page = page,
                      .page_next = m->dep_head[page],
                      .space_next = m->cur->deps,
                      .space = space,
                      .shift = step->shift};
    if (d->space_next)
        m->dep[d->space_next].space_prev = id;
    m->cur->deps = id;
    m->dep_head[page] = id;
    if (!d->page_next)
        mem_trace_add(m->mem, m->ram + ((size_t)page << 12), MEM_TRACE_PT);
}

/* Records what the entry about to be filled for AT depends on. */
void mmu_dep_add(struct mmu_priv *m, uint64_t at, const struct walk *w) {
    uint32_t id = m->dep_free;
    for (unsigned i = 0; i < w->steps && id; i++)
        id = m->dep[id].page_next;
    if (!id)
        drop_everything(m); /* fewer free records than steps: start over */
    for (unsigned i = 0; i < w->steps; i++)
        if (w->step[i].host)
            add_step(m, at, &w->step[i]);
}

/* Drops all that was filled through a table page, and its records. */
static void give_up(struct mmu_priv *m, uint32_t page) {
    for (uint32_t id = m->dep_head[page], next; id; id = next) {
        struct dep *d = &m->dep[id];
        next = d->page_next;
        mmu_space_drop_range(m, &m->space[d->space], d->base,
                             d->base + ((1ull << table_shift(m, d->shift)) - 1));
        unlink_from_space(m, id);
        release(m, id);
    }
    m->dep_head[page] = 0;
    mem_trace_remove(m->mem, m->ram + ((size_t)page << 12), MEM_TRACE_PT);
}

/* LEN bytes at AT. */
struct written {
    struct gpa at;
    unsigned len;
};

static void drop_written(struct vcpu *v, void *arg) {
    const struct written *w = arg;
    struct mmu_priv *m = mmu_priv(v);
    struct gpa at = w->at;
    unsigned len = w->len;
    const uint8_t *host = mem_host(m->mem, at, len);
    if (m->own_update || !host || !len || m->policy != MMU_TRACE)
        return;
    uint32_t page = (uint32_t)((size_t)(host - m->ram) >> 12);
    struct counters *c = mmu_counters(m);
    c->trace_hits_pt++;
    if (++m->dep_hits[page] >= GIVE_UP || len > 64) {
        m->dep_hits[page] = 0;
        c->trace_invalidations++;
        give_up(m, page);
        return;
    }
    unsigned log = m->paging == PAGING_32 ? 2 : 3;
    unsigned first = (unsigned)(at.a & 4095) >> log;
    unsigned last = (unsigned)((at.a & 4095) + len - 1) >> log;
    bool dropped = false;
    for (unsigned i = first; i <= last; i++) {
        /* P is in the entry's first byte, whatever its width. */
        if (!(m->ram[((size_t)page << 12) + ((size_t)i << log)] & X86_PTE_P))
            continue;
        for (uint32_t id = m->dep_head[page]; id; id = m->dep[id].page_next) {
            const struct dep *d = &m->dep[id];
            uint64_t lo = d->base + ((uint64_t)i << d->shift);
            mmu_space_drop_range(m, &m->space[d->space], lo,
                                 lo + ((1ull << d->shift) - 1));
        }
        dropped = true;
    }
    c->trace_invalidations += dropped;
}

/* By whichever thread: a device's, too. */
void mmu_pt_written(void *arg, struct gpa at, unsigned len) {
    struct written w = {.at = at, .len = len};

    vcpu_call(arg, drop_written, &w);
}
