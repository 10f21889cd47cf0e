/* Virtual pages with code: whether they still map what was translated. */
#include "bt/bt_int.h"

/* INVLPG of any part of a large page concerns all code in it. */
static void note_large(struct vcpu *v, const struct tr_page *p) {
    unsigned shift = mmu_code_shift(v, gva(p->va));
    uint64_t n = p->va >> 21;

    if (shift == 12)
        return;
    for (uint64_t k = shift > 21 ? n & ~1ull : n; k <= (shift > 21 ? n | 1 : n); k++)
        v->bt.large_filter[k >> 6 & 63] |= 1ull << (k & 63);
    if (shift > 22) /* 1 GiB */
        for (unsigned k = 0; k < ARRAY_SIZE(v->bt.large_filter); k++)
            v->bt.large_filter[k] = ~0ull;
}

/* The page has just been fetched from: what it maps is good for this epoch. */
void bt_page_checked(struct vcpu *v, struct tr_page *p) {
    note_large(v, p);
    if (!p->global)
        p->valid = v->bt.epoch_user;
    else
        p->valid = mmu_code_is_global(v, gva(p->va)) ? v->bt.epoch_global : 0;
}
