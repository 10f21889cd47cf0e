/*
 * The bare machine as svm/ wants it (struct svm_host): memory is mapped one to one, and
 * the registers that neither VMRUN nor VMLOAD switches are switched here: XCR0, TSC_AUX,
 * DR0 to DR3. Each of the host's CPUs has ASIDs of its own to give.
 */
#include "bare/bare.h"
#include "hv/hv_int.h"
#include "x86/msr.h"
#include "x86/svm.h"

static _Thread_local uint64_t xcr0_of_host, tsc_aux_in;
static unsigned asid[BARE_CPUS]; /* the last one that was given */

static void set_xcr0(uint64_t value) {
    __asm__ volatile("xsetbv"
                     :
                     : "c"(0), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static uint64_t get_xcr0(void) {
    uint32_t lo, hi;

    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo | (uint64_t)hi << 32;
}

static void set_tsc_aux(uint64_t value) {
    if (value == tsc_aux_in)
        return;
    tsc_aux_in = value;
    __asm__ volatile("wrmsr"
                     :
                     : "c"(X86_MSR_TSC_AUX), "a"((uint32_t)value),
                       "d"((uint32_t)(value >> 32)));
}

static void set_breakpoints(const uint64_t dr[4]) {
    __asm__ volatile("mov %0, %%dr0; mov %1, %%dr1; mov %2, %%dr2; mov %3, %%dr3"
                     :
                     : "r"(dr[0]), "r"(dr[1]), "r"(dr[2]), "r"(dr[3]));
}

/* An interrupt that comes before the guest's first instruction. */
static void enter_block(struct svm_entry *e) {
    if (bare_svm_enter(e->vmcb, e->gpr, e->events, e->leave))
        return;
    e->vmcb->exit_code = X86_SVM_EXIT_INTR;
    e->vmcb->exit_int_info = e->vmcb->event_inj;
}

/* An emulator may let XSETBV pass without an exit: what the guest left is asked for. */
static void enter(void *arg, struct svm_entry *e) {
    if (e->dr)
        set_breakpoints(e->dr);
    if (e->tsc_aux)
        set_tsc_aux(*e->tsc_aux);
    if (!e->xcr0) {
        enter_block(e);
        return;
    }
    if (!xcr0_of_host)
        xcr0_of_host = get_xcr0();
    set_xcr0(e->xcr0);
    enter_block(e);
    e->xcr0 = get_xcr0();
    set_xcr0(xcr0_of_host);
}

static void *alloc(void *arg, uint64_t size) {
    return size == 4096 ? bare_frame() : bare_frames(size, 4096);
}

static void give_back(void *arg, void *page) {
    bare_frame_free(page);
}

static uint64_t phys(void *arg, const void *p) {
    return (uintptr_t)p;
}

static void *virt(void *arg, uint64_t at) {
    return (void *)(uintptr_t)at;
}

static struct cpuid_regs ask(void *arg, uint32_t leaf, uint32_t subleaf) {
    struct cpuid_regs r;

    __asm__ volatile("cpuid"
                     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                     : "a"(leaf), "c"(subleaf));
    return r;
}

static unsigned give_asids(void *arg, unsigned count, unsigned wanted, unsigned *first) {
    return svm_asids_give(arg, count, wanted, first);
}

const struct svm_host *hv_svm_host(unsigned n) {
    static struct svm_host host[BARE_CPUS];

    host[n] = (struct svm_host){.enter = enter,
                                .alloc = alloc,
                                .free = give_back,
                                .phys = phys,
                                .virt = virt,
                                .cpuid = ask,
                                .asids = give_asids,
                                .arg = &asid[n]};
    return &host[n];
}
