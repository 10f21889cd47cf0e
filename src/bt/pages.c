/* Virtual pages with code: whether they still map what was translated. */
#include "bt/bt_int.h"

/* The page has just been fetched from: what it maps is good for this epoch. */
void bt_page_checked(struct vcpu *v, struct tr_page *p) {
    mmu_code_watch(v, gva(p->va));
    if (!p->global)
        p->valid = v->shadow.epoch_user;
    else
        p->valid = mmu_code_is_global(v, gva(p->va)) ? v->shadow.epoch_global : 0;
}
