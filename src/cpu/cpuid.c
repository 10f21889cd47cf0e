/*
 * The CPUID model; docs/cpu.md tells what is offered and why.
 *
 * A feature word is one register of one leaf. For each word a rule says which bits we
 * implement whatever the host has (`soft`), which run on the host's own units and so
 * need the host's bit (`host`), and which are the board's whatever CPU it is (`board`).
 * The model is soft | (host & the host's word), of that what the named part has, minus
 * what depends on something missing. Everything else is computed from constants at the
 * query.
 *
 * Immutable after cpuid_model_new(). Not a copy of the host's CPUID: a bit that no rule
 * names is never offered.
 */
#include "cpu/cpuid.h"

#include <stdlib.h>

#include "cpu/cpuid_int.h"
#include "cpu/topology_int.h"
#include "cpu/vcpu.h"
#include "cpu/vec_host.h"
#include "x86/cr.h"

struct cpuid_model {
    uint32_t word[WORD_COUNT];
    bool amd;
    bool paravirt;
    uint32_t kvm_optional; /* of CPUID_KVM_OPTIONAL, what is offered */
    uint64_t tsc_hz;
    uint32_t tsc_ratio[2]; /* TSC to crystal, numerator and denominator; leaf 15H */
    uint64_t xcr0;
    unsigned phys_bits;
    uint32_t signature;
    uint32_t vendor[3]; /* ebx, edx, ecx */
    char brand[48];
};

#define HOST_MODEL "host"

enum { REG_A, REG_B, REG_C, REG_D };

struct word_rule {
    uint32_t leaf;
    uint32_t subleaf;
    uint8_t reg;
    uint32_t soft, host, board;
};

static const struct word_rule rules[WORD_COUNT] = {
    /* sse3 pclmul ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes
     * xsave avx f16c rdrand */
    [W_1C] = {1, 0, REG_C, BIT(17) | BIT(21) | BIT(22) | BIT(23) | BIT(24),
              BIT(0) | BIT(1) | BIT(9) | BIT(12) | BIT(13) | BIT(19) | BIT(20) | BIT(25) |
                  BIT(26) | BIT(28) | BIT(29) | BIT(30),
              BIT(21) | BIT(24)},
    /* de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush; fpu mmx
     * fxsr sse sse2 */
    [W_1D] = {1, 0, REG_D, 0x0008fbfc | BIT(16) | BIT(17),
              BIT(0) | BIT(23) | BIT(24) | BIT(25) | BIT(26), ~0u},
    /* fsgsbase tsc_adjust bmi1 smep bmi2 invpcid adx smap clflushopt clwb; avx2 erms
     * rdseed sha; avx-512 f dq ifma cd bw vl */
    [W_7B] = {7, 0, REG_B,
              BIT(0) | BIT(1) | BIT(3) | BIT(7) | BIT(8) | BIT(10) | BIT(19) | BIT(20) |
                  BIT(23) | BIT(24),
              BIT(5) | BIT(9) | BIT(18) | BIT(29) | BIT(16) | BIT(17) | BIT(21) |
                  BIT(28) | BIT(30) | BIT(31),
              BIT(1)},
    /* umip rdpid; gfni vaes vpclmulqdq; avx-512 vbmi vbmi2 vnni bitalg vpopcntdq */
    [W_7C] = {7, 0, REG_C, BIT(2) | BIT(22),
              BIT(8) | BIT(9) | BIT(10) | BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14)},
    /* fsrm; avx-512 vp2intersect fp16 */
    [W_7D] = {7, 0, REG_D, 0, BIT(4) | BIT(8) | BIT(23)},
    /* avx-vnni; avx-512 bf16 */
    [W_71A] = {7, 1, REG_A, 0, BIT(4) | BIT(5)},
    /* Intel's, added below */
    [W_72D] = {7, 2, REG_D, 0, 0},
    /* xsaveopt xsavec xgetbv(1) */
    [W_D1A] = {0xd, 1, REG_A, 0, BIT(0) | BIT(1) | BIT(2)},
    /* lahf lzcnt 3dnowprefetch; sse4a. TOPOEXT is AMD's, added below */
    [W_X1C] = {0x80000001, 0, REG_C, BIT(0) | BIT(5) | BIT(8), BIT(6)},
    /* syscall nx pdpe1gb rdtscp lm */
    [W_X1D] = {0x80000001, 0, REG_D, BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29), 0},
    /* clzero, which only AMD's have; xsaveerptr */
    [W_X8B] = {0x80000008, 0, REG_B, BIT(0), BIT(2)},
    /* AMD's, added below */
    [W_X21A] = {0x80000021, 0, REG_A, 0, 0},
    [W_X21C] = {0x80000021, 0, REG_C, 0, 0},
};

/* Where each gated feature shows. CPUID_F_NONE and _UNSUPPORTED have no row. */
static const struct {
    uint8_t word, bit;
} features[CPUID_F_COUNT] = {
    [CPUID_F_AVX] = {W_1C, 28},
    [CPUID_F_AVX2] = {W_7B, 5},
    [CPUID_F_BMI1] = {W_7B, 3},
    [CPUID_F_BMI2] = {W_7B, 8},
    [CPUID_F_FMA] = {W_1C, 12},
    [CPUID_F_F16C] = {W_1C, 29},
    [CPUID_F_MOVBE] = {W_1C, 22},
    [CPUID_F_POPCNT] = {W_1C, 23},
    [CPUID_F_LZCNT] = {W_X1C, 5},
    [CPUID_F_SSE3] = {W_1C, 0},
    [CPUID_F_SSSE3] = {W_1C, 9},
    [CPUID_F_SSE41] = {W_1C, 19},
    [CPUID_F_SSE42] = {W_1C, 20},
    [CPUID_F_SSE4A] = {W_X1C, 6},
    [CPUID_F_AES] = {W_1C, 25},
    [CPUID_F_PCLMUL] = {W_1C, 1},
    [CPUID_F_SHA] = {W_7B, 29},
    [CPUID_F_VAES] = {W_7C, 9},
    [CPUID_F_VPCLMUL] = {W_7C, 10},
    [CPUID_F_GFNI] = {W_7C, 8},
    [CPUID_F_ADX] = {W_7B, 19},
    [CPUID_F_RDRAND] = {W_1C, 30},
    [CPUID_F_RDSEED] = {W_7B, 18},
    [CPUID_F_CLZERO] = {W_X8B, 0},
    [CPUID_F_RDPID] = {W_7C, 22},
    [CPUID_F_XSAVE] = {W_1C, 26},
    [CPUID_F_XSAVEOPT] = {W_D1A, 0},
    [CPUID_F_XSAVEC] = {W_D1A, 1},
    [CPUID_F_XSAVES] = {W_D1A, 3},
    [CPUID_F_CX16] = {W_1C, 13},
    [CPUID_F_CLFLUSHOPT] = {W_7B, 23},
    [CPUID_F_CLWB] = {W_7B, 24},
    [CPUID_F_RDTSCP] = {W_X1D, 27},
    [CPUID_F_INVPCID] = {W_7B, 10},
    [CPUID_F_SMAP] = {W_7B, 20},
    [CPUID_F_AVXVNNI] = {W_71A, 4},
    [CPUID_F_AVX512F] = {W_7B, 16},
    [CPUID_F_AVX512DQ] = {W_7B, 17},
    [CPUID_F_AVX512IFMA] = {W_7B, 21},
    [CPUID_F_AVX512CD] = {W_7B, 28},
    [CPUID_F_AVX512BW] = {W_7B, 30},
    [CPUID_F_AVX512VL] = {W_7B, 31},
    [CPUID_F_AVX512VBMI] = {W_7C, 1},
    [CPUID_F_AVX512VBMI2] = {W_7C, 6},
    [CPUID_F_AVX512VNNI] = {W_7C, 11},
    [CPUID_F_AVX512BITALG] = {W_7C, 12},
    [CPUID_F_AVX512VPOPCNTDQ] = {W_7C, 14},
    [CPUID_F_AVX512VP2INTERSECT] = {W_7D, 8},
    [CPUID_F_AVX512FP16] = {W_7D, 23},
    [CPUID_F_AVX512BF16] = {W_71A, 5},
    [CPUID_F_XSAVEERPTR] = {W_X8B, 2},
};

/* NEEDED missing takes DEPENDENT away. In an order in which one pass is enough. */
static const struct {
    uint8_t needed_word, needed_bit, word, bit;
} dependencies[] = {
    {W_1C, 26, W_1C, 28},
    {W_1C, 26, W_D1A, 0},
    {W_1C, 26, W_D1A, 1},
    {W_1C, 26, W_D1A, 2},
    {W_1C, 28, W_7B, 5},
    {W_1C, 28, W_1C, 12},
    {W_1C, 28, W_1C, 29},
    {W_1C, 28, W_7C, 9},
    {W_1C, 28, W_7C, 10},
    {W_7B, 5, W_71A, 4},
    {W_1C, 28, W_7B, 16},
    {W_7B, 9, W_7D, 4}, /* a CPU without ERMS has no FSRM: guests
     patch on it */
};

static struct cpuid_regs host_cpuid(uint32_t leaf, uint32_t subleaf) {
    struct cpuid_regs r;
    __asm__ volatile("cpuid"
                     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                     : "a"(leaf), "c"(subleaf));
    return r;
}

static uint32_t word_of(struct cpuid_regs r, unsigned reg) {
    return reg == REG_A ? r.eax : reg == REG_B ? r.ebx : reg == REG_C ? r.ecx : r.edx;
}

/* A register of a host leaf; 0 when the host has no such leaf. */
static uint32_t host_word(uint32_t leaf, uint32_t subleaf, unsigned reg) {
    if (host_cpuid(leaf & 0x80000000u, 0).eax < leaf)
        return 0;
    if (leaf == 7 && host_cpuid(7, 0).eax < subleaf)
        return 0;
    return word_of(host_cpuid(leaf, subleaf), reg);
}

static void drop_dependents(struct cpuid_model *m) {
    for (size_t i = 0; i < ARRAY_SIZE(dependencies); i++) {
        if (!(m->word[dependencies[i].needed_word] & BIT(dependencies[i].needed_bit)))
            m->word[dependencies[i].word] &= ~BIT(dependencies[i].bit);
    }
    if (!(m->word[W_1C] & BIT(28)))
        m->xcr0 &= ~(uint64_t)X86_XCR0_AVX;
    if (!(m->word[W_7B] & BIT(16)))
        m->xcr0 &= ~(uint64_t)X86_XCR0_AVX512;
}

/* Without a register state none of its instructions. */
static void drop_stateless(struct cpuid_model *m) {
    if (!(m->xcr0 & X86_XCR0_AVX))
        m->word[W_1C] &= ~BIT(28);
    if ((m->xcr0 & X86_XCR0_AVX512) != X86_XCR0_AVX512)
        m->word[W_7B] &= ~BIT(16);
    drop_dependents(m);
}

/* What can be offered of each word, whatever part it is. */
static void possible_words(struct cpuid_model *m) {
    m->xcr0 = vec_supported();
    for (unsigned w = 0; w < WORD_COUNT; w++) {
        const struct word_rule *r = &rules[w];
        m->word[w] = r->soft | (r->host & host_word(r->leaf, r->subleaf, r->reg));
    }
    drop_stateless(m);
    if (!m->amd) {
        m->word[W_X1C] &= ~BIT(6);
        m->word[W_X8B] = 0;
    }
}

/* PART NULL: the host's. */
static void model_words(struct cpuid_model *m, const struct cpuid_part *part) {
    uint32_t has[WORD_COUNT];

    possible_words(m);
    if (part) {
        cpuid_part_words(part, has);
        for (unsigned w = 0; w < WORD_COUNT; w++)
            m->word[w] &= has[w] | rules[w].board;
        drop_dependents(m);
    }
    if (m->paravirt)
        m->word[W_1C] |= BIT(31);
    if (m->amd) {
        /* 0x80000001 EDX repeats leaf 1's; MMXEXT is part of SSE. */
        m->word[W_X1D] |= (m->word[W_1D] & 0x0183f3ff) | BIT(22);
        m->word[W_X1C] |= BIT(22); /* topology extensions */
        /* EFER.LMSLE unsupported; SSB_NO; BTC_NO */
        m->word[W_X8B] |= BIT(20) | BIT(26) | BIT(29);
        /* lfence serializes; a null selector clears the base; AutoIBRS; SRSO_NO */
        m->word[W_X21A] = BIT(2) | BIT(6) | BIT(8) | BIT(29);
        m->word[W_X21C] = BIT(1) | BIT(2); /* TSA_SQ_NO, TSA_L1_NO */
    } else {
        m->word[W_7D] |= BIT(26) | BIT(29); /* SPEC_CTRL, ARCH_CAPABILITIES */
        m->word[W_72D] = BIT(4);            /* BHI_CTRL */
    }
}

/* The APIC timer's input (dev/apic/lapic.h). */
#define CRYSTAL_HZ 1000000000u

/* Leaf 15H has small numbers on real CPUs, and Linux multiplies the crystal's kHz by the
 * numerator in 32 bits: the nearest fraction for which that is enough. */
static void find_ratio(struct cpuid_model *m) {
    const uint32_t num_max = UINT32_MAX / (CRYSTAL_HZ / 1000);
    uint64_t best = UINT64_MAX;

    for (uint32_t den = 1; den <= 1000; den++) {
        uint64_t num = (m->tsc_hz * den + CRYSTAL_HZ / 2) / CRYSTAL_HZ;
        uint64_t hz = num * CRYSTAL_HZ / den;
        uint64_t off = hz > m->tsc_hz ? hz - m->tsc_hz : m->tsc_hz - hz;

        if (num > num_max)
            break;
        if (num && off < best) {
            best = off;
            m->tsc_ratio[0] = (uint32_t)num;
            m->tsc_ratio[1] = den;
        }
    }
}

/* "AuthenticAMD", or "HygonGenuine", its licensed twin. */
static bool host_is_amd(void) {
    struct cpuid_regs id = host_cpuid(0, 0);

    return id.ebx == 0x68747541 || id.ebx == 0x6f677948;
}

/* --- which part --- */

/* Hints, that no code takes for granted: erms, fsrm; and XSaveErPtr. */
static const uint32_t hints[WORD_COUNT] = {
    [W_7B] = BIT(9), [W_7D] = BIT(4), [W_X8B] = BIT(2)};

/* Is all of P among what CAN be offered? If not, *LACKS. */
static bool serves(const struct cpuid_model *can, const struct cpuid_part *p,
                   const char **lacks) {
    uint32_t has[WORD_COUNT];

    cpuid_part_words(p, has);
    for (unsigned w = 0; w < WORD_COUNT; w++) {
        uint32_t missing = has[w] & ~hints[w] & ~can->word[w];

        if (!missing)
            continue;
        *lacks = cpuid_feature_name(w, (unsigned)__builtin_ctz(missing));
        return false;
    }
    return true;
}

/* The newest that is served and has no AVX-512, or the oldest, which then has not all
 * that it should. */
static const struct cpuid_part *default_part(bool amd) {
    const struct cpuid_part *p = NULL, *next;
    struct cpuid_model can = {.amd = amd};
    const char *lacks;

    possible_words(&can);
    for (size_t n = 0; (next = cpuid_part_at(amd, n)); n++) {
        uint32_t has[WORD_COUNT];

        cpuid_part_words(next, has);
        if (has[W_7B] & BIT(16))
            continue;
        p = next;
        if (serves(&can, p, &lacks))
            break;
    }
    return p;
}

static bool same(const char *a, const char *b) {
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

enum cpuid_verdict cpuid_model_check(const char *name, const char **lacks) {
    bool amd = host_is_amd();
    struct cpuid_model can = {.amd = amd};
    const struct cpuid_part *p;

    *lacks = NULL;
    if (same(name, HOST_MODEL))
        return CPUID_OFFERED;
    p = cpuid_part_find(name, amd);
    if (!p)
        return CPUID_NO_SUCH_MODEL;
    if (p->amd != amd)
        return CPUID_OTHER_VENDOR;
    possible_words(&can);
    return serves(&can, p, lacks) ? CPUID_OFFERED : CPUID_HOST_LACKS;
}

const char *cpuid_model_at(size_t n, const char **what) {
    bool amd = host_is_amd();
    const struct cpuid_part *p;
    size_t parts = 0, levels = 0;

    while ((p = cpuid_part_at(amd, parts)) && parts < n)
        parts++;
    if (p) {
        *what = p->brand;
        return p->name;
    }
    n -= parts;
    while (cpuid_level_at(levels))
        levels++;
    if (n < levels) {
        *what = cpuid_part_find(cpuid_level_at(n), amd)->brand;
        return cpuid_level_at(n);
    }
    *what = "this host's CPU, as far as guests can have it";
    return n == levels ? HOST_MODEL : NULL;
}

const char *cpuid_model_default(void) {
    return default_part(host_is_amd())->name;
}

static void set_brand(struct cpuid_model *m, const char *text) {
    for (size_t n = 0; n + 1 < sizeof(m->brand) && text[n]; n++)
        m->brand[n] = text[n];
}

/* Vendor, signature and brand; NULL: the host's. */
static void set_identity(struct cpuid_model *m, const struct cpuid_part *part) {
    m->vendor[0] = m->amd ? 0x68747541 : 0x756e6547; /* Auth, Genu */
    m->vendor[1] = m->amd ? 0x69746e65 : 0x49656e69; /* enti, ineI */
    m->vendor[2] = m->amd ? 0x444d4163 : 0x6c65746e; /* cAMD, ntel */
    if (part) {
        m->signature = part->signature;
        set_brand(m, part->brand);
    } else if (m->amd == host_is_amd()) {
        m->signature = host_cpuid(1, 0).eax & 0x0fff3fff;
        set_brand(m, "bivisor virtual processor (as the host)");
    } else {
        m->signature = cpuid_part_at(m->amd, 0)->signature;
        set_brand(m, "bivisor virtual processor");
    }
}

static uint32_t optional_of(const struct cpuid_config *cfg) {
    uint32_t bits = 0;

    if (!cfg->paravirt)
        return 0;
    if (cfg->between_cpus)
        bits |= CPUID_KVM_BETWEEN;
    if (cfg->steal_time)
        bits |= CPUID_KVM_STEAL_TIME;
    return cfg->between_cpus && cfg->steal_time ? CPUID_KVM_OPTIONAL : bits;
}

/* --- changes --- */

static int word_at(const struct cpuid_change *c) {
    for (unsigned w = 0; w < WORD_COUNT; w++)
        if (rules[w].leaf == c->leaf && rules[w].subleaf == c->subleaf &&
            rules[w].reg == c->reg)
            return (int)w;
    return -1;
}

/* Family, model, stepping; and the register states that are offered. */
static bool is_signature(const struct cpuid_change *c) {
    return c->leaf == 1 && !c->subleaf && c->reg == REG_A;
}

static bool is_xcr0(const struct cpuid_change *c) {
    return c->leaf == 0xd && !c->subleaf && c->reg == REG_A;
}

/* CAN has what can be offered at all. What is to be set, and is not then: its bits. */
static uint32_t change(struct cpuid_model *m, const struct cpuid_model *can,
                       const struct cpuid_change *c) {
    int w = word_at(c);

    if (is_signature(c)) {
        m->signature = (m->signature & ~c->clear) | c->set;
        return 0;
    }
    if (is_xcr0(c)) {
        m->xcr0 &= ~(uint64_t)c->clear | X86_XCR0_X87 | X86_XCR0_SSE;
        return c->set & ~(uint32_t)m->xcr0;
    }
    if (w < 0)
        return c->set;
    m->word[w] = (m->word[w] & ~c->clear) | (c->set & can->word[w]);
    return c->set & ~m->word[w];
}

static void change_all(struct cpuid_model *m, const struct cpuid_config *cfg) {
    struct cpuid_model can = {.amd = m->amd};

    if (!cfg->changes)
        return;
    possible_words(&can);
    for (size_t n = 0; n < cfg->changes; n++)
        change(m, &can, &cfg->change[n]);
    drop_stateless(m);
}

enum cpuid_verdict cpuid_change_check(const char *name, const struct cpuid_change *c,
                                      const char **lacks) {
    const struct cpuid_part *part =
        name ? cpuid_part_find(name, host_is_amd()) : default_part(host_is_amd());
    struct cpuid_model can = {.amd = host_is_amd()}, m = can;
    int w = word_at(c);
    uint32_t missing;

    *lacks = NULL;
    if (w < 0 && !is_signature(c) && !is_xcr0(c))
        return CPUID_NO_SUCH_MODEL;
    possible_words(&can);
    model_words(&m, part);
    missing = change(&m, &can, c);
    if (!missing)
        return CPUID_OFFERED;
    *lacks = w < 0 ? "a register state"
                   : cpuid_feature_name((unsigned)w, (unsigned)__builtin_ctz(missing));
    return CPUID_HOST_LACKS;
}

struct cpuid_model *cpuid_model_new(const struct cpuid_config *cfg) {
    bool amd = cfg->vendor ? cfg->vendor == CPUID_VENDOR_AMD : host_is_amd();
    const struct cpuid_part *part = NULL;
    struct cpuid_model *m;

    if (!cfg->model)
        part = default_part(amd);
    else if (!same(cfg->model, HOST_MODEL) && !(part = cpuid_part_find(cfg->model, amd)))
        return NULL;
    m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->amd = part ? part->amd : amd;
    m->paravirt = cfg->paravirt;
    m->kvm_optional = optional_of(cfg);
    m->phys_bits = 40;
    m->tsc_hz = cfg->tsc_hz;
    find_ratio(m);
    set_identity(m, part);
    model_words(m, part);
    change_all(m, cfg);
    return m;
}

/* Bits that are true whatever executes the guest: devices and MSRs of ours are behind
 * them. x2APIC, hypervisor; TSC_ADJUST; ARCH_CAPABILITIES. */
static const uint32_t kept[WORD_COUNT] = {
    [W_1C] = BIT(21) | BIT(31), [W_7B] = BIT(1), [W_7D] = BIT(29)};

/* What a guest on the real CPU needs to defend itself there, and software engines do not
 * have: IBPB, IBRS, STIBP, SSBD. AMD's and Intel's bits. */
static uint32_t real_cpu_only(const struct cpuid_model *m, unsigned w) {
    if (m->amd)
        return w == W_X8B ? BIT(12) | BIT(14) | BIT(15) | BIT(24) : 0;
    return w == W_7D ? BIT(26) | BIT(27) | BIT(31) : 0;
}

struct cpuid_model *cpuid_model_limit(const struct cpuid_model *m,
                                      const struct cpuid_limit *limit) {
    struct cpuid_model *n = malloc(sizeof(*n));
    unsigned bits = limit->leaf(limit->arg, 0x80000008, 0).eax & 0xff;
    uint64_t xcr0 = limit->leaf(limit->arg, 0xd, 0).eax;

    if (!n)
        return NULL;
    *n = *m;
    for (unsigned w = 0; w < WORD_COUNT; w++) {
        const struct word_rule *r = &rules[w];
        uint32_t confirmed =
            word_of(limit->leaf(limit->arg, r->leaf, r->subleaf), r->reg);
        uint32_t keep = kept[w];

        if (w == W_1C && limit->tsc_deadline)
            keep |= BIT(24);
        n->word[w] &= keep | confirmed;
        n->word[w] |= confirmed & real_cpu_only(m, w);
    }
    n->xcr0 &= xcr0 | X86_XCR0_X87 | X86_XCR0_SSE;
    drop_stateless(n);
    n->kvm_optional &= limit->paravirt;
    if (bits >= 36 && bits <= 52)
        n->phys_bits = bits;
    return n;
}

void cpuid_model_free(struct cpuid_model *m) {
    free(m);
}

bool cpuid_has(const struct cpuid_model *m, enum cpuid_feature f) {
    if (f == CPUID_F_NONE)
        return true;
    if ((unsigned)f >= CPUID_F_UNSUPPORTED)
        return false;
    return m->word[features[f].word] & BIT(features[f].bit);
}

bool cpuid_is_amd(const struct cpuid_model *m) {
    return m->amd;
}

bool cpuid_paravirt(const struct cpuid_model *m) {
    return m->paravirt;
}

uint32_t cpuid_kvm_optional(const struct cpuid_model *m) {
    return m->kvm_optional;
}

bool cpuid_between_cpus(const struct cpuid_model *m) {
    return m->kvm_optional & CPUID_KVM_BETWEEN;
}

bool cpuid_steal_time(const struct cpuid_model *m) {
    return m->kvm_optional & CPUID_KVM_STEAL_TIME;
}

uint64_t cpuid_cr4_valid(const struct cpuid_model *m) {
    uint64_t cr4 = X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_MCE |
                   X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
    static const struct {
        uint8_t word, bit;
        uint64_t cr4;
    } gates[] = {{W_1C, 17, X86_CR4_PCIDE},   {W_1C, 26, X86_CR4_OSXSAVE},
                 {W_7B, 0, X86_CR4_FSGSBASE}, {W_7B, 7, X86_CR4_SMEP},
                 {W_7B, 20, X86_CR4_SMAP},    {W_7C, 2, X86_CR4_UMIP}};

    for (size_t n = 0; n < ARRAY_SIZE(gates); n++)
        if (m->word[gates[n].word] & BIT(gates[n].bit))
            cr4 |= gates[n].cr4;
    return cr4;
}

uint64_t cpuid_efer_valid(const struct cpuid_model *m) {
    uint64_t efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    return m->word[W_X21A] & BIT(8) ? efer | X86_EFER_AIBRSE : efer;
}

uint64_t cpuid_xcr0_valid(const struct cpuid_model *m) {
    return cpuid_has(m, CPUID_F_XSAVE) ? m->xcr0 : 0;
}

unsigned cpuid_phys_bits(const struct cpuid_model *m) {
    return m->phys_bits;
}

/* --- leaves --- */

/* Of an XSAVE area with the components of XCR0; compacted, they follow each other. Intel
 * SDM volume 1, "Standard Format" and "Compacted Format of the XSAVE Area". */
static uint32_t xsave_size(uint64_t xcr0, bool compact) {
    uint32_t end = 512 + 64;

    for (unsigned n = 2; n < VEC_COMPONENTS; n++) {
        if (!(xcr0 & (1ull << n)))
            continue;
        if (compact)
            end += vec_size(n);
        else if (end < vec_offset(n) + vec_size(n))
            end = vec_offset(n) + vec_size(n);
    }
    return end;
}

static struct cpuid_regs xsave_leaf(const struct vcpu *v, uint32_t index) {
    const struct cpuid_model *m = v->cpuid;
    uint64_t xcr0 = cpuid_xcr0_valid(m);
    if (!xcr0)
        return (struct cpuid_regs){0};
    if (index == 0)
        return (struct cpuid_regs){.eax = (uint32_t)xcr0,
                                   .ebx = xsave_size(v->xcr0, false),
                                   .ecx = xsave_size(xcr0, false)};
    if (index == 1)
        return (struct cpuid_regs){.eax = m->word[W_D1A],
                                   .ebx = xsave_size(v->xcr0, true)};
    if (index < VEC_COMPONENTS && (xcr0 & (1ull << index)))
        return (struct cpuid_regs){.eax = vec_size(index), .ebx = vec_offset(index)};
    return (struct cpuid_regs){0};
}

static uint32_t basic_max(const struct cpuid_model *m) {
    return m->amd ? 0xd : 0x16;
}

static struct cpuid_regs basic_leaf(const struct vcpu *v, uint32_t leaf, uint32_t sub) {
    const struct cpuid_model *m = v->cpuid;
    struct cpuid_regs r = {0};
    switch (leaf) {
    case 0:
        return (struct cpuid_regs){basic_max(m), m->vendor[0], m->vendor[2],
                                   m->vendor[1]};
    case 1:
        r = (struct cpuid_regs){m->signature, 8 << 8 | topology_one(v), m->word[W_1C],
                                m->word[W_1D]};
        if (topology_cpus(v) > 1)
            r.edx |= BIT(28);
        if (v->cr4 & X86_CR4_OSXSAVE)
            r.ecx |= BIT(27);
        return r;
    case 2:
        if (!m->amd) /* "use leaf 4", "use leaf 18H", 64-byte prefetch */
            r = (struct cpuid_regs){.eax = 0x00feff01, .ebx = 0xf0};
        return r;
    case 4:
        return m->amd ? r : topology_caches(v, sub, m->amd);
    case 6:
        r.eax = BIT(2); /* the APIC timer runs always */
        return r;
    case 7:
        if (sub == 0)
            r = (struct cpuid_regs){m->word[W_72D] ? 2 : !!m->word[W_71A], m->word[W_7B],
                                    m->word[W_7C], m->word[W_7D]};
        else if (sub == 1)
            r.eax = m->word[W_71A];
        else if (sub == 2)
            r.edx = m->word[W_72D];
        return r;
    case 0xb:
        return topology_levels(v, sub);
    case 0xd:
        return xsave_leaf(v, sub);
    case 0x15:
        return (struct cpuid_regs){m->tsc_ratio[1], m->tsc_ratio[0], CRYSTAL_HZ, 0};
    case 0x16:
        r.eax = r.ebx = (uint32_t)(m->tsc_hz / 1000000);
        r.ecx = 100;
        return r;
    default:
        return r;
    }
}

static struct cpuid_regs brand_leaf(const struct cpuid_model *m, uint32_t part) {
    struct cpuid_regs r;
    __builtin_memcpy(&r, m->brand + part * 16, 16);
    return r;
}

static uint32_t extended_max(const struct cpuid_model *m) {
    return m->amd ? 0x80000021u : 0x80000008u;
}

/* AMD's own: AMD64 APM volume 3, "Extended Feature Function Numbers". */
static struct cpuid_regs amd_leaf(const struct vcpu *v, uint32_t leaf, uint32_t sub) {
    const struct cpuid_model *m = v->cpuid;
    struct cpuid_regs r = {0};
    switch (leaf) {
    case 0x80000005: /* TLBs of 64 entries; L1 caches */
        return (struct cpuid_regs){0xff40ff40, 0xff40ff40, 0x20080140, 0x20080140};
    case 0x8000001a: /* 256-bit units; unaligned loads are as fast */
        r.eax = BIT(2) | BIT(1);
        return r;
    case 0x8000001d:
        return topology_caches(v, sub, m->amd);
    case 0x8000001e:
        return topology_amd(v);
    case 0x80000021:
        r.eax = m->word[W_X21A];
        r.ecx = m->word[W_X21C];
        return r;
    default:
        return r;
    }
}

static struct cpuid_regs extended_leaf(const struct vcpu *v, uint32_t leaf,
                                       uint32_t sub) {
    const struct cpuid_model *m = v->cpuid;
    struct cpuid_regs r = {0};
    switch (leaf) {
    case 0x80000000:
        r.eax = extended_max(m);
        if (m->amd) {
            r.ebx = m->vendor[0];
            r.ecx = m->vendor[2];
            r.edx = m->vendor[1];
        }
        return r;
    case 0x80000001:
        r.eax = m->amd ? m->signature : 0;
        r.ecx = m->word[W_X1C];
        if (m->amd && topology_cpus(v) > 1)
            r.ecx |= BIT(1); /* several cores, no threads */
        r.edx = m->word[W_X1D];
        return r;
    case 0x80000002:
    case 0x80000003:
    case 0x80000004:
        return brand_leaf(m, leaf - 0x80000002);
    case 0x80000006: /* L2 TLBs; L2 1 MiB 8 ways; AMD: L3 32 MiB, ways in 0x8000001D */
        r.ecx = 0x04006040 | (m->amd ? 0x100 : 0);
        if (m->amd) {
            r.eax = r.ebx = 0x64006400;
            r.edx = 0x01009140;
        }
        return r;
    case 0x80000007:
        r.edx = BIT(8); /* invariant TSC */
        return r;
    case 0x80000008:
        r.eax = cpuid_phys_bits(m) | 48u << 8;
        r.ebx = m->word[W_X8B];
        if (m->amd)
            r.ecx = topology_size(v);
        return r;
    default:
        return m->amd ? amd_leaf(v, leaf, sub) : r;
    }
}

/* Linux, Documentation/virt/kvm/x86/cpuid.rst; 0x40000010 is VMware's timing leaf, which
 * KVM guests read too. */
static struct cpuid_regs kvm_leaf(const struct cpuid_model *m, uint32_t leaf) {
    struct cpuid_regs r = {0};
    switch (leaf) {
    case 0x40000000: /* "KVMKVMKVM" */
        return (struct cpuid_regs){0x40000010, 0x4b4d564b, 0x564b4d56, 0x4d};
    case 0x40000001: /* no I/O delay, the clock's new MSRs, stable across CPUs */
        r.eax = BIT(1) | BIT(3) | BIT(24) | m->kvm_optional;
        return r;
    case 0x40000010: /* kHz: TSC, APIC timer */
        r.eax = (uint32_t)(m->tsc_hz / 1000);
        r.ebx = 1000000;
        return r;
    default:
        return r;
    }
}

/*
 * Beyond the last leaf AMD returns zeros, Intel what the last basic leaf does. Intel SDM
 * volume 2, "CPUID", Returns Basic Information.
 */
struct cpuid_regs cpuid_query(const struct vcpu *v, uint32_t leaf, uint32_t subleaf) {
    const struct cpuid_model *m = v->cpuid;
    if (leaf <= basic_max(m))
        return basic_leaf(v, leaf, subleaf);
    if (leaf >= 0x80000000u && leaf <= extended_max(m))
        return extended_leaf(v, leaf, subleaf);
    if (m->paravirt && leaf >= 0x40000000u && leaf <= 0x40000010u)
        return kvm_leaf(m, leaf);
    return m->amd ? (struct cpuid_regs){0} : basic_leaf(v, basic_max(m), subleaf);
}
