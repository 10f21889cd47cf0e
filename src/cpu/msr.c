/*
 * Model-specific registers.
 *
 * One table of ranges, in ascending order of their first number: each range has the
 * functions that read and write it, and, for those that are only storage, where. What the
 * vendors make of the same numbers differently stands in two ranges. An MSR that no range
 * covers raises #GP, as on a CPU that does not have it. Which bits are kept, ignored or
 * reserved is the manuals' and, where they leave it open, what KVM does.
 *
 * Not here: what a write means to other rooms. The local APIC's and the paravirtual
 * clock's are devices' (MSR_NOT_OURS); after EFER the caller tells the MMU.
 */
#include "cpu/msr.h"

#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "x86/cr.h"
#include "x86/msr.h"

enum msr_vendor { ANY, AMD, INTEL };

struct msr_range;
typedef enum msr_result read_fn(struct vcpu *v, const struct msr_range *r, uint32_t index,
                                uint64_t *value);
typedef enum msr_result write_fn(struct vcpu *v, const struct msr_range *r,
                                 uint32_t index, uint64_t value);

struct msr_range {
    uint32_t first, last;
    uint8_t vendor; /* enum msr_vendor */
    read_fn *read;
    write_fn *write;
    uint16_t offset; /* storage in struct vcpu, of uint64_t */
    uint64_t value;  /* what a constant reads as; the valid bits of storage */
};

static bool canonical(uint64_t a) {
    return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}

static uint64_t *storage(struct vcpu *v, const struct msr_range *r, uint32_t index) {
    return (uint64_t *)(void *)((uint8_t *)v + r->offset) + (index - r->first);
}

/* --- plain kinds --- */

static enum msr_result read_constant(struct vcpu *v, const struct msr_range *r,
                                     uint32_t index, uint64_t *value) {
    *value = r->value;
    return MSR_OK;
}

static enum msr_result read_zero(struct vcpu *v, const struct msr_range *r,
                                 uint32_t index, uint64_t *value) {
    *value = 0;
    return MSR_OK;
}

static enum msr_result write_ignored(struct vcpu *v, const struct msr_range *r,
                                     uint32_t index, uint64_t value) {
    return MSR_OK;
}

static enum msr_result write_fault(struct vcpu *v, const struct msr_range *r,
                                   uint32_t index, uint64_t value) {
    return MSR_FAULT;
}

static enum msr_result read_fault(struct vcpu *v, const struct msr_range *r,
                                  uint32_t index, uint64_t *value) {
    return MSR_FAULT;
}

static enum msr_result read_stored(struct vcpu *v, const struct msr_range *r,
                                   uint32_t index, uint64_t *value) {
    *value = *storage(v, r, index);
    return MSR_OK;
}

/* Bits outside of r->value are reserved. */
static enum msr_result write_stored(struct vcpu *v, const struct msr_range *r,
                                    uint32_t index, uint64_t value) {
    if (value & ~r->value)
        return MSR_FAULT;
    *storage(v, r, index) = value;
    return MSR_OK;
}

static enum msr_result write_canonical(struct vcpu *v, const struct msr_range *r,
                                       uint32_t index, uint64_t value) {
    if (!canonical(value))
        return MSR_FAULT;
    *storage(v, r, index) = value;
    return MSR_OK;
}

/* Bits outside of r->value are not there: they read as 0. */
static enum msr_result write_masked(struct vcpu *v, const struct msr_range *r,
                                    uint32_t index, uint64_t value) {
    *storage(v, r, index) = value & r->value;
    return MSR_OK;
}

static enum msr_result read_device(struct vcpu *v, const struct msr_range *r,
                                   uint32_t index, uint64_t *value) {
    return MSR_NOT_OURS;
}

static enum msr_result write_device(struct vcpu *v, const struct msr_range *r,
                                    uint32_t index, uint64_t value) {
    return MSR_NOT_OURS;
}

/* The device knows no address width. */
static enum msr_result write_apic_base(struct vcpu *v, const struct msr_range *r,
                                       uint32_t index, uint64_t value) {
    return value >> cpuid_phys_bits(v->cpuid) ? MSR_FAULT : MSR_NOT_OURS;
}

static enum msr_result read_kvm(struct vcpu *v, const struct msr_range *r, uint32_t index,
                                uint64_t *value) {
    return cpuid_paravirt(v->cpuid) ? MSR_NOT_OURS : MSR_FAULT;
}

static enum msr_result write_kvm(struct vcpu *v, const struct msr_range *r,
                                 uint32_t index, uint64_t value) {
    return cpuid_paravirt(v->cpuid) ? MSR_NOT_OURS : MSR_FAULT;
}

static enum msr_result read_steal(struct vcpu *v, const struct msr_range *r,
                                  uint32_t index, uint64_t *value) {
    return cpuid_steal_time(v->cpuid) ? MSR_NOT_OURS : MSR_FAULT;
}

static enum msr_result write_steal(struct vcpu *v, const struct msr_range *r,
                                   uint32_t index, uint64_t value) {
    return cpuid_steal_time(v->cpuid) ? MSR_NOT_OURS : MSR_FAULT;
}

/* --- time --- */

static uint64_t tsc_now(struct vcpu *v) {
    if (v->tsc_host)
        return __builtin_ia32_rdtsc() + v->tsc_base;
    vec_park(v);
    return v->hooks && v->hooks->tsc ? v->hooks->tsc(v->hooks_arg) : 0;
}

static void tsc_set(struct vcpu *v, uint64_t value) {
    vec_park(v);
    if (v->hooks && v->hooks->tsc_write)
        v->hooks->tsc_write(v->hooks_arg, value);
}

static enum msr_result read_tsc(struct vcpu *v, const struct msr_range *r, uint32_t index,
                                uint64_t *value) {
    *value = tsc_now(v);
    return MSR_OK;
}

/* A write to either moves the other. Intel SDM volume 3, "IA32_TSC_ADJUST Register
 * Support". */
static enum msr_result write_tsc(struct vcpu *v, const struct msr_range *r,
                                 uint32_t index, uint64_t value) {
    v->tsc_adjust += value - tsc_now(v);
    tsc_set(v, value);
    return MSR_OK;
}

static enum msr_result write_tsc_adjust(struct vcpu *v, const struct msr_range *r,
                                        uint32_t index, uint64_t value) {
    uint64_t delta = value - v->tsc_adjust;
    v->tsc_adjust = value;
    if (delta)
        tsc_set(v, tsc_now(v) + delta);
    return MSR_OK;
}

/* --- modes and bases --- */

/* AMD64 APM volume 2, "Extended Feature Enable Register (EFER)". LMA is the CPU's: AMD's
 * refuse a write of another value (Linux, arch/x86/realmode/init.c, masks it out for
 * that), Intel's ignore it. */
static enum msr_result write_efer(struct vcpu *v, const struct msr_range *r,
                                  uint32_t index, uint64_t value) {
    if (value & ~cpuid_efer_valid(v->cpuid))
        return MSR_FAULT;
    if (((value ^ v->efer) & X86_EFER_LME) && (v->cr0 & X86_CR0_PG))
        return MSR_FAULT;
    if (((value ^ v->efer) & X86_EFER_LMA) && cpuid_is_amd(v->cpuid))
        return MSR_FAULT;
    v->efer = (value & ~(uint64_t)X86_EFER_LMA) | (v->efer & X86_EFER_LMA);
    vcpu_update_mode(v);
    return MSR_OK;
}

static enum msr_result read_seg_base(struct vcpu *v, const struct msr_range *r,
                                     uint32_t index, uint64_t *value) {
    *value = v->seg[index == X86_MSR_FS_BASE ? SEG_FS : SEG_GS].base;
    return MSR_OK;
}

static enum msr_result write_seg_base(struct vcpu *v, const struct msr_range *r,
                                      uint32_t index, uint64_t value) {
    unsigned seg = index == X86_MSR_FS_BASE ? SEG_FS : SEG_GS;
    if (!canonical(value))
        return MSR_FAULT;
    v->seg[seg].base = v->segbase[seg] = value;
    return MSR_OK;
}

/* --- memory types --- */

/* UC, WC, WT, WP, WB; for the PAT also UC- (7). */
static bool memory_type(uint64_t type, bool pat) {
    return type == 0 || type == 1 || (type >= 4 && type <= 6) || (pat && type == 7);
}

static bool eight_types(uint64_t value, bool pat) {
    for (unsigned i = 0; i < 64; i += 8) {
        if (!memory_type(value >> i & 0xff, pat))
            return false;
    }
    return true;
}

static enum msr_result write_pat(struct vcpu *v, const struct msr_range *r,
                                 uint32_t index, uint64_t value) {
    if (!eight_types(value, true))
        return MSR_FAULT;
    v->pat = value;
    return MSR_OK;
}

static enum msr_result write_mtrr_deftype(struct vcpu *v, const struct msr_range *r,
                                          uint32_t index, uint64_t value) {
    if ((value & ~0xcffull) || !memory_type(value & 0xff, false))
        return MSR_FAULT;
    v->mtrr_deftype = value;
    return MSR_OK;
}

static enum msr_result write_mtrr_var(struct vcpu *v, const struct msr_range *r,
                                      uint32_t index, uint64_t value) {
    uint64_t reserved = ~((1ull << cpuid_phys_bits(v->cpuid)) - 1);
    bool mask = index & 1;
    reserved |= mask ? 0x7ff : 0xf00;
    if ((value & reserved) || (!mask && !memory_type(value & 0xff, false)))
        return MSR_FAULT;
    *storage(v, r, index) = value;
    return MSR_OK;
}

/* The eleven fixed registers have numbers in three groups. */
static unsigned fixed_slot(uint32_t index) {
    return index == X86_MSR_MTRR_FIX64K    ? 0
           : index < X86_MSR_MTRR_FIX4K_C0 ? 1 + (index - X86_MSR_MTRR_FIX16K_8)
                                           : 3 + (index - X86_MSR_MTRR_FIX4K_C0);
}

static enum msr_result read_mtrr_fixed(struct vcpu *v, const struct msr_range *r,
                                       uint32_t index, uint64_t *value) {
    *value = v->mtrr_fixed[fixed_slot(index)];
    return MSR_OK;
}

/* AMD's RdMem and WrMem bits read as zero and are ignored while SYSCFG hides them. */
static enum msr_result write_mtrr_fixed(struct vcpu *v, const struct msr_range *r,
                                        uint32_t index, uint64_t value) {
    if (!eight_types(value, false))
        return MSR_FAULT;
    v->mtrr_fixed[fixed_slot(index)] = value;
    return MSR_OK;
}

/* --- speculation and the rest --- */

/* Nothing is kept; bits outside of r->value are reserved. */
static enum msr_result write_command(struct vcpu *v, const struct msr_range *r,
                                     uint32_t index, uint64_t value) {
    return value & ~r->value ? MSR_FAULT : MSR_OK;
}

/* Bit 24, the TSC counts at the P0 frequency, is fixed. */
#define HWCR_TSC_FREQ_SEL (1ull << 24)

static enum msr_result write_hwcr(struct vcpu *v, const struct msr_range *r,
                                  uint32_t index, uint64_t value) {
    v->hwcr = (value & 0x7fffffff) | HWCR_TSC_FREQ_SEL;
    return MSR_OK;
}

/* A revision that no update in any distribution exceeds would lie; one that is too old
 * makes guests warn. This is a late one of the model's. */
static enum msr_result read_ucode(struct vcpu *v, const struct msr_range *r,
                                  uint32_t index, uint64_t *value) {
    *value = cpuid_is_amd(v->cpuid) ? 0x0a101148 : 0x2b000603ull << 32;
    return MSR_OK;
}

/* RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO,
 * SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO. */
#define ARCH_CAPS                                                                        \
    (1ull << 0 | 1ull << 1 | 1ull << 3 | 1ull << 4 | 1ull << 5 | 1ull << 6 | 1ull << 8 | \
     1ull << 13 | 1ull << 14 | 1ull << 15 | 1ull << 20 | 1ull << 24 | 1ull << 26 |       \
     1ull << 27 | 1ull << 62)

/* MISC_ENABLE: fast strings (0), no BTS (11), no PEBS (12). The last two cannot be
 * changed, nor can it be said that there are performance counters (7). All else is kept,
 * as KVM does, and has no effect: thermal control (3), SpeedStep (16), MONITOR (18),
 * limit CPUID (22), execute-disable off (34) ... */
#define MISC_ENABLE_RESET 0x1801ull
#define MISC_ENABLE_FIXED 0x1800ull
#define MISC_ENABLE_PERFMON 0x80ull

static enum msr_result write_misc_enable(struct vcpu *v, const struct msr_range *r,
                                         uint32_t index, uint64_t value) {
    if ((value ^ v->misc_enable) & MISC_ENABLE_FIXED)
        return MSR_FAULT;
    v->misc_enable = value & ~MISC_ENABLE_PERFMON;
    return MSR_OK;
}

#define AT(field) offsetof(struct vcpu, field)
#define ALL (~0ull)

static const struct msr_range ranges[] = {
    {0x0, 0x1, ANY, read_constant, write_ignored, 0, 0}, /* P5 machine check */
    {0x10, 0x10, ANY, read_tsc, write_tsc, 0, 0},
    {0x17, 0x17, INTEL, read_constant, write_fault, 0, 0},   /* PLATFORM_ID */
    {0x1b, 0x1b, ANY, read_device, write_apic_base, 0, 0},   /* APIC_BASE */
    {0x2a, 0x2a, INTEL, read_constant, write_ignored, 0, 0}, /* EBL_CR_POWERON */
    {0x34, 0x34, INTEL, read_constant, write_fault, 0, 0},   /* SMI_COUNT */
    {0x3a, 0x3a, INTEL, read_constant, write_fault, 0, 1},   /* FEATURE_CONTROL: locked */
    {0x3b, 0x3b, ANY, read_stored, write_tsc_adjust, AT(tsc_adjust), 0},
    /* IBRS, STIBP, BHI_DIS_S; there is no SSBD, which SSB_NO makes superfluous. */
    {0x48, 0x48, INTEL, read_stored, write_stored, AT(spec_ctrl), 0x403},
    {0x49, 0x49, INTEL, read_fault, write_command, 0, 1}, /* PRED_CMD: IBPB */
    {0x79, 0x79, INTEL, read_fault, write_ignored, 0, 0}, /* microcode update */
    {0x8b, 0x8b, ANY, read_ucode, write_ignored, 0, 0},
    {0xce, 0xce, INTEL, read_constant, write_fault, 0, 0},   /* PLATFORM_INFO */
    {0xfe, 0xfe, ANY, read_constant, write_fault, 0, 0x508}, /* 8 variable, fixed, WC */
    {0x10a, 0x10a, INTEL, read_constant, write_fault, 0, ARCH_CAPS},
    {0x140, 0x140, INTEL, read_constant, write_command, 0, 0}, /* MISC_FEATURES: none */
    {0x174, 0x174, ANY, read_stored, write_masked, AT(sysenter_cs), 0xffffffff},
    /* AMD's SYSENTER knows 32 bits: nothing asks for canonical addresses. */
    {0x175, 0x175, INTEL, read_stored, write_canonical, AT(sysenter_esp), 0},
    {0x175, 0x175, AMD, read_stored, write_stored, AT(sysenter_esp), ALL},
    {0x176, 0x176, INTEL, read_stored, write_canonical, AT(sysenter_eip), 0},
    {0x176, 0x176, AMD, read_stored, write_stored, AT(sysenter_eip), ALL},
    {0x179, 0x179, ANY, read_constant, write_fault, 0, 0}, /* MCG_CAP: no banks */
    /* RIPV, EIPV, MCIP: AMD64 APM volume 2, "Machine Check Status" */
    {0x17a, 0x17a, ANY, read_stored, write_stored, AT(mcg_status), 7},
    {0x1a0, 0x1a0, INTEL, read_stored, write_misc_enable, AT(misc_enable), 0},
    /* DEBUGCTL: last-branch records (0) and single-stepping on branches (1) are not
     * offered, but every CPU has them: ignored, as KVM does. So are AMD's pins (2 to 5).
     */
    {0x1d9, 0x1d9, INTEL, read_zero, write_command, 0, 3},
    {0x1d9, 0x1d9, AMD, read_zero, write_command, 0, 0x3f},
    {0x1db, 0x1de, ANY, read_constant, write_ignored, 0, 0}, /* last branch, interrupt */
    {0x200, 0x20f, ANY, read_stored, write_mtrr_var, AT(mtrr_var), 0},
    {0x250, 0x250, ANY, read_mtrr_fixed, write_mtrr_fixed, 0, 0},
    {0x258, 0x259, ANY, read_mtrr_fixed, write_mtrr_fixed, 0, 0},
    {0x268, 0x26f, ANY, read_mtrr_fixed, write_mtrr_fixed, 0, 0},
    {0x277, 0x277, ANY, read_stored, write_pat, AT(pat), 0},
    {0x2ff, 0x2ff, ANY, read_stored, write_mtrr_deftype, AT(mtrr_deftype), 0},
    {0x6e0, 0x6e0, ANY, read_device, write_device, 0, 0},
    {0x800, 0x8ff, ANY, read_device, write_device, 0, 0},
    {0x4b564d00, 0x4b564d01, ANY, read_kvm, write_kvm, 0, 0},
    {0x4b564d03, 0x4b564d03, ANY, read_steal, write_steal, 0, 0},
    {0xc0000080, 0xc0000080, ANY, read_stored, write_efer, AT(efer), 0},
    {0xc0000081, 0xc0000081, ANY, read_stored, write_stored, AT(star), ALL},
    {0xc0000082, 0xc0000082, ANY, read_stored, write_canonical, AT(lstar), 0},
    {0xc0000083, 0xc0000083, ANY, read_stored, write_canonical, AT(cstar), 0},
    {0xc0000084, 0xc0000084, ANY, read_stored, write_masked, AT(sfmask), 0xffffffff},
    {0xc0000100, 0xc0000101, ANY, read_seg_base, write_seg_base, 0, 0},
    {0xc0000102, 0xc0000102, ANY, read_stored, write_canonical, AT(kernel_gs_base), 0},
    /* TSC_AUX: the upper half is reserved on Intel's, AMD's ignore it. */
    {0xc0000103, 0xc0000103, INTEL, read_stored, write_stored, AT(tsc_aux), 0xffffffff},
    {0xc0000103, 0xc0000103, AMD, read_stored, write_masked, AT(tsc_aux), 0xffffffff},
    {0xc0000104, 0xc0000104, AMD, read_constant, write_ignored, 0,
     1ull << 32},                                                      /* ratio */
    {0xc0010000, 0xc0010007, AMD, read_constant, write_ignored, 0, 0}, /* PMCs */
    {0xc0010010, 0xc0010010, AMD, read_stored, write_masked, AT(syscfg), 0x7c0000},
    {0xc0010015, 0xc0010015, AMD, read_stored, write_hwcr, AT(hwcr), 0},
    {0xc0010016, 0xc0010019, AMD, read_constant, write_ignored, 0, 0}, /* IORRs */
    {0xc001001a, 0xc001001a, AMD, read_constant, write_ignored, 0, 1ull << 32}, /* TOM */
    {0xc001001d, 0xc001001d, AMD, read_constant, write_ignored, 0, 0},
    {0xc001001f, 0xc001001f, AMD, read_constant, write_ignored, 0, 0}, /* NB_CFG */
    {0xc0010020, 0xc0010020, AMD, read_fault, write_ignored, 0, 0},    /* PATCH_LOADER */
    {0xc0010022, 0xc0010022, AMD, read_constant, write_ignored, 0, 0},
    {0xc0010055, 0xc0010055, AMD, read_constant, write_ignored, 0, 0}, /* INT_PENDING */
    {0xc0010058, 0xc0010058, AMD, read_constant, write_ignored, 0, 0}, /* MMIO config */
    {0xc0010061, 0xc0010063, AMD, read_constant, write_ignored, 0, 0}, /* P-states */
    {0xc0010064, 0xc001006b, AMD, read_constant, write_ignored, 0, 0},
    {0xc0010111, 0xc0010113, AMD, read_constant, write_ignored, 0, 0},    /* SMM base */
    {0xc0010114, 0xc0010114, AMD, read_constant, write_ignored, 0, 0x10}, /* no SVM */
    {0xc0010140, 0xc0010141, AMD, read_constant, write_ignored, 0, 0},    /* OSVW: none */
    {0xc0011020, 0xc0011028, AMD, read_constant, write_ignored, 0, 0},    /* LS_CFG ... */
    {0xc0011029, 0xc0011029, AMD, read_constant, write_ignored, 0,
     2}, /* DE_CFG: lfence */
    {0xc001102a, 0xc0011030, AMD, read_constant, write_ignored, 0, 0}, /* BU, BP_CFG */
};

/* Ranges that overlap have the same numbers. */
static const struct msr_range *find(const struct vcpu *v, uint32_t index) {
    size_t lo = 0, hi = ARRAY_SIZE(ranges);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (ranges[mid].last < index)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < ARRAY_SIZE(ranges) && ranges[lo].first <= index; lo++) {
        const struct msr_range *r = &ranges[lo];
        if (r->vendor == ANY || (r->vendor == AMD) == cpuid_is_amd(v->cpuid))
            return r;
    }
    return NULL;
}

enum msr_result msr_read(struct vcpu *v, uint32_t index, uint64_t *value) {
    const struct msr_range *r = find(v, index);
    return r ? r->read(v, r, index, value) : MSR_FAULT;
}

enum msr_result msr_write(struct vcpu *v, uint32_t index, uint64_t value) {
    const struct msr_range *r = find(v, index);
    if (index - 0xc0000080 <= 4 || index - 0x174 <= 2) /* EFER, and of system calls */
        vcpu_forget_gates(v);
    return r ? r->write(v, r, index, value) : MSR_FAULT;
}

void msr_reset(struct vcpu *v) {
    v->efer = 0;
    v->star = v->lstar = v->cstar = v->sfmask = 0;
    v->kernel_gs_base = v->tsc_aux = 0;
    v->sysenter_cs = v->sysenter_esp = v->sysenter_eip = 0;
    v->spec_ctrl = v->mcg_status = v->tsc_adjust = v->syscfg = 0;
    v->hwcr = HWCR_TSC_FREQ_SEL;
    v->misc_enable = MISC_ENABLE_RESET;
    v->pat = 0x0007040600070406ull; /* AMD64 APM volume 2, "PAT Register" */
    v->mtrr_deftype = 0xc06;        /* enabled, fixed enabled, write-back */
    for (unsigned i = 0; i < ARRAY_SIZE(v->mtrr_fixed); i++)
        v->mtrr_fixed[i] = 0x0606060606060606ull;
    v->mtrr_fixed[2] = 0; /* 0xa0000 to 0xbffff */
    __builtin_memset(v->mtrr_var, 0, sizeof(v->mtrr_var));
    v->mtrr_var[0] = 0xc0000000;
    unsigned bits = v->cpuid ? cpuid_phys_bits(v->cpuid) : 40;
    v->mtrr_var[1] = ((1ull << bits) - (1ull << 30)) | 0x800;
}
