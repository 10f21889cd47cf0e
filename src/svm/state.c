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

    vec_park(v);
    pointers_in(v);
    s->flush |= translates_otherwise(v, s->vmcb);
    svm_state_get(v, s->vmcb);
    s->loaded = true;
}

void svm_pull(struct svm *s) {
    struct vcpu *v = s->v;

    if (!s->loaded)
        return;
    svm_state_set(v, s->vmcb);
    vec_park(v);
    pointers_out(v);
    s->loaded = false;
    s->cnt.pulls++;
    /* The guest has stored to memory behind the shadow's back. */
    mmu_flush_all(v);
    mmu_context_changed(v);
}
