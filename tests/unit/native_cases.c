/*
 * Singular cases of instructions that run natively: what enables them, exceptions of the
 * vector unit and of x87, masked moves, the XSAVE family and x87's environment, stubs
 * that are shared or used up, faults that are not theirs, devices as operands. The host
 * is the oracle where it can be.
 */
/* <signal.h> of _GNU_SOURCE has its own REG_RAX and so on. */
#undef _GNU_SOURCE
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cpu/vec.h"
#include "lib/oracle.h"
#include "lib/rnd.h"
#include "lib/signals.h"
#include "lib/unit.h"
#include "sem/sem_int.h"

#define DATA 0x100000ull /* guest page of operands; its successor is not mapped */
#define CROSS 0x110000ull
#define IMG_LEN 832u
#define MXCSR_AT 24

static int setup(void **state) {
    oracle_start();
    oracle_set_pte(PT + 8 * (DATA / 4096 + 1), 0);
    return 0;
}

static _Alignas(4096) uint8_t host_mem[2 * 4096];

/* --- singular cases --- */

static void put16(uint8_t *p, unsigned x) {
    p[0] = (uint8_t)x;
    p[1] = (uint8_t)(x >> 8);
}

static int run_one(enum cpu_mode mode, const char *bytes, unsigned len) {
    struct insn i;
    int rc;

    assert_true(oracle_bind(mode, (const uint8_t *)bytes, len, &i));
    assert_int_equal(i.len, len);
    rc = i.exec(G.v, &i);
    vec_park(G.v);
    return rc;
}

static int fault_of(const char *bytes, unsigned len) {
    return run_one(G.v->mode, bytes, len) == SEM_FAULT ? G.v->fault.vector : -1;
}

static void test_enabling(void **state) {
    signals_back();
    uint64_t cr0 = G.v->cr0, cr4 = G.v->cr4, xcr0 = G.v->xcr0;
    const char *addps = "\x0f\x58\xc1", *paddb = "\x0f\xfc\xc1", *fadd = "\xd8\xc1",
               *vaddps = "\xc5\xf0\x58\xc1", *fwait_ = "\x9b";

    oracle_random_state(1, false);
    G.v->cr0 = cr0 | X86_CR0_TS;
    assert_int_equal(fault_of(addps, 3), X86_NM);
    assert_int_equal(fault_of(paddb, 3), X86_NM);
    assert_int_equal(fault_of(fadd, 2), X86_NM);
    assert_int_equal(fault_of(vaddps, 4), X86_NM);
    assert_int_equal(fault_of(fwait_, 1), X86_NM);
    G.v->cr0 = (cr0 | X86_CR0_TS) & ~(uint64_t)X86_CR0_MP;
    assert_int_equal(fault_of(fwait_, 1), -1);
    G.v->cr0 = cr0 | X86_CR0_EM;
    assert_int_equal(fault_of(addps, 3), X86_UD);
    assert_int_equal(fault_of(paddb, 3), X86_UD);
    assert_int_equal(fault_of(fadd, 2), X86_NM);
    assert_int_equal(fault_of(vaddps, 4), -1);
    G.v->cr0 = cr0;
    G.v->cr4 = cr4 & ~(uint64_t)X86_CR4_OSFXSR;
    assert_int_equal(fault_of(addps, 3), X86_UD);
    assert_int_equal(fault_of(paddb, 3), -1);
    G.v->cr4 = cr4 & ~(uint64_t)X86_CR4_OSXSAVE;
    assert_int_equal(fault_of(vaddps, 4), X86_UD);
    G.v->cr4 = cr4;
    G.v->xcr0 = 3;
    assert_int_equal(fault_of(vaddps, 4), X86_UD);
    G.v->xcr0 = xcr0;
    assert_int_equal(fault_of(vaddps, 4), -1);
}

static void test_simd_exception(void **state) {
    signals_back();
    uint64_t cr4 = G.v->cr4;
    uint32_t one = 0x3f800000, zero = 0;

    oracle_random_state(1, true);
    memcpy(G.v->vec + 160, &one, 4);
    memcpy(G.v->vec + 176, &zero, 4);
    assert_int_equal(fault_of("\xf3\x0f\x5e\xc1", 4), X86_XM); /* divss xmm0, xmm1 */
    assert_memory_equal(G.v->vec + 160, &one, 4);
    G.v->cr4 &= ~(uint64_t)X86_CR4_OSXMMEXCPT;
    assert_int_equal(fault_of("\xf3\x0f\x5e\xc1", 4), X86_UD);
    G.v->cr4 = cr4;
}

/* An unmasked x87 exception is raised by the next waiting instruction, and parking with
 * one pending does no harm to the host. */
static void test_x87_pending(void **state) {
    signals_back();
    volatile long double host = 3;

    oracle_random_state(1, true);
    assert_int_equal(fault_of("\xd9\xee", 2), -1); /* fldz: stack overflow or not */
    assert_int_equal(run_one(MODE_64, "\xdb\xe3", 2), SEM_NEXT);
    put16(G.v->vec, 0x340);
    assert_int_equal(fault_of("\xd9\xe8", 2), -1); /* fld1 */
    G.v->rip = 0x777;
    assert_int_equal(fault_of("\xd8\xf2", 2), -1); /* fdiv st0, st2: empty: invalid */
    G.v->rip = 0x999;
    host = host / 7;
    assert_true(host < 1);
    assert_int_equal(G.v->vec[2] & 0x81, 0x81);
    assert_int_equal(G.v->fip, 0x777);
    assert_int_equal(G.v->fop, 0xf2);
    assert_int_equal(fault_of("\xd9\xe8", 2), X86_MF);
    assert_int_equal(fault_of("\x9b", 1), X86_MF);
    assert_int_equal(fault_of("\x0f\xfc\xc1", 3), X86_MF); /* paddb */
    assert_int_equal(G.v->fip, 0x777);
    assert_int_equal(fault_of("\xdb\xe2", 2), -1); /* fnclex */
    assert_int_equal(fault_of("\x9b", 1), -1);
}

static void test_ldmxcsr_reserved(void **state) {
    signals_back();
    oracle_random_state(1, false);
    G.v->gpr[REG_RBX] = CROSS;
    memcpy(G.ram + CROSS, "\x80\x1f\x00\x80", 4);
    assert_int_equal(fault_of("\x0f\xae\x13", 3), X86_GP);
    memcpy(G.ram + CROSS, "\x80\x3f\x00\x00", 4);
    assert_int_equal(fault_of("\x0f\xae\x13", 3), -1);
    assert_int_equal(G.v->vec[MXCSR_AT + 1], 0x3f);
}

/* W chooses no operand size outside 64-bit mode, and vvvv's top bit no register. */
static void test_narrow_w(void **state) {
    signals_back();
    if (!(vec_supported() & X86_XCR0_AVX))
        return;
    oracle_set_mode(MODE_32);
    oracle_random_state(0, false);
    G.v->gpr[REG_RAX] = 0x11223344;
    /* vmovd eax -> xmm1 with W=1 */
    assert_int_equal(run_one(MODE_32, "\xc4\xe1\xf9\x6e\xc8", 5), SEM_NEXT);
    assert_memory_equal(G.v->vec + 176, "\x44\x33\x22\x11\0\0\0\0", 8);
    /* vpaddb xmm0, xmm9 (so read as xmm1), xmm2 */
    assert_int_equal(run_one(MODE_32, "\xc4\xe1\x31\xfc\xc2", 5), SEM_NEXT);
    for (unsigned k = 0; k < 16; k++)
        assert_int_equal(G.v->vec[160 + k],
                         (uint8_t)(G.v->vec[176 + k] + G.v->vec[192 + k]));
    oracle_set_mode(MODE_64);
}

/* --- masked moves and gathers --- */

static void test_masked(void **state) {
    signals_back();
    static const struct {
        const char *bytes;
        unsigned len;
    } forms[] = {
        {"\x66\x0f\xf7\xca", 4}, /* maskmovdqu */
        {"\x0f\xf7\xca", 3},     /* maskmovq */
        {"\xc5\xf9\xf7\xca", 4}, /* vmaskmovdqu */
        {"\xc4\xe2\x69\x2c\x0b", 5},
        {"\xc4\xe2\x6d\x2d\x0b", 5}, /* loads */
        {"\xc4\xe2\x69\x2e\x0b", 5},
        {"\xc4\xe2\x6d\x2f\x0b", 5}, /* stores */
        {"\xc4\xe2\x6d\x8c\x0b", 5},
        {"\xc4\xe2\xed\x8c\x0b", 5},
        {"\xc4\xe2\x6d\x8e\x0b", 5},
        {"\xc4\xe2\xe9\x8e\x0b", 5},
        {"\xc4\xe2\x69\x90\x0c\x33", 6},
        {"\xc4\xe2\x6d\x90\x0c\x33", 6}, /* gathers */
        {"\xc4\xe2\xed\x90\x0c\x73", 6},
        {"\xc4\xe2\x6d\x91\x0c\x33", 6},
        {"\xc4\xe2\xe9\x91\x0c\x33", 6},
        {"\xc4\xe2\x6d\x92\x0c\xb3", 6},
        {"\xc4\xe2\xe9\x92\x0c\x33", 6},
        {"\xc4\xe2\x69\x93\x0c\x33", 6},
        {"\xc4\xe2\xed\x93\x0c\x33", 6},
    };

    if (!(vec_supported() & X86_XCR0_AVX))
        return;
    for (unsigned n = 0; n < ARRAY_SIZE(forms) * 24; n++) {
        const unsigned k = n / 24;
        const uint64_t at = CROSS + (n & 1 ? 0xff8 : 0x80);
        _Alignas(64) uint8_t image[1024];
        struct host_regs r;
        struct insn i;
        int rc;

        oracle_random_state(0, false);
        for (unsigned e = 0; e < 8; e++) { /* small indices in xmm6, both halves */
            uint32_t idx = (uint32_t)(rnd() & 15);

            if (forms[k].bytes[3] & 1 && forms[k].bytes[0] == '\xc4' && e & 1)
                idx = 0;
            memcpy(G.v->vec + (e < 4 ? 160 : 576) + 96 + 4 * (e & 3), &idx, 4);
        }
        oracle_fill(G.ram + at - 64, 256, 0);
        memcpy(host_mem, G.ram + CROSS, sizeof(host_mem));
        G.v->gpr[REG_RBX] = G.v->gpr[REG_RDI] = at;
        memcpy(image, G.v->vec, sizeof(image));
        memcpy(r.gpr, G.v->gpr, sizeof(r.gpr));
        r.gpr[REG_RBX] = r.gpr[REG_RDI] = (uint64_t)(uintptr_t)host_mem + (at & 0xfff);
        r.rflags = G.v->rflags;
        assert_true(
            oracle_bind(MODE_64, (const uint8_t *)forms[k].bytes, forms[k].len, &i));
        assert_int_equal(host_execute(&r, i.bytes, i.len, image), -1);
        rc = i.exec(G.v, &i);
        vec_park(G.v); /* before anything that may use the host's vector registers */
        oracle_expect(rc == SEM_NEXT, &i, "status");
        oracle_expect(!memcmp(image, G.v->vec, 6), &i, "x87 control");
        oracle_expect(!memcmp(image + 32, G.v->vec + 32, 128), &i, "mmx");
        oracle_expect(!memcmp(image + 160, G.v->vec + 160, 256), &i, "xmm");
        oracle_expect(!memcmp(image + 576, G.v->vec + 576, 256), &i, "ymm");
        oracle_expect(!memcmp(host_mem, G.ram + CROSS, sizeof(host_mem)), &i, "memory");
    }
}

/* Only selected elements fault; a gather keeps what came before the fault. */
static void test_masked_faults(void **state) {
    signals_back();
    uint32_t ones[8] = {~0u, ~0u, 0, 0, ~0u, 0, 0, 0};

    if (!(vec_supported() & X86_XCR0_AVX))
        return;
    oracle_random_state(0, false);
    G.v->gpr[REG_RBX] = DATA + 4096 - 8;
    memcpy(G.v->vec + 192, ones, 16); /* xmm2: the two elements before the hole */
    memset(G.v->vec + 576 + 32, 0, 16);
    assert_int_equal(fault_of("\xc4\xe2\x69\x2c\x0b", 5), -1);
    assert_memory_equal(G.v->vec + 176, G.ram + DATA + 4096 - 8, 8);
    assert_int_equal(fault_of("\xc4\xe2\x6d\x2e\x0b", 5), -1);
    memcpy(G.v->vec + 576 + 32, ones + 4, 16); /* and element 4, in the hole */
    assert_int_equal(fault_of("\xc4\xe2\x6d\x2e\x0b", 5), X86_PF);
    assert_int_equal(G.v->fault.error, X86_PF_W);
    assert_int_equal(G.v->fault.addr, DATA + 4096 + 8);

    /* vpgatherdd ymm1, [rbx+ymm6], ymm2: elements 0, 1 fine, 4 in the hole */
    for (unsigned e = 0; e < 8; e++) {
        uint32_t idx = e * 4;
        memcpy(G.v->vec + (e < 4 ? 160 : 576) + 96 + 4 * (e & 3), &idx, 4);
    }
    assert_int_equal(fault_of("\xc4\xe2\x6d\x90\x0c\x33", 6), X86_PF);
    assert_memory_equal(G.v->vec + 176, G.ram + DATA + 4096 - 8, 8);
    assert_memory_equal(G.v->vec + 192, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    assert_memory_equal(G.v->vec + 576 + 32, ones + 4, 4);
}

/* --- whole-state instructions --- */

/* Runs BYTES (memory operand [rbx]) in both worlds and compares memory and state, but
 * for the x87 pointers at PTR..PTR_END of the memory image. */
static void compare_state(const char *bytes, unsigned len, unsigned ptr, unsigned ptr_end,
                          unsigned mask) {
    _Alignas(64) uint8_t image[1024];
    struct host_regs r;
    struct insn i;
    int trap, rc;

    memcpy(image, G.v->vec, sizeof(image));
    memcpy(host_mem, G.ram + CROSS, sizeof(host_mem));
    G.v->gpr[REG_RBX] = CROSS;
    G.v->gpr[REG_RAX] = mask;
    G.v->gpr[REG_RDX] = 0;
    memcpy(r.gpr, G.v->gpr, sizeof(r.gpr));
    r.gpr[REG_RBX] = (uint64_t)(uintptr_t)host_mem;
    r.rflags = 2;
    assert_true(oracle_bind(MODE_64, (const uint8_t *)bytes, len, &i));
    trap = host_execute(&r, i.bytes, i.len, image);
    rc = i.exec(G.v, &i);
    vec_park(G.v);
    oracle_expect((rc == SEM_FAULT ? G.v->fault.vector : -1) == trap, &i, "fault");
    memcpy(host_mem + ptr, G.ram + CROSS + ptr, ptr_end - ptr);
    for (unsigned k = 0; k < 1024; k++)
        if (host_mem[k] != G.ram[CROSS + k])
            fprintf(stderr, "byte %u: host %02x G.ram %02x\n", k, host_mem[k],
                    G.ram[CROSS + k]);
    oracle_expect(!memcmp(host_mem, G.ram + CROSS, sizeof(host_mem)), &i, "memory");
    oracle_expect(!memcmp(image, G.v->vec, 6), &i, "x87 control");
    oracle_expect(!memcmp(image + 24, G.v->vec + 24, 392), &i, "legacy state");
    oracle_expect(!memcmp(image + 576, G.v->vec + 576, 256), &i, "ymm");
}

static void test_xsave_family(void **state) {
    signals_back();
    static const struct {
        const char *save;
        const char *restore;
        unsigned len;
    } pairs[] = {
        {"\x48\x0f\xae\x03", "\x48\x0f\xae\x0b", 4}, /* fxsave64, fxrstor64 */
        {"\x0f\xae\x03", "\x0f\xae\x0b", 3},         /* fxsave, fxrstor */
        {"\x48\x0f\xae\x23", "\x48\x0f\xae\x2b", 4}, /* xsave64, xrstor64 */
        {"\x48\x0f\xc7\x23", "\x48\x0f\xae\x2b", 4}, /* xsavec64, xrstor64 */
    };

    for (unsigned n = 0; n < ARRAY_SIZE(pairs) * 32; n++) {
        unsigned k = n / 32, mask = n & 7;
        struct insn i;

        if (!oracle_bind(MODE_64, (const uint8_t *)pairs[k].save, pairs[k].len, &i))
            continue;
        oracle_random_state(1, n & 8);
        if (n & 16) /* the host decides what is in use: let it see initial values */
            vec_reset(G.v);
        oracle_fill(G.ram + CROSS, 1024, 0);
        memset(G.ram + CROSS + 512, 0, 64);
        compare_state(pairs[k].save, pairs[k].len, 6, 24, mask);
        oracle_random_state(2, false);
        compare_state(pairs[k].restore, pairs[k].len, 6, 24, mask);
    }
}

/* What counts as in use follows from the values, not from what the host has seen: the
 * engines execute different host code on the way to the same values. */
static void test_xsave_in_use(void **state) {
    signals_back();
    const char *xsavec = "\x48\x0f\xc7\x23";
    const uint64_t all = 7;
    struct insn i;
    uint64_t bv;

    if (!oracle_bind(MODE_64, (const uint8_t *)xsavec, 4, &i))
        skip();
    for (unsigned n = 0; n < 4; n++) {
        static const uint16_t at[] = {0, 32 + 16 * 7, 160 + 16 * 15 + 8, 576 + 16 * 3};
        uint64_t want[] = {0, 1, 2, 4};

        vec_reset(G.v);
        G.v->vec[at[n]] ^= n ? 0x80 : 0;
        memcpy(G.v->vec + 512, &all, 8);
        memset(G.ram + CROSS, 0x5a, 1024);
        G.v->gpr[REG_RBX] = CROSS;
        G.v->gpr[REG_RAX] = 7;
        G.v->gpr[REG_RDX] = 0;
        assert_int_equal(i.exec(G.v, &i), SEM_NEXT);
        memcpy(&bv, G.ram + CROSS + 512, 8);
        assert_int_equal(bv, want[n]);
        assert_int_equal(G.ram[CROSS + 160], n == 2 ? 0 : 0x5a);
    }
}

static void test_xrstor_checks(void **state) {
    signals_back();
    static const struct {
        unsigned at;
        uint64_t value;
    } bad[] = {{512, 8},          {520, 1},         {528, 1},
               {512, 1ull << 62}, {24, 0x80001f80}, {520, 1ull << 63 | 0x100}};
    const char *xrstor = "\x48\x0f\xae\x2b";

    for (unsigned n = 0; n < ARRAY_SIZE(bad); n++) {
        oracle_random_state(1, false);
        memset(G.ram + CROSS, 0, 1024);
        memcpy(G.ram + CROSS + bad[n].at, &bad[n].value, 8);
        compare_state(xrstor, 4, 0, 0, 7);
        assert_int_equal(G.v->fault.vector, X86_GP);
    }
    G.v->gpr[REG_RBX] = CROSS + 16;
    assert_int_equal(fault_of(xrstor, 4), X86_GP);
    G.v->gpr[REG_RBX] = DATA + 4096 - 512;
    assert_int_equal(fault_of(xrstor, 4), X86_PF);
    assert_int_equal(fault_of("\x48\x0f\xae\x23", 4), X86_PF); /* xsave */
    G.v->gpr[REG_RBX] = CROSS + 8;
    assert_int_equal(fault_of("\x0f\xae\x03", 3), X86_GP); /* fxsave */
}

static void test_x87_environment(void **state) {
    signals_back();
    static const struct {
        const char *bytes;
        unsigned len, ptr, ptr_end;
    } forms[] = {
        {"\xd9\x33", 2, 12, 26}, {"\x66\xd9\x33", 3, 6, 14}, /* fnstenv */
        {"\xdd\x33", 2, 12, 26}, {"\x66\xdd\x33", 3, 6, 14}, /* fnsave */
        {"\xd9\x23", 2, 0, 0},   {"\x66\xd9\x23", 3, 0, 0},  /* fldenv */
        {"\xdd\x23", 2, 0, 0},   {"\x66\xdd\x23", 3, 0, 0},  /* frstor */
    };

    for (unsigned n = 0; n < ARRAY_SIZE(forms) * 8; n++) {
        unsigned k = n / 8;

        oracle_random_state(n & 3, false);
        oracle_fill(G.ram + CROSS, 128, 0);
        put16(G.ram + CROSS, 0x37f);
        compare_state(forms[k].bytes, forms[k].len, forms[k].ptr, forms[k].ptr_end, 0);
    }
}

/* The pointers that a save shows are the guest's. FXSAVE of AMD's CPUs shows them with an
 * exception pending; unit/sem_vendor has what it shows without. */
static void test_x87_pointers(void **state) {
    signals_back();
    uint32_t env[7];
    uint64_t x[2];

    oracle_set_mode(MODE_32);
    oracle_random_state(1, false);
    G.v->gpr[REG_RBX] = CROSS + 256;
    G.v->rip = 0x1000;
    assert_int_equal(fault_of("\xd8\x03", 2), -1); /* fadd dword [rbx] */
    G.v->gpr[REG_RBX] = CROSS;
    G.v->rip = 0x1002;
    assert_int_equal(fault_of("\xd9\x33", 2), -1); /* fnstenv */
    memcpy(env, G.ram + CROSS, sizeof(env));
    assert_int_equal(env[3], 0x1000);
    assert_int_equal(env[4], 0x003u << 16 | G.v->seg[SEG_CS].sel);
    assert_int_equal(env[5], CROSS + 256);
    assert_int_equal(env[6] & 0xffff, G.v->seg[SEG_DS].sel);
    oracle_set_mode(MODE_64);
    memcpy(G.v->vec, "\x7e\x03\x81\x80", 4); /* invalid operation, pending */
    assert_int_equal(fault_of("\x48\x0f\xae\x03", 4), -1); /* fxsave64 */
    memcpy(x, G.ram + CROSS + 8, sizeof(x));
    assert_int_equal(x[0], 0x1000);
    assert_int_equal(x[1], CROSS + 256);
}

/* The same instruction is built once, whatever its address operand and register. */
static void test_stubs_shared(void **state) {
    signals_back();
    uint64_t stubs, runs;

    oracle_random_state(1, false);
    G.v->gpr[REG_RBX] = G.v->gpr[REG_RCX] = CROSS;
    assert_int_equal(fault_of("\x0f\x10\x03", 3), -1);
    assert_int_equal(fault_of("\x66\x0f\x7e\xc1", 4), -1);
    G.v->gpr[REG_RCX] = CROSS;
    stubs = G.cnt.native_stubs;
    runs = G.cnt.native_runs;
    assert_int_equal(fault_of("\x0f\x10\x01", 3), -1);
    assert_int_equal(fault_of("\x66\x0f\x7e\xc2", 4), -1);
    assert_int_equal(G.cnt.native_stubs, stubs);
    assert_int_equal(G.cnt.native_runs, runs + 2);
}

/* State stays live from one instruction to the next, also while a stub is made. */
static void test_live(void **state) {
    static const char *const forms[] = {"\x66\x0f\xfe\xc0", "\x66\x0f\xfa\xc0",
                                        "\x66\x0f\x3a\x0e\xc0\x5a"};
    _Alignas(64) uint8_t image[1024];
    uint64_t stubs = G.cnt.native_stubs;
    struct insn i;

    signals_back();
    oracle_random_state(0, false);
    memcpy(image, G.v->vec, sizeof(image));
    for (unsigned k = 0; k < ARRAY_SIZE(forms); k++) {
        assert_true(oracle_bind(MODE_64, (const uint8_t *)forms[k], k == 2 ? 6 : 4, &i));
        vec_load(G.v);
        assert_int_equal(i.exec(G.v, &i), SEM_NEXT);
        assert_true(G.v->vec_live);
        vec_park(G.v);
        assert_memory_equal(image + 176, G.v->vec + 176, 240);
        assert_memory_equal(image + 576, G.v->vec + 576, 256);
    }
    assert_int_equal(G.cnt.native_stubs, stubs + 3);
}

/* Real mode: linear pointers, 16 and 32 bits; no VEX there. */
static void test_real_mode(void **state) {
    uint64_t cr0 = G.v->cr0, efer = G.v->efer;
    uint16_t env[7];

    signals_back();
    G.v->cr0 &= ~(uint64_t)(X86_CR0_PE | X86_CR0_PG);
    G.v->efer = 0;
    oracle_set_mode(MODE_16);
    oracle_random_state(1, false);
    G.v->seg[SEG_CS].sel = 0xf234;
    G.v->seg[SEG_DS].sel = 0xabcd;
    G.v->gpr[REG_RBX] = 0x8000;
    G.v->rip = 0x5678;
    assert_int_equal(fault_of("\xd8\x07", 2), -1); /* fadd dword [bx] */
    G.v->gpr[REG_RBX] = 0x9000;
    assert_int_equal(fault_of("\xd9\x37", 2), -1); /* fnstenv */
    memcpy(env, G.ram + 0x9000, sizeof(env));
    assert_int_equal(env[3], (0xf2340 + 0x5678) & 0xffff);
    assert_int_equal(env[4], 0xf000 | 0x007);
    assert_int_equal(env[5], (0xabcd0 + 0x8000) & 0xffff);
    assert_int_equal(env[6], 0xb000);
    assert_int_equal(fault_of("\xd9\x27", 2), -1); /* fldenv */
    assert_int_equal(G.v->fip, 0xf2340 + 0x5678);
    assert_int_equal(G.v->fop, 7);
    G.v->cr0 = cr0;
    G.v->efer = efer;
    oracle_set_mode(MODE_64);
}

/* A full arena: one scratch stub, rebuilt at each use, and earlier stubs still good. */
static void test_arena_full(void **state) {
    struct insn early, i[2];
    uint64_t stubs;

    signals_back();
    oracle_random_state(0, false);
    assert_true(
        oracle_bind(MODE_64, (const uint8_t *)"\x0f\x57\xc0", 3, &early)); /* xorps */
    assert_int_equal(early.exec(G.v, &early), SEM_NEXT);
    for (unsigned n = 0; n < 1u << 16; n++) {
        uint8_t b[6] = {0x66, 0x40, 0x0f, 0x70, 0xc0, (uint8_t)n}; /* pshufd */

        b[1] |= (uint8_t)((n >> 14 & 1) << 2 | (n >> 15));
        b[4] |= (uint8_t)(n >> 8 & 63);
        assert_true(oracle_bind(MODE_64, b, sizeof(b), i));
        assert_int_equal(i->exec(G.v, i), SEM_NEXT);
    }
    vec_park(G.v);
    stubs = G.cnt.native_stubs;
    assert_true(stubs > 60000 && stubs < 1u << 16);
    assert_true(oracle_bind(MODE_64, (const uint8_t *)"\xf2\x0f\x70\xc1\x1b", 5, &i[0]));
    assert_true(oracle_bind(MODE_64, (const uint8_t *)"\xf3\x0f\x70\xc1\x1b", 5, &i[1]));
    for (unsigned n = 0; n < 6; n++) {
        oracle_random_state(0, false);
        assert_int_equal(i[n & 1].exec(G.v, &i[n & 1]), SEM_NEXT);
        vec_park(G.v);
        for (unsigned k = 0; k < 8; k++) {
            bool low = k < 4, turned = low == !(n & 1); /* pshuflw, pshufhw */
            unsigned from = turned ? (low ? 3 - k : 11 - k) : k;

            assert_memory_equal(G.v->vec + 160 + 2 * k, G.v->vec + 176 + 2 * from, 2);
        }
    }
    assert_int_equal(G.cnt.native_stubs, stubs);
    oracle_random_state(0, false);
    assert_int_equal(early.exec(G.v, &early), SEM_NEXT);
    vec_park(G.v);
    assert_int_equal(G.v->vec[160] | G.v->vec[175], 0);
}

/* --- faults outside the ranges --- */

/* They kill the process as ever, and a handler from before is asked first. */
static void earlier(int signo) {
    _exit(3);
}

static int died_of(bool handler) {
    int status;
    pid_t pid = fork();

    if (!pid) {
        execl("/proc/self/exe", "native", handler ? "crash-handled" : "crash",
              (char *)NULL);
        _exit(127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 256 + WEXITSTATUS(status);
}

#ifdef __SANITIZE_ADDRESS__
/* The sanitizer's handler is an earlier one that ends the process in its own way. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "handle_segv=0";
}
#endif

static void test_foreign_faults(void **state) {
    assert_int_equal(died_of(false), SIGSEGV);
    assert_int_equal(died_of(true), 256 + 3);
}

static __attribute__((noipa)) void raise_fault(volatile int *p) {
    *p = 0;
}

static int crash(bool handled) {
    struct sigaction act = {.sa_handler = earlier};
    struct rlimit none = {0, 0};

    if (handled)
        sigaction(SIGSEGV, &act, NULL);
    if (sem_init())
        return 1;
    setrlimit(RLIMIT_CORE, &none);
    raise_fault((volatile int *)8);
    return 2;
}

/* --- MMIO --- */

static uint8_t device[64];
static unsigned device_reads, device_writes;

static void device_exit(void *arg, struct vcpu *vc, struct exit *e) {
    uint8_t *p = device + (e->gpa.a & 63);

    vec_park(vc);
    assert_int_equal(e->reason, EXIT_mmio);
    if (e->write) {
        memcpy(p, &e->data, e->size);
        device_writes++;
    } else {
        e->data = 0;
        memcpy(&e->data, p, e->size);
        device_reads++;
    }
}

static bool a20_open(void *arg) {
    return true;
}

static void test_mmio(void **state) {
    static const struct vcpu_hooks hooks = {.exit = device_exit, .a20 = a20_open};

    signals_back();
    G.v->hooks = &hooks;
    oracle_set_pte(PT + 8 * 0x120, 0xd0000007);
    mmu_flush_all(G.v);
    oracle_fill(device, sizeof(device), 0);
    oracle_random_state(0, false);
    G.v->gpr[REG_RBX] = 0x120000;
    assert_int_equal(fault_of("\x0f\x10\x0b", 3), -1); /* movups xmm1, [rbx] */
    assert_memory_equal(G.v->vec + 176, device, 16);
    assert_int_not_equal(device_reads, 0);
    device_reads = 0;
    G.v->gpr[REG_RBX] = 0x120020;
    assert_int_equal(fault_of("\x0f\x11\x13", 3), -1); /* movups [rbx], xmm2 */
    assert_memory_equal(G.v->vec + 192, device + 32, 16);
    assert_int_not_equal(device_writes, 0);
    assert_int_equal(device_reads, 0);
    G.v->hooks = NULL;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strncmp(argv[1], "crash", 5))
        return crash(!strcmp(argv[1], "crash-handled"));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_live),
        cmocka_unit_test(test_real_mode),
        cmocka_unit_test(test_mmio),
        cmocka_unit_test(test_enabling),
        cmocka_unit_test(test_simd_exception),
        cmocka_unit_test(test_x87_pending),
        cmocka_unit_test(test_ldmxcsr_reserved),
        cmocka_unit_test(test_narrow_w),
        cmocka_unit_test(test_masked),
        cmocka_unit_test(test_masked_faults),
        cmocka_unit_test(test_xsave_family),
        cmocka_unit_test(test_xsave_in_use),
        cmocka_unit_test(test_xrstor_checks),
        cmocka_unit_test(test_x87_environment),
        cmocka_unit_test(test_x87_pointers),
        cmocka_unit_test(test_stubs_shared),
        cmocka_unit_test(test_foreign_faults),
        cmocka_unit_test(test_arena_full),
    };

    return cmocka_run_group_tests(tests, setup, oracle_teardown);
}
