/*
 * What an observer of the MMU is told: a model that knows nothing else has, after each of
 * many random operations, the same entries as the banks in use, in each policy.
 */
#include "cpu/cpuid.h"
#include "mmu/mmu.h"
#include "x86/cr.h"
#include "x86/exception.h"
#include "x86/pte.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RAM (8ull << 20)
#define ROOTS 3
#define ROOT(n) (0x10000ull + (n)*0x1000)
#define L3 0x14000ull
#define L2 0x15000ull
#define L1 0x16000ull
#define FAR_L1 0x17000ull
#define FAR_L2 0x18000ull
#define PWU (X86_PTE_P | X86_PTE_W | X86_PTE_U)
#define PAGES 24u
/* The slots of the first pages, once more: 0x20 undoes what the hash moves it by. */
#define FAR ((2 * (uint64_t)SHADOW_ENTRIES + 0x20) << 12)
_Static_assert(SHADOW_ENTRIES == 1u << 18, "FAR");
#define USED 4096u /* slots that all of these have */

struct known {
    uint64_t page;
    uint8_t *host;
    uint8_t access;
    bool used, global;
};

struct model {
    struct known e[MMU_SPACES_MAX][BANK_COUNT][SHADOW_ENTRIES];
    unsigned user, super;
    unsigned fills, drops, write_drops, flushes, switches;
};

static struct vcpu *v;
static struct model *model;
static struct counters cnt;
static uint64_t seed = 1;

static unsigned random_below(unsigned n) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(seed >> 33) % n;
}

static struct known *slot(struct model *m, unsigned space, enum mmu_bank bank,
                          uint64_t page) {
    assert_in_range(space, 0, MMU_SPACES_MAX - 1);
    assert_in_range(bank, 0, BANK_COUNT - 1);
    assert_int_equal(page & 4095, 0);
    return &m->e[space][bank][mmu_index(page)];
}

static void on_filled(void *arg, const struct mmu_entry *e) {
    struct model *m = arg;
    struct known *k = slot(m, e->space, e->bank, e->page);

    assert_true(mmu_index(e->page) < USED);
    m->fills++;
    assert_true(!k->used || k->page == e->page); /* else the other has not gone */
    *k = (struct known){e->page, e->host, e->access, true, e->global};
    assert_true(e->shift == 12 || e->shift == 21);
}

static void on_dropped(void *arg, unsigned space, enum mmu_bank bank, uint64_t page) {
    struct model *m = arg;
    struct known *k = slot(m, space, bank, page);

    m->drops++;
    assert_true(k->used && k->page == page);
    k->used = false;
}

static void on_write_dropped(void *arg, unsigned space, enum mmu_bank bank,
                             uint64_t page) {
    struct model *m = arg;
    struct known *k = slot(m, space, bank, page);

    m->write_drops++;
    assert_true(k->used && k->page == page && (k->access & 1u << MMU_WRITE));
    k->access &= (uint8_t) ~(1u << MMU_WRITE);
}

static void on_flushed(void *arg, unsigned space, bool but_global) {
    struct model *m = arg;

    m->flushes++;
    for (unsigned b = 0; b < BANK_COUNT; b++)
        for (unsigned i = 0; i < USED; i++)
            m->e[space][b][i].used &= but_global && m->e[space][b][i].global;
}

static void on_switched(void *arg, unsigned user, unsigned super) {
    struct model *m = arg;

    m->switches++;
    m->user = user;
    m->super = super;
}

static const struct mmu_observer observer = {.filled = on_filled,
                                             .dropped = on_dropped,
                                             .write_dropped = on_write_dropped,
                                             .flushed = on_flushed,
                                             .switched = on_switched};

/* All slots now and then; else those that the guest's pages have. */
static unsigned how_many(void) {
    static unsigned turn;

    return turn++ % 256 ? USED : SHADOW_ENTRIES;
}

static void same_bank(const struct shadow_bank *b, unsigned space, enum mmu_bank bank) {
    bool code = bank == BANK_SUPER_X || bank == BANK_USER_X;
    unsigned count = how_many();

    for (unsigned i = 0; i < count; i++) {
        const struct known *k = &model->e[space][bank][i];
        const struct shadow_entry *e = &b->e[i];

        for (unsigned acc = 0; acc < 3; acc++) {
            bool told = k->used && (k->access >> acc & 1);
            uint64_t tag = told ? k->page : mmu_no_tag(i);

            if (acc == MMU_EXEC && !code)
                assert_false(told);
            else if (acc != SHADOW_MAPPING || !code)
                assert_int_equal(e->tag[acc], tag);
            if (told)
                assert_ptr_equal(e->host, k->host);
        }
        if (code && e->tag[MMU_EXEC] != mmu_no_tag(i))
            assert_int_equal(e->tag[SHADOW_MAPPING], mmu_mapping(k->page, k->host));
        else if (code)
            assert_int_equal(e->tag[SHADOW_MAPPING], mmu_no_tag(i));
    }
}

static void same(void) {
    bool smap = v->cr4 & X86_CR4_SMAP;

    same_bank(v->shadow.bank_ac, model->super, BANK_SUPER_AC);
    if (smap)
        same_bank(v->shadow.bank_super, model->super, BANK_SUPER);
    same_bank(v->shadow.bank_user, model->user, BANK_USER);
    same_bank(v->shadow.code_user, model->user, BANK_USER_X);
    same_bank(v->shadow.code_super, model->super, BANK_SUPER_X);
}

/* --- the guest: a few pages at two places with the same slots, and a large page --- */

static void put64(uint64_t at, uint64_t val) {
    assert_true(mem_write(v->mem, gpa(at), &val, 8));
}

static uint64_t some_page(void) {
    switch (random_below(3)) {
    case 0:
        return (uint64_t)random_below(PAGES) << 12;
    case 1:
        return FAR + ((uint64_t)random_below(PAGES) << 12);
    default:
        return (2ull << 20) + ((uint64_t)random_below(512) << 12);
    }
}

static void some_pte(void) {
    static const uint64_t bits[] = {X86_PTE_P,  X86_PTE_W,         X86_PTE_U, X86_PTE_G,
                                    X86_PTE_NX, 1ull << 5 /* A */, 1ull << 6 /* D */};
    uint64_t pte = PWU | (0x40000 + ((uint64_t)random_below(32) << 12));

    for (unsigned n = 0; n < ARRAY_SIZE(bits); n++)
        if (!random_below(4))
            pte ^= bits[n];
    put64((random_below(2) ? L1 : FAR_L1 + 8 * (FAR >> 12 & 511)) +
              8ull * random_below(PAGES),
          pte);
}

static void switch_space(enum mmu_policy policy) {
    uint64_t value = ROOT(policy == MMU_TRACE ? random_below(ROOTS) : 0);

    if (v->cr4 & X86_CR4_PCIDE)
        value |= random_below(20) | (random_below(2) ? X86_CR3_NOFLUSH : 0);
    v->cr3 = value & ~X86_CR3_NOFLUSH;
    mmu_cr3_loaded(v, value);
}

static void touch(void) {
    uint64_t at = some_page() + 8ull * random_below(512), x = seed;

    v->cpl = random_below(2) ? 3 : 0;
    v->rflags = random_below(2) ? X86_FL_AC : 0;
    mmu_context_changed(v);
    switch (random_below(4)) {
    case 0:
        mmu_fetch(v, gva(at));
        break;
    case 1:
        mmu_load(v, gva(at), 8, &x);
        break;
    case 2:
        mmu_sys_read(v, gva(at), &x, 8);
        break;
    default:
        mmu_store(v, gva(at), 8, x);
    }
}

static void trace(void) {
    uint8_t *host =
        mem_host(v->mem, gpa(0x40000 + ((uint64_t)random_below(32) << 12)), 1);

    if (random_below(2))
        mem_trace_add(v->mem, host, MEM_TRACE_DIRTY);
    else
        mem_trace_remove(v->mem, host, MEM_TRACE_DIRTY);
}

static void rare(void) {
    switch (random_below(4)) {
    case 0:
        v->cr4 ^= X86_CR4_SMAP;
        mmu_mode_changed(v);
        break;
    case 1:
        v->dr[0] = some_page() | 8;
        v->dr[7] = random_below(2) ? 1 | 0xfu << 16 : 0;
        mmu_breakpoints_changed(v);
        break;
    case 2:
        mem_set_kind(v->mem, gpa(0x40000 + ((uint64_t)random_below(32) << 12)), 0x1000,
                     random_below(2) ? MEM_RAM : MEM_ROM);
        break;
    default:
        mmu_flush_all(v);
    }
}

static void operation(enum mmu_policy policy) {
    switch (random_below(32)) {
    case 0:
    case 1:
        some_pte();
        break;
    case 2:
    case 3:
        mmu_invlpg(v, gva(some_page()));
        break;
    case 4:
    case 5:
        switch_space(policy);
        break;
    case 6:
        mmu_invpcid(v, random_below(4), random_below(20), gva(some_page()));
        break;
    case 7:
    case 8:
        trace();
        break;
    case 9:
        if (!random_below(8))
            rare();
        break;
    case 10:
        if (!random_below(16))
            mmu_trim(v);
        break;
    default:
        touch();
    }
}

static void setup(enum mmu_policy policy) {
    struct cpuid_config cfg = {.tsc_hz = 1000000000};

    v = aligned_alloc(64, (sizeof(*v) + 63) & ~63ull);
    model = calloc(1, sizeof(*model));
    assert_true(v && model);
    memset(v, 0, sizeof(*v));
    v->cnt = &cnt;
    v->cpuid = cpuid_model_new(&cfg);
    assert_non_null(v->cpuid);
    assert_int_equal(mem_create(RAM, &v->mem), 0);
    assert_int_equal(mmu_create(v, policy), 0);
    mmu_hook(v);
    v->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP;
    v->cr3 = ROOT(0);
    v->cr4 = X86_CR4_PAE | X86_CR4_PGE | (policy == MMU_PCID ? X86_CR4_PCIDE : 0);
    v->efer = X86_EFER_LMA | X86_EFER_LME | X86_EFER_NXE;
    v->mode = MODE_64;
    v->long_mode = true;
    v->lin_mask = ~0ull;
    for (unsigned n = 0; n < ROOTS; n++)
        put64(ROOT(n), L3 | PWU);
    put64(L3, L2 | PWU);
    put64(L2, L1 | PWU);
    put64(L2 + 8, (4ull << 20) | PWU | X86_PTE_PS);
    put64(L3 + 8 * (FAR >> 30), FAR_L2 | PWU);
    put64(FAR_L2 + 8 * (FAR >> 21 & 511), FAR_L1 | PWU);
    assert_in_range(mmu_index(FAR), 0, PAGES);
    for (unsigned n = 0; n < PAGES; n++)
        some_pte();
    mmu_mode_changed(v);
}

static void teardown(void) {
    struct mem *m = v->mem;

    mmu_destroy(v);
    mem_destroy(m);
    cpuid_model_free((struct cpuid_model *)(uintptr_t)v->cpuid);
    free(v);
    free(model);
}

static void keeps_a_model(enum mmu_policy policy, const struct mmu_observer *o) {
    setup(policy);
    for (unsigned n = 0; n < 200; n++)
        operation(policy); /* nobody is told yet */
    mmu_observe(v, o, model);
    assert_int_equal(model->switches, 1);
    same();
    for (unsigned n = 0; n < 20000; n++) {
        operation(policy);
        if (n < 2000 || n % 16 == 0)
            same();
    }
    assert_in_range(model->fills, 1000, UINT32_MAX);
    assert_in_range(model->drops, 100, UINT32_MAX);
    assert_in_range(model->write_drops, 10, UINT32_MAX);
    assert_in_range(model->flushes, 10, UINT32_MAX);
    assert_in_range(cnt.shadow_trims, 1, UINT32_MAX);
    mmu_observe(v, NULL, NULL);
    model->fills = model->flushes = 0;
    for (unsigned n = 0; n < 200; n++)
        operation(policy);
    assert_int_equal(model->fills + model->flushes, 0);
    teardown();
}

static void flush_policy(void **state) {
    keeps_a_model(MMU_FLUSH, &observer);
}

static void pcid_policy(void **state) {
    keeps_a_model(MMU_PCID, &observer);
}

static void trace_policy(void **state) {
    keeps_a_model(MMU_TRACE, &observer);
}

/* --- who keeps what the shadow has no room for --- */

static unsigned evictions, invalidations, hosts;
static uint64_t told_lo, told_hi;
static const uint8_t *told_host;

static void on_evicted(void *arg, const struct mmu_entry *e) {
    struct known *k = slot(arg, e->space, e->bank, e->page);

    evictions++;
    assert_true(k->used && k->page == e->page && k->host == e->host &&
                k->access == e->access && k->global == e->global && e->shift == 12);
    k->used = false;
}

static void on_invalidated(void *arg, unsigned space, uint64_t lo, uint64_t hi) {
    assert_in_range(space, 0, MMU_SPACES_MAX - 1);
    invalidations++;
    told_lo = lo;
    told_hi = hi;
}

static void on_host(void *arg, const uint8_t *host) {
    hosts++;
    told_host = host;
}

static const struct mmu_observer keeper = {.filled = on_filled,
                                           .dropped = on_dropped,
                                           .write_dropped = on_write_dropped,
                                           .flushed = on_flushed,
                                           .switched = on_switched,
                                           .evicted = on_evicted,
                                           .invalidated = on_invalidated,
                                           .host_write_dropped = on_host};

static void keeper_keeps_a_model(void **state) {
    keeps_a_model(MMU_PCID, &keeper);
    assert_in_range(evictions, 100, UINT32_MAX);
}

/* It is told of pages that the shadow does not have any more. */
static void kept(void **state) {
    uint8_t *host;
    uint64_t x;

    setup(MMU_PCID);
    put64(L1 + 8 * 5, 0x45000 | PWU);
    put64(FAR_L1 + 8 * ((FAR >> 12 & 511) + 5), 0x46000 | PWU);
    v->cpl = 3;
    mmu_context_changed(v);
    mmu_observe(v, &keeper, model);
    host = mem_host(v->mem, gpa(0x45000), 1);
    assert_int_equal(mmu_index(0x5000), mmu_index(FAR + 0x5000));
    assert_int_equal(mmu_store(v, gva(0x5000), 8, 1), 0);
    evictions = invalidations = 0;
    assert_int_equal(mmu_load(v, gva(FAR + 0x5000), 8, &x), 0);
    assert_int_equal(evictions, 1);
    assert_int_equal(model->drops, 0);
    hosts = 0;
    mem_trace_add(v->mem, host, MEM_TRACE_DIRTY);
    assert_int_equal(hosts, 1);
    assert_ptr_equal(told_host, host);
    assert_int_equal(model->write_drops, 0);
    mem_trace_remove(v->mem, host, MEM_TRACE_DIRTY);
    mmu_invlpg(v, gva(0x5123));
    assert_true(invalidations > 0 && told_lo == 0x5000 && told_hi == 0x5fff);
    assert_int_equal(model->drops, 0);
    teardown();
}

/* An idle CPU's shadow goes, and he is told of what goes from the address space all the
 * same. */
static void kept_when_idle(void **state) {
    const uint64_t large = (2ull << 20) + 0x3000;
    uint64_t x, trims = cnt.shadow_trims;

    setup(MMU_PCID);
    put64(L1 + 8 * 5, 0x45000 | PWU);
    v->cpl = 3;
    mmu_context_changed(v);
    mmu_observe(v, &keeper, model);
    for (unsigned n = 0; n < 1100; n++) {
        assert_int_equal(mmu_load(v, gva(large), 8, &x), 0);
        mmu_invlpg(v, gva(large));
    }
    assert_int_equal(mmu_store(v, gva(0x5000), 8, 1), 0);
    evictions = 0;
    mmu_trim(v);
    assert_int_equal(cnt.shadow_trims, trims + 1);
    assert_int_equal(evictions, 1);
    assert_null(mmu_hit(v->mmu->data, gva(0x5000), 1, MMU_READ));
    invalidations = hosts = 0;
    mmu_invlpg(v, gva(0x5123));
    assert_true(invalidations > 0 && told_lo == 0x5000);
    mem_trace_add(v->mem, mem_host(v->mem, gpa(0x45000), 1), MEM_TRACE_DIRTY);
    assert_int_equal(hosts, 1);
    model->flushes = 0;
    mmu_cr3_loaded(v, v->cr3);
    assert_true(model->flushes > 0);
    teardown();
}

/* After a flush he goes on being told, and can ask what of it may stay. */
static void kept_when_flushed(void **state) {
    const unsigned r = 1u << MMU_READ, w = 1u << MMU_WRITE, x = 1u << MMU_EXEC;
    const uint64_t pages = 0x45000 | PWU | X86_PTE_A;
    uint8_t *host = NULL;
    bool large = true;

    setup(MMU_PCID);
    v->cpl = 3;
    mmu_context_changed(v);
    put64(L1 + 8 * 5, 0x45000 | PWU);
    mmu_observe(v, &keeper, model);
    assert_int_equal(mmu_store(v, gva(0x5000), 8, 1), 0);
    mmu_cr3_loaded(v, v->cr3);
    assert_null(mmu_hit(v->mmu->data, gva(0x5000), 1, MMU_READ));
    invalidations = model->flushes = 0;
    mmu_invlpg(v, gva(0x5123));
    assert_true(invalidations > 0 && told_lo == 0x5000);
    mmu_cr3_loaded(v, v->cr3);
    assert_true(model->flushes > 0); /* though nothing has been filled */
    assert_int_equal(mmu_may_keep(v, gva(0x5678), &host, &large), r | w | x);
    assert_ptr_equal(host, mem_host(v->mem, gpa(0x45000), 1));
    assert_false(large);
    mem_trace_add(v->mem, host, MEM_TRACE_DIRTY);
    assert_int_equal(mmu_may_keep(v, gva(0x5000), &host, &large), r | x);
    mem_trace_remove(v->mem, host, MEM_TRACE_DIRTY);
    put64(L1 + 8 * 5, pages); /* not dirty */
    assert_int_equal(mmu_may_keep(v, gva(0x5000), &host, &large), r | x);
    put64(L1 + 8 * 5, pages & ~X86_PTE_W);
    assert_int_equal(mmu_may_keep(v, gva(0x5000), &host, &large), r | x);
    put64(L1 + 8 * 5, pages | X86_PTE_D | X86_PTE_NX);
    assert_int_equal(mmu_may_keep(v, gva(0x5000), &host, &large), r | w);
    put64(L1 + 8 * 5, pages & ~X86_PTE_A);
    assert_int_equal(mmu_may_keep(v, gva(0x5000), &host, &large), 0);
    put64(L1 + 8 * 5, pages & ~X86_PTE_U);
    assert_int_equal(mmu_may_keep(v, gva(0x5000), &host, &large), 0);
    put64(L1 + 8 * 5, pages & ~X86_PTE_P);
    assert_int_equal(mmu_may_keep(v, gva(0x5000), &host, &large), 0);
    put64(L1 + 8 * 5, (pages & 4095) | 0xfff0000000); /* no memory */
    assert_int_equal(mmu_may_keep(v, gva(0x5000), &host, &large), 0);
    assert_int_equal(mmu_store(v, gva((2ull << 20) + 0x3000), 8, 1), 0);
    assert_int_equal(mmu_may_keep(v, gva((2ull << 20) + 0x3000), &host, &large),
                     r | w | x);
    assert_true(large);
    teardown();
}

/* What each right, and each way to lose one, is told as. */
static void details(void **state) {
    const struct known *k;

    setup(MMU_PCID);
    put64(L1 + 8 * 5, 0x45000 | PWU | X86_PTE_G);
    mmu_observe(v, &observer, model);
    v->cpl = 3;
    mmu_context_changed(v);
    k = slot(model, model->user, BANK_USER, 0x5000);
    uint64_t x;
    assert_int_equal(mmu_load(v, gva(0x5000), 8, &x), 0);
    assert_true(k->used && k->global);
    assert_int_equal(k->access, 1u << MMU_READ); /* D is clear */
    assert_ptr_equal(k->host, mem_host(v->mem, gpa(0x45000), 1));
    assert_int_equal(mmu_store(v, gva(0x5000), 8, 1), 0);
    assert_int_equal(k->access, 1u << MMU_READ | 1u << MMU_WRITE);
    assert_int_equal(model->drops, 0);
    mem_trace_add(v->mem, k->host, MEM_TRACE_DIRTY);
    assert_int_equal(model->write_drops, 1);
    mem_trace_remove(v->mem, k->host, MEM_TRACE_DIRTY);
    assert_int_equal(mmu_store(v, gva(0x5000), 8, 1), 0);
    assert_int_equal(k->access, 1u << MMU_READ | 1u << MMU_WRITE);
    assert_false(slot(model, model->user, BANK_USER_X, 0x5000)->used);
    assert_non_null(mmu_fetch(v, gva(0x5000)));
    assert_int_equal(slot(model, model->user, BANK_USER_X, 0x5000)->access,
                     1u << MMU_EXEC);
    mmu_invlpg(v, gva(0x5000));
    assert_false(k->used);
    assert_int_equal(model->drops, 2);
    teardown();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(details),
                                       cmocka_unit_test(flush_policy),
                                       cmocka_unit_test(pcid_policy),
                                       cmocka_unit_test(trace_policy),
                                       cmocka_unit_test(keeper_keeps_a_model),
                                       cmocka_unit_test(kept),
                                       cmocka_unit_test(kept_when_idle),
                                       cmocka_unit_test(kept_when_flushed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
