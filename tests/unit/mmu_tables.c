/*
 * The MMU and page tables that are hostile, or change under it: reserved bits, what
 * another CPU or the walk itself writes, A20, and where there is no paging.
 */
#include "cpu/cpuid.h"
#include "lib/box.h"
#include "lib/unit.h"
#include "x86/cr.h"
#include "x86/exception.h"

/* --- hostile tables --- */

static void hostile(void **state) {
    struct box *b = box_new(M_LONG, MMU_TRACE);
    struct vcpu *v = &b->v;
    uint64_t x, self = 0xffff800000000000ull | 256ull << 39 | 256ull << 30 |
                       256ull << 21 | 256ull << 12;
    box_put(b, ROOT + 256 * 8, ROOT | PWU); /* the root maps itself, at every level */
    assert_int_equal(mmu_load(v, gva(self + 256 * 8), 8, &x), 0);
    assert_int_equal(x & 0xfffff000, ROOT);
    assert_int_equal(mmu_store(v, gva(self + 256 * 8), 8, 0),
                     0); /* cuts its own branch */
    assert_int_equal(box_attempt(b, self, MMU_READ, false), 0);
    box_put(b, ROOT + 8, 0xfed00000ull | PWU); /* a table in no memory: all ones */
    assert_int_equal(box_attempt(b, 1ull << 39, MMU_WRITE, false), 11);
    box_put(b, ROOT + 8, 1ull << 45 | PWU); /* beyond the physical width */
    assert_int_equal(box_attempt(b, 1ull << 39, MMU_READ, false), X86_PF_P | X86_PF_RSVD);
    v->cr3 = ~0xfffull; /* a root in no memory */
    mmu_cr3_loaded(v, v->cr3);
    assert_int_equal(box_attempt(b, VA, MMU_READ, false), X86_PF_P | X86_PF_RSVD);
    v->cr3 = ROOT;
    v->efer &= ~(uint64_t)X86_EFER_NXE;
    box_set_pte(b, M_LONG, VA, PAGE | PWU | X86_PTE_NX);
    mmu_mode_changed(v);
    assert_int_equal(box_attempt(b, VA, MMU_EXEC, false), X86_PF_P | X86_PF_RSVD);
    box_free(b);

    b = box_new(M_PAE, MMU_PCID);
    box_put(b, ROOT + 8, L2 | X86_PTE_P | X86_PTE_W); /* reserved in a PDPTE */
    assert_int_not_equal(mmu_load_pdptrs(&b->v, ROOT), 0);
    assert_int_equal(b->v.fault.vector, X86_GP);
    assert_int_not_equal(mmu_load_pdptrs(&b->v, 0xfed00000), 0);
    assert_int_equal(box_attempt(b, VA, MMU_READ, false), -1); /* the old ones stay */
    box_set_pte(b, M_PAE, VA + 4096, PAGE | PWU | 1ull << 52);
    assert_int_equal(box_attempt(b, VA + 4096, MMU_READ, false), X86_PF_P | X86_PF_RSVD);
    box_free(b);
}

/* Bits that only some processors reserve: 8 in a PML4E and a PDPE (AMD), 7 in a PML4E. */
static void reserved_bits(void **state) {
    static const struct {
        uint64_t at, bits;
        bool amd_only;
    } t[] = {{ROOT, X86_PTE_PS, false},
             {ROOT, X86_PTE_G, true},
             {L3, X86_PTE_G, true},
             {ROOT, 1ull << 51, false},
             {L3, 1ull << 40, false},
             {L2, X86_PTE_PS | 1u << 13, false},
             {L3, X86_PTE_PS | 1u << 29, false}};
    struct cpuid_config cfg = {.tsc_hz = 1000000000};
    struct box *b = box_new(M_LONG, MMU_PCID);
    struct cpuid_model *model = cpuid_model_new(&cfg);
    b->v.cpuid = model;
    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        uint64_t old = box_get(b, t[i].at);
        int want =
            t[i].amd_only && !cpuid_is_amd(model) ? -1 : (int)(X86_PF_P | X86_PF_RSVD);
        box_put(b, t[i].at, old | t[i].bits);
        mmu_mode_changed(&b->v);
        assert_int_equal(box_attempt(b, VA, MMU_READ, false), want);
        box_put(b, t[i].at, old);
        mmu_mode_changed(&b->v);
        assert_int_equal(box_attempt(b, VA, MMU_READ, false), -1);
    }
    cpuid_model_free(model);
    box_free(b);
}

/* Without paging an address is physical in real and in protected mode: what is there
 * stays. With paging on, and when A20 moves, nothing does. */
static void flat_stays(void **state) {
    for (int policy = MMU_FLUSH; policy <= MMU_TRACE; policy++) {
        struct box *b = box_new(M_32, (enum mmu_policy)policy);
        struct vcpu *v = &b->v;
        uint64_t fills;

        v->cr0 = X86_CR0_PE;
        mmu_mode_changed(v);
        assert_int_equal(box_attempt(b, VA, MMU_WRITE, false), -1);
        fills = b->cnt.shadow_fills;
        for (unsigned n = 0; n < 4; n++) {
            v->cr0 ^= X86_CR0_PE;
            mmu_mode_changed(v);
            assert_int_equal(box_attempt(b, VA, MMU_WRITE, false), -1);
        }
        assert_int_equal(b->cnt.shadow_fills, fills);
        mmu_flush_all(v);
        assert_int_equal(box_attempt(b, VA, MMU_WRITE, false), -1);
        assert_int_equal(b->cnt.shadow_fills, fills + 1);
        box_set_pte(b, M_32, VA, 0);
        v->cr0 |= X86_CR0_PG;
        mmu_mode_changed(v);
        assert_int_not_equal(box_attempt(b, VA, MMU_WRITE, false), -1);
        v->cr0 &= ~(uint64_t)X86_CR0_PG;
        mmu_mode_changed(v);
        assert_int_equal(box_attempt(b, VA, MMU_WRITE, false), -1);
        box_free(b);
    }
}

/* More tables than there are records of dependencies: the shadow starts over and stays
 * right. One table of each level, used over and over. */
static void trace_records_run_out(void **state) {
    struct box *b = box_new(M_LONG, MMU_TRACE);
    uint64_t x, n = 20000;
    for (unsigned i = 0; i < 512; i++) {
        box_put(b, L3 + i * 8, L2 | PWU);
        box_put(b, L2 + i * 8, L1 | PWU);
    }
    box_put(b, PAGE, 1);
    box_set_pte(b, M_LONG, VA, PAGE | PWU);
    for (uint64_t i = 0; i < n; i++) {
        assert_int_equal(mmu_load(&b->v, gva(VA + (i << 21)), 8, &x), 0);
        assert_int_equal(x, 1);
    }
    box_put(b, PAGE + 4096, 2);
    box_set_pte(b, M_LONG, VA, (PAGE + 4096) | PWU);
    for (uint64_t i = 0; i < n; i += 97) {
        assert_int_equal(mmu_load(&b->v, gva(VA + (i << 21)), 8, &x), 0);
        assert_int_equal(x, 2);
    }
    box_free(b);
}

/* A store that faults on its second page has not made the first one dirty. */
static void dirty_of_a_faulting_store(void **state) {
    struct box *b = box_new(M_LONG, MMU_PCID);
    box_set_pte(b, M_LONG, VA + 4096, 0);
    assert_int_not_equal(mmu_store(&b->v, gva(VA + 4092), 8, ~0ull), 0);
    assert_int_equal(b->v.fault.addr, VA + 4096);
    assert_false(box_pte(b, M_LONG, VA) & X86_PTE_D);
    box_free(b);
}

static bool a20_open;
static bool a20(void *arg) {
    return a20_open;
}

static void a20_gate(void **state) {
    struct box *b = box_new(M_LONG, MMU_PCID);
    uint64_t x;
    b->v.cr0 = X86_CR0_PE;
    b->v.efer = 0;
    b->v.long_mode = false;
    b->hooks.a20 = a20;
    box_put(b, 0x000500, 1);
    box_put(b, 0x100500, 2);
    for (unsigned i = 0; i < 4; i++) {
        a20_open = i & 1;
        mmu_flush_all(&b->v);
        assert_int_equal(mmu_load(&b->v, gva(0x100500), 8, &x), 0);
        assert_int_equal(x, a20_open ? 2 : 1);
    }
    box_free(b);
}

/* --- another CPU changes an entry between the walk and the mark --- */

struct meddler {
    struct box *b;
    int mode;
    uint64_t pte; /* what it puts in the leaf's place, once */
    bool done;
};

/* The mark of the upper table's entry is told of: the leaf's comes behind it. */
static void meddle(void *arg, struct gpa at, unsigned len) {
    struct meddler *m = arg;

    if (!m->done)
        box_set_pte(m->b, m->mode, VA, m->pte);
    m->done = true;
}

static void entry_changed_meanwhile(void **state) {
    for (int mode = 0; mode < M_COUNT; mode++) {
        struct box *b = box_new(mode, MMU_PCID);
        struct vcpu *v = &b->v;
        struct meddler m = {.b = b, .mode = mode, .pte = PAGE | 0xe00 | PWU};
        uint64_t upper = mode == M_32 ? ROOT : L2;
        uint32_t at_old = 0, at_new = 0;

        mem_own_trace(v->mem, MEM_TRACE_DIRTY, meddle, &m);
        mem_trace_add(v->mem, mem_host(v->mem, gpa(upper), 1), MEM_TRACE_DIRTY);
        assert_int_equal(mmu_store(v, gva(VA), 4, 0x12345678), 0);
        assert_true(m.done);
        mem_read(v->mem, gpa(VA), &at_old, 4);
        mem_read(v->mem, gpa(PAGE), &at_new, 4);
        assert_int_equal(at_old, 0);
        assert_int_equal(at_new, 0x12345678);
        assert_int_equal(box_pte(b, mode, VA), m.pte | X86_PTE_A | X86_PTE_D);
        box_free(b);

        b = box_new(mode, MMU_PCID);
        v = &b->v;
        m = (struct meddler){.b = b, .mode = mode, .pte = 0xe00};
        mem_own_trace(v->mem, MEM_TRACE_DIRTY, meddle, &m);
        mem_trace_add(v->mem, mem_host(v->mem, gpa(upper), 1), MEM_TRACE_DIRTY);
        assert_int_equal(mmu_store(v, gva(VA), 4, 1), MMU_FAULT);
        assert_int_equal(v->fault.vector, X86_PF);
        assert_false(v->fault.error & X86_PF_P);
        assert_int_equal(box_pte(b, mode, VA), 0xe00);
        box_free(b);
    }
}

/* Pages of RAM that were written to since the last look: two, or none. */
static void expect_written(struct vcpu *v, uint64_t a, uint64_t b) {
    uint64_t bits[(RAM >> 12) / 64 + 512] = {0};

    mem_track_collect(v->mem, bits);
    for (uint64_t n = 0; n < RAM >> 12; n++)
        if ((bits[n / 64] >> n % 64 & 1) != (n && (n == a >> 12 || n == b >> 12)))
            fail_msg("page %llx", (unsigned long long)n);
}

/* A write entry from before says nothing any more, one of later says it once; a page walk
 * that sets A or D writes to the table. */
static void written_pages(void **state) {
    for (int mode = 0; mode < M_COUNT; mode++) {
        struct box *b = box_new(mode, MMU_PCID);
        struct vcpu *v = &b->v;
        uint64_t value;
        uint8_t *p;
        uint64_t run;

        box_set_pte(b, mode, VA, PAGE | PWU);
        assert_int_equal(mmu_store(v, gva(VA), 4, 1), 0);
        assert_non_null(mmu_hit(v->mmu->data, gva(VA), 4, MMU_WRITE));
        mem_track_start(v->mem);
        assert_null(mmu_hit(v->mmu->data, gva(VA), 4, MMU_WRITE));
        assert_int_equal(mmu_load(v, gva(VA), 4, &value), 0);
        expect_written(v, 0, 0);
        assert_int_equal(mmu_store(v, gva(VA), 4, 2), 0);
        assert_int_equal(mmu_store(v, gva(VA), 4, 3), 0);
        assert_non_null(mmu_hit(v->mmu->data, gva(VA), 4, MMU_WRITE));
        expect_written(v, PAGE, 0);
        assert_int_equal(mmu_run(v, gva(VA), 64, MMU_WRITE, &p, &run), 0);
        if (!p) /* traced: byte by byte, and then not any more */
            assert_int_equal(mmu_write_slow(v, gva(VA), "x", 1, false), 0);
        expect_written(v, PAGE, 0);
        box_set_pte(b, mode, VA, PAGE | PWU);
        expect_written(v, L1, mode == M_32 ? L1 : 0);
        mmu_flush_all(v);
        assert_int_equal(mmu_load(v, gva(VA), 4, &value), 0);
        expect_written(v, L1, 0); /* A */
        box_free(b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile),
        cmocka_unit_test(reserved_bits),
        cmocka_unit_test(flat_stays),
        cmocka_unit_test(trace_records_run_out),
        cmocka_unit_test(dirty_of_a_faulting_store),
        cmocka_unit_test(a20_gate),
        cmocka_unit_test(entry_changed_meanwhile),
        cmocka_unit_test(written_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
