/*
 * Between struct vcpu and KVM's structures. Pure functions: no descriptor, no ioctl.
 *
 * Segments: ours keep a descriptor's access-rights word and the limit in bytes, KVM's
 * have a field for each bit and an `unusable` of VMX, which is "not present" for us. The
 * CPL is SS.DPL on both vendors. Linux, Documentation/virt/kvm/api.rst, "KVM_GET_SREGS".
 */
#include <string.h>

#include "kvm/kvm_int.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/msr.h"

#define IMG_FOP 6
#define IMG_FIP 8
#define IMG_FDP 16
#define IMG_HEADER 512

/* --- general registers --- */

void kvm_regs_get(const struct vcpu *v, struct kvm_regs *r) {
    const uint64_t *g = v->gpr;

    *r = (struct kvm_regs){.rax = g[REG_RAX],
                           .rbx = g[REG_RBX],
                           .rcx = g[REG_RCX],
                           .rdx = g[REG_RDX],
                           .rsi = g[REG_RSI],
                           .rdi = g[REG_RDI],
                           .rsp = g[REG_RSP],
                           .rbp = g[REG_RBP],
                           .r8 = g[REG_R8],
                           .r9 = g[REG_R9],
                           .r10 = g[REG_R10],
                           .r11 = g[REG_R11],
                           .r12 = g[REG_R12],
                           .r13 = g[REG_R13],
                           .r14 = g[REG_R14],
                           .r15 = g[REG_R15],
                           .rip = v->rip,
                           .rflags = v->rflags};
}

void kvm_regs_set(struct vcpu *v, const struct kvm_regs *r) {
    const uint64_t g[16] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp,
                            r->rsi, r->rdi, r->r8,  r->r9,  r->r10, r->r11,
                            r->r12, r->r13, r->r14, r->r15};

    memcpy(v->gpr, g, sizeof(g));
    v->rip = r->rip;
    v->rflags = r->rflags;
}

/* --- segments and control registers --- */

static struct kvm_segment segment_get(const struct segment *s) {
    return (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->sel,
        .type = s->ar & X86_AR_TYPE,
        .s = !!(s->ar & X86_AR_S),
        .dpl = (s->ar & X86_AR_DPL) >> X86_AR_DPL_SHIFT,
        .present = !!(s->ar & X86_AR_P),
        .avl = !!(s->ar & X86_AR_AVL),
        .l = !!(s->ar & X86_AR_L),
        .db = !!(s->ar & X86_AR_DB),
        /* Hardware wants G to agree with the limit. */
        .g = s->limit > 0xfffff,
        .unusable = !(s->ar & X86_AR_P),
    };
}

static struct segment segment_set(const struct kvm_segment *s) {
    return (struct segment){
        .base = s->base,
        .limit = s->limit,
        .sel = s->selector,
        .ar = (uint16_t)((s->type & X86_AR_TYPE) | (s->s ? X86_AR_S : 0) |
                         (s->dpl & 3) << X86_AR_DPL_SHIFT |
                         (s->present && !s->unusable ? X86_AR_P : 0) |
                         (s->avl ? X86_AR_AVL : 0) | (s->l ? X86_AR_L : 0) |
                         (s->db ? X86_AR_DB : 0) | (s->g ? X86_AR_G : 0)),
    };
}

void kvm_sregs_get(const struct vcpu *v, struct kvm_sregs *s) {
    s->es = segment_get(&v->seg[SEG_ES]);
    s->cs = segment_get(&v->seg[SEG_CS]);
    s->ss = segment_get(&v->seg[SEG_SS]);
    s->ds = segment_get(&v->seg[SEG_DS]);
    s->fs = segment_get(&v->seg[SEG_FS]);
    s->gs = segment_get(&v->seg[SEG_GS]);
    s->ss.dpl = v->cpl;
    s->ldt = segment_get(&v->ldtr);
    s->tr = segment_get(&v->tr);
    /* A loader that begins in long mode leaves the TSS of reset, which VMX refuses there.
     * Intel SDM volume 3, "Checks on Guest Segment Registers". */
    if (v->efer & X86_EFER_LMA)
        s->tr.type = X86_DESC_TSS32_BUSY;
    s->gdt = (struct kvm_dtable){.base = v->gdtr.base, .limit = v->gdtr.limit};
    s->idt = (struct kvm_dtable){.base = v->idtr.base, .limit = v->idtr.limit};
    s->cr0 = v->cr0;
    s->cr2 = v->cr2;
    s->cr3 = v->cr3;
    s->cr4 = v->cr4;
    s->efer = v->efer;
}

static uint8_t cpl_of(const struct vcpu *v, const struct kvm_sregs *s) {
    if (!(v->cr0 & X86_CR0_PE))
        return 0;
    return v->rflags & X86_FL_VM ? 3 : s->ss.dpl & 3;
}

/* After kvm_regs_set(): virtual-8086 mode is in RFLAGS. */
void kvm_sregs_set(struct vcpu *v, const struct kvm_sregs *s) {
    v->seg[SEG_ES] = segment_set(&s->es);
    v->seg[SEG_CS] = segment_set(&s->cs);
    v->seg[SEG_SS] = segment_set(&s->ss);
    v->seg[SEG_DS] = segment_set(&s->ds);
    v->seg[SEG_FS] = segment_set(&s->fs);
    v->seg[SEG_GS] = segment_set(&s->gs);
    v->ldtr = segment_set(&s->ldt);
    v->tr = segment_set(&s->tr);
    v->gdtr = (struct desc_table){.base = s->gdt.base, .limit = s->gdt.limit};
    v->idtr = (struct desc_table){.base = s->idt.base, .limit = s->idt.limit};
    v->cr0 = s->cr0;
    v->cr2 = s->cr2;
    v->cr3 = s->cr3;
    v->cr4 = s->cr4;
    v->efer = s->efer;
    v->cpl = cpl_of(v, s);
    vcpu_update_mode(v);
}

/* --- vector and x87 state --- */

_Static_assert(sizeof(((struct vcpu *)0)->vec) <= sizeof(struct kvm_xsave), "fits");

/*
 * Both are XSAVE images in the standard format, with the host's offsets. Ours has the x87
 * pointers beside it (cpu/vcpu.h), because software engines run x87 code from other
 * addresses. A selector is in the upper half of the 64-bit pointer, if there is one.
 */
void kvm_xsave_get(const struct vcpu *v, struct kvm_xsave *x) {
    uint8_t *img = (uint8_t *)x->region;
    uint64_t fip = v->fip | (uint64_t)v->fcs << 32, fdp = v->fdp | (uint64_t)v->fds << 32;
    uint64_t in_use;

    memset(x, 0, sizeof(*x));
    memcpy(img, v->vec, sizeof(v->vec));
    memcpy(img + IMG_FOP, &v->fop, 2);
    memcpy(img + IMG_FIP, &fip, 8);
    memcpy(img + IMG_FDP, &fdp, 8);
    memcpy(&in_use, img + IMG_HEADER, 8);
    in_use &= v->vec_mask | X86_XCR0_X87 | X86_XCR0_SSE;
    if (v->fip || v->fdp || v->fop)
        in_use |= X86_XCR0_X87;
    /* The legacy half is always meant: its bytes hold initial values where unused. */
    in_use |= X86_XCR0_X87 | X86_XCR0_SSE;
    memset(img + IMG_HEADER, 0, 64);
    memcpy(img + IMG_HEADER, &in_use, 8);
}

void kvm_xsave_set(struct vcpu *v, const struct kvm_xsave *x) {
    const uint8_t *img = (const uint8_t *)x->region;
    uint64_t in_use;

    memcpy(&in_use, img + IMG_HEADER, 8);
    in_use &= v->vec_mask | X86_XCR0_X87 | X86_XCR0_SSE;
    memcpy(v->vec, img, sizeof(v->vec));
    memset(v->vec + IMG_HEADER, 0, 64);
    memcpy(v->vec + IMG_HEADER, &in_use, 8);
    memcpy(&v->fop, img + IMG_FOP, 2);
    v->fop &= 0x7ff;
    memcpy(&v->fip, img + IMG_FIP, 8);
    memcpy(&v->fdp, img + IMG_FDP, 8);
    v->fcs = v->fds = 0;
    if (v->mode != MODE_64) {
        v->fcs = (uint16_t)(v->fip >> 32);
        v->fds = (uint16_t)(v->fdp >> 32);
        v->fip = (uint32_t)v->fip;
        v->fdp = (uint32_t)v->fdp;
    }
}

/* --- debug registers --- */

void kvm_debugregs_get(const struct vcpu *v, struct kvm_debugregs *d) {
    *d = (struct kvm_debugregs){.dr6 = v->dr[6], .dr7 = v->dr[7]};
    memcpy(d->db, v->dr, sizeof(d->db));
}

void kvm_debugregs_set(struct vcpu *v, const struct kvm_debugregs *d) {
    memcpy(v->dr, d->db, sizeof(d->db));
    v->dr[6] = d->dr6;
    v->dr[7] = d->dr7;
}

/* --- interrupt shadow and blocked NMIs --- */

/*
 * We keep one shadow for STI and MOV SS. VMX refuses an entry with STI's while IF is
 * clear, and with any while TF is set and no single-step trap pends. Intel SDM volume 3,
 * "Checks on Guest Non-Register State".
 */
void kvm_events_get(const struct vcpu *v, struct kvm_vcpu_events *e) {
    *e = (struct kvm_vcpu_events){.flags = KVM_VCPUEVENT_VALID_SHADOW |
                                           KVM_VCPUEVENT_VALID_NMI_PENDING};
    if (v->irq_shadow && !(v->rflags & X86_FL_TF))
        e->interrupt.shadow =
            v->rflags & X86_FL_IF ? KVM_X86_SHADOW_INT_STI : KVM_X86_SHADOW_INT_MOV_SS;
    e->nmi.masked = v->nmi_blocked;
}

void kvm_events_return(const struct kvm_vcpu_events *kept, struct kvm_vcpu_events *e) {
    uint8_t masked = e->nmi.masked, shadow = e->interrupt.shadow;

    e->exception = kept->exception;
    e->interrupt = kept->interrupt;
    e->nmi = kept->nmi;
    e->nmi.masked = masked;
    e->interrupt.shadow = shadow;
}

void kvm_events_set(struct vcpu *v, const struct kvm_vcpu_events *e) {
    v->irq_shadow = e->interrupt.shadow;
    v->nmi_blocked = e->nmi.masked;
}

/* --- model-specific registers --- */

/* Those that are plain storage. Which of them KVM has, and the guest reaches without an
 * exit, setup.c says; the others are in struct vcpu alone. */
uint64_t *kvm_msr_field(struct vcpu *v, uint32_t index) {
    switch (index) {
#define MSR(group, name, field, number)                                                  \
    case number:                                                                         \
        return &v->field;
#include "cpu/state.def"
    default:
        return NULL;
    }
}
