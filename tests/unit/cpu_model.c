/* The named CPUs: identity and features agree, and what depends on them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/types.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "x86/cr.h"

static bool bit(const struct cpuid_model *m, uint32_t leaf, uint32_t sub, unsigned reg,
                unsigned n) {
    struct vcpu v = {.cpuid = m};
    struct cpuid_regs r = cpuid_query(&v, leaf, sub);
    uint32_t word = reg == 0 ? r.eax : reg == 1 ? r.ebx : reg == 2 ? r.ecx : r.edx;

    return word >> n & 1;
}

static struct cpuid_model *make(const char *name, enum cpuid_vendor vendor) {
    struct cpuid_config cfg = {.model = name, .vendor = vendor, .tsc_hz = 1000000000};

    vec_init();
    return cpuid_model_new(&cfg);
}

/* What GCC 12 takes for granted of -march=, of which the kernel has no say. */
#define F(f) (1ull << CPUID_F_##f)
#define LEVEL2 (F(SSE3) | F(SSSE3) | F(SSE41) | F(SSE42) | F(POPCNT) | F(CX16))
#define LEVEL3                                                                           \
    (LEVEL2 | F(AVX) | F(AVX2) | F(BMI1) | F(BMI2) | F(F16C) | F(FMA) | F(LZCNT) |       \
     F(MOVBE) | F(XSAVE))
#define ZNVER1                                                                           \
    (LEVEL3 | F(AES) | F(PCLMUL) | F(SSE4A) | F(SHA) | F(ADX) | F(RDRAND) | F(RDSEED) |  \
     F(CLZERO) | F(XSAVEERPTR) | F(CLFLUSHOPT) | F(XSAVEOPT) | F(XSAVEC) | F(RDTSCP) |   \
     F(SMAP))
#define BDWELL                                                                           \
    (LEVEL3 | F(AES) | F(PCLMUL) | F(RDRAND) | F(XSAVEOPT) | F(INVPCID) | F(RDSEED) |    \
     F(ADX) | F(RDTSCP) | F(SMAP))

#define SKX                                                                              \
    (BDWELL | F(CLFLUSHOPT) | F(XSAVEC) | F(CLWB) | F(AVX512F) | F(AVX512DQ) |           \
     F(AVX512CD) | F(AVX512BW) | F(AVX512VL))
#define ICELAKE                                                                          \
    (SKX | F(AVX512VNNI) | F(AVX512IFMA) | F(AVX512VBMI) | F(AVX512VBMI2) |              \
     F(AVX512BITALG) | F(AVX512VPOPCNTDQ) | F(GFNI) | F(VAES) | F(VPCLMUL) | F(SHA) |    \
     F(RDPID))
#define ZNVER3 (ZNVER1 | F(CLWB) | F(RDPID) | F(VAES) | F(VPCLMUL) | F(INVPCID))

static const struct known {
    const char *name;
    bool amd;
    unsigned family, model;
    uint64_t has;
} known[] = {
    {"Nehalem", false, 6, 0x1a, LEVEL2 | F(RDTSCP)},
    {"Westmere", false, 6, 0x2c, LEVEL2 | F(RDTSCP) | F(AES) | F(PCLMUL)},
    {"SandyBridge", false, 6, 0x2a,
     LEVEL2 | F(RDTSCP) | F(AES) | F(PCLMUL) | F(AVX) | F(XSAVE) | F(XSAVEOPT)},
    {"IvyBridge", false, 6, 0x3a,
     LEVEL2 | F(RDTSCP) | F(AES) | F(PCLMUL) | F(AVX) | F(XSAVE) | F(XSAVEOPT) | F(F16C) |
         F(RDRAND)},
    {"Haswell", false, 6, 0x3c, BDWELL & ~(F(RDSEED) | F(ADX) | F(SMAP))},
    {"v3", false, 6, 0x3c, BDWELL & ~(F(RDSEED) | F(ADX) | F(SMAP))},
    {"Broadwell", false, 6, 0x3d, BDWELL},
    {"Skylake-Client", false, 6, 0x5e, BDWELL | F(CLFLUSHOPT) | F(XSAVEC)},
    {"Alderlake", false, 6, 0x97,
     BDWELL | F(CLFLUSHOPT) | F(XSAVEC) | F(CLWB) | F(SHA) | F(GFNI) | F(VAES) |
         F(VPCLMUL) | F(RDPID) | F(AVXVNNI)},
    {"v2", true, 0x14, 2, LEVEL2 | F(SSE4A) | F(LZCNT) | F(RDTSCP)},
    {"EPYC", true, 0x17, 1, ZNVER1},
    {"v3", true, 0x17, 1, ZNVER1},
    {"EPYC-Rome", true, 0x17, 0x31, ZNVER1 | F(CLWB) | F(RDPID)},
    {"EPYC-Milan", true, 0x19, 1, ZNVER3},
    {"EPYC-Genoa", true, 0x19, 0x11,
     ZNVER3 | F(AVX512F) | F(AVX512DQ) | F(AVX512CD) | F(AVX512BW) | F(AVX512VL) |
         F(AVX512VNNI) | F(AVX512IFMA) | F(AVX512VBMI) | F(AVX512VBMI2) |
         F(AVX512BITALG) | F(AVX512VPOPCNTDQ) | F(AVX512BF16) | F(GFNI)},
    {"v4", false, 6, 0x55, SKX},
    {"Skylake-Server", false, 6, 0x55, SKX},
    {"Cascadelake-Server", false, 6, 0x55, SKX | F(AVX512VNNI)},
    {"Icelake-Server", false, 6, 0x6a, ICELAKE},
    {"SapphireRapids", false, 6, 0x8f,
     ICELAKE | F(AVX512BF16) | F(AVX512FP16) | F(AVXVNNI)},
};

static unsigned family_of(uint32_t sig) {
    unsigned base = sig >> 8 & 15;

    return base == 15 ? base + (sig >> 20 & 255) : base;
}

static unsigned model_of(uint32_t sig) {
    return (sig >> 4 & 15) | (sig >> 12 & 0xf0);
}

/* No more than the part has; no less, but for what the host lacks. */
static void test_parts(void **state) {
    for (size_t n = 0; n < ARRAY_SIZE(known); n++) {
        const struct known *k = &known[n];
        enum cpuid_vendor vendor = k->amd ? CPUID_VENDOR_AMD : CPUID_VENDOR_INTEL;
        struct cpuid_model *m = make(k->name, vendor), *all = make("host", vendor);
        struct vcpu v = {.cpuid = m};
        uint32_t sig;

        assert_non_null(m);
        assert_non_null(all);
        assert_int_equal(cpuid_is_amd(m), k->amd);
        sig = cpuid_query(&v, 1, 0).eax;
        assert_int_equal(family_of(sig), k->family);
        assert_int_equal(model_of(sig), k->model);
        for (unsigned f = CPUID_F_NONE + 1; f < CPUID_F_UNSUPPORTED; f++) {
            bool want = (k->has >> f & 1) && cpuid_has(all, (enum cpuid_feature)f);

            if (cpuid_has(m, (enum cpuid_feature)f) != want)
                fail_msg("%s: feature %u, which is%s its", k->name, f,
                         want ? "" : " not");
        }
        assert_int_equal(cpuid_xcr0_valid(m), cpuid_has(m, CPUID_F_AVX512F) ? 0xe7
                                              : cpuid_has(m, CPUID_F_AVX)   ? 7
                                              : cpuid_has(m, CPUID_F_XSAVE) ? 3
                                                                            : 0);
        /* The board's. */
        assert_true(bit(m, 1, 0, 2, 21) && bit(m, 1, 0, 2, 24) && bit(m, 7, 0, 1, 1));
        cpuid_model_free(m);
        cpuid_model_free(all);
    }
}

/* Whatever is in the list can be made, and is all that its part is if it is offered. */
static void test_list(void **state) {
    const char *name, *what, *lacks;
    bool host = false, v3 = false, dflt = false;
    size_t n;

    vec_init();
    for (n = 0; (name = cpuid_model_at(n, &what)); n++) {
        struct cpuid_model *m = make(name, CPUID_VENDOR_HOST);
        enum cpuid_verdict verdict = cpuid_model_check(name, &lacks);

        assert_non_null(m);
        assert_true(what && *what);
        assert_true(verdict == CPUID_OFFERED || (verdict == CPUID_HOST_LACKS && lacks));
        host |= !strcmp(name, "host");
        v3 |= !strcmp(name, "v3");
        dflt |= !strcmp(name, cpuid_model_default());
        for (size_t k = 0; k < ARRAY_SIZE(known) && verdict == CPUID_OFFERED; k++) {
            if (strcmp(known[k].name, name) || known[k].amd != cpuid_is_amd(m))
                continue;
            for (unsigned f = CPUID_F_NONE + 1; f < CPUID_F_UNSUPPORTED; f++)
                assert_int_equal(cpuid_has(m, (enum cpuid_feature)f),
                                 known[k].has >> f & 1);
        }
        cpuid_model_free(m);
    }
    assert_true(n > 5 && host && v3 && dflt);
    assert_int_equal(cpuid_model_check("host", &lacks), CPUID_OFFERED);
    assert_int_equal(cpuid_model_check("", &lacks), CPUID_NO_SUCH_MODEL);
    assert_int_equal(cpuid_model_check("v", &lacks), CPUID_NO_SUCH_MODEL);
    assert_int_equal(cpuid_model_check("Haswell2", &lacks), CPUID_NO_SUCH_MODEL);
    assert_null(make("Haswell2", CPUID_VENDOR_HOST));
}

static void test_other_vendor(void **state) {
    const char *lacks;
    struct cpuid_model *m = make(NULL, CPUID_VENDOR_HOST);
    bool amd = cpuid_is_amd(m);

    assert_int_equal(cpuid_model_check(amd ? "Haswell" : "EPYC", &lacks),
                     CPUID_OTHER_VENDOR);
    cpuid_model_free(m);
}

/* The default is not one whose real parts have AVX-512 and that lacks it here. */
static void test_default(void **state) {
    for (int vendor = CPUID_VENDOR_HOST; vendor <= CPUID_VENDOR_INTEL; vendor++) {
        struct cpuid_model *m = make(NULL, (enum cpuid_vendor)vendor);
        struct vcpu v = {.cpuid = m};
        uint32_t sig = cpuid_query(&v, 1, 0).eax;
        bool found = false;

        for (size_t k = 0; k < ARRAY_SIZE(known); k++)
            found |= known[k].amd == cpuid_is_amd(m) &&
                     known[k].family == family_of(sig) && known[k].model == model_of(sig);
        assert_true(found);
        assert_false(bit(m, 7, 0, 1, 16));
        cpuid_model_free(m);
    }
}

static void test_cr4(void **state) {
    struct cpuid_model *old = make("Nehalem", CPUID_VENDOR_INTEL);
    struct cpuid_model *new = make("Skylake-Client", CPUID_VENDOR_INTEL);
    const uint64_t later = X86_CR4_OSXSAVE | X86_CR4_PCIDE | X86_CR4_SMEP | X86_CR4_SMAP |
                           X86_CR4_FSGSBASE | X86_CR4_UMIP;

    assert_int_equal(cpuid_cr4_valid(old) & later, 0);
    assert_int_equal(cpuid_cr4_valid(new) & (X86_CR4_SMAP | X86_CR4_UMIP), X86_CR4_SMAP);
    assert_int_equal(cpuid_xcr0_valid(old), 0);
    cpuid_model_free(old);
    cpuid_model_free(new);
}

/* Offsets are the host's; the sizes are the architecture's. Intel SDM volume 1, "XSAVE-
 * Managed Features". */
static void test_xsave_layout(void **state) {
    static const uint16_t sizes[] = {[2] = 256, [5] = 64, [6] = 512, [7] = 1024};
    struct cpuid_model *m = make("host", CPUID_VENDOR_HOST);
    uint64_t all = cpuid_xcr0_valid(m);
    struct vcpu v = {.cpuid = m, .xcr0 = 3};
    uint32_t end = 576, compact = 576;

    if (!all)
        skip();
    assert_int_equal(cpuid_query(&v, 0xd, 0).eax, all);
    assert_int_equal(cpuid_query(&v, 0xd, 0).ebx, 576);
    for (unsigned n = 2; n < 12; n++) {
        struct cpuid_regs r = cpuid_query(&v, 0xd, n);

        if (!(all >> n & 1)) {
            assert_int_equal(r.eax | r.ebx | r.ecx, 0);
            continue;
        }
        assert_int_equal(r.eax, sizes[n]);
        assert_true(r.ebx >= end); /* in order, none over another */
        end = r.ebx + r.eax;
        compact += r.eax;
    }
    assert_int_equal(cpuid_query(&v, 0xd, 0).ecx, end);
    v.xcr0 = all;
    assert_int_equal(cpuid_query(&v, 0xd, 0).ebx, end);
    assert_int_equal(cpuid_query(&v, 0xd, 1).ebx, compact);
    cpuid_model_free(m);
}

/* --- changes --- */

static struct cpuid_model *change(const char *name, const struct cpuid_change *c) {
    const struct cpuid_config cfg = {
        .model = name, .tsc_hz = 1000000000, .change = c, .changes = 1};

    vec_init();
    return cpuid_model_new(&cfg);
}

/* What is taken away takes along what needs it, and the instruction is gone. */
static void test_change_clear(void **state) {
    const struct cpuid_change avx = {1, 0, 2, 1u << 28, 0}, avx2 = {7, 0, 1, 1u << 5, 0},
                              state_avx = {0xd, 0, 0, 4, 0};
    const char *lacks;
    struct cpuid_model *m = change("host", &avx2);

    assert_int_equal(cpuid_change_check("host", &avx2, &lacks), CPUID_OFFERED);
    assert_false(cpuid_has(m, CPUID_F_AVX2) || bit(m, 7, 0, 1, 5));
    cpuid_model_free(m);
    m = change("host", &avx);
    assert_false(cpuid_has(m, CPUID_F_AVX) || cpuid_has(m, CPUID_F_AVX2) ||
                 cpuid_has(m, CPUID_F_FMA) || cpuid_has(m, CPUID_F_AVX512F));
    assert_int_equal(cpuid_xcr0_valid(m) & ~3ull, 0);
    cpuid_model_free(m);
    m = change("host", &state_avx);
    assert_false(cpuid_has(m, CPUID_F_AVX));
    assert_int_equal(cpuid_xcr0_valid(m) & ~3ull, 0);
    cpuid_model_free(m);
}

/* What is to be there must be possible; the signature is anybody's. */
static void test_change_set(void **state) {
    const struct cpuid_change sse42 = {1, 0, 2, 0, 1u << 20},
                              amx = {7, 0, 3, 0, 1u << 24}, tsc = {0x15, 0, 1, 1, 0},
                              sign = {1, 0, 0, 0xf, 0x5};
    const char *lacks;
    struct cpuid_model *m;

    vec_init();
    assert_int_equal(cpuid_change_check(NULL, &sse42, &lacks), CPUID_OFFERED);
    assert_int_equal(cpuid_change_check(NULL, &amx, &lacks), CPUID_HOST_LACKS);
    assert_non_null(lacks);
    assert_int_equal(cpuid_change_check(NULL, &tsc, &lacks), CPUID_NO_SUCH_MODEL);
    assert_int_equal(cpuid_change_check(NULL, &sign, &lacks), CPUID_OFFERED);
    m = change(NULL, &sign);
    assert_true(bit(m, 1, 0, 0, 0) && !bit(m, 1, 0, 0, 1) && bit(m, 1, 0, 0, 2));
    cpuid_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_change_clear), cmocka_unit_test(test_change_set),
        cmocka_unit_test(test_parts),        cmocka_unit_test(test_list),
        cmocka_unit_test(test_other_vendor), cmocka_unit_test(test_default),
        cmocka_unit_test(test_cr4),          cmocka_unit_test(test_xsave_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
