/*
 * A cell's page tables follow the shadow: faults, what is mapped around them, what the
 * shadow has dropped. Vector state is parked.
 */
#include <errno.h>

#include "cpu/stops.h"
#include "direct/abi.h"
#include "direct/direct_int.h"
#include "direct/scan.h"
#include "sem/sem.h"

#define PROT_OF_READ 1 /* <sys/mman.h> */
#define PROT_OF_WRITE 2
#define PROT_OF_EXEC 4
#define LOWEST 0x10000u /* vm.mmap_min_addr */
#define AROUND 32u      /* pages that are looked at behind one that faulted */
#define BEFORE 15u      /* and in front of it */

/* --- what goes --- */

static int unmap_all(struct direct *d, struct space *s) {
    d->n.flushes++;
    d->unmapped = true;
    space_clear(s);
    return cell_unmap_all(s->cell);
}

/* After a flush page AT may stay mapped as it is if it would be mapped so now: its tables
 * say the same, and what the MMU would have to be asked for (bits A and D, a trace) is
 * not needed. */
static bool may_stay(struct direct *d, struct space *s, uint64_t at, unsigned rights,
                     uint32_t ram) {
    bool large = false;
    uint8_t *host;

    /* Noted first, for it may be traced from the moment on that it was looked at. */
    if (rights & WRITE && !codes_add(&d->kept, ram, (unsigned)(s - d->space), at)) {
        direct_begin_anew(d);
        return false;
    }
    if (rights & ~mmu_may_keep(d->v, gva(at), &host, &large) ||
        direct_ram_page(d, host) != ram)
        return false;
    if (large)
        space_set_large(s, at);
    return true;
}

/* Of its pages such a part has gone: the program has changed its ways. */
#define CHANGED 8u

/* The shadow was flushed, which a program has done whenever it gives much of its memory
 * back: nearly all else that is mapped is as it was. */
static void look_again(struct direct *d, struct space *s) {
    unsigned stay = 0, go = 0;

    s->unsure = false;
    d->n.looks++;
    for (unsigned n = 0; n < s->used && !s->all_stale; n++) {
        unsigned rights;
        uint32_t ram;
        uint64_t at = space_noted(s, n, &rights, &ram);

        if (!rights)
            continue;
        if (may_stay(d, s, at, rights, ram)) {
            stay++;
            continue;
        }
        space_drop(s, at);
        go++;
    }
    d->n.stayed += stay;
    if (go > stay)
        s->all_stale = true;
    if (go > stay / CHANGED)
        direct_program_changed(d);
}

/* Pages that follow each other are one order. */
static int drop_stale(struct direct *d, struct space *s) {
    uint64_t at = 0, pages = 0;
    int rc = 0;

    if (s->maps > SPACE_MAPS)
        s->all_stale = true;
    if (s->unsure && !s->all_stale) {
        if (d->opt.outlast)
            look_again(d, s);
        else
            s->all_stale = true;
    }
    if (s->all_stale)
        return unmap_all(d, s);
    for (unsigned n = 0; n < s->nstale && !rc; n++) {
        uint64_t page = s->stale[n];

        if (!space_rights(s, page))
            continue;
        space_forget(s, page);
        d->n.unmaps++;
        if (pages && at + (pages << 12) == page) {
            pages++;
            continue;
        }
        rc = pages ? cell_unmap(s->cell, at, pages) : 0;
        s->maps++;
        at = page;
        pages = 1;
    }
    s->nstale = 0;
    return rc || !pages ? rc : cell_unmap(s->cell, at, pages);
}

int direct_map_anew(struct direct *d, struct space *s) {
    int rc = unmap_all(d, s);

    return rc ? rc : cell_sync(s->cell);
}

/* Where the host has a limit, some orders were not carried out. */
static int carry_out(struct direct *d, struct space *s) {
    int rc = cell_sync(s->cell);

    return rc == -ENOMEM ? direct_map_anew(d, s) : rc;
}

/* A page is read as data now: no cell executes a copy of it. */
static void obey_reads(struct direct *d) {
    uint32_t reads = __atomic_load_n(&d->sh->reads, __ATOMIC_SEQ_CST);

    if (likely(reads == d->reads))
        return;
    d->reads = reads;
    for (unsigned n = 0; n < MMU_SPACES_MAX; n++)
        d->space[n].all_stale = true;
}

/* Batches, of which one is waited for, and its CPU time taken; those that unmap
 * everything are not like others. */
#define MEASURED 64u

int direct_catch_up(struct direct *d, struct space *s) {
    uint64_t had, took;
    unsigned orders;
    int rc;

    obey_reads(d);
    rc = drop_stale(d, s);
    orders = cell_orders(s->cell);
    if (rc || !orders)
        return rc;
    if (d->synced++ % MEASURED && !d->unmapped) { /* carried out on its way in */
        d->orders_ns += orders * d->order_ns;
        return 0;
    }
    had = cell_cpu_ns(s->cell);
    rc = carry_out(d, s);
    took = cell_cpu_ns(s->cell) - had;
    d->orders_ns += took;
    if (!d->unmapped)
        d->order_ns = d->order_ns ? (3 * d->order_ns + took / orders) / 4 : took / orders;
    d->unmapped = false;
    return rc;
}

/* --- what comes --- */

static bool is_ram(const struct direct *d, const uint8_t *host) {
    const struct mem *m = d->v->mem;

    return host && (uint64_t)(host - mem_ram_base(m)) < mem_ram_size(m) &&
           mem_kind_of(m, host) == MEM_RAM;
}

static bool is_read(const struct direct *d, const uint8_t *host) {
    uint64_t page = (uint64_t)(host - mem_ram_base(d->v->mem)) >> 12;

    return __atomic_load_n(&d->sh->page[page].read, __ATOMIC_SEQ_CST);
}

/* A debugger's, which a cell does not see: the page is translated. When they change the
 * shadow's entries go, and with them what the cells have. */
static bool has_breaks(const struct direct *d, uint64_t at) {
    const struct vcpu_stops *s = d->v->stops;

    return s && vcpu_breaks_within(s, at, 4096);
}

/* The rights that the cell may have to page AT, which the shadow holds, and where it is.
 * *HOW: whether its code is wanted; and then, as what it is to be mapped. A copy's
 * bytes are not all the guest's, so it is for pages only that were not read as data
 * (docs/errata.md). */
static unsigned rights_of(struct direct *d, const struct space *s, uint64_t at,
                          enum how_run *how, uint8_t **host) {
    const struct mmu *mmu = d->v->mmu;
    uint8_t *r, *w, *x = mmu_hit(mmu->code, gva(at), 1, MMU_EXEC);
    unsigned rights;

    if (*how != RUN_NOT)
        *how =
            is_ram(d, x) && !has_breaks(d, at) ? direct_executable(d, s, at, x) : RUN_NOT;
    /* What is there now, for the lock may have been waited for. */
    r = mmu_hit(mmu->data, gva(at), 1, MMU_READ);
    w = mmu_hit(mmu->data, gva(at), 1, MMU_WRITE);
    x = mmu_hit(mmu->code, gva(at), 1, MMU_EXEC);
    rights = (r ? READ : 0) | (w ? WRITE : 0);
    *host = r ? r : w ? w : x;
    if (!is_ram(d, *host))
        return 0;
    if (x != *host || (w && *how != RUN_AS_WRITTEN) ||
        (*how == RUN_AS_COPY && (r || is_read(d, x))))
        *how = RUN_NOT;
    if (*how != RUN_NOT)
        rights |= READ | EXEC;
    return rights;
}

static int prot_of(unsigned rights) {
    return PROT_OF_READ | (rights & WRITE ? PROT_OF_WRITE : 0) |
           (rights & EXEC ? PROT_OF_EXEC : 0);
}

static bool allowed(uint64_t at) {
    return at >= LOWEST && at < CELL_TOP && (at + 4096 <= CELL_LOW || at >= CELL_HIGH);
}

/* Pages that follow each other in both the guest's addresses and RAM. */
struct run {
    uint64_t at, pages, offset;
    int prot;
};

static int flush_run(struct direct *d, struct space *s, struct run *r) {
    int rc = r->pages ? cell_map(s->cell, r->at, r->pages, r->prot, r->offset) : 0;

    d->n.pages += r->pages;
    d->n.batches += r->pages != 0;
    s->maps += r->pages != 0;
    r->pages = 0;
    return rc;
}

static int add_to_run(struct direct *d, struct space *s, struct run *r, uint64_t at,
                      uint64_t offset, int prot) {
    int rc = 0;

    if (r->pages && (r->at + (r->pages << 12) != at ||
                     r->offset + (r->pages << 12) != offset || r->prot != prot))
        rc = flush_run(d, s, r);
    if (!r->pages)
        *r = (struct run){.at = at, .offset = offset, .prot = prot};
    r->pages++;
    return rc;
}

#define PIECES_OF_COPY 3u /* that the host may have made of what is mapped */

static int map_copy(struct direct *d, struct space *s, uint64_t at, uint64_t offset,
                    const uint16_t *place, int count, struct run *r) {
    int rc = flush_run(d, s, r);

    s->maps += PIECES_OF_COPY;
    d->n.copies++;
    return rc ? rc
              : cell_map_copy(s->cell, at, offset, place, (unsigned)count, SCAN_FAULTS);
}

/* Maps page AT if the shadow has it. False: it has not, or the cell is not to. A copy is
 * mapped only for who EXECUTES it: who reads it before is seen to. */
static bool map_page(struct direct *d, struct space *s, uint64_t at, bool code,
                     bool executes, struct run *r) {
    struct mem *m = d->v->mem;
    enum how_run how = code ? RUN_AS_IT_IS : RUN_NOT;
    uint16_t place[PLACES];
    uint64_t offset;
    uint8_t *host;
    unsigned rights;
    bool noted;
    int count = 0;

    if (!allowed(at))
        return false;
    if (code)
        mem_lock(m);
    rights = rights_of(d, s, at, &how, &host);
    if (rights && how == RUN_AS_COPY)
        count = executes ? direct_places_of_copy(d, at, host, place) : -1;
    if (count < 0) /* or what is around it is not what it was */
        rights = 0;
    noted = rights && space_note(s, at, rights, direct_ram_page(d, host));
    if (code)
        mem_unlock(m);
    if (rights && !noted) /* no room */
        s->all_stale = true;
    if (!noted)
        return false;
    offset = (uint64_t)(host - mem_ram_base(m));
    /* Should an order fail, the next ones will, and the cell is given up. */
    return !(how == RUN_AS_COPY ? map_copy(d, s, at, offset, place, count, r)
                                : add_to_run(d, s, r, at, offset, prot_of(rights)));
}

/* It may be read, and is no code: of that it is to be known whether the guest reads it.
 */
static bool is_data(struct vcpu *v, uint64_t at, bool writable) {
    return (writable || !mmu_fetch(v, gva(at))) &&
           !mmu_probe(v, gva(at), 1, MMU_READ, false);
}

/* Page AT, near PAGE, which is wanted, is not mapped yet, and the guest has it. */
static bool comes_along(struct direct *d, const struct space *s, uint64_t at,
                        uint64_t page, bool code) {
    struct gpa where;
    bool writable;

    if (at >> 21 != page >> 21 || space_rights(s, at) ||
        !mmu_peek(d->v, gva(at), &where, &writable))
        return false;
    return code ? mmu_fetch(d->v, gva(at)) != NULL : is_data(d->v, at, writable);
}

/* The neighbours of a page that was wanted: those that are mapped in the guest, too. */
static void map_before(struct direct *d, struct space *s, uint64_t page, bool code,
                       struct run *r) {
    struct fault kept = d->v->fault;
    uint64_t n = 0;

    while (n < BEFORE && d->opt.around &&
           comes_along(d, s, page - (n + 1) * 4096, page, code))
        n++;
    for (; n; n--)
        map_page(d, s, page - n * 4096, code, false, r);
    d->v->fault = kept;
}

static void map_behind(struct direct *d, struct space *s, uint64_t page, bool code,
                       struct run *r) {
    struct fault kept = d->v->fault;

    for (unsigned n = 1; n < AROUND && d->opt.around; n++) {
        uint64_t at = page + n * 4096ull;

        if (!comes_along(d, s, at, page, code) || !map_page(d, s, at, code, false, r))
            break;
    }
    d->v->fault = kept;
}

/* --- faults --- */

static bool allows(struct vcpu *v, uint64_t at, enum mmu_access acc) {
    return acc == MMU_EXEC ? mmu_fetch(v, gva(at)) != NULL
                           : !mmu_probe(v, gva(at), 1, acc, false);
}

/* Page PAGE, and what is behind it. False: the cell is not to have it so. */
static bool map_for(struct direct *d, struct space *s, uint64_t page, enum mmu_access acc,
                    struct run *r) {
    bool code = acc == MMU_EXEC;

    map_before(d, s, page, code, r);
    if (!map_page(d, s, page, code, code, r) || !(space_rights(s, page) & 1u << acc))
        return false;
    map_behind(d, s, page, code, r);
    return true;
}

/* The cell was refused an access that the guest's tables allow. */
static enum direct_out hidden(struct direct *d, struct space *s, uint64_t page,
                              enum mmu_access acc, bool *again) {
    bool code = acc == MMU_EXEC;
    struct run r = {0};

    d->comes_back = space_knows(s, page);
    d->new_code = code && !d->comes_back;
    if (drop_stale(d, s) || space_rights(s, page) & 1u << acc)
        return DIRECT_INTERPRET; /* it is mapped, and yet it faults */
    *again = map_for(d, s, page, acc, &r) || s->all_stale;
    flush_run(d, s, &r);
    if (*again || !code) /* a device's, or a store to a page with traces */
        return DIRECT_INTERPRET;
    d->n.refused++;
    return DIRECT_TRANSLATE;
}

enum direct_out direct_page_fault(struct direct *d, struct space *s,
                                  const struct cell_exit *e, bool *again) {
    struct vcpu *v = d->v;
    enum mmu_access acc = e->error & 16 ? MMU_EXEC : e->error & 2 ? MMU_WRITE : MMU_READ;
    uint64_t page = e->cr2 & ~4095ull;

    *again = false;
    d->n.faults++;
    if (!allowed(page)) /* nothing of the guest's is there, or the interpreter sees it */
        return DIRECT_INTERPRET;
    if (allows(v, e->cr2, acc))
        return hidden(d, s, page, acc, again);
    d->n.true_faults++;
    d->expected = (struct expected){v->cr3, v->rip, e->cr2, acc};
    return sem_deliver(v) == SEM_SHUTDOWN ? DIRECT_SHUTDOWN : DIRECT_EVENTS;
}

/* The guest goes on at the instruction that its kernel was to get a page for, and
 * executes it next: what it comes out for otherwise is mapped at once. */
void direct_foresee(struct direct *d, struct space *s) {
    const struct expected e = d->expected;
    uint64_t page = e.at & ~4095ull;
    struct fault kept = d->v->fault;
    struct run r = {0};

    d->expected.cr3 = 0;
    if (e.cr3 != d->v->cr3 || e.rip != d->v->rip || space_rights(s, page) & 1u << e.acc ||
        drop_stale(d, s))
        return;
    if (allows(d->v, e.at, e.acc) && map_for(d, s, page, e.acc, &r))
        d->n.foreseen++;
    d->v->fault = kept;
    flush_run(d, s, &r);
}
