/*
 * Makes the virtual machine: what we need of KVM, the CPUID model, the MSR
 * filter, the local APIC's place.
 *
 * CPUID: our model, less what this KVM does not confirm (KVM_GET_SUPPORTED_CPUID). MSRs:
 * everything is denied but what the hardware itself keeps, so that the others leave to
 * us and the model of cpu/msr.c holds for every engine.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/os.h"
#include "cpu/cpuid.h"
#include "cpu/smp.h"
#include "cpu/vec.h"
#include "kvm/kvm_int.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "x86/msr.h"

/* Below 4 GiB, above RAM, no device's: for KVM's own use on Intel CPUs. */
#define IDENTITY_MAP_ADDR 0xfeffc000ull
#define TSS_ADDR 0xfeffd000ul

#define CPUID_MAX 256

/* --- CPUID --- */

struct cpuid_list {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entry[CPUID_MAX];
};

static struct cpuid_regs supported_leaf(void *arg, uint32_t leaf, uint32_t subleaf) {
    const struct cpuid_list *l = arg;

    for (unsigned i = 0; i < l->head.nent; i++) {
        const struct kvm_cpuid_entry2 *e = &l->entry[i];

        if (e->function == leaf &&
            (e->index == subleaf || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
            return (struct cpuid_regs){e->eax, e->ebx, e->ecx, e->edx};
    }
    return (struct cpuid_regs){0};
}

static int read_supported(const struct kvm *k, struct cpuid_list *l) {
    l->head = (struct kvm_cpuid2){.nent = CPUID_MAX};
    return ioctl(k->dev, KVM_GET_SUPPORTED_CPUID, l) ? -errno : 0;
}

static void add_leaf(struct kvm *k, struct cpuid_list *l, uint32_t leaf, uint32_t sub,
                     uint32_t flags) {
    struct cpuid_regs r = cpuid_query(k->v, leaf, sub);

    if (l->head.nent < CPUID_MAX)
        l->entry[l->head.nent++] = (struct kvm_cpuid_entry2){.function = leaf,
                                                             .index = sub,
                                                             .flags = flags,
                                                             .eax = r.eax,
                                                             .ebx = r.ebx,
                                                             .ecx = r.ecx,
                                                             .edx = r.edx};
}

/* Number of subleafs of LEAF that differ; 0: the leaf has none. */
static unsigned subleafs(uint32_t leaf) {
    switch (leaf) {
    case 4:
    case 0x8000001d:
        return 5;
    case 7:
        return 2;
    case 0xb:
        return 3;
    case 0xd:
        return VEC_COMPONENTS;
    default:
        return 0;
    }
}

static void add_range(struct kvm *k, struct cpuid_list *l, uint32_t first) {
    uint32_t last = cpuid_query(k->v, first, 0).eax;

    for (uint32_t leaf = first; leaf <= last && leaf - first < 64; leaf++) {
        unsigned n = subleafs(leaf);

        if (!n)
            add_leaf(k, l, leaf, 0, 0);
        for (unsigned sub = 0; sub < n; sub++)
            add_leaf(k, l, leaf, sub, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
    }
}

/* KVM itself follows CR4.OSXSAVE and XCR0. */
static int set_cpuid(struct kvm *k) {
    struct cpuid_list l = {0};

    add_range(k, &l, 0);
    add_range(k, &l, 0x80000000u);
    if (cpuid_paravirt(k->model))
        add_range(k, &l, 0x40000000u);
    return ioctl(k->fd, KVM_SET_CPUID2, &l) ? -errno : 0;
}

/* What the guest may have, and this KVM does: it answers its hypercalls itself, by the
 * local APICs that it has, and does the flush of TLBs when a CPU is entered. */
static uint32_t paravirt_of(const struct kvm *k) {
    struct cpuid_list l;
    uint32_t bits = cpuid_kvm_optional(k->outer);

    if (!k->kernel_lapic)
        bits &= ~CPUID_KVM_BETWEEN;
    if (read_supported(k, &l))
        return 0;
    bits &= supported_leaf(&l, 0x40000001, 0).eax;
    if ((bits & CPUID_KVM_BETWEEN) && !kvm_answers_calls(k->dev, cpuid_is_amd(k->outer)))
        bits &= ~CPUID_KVM_BETWEEN;
    return bits & CPUID_KVM_STEAL_TIME ? bits : bits & ~CPUID_KVM_TLB_FLUSH;
}

static int make_model(struct kvm *k) {
    struct cpuid_list l;
    struct cpuid_limit limit = {.leaf = supported_leaf, .arg = &l};
    int rc = read_supported(k, &l);

    if (rc)
        return rc;
    /* The deadline timer is the local APIC's: ours has it. */
    limit.tsc_deadline = !k->kernel_lapic || ioctl(k->dev, KVM_CHECK_EXTENSION,
                                                   KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    limit.paravirt = k->paravirt;
    k->model = cpuid_model_limit(k->outer, &limit);
    if (!k->model)
        return -ENOMEM;
    k->v->cpuid = k->model;
    mmu_flush_all(k->v);
    mmu_mode_changed(k->v);
    return 0;
}

/* --- MSRs --- */

/* What the hardware or KVM keeps: FIRST to LAST, to be read, to be written; and where. */
static const struct hw_msr {
    uint32_t first, last;
    bool read, write;
    enum { CPU, LAPIC, STEAL } part;
} hw_msrs[] = {
    {X86_MSR_TSC, X86_MSR_TSC, true, false, CPU},
    {X86_MSR_APIC_BASE, X86_MSR_APIC_BASE, true, true, LAPIC},
    {X86_MSR_SPEC_CTRL, X86_MSR_PRED_CMD, true, true, CPU},
    {X86_MSR_SYSENTER_CS, X86_MSR_SYSENTER_EIP, true, true, CPU},
    {X86_MSR_PAT, X86_MSR_PAT, true, true, CPU},
    {X86_MSR_TSC_DEADLINE, X86_MSR_TSC_DEADLINE, true, true, LAPIC},
    {X86_MSR_X2APIC_FIRST, X86_MSR_X2APIC_LAST, true, true, LAPIC},
    {X86_MSR_KVM_STEAL_TIME, X86_MSR_KVM_STEAL_TIME, true, true, STEAL},
    {X86_MSR_EFER, X86_MSR_SFMASK, true, true, CPU},
    {X86_MSR_FS_BASE, X86_MSR_TSC_AUX, true, true, CPU},
};

/* Is it kept by what this KVM has? */
static bool is_kept(const struct kvm *k, const struct hw_msr *h) {
    return h->part == CPU || (h->part == LAPIC && k->kernel_lapic) ||
           (h->part == STEAL && kvm_has_steal_time(k));
}

bool kvm_msr_is_hw(const struct kvm *k, uint32_t index, bool write) {
    for (size_t i = 0; i < ARRAY_SIZE(hw_msrs); i++) {
        const struct hw_msr *h = &hw_msrs[i];

        if (index >= h->first && index <= h->last)
            return (write ? h->write : h->read) && is_kept(k, h);
    }
    return false;
}

/* A bit that is set lets the access pass. x2APIC's registers are never filtered: without
 * the kernel's local APIC KVM finds them invalid, and an invalid access leaves too. */
static int set_msr_filter(struct kvm *k) {
    static uint8_t ones[32] = {[0 ... 31] = 0xff};
    struct kvm_msr_filter f = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};
    struct kvm_enable_cap cap = {.cap = KVM_CAP_X86_USER_SPACE_MSR,
                                 .args[0] = KVM_MSR_EXIT_REASON_INVAL |
                                            KVM_MSR_EXIT_REASON_UNKNOWN |
                                            KVM_MSR_EXIT_REASON_FILTER};
    unsigned n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(hw_msrs); i++) {
        const struct hw_msr *h = &hw_msrs[i];

        if (!is_kept(k, h) || h->first == X86_MSR_X2APIC_FIRST)
            continue;
        f.ranges[n++] =
            (struct kvm_msr_filter_range){.flags = (h->read ? KVM_MSR_FILTER_READ : 0u) |
                                                   (h->write ? KVM_MSR_FILTER_WRITE : 0u),
                                          .base = h->first,
                                          .nmsrs = h->last - h->first + 1,
                                          .bitmap = ones};
    }
    if (ioctl(k->vm, KVM_ENABLE_CAP, &cap) || ioctl(k->vm, KVM_X86_SET_MSR_FILTER, &f))
        return -errno;
    return 0;
}

/* Those that move with the state: what of them this KVM knows for this model. */
static void list_msrs(struct kvm *k) {
    for (size_t i = 0; i < ARRAY_SIZE(hw_msrs); i++)
        for (uint32_t m = hw_msrs[i].first; m <= hw_msrs[i].last; m++) {
            struct {
                struct kvm_msrs head;
                struct kvm_msr_entry entry;
            } one = {.head.nmsrs = 1, .entry.index = m};

            if (!kvm_msr_field(k->v, m) || k->msr_count == KVM_MSR_MAX ||
                ioctl(k->fd, KVM_GET_MSRS, &one) != 1 ||
                ioctl(k->fd, KVM_SET_MSRS, &one) != 1)
                continue;
            k->msr_index[k->msr_count++] = m;
        }
}

/* Immunities are the real CPU's to claim. */
static void read_arch_caps(struct kvm *k) {
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = {.head.nmsrs = 1, .entry.index = X86_MSR_ARCH_CAPABILITIES};

    k->arch_caps = ioctl(k->dev, KVM_GET_MSRS, &one) == 1 ? one.entry.data : 0;
}

/* --- the whole --- */

/* KVM answers no hypercall that the model does not offer. Linux 5.10. */
static void want_hypercalls_hidden(struct kvm *k) {
    struct kvm_enable_cap cap = {.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args[0] = 1};

    ioctl(k->fd, KVM_ENABLE_CAP, &cap);
}

/* Else KVM raises #UD in user code for what its emulator does not know. Linux 5.15. */
static void want_emulation_failures(struct kvm *k) {
    struct kvm_enable_cap cap = {.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args[0] = 1};

    ioctl(k->vm, KVM_ENABLE_CAP, &cap);
}

static int split_lapic(struct kvm *k) {
    struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args[0] = KVM_ROUTES};

    return ioctl(k->vm, KVM_ENABLE_CAP, &cap) ? -errno : 0;
}

static int make_vm(struct kvm *k, const char **what) {
    uint64_t identity = IDENTITY_MAP_ADDR;
    int rc;

    *what = "create a virtual machine";
    k->vm = ioctl(k->dev, KVM_CREATE_VM, 0);
    if (k->vm < 0)
        return -errno;
    *what = "set it up";
    if (ioctl(k->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity) ||
        ioctl(k->vm, KVM_SET_TSS_ADDR, TSS_ADDR))
        return -errno;
    want_emulation_failures(k);
    *what = "filter its model-specific registers";
    rc = set_msr_filter(k);
    if (rc)
        return rc;
    *what = "give it a local APIC; `--irqchip user` does without";
    if (k->kernel_lapic && (rc = split_lapic(k)))
        return rc;
    *what = "give it memory";
    return kvm_map_memory(k);
}

static int make_vcpu(struct kvm *k, const char **what) {
    struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL,
                                   .attr = KVM_VCPU_TSC_OFFSET};
    int size, rc;
    void *map;

    *what = "create a CPU";
    k->fd = ioctl(k->vm, KVM_CREATE_VCPU, (unsigned long)k->index);
    size = ioctl(k->dev, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (k->fd < 0 || size < (int)sizeof(struct kvm_run))
        return k->fd < 0 ? -errno : -EINVAL;
    map = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    k->run = map;
    k->run_size = (size_t)size;
    *what = "tell what CPU the guest has";
    rc = make_model(k);
    if (!rc)
        rc = set_cpuid(k);
    if (rc)
        return rc;
    want_hypercalls_hidden(k);
    k->tsc_offset = ioctl(k->fd, KVM_HAS_DEVICE_ATTR, &attr) == 0;
    k->xcr0 = cpuid_xcr0_valid(k->model) != 0;
    list_msrs(k);
    read_arch_caps(k);
    *what = "take a signal";
    return os_kick_init();
}

void kvm_map_changed(struct kvm *k) {
    if (k->first == k)
        k->map_error = kvm_map_memory(k);
}

/* A guest that is gone has no record any more. */
static void forget_record(const struct kvm *k) {
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = {.head.nmsrs = 1, .entry.index = X86_MSR_KVM_STEAL_TIME};

    if (kvm_has_steal_time(k))
        ioctl(k->fd, KVM_SET_MSRS, &one);
}

void kvm_reset(struct kvm *k) {
    /* What the last instruction has left to do belongs to the old life. */
    kvm_settle(k);
    kvm_map_changed(k);
    k->loaded = k->events_in = false;
    k->lapic_ready = false;
    k->apic_base = k->index ? 0xfee00800 : 0xfee00900; /* enabled; boot processor */
    k->mp_state = k->index ? KVM_MP_STATE_UNINITIALIZED : KVM_MP_STATE_RUNNABLE;
    k->cr8 = 0;
    forget_record(k);
}

static int open_vm(struct kvm *k, const char **what, char *why, size_t why_size) {
    struct kvm_probe p;

    if (k->first != k) {
        k->dev = k->first->dev;
        k->vm = k->first->vm;
        k->paravirt = k->first->paravirt;
        return 0;
    }
    k->dev = kvm_open(&p);
    if (k->dev >= 0) {
        k->paravirt = paravirt_of(k);
        return make_vm(k, what);
    }
    kvm_probe_text(&p, why, why_size);
    *what = NULL; /* WHY says it */
    return -ENODEV;
}

int kvm_new(struct vcpu *v, struct interp *interp, const struct kvm_config *cfg,
            struct kvm *first, struct kvm **out, char *why, size_t why_size) {
    struct kvm *k = calloc(1, sizeof(*k));
    const char *what = "";
    int rc;

    snprintf(why, why_size, "out of memory");
    if (!k)
        return -ENOMEM;
    *k = (struct kvm){.v = v,
                      .interp = interp,
                      .outer = v->cpuid,
                      .first = first ? first : k,
                      .index = v->member ? v->member->index : 0,
                      .dev = -1,
                      .vm = -1,
                      .fd = -1,
                      .kernel_lapic = cfg->kernel_lapic};
    rc = open_vm(k, &what, why, why_size);
    if (!rc)
        rc = make_vcpu(k, &what);
    if (rc) {
        if (what)
            snprintf(why, why_size,
                     "KVM opens but cannot %s: %s; `--engine bt` does without", what,
                     strerror(-rc));
        kvm_free(k);
        return -ENODEV;
    }
    kvm_reset(k);
    *out = k;
    return 0;
}

void kvm_free(struct kvm *k) {
    if (k->model) {
        k->v->cpuid = k->outer;
        mmu_flush_all(k->v);
        cpuid_model_free(k->model);
    }
    if (k->run)
        munmap(k->run, k->run_size);
    if (k->fd >= 0)
        close(k->fd);
    if (k->vm >= 0 && k->first == k)
        close(k->vm);
    if (k->dev >= 0 && k->first == k)
        close(k->dev);
    free(k->slot);
    free(k);
}
