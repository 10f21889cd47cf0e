/*
 * Hardware virtualization on a CPU: is it there, turned on, and entered (enter.S).
 * What a guest's run leaves to be put back (FS, GS, TR and the registers of system calls)
 * is saved once, for it does not change. AMD64 APM volume 2, "Enabling SVM".
 */
#include "bare/bare_int.h"
#include "x86/cr.h"
#include "x86/msr.h"
#include "x86/svm.h"

static const char no_svm[] =
    "the CPU has no SVM, the hardware virtualization of AMD's, or "
    "the machine around us does not offer it; take engine=bt";

/* NULL: it is there, and not turned off. */
static const char *probe(void) {
    uint32_t r[4];

    bare_cpuid(0x80000000, r);
    if (r[0] < X86_SVM_LEAF)
        return no_svm;
    bare_cpuid(0x80000001, r);
    if (!(r[2] & X86_SVM_CPUID))
        return no_svm;
    if (bare_rdmsr(X86_MSR_VM_CR) & X86_VM_CR_SVMDIS)
        return "the firmware has turned SVM off (VM_CR.SVMDIS)";
    return NULL;
}

void bare_svm_start(void) {
    struct bare_cpu *c = bare_self;

    c->no_svm = probe();
    if (c->no_svm)
        return;
    c->host_save = bare_frame();
    c->host_state = bare_frame();
    if (!c->host_save || !c->host_state) {
        c->no_svm = "there is no memory for the host's state";
        return;
    }
    bare_wrmsr(X86_MSR_EFER, bare_rdmsr(X86_MSR_EFER) | X86_EFER_SVME);
    bare_wrmsr(X86_MSR_VM_HSAVE_PA, (uintptr_t)c->host_save);
    __asm__ volatile("vmsave %%rax" : : "a"(c->host_state) : "memory");
}

const char *bare_svm_lacks(unsigned n) {
    return bare_cpu(n)->no_svm;
}

/* With GIF clear, interrupts of the host's wait, and end the run that begins then. */
bool bare_svm_enter(void *vmcb, uint64_t *gpr, const uint32_t *events, uint32_t mask) {
    __asm__ volatile("clgi" : : : "memory");
    if (__atomic_load_n(events, __ATOMIC_SEQ_CST) & mask) {
        __asm__ volatile("stgi" : : : "memory");
        return false;
    }
    bare_vmrun((uintptr_t)vmcb, gpr, (uintptr_t)bare_self->host_state);
    return true;
}
