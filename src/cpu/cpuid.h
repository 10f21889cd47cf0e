/*
 * The CPUID model: what the guest is told. It is that of a named CPU (parts.c), or of the
 * host's. What is offered is what that CPU has, as far as it is implemented and, for
 * instructions that run on the host, the host has it. The vendor is the host's, because
 * undefined flags are the host's; tests of what vendors do differently choose.
 */
#ifndef CPU_CPUID_H
#define CPU_CPUID_H

#include "base/types.h"

struct vcpu;
struct cpuid_model;

struct cpuid_regs {
    uint32_t eax, ebx, ecx, edx;
};

enum cpuid_vendor { CPUID_VENDOR_HOST, CPUID_VENDOR_AMD, CPUID_VENDOR_INTEL };

/* What a model is to say otherwise in one register of a leaf. */
struct cpuid_change {
    uint32_t leaf, subleaf;
    unsigned reg;        /* 0 to 3: EAX to EDX */
    uint32_t clear, set; /* bits */
};

struct cpuid_config {
    enum cpuid_vendor vendor;
    const char *model; /* a name that cpuid_model_check() likes; NULL: the default */
    bool paravirt;     /* offer the KVM leaves and the hypervisor bit */
    bool between_cpus; /* and what KVM has between CPUs: kick, IPI, yield, TLB flush */
    bool steal_time;   /* and KVM's steal time, which the last one needs */
    uint64_t tsc_hz;   /* guest TSC frequency */
    const struct cpuid_change *change; /* each as cpuid_change_check() likes it */
    size_t changes;
};

enum cpuid_verdict {
    CPUID_OFFERED,
    CPUID_NO_SUCH_MODEL,
    CPUID_OTHER_VENDOR, /* than the host's CPU is of */
    CPUID_HOST_LACKS,   /* a feature that the model's code takes for granted */
};

/* Can a guest have the CPU of that NAME here? *LACKS: what the host lacks, if so. */
enum cpuid_verdict cpuid_model_check(const char *name, const char **lacks);
/* Can the CPU of that NAME be changed so? CPUID_NO_SUCH_MODEL: what this register says
 * does not depend on the model's features; CPUID_HOST_LACKS: a feature that is to be set
 * cannot be had here, *LACKS. What is cleared takes along what depends on it. */
enum cpuid_verdict cpuid_change_check(const char *name, const struct cpuid_change *c,
                                      const char **lacks);
/* The N-th name of those of the host's vendor, newest first; then the levels and "host";
 * NULL at the end. *WHAT tells what it is. */
const char *cpuid_model_at(size_t n, const char **what);
/* Name of the default: the newest part without AVX-512 whose every feature is offered
 * here. */
const char *cpuid_model_default(void);

/* A model to be freed with cpuid_model_free(); NULL when out of memory. What the host
 * lacks is left out, whatever the name. */
struct cpuid_model *cpuid_model_new(const struct cpuid_config *cfg);
void cpuid_model_free(struct cpuid_model *m);

/* What hardware that executes the guest confirms of a model. */
struct cpuid_limit {
    /* What it can do, as CPUID would tell it. */
    struct cpuid_regs (*leaf)(void *arg, uint32_t leaf, uint32_t subleaf);
    void *arg;
    bool tsc_deadline; /* the local APIC's timer has the deadline mode */
    uint32_t paravirt; /* of CPUID_KVM_OPTIONAL, what it does itself or leaves to us */
};

/* A copy of M without what LIMIT does not confirm, with its physical address width and
 * its means against speculation flaws; to be freed like M. NULL when out of memory. */
struct cpuid_model *cpuid_model_limit(const struct cpuid_model *m,
                                      const struct cpuid_limit *limit);

/* What CPUID returns now (some bits follow CR4, XCR0 and the APIC). */
struct cpuid_regs cpuid_query(const struct vcpu *v, uint32_t leaf, uint32_t subleaf);

/* Bits of CR4, EFER and XCR0 that the model lets the guest set. */
uint64_t cpuid_cr4_valid(const struct cpuid_model *m);
uint64_t cpuid_efer_valid(const struct cpuid_model *m);
uint64_t cpuid_xcr0_valid(const struct cpuid_model *m);
unsigned cpuid_phys_bits(const struct cpuid_model *m);

/* The guest's CPU is of AMD's kind, else of Intel's. */
bool cpuid_is_amd(const struct cpuid_model *m);
/* KVM's leaves and hypercalls are offered. */
bool cpuid_paravirt(const struct cpuid_model *m);
/* Bits of leaf 0x40000001 that not every machine offers: the calls between CPUs; steal
 * time; and where both are, that a CPU which does not run is told to flush its TLB in the
 * record of its steal time. */
#define CPUID_KVM_BETWEEN (1u << 7 | 1u << 11 | 1u << 13) /* unhalt, IPI, yield */
#define CPUID_KVM_STEAL_TIME (1u << 5)
#define CPUID_KVM_TLB_FLUSH (1u << 9)
#define CPUID_KVM_OPTIONAL                                                               \
    (CPUID_KVM_BETWEEN | CPUID_KVM_STEAL_TIME | CPUID_KVM_TLB_FLUSH)
/* Which of them M does. */
uint32_t cpuid_kvm_optional(const struct cpuid_model *m);
bool cpuid_between_cpus(const struct cpuid_model *m);
bool cpuid_steal_time(const struct cpuid_model *m);

/* Features that gate an instruction, for the decoder's #UD. */
enum cpuid_feature {
    CPUID_F_NONE,
    CPUID_F_AVX,
    CPUID_F_AVX2,
    CPUID_F_BMI1,
    CPUID_F_BMI2,
    CPUID_F_FMA,
    CPUID_F_F16C,
    CPUID_F_MOVBE,
    CPUID_F_POPCNT,
    CPUID_F_LZCNT,
    CPUID_F_SSE3,
    CPUID_F_SSSE3,
    CPUID_F_SSE41,
    CPUID_F_SSE42,
    CPUID_F_SSE4A,
    CPUID_F_AES,
    CPUID_F_PCLMUL,
    CPUID_F_SHA,
    CPUID_F_VAES,
    CPUID_F_VPCLMUL,
    CPUID_F_GFNI,
    CPUID_F_ADX,
    CPUID_F_RDRAND,
    CPUID_F_RDSEED,
    CPUID_F_CLZERO,
    CPUID_F_RDPID,
    CPUID_F_RDTSCP,
    CPUID_F_INVPCID,
    CPUID_F_SMAP,
    CPUID_F_AVXVNNI,
    CPUID_F_AVX512F,
    CPUID_F_AVX512DQ,
    CPUID_F_AVX512IFMA,
    CPUID_F_AVX512CD,
    CPUID_F_AVX512BW,
    CPUID_F_AVX512VL,
    CPUID_F_AVX512VBMI,
    CPUID_F_AVX512VBMI2,
    CPUID_F_AVX512VNNI,
    CPUID_F_AVX512BITALG,
    CPUID_F_AVX512VPOPCNTDQ,
    CPUID_F_AVX512VP2INTERSECT,
    CPUID_F_AVX512FP16,
    CPUID_F_AVX512BF16,
    CPUID_F_XSAVE,
    CPUID_F_XSAVEOPT,
    CPUID_F_XSAVEC,
    CPUID_F_XSAVES,
    CPUID_F_CX16,
    CPUID_F_CLFLUSHOPT,
    CPUID_F_CLWB,
    CPUID_F_XSAVEERPTR,  /* gates none, but says how others save the x87's pointers */
    CPUID_F_UNSUPPORTED, /* never offered: 3DNow!, TBM, XOP, AMX, ... */
    CPUID_F_COUNT
};

bool cpuid_has(const struct cpuid_model *m, enum cpuid_feature f);

#endif
