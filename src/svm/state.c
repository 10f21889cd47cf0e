/*
 * Moving the guest's state between struct vcpu and the control block (svm_int.h says
 * when). The x87's pointers are kept beside the image (cpu/vcpu.h), and in it while the
 * guest runs.
 */
#include "cpu/vec.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "svm/svm_int.h"
#include "x86/cr.h"

#define IMG_FOP 6
#define IMG_FIP 8
#define IMG_FDP 16

static void pointers_in(struct vcpu *v) {
    uint64_t fip = v->fip | (v->mode == MODE_64 ? 0 : (uint64_t)v->fcs << 32);
    uint64_t fdp = v->fdp | (v->mode == MODE_64 ? 0 : (uint64_t)v->fds << 32);

    mem_copy(v->vec + IMG_FOP, &v->fop, 2);
    mem_copy(v->vec + IMG_FIP, &fip, 8);
    mem_copy(v->vec + IMG_FDP, &fdp, 8);
}

static void pointers_out(struct vcpu *v) {
    mem_copy(&v->fop, v->vec + IMG_FOP, 2);
    mem_copy(&v->fip, v->vec + IMG_FIP, 8);
    mem_copy(&v->fdp, v->vec + IMG_FDP, 8);
    v->fop &= 0x7ff;
    v->fcs = v->fds = 0;
    if (v->mode != MODE_64) {
        v->fcs = (uint16_t)(v->fip >> 32);
        v->fds = (uint16_t)(v->fdp >> 32);
        v->fip = (uint32_t)v->fip;
        v->fdp = (uint32_t)v->fdp;
    }
}

/* Does it move what the hardware has derived translations from? */
static bool translates_otherwise(const struct vcpu *v, const struct x86_vmcb *b) {
    return b->cr0 != v->cr0 || b->cr3 != v->cr3 || b->cr4 != v->cr4 ||
           b->efer != (v->efer | X86_EFER_SVME);
}

void svm_push(struct svm *s) {
    struct vcpu *v = s->v;
    uint64_t was[2]; /* shadow.c's to compare */

    vec_park(v);
    pointers_in(v);
    s->flush |= !s->shadow && translates_otherwise(v, s->vmcb);
    was[0] = s->vmcb->cr0;
    was[1] = s->vmcb->cr4;
    svm_state_get(v, s->vmcb);
    if (s->shadow) {
        s->vmcb->cr0 = was[0];
        s->vmcb->cr4 = was[1];
    }
    s->loaded = true;
}

/* With shadow paging the control registers in the control block are not the guest's. */
void svm_view(struct svm *s) {
    struct vcpu *v = s->v;
    uint64_t cr0 = v->cr0, cr3 = v->cr3, cr4 = v->cr4, efer = v->efer;

    svm_state_set(v, s->vmcb);
    if (!s->shadow)
        return;
    v->cr0 = cr0;
    v->cr3 = cr3;
    v->cr4 = cr4;
    v->efer = efer;
    v->cpl = svm_cpl(v, s->vmcb);
    vcpu_update_mode(v);
    mmu_context_changed(v);
}

void svm_pull(struct svm *s) {
    struct vcpu *v = s->v;

    if (!s->loaded)
        return;
    svm_view(s);
    vec_park(v);
    pointers_out(v);
    s->loaded = false;
    s->cnt.pulls++;
    if (s->shadow) /* which the traces have kept right */
        return;
    /* The guest has stored to memory behind the shadow's back. */
    mmu_flush_all(v);
    mmu_context_changed(v);
}
