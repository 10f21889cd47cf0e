/* What Intel's and AMD's CPUs do differently, on either host: the model says whose it is.
 */
#include "decode/decode.h"
#include "lib/exec.h"
#include "lib/signals.h"
#include "lib/unit.h"
#include "sem/sem_int.h"

enum { GDT = 0x1000, DATA = 0x3000, CODE3 = 8 | 3, DATA3 = 16 | 3 };
enum { LIMIT = 0x3fff }; /* of the stack segment */

static struct vcpu V;
static struct guest G;

static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
}

static const struct vcpu_hooks hooks = {.exit = on_exit_hook};

/* CPL 3, 32-bit segments without paging. */
static int setup(enum cpuid_vendor vendor) {
    const struct guest_config cfg = {
        .vcpu = &V, .cpuid = {.vendor = vendor}, .hooks = &hooks};

    guest_new(&G, &cfg);
    guest_put64(&G, GDT + 8, 0x00cffb000000ffff);
    guest_put64(&G, GDT + 16, 0x00cff3000000ffff);
    V.gdtr = (struct desc_table){GDT, 0x17};
    V.cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_AM | X86_CR0_NE;
    V.cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE | X86_CR4_DE;
    V.cr4 &= cpuid_cr4_valid(V.cpuid);
    V.xcr0 = cpuid_xcr0_valid(V.cpuid);
    for (unsigned s = 0; s < SEG_COUNT; s++)
        sem_unpack_desc(&V.seg[s], s == SEG_CS ? CODE3 : DATA3,
                        s == SEG_CS   ? 0x00cffb000000ffff
                        : s == SEG_SS ? 0x0040f30000000000 | LIMIT
                                      : 0x00cff3000000ffff);
    V.cpl = 3;
    vcpu_update_mode(&V);
    mmu_mode_changed(&V);
    mmu_context_changed(&V);
    return 0;
}

static int setup_group(void **state) {
    if (sem_init())
        return -1;
    signals_remember();
    return 0;
}

static int setup_intel(void **state) {
    return setup(CPUID_VENDOR_INTEL);
}

static int setup_amd(void **state) {
    return setup(CPUID_VENDOR_AMD);
}

static int teardown(void **state) {
    guest_free(&G);
    return 0;
}

/* The vector of the exception, or -1. */
static int run(const char *bytes, size_t len) {
    int rc;

    signals_back();
    rc = exec_bytes(&V, bytes, len);
    return rc == SEM_FAULT ? V.fault.vector : -1;
}
#define RUN(s) run(s, sizeof(s) - 1)

static bool amd(void) {
    return cpuid_is_amd(V.cpuid);
}

static void enter_64(void) {
    V.efer = X86_EFER_LME | X86_EFER_LMA;
    V.cr4 |= X86_CR4_PAE;
    V.cr0 |= X86_CR0_PG;
    V.cr3 = 0x4000;
    guest_put64(&G, 0x4000, 0x5007);
    guest_put64(&G, 0x5000, 0x87); /* a page of 1 GiB */
    V.seg[SEG_CS].ar = (uint16_t)((V.seg[SEG_CS].ar & ~X86_AR_DB) | X86_AR_L);
    vcpu_update_mode(&V);
    mmu_mode_changed(&V);
    mmu_flush_all(&V);
    mmu_context_changed(&V);
}

static void test_model(void **state) {
    assert_int_equal(cpuid_query(&V, 0, 0).ecx, amd() ? 0x444d4163 : 0x6c65746e);
}

/* A selector on the stack: how much of its slot is written and read. */
static void test_selector_slots(void **state) {
    V.gpr[REG_RSP] = DATA + 4;
    guest_put64(&G, DATA, 0xffffffffffffffff);
    assert_int_equal(RUN("\x1e"), -1); /* push ds */
    assert_int_equal(V.gpr[REG_RSP], DATA);
    assert_int_equal(guest_get(&G, DATA, 4), amd() ? DATA3 : 0xffff0000u | DATA3);
    V.gpr[REG_RSP] = LIMIT - 1;                         /* two bytes are left */
    assert_int_equal(RUN("\x1f"), amd() ? X86_SS : -1); /* pop ds: null */
    assert_int_equal(V.gpr[REG_RSP], amd() ? LIMIT - 1 : LIMIT + 3);
    V.gpr[REG_RSP] = LIMIT - 5;
    guest_put64(&G, LIMIT - 5, 0x123400000 | (uint64_t)CODE3 << 32);
    assert_int_equal(RUN("\xcb"), amd() ? X86_SS : -1); /* retf */
}

/* A 16-bit stack: the upper half of ESP is nobody's. */
static void test_selector_small_stack(void **state) {
    V.seg[SEG_SS].ar &= (uint16_t)~X86_AR_DB;
    vcpu_update_mode(&V);
    V.gpr[REG_RSP] = 0x12340000 | (DATA + 4);
    assert_int_equal(RUN("\x1e"), -1);
    assert_int_equal(V.gpr[REG_RSP], 0x12340000 | DATA);
    assert_int_equal(guest_get(&G, DATA, 4) & 0xffff, DATA3);
    assert_int_equal(RUN("\x1f"), -1);
    assert_int_equal(V.gpr[REG_RSP], 0x12340000 | (DATA + 4));
}

/* #AC: Intel's CPUs raise it for vector operands of 4 and 8 bytes only. */
static void test_alignment(void **state) {
    V.rflags |= X86_FL_AC;
    mmu_context_changed(&V);
    vcpu_update_mode(&V);
    V.gpr[REG_RBX] = DATA + 1;
    assert_int_equal(RUN("\x8b\x03"), X86_AC);                  /* mov eax, [ebx] */
    assert_int_equal(RUN("\x8a\x03"), -1);                      /* mov al, [ebx] */
    assert_int_equal(RUN("\x0f\x10\x03"), amd() ? X86_AC : -1); /* movups */
    assert_int_equal(RUN("\xf3\x0f\x10\x03"), X86_AC);          /* movss */
    if (cpuid_has(V.cpuid, CPUID_F_F16C)) {
        int ac = amd() ? X86_AC : -1;

        assert_int_equal(RUN("\xc4\xe2\x79\x13\x03"), ac);     /* vcvtph2ps */
        assert_int_equal(RUN("\xc4\xe3\x79\x1d\x03\x00"), ac); /* vcvtps2ph */
    }
    if (cpuid_has(V.cpuid, CPUID_F_AVX)) {
        memset(V.vec + 160, 0xff, 32);
        assert_int_equal(RUN("\xc4\xe2\x71\x2c\x03"), -1); /* vmaskmovps, load */
        memset(V.vec + 160, 0xff, 32);
        assert_int_equal(RUN("\xc4\xe2\x79\x2e\x03"), -1); /* vmaskmovps, store */
    }
}

static void test_repeat_nothing(void **state) {
    V.gpr[REG_RCX] = 0;
    V.tr = (struct segment){.sel = 0x18, .ar = 0x8b, .limit = 0x67}; /* no map */
    assert_int_equal(RUN("\xf3\x6c"), X86_GP); /* rep insb: no TSS */
    assert_int_equal(RUN("\xf3\x6e"), X86_GP); /* rep outsb */
    enter_64();
    V.gpr[REG_RCX] = 7ull << 32;
    V.gpr[REG_RSI] = 1ull << 32 | 5;
    V.gpr[REG_RDI] = 2ull << 32 | 6;
    assert_int_equal(RUN("\x67\xf3\xac"), -1); /* rep lodsb, 32-bit addresses */
    assert_int_equal(V.gpr[REG_RCX], amd() ? 7ull << 32 : 0);
    assert_int_equal(V.gpr[REG_RSI], 1ull << 32 | 5);
    assert_int_equal(RUN("\x67\xf3\xaa"), -1); /* rep stosb */
    assert_int_equal(V.gpr[REG_RDI], amd() ? 2ull << 32 | 6 : 6);
    assert_int_equal(RUN("\x67\xf3\xa4"), -1); /* rep movsb */
    assert_int_equal(V.gpr[REG_RSI], amd() ? 1ull << 32 | 5 : 5);
}

/* Which of two faults comes first. */
static void test_order(void **state) {
    assert_int_equal(RUN("\x0f\x21\xe0"), X86_GP); /* mov eax, dr4 */
    V.gpr[REG_RBX] = LIMIT - 3;
    assert_int_equal(RUN("\x36\x0f\x28\x03"), X86_GP); /* movaps xmm0, ss:[ebx] */
    V.gpr[REG_RBX] = LIMIT - 7;
    assert_int_equal(RUN("\x36\x0f\x10\x03"), X86_SS); /* movups */
    memcpy(V.vec, "\x7e\x03\x81\x00", 4);              /* invalid operation, pending */
    V.vec[512] = 3;
    assert_int_equal(RUN("\x36\xd8\x43\x04"), X86_MF);     /* fadd dword ss:[ebx+4] */
    assert_int_equal(RUN("\x36\xd8\x43\x10"), X86_MF);     /* ... beyond the limit */
    assert_int_equal(RUN("\x36\x0f\x6f\x43\x10"), X86_MF); /* movq mm0, */
    assert_int_equal(RUN("\x36\xd9\x7b\x10"), X86_SS);     /* fnstcw does not wait */
    assert_int_equal(RUN("\x36\xdd\x7b\x10"), X86_SS);     /* fnstsw */
    assert_int_equal(RUN("\x36\xd9\x73\x10"), X86_SS);     /* fnstenv */
    assert_int_equal(RUN("\x36\xdd\x73\x10"), X86_SS);     /* fnsave */
    assert_int_equal(RUN("\x36\xd9\x63\x10"), X86_MF);     /* fldenv */
    enter_64();
    V.gpr[REG_RBX] = 1ull << 62;
    assert_int_equal(RUN("\xd8\x03"), X86_MF);
    V.rflags |= X86_FL_AC;
    vcpu_update_mode(&V);
    mmu_context_changed(&V);
    V.gpr[REG_RBX] = 0x7ffffffffffe;
    /* It runs out of the lower half. */
    assert_int_equal(RUN("\x8b\x03"), amd() ? X86_GP : X86_AC);
    V.gpr[REG_RBX] += 2;
    assert_int_equal(RUN("\x8b\x03"), X86_GP);
}

/* VZEROUPPER and VZEROALL outside 64-bit mode know eight registers. */
static void test_vzero(void **state) {
    if (!cpuid_has(V.cpuid, CPUID_F_AVX))
        skip();
    memset(V.vec + 160, 0x55, 256);
    memset(V.vec + 576, 0x55, 256);
    V.vec[512] = 7;
    assert_int_equal(RUN("\xc5\xf8\x77"), -1);
    for (unsigned r = 0; r < 16; r++) {
        assert_int_equal(V.vec[160 + 16 * r], 0x55);
        assert_int_equal(V.vec[576 + 16 * r + 15], r < 8 ? 0 : 0x55);
    }
    assert_int_equal(RUN("\xc5\xfc\x77"), -1);
    for (unsigned r = 0; r < 16; r++) {
        assert_int_equal(V.vec[160 + 16 * r], r < 8 ? 0 : 0x55);
        assert_int_equal(V.vec[576 + 16 * r + 15], r < 8 ? 0 : 0x55);
    }
}

/* A mask of nothing does not excuse a bad place, nor do elements wrap. */
static void test_masked(void **state) {
    V.gpr[REG_RDI] = LIMIT - 3;
    memset(V.vec + 160, 0, 32);
    assert_int_equal(RUN("\x36\x66\x0f\xf7\xc1"), X86_SS); /* maskmovdqu */
    enter_64();
    V.gpr[REG_RDI] = 1ull << 62;
    assert_int_equal(RUN("\x66\x0f\xf7\xc1"), X86_GP);
    V.gpr[REG_RDI] = (1ull << 47) - 15;
    assert_int_equal(RUN("\x66\x0f\xf7\xc1"), X86_GP);
    V.gpr[REG_RDI] = DATA;
    assert_int_equal(RUN("\x66\x0f\xf7\xc1"), -1);
    if (!cpuid_has(V.cpuid, CPUID_F_AVX))
        return;
    memset(V.vec + 160, 0xff, 16);
    V.gpr[REG_RBX] = 0xfffffffc;
    assert_int_equal(RUN("\x67\xc4\xe2\x79\x2c\x0b"),
                     X86_PF); /* vmaskmovps xmm1, [ebx] */
    assert_int_equal(V.fault.addr, 0xfffffffc);
    memset(V.vec + 160, 0, 4);
    assert_int_equal(RUN("\x67\xc4\xe2\x79\x2c\x0b"), X86_PF);
    assert_true(V.fault.addr == 1ull << 32);
}

/* CALL stores the return address before it finds that the target is not canonical. */
static void test_call(void **state) {
    enter_64();
    V.gpr[REG_RSP] = DATA + 8;
    V.gpr[REG_RBX] = 1ull << 62;
    V.rip = 0x777;
    guest_put64(&G, DATA, 0);
    assert_int_equal(RUN("\xff\xd3"), X86_GP);
    assert_int_equal(V.gpr[REG_RSP], DATA + 8);
    assert_int_equal(guest_get(&G, DATA, 4), 0x779);
    V.gpr[REG_RSP] = 1ull << 62;
    assert_int_equal(RUN("\xff\xd3"), X86_SS);
}

static uint32_t saved_fip(const char *code, size_t len) {
    memset(G.ram + DATA, 0xcc, 1024);
    memset(G.ram + DATA + 512, 0, 64);
    assert_int_equal(run(code, len), -1);
    return guest_get(&G, DATA + 8, 4);
}

/* The x87's pointers: AMD's CPUs save them only with an exception pending. */
static void test_x87_pointers(void **state) {
    bool says = cpuid_has(V.cpuid, CPUID_F_XSAVEERPTR);
    uint32_t none = amd() ? (says ? 0 : 0xcccccccc) : 0x777;

    V.gpr[REG_RBX] = DATA;
    V.gpr[REG_RAX] = 1;
    V.xcr0 |= X86_XCR0_X87;
    V.rip = 0x777;
    assert_int_equal(RUN("\xd9\xee"), -1); /* fldz */
    assert_int_equal(saved_fip("\x0f\xae\x03", 3), none);
    assert_int_equal(guest_get(&G, DATA + 6, 4) & 0xffff, amd() ? none & 0xffff : 0x1ee);
    if (cpuid_has(V.cpuid, CPUID_F_XSAVE))
        assert_int_equal(saved_fip("\x0f\xae\x23", 3), none);
    assert_int_equal(RUN("\xd9\x33"), -1); /* fnstenv */
    assert_int_equal(guest_get(&G, DATA + 12, 4), 0x777);
    /* From memory, with nothing pending. */
    assert_int_equal(RUN("\x0f\xae\x03"), -1);
    guest_put64(&G, DATA + 8, 0x4321);
    assert_int_equal(RUN("\x0f\xae\x0b"), -1); /* fxrstor */
    assert_int_equal(RUN("\xd9\x33"), -1);
    assert_int_equal(guest_get(&G, DATA + 12, 4), amd() && !says ? 0x777 : 0x4321);
    /* Invalid operation, pending. */
    assert_int_equal(RUN("\x0f\xae\x03"), -1);
    guest_put64(&G, DATA, 0x0001037e);
    guest_put64(&G, DATA + 8, 0x8765);
    assert_int_equal(RUN("\x0f\xae\x0b"), -1);
    assert_int_equal(saved_fip("\x0f\xae\x03", 3), 0x8765);
    if (cpuid_has(V.cpuid, CPUID_F_XSAVE))
        assert_int_equal(saved_fip("\x0f\xae\x23", 3), 0x8765);
}

/* CALL far with REX.W: how much of the pointer it reads, and what it pushes. */
static void test_far_call(void **state) {
    enter_64();
    guest_put64(&G, GDT + 8, 0x00affb000000ffff);
    V.gpr[REG_RSP] = DATA + 0x100;
    V.gpr[REG_RBX] = DATA;
    V.rip = 0x777;
    if (amd()) {
        guest_put64(&G, DATA, 0x1234 | (uint64_t)CODE3 << 32);
    } else {
        guest_put64(&G, DATA, 0x1234);
        guest_put64(&G, DATA + 8, CODE3);
    }
    assert_int_equal(RUN("\x48\xff\x1b"), -1);
    assert_int_equal(V.rip, 0x1234);
    assert_int_equal(V.gpr[REG_RSP], DATA + 0xf0);
    assert_int_equal(guest_get(&G, DATA + 0xf0, 4), 0x77a);
    assert_int_equal(guest_get(&G, DATA + 0xf8, 4), CODE3);
}

/* From 64-bit to 32-bit code the stack pointer has 32 bits: a call pushes with it, a
 * return pops before, a jump cuts it, too. */
static void test_narrow_stack(void **state) {
    const uint64_t high = 1ull << 32;

    enter_64();
    guest_put64(&G, 0x5000 + 4 * 8, 0x87); /* the same 1 GiB at 4 GiB */
    V.gpr[REG_RSP] = high + DATA;
    guest_put64(&G, DATA, 0x1234 | (uint64_t)CODE3 << 32);
    assert_int_equal(RUN("\xca\x10\x00"), -1);
    assert_int_equal(V.mode, MODE_32);
    assert_int_equal(V.gpr[REG_RSP], DATA + 0x18);
    enter_64();
    V.gpr[REG_RSP] = high + DATA + 0x100;
    V.gpr[REG_RBX] = DATA;
    V.rip = 0x777;
    assert_int_equal(RUN("\xff\x1b"), -1);
    assert_int_equal(V.gpr[REG_RSP], DATA + 0xf8);
    assert_int_equal(guest_get(&G, DATA + 0xf8, 4), 0x779);
    enter_64();
    V.gpr[REG_RSP] = high + DATA;
    assert_int_equal(RUN("\xff\x2b"), -1);
    assert_int_equal(V.gpr[REG_RSP], DATA);
}

/* CLZERO clears the line of the address, not of the offset. */
static void test_clzero(void **state) {
    if (!cpuid_has(V.cpuid, CPUID_F_CLZERO)) {
        assert_int_equal(RUN("\x26\x0f\x01\xfc"), X86_UD);
        return;
    }
    V.seg[SEG_ES].base = V.segbase[SEG_ES] = 0x20;
    V.gpr[REG_RAX] = DATA + 0x70;
    memset(G.ram + DATA, 0xff, 0x100);
    assert_int_equal(RUN("\x26\x0f\x01\xfc"), -1);
    assert_int_equal(guest_get(&G, DATA + 0x7c, 4), 0xffffffff);
    for (unsigned at = 0x80; at < 0xc0; at += 4)
        assert_int_equal(guest_get(&G, DATA + at, 4), 0);
    assert_int_equal(guest_get(&G, DATA + 0xc0, 4), 0xffffffff);
}

/* In long mode AMD's CPUs do not know SYSEXIT, but look at the privilege first. Without
 * REX.W it takes 32 bits of each. */
static void test_sysexit(void **state) {
    enter_64();
    V.cpl = 0;
    V.sysenter_cs = 0x20;
    V.gpr[REG_RCX] = 0x500000000 | DATA;
    V.gpr[REG_RDX] = 0x600001234;
    if (amd()) {
        assert_int_equal(RUN("\x0f\x35"), X86_UD);
        V.cpl = 3;
        assert_int_equal(RUN("\x0f\x35"), X86_GP);
        return;
    }
    assert_int_equal(RUN("\x0f\x35"), -1);
    assert_int_equal(V.mode, MODE_32);
    assert_int_equal(V.cpl, 3);
    assert_int_equal(V.seg[SEG_CS].sel, 0x33);
    assert_int_equal(V.seg[SEG_SS].sel, 0x3b);
    assert_int_equal(V.gpr[REG_RSP], DATA);
    assert_int_equal(V.rip, 0x1234);
    enter_64();
    V.cpl = 0;
    assert_int_equal(RUN("\x48\x0f\x35"), -1);
    assert_int_equal(V.mode, MODE_64);
    assert_int_equal(V.seg[SEG_CS].sel, 0x43);
    assert_int_equal(V.gpr[REG_RSP], 0x500000000 | DATA);
    assert_int_equal(V.rip, 0x600001234);
}

/* A far return without change of level from 32-bit code: what becomes of ESP that wraps.
 */
static void test_return_to_64(void **state) {
    enter_64();
    V.seg[SEG_CS].ar = (uint16_t)((V.seg[SEG_CS].ar & ~X86_AR_L) | X86_AR_DB);
    V.seg[SEG_SS] = V.seg[SEG_DS];
    vcpu_update_mode(&V);
    guest_put64(&G, GDT + 8, 0x00affb000000ffff);
    V.gpr[REG_RSP] = DATA;
    guest_put64(&G, DATA, 0x1234 | (uint64_t)CODE3 << 32);
    assert_int_equal(RUN("\xca\xf0\xff"), -1);
    assert_int_equal(V.mode, MODE_64);
    assert_int_equal(V.gpr[REG_RSP], DATA + 8 + 0xfff0);
    /* 16-bit stack */
    V.seg[SEG_CS].ar = (uint16_t)((V.seg[SEG_CS].ar & ~X86_AR_L) | X86_AR_DB);
    V.seg[SEG_SS].ar &= (uint16_t)~X86_AR_DB;
    vcpu_update_mode(&V);
    V.gpr[REG_RSP] = 0x12340000 | DATA;
    assert_int_equal(RUN("\xca\xf0\xff"), -1);
    assert_int_equal(V.gpr[REG_RSP], 0x12340000 + DATA + 8 + 0xfff0);
}

/* Real and virtual-8086 mode know no VEX prefix, not even for general registers. */
static void test_vex_modes(void **state) {
    static const char *const insns[] = {
        "\xc5\xf8\x77",             /* vzeroupper */
        "\xc4\xe2\x70\xf2\xd8",     /* andn ebx, ecx, eax */
        "\xc4\xe2\x70\xf3\xc8",     /* blsr ecx, eax */
        "\xc4\xe2\x78\xf7\xc1",     /* bextr eax, ecx, eax */
        "\xc4\xe2\x73\xf6\xc2",     /* mulx eax, ecx, edx */
        "\xc4\xe3\x7b\xf0\xc1\x05", /* rorx eax, ecx, 5 */
    };
    bool offered = cpuid_query(&V, 7, 0).ebx & 1u << 8; /* BMI2, and so the others */

    if (!offered)
        skip();
    for (size_t k = 0; k < ARRAY_SIZE(insns); k++)
        assert_int_equal(run(insns[k], strlen(insns[k])), -1);
    V.rflags |= X86_FL_VM;
    for (size_t k = 0; k < ARRAY_SIZE(insns); k++)
        assert_int_equal(run(insns[k], strlen(insns[k])), X86_UD);
    V.rflags &= ~(uint64_t)X86_FL_VM;
    V.cr0 &= ~(uint64_t)X86_CR0_PE; /* the segments stay */
    V.cpl = 0;
    for (size_t k = 0; k < ARRAY_SIZE(insns); k++)
        assert_int_equal(run(insns[k], strlen(insns[k])), X86_UD);
}

/* What a return to an outer level takes from DS, ES, FS and GS: the selector, null ones
 * included, and never the base. */
static void outer_return(const char *code, size_t len, bool flags) {
    enter_64();
    V.cpl = 0;
    V.seg[SEG_DS] = (struct segment){.sel = 3};
    V.seg[SEG_ES] = V.seg[SEG_SS];
    V.seg[SEG_ES].sel = 0x23;
    V.seg[SEG_ES].ar =
        X86_AR_P | X86_AR_S | X86_AR_CODE | X86_AR_EXPDOWN; /* conforming */
    V.seg[SEG_FS] = (struct segment){
        .sel = 0x18, .ar = X86_AR_P | X86_AR_S | X86_AR_WRITE, .base = 0x7fff12345000};
    V.seg[SEG_GS] = (struct segment){.sel = 2, .base = 0xffff888000000000};
    vcpu_update_mode(&V);
    V.gpr[REG_RSP] = DATA;
    unsigned at = DATA;
    guest_put64(&G, at, 0x1234);
    guest_put64(&G, at += 8, CODE3);
    if (flags)
        guest_put64(&G, at += 8, X86_FL_ONE);
    guest_put64(&G, at += 8, DATA + 0x100);
    guest_put64(&G, at + 8, DATA3);
    assert_int_equal(run(code, len), -1);
    assert_int_equal(V.cpl, 3);
    for (unsigned s = 0; s < SEG_COUNT; s++) {
        if (s == SEG_CS || s == SEG_SS || s == SEG_ES)
            continue;
        assert_int_equal(V.seg[s].sel, 0);
        assert_int_equal(V.seg[s].ar & X86_AR_P, 0);
    }
    assert_int_equal(V.seg[SEG_ES].sel, 0x23);
    assert_true(V.seg[SEG_FS].base == 0x7fff12345000);
    assert_true(V.seg[SEG_GS].base == 0xffff888000000000);
    assert_true(V.segbase[SEG_FS] == 0x7fff12345000);
}

static void test_outer_return(void **state) {
    outer_return("\x48\xcf", 2, true);  /* iretq */
    outer_return("\x48\xcb", 2, false); /* retfq */
}

#define BOTH(f)                                                                          \
    {"intel_" #f, f, setup_intel, teardown, NULL}, {                                     \
        "amd_" #f, f, setup_amd, teardown, NULL                                          \
    }

int main(void) {
    const struct CMUnitTest tests[] = {
        BOTH(test_model),
        BOTH(test_selector_slots),
        BOTH(test_selector_small_stack),
        BOTH(test_alignment),
        BOTH(test_repeat_nothing),
        BOTH(test_order),
        BOTH(test_vzero),
        BOTH(test_masked),
        BOTH(test_call),
        BOTH(test_x87_pointers),
        BOTH(test_narrow_stack),
        BOTH(test_far_call),
        BOTH(test_clzero),
        BOTH(test_sysexit),
        BOTH(test_return_to_64),
        BOTH(test_vex_modes),
        BOTH(test_outer_return),
    };
    return cmocka_run_group_tests(tests, setup_group, NULL);
}
