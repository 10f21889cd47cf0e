/* A vCPU with page tables built by hand; see box.h. */
#include "lib/box.h"

#include "lib/unit.h"
#include "x86/cr.h"
#include "x86/exception.h"

static void on_exit_(void *arg, struct vcpu *v, struct exit *e) {
    struct box *b = arg;
    b->exits++;
    if (!e->write)
        e->data = b->device;
    b->last = *e;
}

void box_put(struct box *b, uint64_t at, uint64_t val) {
    assert_true(mem_write(b->v.mem, gpa(at), &val, 8));
}

uint64_t box_get(struct box *b, uint64_t at) {
    uint64_t val;
    assert_true(mem_read(b->v.mem, gpa(at), &val, 8));
    return val;
}

struct box *box_new(int mode, enum mmu_policy policy) {
    struct box *b = aligned_alloc(64, (sizeof(*b) + 63) & ~63ull);
    memset(b, 0, sizeof(*b));
    struct vcpu *v = &b->v;
    v->cnt = &b->cnt;
    b->hooks.exit = on_exit_;
    v->hooks = &b->hooks;
    v->hooks_arg = b;
    assert_int_equal(mem_create(RAM, &v->mem), 0);
    assert_int_equal(mmu_create(v, policy), 0);
    mmu_hook(v);
    v->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP;
    v->cr3 = ROOT;
    v->lin_mask = mode == M_LONG ? ~0ull : 0xffffffff;
    v->mode = mode == M_LONG ? MODE_64 : MODE_32;
    v->long_mode = mode == M_LONG;
    v->cr4 = mode == M_32 ? X86_CR4_PSE : X86_CR4_PAE;
    v->efer = mode == M_LONG  ? X86_EFER_LMA | X86_EFER_LME | X86_EFER_NXE
              : mode == M_PAE ? X86_EFER_NXE
                              : 0;
    /* Tables for 2 MiB (or 4 MiB) from 0; identity, all allowed, not yet accessed. */
    if (mode == M_32) {
        uint32_t pde = L1 | PWU;
        mem_write(v->mem, gpa(ROOT), &pde, 4);
        for (uint32_t i = 0; i < 1024; i++) {
            uint32_t pte = i << 12 | PWU;
            mem_write(v->mem, gpa(L1 + i * 4), &pte, 4);
        }
    } else {
        box_put(b, ROOT, mode == M_PAE ? L2 | X86_PTE_P : L3 | PWU);
        box_put(b, L3, L2 | PWU);
        box_put(b, L2, L1 | PWU);
        for (uint64_t i = 0; i < 512; i++)
            box_put(b, L1 + i * 8, i << 12 | PWU);
    }
    if (mode == M_PAE)
        assert_int_equal(mmu_load_pdptrs(v, ROOT), 0);
    mmu_mode_changed(v);
    return b;
}

void box_free(struct box *b) {
    struct mem *m = b->v.mem;
    mmu_destroy(&b->v);
    mem_destroy(m);
    free(b);
}

void box_set_pte(struct box *b, int mode, uint64_t va, uint64_t pte) {
    uint32_t low = (uint32_t)pte;
    if (mode == M_32)
        mem_write(b->v.mem, gpa(L1 + (va >> 12) * 4), &low, 4);
    else
        box_put(b, L1 + (va >> 12) * 8, pte);
}

uint64_t box_pte(struct box *b, int mode, uint64_t va) {
    uint64_t val = 0;
    unsigned w = mode == M_32 ? 4 : 8;
    mem_read(b->v.mem, gpa(L1 + (va >> 12) * w), &val, w);
    return val;
}

int box_attempt(struct box *b, uint64_t va, enum mmu_access acc, bool sys) {
    struct vcpu *v = &b->v;
    uint64_t x = 0;
    int rc;
    memset(&v->fault, 0, sizeof(v->fault));
    if (acc == MMU_EXEC)
        rc = !mmu_fetch(v, gva(va));
    else if (sys)
        rc = acc == MMU_READ ? mmu_sys_read(v, gva(va), &x, 4)
                             : mmu_sys_write(v, gva(va), &x, 4);
    else
        rc = acc == MMU_READ ? mmu_load(v, gva(va), 4, &x) : mmu_store(v, gva(va), 4, x);
    if (!rc)
        return -1;
    assert_int_equal(v->fault.vector, X86_PF);
    assert_true(v->fault.has_error);
    assert_int_equal(v->fault.addr, va);
    return (int)v->fault.error;
}
