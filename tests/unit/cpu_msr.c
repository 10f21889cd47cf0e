/*
 * Every MSR of the model, bit by bit, for both vendors: which bits are kept, which are
 * ignored, which raise #GP. All other numbers must raise it, so that the list here is the
 * whole model.
 *
 * AMD64 APM volume 2, "MSR Cross-Reference"; Intel SDM volume 4; Linux, arch/x86/kvm,
 * where these leave it open.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "cpu/vec.h"
#include "x86/cr.h"
#include "x86/msr.h"

#define ALL (~0ull)
#define LOW 0xffffffffull

enum { AMD = 1, INTEL = 2, BOTH = 3 };

enum rule {
    PLAIN,
    READ_ONLY,  /* every write raises #GP */
    WRITE_ONLY, /* every read does */
    FIXED,      /* reserved bits are to stay as they are */
};

/* What a write keeps, what raises #GP; the rest is ignored. */
struct plain {
    uint32_t first, last;
    unsigned vendor;
    uint64_t kept, reserved;
    enum rule rule;
};

static const struct plain plain[] = {
    {0x0, 0x1, BOTH, 0, 0, PLAIN},
    {0x17, 0x17, INTEL, 0, 0, READ_ONLY},
    {0x2a, 0x2a, INTEL, 0, 0, PLAIN},
    {0x34, 0x34, INTEL, 0, 0, READ_ONLY},
    {0x3a, 0x3a, INTEL, 0, 0, READ_ONLY},
    {0x48, 0x48, INTEL, 0x403, ~0x403ull, PLAIN},
    {0x49, 0x49, INTEL, 0, ~1ull, WRITE_ONLY},
    {0x79, 0x79, INTEL, 0, 0, WRITE_ONLY},
    {0x8b, 0x8b, BOTH, 0, 0, PLAIN},
    {0xce, 0xce, INTEL, 0, 0, READ_ONLY},
    {0xfe, 0xfe, BOTH, 0, 0, READ_ONLY},
    {0x10a, 0x10a, INTEL, 0, 0, READ_ONLY},
    {0x140, 0x140, INTEL, 0, ALL, PLAIN},
    {0x174, 0x174, BOTH, LOW, 0, PLAIN},
    {0x175, 0x176, AMD, ALL, 0, PLAIN},
    {0x179, 0x179, BOTH, 0, 0, READ_ONLY},
    {0x17a, 0x17a, BOTH, 7, ~7ull, PLAIN},
    {0x1a0, 0x1a0, INTEL, ~0x1880ull, 0x1800, FIXED},
    {0x1d9, 0x1d9, INTEL, 0, ~3ull, PLAIN},
    {0x1d9, 0x1d9, AMD, 0, ~0x3full, PLAIN},
    {0x1db, 0x1de, BOTH, 0, 0, PLAIN},
    {0xc0000081, 0xc0000081, BOTH, ALL, 0, PLAIN},
    {0xc0000084, 0xc0000084, BOTH, LOW, 0, PLAIN},
    {0xc0000103, 0xc0000103, INTEL, LOW, ~LOW, PLAIN},
    {0xc0000103, 0xc0000103, AMD, LOW, 0, PLAIN},
    {0xc0000104, 0xc0000104, AMD, 0, 0, PLAIN},
    {0xc0010000, 0xc0010007, AMD, 0, 0, PLAIN},
    {0xc0010010, 0xc0010010, AMD, 0x7c0000, 0, PLAIN},
    {0xc0010015, 0xc0010015, AMD, 0x7effffff, 0, PLAIN},
    {0xc0010016, 0xc001001a, AMD, 0, 0, PLAIN},
    {0xc001001d, 0xc001001d, AMD, 0, 0, PLAIN},
    {0xc001001f, 0xc001001f, AMD, 0, 0, PLAIN},
    {0xc0010020, 0xc0010020, AMD, 0, 0, WRITE_ONLY},
    {0xc0010022, 0xc0010022, AMD, 0, 0, PLAIN},
    {0xc0010055, 0xc0010055, AMD, 0, 0, PLAIN},
    {0xc0010058, 0xc0010058, AMD, 0, 0, PLAIN},
    {0xc0010061, 0xc001006b, AMD, 0, 0, PLAIN},
    {0xc0010111, 0xc0010114, AMD, 0, 0, PLAIN},
    {0xc0010140, 0xc0010141, AMD, 0, 0, PLAIN},
    {0xc0011020, 0xc0011030, AMD, 0, 0, PLAIN},
};

/* Addresses, which must be canonical. */
static const struct {
    uint32_t first, last;
    unsigned vendor;
} addresses[] = {
    {0x175, 0x176, INTEL},
    {0xc0000082, 0xc0000083, BOTH},
    {0xc0000100, 0xc0000102, BOTH},
};

/* What has tests of its own: time, EFER, memory types; and the devices'. */
static const uint32_t special[][2] = {
    {0x10, 0x10},   {0x1b, 0x1b},   {0x3b, 0x3b},   {0x200, 0x20f},
    {0x250, 0x250}, {0x258, 0x259}, {0x268, 0x26f}, {0x277, 0x277},
    {0x2ff, 0x2ff}, {0x6e0, 0x6e0}, {0x800, 0x8ff}, {X86_MSR_EFER, X86_MSR_EFER},
};

static struct vcpu V;
static struct cpuid_model *model;

static int setup(enum cpuid_vendor vendor) {
    struct cpuid_config cfg = {.vendor = vendor, .tsc_hz = 1000000000};

    vec_init();
    memset(&V, 0, sizeof(V));
    V.cpuid = model = cpuid_model_new(&cfg);
    if (model)
        vcpu_reset(&V);
    return model ? 0 : -1;
}

static int setup_amd(void **state) {
    return setup(CPUID_VENDOR_AMD);
}

static int setup_intel(void **state) {
    return setup(CPUID_VENDOR_INTEL);
}

static int teardown(void **state) {
    cpuid_model_free(model);
    return 0;
}

static unsigned vendor(void) {
    return cpuid_is_amd(model) ? AMD : INTEL;
}

static uint64_t get(uint32_t index) {
    uint64_t x = 0x5555;

    if (msr_read(&V, index, &x) != MSR_OK)
        fail_msg("MSR 0x%x cannot be read", index);
    return x;
}

static bool allowed(const struct plain *p, uint64_t old, uint64_t value) {
    if (p->rule == READ_ONLY)
        return false;
    return !((p->rule == FIXED ? value ^ old : value) & p->reserved);
}

static void one_write(const struct plain *p, uint32_t index, uint64_t value) {
    bool reads = p->rule != WRITE_ONLY;
    uint64_t old = reads ? get(index) : 0, now;
    bool good = allowed(p, old, value);
    enum msr_result r = msr_write(&V, index, value);

    if (r != (good ? MSR_OK : MSR_FAULT))
        fail_msg("MSR 0x%x = 0x%llx: %d", index, (unsigned long long)value, r);
    if (!reads) {
        assert_int_equal(msr_read(&V, index, &now), MSR_FAULT);
        return;
    }
    now = get(index);
    if (now != (good ? (value & p->kept) | (old & ~p->kept) : old))
        fail_msg("MSR 0x%x = 0x%llx: then 0x%llx", index, (unsigned long long)value,
                 (unsigned long long)now);
}

static void test_bits(void **state) {
    for (size_t k = 0; k < ARRAY_SIZE(plain); k++) {
        const struct plain *p = &plain[k];

        for (uint32_t n = p->first; n <= p->last && (p->vendor & vendor()); n++) {
            uint64_t old = p->rule == WRITE_ONLY ? 0 : get(n);

            for (unsigned b = 0; b < 64; b++) {
                one_write(p, n, old ^ 1ull << b);
                one_write(p, n, 1ull << b);
                one_write(p, n, ~(1ull << b));
                one_write(p, n, old);
            }
        }
    }
}

static void test_addresses(void **state) {
    for (size_t k = 0; k < ARRAY_SIZE(addresses); k++) {
        if (!(addresses[k].vendor & vendor()))
            continue;
        for (uint32_t n = addresses[k].first; n <= addresses[k].last; n++) {
            for (unsigned b = 0; b < 64; b++) {
                uint64_t old = get(n), value = 1ull << b;

                assert_int_equal(msr_write(&V, n, value), b < 47 ? MSR_OK : MSR_FAULT);
                assert_true(get(n) == (b < 47 ? value : old));
                value = ALL << b;
                assert_int_equal(msr_write(&V, n, value), b < 48 ? MSR_OK : MSR_FAULT);
            }
        }
    }
}

static bool listed(uint32_t n) {
    for (size_t k = 0; k < ARRAY_SIZE(plain); k++)
        if (n - plain[k].first <= plain[k].last - plain[k].first &&
            (plain[k].vendor & vendor()))
            return true;
    for (size_t k = 0; k < ARRAY_SIZE(addresses); k++)
        if (n - addresses[k].first <= addresses[k].last - addresses[k].first &&
            (addresses[k].vendor & vendor()))
            return true;
    for (size_t k = 0; k < ARRAY_SIZE(special); k++)
        if (n - special[k][0] <= special[k][1] - special[k][0])
            return true;
    return false;
}

static void test_no_others(void **state) {
    static const uint32_t ranges[][2] = {{0, 0x1fff},
                                         {0x40000000, 0x40000fff},
                                         {0x4b564d00, 0x4b564dff},
                                         {0xc0000000, 0xc0001fff},
                                         {0xc0010000, 0xc0011fff}};
    uint64_t x;

    for (size_t k = 0; k < ARRAY_SIZE(ranges); k++) {
        for (uint32_t n = ranges[k][0]; n <= ranges[k][1]; n++) {
            if (listed(n))
                continue;
            if (msr_read(&V, n, &x) != MSR_FAULT || msr_write(&V, n, 0) != MSR_FAULT)
                fail_msg("MSR 0x%x is there", n);
        }
    }
}

/* EFER: LMA is the processor's; LME holds still while paging is on. */
static void test_efer(void **state) {
    uint64_t valid = cpuid_efer_valid(model);

    for (unsigned b = 0; b < 64; b++) {
        uint64_t bit = 1ull << b;
        bool good = (valid & bit) && (bit != X86_EFER_LMA || !cpuid_is_amd(model));

        assert_int_equal(msr_write(&V, X86_MSR_EFER, bit), good ? MSR_OK : MSR_FAULT);
        if (good)
            assert_true(V.efer == (bit == X86_EFER_LMA ? 0 : bit));
        assert_int_equal(msr_write(&V, X86_MSR_EFER, 0), MSR_OK);
    }
    V.cr0 |= X86_CR0_PG;
    assert_int_equal(msr_write(&V, X86_MSR_EFER, X86_EFER_LME), MSR_FAULT);
}

/* The values that kvm-unit-tests write. */
static void test_misc_enable(void **state) {
    if (vendor() == AMD) {
        uint64_t x;
        assert_int_equal(msr_read(&V, X86_MSR_MISC_ENABLE, &x), MSR_FAULT);
        return;
    }
    assert_int_equal(msr_write(&V, X86_MSR_MISC_ENABLE, 0x400c51889), MSR_OK);
    assert_true(get(X86_MSR_MISC_ENABLE) == 0x400c51809); /* no performance counters */
    vcpu_reset(&V);
    assert_int_equal(get(X86_MSR_MISC_ENABLE), 0x1801);
}

#define FOR_BOTH(f)                                                                      \
    {"intel_" #f, f, setup_intel, teardown, NULL}, {                                     \
        "amd_" #f, f, setup_amd, teardown, NULL                                          \
    }

int main(void) {
    const struct CMUnitTest tests[] = {
        FOR_BOTH(test_bits), FOR_BOTH(test_addresses),   FOR_BOTH(test_no_others),
        FOR_BOTH(test_efer), FOR_BOTH(test_misc_enable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
