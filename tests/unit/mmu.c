/*
 * The MMU against tables built by hand: permissions in every paging mode, A/D bits,
 * crossings, large pages, retention policies, windows, breakpoints.
 */
#include "lib/box.h"
#include "lib/unit.h"
#include "x86/cr.h"
#include "x86/exception.h"

/* --- permissions: the expectation is written from the manuals' prose, not the code ---
 */

struct combo {
    bool u, w, nx, wp, smep, smap, ac, user, sys;
    enum mmu_access acc;
};

static int expect(int mode, const struct combo *c) {
    bool supervisor = c->sys || !c->user;
    bool nx_on = mode != M_32, bad = false;
    if (!supervisor && !c->u)
        bad = true;
    if (c->acc == MMU_WRITE && !c->w && (!supervisor || c->wp))
        bad = true;
    if (c->acc == MMU_EXEC && nx_on && c->nx)
        bad = true;
    if (c->acc == MMU_EXEC && supervisor && c->u && c->smep)
        bad = true;
    if (c->acc != MMU_EXEC && supervisor && c->u && c->smap && (c->sys || !c->ac))
        bad = true;
    if (!bad)
        return -1;
    int err = 1;
    if (c->acc == MMU_WRITE)
        err |= 2;
    if (!supervisor)
        err |= 4;
    if (c->acc == MMU_EXEC && (nx_on || c->smep))
        err |= 16;
    return err;
}
static void permissions_mode(int mode) {
    struct box *b = box_new(mode, MMU_PCID);
    struct vcpu *v = &b->v;
    for (unsigned i = 0; i < 1u << 9; i++)
        for (unsigned pass = 0; pass < 4; pass++) {
            struct combo c = {i & 1,  i & 2,  i & 4,   i & 8,   i & 16,
                              i & 32, i & 64, i & 128, i & 256, MMU_READ};
            if (c.nx && mode == M_32)
                continue;
            v->cr0 = X86_CR0_PE | X86_CR0_PG | (c.wp ? X86_CR0_WP : 0);
            v->cr4 &= ~(uint64_t)(X86_CR4_SMEP | X86_CR4_SMAP);
            v->cr4 |= (c.smep ? X86_CR4_SMEP : 0) | (c.smap ? X86_CR4_SMAP : 0);
            v->rflags = c.ac ? X86_FL_AC : 0;
            v->cpl = c.user ? 3 : 0;
            box_set_pte(b, mode, VA,
                        PAGE | X86_PTE_P | (c.w ? X86_PTE_W : 0) | (c.u ? X86_PTE_U : 0) |
                            (c.nx ? X86_PTE_NX : 0));
            mmu_mode_changed(v);
            /* Each order of first access: one kind's entry must not let another in. */
            for (unsigned k = 0; k < 6; k++) {
                c.acc = (enum mmu_access)((k + pass) % 3);
                if (c.sys && c.acc == MMU_EXEC)
                    continue;
                int got = box_attempt(b, VA, c.acc, c.sys), want = expect(mode, &c);
                if (got != want)
                    fail_msg("mode %d combo %x access %d: %d, not %d", mode, i, c.acc,
                             got, want);
            }
        }
    box_free(b);
}

static void permissions(void **state) {
    for (int mode = 0; mode < M_COUNT; mode++)
        permissions_mode(mode);
}

static void banks_are_apart(void **state) {
    struct box *b = box_new(M_LONG, MMU_PCID);
    box_set_pte(b, M_LONG, VA, PAGE | X86_PTE_P | X86_PTE_W);
    assert_int_equal(box_attempt(b, VA, MMU_WRITE, false), -1);
    b->v.cpl = 3;
    mmu_context_changed(&b->v);
    assert_int_equal(box_attempt(b, VA, MMU_READ, false), X86_PF_P | X86_PF_U);
    assert_int_equal(box_attempt(b, VA, MMU_READ, true), -1);
    box_free(b);
}

/* --- A and D --- */

static void accessed_dirty(void **state) {
    for (int mode = 0; mode < M_COUNT; mode++) {
        struct box *b = box_new(mode, mode == M_PAE ? MMU_TRACE : MMU_PCID);
        assert_int_equal(box_attempt(b, VA, MMU_READ, false), -1);
        assert_int_equal(box_pte(b, mode, VA) & 0x60, X86_PTE_A);
        assert_int_equal(box_attempt(b, VA, MMU_WRITE, false), -1);
        assert_int_equal(box_pte(b, mode, VA) & 0x60, X86_PTE_A | X86_PTE_D);
        uint64_t above = mode == M_32 ? ROOT : L2;
        assert_int_equal(box_get(b, above) & 0x60, X86_PTE_A);
        if (mode == M_LONG)
            assert_int_equal(box_get(b, ROOT) & 0x60, X86_PTE_A);
        /* A fault leaves them alone; a probe does not. */
        box_set_pte(b, mode, VA + 4096, PAGE | X86_PTE_P);
        assert_int_equal(box_attempt(b, VA + 4096, MMU_WRITE, false),
                         X86_PF_P | X86_PF_W);
        assert_int_equal(box_pte(b, mode, VA + 4096) & 0x60, 0);
        assert_int_equal(mmu_probe(&b->v, gva(VA + 8192), 1, MMU_WRITE, false), 0);
        assert_int_equal(box_pte(b, mode, VA + 8192) & 0x60, X86_PTE_A | X86_PTE_D);
        box_free(b);
    }
}

static void crossings(void **state) {
    struct box *b = box_new(M_LONG, MMU_PCID);
    struct vcpu *v = &b->v;
    uint64_t x = 0;
    box_put(b, VA + 0xff8, 0x1111111111111111);
    box_set_pte(b, M_LONG, VA + 4096, 0);
    assert_int_not_equal(mmu_store(v, gva(VA + 0xffc), 8, ~0ull), 0);
    assert_int_equal(v->fault.addr, VA + 4096);
    assert_int_equal(v->fault.error, X86_PF_W);
    assert_int_equal(box_get(b, VA + 0xff8), 0x1111111111111111);
    box_set_pte(b, M_LONG, VA + 4096, 0x50000 | PWU);
    assert_int_equal(mmu_store(v, gva(VA + 0xffc), 8, 0x8877665544332211), 0);
    assert_int_equal(box_get(b, 0x50000) & 0xffffffff, 0x88776655);
    assert_int_equal(mmu_load(v, gva(VA + 0xffc), 8, &x), 0);
    assert_int_equal(x, 0x8877665544332211);
    /* Non-canonical, wholly or from the second page on. */
    assert_int_not_equal(mmu_load(v, gva(1ull << 47), 8, &x), 0);
    assert_int_equal(v->fault.vector, X86_GP);
    assert_int_not_equal(mmu_load(v, gva((1ull << 47) - 4), 8, &x), 0);
    assert_int_equal(v->fault.vector, X86_GP);
    assert_int_equal(v->fault.error, 0);
    box_free(b);
}

/* --- large pages, INVLPG --- */

static void large_pages(void **state) {
    struct box *b = box_new(M_LONG, MMU_PCID);
    struct vcpu *v = &b->v;
    uint64_t x, big = 2ull << 20;
    box_put(b, L2 + 8, 0x200000 | PWU | X86_PTE_PS);
    box_put(b, 0x203008, 0x1234);
    box_put(b, 0x3ff008, 0x5678);
    assert_int_equal(mmu_load(v, gva(big + 0x3008), 8, &x), 0);
    assert_int_equal(x, 0x1234);
    assert_int_equal(mmu_load(v, gva(big + 0x1ff008), 8, &x), 0);
    assert_int_equal(x, 0x5678);
    assert_int_equal(box_get(b, L2 + 8) & 0x60, X86_PTE_A);
    box_put(b, L2 + 8, 0);
    mmu_invlpg(v, gva(big + 0x100000)); /* elsewhere in the page */
    assert_int_not_equal(mmu_load(v, gva(big + 0x3008), 8, &x), 0);
    assert_int_not_equal(mmu_load(v, gva(big + 0x1ff008), 8, &x), 0);
    box_put(b, L2 + 8, 0x202000 | PWU | X86_PTE_PS); /* reserved bit 13 */
    assert_int_equal(box_attempt(b, big, MMU_READ, false), X86_PF_P | X86_PF_RSVD);
    box_put(b, L3 + 8, PWU | X86_PTE_PS); /* 1 GiB at 0 */
    assert_int_equal(mmu_load(v, gva((1ull << 30) + 0x203008), 8, &x), 0);
    assert_int_equal(x, 0x1234);
    box_free(b);
}

static void pse(void **state) {
    struct box *b = box_new(M_32, MMU_FLUSH);
    uint64_t x;
    uint32_t pde = 0x400000 | PWU | X86_PTE_PS;
    box_put(b, 0x412340, 99);
    mem_write(b->v.mem, gpa(ROOT + 4), &pde, 4);
    assert_int_equal(mmu_load(&b->v, gva(0x412340), 8, &x), 0);
    assert_int_equal(x, 99);
    pde |= 1u << 21;
    mem_write(b->v.mem, gpa(ROOT + 8), &pde, 4);
    assert_int_equal(box_attempt(b, 0x800000, MMU_READ, false), X86_PF_P | X86_PF_RSVD);
    pde = (pde & ~(1u << 21)) | 1u << 13; /* PSE-36: 4 GiB and up, no memory */
    mem_write(b->v.mem, gpa(ROOT + 12), &pde, 4);
    assert_int_equal(mmu_load(&b->v, gva(0xc00000), 4, &x), 0);
    assert_int_equal(b->last.gpa.a, 0x100400000ull);
    box_free(b);
}

/* --- retention --- */

static bool sees(struct box *b, uint64_t val) {
    uint64_t x = 0;
    return !mmu_load(&b->v, gva(VA), 8, &x) && x == val;
}

static void load_cr3(struct box *b, uint64_t value) {
    b->v.cr3 = value & ~X86_CR3_NOFLUSH;
    mmu_cr3_loaded(&b->v, value);
}

/* Remaps VA from page 0x50000 (holding 1) to 0x60000 (holding 2) behind the CPU's back.
 */
static void remap(struct box *b, uint64_t flags) {
    box_put(b, 0x50000, 1);
    box_put(b, 0x60000, 2);
    box_set_pte(b, M_LONG, VA, 0x50000 | PWU | flags);
    mmu_flush_all(&b->v);
    assert_true(sees(b, 1));
    box_set_pte(b, M_LONG, VA, 0x60000 | PWU | flags);
}

static void policy_flush(void **state) {
    struct box *b = box_new(M_LONG, MMU_FLUSH);
    remap(b, 0);
    load_cr3(b, ROOT);
    assert_true(sees(b, 2));
    b->v.cr4 |= X86_CR4_PGE;
    mmu_mode_changed(&b->v);
    remap(b, X86_PTE_G);
    load_cr3(b, ROOT);
    assert_true(sees(b, 1)); /* global: kept */
    mmu_invlpg(&b->v, gva(VA));
    assert_true(sees(b, 2));
    box_free(b);
}

static void policy_pcid(void **state) {
    struct box *b = box_new(M_LONG, MMU_PCID);
    b->v.cr4 |= X86_CR4_PCIDE | X86_CR4_PGE;
    load_cr3(b, ROOT | 1);
    b->v.cpl = 3; /* supervisor banks are shared, and lose what is not global */
    mmu_mode_changed(&b->v);
    remap(b, 0);
    load_cr3(b, ROOT | 2);
    assert_true(sees(b, 2)); /* another space */
    load_cr3(b, ROOT | 1 | X86_CR3_NOFLUSH);
    assert_true(sees(b, 1)); /* kept */
    load_cr3(b, ROOT | 1);
    assert_true(sees(b, 2));
    /* INVPCID, all types, from another PCID. */
    for (unsigned type = 0; type < 4; type++) {
        remap(b, 0);
        load_cr3(b, ROOT | 2 | X86_CR3_NOFLUSH);
        mmu_invpcid(&b->v, type, 1, gva(VA));
        load_cr3(b, ROOT | 1 | X86_CR3_NOFLUSH);
        assert_true(sees(b, 2));
    }
    /* INVLPG reaches global entries of other spaces, and only those. */
    for (unsigned global = 0; global < 2; global++) {
        remap(b, global ? X86_PTE_G : 0);
        load_cr3(b, ROOT | 2 | X86_CR3_NOFLUSH);
        mmu_invlpg(&b->v, gva(VA));
        load_cr3(b, ROOT | 1 | X86_CR3_NOFLUSH);
        assert_true(sees(b, global ? 2 : 1));
    }
    /* More PCIDs than spaces: whoever comes back starts empty, never stale. */
    remap(b, 0);
    for (uint64_t p = 2; p < 100; p++)
        load_cr3(b, ROOT | p);
    load_cr3(b, ROOT | 1 | X86_CR3_NOFLUSH);
    assert_true(sees(b, 2));
    box_free(b);
}

static void policy_trace(void **state) {
    struct box *b = box_new(M_LONG, MMU_TRACE);
    uint64_t other = 0x20000;
    box_put(b, other, L3 | PWU);
    remap(b, 0);
    assert_true(sees(b, 2)); /* coherent at once */
    uint64_t fills = b->cnt.shadow_fills;
    for (unsigned i = 0; i < 4; i++) {
        load_cr3(b, i & 1 ? ROOT : other);
        assert_true(sees(b, 2));
    }
    assert_int_equal(b->cnt.shadow_fills, fills + 1); /* our own A bits dropped nothing */
    /* A guest store to a table shared by both, at each level, while either is current. */
    load_cr3(b, other);
    assert_int_equal(mmu_store(&b->v, gva(L1 + (VA >> 12) * 8), 8, 0x50000 | PWU), 0);
    assert_true(sees(b, 1));
    load_cr3(b, ROOT);
    assert_true(sees(b, 1));
    uint64_t tables[] = {L1 + (VA >> 12) * 8, L2, L3, ROOT};
    for (unsigned i = 0; i < 4; i++) {
        uint64_t old = box_get(b, tables[i]);
        assert_true(sees(b, 1));
        box_put(b, tables[i], 0);
        assert_false(sees(b, 1));
        box_put(b, tables[i], old);
        assert_true(sees(b, 1));
    }
    /* A table that is only written loses its trace; what comes later is still right. */
    for (unsigned i = 0; i < 100; i++)
        box_put(b, L1 + 511 * 8, i);
    uint8_t *host = mem_host(b->v.mem, gpa(L1), 8);
    assert_int_equal(mem_trace_of(b->v.mem, host), 0);
    box_set_pte(b, M_LONG, VA, 0x60000 | PWU);
    assert_true(sees(b, 2));
    assert_int_equal(mem_trace_of(b->v.mem, host), MEM_TRACE_PT);
    box_free(b);
}

/* Random table edits and CR3 loads: the traced shadow always equals the tables. */
static void trace_random(void **state) {
    struct box *b = box_new(M_LONG, MMU_TRACE);
    uint64_t seed = 1;
    for (uint64_t r = 0; r < 24; r++)
        box_put(b, 0x20000 + r * 4096, L3 | PWU);
    for (unsigned i = 0; i < 512; i++)
        box_put(b, 0x400000 + i * 4096, i);
    for (unsigned i = 0; i < 200000; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        uint64_t r = seed >> 33, page = r >> 8 & 127, x;
        uint64_t pte = L1 + (256 + page) * 8;
        if (r % 8 == 0)
            load_cr3(b, 0x20000 + (r >> 16) % 24 * 4096);
        else if (r % 8 == 1)
            box_put(b, pte,
                    (r & 0x10000000) ? (0x400000 + (r >> 16 & 511) * 4096) | PWU : 0);
        else {
            uint64_t want = box_get(b, pte);
            int rc = mmu_load(&b->v, gva((256 + page) << 12), 8, &x);
            assert_int_equal(rc != 0, !(want & 1));
            if (!rc)
                assert_int_equal(x, box_get(b, want & 0xfffff000));
        }
    }
    box_free(b);
}

/* --- slow paths --- */

static void windows_and_mmio(void **state) {
    struct box *b = box_new(M_LONG, MMU_PCID);
    struct vcpu *v = &b->v;
    struct mmu_window w;
    uint64_t x;
    box_set_pte(b, M_LONG, VA + 4096, 0x50000 | PWU);
    memset(mem_host(v->mem, gpa(VA), 4096), 0x11, 4096);
    memset(mem_host(v->mem, gpa(0x50000), 4096), 0x22, 4096);
    assert_int_equal(mmu_window_open(v, &w, gva(VA + 16), 64, true, true), 0);
    assert_ptr_equal(w.p, mem_host(v->mem, gpa(VA + 16), 1));
    assert_int_equal(mmu_window_open(v, &w, gva(VA + 0xfe1), 64, true, true), 0);
    assert_true(w.bounced);
    assert_int_equal((uintptr_t)w.p & 63, 0x21);
    assert_int_equal(w.p[30], 0x11);
    assert_int_equal(w.p[31], 0x22);
    memset(w.p, 0x33, 64);
    mmu_window_commit(v, &w);
    assert_int_equal(*mem_host(v->mem, gpa(VA + 0xfe0), 1), 0x11);
    assert_int_equal(*mem_host(v->mem, gpa(VA + 0xfff), 1), 0x33);
    assert_int_equal(*mem_host(v->mem, gpa(0x50000 + 32), 1), 0x33);
    assert_int_equal(*mem_host(v->mem, gpa(0x50000 + 33), 1), 0x22);

    box_set_pte(b, M_LONG, VA + 8192, 0xfee00000 | PWU);
    b->device = 0x42;
    assert_int_equal(mmu_load(v, gva(VA + 8192 + 0x30), 4, &x), 0);
    assert_int_equal(x, 0x42);
    assert_int_equal(b->exits, 1);
    assert_int_equal(b->last.gpa.a, 0xfee00030);
    assert_int_equal(mmu_store(v, gva(VA + 8192 + 2), 4, 0x44332211), 0);
    assert_int_equal(b->exits, 3); /* 2 + 2 */
    assert_int_equal(b->last.data, 0x4433);
    assert_int_equal(b->last.size, 2);
    const uint8_t *code = mmu_fetch(v, gva(VA + 8192 + 5));
    assert_int_equal(code[0] & code[4090], 0xff);
    assert_int_equal(b->exits, 3);
    uint8_t *p;
    uint64_t run;
    assert_int_equal(mmu_run(v, gva(VA + 8192), 64, MMU_READ, &p, &run), 0);
    assert_null(p);
    assert_int_equal(mmu_run(v, gva(VA + 8), 1 << 20, MMU_READ, &p, &run), 0);
    assert_int_equal(run, 4096 - 8);
    box_free(b);
}

static void rom_ignores_stores(void **state) {
    struct box *b = box_new(M_LONG, MMU_PCID);
    box_put(b, VA, 5);
    assert_int_equal(box_attempt(b, VA, MMU_WRITE, false), -1); /* a write entry exists */
    box_put(b, VA, 5);
    assert_int_equal(mem_set_kind(b->v.mem, gpa(VA), 4096, MEM_ROM), 0);
    assert_int_equal(mmu_store(&b->v, gva(VA), 8, 9), 0);
    assert_true(sees(b, 5));
    box_free(b);
}

/* What the translator's anchor stub does: copies VA's entry to anchor N. */
static struct shadow_anchor *anchor(struct box *b, unsigned n, enum mmu_access acc) {
    struct shadow_bank *bank = b->v.mmu->data;
    struct shadow_entry *e = &bank->e[mmu_index(VA)];

    assert_int_equal(e->tag[acc], VA);
    bank->anchor[n] = (struct shadow_anchor){e->tag[acc], e->host};
    e->tag[MMU_EXEC] = SHADOW_ANCHORED;
    bank->anchored = 1;
    return &bank->anchor[n];
}

static bool anchored(const struct box *b, const struct shadow_anchor *a) {
    return a->tag != SHADOW_NO_ANCHOR || a->host != b->v.mmu->nowhere;
}

/* Whatever takes an entry away takes the anchors with it that were copied from it. */
static void anchors(void **state) {
    struct box *b = box_new(M_LONG, MMU_PCID);
    struct shadow_anchor *a;

    b->v.cr4 |= X86_CR4_PGE;
    mmu_mode_changed(&b->v);
    for (unsigned how = 0; how < 5; how++) {
        box_set_pte(b, M_LONG, VA, 0x50000 | PWU);
        mmu_flush_all(&b->v);
        assert_int_equal(mmu_store(&b->v, gva(VA), 8, 1), 0); /* sets D */
        assert_int_equal(mmu_store(&b->v, gva(VA), 8, 1), 0);
        a = anchor(b, 3 + how, how == 4 ? MMU_WRITE : MMU_READ);
        switch (how) {
        case 0:
            mmu_invlpg(&b->v, gva(VA));
            break;
        case 1:
            mmu_flush_all(&b->v);
            break;
        case 2:
            load_cr3(b, ROOT); /* it is not global */
            break;
        case 3:
            mmu_invpcid(&b->v, 2, 0, gva(0));
            break;
        default: /* a trace: no stores past the owner */
            mem_trace_add(b->v.mem, mem_host(b->v.mem, gpa(0x50000), 1), MEM_TRACE_CODE);
        }
        if (anchored(b, a))
            print_error("case %u\n", how);
        assert_false(anchored(b, a));
    }
    box_free(b);
}

static unsigned code_hits;
static void on_code(void *arg, struct gpa at, unsigned len) {
    code_hits++;
}

static void code_trace(void **state) {
    struct box *b = box_new(M_LONG, MMU_PCID);
    struct vcpu *v = &b->v;
    mem_hooks(v->mem)->on_write[0] = on_code;
    code_hits = 0;
    assert_int_equal(box_attempt(b, VA, MMU_WRITE, false), -1);
    v->cpl = 3;
    mmu_context_changed(v);
    assert_int_equal(box_attempt(b, VA, MMU_WRITE, false), -1); /* in two banks */
    uint8_t *host = mem_host(v->mem, gpa(VA), 1);
    mem_trace_add(v->mem, host, MEM_TRACE_CODE);
    assert_null(mmu_hit(v->mmu->data, gva(VA), 4, MMU_WRITE));
    assert_non_null(mmu_hit(v->mmu->data, gva(VA), 4, MMU_READ));
    assert_int_equal(box_attempt(b, VA, MMU_WRITE, false), -1);
    v->cpl = 0;
    mmu_context_changed(v);
    assert_int_equal(box_attempt(b, VA, MMU_WRITE, false), -1);
    assert_int_equal(code_hits, 2);
    mem_trace_remove(v->mem, host, MEM_TRACE_CODE);
    assert_int_equal(box_attempt(b, VA, MMU_WRITE, false), -1);
    assert_non_null(mmu_hit(v->mmu->data, gva(VA), 4, MMU_WRITE));
    assert_int_equal(code_hits, 2);
    box_free(b);
}

static void breakpoints(void **state) {
    struct box *b = box_new(M_LONG, MMU_PCID);
    struct vcpu *v = &b->v;
    uint64_t x;
    assert_int_equal(box_attempt(b, VA, MMU_WRITE, false), -1);
    v->dr[1] = VA + 8;
    v->dr[7] = 1u << 2 | 0xdu << 20; /* DR1, L, write, 4 bytes */
    mmu_breakpoints_changed(v);
    assert_int_equal(mmu_load(v, gva(VA + 8), 4, &x), 0);
    assert_int_equal(mmu_store(v, gva(VA + 12), 4, 0), 0);
    assert_int_equal(v->pending_db, 0);
    assert_int_equal(mmu_store(v, gva(VA + 11), 1, 0), 0);
    assert_int_equal(v->pending_db, 2);
    v->dr[7] = 1u << 2 | 0xfu << 20; /* read and write */
    v->pending_db = 0;
    mmu_breakpoints_changed(v);
    assert_int_equal(mmu_load(v, gva(VA + 4), 8, &x), 0);
    assert_int_equal(v->pending_db, 2);
    v->dr[7] = 0;
    mmu_breakpoints_changed(v);
    assert_int_equal(mmu_store(v, gva(VA + 8), 4, 0), 0);
    assert_non_null(mmu_hit(v->mmu->data, gva(VA), 4, MMU_WRITE));
    box_free(b);
}

/* --- what stands in entries --- */

static void no_tag_is_sound(void **state) {
    for (unsigned i = 0; i < SHADOW_ENTRIES; i++)
        assert_int_not_equal(mmu_index(mmu_no_tag(i)), i);
}

/* In one slot no other page has the word of this one, wherever it is mapped, nor has an
 * unused slot. */
static void mapping_is_sound(void **state) {
    uint64_t x = 1;

    for (unsigned n = 0; n < 20; n++) {
        uint64_t addr, word;

        x = x * 6364136223846793005ull + 1442695040888963407ull;
        addr = (uint64_t)((int64_t)(x & ~0xfffull) << 16 >> 16); /* canonical */
        word = mmu_mapping(addr, (const uint8_t *)(uintptr_t)(x >> 17 & ~0xfffull));
        assert_int_not_equal(word, mmu_no_tag(mmu_index(addr)));
        for (uint64_t low = 0; low < SHADOW_ENTRIES; low++) {
            uint64_t other = (addr & ~(((uint64_t)SHADOW_ENTRIES << 12) - 1)) | low << 12;

            assert_int_equal(mmu_index(other) == mmu_index(addr),
                             other == (addr & ~0xfffull));
        }
        for (unsigned bit = 25; bit < 48; bit++)
            assert_int_not_equal(
                mmu_mapping(addr ^ 1ull << bit, (const uint8_t *)(uintptr_t)(x >> 17)),
                word);
        for (unsigned bit = 12; bit < 47; bit++)
            assert_int_not_equal(
                mmu_mapping(addr, (const uint8_t *)(uintptr_t)(x >> 17 ^ 1ull << bit)),
                word);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_tag_is_sound),  cmocka_unit_test(mapping_is_sound),
        cmocka_unit_test(permissions),      cmocka_unit_test(banks_are_apart),
        cmocka_unit_test(accessed_dirty),   cmocka_unit_test(crossings),
        cmocka_unit_test(large_pages),      cmocka_unit_test(pse),
        cmocka_unit_test(policy_flush),     cmocka_unit_test(policy_pcid),
        cmocka_unit_test(policy_trace),     cmocka_unit_test(trace_random),
        cmocka_unit_test(windows_and_mmio), cmocka_unit_test(rom_ignores_stores),
        cmocka_unit_test(code_trace),       cmocka_unit_test(anchors),
        cmocka_unit_test(breakpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
