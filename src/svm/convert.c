/*
 * Between struct vcpu and the control block. Pure functions.
 *
 * Segments: both keep a descriptor's access rights, we as a word with a hole where the
 * limit was, the control block without; limits are in bytes in both. The CPL has a field
 * of its own. EFER.SVME is set for the hardware and not for the guest. AMD64 APM volume
 * 2, "VMCB State Save Area".
 */
#include "svm/svm_int.h"
#include "x86/cr.h"
#include "x86/desc.h"

static struct x86_svm_segment segment_get(const struct segment *s) {
    return (struct x86_svm_segment){
        .selector = s->sel,
        .attrib = (uint16_t)((s->ar & 0xff) | (s->ar >> 4 & 0xf00)),
        .limit = s->limit,
        .base = s->base,
    };
}

static struct segment segment_set(const struct x86_svm_segment *s) {
    return (struct segment){
        .sel = s->selector,
        .ar = (uint16_t)((s->attrib & 0xff) | (s->attrib & 0xf00) << 4),
        .limit = s->limit,
        .base = s->base,
    };
}

static void segments_get(const struct vcpu *v, struct x86_vmcb *b) {
    b->es = segment_get(&v->seg[SEG_ES]);
    b->cs = segment_get(&v->seg[SEG_CS]);
    b->ss = segment_get(&v->seg[SEG_SS]);
    b->ds = segment_get(&v->seg[SEG_DS]);
    b->fs = segment_get(&v->seg[SEG_FS]);
    b->gs = segment_get(&v->seg[SEG_GS]);
    b->ldtr = segment_get(&v->ldtr);
    b->tr = segment_get(&v->tr);
    b->gdtr = (struct x86_svm_segment){.base = v->gdtr.base, .limit = v->gdtr.limit};
    b->idtr = (struct x86_svm_segment){.base = v->idtr.base, .limit = v->idtr.limit};
    b->cpl = v->cpl;
}

void svm_state_get(const struct vcpu *v, struct x86_vmcb *b) {
    segments_get(v, b);
    b->efer = v->efer | X86_EFER_SVME;
    b->cr0 = v->cr0;
    b->cr2 = v->cr2;
    b->cr3 = v->cr3;
    b->cr4 = v->cr4;
    b->dr6 = v->dr[6];
    b->dr7 = v->dr[7];
    b->rflags = v->rflags;
    b->rip = v->rip;
    b->rsp = v->gpr[REG_RSP];
    b->rax = v->gpr[REG_RAX];
    b->star = v->star;
    b->lstar = v->lstar;
    b->cstar = v->cstar;
    b->sfmask = v->sfmask;
    b->kernel_gs_base = v->kernel_gs_base;
    b->sysenter_cs = v->sysenter_cs;
    b->sysenter_esp = v->sysenter_esp;
    b->sysenter_eip = v->sysenter_eip;
    b->pat = v->pat;
    b->tsc_offset = v->tsc_base;
    b->int_state = v->irq_shadow ? X86_SVM_SHADOW : 0;
}

uint8_t svm_cpl(const struct vcpu *v, const struct x86_vmcb *b) {
    if (!(v->cr0 & X86_CR0_PE))
        return 0;
    return v->rflags & X86_FL_VM ? 3 : b->cpl & 3;
}

void svm_state_set(struct vcpu *v, const struct x86_vmcb *b) {
    v->seg[SEG_ES] = segment_set(&b->es);
    v->seg[SEG_CS] = segment_set(&b->cs);
    v->seg[SEG_SS] = segment_set(&b->ss);
    v->seg[SEG_DS] = segment_set(&b->ds);
    v->seg[SEG_FS] = segment_set(&b->fs);
    v->seg[SEG_GS] = segment_set(&b->gs);
    v->ldtr = segment_set(&b->ldtr);
    v->tr = segment_set(&b->tr);
    v->gdtr = (struct desc_table){.base = b->gdtr.base, .limit = (uint16_t)b->gdtr.limit};
    v->idtr = (struct desc_table){.base = b->idtr.base, .limit = (uint16_t)b->idtr.limit};
    v->efer = b->efer & ~(uint64_t)X86_EFER_SVME;
    v->cr0 = b->cr0;
    v->cr2 = b->cr2;
    v->cr3 = b->cr3;
    v->cr4 = b->cr4;
    v->dr[6] = b->dr6;
    v->dr[7] = b->dr7;
    v->rflags = b->rflags;
    v->rip = b->rip;
    v->gpr[REG_RSP] = b->rsp;
    v->gpr[REG_RAX] = b->rax;
    v->star = b->star;
    v->lstar = b->lstar;
    v->cstar = b->cstar;
    v->sfmask = b->sfmask;
    v->kernel_gs_base = b->kernel_gs_base;
    v->sysenter_cs = b->sysenter_cs;
    v->sysenter_esp = b->sysenter_esp;
    v->sysenter_eip = b->sysenter_eip;
    v->irq_shadow = b->int_state & X86_SVM_SHADOW;
    v->cpl = svm_cpl(v, b);
    vcpu_update_mode(v);
}
