/* The vCPU's reset state. */
#include "cpu/vcpu.h"

#include "base/os.h"
#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "cpu/vec.h"
#include "x86/cr.h"
#include "x86/desc.h"

static const struct segment reset_data = {
    .ar = X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED, .limit = 0xffff};

/* AMD64 APM volume 2, "Processor Initialization State", table of initial states: what is
 * the same after power-up and INIT. */
static void initial_state(struct vcpu *v) {
    __builtin_memset(v->gpr, 0, sizeof(v->gpr));
    v->zero = 0;
    v->rip = 0xfff0;
    v->rflags = X86_FL_ONE;
    v->cpl = 0;
    v->irq_shadow = v->halted = v->nmi_blocked = v->leave_code = false;
    for (unsigned s = 0; s < SEG_COUNT; s++)
        v->seg[s] = reset_data;
    v->seg[SEG_CS] = (struct segment){.sel = 0xf000,
                                      .ar = X86_AR_P | X86_AR_S | X86_AR_CODE |
                                            X86_AR_WRITE | X86_AR_ACCESSED,
                                      .limit = 0xffff,
                                      .base = 0xffff0000};
    v->ldtr = (struct segment){.ar = X86_AR_P | X86_DESC_LDT, .limit = 0xffff};
    /* Not the 16-bit kind: a CPU out of reset enters long mode without LTR (Linux,
     * arch/x86/realmode/rm/trampoline_64.S). */
    v->tr = (struct segment){.ar = X86_AR_P | X86_DESC_TSS32_BUSY, .limit = 0xffff};
    v->gdtr = v->idtr = (struct desc_table){.limit = 0xffff};
    v->cr2 = v->cr3 = v->cr4 = 0;
    __builtin_memset(v->pdpte, 0, sizeof(v->pdpte));
    __builtin_memset(v->dr, 0, sizeof(v->dr));
    v->dr[6] = X86_DR6_FIXED;
    v->dr[7] = X86_DR7_FIXED;
    v->fault = (struct fault){0};
    v->pending_db = 0;
    if (v->cpuid)
        v->gpr[REG_RDX] = cpuid_query(v, 1, 0).eax;
}

struct vcpu *vcpu_new(void) {
    void *p;

    if (os_fenced_alloc(VCPU_COUNTS_SIZE + sizeof(struct vcpu), &p))
        return NULL;
    return (struct vcpu *)(void *)((uint8_t *)p + VCPU_COUNTS_SIZE);
}

void vcpu_free(struct vcpu *v) {
    if (v)
        os_fenced_free(vcpu_counts(v), VCPU_COUNTS_SIZE + sizeof(*v));
}

void vcpu_reset(struct vcpu *v) {
    initial_state(v);
    vcpu_clear(v, VCPU_EVENT_NMI);
    v->cr0 = X86_CR0_CD | X86_CR0_NW | X86_CR0_ET;
    v->xcr0 = X86_XCR0_X87;
    v->fip = v->fdp = 0;
    v->fcs = v->fds = v->fop = 0;
    msr_reset(v);
    vec_reset(v);
    vcpu_update_mode(v);
}

/* Intel SDM volume 3, "IA-32 and Intel 64 Processor States Following Power-up, Reset, or
 * INIT". */
void vcpu_init(struct vcpu *v) {
    initial_state(v);
    v->cr0 = (v->cr0 & (X86_CR0_CD | X86_CR0_NW)) | X86_CR0_ET;
    v->efer = 0;
    vcpu_forget_gates(v);
    vcpu_update_mode(v);
}
