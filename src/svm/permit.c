/*
 * What the guest does without us: the intercepts, and the maps of ports and of
 * model-specific registers, in which a bit that is set makes an access leave. All ports
 * do, but for those of a device of the host's that the guest has (svm_ports()). Of the
 * registers those stay that the control block holds and nobody else looks at:
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
    if (s->exits == SVM_EXITS_MINIMAL) {
        open_msrs(s, X86_MSR_SYSENTER_CS, X86_MSR_SYSENTER_EIP);
        open_msrs(s, X86_MSR_STAR, X86_MSR_SFMASK);
        open_msrs(s, X86_MSR_FS_BASE, X86_MSR_KERNEL_GS_BASE);
    }
    s->vmcb->iopm = s->host->phys(s->host->arg, s->iopm);
    s->vmcb->msrpm = s->host->phys(s->host->arg, s->msrpm);
}

void svm_ports(struct svm *s, uint16_t first, unsigned count, bool open) {
    for (unsigned port = first; port < first + count && port < 0x10000; port++) {
        uint8_t bit = (uint8_t)(1u << port % 8), *at = &s->iopm[port / 8];

        *at = open ? *at & (uint8_t)~bit : *at | bit;
    }
}

struct intercepts {
    uint16_t cr_read, cr_write, dr;
    uint32_t exceptions, three, four;
};

/*
 * What must leave. CR0 and CR4 when they are written, for modes have rules that are
 * sem's, and CR8, which is the local APIC's; #DB and #AC, which a guest can have
 * delivered without end inside one instruction ("CVE-2015-5307", "CVE-2015-8104"); and
 * #GP, which above CPL 0 SVM's own instructions raise instead of #UD, because EFER.SVME
 * is set for them.
 */
static const struct intercepts minimal = {
    .cr_read = 1u << 8,
    .cr_write = 1u << 0 | 1u << 4 | 1u << 8,
    .dr = 0xffff,
    .exceptions = 1u << X86_DB | 1u << X86_GP | 1u << X86_AC | 1u << X86_MC,
    .three = X86_SVM_I_INTR | X86_SVM_I_NMI | X86_SVM_I_SMI | X86_SVM_I_INIT |
             X86_SVM_I_RDPMC | X86_SVM_I_CPUID | X86_SVM_I_RSM | X86_SVM_I_INVD |
             X86_SVM_I_HLT | X86_SVM_I_INVLPGA | X86_SVM_I_IOIO | X86_SVM_I_MSR |
             (uint32_t)X86_SVM_I_SHUTDOWN,
    .four = X86_SVM_I_VMRUN | X86_SVM_I_VMMCALL | X86_SVM_I_VMLOAD | X86_SVM_I_VMSAVE |
            X86_SVM_I_STGI | X86_SVM_I_CLGI | X86_SVM_I_SKINIT | X86_SVM_I_WBINVD |
            X86_SVM_I_MONITOR | X86_SVM_I_MWAIT | X86_SVM_I_MWAIT_ARMED |
            X86_SVM_I_XSETBV,
};

/* More of it with shadow paging: what the guest is not to see, and what its translations
 * hang on. */
static const struct intercepts for_shadow = {
    .cr_read = 1u << 0 | 1u << 3 | 1u << 4,
    .cr_write = 1u << 3,
    .exceptions = 1u << X86_PF,
    .three = X86_SVM_I_INVLPG | X86_SVM_I_TASK_SWITCH,
};

/* More of it with pure virtualization: each instruction that reads or writes what is the
 * system's, whether the control block could keep it for the guest or not. Of what a
 * debugger or the translator would look at besides (INT n, PUSHF) nothing is the
 * system's. */
static const struct intercepts pure = {
    .cr_read = 1u << 0 | 1u << 2 | 1u << 3 | 1u << 4,
    .cr_write = 1u << 2 | 1u << 3,
    .three = X86_SVM_I_IDTR_READ | X86_SVM_I_GDTR_READ | X86_SVM_I_LDTR_READ |
             X86_SVM_I_TR_READ | X86_SVM_I_IDTR_WRITE | X86_SVM_I_GDTR_WRITE |
             X86_SVM_I_LDTR_WRITE | X86_SVM_I_TR_WRITE | X86_SVM_I_RDTSC |
             X86_SVM_I_IRET | X86_SVM_I_INVLPG,
    .four = X86_SVM_I_RDTSCP,
};

static void add(struct x86_vmcb *b, const struct intercepts *i) {
    b->cr_read |= i->cr_read;
    b->cr_write |= i->cr_write;
    b->dr_read |= i->dr;
    b->dr_write |= i->dr;
    b->exceptions |= i->exceptions;
    b->intercept3 |= i->three;
    b->intercept4 |= i->four;
}

void svm_intercepts(struct x86_vmcb *b, bool shadow, enum svm_exits exits) {
    add(b, &minimal);
    if (shadow)
        add(b, &for_shadow);
    if (exits == SVM_EXITS_PURE)
        add(b, &pure);
}
