/*
 * CPUID, and RDMSR and WRMSR of the local APIC's registers, without the interpreter:
 * after ports the commonest exits of a guest under nested paging. They touch no memory,
 * so that nothing that was derived from it need be dropped: struct vcpu is shown the
 * control block's state (svm_view()), sem/ does what the instruction does, and the few
 * registers that have changed go back. Vector state stays where it is.
 *
 * Whatever is not plain is the interpreter's: single steps, breakpoints, an event that
 * was being delivered, prefixes, a fault. How long the instruction is the hardware tells
 * (NRIP save), or the two bytes at RIP by a walk of the guest's tables; PAE's
 * page-directory pointers, which hardware reads as it goes, are not walked for that.
 */
#include "decode/decode.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "svm/svm_int.h"
#include "x86/cr.h"
#include "x86/msr.h"

#define LENGTH 2u

static const uint8_t bytes[SVM_SHORT_COUNT][LENGTH] = {
    [SVM_SHORT_CPUID] = {0x0f, 0xa2},
    [SVM_SHORT_RDMSR] = {0x0f, 0x32},
    [SVM_SHORT_WRMSR] = {0x0f, 0x30},
};

void svm_shortcuts(struct svm *s) {
    for (unsigned n = 0; n < SVM_SHORT_COUNT; n++) {
        decode_insn(MODE_64, bytes[n], LENGTH, &s->brief[n]);
        sem_bind(s->v, &s->brief[n]);
    }
}

/* Those that a device has, and all of whose effects are its own. */
static bool is_apics(uint32_t msr) {
    return (msr >= X86_MSR_X2APIC_FIRST && msr <= X86_MSR_X2APIC_LAST) ||
           msr == X86_MSR_TSC_DEADLINE;
}

static bool plain(const struct svm *s) {
    const struct x86_vmcb *b = s->vmcb;

    return s->loaded && !s->event && !(b->dr7 & 0xff) && !(b->rflags & X86_FL_TF);
}

/* The bytes are at RIP, with nothing in front of them. */
static bool is_there(struct svm *s, const uint8_t want[LENGTH]) {
    struct vcpu *v = s->v;
    uint64_t at = v->mode == MODE_64 ? v->rip : (uint32_t)(v->seg[SEG_CS].base + v->rip);
    bool pae = (v->cr0 & X86_CR0_PG) && (v->cr4 & X86_CR4_PAE) && !v->long_mode;
    uint8_t is[LENGTH];
    bool writable;
    struct gpa gpa;

    if (s->features & X86_SVM_NRIPS)
        return s->vmcb->next_rip == v->rip + LENGTH;
    return (at & 0xfff) != 0xfff && (s->shadow || !pae) &&
           mmu_peek(v, gva(at), &gpa, &writable) && mem_read(v->mem, gpa, is, LENGTH) &&
           is[0] == want[0] && is[1] == want[1];
}

bool svm_shortcut(struct svm *s, enum svm_short which) {
    struct vcpu *v = s->v;
    struct x86_vmcb *b = s->vmcb;
    int rc;

    if (!plain(s) || (which != SVM_SHORT_CPUID && !is_apics((uint32_t)v->gpr[REG_RCX])))
        return false;
    svm_view(s);
    if (!is_there(s, bytes[which]))
        return false;
    rc = s->brief[which].exec(v, &s->brief[which]);
    v->leave_code = false;
    if (rc != SEM_NEXT && rc != SEM_STOP)
        return false;
    v->cnt->insns_retired++;
    s->cnt.shortcuts++;
    b->rax = v->gpr[REG_RAX];
    b->rip = v->mode == MODE_64 ? v->rip + LENGTH : (uint32_t)(v->rip + LENGTH);
    b->rflags &= ~(uint64_t)X86_FL_RF;
    b->int_state = 0;
    return true;
}
