/*
 * Which code a cell's CPU executes, and how: as it is, as a copy in which some
 * instructions fault, or as its program writes it. A page that is executed has a trace:
 * who stores to it is seen, and it is executed nowhere until it is wanted again.
 */
#include "base/os.h"
#include "direct/direct_int.h"
#include "direct/scan.h"
#include "x86/cr.h"

/* A page that is code and is written again and again is not for cells, for a while: not
 * if it has had WRITES stores, one of which is forgotten with each tick of page_clock().
 * A store, and what follows until it is executed again, take a twentieth of such a tick.
 */
#define WRITES 16u
#define MOST_WRITES 32u

static uint32_t page_clock(void) {
    return (uint32_t)(os_tsc() >> 22); /* one or two milliseconds */
}

static unsigned writes_of(const struct code_page *c) {
    uint32_t ticks = page_clock() - c->written_at;

    return c->writes > ticks ? c->writes - ticks : 0;
}

uint32_t direct_ram_page(const struct direct *d, const uint8_t *host) {
    return (uint32_t)((host - mem_ram_base(d->v->mem)) >> 12);
}

/* LEN bytes of the guest's at AT, within a page, if there are some. */
static const uint8_t *bytes_at(const struct direct *d, uint64_t at, unsigned len) {
    struct gpa where;
    bool writable;

    if (!mmu_peek(d->v, gva(at), &where, &writable))
        return NULL;
    return mem_host(d->v->mem, where, len);
}

static uint64_t host_xcr0(void) {
    uint32_t lo, hi;

    __asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* HOW but for TSC_AUX. */
static unsigned scan_how(const struct direct *d) {
    uint64_t xcr0 = host_xcr0();

    return (xcr0 != d->v->xcr0 ? SCAN_XCR0 : 0) | (xcr0 & X86_XCR0_PKRU ? SCAN_PKRU : 0);
}

static struct scan_page scanned(const struct direct *d, uint64_t at,
                                const uint8_t *host) {
    return (struct scan_page){
        .bytes = host,
        .before = bytes_at(d, at - SCAN_BEFORE, SCAN_BEFORE),
        .behind = bytes_at(d, at + 4096, 2),
    };
}

/* OWN: SCAN_OWN, or none. */
static int places(const struct direct *d, uint64_t at, const uint8_t *host, unsigned own,
                  uint16_t *place) {
    const struct scan_page page = scanned(d, at, host);

    return scan_places(&page, scan_how(d) | SCAN_AUX | own, place, PLACES);
}

static enum verdict judge(const struct direct *d, uint64_t at, const uint8_t *host) {
    const struct scan_page page = scanned(d, at, host);
    uint16_t place[PLACES];

    if (!scan_refuses(&page, scan_how(d) | SCAN_AUX))
        return VERDICT_GOOD;
    if (!scan_refuses(&page, scan_how(d)))
        return VERDICT_AUX;
    if (!scan_refuses(&page, scan_how(d) | SCAN_AUX | SCAN_OWN))
        return VERDICT_OWN;
    if (places(d, at, host, SCAN_OWN, place) > 0)
        return VERDICT_ASKS;
    return places(d, at, host, 0, place) < 0 ? VERDICT_REFUSED : VERDICT_COPY;
}

static void hold(struct direct *d, struct code_page *c, uint32_t page,
                 const struct space *s, uint64_t at) {
    c->holders |= 1ull << d->index;
    if (codes_add(&d->codes, page, (unsigned)(s - d->space), at))
        return;
    direct_begin_anew(d);
    codes_add(&d->codes, page, (unsigned)(s - d->space), at);
}

/* What page AT holds is what the program makes as it goes: it has done so, or its tables
 * let it. It has numbers beside its code, which it reads: a copy would show it others. */
static bool is_own(const struct direct *d, uint64_t at, const struct code_page *c,
                   bool *writable) {
    struct gpa where;

    if (!mmu_peek(d->v, gva(at), &where, writable))
        *writable = false;
    return c->made || *writable;
}

static bool cpuid_faults(const struct space *s) {
    return cell_faults(s->cell) & CELL_CPUID_FAULTS;
}

/* The program gets a cell in which it does, where there are such. */
static void make_cpuid_fault(struct direct *d) {
    if (d->opt.rewrite && cell_pool_can_fault(d->pool, CELL_CPUID_FAULTS))
        direct_set_rewrites(d);
}

/* Among these numbers are many that look like CPUID: where that faults they do no harm,
 * and who may write and execute at once gets such a cell. */
static enum how_run how_run_own(struct direct *d, const struct space *s,
                                enum verdict verdict, bool writable) {
    if (verdict == VERDICT_AUX)
        return d->aux_equal ? RUN_AS_IT_IS : RUN_NOT;
    if (verdict != VERDICT_OWN && verdict != VERDICT_ASKS)
        return RUN_NOT;
    if (cpuid_faults(s))
        return verdict == VERDICT_OWN ? RUN_AS_IT_IS : RUN_AS_COPY;
    if (writable)
        make_cpuid_fault(d);
    return RUN_NOT;
}

static enum how_run how_run(struct direct *d, const struct space *s, uint64_t at,
                            const struct code_page *c) {
    bool writable;

    if (c->verdict == VERDICT_GOOD)
        return RUN_AS_IT_IS;
    if (c->verdict == VERDICT_REFUSED)
        return RUN_NOT;
    if (is_own(d, at, c, &writable))
        return how_run_own(d, s, c->verdict, writable);
    return c->verdict == VERDICT_AUX && d->aux_equal ? RUN_AS_IT_IS : RUN_AS_COPY;
}

/* Code that is written and executed in turn is executed as it is, and nobody looks when
 * it is written: where CPUID faults in any case, as what it was so far has none of the
 * other instructions that would be a lie (docs/errata.md). */
static enum how_run how_written(struct direct *d, const struct space *s, uint64_t at,
                                const uint8_t *host) {
    enum verdict v;

    if (!cpuid_faults(s)) {
        make_cpuid_fault(d);
        return RUN_NOT;
    }
    v = judge(d, at, host);
    d->sh->xcr0 = d->v->xcr0;
    d->n.scans++;
    return v == VERDICT_GOOD || v == VERDICT_OWN || (v == VERDICT_AUX && d->aux_equal)
               ? RUN_AS_WRITTEN
               : RUN_NOT;
}

enum how_run direct_executable(struct direct *d, const struct space *s, uint64_t at,
                               uint8_t *host) {
    struct mem *m = d->v->mem;
    uint32_t page = direct_ram_page(d, host);
    struct code_page *c = &d->sh->page[page];
    enum how_run how;

    if (writes_of(c) >= WRITES)
        return how_written(d, s, at, host);
    mem_trace_add(m, host, MEM_TRACE_DIRECT);
    if (c->verdict == VERDICT_NONE) {
        c->verdict = (uint8_t)judge(d, at, host);
        d->sh->xcr0 = d->v->xcr0;
        d->n.scans++;
    }
    how = how_run(d, s, at, c);
    if (how == RUN_AS_COPY && !d->opt.copies)
        how = RUN_NOT;
    if (how != RUN_NOT)
        hold(d, c, page, s, at);
    return how;
}

int direct_places_of_copy(const struct direct *d, uint64_t at, const uint8_t *host,
                          uint16_t *place) {
    bool writable;
    unsigned own =
        is_own(d, at, &d->sh->page[direct_ram_page(d, host)], &writable) ? SCAN_OWN : 0;

    return places(d, at, host, own, place);
}

/* --- stores to code --- */

struct written {
    struct direct *d;
    uint32_t page;
};

static void drop_one(void *arg, unsigned space, uint64_t at) {
    struct direct *d = arg;
    struct space *s = &d->space[space];

    if (s->cell && space_rights(s, at) & EXEC)
        space_drop(s, at);
}

static void drop_code(struct vcpu *v, void *arg) {
    const struct written *w = arg;

    codes_each(&w->d->codes, w->page, drop_one, w->d);
}

/* The lock of traces is held: those who hold the page are told before its bytes change.
 */
void direct_code_written(void *arg, struct gpa at, unsigned len) {
    struct direct *d = arg;
    struct direct_shared *sh = d->sh;
    struct mem *m = d->v->mem;
    uint8_t *host = mem_host(m, gpa(at.a & ~4095ull), 4096);
    uint32_t page = host ? direct_ram_page(d, host) : UINT32_MAX;
    const struct vcpu *who = vcpu_current();
    struct code_page *c;

    if (page >= sh->pages)
        return;
    c = &sh->page[page];
    mem_trace_remove(m, host, MEM_TRACE_DIRECT);
    c->verdict = VERDICT_NONE;
    c->read = 0;
    c->made = who && who->cpl == 3;
    c->writes = (uint8_t)(writes_of(c) + (writes_of(c) < MOST_WRITES));
    c->written_at = page_clock();
    for (unsigned n = 0; n < sh->members; n++) {
        struct written w = {sh->member[n], page};

        if (c->holders >> n & 1 && w.d)
            vcpu_call(w.d->v, drop_code, &w);
    }
    c->holders = 0;
    d->n.written++;
}
