/*
 * Every intercept: a guest made of the input on the engine that owns its control block,
 * with a VMRUN that executes nothing and comes back for whatever the input says: any exit
 * code, asked for or not, with an event that was being delivered, page faults anywhere.
 * What the hardware answers for is as the hardware would have it (a port has a size);
 * what the guest is, its state and its code, is the input's.
 */
#include "cpu/vec.h"
#include "fuzz/cpu.h"
#include "lib/svmhost.h"
#include "svm/svm_int.h"
#include "x86/cr.h"
#include "x86/exception.h"

enum { ENTRIES = 60, KINDS = 5 };

static const struct {
    enum mmu_policy policy;
    struct svm_options options;
} guests[KINDS] = {{MMU_PCID, {.shadow = false}},
                   {MMU_FLUSH, {.shadow = true}},
                   {MMU_TRACE, {.shadow = true}},
                   {MMU_PCID, {.exits = SVM_EXITS_PURE, .pauses = true}},
                   {MMU_PCID, {.shadow = true, .exits = SVM_EXITS_PURE, .pauses = true}}};

static struct guest vms[KINDS];
static struct svm *svms[KINDS];
static struct guest *now;
static struct fuzz_in in;
static unsigned entries;

static uint64_t an_event(uint8_t how) {
    static const uint32_t kinds[] = {X86_SVM_EVENT_INTR, X86_SVM_EVENT_NMI,
                                     X86_SVM_EVENT_EXCEPTION, X86_SVM_EVENT_SOFTWARE};
    uint32_t kind = kinds[how & 3];
    uint8_t vector = (uint8_t)fuzz_get(&in, 1);

    if (kind == X86_SVM_EVENT_NMI)
        vector = X86_NMI;
    if (kind == X86_SVM_EVENT_EXCEPTION)
        vector &= 31;
    return X86_SVM_EVENT_VALID | kind | vector |
           (how & 4 ? X86_SVM_EVENT_HAS_ERROR | fuzz_get(&in, 1) << 32 : 0);
}

static void for_port(struct x86_vmcb *b) {
    uint8_t how = (uint8_t)fuzz_get(&in, 1);

    b->exit_info1 = fuzz_get(&in, 2) << X86_SVM_IO_PORT_SHIFT |
                    (1u << (how & 3) % 3) << X86_SVM_IO_SIZE_SHIFT |
                    (how >> 4 & (X86_SVM_IO_IN | X86_SVM_IO_STRING | X86_SVM_IO_REP));
    b->exit_info2 = b->rip + 1 + (how >> 2 & 1);
}

/* Codes beyond those of a byte: nested page faults, the AVIC's two, VMGEXIT; what an
 * emulator makes of -1, and the hardware. */
static const uint64_t rare[] = {X86_SVM_EXIT_NPF,     0x401, 0x402, 0x403,
                                X86_SVM_EXIT_INVALID, ~0ull};

static void leave(struct x86_vmcb *b, const struct svm *s) {
    uint8_t code = (uint8_t)fuzz_get(&in, 1), how = (uint8_t)fuzz_get(&in, 1);

    b->exit_code = code;
    if (code >= 0xf0)
        b->exit_code = rare[code < 0xfa ? 0 : code - 0xfa];
    if (b->exit_code == X86_SVM_EXIT_NPF && s->shadow)
        b->exit_code = X86_SVM_EXIT_CPUID;
    b->exit_info1 = fuzz_get(&in, 1);
    b->exit_info2 = fuzz_get(&in, 4);
    if (how & 8)
        b->exit_info2 |= fuzz_get(&in, 4) << 32;
    if (b->exit_code == X86_SVM_EXIT_IOIO)
        for_port(b);
    /* With nested paging the guest's page faults are its own. */
    if (b->exit_code == X86_SVM_EXIT_EXCEPTION + X86_PF && !s->shadow)
        b->exit_code = X86_SVM_EXIT_MSR;
    b->exit_int_info = how & 0x10 ? an_event(how) : 0;
    if (how & 0x20)
        vcpu_raise(now->v, how & 0x40 ? VCPU_EVENT_NMI : VCPU_EVENT_IRQ);
    if (how & 0x80)
        b->rflags ^= X86_FL_IF;
}

static void enter(void *arg, struct svm_entry *e) {
    struct svm *s = svms[now - vms];

    vec_park(now->v);
    HOLDS(e->vmcb->asid && e->vmcb->efer & X86_EFER_SVME);
    HOLDS(e->vmcb->intercept4 & X86_SVM_I_VMRUN);
    if (++entries == ENTRIES || !in.left) {
        e->vmcb->exit_code = X86_SVM_EXIT_INTR;
        e->vmcb->exit_int_info = 0;
        vcpu_raise(now->v, VCPU_EVENT_STOP);
        return;
    }
    leave(e->vmcb, s);
}

static struct cpuid_regs all(void *arg, uint32_t leaf, uint32_t subleaf) {
    return (struct cpuid_regs){~0u, leaf == X86_SVM_LEAF ? 16 : ~0u, ~0u, ~0u};
}

static const struct svm_host host = {.enter = enter,
                                     .alloc = svmhost_alloc,
                                     .free = svmhost_free,
                                     .phys = svmhost_phys,
                                     .virt = svmhost_virt,
                                     .cpuid = all};

static void make(unsigned kind) {
    char why[128];

    if (vms[kind].v)
        return;
    cpu_guest_new(&vms[kind], guests[kind].policy, NULL);
    need(!svm_new(vms[kind].v, vms[kind].ip, &host, &guests[kind].options, &svms[kind],
                  why, sizeof(why)),
         why);
    svms[kind]->has_xcr0 = false;
}

static void run(unsigned kind, const uint8_t *data, size_t size) {
    enum exit_reason why = EXIT_kick;
    size_t half = size / 2;
    struct cpu_how how;

    now = &vms[kind];
    guest_reset(now);
    svm_sync(svms[kind]);
    cpu_guest(now, data, half, &how);
    svm_reset(svms[kind]);
    in = (struct fuzz_in){data + half, size - half};
    entries = 0;
    for (unsigned k = 0; k < 2 * ENTRIES && why == EXIT_kick; k++) {
        why = svm_run(svms[kind]);
        HOLDS(why == EXIT_kick || why == EXIT_halt || why == EXIT_shutdown ||
              why == EXIT_error);
        if (vcpu_events(now->v) & VCPU_EVENT_STOP)
            break;
        vcpu_clear(now->v, VCPU_EVENT_KICK);
    }
    svm_sync(svms[kind]);
    vcpu_clear(now->v, ~0u);
    guest_check(now);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 18)
        return 0;
    for (unsigned k = 0; k < KINDS; k++) {
        make(k);
        run(k, data, size);
    }
    return 0;
}
