/*
 * Hardware virtualization on this CPU: is it there, turned on, and entered (enter.S).
 * What a guest's run leaves to be put back (FS, GS, TR and the registers of system calls)
 * is saved once, for it does not change. AMD64 APM volume 2, "Enabling SVM".
 */
#include "bare/bare_int.h"
#include "x86/cr.h"
#include "x86/msr.h"
#include "x86/svm.h"

static void *host_save, *host_state;

static const char no_svm[] =
    "the CPU has no SVM, the hardware virtualization of AMD's, or "
    "the machine around us does not offer it; take engine=bt";

const char *bare_svm_on(void) {
    uint32_t r[4];

    bare_cpuid(0x80000000, r);
    if (r[0] < X86_SVM_LEAF)
        return no_svm;
    bare_cpuid(0x80000001, r);
    if (!(r[2] & X86_SVM_CPUID))
        return no_svm;
    if (bare_rdmsr(X86_MSR_VM_CR) & X86_VM_CR_SVMDIS)
        return "the firmware has turned SVM off (VM_CR.SVMDIS)";
    if (!host_save)
        host_save = bare_frame();
    if (!host_state)
        host_state = bare_frame();
    if (!host_save || !host_state)
        return "there is no memory for the host's state";
    bare_wrmsr(X86_MSR_EFER, bare_rdmsr(X86_MSR_EFER) | X86_EFER_SVME);
    bare_wrmsr(X86_MSR_VM_HSAVE_PA, (uintptr_t)host_save);
    __asm__ volatile("vmsave %%rax" : : "a"(host_state) : "memory");
    return NULL;
}

void bare_svm_enter(void *vmcb, uint64_t *gpr) {
    bare_vmrun((uintptr_t)vmcb, gpr, (uintptr_t)host_state);
}
