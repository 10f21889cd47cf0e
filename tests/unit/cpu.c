/* Reset state, derived fields, the CPUID model, MSRs, exit names, the dump. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "cpu/vec.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/msr.h"

static struct vcpu V;
static struct cpuid_model *model;
static uint64_t tsc;

static uint64_t tsc_read(void *arg) {
    return tsc;
}

static void tsc_write(void *arg, uint64_t value) {
    tsc = value;
}

static const struct vcpu_hooks hooks = {.tsc = tsc_read, .tsc_write = tsc_write};

static int setup(void **state) {
    struct cpuid_config cfg = {.paravirt = true, .tsc_hz = 2600000000u};
    vec_init();
    model = cpuid_model_new(&cfg);
    memset(&V, 0, sizeof(V));
    V.cpuid = model;
    V.hooks = &hooks;
    tsc = 1000;
    vcpu_reset(&V);
    return model ? 0 : -1;
}

static int teardown(void **state) {
    cpuid_model_free(model);
    return 0;
}

static void test_reset(void **state) {
    assert_int_equal(V.rip, 0xfff0);
    assert_int_equal(V.seg[SEG_CS].sel, 0xf000);
    assert_int_equal(V.segbase[SEG_CS], 0xffff0000);
    assert_int_equal(V.cr0, 0x60000010);
    assert_int_equal(V.rflags, 2);
    assert_int_equal(V.dr[6], 0xffff0ff0);
    assert_int_equal(V.mode, MODE_16);
    assert_int_equal(V.seg_flat_r | V.seg_flat_w, 0);
    assert_int_equal(V.gpr[REG_RDX], cpuid_query(&V, 1, 0).eax);
}

static void set_flat(unsigned seg, unsigned ar) {
    V.seg[seg] = (struct segment){.sel = 8, .ar = (uint16_t)ar, .limit = 0xffffffff};
}

static void test_flat_protected(void **state) {
    V.cr0 |= X86_CR0_PE;
    set_flat(SEG_CS, 0xc09b); /* readable code */
    set_flat(SEG_SS, 0xc093);
    set_flat(SEG_DS, 0xc091); /* read-only */
    set_flat(SEG_ES, 0xc097); /* expand-down */
    set_flat(SEG_FS, 0xc013); /* not present */
    set_flat(SEG_GS, 0xc099); /* execute-only */
    vcpu_update_mode(&V);
    assert_int_equal(V.mode, MODE_32);
    assert_true(V.stack32);
    assert_int_equal(V.lin_mask, 0xffffffff);
    assert_int_equal(V.seg_flat_r, 1 << SEG_CS | 1 << SEG_SS | 1 << SEG_DS);
    assert_int_equal(V.seg_flat_w, 1 << SEG_SS);
    V.cpl = 3;
    V.cr0 |= X86_CR0_AM;
    V.rflags |= X86_FL_AC;
    vcpu_update_mode(&V);
    assert_int_equal(V.seg_flat_r | V.seg_flat_w, 0);
}

static void test_flat_long(void **state) {
    V.cr0 |= X86_CR0_PE | X86_CR0_PG;
    V.efer = X86_EFER_LME | X86_EFER_LMA;
    V.seg[SEG_CS].ar = 0xa09b;
    V.seg[SEG_DS].base = 0x1234;
    V.seg[SEG_FS].base = 0xffff888000000000;
    vcpu_update_mode(&V);
    assert_int_equal(V.mode, MODE_64);
    assert_int_equal(V.segbase[SEG_DS], 0);
    assert_true(V.segbase[SEG_FS] == 0xffff888000000000);
    assert_int_equal(V.seg_flat_w, 0x3f);
    assert_true(V.lin_mask == ~0ull);
}

static void test_cpuid_consistent(void **state) {
    struct cpuid_regs one = cpuid_query(&V, 1, 0), seven = cpuid_query(&V, 7, 0);
    assert_int_equal(one.edx & (1 << 7 | 1 << 9 | 1 << 15), 1 << 7 | 1 << 9 | 1 << 15);
    assert_false(one.ecx & 1u << 27); /* OSXSAVE follows CR4 */
    V.cr4 |= X86_CR4_OSXSAVE;
    assert_true(cpuid_query(&V, 1, 0).ecx & 1u << 27);
    if (seven.edx & 1 << 4)
        assert_true(seven.ebx & 1 << 9); /* FSRM needs ERMS */
    assert_false(seven.ebx & 1 << 16);   /* AVX-512 */
    assert_false(one.ecx & 1 << 3);      /* MONITOR */
    if (cpuid_has(model, CPUID_F_AVX)) {
        assert_int_equal(cpuid_query(&V, 0xd, 0).ecx, 832);
        assert_int_equal(cpuid_query(&V, 0xd, 0).ebx, 576);
        V.xcr0 = 7;
        assert_int_equal(cpuid_query(&V, 0xd, 0).ebx, 832);
        assert_int_equal(cpuid_query(&V, 0xd, 1).ebx, 832);
        assert_int_equal(cpuid_query(&V, 0xd, 2).ebx, 576);
    }
    assert_int_equal(cpuid_query(&V, 0x80000008, 0).eax, 0x3028);
    assert_false(cpuid_has(model, CPUID_F_UNSUPPORTED));
}

static void test_cpuid_paravirt(void **state) {
    struct cpuid_config cfg = {.paravirt = false, .tsc_hz = 1000000000};
    struct cpuid_regs r = cpuid_query(&V, 0x40000000, 0);
    assert_memory_equal(&r.ebx, "KVMKVMKVM\0\0\0", 12);
    assert_true(cpuid_query(&V, 1, 0).ecx >> 31);
    struct cpuid_model *bare = cpuid_model_new(&cfg);
    uint64_t value;
    V.cpuid = bare;
    assert_false(cpuid_query(&V, 1, 0).ecx >> 31);
    assert_int_not_equal(cpuid_query(&V, 0x40000000, 0).ebx, 0x4b4d564b);
    assert_int_equal(msr_read(&V, X86_MSR_KVM_SYSTEM_TIME_NEW, &value), MSR_FAULT);
    V.cpuid = model;
    assert_int_equal(msr_read(&V, X86_MSR_KVM_SYSTEM_TIME_NEW, &value), MSR_NOT_OURS);
    cpuid_model_free(bare);
}

/* Linux computes the TSC's kHz as crystal kHz * numerator / denominator, in 32 bits. */
static void test_cpuid_tsc_ratio(void **state) {
    static const uint64_t hz[] = {2600000000, 2599998123, 1000000000, 3187654321,
                                  999999937,  4200000000, 800000123};

    for (size_t n = 0; n < sizeof(hz) / sizeof(hz[0]); n++) {
        struct cpuid_config cfg = {.tsc_hz = hz[n]};
        struct cpuid_model *m = cpuid_model_new(&cfg);
        struct vcpu v = {.cpuid = m};
        struct cpuid_regs r;
        uint64_t khz, product;

        assert_non_null(m);
        r = cpuid_query(&v, 0x15, 0);
        if (!cpuid_is_amd(m)) { /* AMD's CPUs have no such leaf */
            assert_true(r.eax && r.ebx && r.ecx);
            product = (uint64_t)(r.ecx / 1000) * r.ebx;
            assert_true(product <= UINT32_MAX);
            khz = product / r.eax;
            assert_in_range(khz, hz[n] / 1000 - hz[n] / 100000000 - 1,
                            hz[n] / 1000 + hz[n] / 100000000 + 1);
        }
        cpuid_model_free(m);
    }
}

static void test_msr(void **state) {
    uint64_t x;
    assert_int_equal(msr_write(&V, X86_MSR_FS_BASE, 0x800000000000), MSR_FAULT);
    assert_int_equal(msr_write(&V, X86_MSR_FS_BASE, 0x7fff00000000), MSR_OK);
    assert_true(V.segbase[SEG_FS] == 0x7fff00000000);
    assert_int_equal(msr_write(&V, X86_MSR_PAT, 0x0206060606060606), MSR_FAULT);
    assert_int_equal(msr_write(&V, X86_MSR_PAT, 0x0706060606060606), MSR_OK);
    assert_int_equal(msr_write(&V, X86_MSR_EFER, 1ull << 12), MSR_FAULT);
    assert_int_equal(msr_write(&V, X86_MSR_EFER, X86_EFER_LME), MSR_OK);
    assert_int_equal(msr_write(&V, X86_MSR_EFER, X86_EFER_LME | X86_EFER_LMA),
                     cpuid_is_amd(model) ? MSR_FAULT : MSR_OK);
    assert_int_equal(V.efer, X86_EFER_LME); /* LMA is not software's */
    V.cr0 |= X86_CR0_PG;
    assert_int_equal(msr_write(&V, X86_MSR_EFER, 0), MSR_FAULT);
    assert_int_equal(msr_write(&V, X86_MSR_MTRR_PHYSBASE0 + 1, 1ull << 40), MSR_FAULT);
    assert_int_equal(msr_write(&V, 0x20e, 6), MSR_OK);
    assert_int_equal(msr_read(&V, 0x20e, &x), MSR_OK);
    assert_int_equal(x, 6);
    assert_int_equal(msr_read(&V, 0x26f, &x), MSR_OK); /* the last fixed one */
    assert_int_equal(msr_read(&V, 0x12345, &x), MSR_FAULT);
    assert_int_equal(msr_read(&V, X86_MSR_APIC_BASE, &x), MSR_NOT_OURS);
    assert_int_equal(msr_read(&V, 0x830, &x), MSR_NOT_OURS);
}

static void test_tsc(void **state) {
    uint64_t x;
    assert_int_equal(msr_write(&V, X86_MSR_TSC, 5000), MSR_OK);
    assert_int_equal(msr_read(&V, X86_MSR_TSC_ADJUST, &x), MSR_OK);
    assert_int_equal(x, 4000);
    assert_int_equal(msr_write(&V, X86_MSR_TSC_ADJUST, 0), MSR_OK);
    assert_int_equal(tsc, 1000);
}

static void test_names_and_dump(void **state) {
    char buf[4096], small[16];
    assert_string_equal(exit_name(EXIT_io), "io");
    assert_string_equal(exit_name((enum exit_reason)1000), "?");
    vcpu_dump(&V, buf, sizeof(buf));
    assert_non_null(strstr(buf, "real mode"));
    assert_non_null(strstr(buf, "cs   f000"));
    memset(small, 'x', sizeof(small));
    vcpu_dump(&V, small, 8);
    assert_int_equal(strlen(small), 7);
    assert_int_equal(small[8], 'x');
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flat_protected, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flat_long, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cpuid_consistent, setup, teardown),
        cmocka_unit_test(test_cpuid_tsc_ratio),
        cmocka_unit_test_setup_teardown(test_cpuid_paravirt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_msr, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tsc, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names_and_dump, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
