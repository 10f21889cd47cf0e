/*
 * The hardware engine, mostly without hardware: the way of the state between struct vcpu
 * and KVM's structures, the limits put on the CPUID model, and what the probe's figures
 * mean.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpuid.h"
#include "cpu/state.h"
#include "cpu/vec.h"
#include "kvm/kvm_int.h"
#include "lib/tiny.h"
#include "machine/machine.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/msr.h"

static struct vcpu A, B;
static struct cpuid_model *model;
static uint64_t seed = 1;

static uint64_t next(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static int setup(void **state) {
    const struct cpuid_config cfg = {.paravirt = true, .tsc_hz = 2000000000};

    vec_init();
    model = cpuid_model_new(&cfg);
    assert_non_null(model);
    A.cpuid = B.cpuid = model;
    vcpu_reset(&A);
    vcpu_reset(&B);
    return 0;
}

static int teardown(void **state) {
    cpuid_model_free(model);
    return 0;
}

/* --- registers --- */

static void test_general_registers(void **state) {
    struct kvm_regs r;

    for (unsigned i = 0; i < 16; i++)
        A.gpr[i] = next();
    A.rip = next();
    A.rflags = 0x10246;
    kvm_regs_get(&A, &r);
    assert_int_equal(r.rsp, A.gpr[REG_RSP]);
    assert_int_equal(r.rbx, A.gpr[REG_RBX]);
    assert_int_equal(r.r15, A.gpr[REG_R15]);
    kvm_regs_set(&B, &r);
    assert_memory_equal(A.gpr, B.gpr, 16 * sizeof(A.gpr[0]));
    assert_int_equal(A.rip, B.rip);
    assert_int_equal(A.rflags, B.rflags);
}

static const struct segment segments[] = {
    {.sel = 0x10, .ar = 0xa09b, .limit = 0xffffffff}, /* 64-bit code */
    {.sel = 0x18, .ar = 0xc093, .limit = 0xffffffff, .base = 0x12345000}, /* data */
    {.sel = 0x23, .ar = 0xc0f3, .limit = 0xffffffff},                     /* user data */
    {.sel = 0xf000, .ar = 0x009b, .limit = 0xffff, .base = 0xffff0000},   /* real mode */
    {.sel = 0x40, .ar = 0x008b, .limit = 0x206b, .base = 0x8000000000},   /* TSS */
    {.sel = 0x50, .ar = 0x1097, .limit = 0x10, .base = 4}, /* expand-down */
    {.sel = 0, .ar = 0},                                   /* null */
};

static void test_segments(void **state) {
    struct kvm_sregs s = {.apic_base = 0xfee00900};

    A.cr0 = X86_CR0_PE | X86_CR0_ET;
    A.rflags = B.rflags = X86_FL_ONE;
    A.cpl = 0;
    for (size_t i = 0; i < ARRAY_SIZE(segments); i++) {
        A.seg[SEG_ES] = segments[i];
        kvm_sregs_get(&A, &s);
        kvm_sregs_set(&B, &s);
        assert_int_equal(B.seg[SEG_ES].sel, segments[i].sel);
        assert_int_equal(B.seg[SEG_ES].ar, segments[i].ar);
        assert_int_equal(B.seg[SEG_ES].limit, segments[i].limit);
        assert_int_equal(B.seg[SEG_ES].base, segments[i].base);
        assert_int_equal(s.es.unusable, !(segments[i].ar & X86_AR_P));
    }
    assert_int_equal(s.apic_base, 0xfee00900);
}

/* SS.DPL is the CPL, also when SS is null in 64-bit mode. */
static void test_cpl(void **state) {
    struct kvm_sregs s = {0};

    A.cr0 = B.cr0 = X86_CR0_PE | X86_CR0_ET;
    A.seg[SEG_SS] = (struct segment){0};
    A.cpl = 3;
    kvm_sregs_get(&A, &s);
    assert_int_equal(s.ss.dpl, 3);
    B.rflags = X86_FL_ONE;
    kvm_sregs_set(&B, &s);
    assert_int_equal(B.cpl, 3);
    s.cr0 = X86_CR0_ET; /* real mode */
    kvm_sregs_set(&B, &s);
    assert_int_equal(B.cpl, 0);
    s.cr0 |= X86_CR0_PE;
    s.ss.dpl = 0;
    B.rflags = X86_FL_ONE | X86_FL_VM;
    kvm_sregs_set(&B, &s);
    assert_int_equal(B.cpl, 3);
}

static void test_modes_are_recomputed(void **state) {
    struct kvm_sregs s = {0};

    A.cpl = 0;
    A.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_ET;
    A.cr4 = X86_CR4_PAE;
    A.cr3 = 0x1234000;
    A.cr2 = 0xdeadbeef000;
    A.efer = X86_EFER_LME | X86_EFER_LMA;
    A.seg[SEG_CS] = segments[0];
    A.gdtr = (struct desc_table){.base = 0xffff800000001000, .limit = 0x7f};
    A.tr = (struct segment){.ar = X86_AR_P | X86_DESC_TSS16_BUSY, .limit = 0xffff};
    kvm_sregs_get(&A, &s);
    assert_int_equal(s.tr.type, X86_DESC_TSS32_BUSY); /* the 64-bit one */
    B.rflags = X86_FL_ONE;
    kvm_sregs_set(&B, &s);
    assert_int_equal(B.mode, MODE_64);
    assert_true(B.long_mode);
    assert_int_equal(B.cr3, A.cr3);
    assert_int_equal(B.cr2, A.cr2);
    assert_int_equal(B.gdtr.base, A.gdtr.base);
    assert_int_equal(B.gdtr.limit, A.gdtr.limit);
}

/* --- vector state --- */

static void test_vector_state(void **state) {
    struct kvm_xsave x;
    uint64_t in_use = X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX;

    vec_reset(&A);
    for (unsigned i = 32; i < 416; i++)
        A.vec[i] = (uint8_t)next();
    for (unsigned i = 576; i < 832; i++)
        A.vec[i] = (uint8_t)next();
    memcpy(A.vec + 512, &in_use, 8);
    A.fip = 0x12345678;
    A.fcs = 0x23;
    A.fdp = 0x9abcdef0;
    A.fds = 0x2b;
    A.fop = 0x7d9;
    kvm_xsave_get(&A, &x);
    B.mode = MODE_32;
    kvm_xsave_set(&B, &x);
    assert_memory_equal(A.vec + 32, B.vec + 32, 384);
    assert_memory_equal(A.vec + 512, B.vec + 512, 64);
    assert_memory_equal(A.vec + 576, B.vec + 576, 256);
    assert_int_equal(B.fip, A.fip);
    assert_int_equal(B.fcs, A.fcs);
    assert_int_equal(B.fdp, A.fdp);
    assert_int_equal(B.fds, A.fds);
    assert_int_equal(B.fop, A.fop);
    /* 64-bit pointers have no selectors. */
    A.fip = 0xffff888012345678;
    A.fcs = A.fds = 0;
    kvm_xsave_get(&A, &x);
    B.mode = MODE_64;
    kvm_xsave_set(&B, &x);
    assert_int_equal(B.fip, A.fip);
    assert_int_equal(B.fcs, 0);
}

/* XSTATE_BV names no component that the guest cannot have, and the header has no format
 * bits: KVM refuses the image otherwise. */
static void test_vector_header(void **state) {
    struct kvm_xsave x;
    uint64_t header[8];

    vec_reset(&A);
    memset(A.vec + 512, 0xff, 64);
    kvm_xsave_get(&A, &x);
    memcpy(header, (uint8_t *)x.region + 512, sizeof(header));
    assert_int_equal(header[0], 7);
    for (unsigned i = 1; i < 8; i++)
        assert_int_equal(header[i], 0);
}

/* --- events, debug registers, MSRs --- */

static void test_interrupt_shadow(void **state) {
    struct kvm_vcpu_events e;

    A.irq_shadow = true;
    A.nmi_blocked = true;
    A.rflags = X86_FL_ONE | X86_FL_IF;
    kvm_events_get(&A, &e);
    assert_int_equal(e.interrupt.shadow, KVM_X86_SHADOW_INT_STI);
    assert_int_equal(e.nmi.masked, 1);
    A.rflags = X86_FL_ONE;
    kvm_events_get(&A, &e);
    assert_int_equal(e.interrupt.shadow, KVM_X86_SHADOW_INT_MOV_SS);
    kvm_events_set(&B, &e);
    assert_true(B.irq_shadow);
    assert_true(B.nmi_blocked);
    A.rflags = X86_FL_ONE | X86_FL_TF;
    kvm_events_get(&A, &e);
    assert_int_equal(e.interrupt.shadow, 0);
    A.irq_shadow = A.nmi_blocked = false;
    kvm_events_get(&A, &e);
    kvm_events_set(&B, &e);
    assert_false(B.irq_shadow);
    assert_false(B.nmi_blocked);
}

static void test_debug_registers(void **state) {
    struct kvm_debugregs d;

    for (unsigned i = 0; i < 4; i++)
        A.dr[i] = next();
    A.dr[6] = 0xffff4ff1;
    A.dr[7] = 0x701;
    kvm_debugregs_get(&A, &d);
    kvm_debugregs_set(&B, &d);
    for (unsigned i = 0; i < 8; i++)
        if (i != 4 && i != 5)
            assert_int_equal(A.dr[i], B.dr[i]);
}

/* Those that the filter lets pass move with the state, and no other. */
static void test_msr_owners(void **state) {
    struct kvm k = {0};
    static const uint32_t ours[] = {
        0x3b,       0xfe,       0x179,      0x200,      0x2ff, 0x1a0, 0x11,      0x12,
        0x4b564d00, 0x4b564d01, 0x4b564d02, 0xc0010015, 0x10a, 0x1d9, 0xc0000104};
    static const uint32_t hardware[] = {0x174,      0x175,      0x176,      0x277,
                                        0xc0000080, 0xc0000084, 0xc0000100, 0xc0000103};
    static const uint32_t lapic[] = {0x1b, 0x6e0, 0x800, 0x8ff};

    for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
        assert_false(kvm_msr_is_hw(&k, ours[i], true) ||
                     kvm_msr_is_hw(&k, ours[i], false));
    for (size_t i = 0; i < ARRAY_SIZE(hardware); i++)
        assert_true(kvm_msr_is_hw(&k, hardware[i], true) &&
                    kvm_msr_is_hw(&k, hardware[i], false));
    /* The TSC is read by the hardware and written by the clock. */
    assert_true(kvm_msr_is_hw(&k, 0x10, false));
    assert_false(kvm_msr_is_hw(&k, 0x10, true));
    assert_false(kvm_msr_is_hw(&k, 0x4b564d03, true));
    k.paravirt = CPUID_KVM_STEAL_TIME;
    assert_true(kvm_msr_is_hw(&k, 0x4b564d03, true) &&
                kvm_msr_is_hw(&k, 0x4b564d03, false));
    for (size_t i = 0; i < ARRAY_SIZE(lapic); i++) {
        k.kernel_lapic = false;
        assert_false(kvm_msr_is_hw(&k, lapic[i], true));
        k.kernel_lapic = true;
        assert_true(kvm_msr_is_hw(&k, lapic[i], true));
    }
    assert_ptr_equal(kvm_msr_field(&A, X86_MSR_STAR), &A.star);
    assert_null(kvm_msr_field(&A, X86_MSR_EFER));
    assert_null(kvm_msr_field(&A, X86_MSR_APIC_BASE));
}

/* --- the whole --- */

static const struct msr {
    uint32_t number;
    uint16_t off;
} msrs[] = {
#define MSR(group, name, field, number) {number, offsetof(struct vcpu, field)},
#include "cpu/state.def"
};

/* What these functions leave to others, or nobody needs. */
static const struct {
    const char *name, *why;
} not_here[] = {
    {"pdpte0", "KVM reads them with the segments; the interpreter again"},
    {"pdpte1", "the same"},
    {"pdpte2", "the same"},
    {"pdpte3", "the same"},
    {"xcr0", "state.c, KVM_SET_XCRS"},
    {"halted", "state.c, KVM_SET_MP_STATE"},
    {"pending_db", "delivered before the CPU is entered"},
    {"events", "the board's and the run loop's"},
    {"random", "this engine does not count"},
};

static bool is_left_out(const struct vcpu_part *p) {
    for (size_t n = 0; n < ARRAY_SIZE(not_here); n++)
        if (!strcmp(p->name, not_here[n].name))
            return true;
    return false;
}

/* An MSR that the guest reaches by an exit: struct vcpu alone has it. */
static bool is_ours(const struct vcpu_part *p) {
    const struct kvm k = {0};

    for (size_t n = 0; n < ARRAY_SIZE(msrs); n++)
        if (msrs[n].off == p->off)
            return !kvm_msr_is_hw(&k, msrs[n].number, true);
    return false;
}

/* All of A goes to KVM, and from there to B. */
static void carry(void) {
    const struct kvm k = {0};
    struct kvm_regs r;
    struct kvm_sregs s = {0};
    struct kvm_xsave x;
    struct kvm_debugregs d;
    struct kvm_vcpu_events e;

    kvm_regs_get(&A, &r);
    kvm_sregs_get(&A, &s);
    kvm_xsave_get(&A, &x);
    kvm_debugregs_get(&A, &d);
    kvm_events_get(&A, &e);
    kvm_regs_set(&B, &r);
    kvm_sregs_set(&B, &s);
    kvm_xsave_set(&B, &x);
    kvm_debugregs_set(&B, &d);
    kvm_events_set(&B, &e);
    for (size_t n = 0; n < ARRAY_SIZE(msrs); n++)
        if (kvm_msr_is_hw(&k, msrs[n].number, true))
            *kvm_msr_field(&B, msrs[n].number) = *kvm_msr_field(&A, msrs[n].number);
}

/* Each part of the architectural state gets there and back, or is named above: who adds
 * one to the list has to say which. */
static void test_each_part(void **state) {
    for (size_t n = 0; n < vcpu_part_count; n++) {
        const struct vcpu_part *p = &vcpu_parts[n];

        for (unsigned reg = 0; reg < p->count; reg++) {
            unsigned at = vcpu_part_offset(p, reg);
            bool there;

            if (!at)
                continue;
            vcpu_reset(&A);
            A.cr0 |= X86_CR0_PE;
            B = A;
            ((uint8_t *)&A)[at] ^= 1;
            carry();
            there = !memcmp((uint8_t *)&A + at, (uint8_t *)&B + at, p->size);
            if (there == (is_left_out(p) || is_ours(p)))
                fail_msg("%s %s", p->name,
                         there ? "is carried after all" : "does not get to KVM and back");
        }
    }
}

/* There is room for those that move. */
static void test_msr_room(void **state) {
    const struct kvm k = {0};
    unsigned count = 0;

    for (size_t n = 0; n < ARRAY_SIZE(msrs); n++)
        count += kvm_msr_is_hw(&k, msrs[n].number, true);
    assert_in_range(count, 11, KVM_MSR_MAX);
}

/* --- the CPUID model --- */

struct fake {
    struct cpuid_regs one, seven, eight, xsave;
};

static struct cpuid_regs fake_leaf(void *arg, uint32_t leaf, uint32_t subleaf) {
    const struct fake *f = arg;

    switch (leaf) {
    case 1:
        return f->one;
    case 7:
        return f->seven;
    case 0xd:
        return subleaf ? (struct cpuid_regs){0} : f->xsave;
    case 0x80000008:
        return f->eight;
    default:
        return (struct cpuid_regs){~0u, ~0u, ~0u, ~0u};
    }
}

static void test_model_keeps_what_is_confirmed(void **state) {
    struct fake f = {.one = {~0u, ~0u, ~0u, ~0u},
                     .seven = {~0u, ~0u, ~0u, ~0u},
                     .eight = {.eax = 46, .ebx = ~0u},
                     .xsave = {.eax = 7}};
    struct cpuid_limit limit = {.leaf = fake_leaf, .arg = &f, .tsc_deadline = true};
    struct cpuid_model *m = cpuid_model_limit(model, &limit);
    struct vcpu v = {.cpuid = m};

    assert_non_null(m);
    for (unsigned i = CPUID_F_NONE; i < CPUID_F_COUNT; i++) {
        bool xsave_more = i == CPUID_F_XSAVEOPT || i == CPUID_F_XSAVEC;

        if (!xsave_more && i != CPUID_F_CLZERO)
            assert_int_equal(cpuid_has(m, (enum cpuid_feature)i),
                             cpuid_has(model, (enum cpuid_feature)i));
    }
    assert_int_equal(cpuid_phys_bits(m), 46);
    /* The guest may defend itself on the real CPU: IBRS and IBPB, STIBP, SSBD. */
    if (cpuid_is_amd(m))
        assert_int_equal(cpuid_query(&v, 0x80000008, 0).ebx & 0x0100d000, 0x0100d000);
    else
        assert_int_equal(cpuid_query(&v, 7, 0).edx & 0x8c000000, 0x8c000000);
    assert_int_equal(cpuid_xcr0_valid(m), cpuid_xcr0_valid(model));
    cpuid_model_free(m);
}

/* Of what is paravirtual a model keeps what KVM does, and has no more than was asked for.
 */
static void test_paravirt_is_what_both_have(void **state) {
    static const struct {
        bool between, steal, hidden;
        uint32_t kvm, want;
    } t[] = {
        {true, true, false, CPUID_KVM_OPTIONAL, CPUID_KVM_OPTIONAL},
        {true, true, false, CPUID_KVM_STEAL_TIME | CPUID_KVM_TLB_FLUSH,
         CPUID_KVM_STEAL_TIME | CPUID_KVM_TLB_FLUSH},
        {true, true, false, CPUID_KVM_BETWEEN, CPUID_KVM_BETWEEN},
        {true, false, false, CPUID_KVM_OPTIONAL, CPUID_KVM_BETWEEN},
        {false, true, false, CPUID_KVM_OPTIONAL, CPUID_KVM_STEAL_TIME},
        {true, true, true, CPUID_KVM_OPTIONAL, 0},
    };

    for (size_t n = 0; n < ARRAY_SIZE(t); n++) {
        struct fake f = {.one = {.edx = ~0u}};
        struct cpuid_config cfg = {.paravirt = !t[n].hidden,
                                   .between_cpus = t[n].between,
                                   .steal_time = t[n].steal,
                                   .tsc_hz = 1000000000};
        struct cpuid_limit limit = {.leaf = fake_leaf, .arg = &f, .paravirt = t[n].kvm};
        struct cpuid_model *whole = cpuid_model_new(&cfg);
        struct cpuid_model *m = cpuid_model_limit(whole, &limit);
        struct vcpu v = {.cpuid = m};

        assert_int_equal(cpuid_kvm_optional(m), t[n].want);
        if (!t[n].hidden)
            assert_int_equal(cpuid_query(&v, 0x40000001, 0).eax & CPUID_KVM_OPTIONAL,
                             t[n].want);
        cpuid_model_free(m);
        cpuid_model_free(whole);
    }
}

static void test_model_drops_the_rest(void **state) {
    struct fake f = {.one = {.edx = ~0u, .ecx = 1u << 26 | 1u << 28},
                     .seven = {.ebx = 1u << 5},
                     .eight = {.eax = 200}, /* nonsense is not taken over */
                     .xsave = {.eax = 3}};
    struct cpuid_limit limit = {.leaf = fake_leaf, .arg = &f};
    struct cpuid_model *m = cpuid_model_limit(model, &limit);
    struct vcpu v = {.cpuid = m};

    assert_non_null(m);
    /* Without AVX state no AVX, and nothing that needs it. */
    assert_false(cpuid_has(m, CPUID_F_AVX));
    assert_false(cpuid_has(m, CPUID_F_AVX2));
    assert_false(cpuid_has(m, CPUID_F_BMI1));
    assert_false(cpuid_has(m, CPUID_F_CX16));
    assert_int_equal(cpuid_xcr0_valid(m) & X86_XCR0_AVX, 0);
    assert_int_equal(cpuid_phys_bits(m), 40);
    assert_false(cpuid_query(&v, 1, 0).ecx & 1u << 24); /* no deadline timer */
    assert_true(cpuid_query(&v, 1, 0).ecx & 1u << 21);  /* x2APIC is a device's */
    assert_true(cpuid_query(&v, 1, 0).ecx & 1u << 31);
    cpuid_model_free(m);
}

/* --- the probe --- */

static void test_probe_judges(void **state) {
    struct kvm_probe p = {
        .loop_ns = 0.4, .native_loop_ns = 0.4, .exit_ns = 1500, .touch_ns = 900};

    assert_int_equal(kvm_probe_judge(&p), KVM_FAST);
    p.exit_ns = 30000; /* hardware in hardware */
    assert_int_equal(kvm_probe_judge(&p), KVM_FAST);
    p.exit_ns = 300000;
    assert_int_equal(kvm_probe_judge(&p), KVM_SLOW);
    p.exit_ns = 1500;
    p.loop_ns = 400; /* guest code is emulated */
    assert_int_equal(kvm_probe_judge(&p), KVM_SLOW);
    p.loop_ns = 0.4;
    p.touch_ns = 400000;
    assert_int_equal(kvm_probe_judge(&p), KVM_SLOW);
}

/* One sentence for each verdict: it names the cause, and where KVM cannot be used the way
 * out. */
static void test_probe_words(void **state) {
    static const struct {
        struct kvm_probe p;
        const char *cause;
    } rows[] = {
        {{.verdict = KVM_FAST, .loop_ns = 1, .native_loop_ns = 1, .exit_ns = 1500},
         "1.5 micro"},
        {{.verdict = KVM_SLOW, .loop_ns = 1000, .native_loop_ns = 1}, "2.0 million"},
        {{.verdict = KVM_SLOW, .loop_ns = 1, .native_loop_ns = 1, .exit_ns = 4e5},
         "400 micro"},
        {{.verdict = KVM_MISSING, .error = ENOENT}, "shows no hardware"},
        {{.verdict = KVM_MISSING, .cpu_can = true}, "kvm_amd is not loaded"},
        {{.verdict = KVM_FORBIDDEN, .error = EACCES}, "may not open"},
        {{.verdict = KVM_NO_HARDWARE, .error = ENODEV}, "no hardware behind it"},
        {{.verdict = KVM_OTHER_API}, "another interface"},
        {{.verdict = KVM_TOO_OLD, .missing = "KVM_CAP_X"}, "lacks KVM_CAP_X"},
        {{.verdict = KVM_BROKEN, .missing = "enter a guest", .error = EFAULT},
         "enter a guest: Bad address"},
        {{.verdict = KVM_BROKEN, .missing = "run a small guest"},
         "cannot run a small guest;"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char text[384], small[16];
        bool usable = rows[i].p.verdict == KVM_FAST || rows[i].p.verdict == KVM_SLOW;

        kvm_probe_text(&rows[i].p, text, sizeof(text));
        assert_non_null(strstr(text, rows[i].cause));
        assert_null(strchr(text, '\n'));
        assert_int_equal(!usable, strstr(text, "--engine bt") != NULL);
        kvm_probe_text(&rows[i].p, small, sizeof(small)); /* does not fit, does no harm */
        assert_true(strlen(small) < sizeof(small));
    }
}

/* What waits for delivery when the state is taken goes back as it was; what the vCPU has
 * of its own (the mask of NMIs, the shadow of STI) is the vCPU's. */
static void test_events_return(void **state) {
    static struct vcpu v;
    struct kvm_vcpu_events kept = {
        .exception = {.injected = 1, .nr = 14, .error_code = 5},
        .interrupt = {.injected = 1, .nr = 0x30, .shadow = 1},
        .nmi = {.injected = 1, .pending = 1, .masked = 0}};
    struct kvm_vcpu_events e;

    kept.exception.has_error_code = 1;
    v.nmi_blocked = true;
    kvm_events_get(&v, &e);
    assert_int_equal(e.interrupt.injected + e.exception.injected + e.nmi.injected, 0);
    kvm_events_return(&kept, &e);
    assert_memory_equal(&e.exception, &kept.exception, sizeof(e.exception));
    assert_int_equal(e.interrupt.injected, 1);
    assert_int_equal(e.interrupt.nr, 0x30);
    assert_int_equal(e.interrupt.shadow, 0);
    assert_int_equal(e.nmi.injected, 1);
    assert_int_equal(e.nmi.pending, 1);
    assert_int_equal(e.nmi.masked, 1);
    assert_true(e.flags & KVM_VCPUEVENT_VALID_NMI_PENDING);
}

/* Whatever this host has, the probe says so and comes back. */
static void test_probe_here(void **state) {
    struct kvm_probe p;
    char text[384] = "";

    kvm_probe(&p);
    kvm_probe_text(&p, text, sizeof(text));
    assert_true(strlen(text) > 20);
    if (p.verdict == KVM_FAST || p.verdict == KVM_SLOW) {
        assert_true(p.exit_ns > 0 && p.native_loop_ns > 0);
        assert_int_equal(p.verdict, kvm_probe_judge(&p));
    }
}

/* --- machines, where there is KVM --- */

struct tiny {
    struct boot_image *image;
    struct machine *m;
    int fd;
};

static void tiny_end(struct tiny *t) {
    machine_free(t->m);
    boot_image_close(t->image);
    close(t->fd);
}

/* Of the code; skips the test where there is no KVM. */
static void tiny_start(struct tiny *t, const void *code, size_t len) {
    struct machine_config cfg = {.engine = "kvm", .memory = 16 << 20};
    char path[32], why[512];

    *t = (struct tiny){.fd = tiny_kernel(code, len, path)};
    assert_int_equal(boot_image_open(path, NULL, &t->image, why, sizeof(why)), 0);
    cfg.image = t->image;
    if (!machine_create(&cfg, &t->m, why, sizeof(why)))
        return;
    assert_non_null(strstr(why, "--engine bt"));
    tiny_end(t);
    skip();
}

static void tiny_boot(struct tiny *t) {
    char why[512];

    assert_int_equal(machine_boot(t->m, why, sizeof(why)), 0);
}

/* A debug trap that waits when the CPU is entered is delivered first. Here there is no
 * IDT for it; without it, the guest writes to the debug-exit port. */
static void test_waiting_trap(void **state) {
    struct tiny t;

    tiny_start(&t, "\xb0\x05\xe6\xf4\xf4", 5);
    for (unsigned k = 0; k < 2; k++) {
        tiny_boot(&t);
        if (k)
            ((struct vcpu *)(uintptr_t)machine_vcpu(t.m, 0))->pending_db = X86_DR6_BS;
        assert_int_equal(machine_run(t.m), k ? MACHINE_SHUTDOWN : MACHINE_DEBUG_EXIT);
    }
    tiny_end(&t);
}

static bool has(const uint64_t *bits, unsigned page) {
    return bits[page / 64] >> page % 64 & 1;
}

/* What the guest writes to past all traces is known, each time anew. */
static void test_written(void **state) {
    static const char code[] = "\xc7\x05\x00\x00\x40\x00\x01\x00\x00\x00" /* [0x400000] */
                               "\xc7\x05\x08\x3f\x43\x00\x01\x00\x00\x00" /* [0x433f08] */
                               "\xa1\x00\x00\x44\x00"                     /* reads */
                               "\xb0\x05\xe6\xf4\xf4";
    struct tiny t;
    uint64_t *bits;

    tiny_start(&t, code, sizeof(code) - 1);
    bits = calloc(machine_ram_pages(t.m) / 64 + 1, sizeof(*bits));
    assert_non_null(bits);
    machine_track_first(t.m);
    for (unsigned k = 0; k < 3; k++) {
        tiny_boot(&t);
        machine_written(t.m, bits); /* what the reset has cleared: all */
        assert_int_equal(machine_written_count(t.m), 0);
        assert_int_equal(machine_run(t.m), MACHINE_DEBUG_EXIT);
        assert_in_range(machine_written_count(t.m), 2, 200);
        memset(bits, 0, machine_ram_pages(t.m) / 8);
        machine_written(t.m, bits);
        assert_true(has(bits, 0x400) && has(bits, 0x433));
        assert_false(has(bits, 0x401) || has(bits, 0x432) || has(bits, 0x440));
        assert_int_equal(machine_written_count(t.m), 0);
    }
    free(bits);
    tiny_end(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_general_registers),
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_cpl),
        cmocka_unit_test(test_modes_are_recomputed),
        cmocka_unit_test(test_vector_state),
        cmocka_unit_test(test_vector_header),
        cmocka_unit_test(test_interrupt_shadow),
        cmocka_unit_test(test_events_return),
        cmocka_unit_test(test_debug_registers),
        cmocka_unit_test(test_msr_owners),
        cmocka_unit_test(test_each_part),
        cmocka_unit_test(test_msr_room),
        cmocka_unit_test(test_model_keeps_what_is_confirmed),
        cmocka_unit_test(test_model_drops_the_rest),
        cmocka_unit_test(test_paravirt_is_what_both_have),
        cmocka_unit_test(test_probe_judges),
        cmocka_unit_test(test_probe_words),
        cmocka_unit_test(test_probe_here),
        cmocka_unit_test(test_waiting_trap),
        cmocka_unit_test(test_written),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
