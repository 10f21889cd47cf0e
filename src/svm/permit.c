/*
 * What the guest does without us: the intercepts, and the maps of ports and of
 * model-specific registers, in which a bit that is set makes an access leave. All ports
 * do. Of the registers those stay that the control block holds and nobody else looks at:
 * of system calls, and the bases. EFER leaves, for the guest must not see SVME in it.
 * AMD64 APM volume 2, "IOIO Intercepts" and "MSR Intercepts".
 */
#include "mem/mem.h"
#include "svm/svm_int.h"
#include "x86/exception.h"
#include "x86/msr.h"

/* Bit of the map for reads of MSR; for writes the next one. ~0: none, it always leaves.
 */
static unsigned msr_bit(uint32_t msr) {
    if (msr < 0x2000)
        return msr * 2;
    if (msr - 0xc0000000u < 0x2000)
        return 0x4000 + (msr - 0xc0000000u) * 2;
    return msr - 0xc0010000u < 0x2000 ? 0x8000 + (msr - 0xc0010000u) * 2 : ~0u;
}

static void open_msrs(struct svm *s, uint32_t first, uint32_t last) {
    for (uint32_t msr = first; msr <= last; msr++) {
        unsigned bit = msr_bit(msr);

        s->msrpm[bit / 8] &= (uint8_t) ~(3u << bit % 8);
    }
}

void svm_permissions(struct svm *s) {
    mem_fill(s->iopm, 0xff, X86_SVM_IOPM_SIZE);
    mem_fill(s->msrpm, 0xff, X86_SVM_MSRPM_SIZE);
    open_msrs(s, X86_MSR_SYSENTER_CS, X86_MSR_SYSENTER_EIP);
    open_msrs(s, X86_MSR_STAR, X86_MSR_SFMASK);
    open_msrs(s, X86_MSR_FS_BASE, X86_MSR_KERNEL_GS_BASE);
    s->vmcb->iopm = s->host->phys(s->host->arg, s->iopm);
    s->vmcb->msrpm = s->host->phys(s->host->arg, s->msrpm);
}

/*
 * CR0 and CR4 leave when they are written, for modes have rules that
 * are sem's, and CR8, which is the local APIC's; #DB and #AC, which a guest can have
 * delivered without end inside one instruction ("CVE-2015-5307", "CVE-2015-8104").
 */
void svm_intercepts(struct x86_vmcb *b, bool shadow) {
    b->cr_read = 1u << 8;
    b->cr_write = 1u << 0 | 1u << 4 | 1u << 8;
    b->dr_read = b->dr_write = 0xffff;
    b->exceptions = 1u << X86_DB | 1u << X86_AC | 1u << X86_MC;
    b->intercept3 = X86_SVM_I_INTR | X86_SVM_I_NMI | X86_SVM_I_SMI | X86_SVM_I_INIT |
                    X86_SVM_I_RDPMC | X86_SVM_I_CPUID | X86_SVM_I_RSM | X86_SVM_I_INVD |
                    X86_SVM_I_HLT | X86_SVM_I_INVLPGA | X86_SVM_I_IOIO | X86_SVM_I_MSR |
                    (uint32_t)X86_SVM_I_SHUTDOWN;
    b->intercept4 = X86_SVM_I_VMRUN | X86_SVM_I_VMMCALL | X86_SVM_I_VMLOAD |
                    X86_SVM_I_VMSAVE | X86_SVM_I_STGI | X86_SVM_I_CLGI |
                    X86_SVM_I_SKINIT | X86_SVM_I_WBINVD | X86_SVM_I_MONITOR |
                    X86_SVM_I_MWAIT | X86_SVM_I_MWAIT_ARMED | X86_SVM_I_XSETBV;
    if (!shadow)
        return;
    /* What the guest is not to see, and what its translations hang on. */
    b->cr_read |= 1u << 0 | 1u << 3 | 1u << 4;
    b->cr_write |= 1u << 3;
    b->exceptions |= 1u << X86_PF;
    b->intercept3 |= X86_SVM_I_INVLPG | X86_SVM_I_TASK_SWITCH;
}
