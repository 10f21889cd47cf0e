/*
 * sem/native.c and its kin against the host CPU.
 *
 * The systematic tests enumerate encodings (prefixes, maps, opcodes, register and memory
 * forms) and let the decoder say which are OP_native. Each runs twice from the same
 * random state: in the guest, and its original bytes unchanged on the host, with rbx
 * pointing at a buffer of ours. Registers, flags, memory, the XSAVE image and the
 * exception must agree; x87 pointers are compared with what was tracked.
 */
/* <signal.h> of _GNU_SOURCE has its own REG_RAX and so on. */
#undef _GNU_SOURCE
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/oracle.h"

#define DATA 0x100000ull /* guest page of operands; its successor is not mapped */
#define CROSS 0x110000ull
#define IMG_LEN 832u
#define MXCSR_AT 24

static int setup(void **state) {
    guest_start();
    set_pte(PT + 8 * (DATA / 4096 + 1), 0);
    return 0;
}

/* False when these bytes are nothing that runs natively here. */
static bool bind(enum cpu_mode mode, const uint8_t *bytes, unsigned len, struct insn *i) {
    if (decode_insn(mode, bytes, len, i) != DECODE_OK || i->len > len)
        return false;
    if (i->feature && !cpuid_has(v->cpuid, (enum cpuid_feature)i->feature))
        return false;
    i->exec = sem_bind_native(v, i);
    return i->exec != NULL;
}

static void put16(uint8_t *p, unsigned x) {
    p[0] = (uint8_t)x;
    p[1] = (uint8_t)(x >> 8);
}

static void random_state(unsigned pattern, bool unmasked) {
    uint32_t mxcsr = unmasked ? 0 : 0x1f80;
    uint64_t in_use = vec_supported();

    vec_reset(v);
    fill(v->vec + 160, 256, pattern);
    fill(v->vec + 576, 256, pattern);
    memcpy(v->vec + MXCSR_AT, &mxcsr, 4);
    memcpy(v->vec + 512, &in_use, 8);
    put16(v->vec, unmasked ? 0x340 : 0x37f);
    put16(v->vec + 2, (unsigned)(rnd() & 7) << 11);
    v->vec[4] = (uint8_t)(pattern == 0 ? rnd() : 0xff);
    for (unsigned st = 0; st < 8; st++) {
        uint64_t x = rnd();

        memcpy(v->vec + 32 + 16 * st, &x, 8);
        v->vec[32 + 16 * st + 7] |= pattern == 3 ? 0 : 0x80;
        put16(v->vec + 32 + 16 * st + 8, pattern == 0   ? (unsigned)rnd()
                                         : pattern == 3 ? 0
                                                        : 0x3ff0 + (rnd() & 31));
    }
    for (unsigned k = 0; k < 16; k++)
        v->gpr[k] = v->mode == MODE_64 ? rnd() : (uint32_t)rnd();
    v->gpr[REG_RAX] &= 31; /* lengths of pcmpestri */
    v->gpr[REG_RDX] &= 31;
    v->rflags = 2 | (rnd() & X86_FL_STATUS);
    v->rip = 0x12345;
}

/* --- one comparison --- */

static unsigned compared, faulted;

static void explain(const struct insn *i, const char *what) {
    char text[128];

    fprintf(stderr, "%s: %s: ", what, decode_format(i, 0, text, sizeof(text)));
    for (unsigned k = 0; k < i->len; k++)
        fprintf(stderr, "%02x ", i->bytes[k]);
    fprintf(stderr, "\n");
}

static void expect(bool ok, const struct insn *i, const char *what) {
    if (!ok) {
        explain(i, what);
        fail();
    }
}

static _Alignas(4096) uint8_t host_mem[2 * 4096];

/* Runs I at guest address AT (rbx, its offset in the page included) in both worlds. */
static void compare(const struct insn *i, uint64_t at, unsigned pattern, bool unmasked) {
    _Alignas(64) uint8_t image[1024];
    struct host_regs r;
    struct host_regs before;
    uint64_t page = at & ~0xfffull, off = at & 0xfff;
    int trap, rc;

    random_state(pattern, unmasked);
    fill(guest + at - 64 + (at & 7), 192, pattern);
    memcpy(host_mem, guest + page, sizeof(host_mem));
    v->gpr[REG_RBX] = at;
    memcpy(image, v->vec, sizeof(image));
    memcpy(before.gpr, v->gpr, sizeof(before.gpr));
    r = before;
    r.gpr[REG_RBX] = (uint64_t)(uintptr_t)host_mem + off;
    r.rflags = v->rflags;
    trap = host_execute(&r, i->bytes, i->len, image);
    rc = i->exec(v, i);
    vec_park(v);
    compared++;
    if (trap >= 0) {
        faulted++;
        expect(rc == SEM_FAULT, i, "the host faults, the guest does not");
        expect(v->fault.vector == trap, i, "vector");
        expect(v->fault.has_error == (trap == X86_GP) && !v->fault.error, i,
               "error code");
        expect(!memcmp(before.gpr, v->gpr, sizeof(before.gpr)), i,
               "fault kept registers");
    } else {
        expect(rc == SEM_NEXT, i, "the guest faults, the host does not");
        r.gpr[REG_RSP] = v->gpr[REG_RSP];
        if (r.gpr[REG_RBX] == (uint64_t)(uintptr_t)host_mem + off)
            r.gpr[REG_RBX] = at;
        expect(!memcmp(r.gpr, v->gpr, sizeof(r.gpr)), i, "registers");
        expect(!((r.rflags ^ v->rflags) & X86_FL_STATUS), i, "flags");
    }
    expect(!memcmp(image, v->vec, 6), i, "x87 control, status, tags");
    expect(!memcmp(image + 24, v->vec + 24, 8), i, "mxcsr");
    expect(!memcmp(image + 32, v->vec + 32, 128), i, "x87 registers");
    /* The host runs VZEROUPPER and VZEROALL in 64-bit mode: unit/sem_vendor has them. */
    if ((i->flags & INSN_VEX) && !i->off_modrm)
        return;
    expect(!memcmp(image + 160, v->vec + 160, 256), i, "xmm");
    expect(!memcmp(image + 576, v->vec + 576, 256), i, "ymm");
    expect(!memcmp(host_mem, guest + page, sizeof(host_mem)), i, "memory");
}

static void compare_patterns(const struct insn *i, bool unmasked) {
    bool is_mem = i->mem.access != 0;

    for (unsigned pattern = 0; pattern < 4; pattern++) {
        compare(i, CROSS + 0x40, pattern, unmasked);
        if (is_mem) {
            compare(i, CROSS + 0xffb, pattern, unmasked); /* disp8 is 1 */
            compare(i, CROSS + 0x3f, pattern, unmasked);
        }
    }
}

/* An operand that runs into the hole: #PF (or #GP when misaligned), nothing changed. */
static void check_page_fault(const struct insn *i) {
    struct vcpu *copy = aligned_alloc(64, (sizeof(*v) + 63) & ~63ull);
    int rc;

    random_state(1, false);
    v->gpr[REG_RBX] = DATA + 4096 - 1 - i->mem.size / 2;
    memcpy(copy, v, sizeof(*v));
    rc = i->exec(v, i);
    vec_park(v);
    expect(rc == SEM_FAULT, i, "fault expected");
    if (v->fault.vector == X86_PF) {
        expect(v->fault.addr == DATA + 4096, i, "address");
        expect(v->fault.error == (i->mem.access & OPND_WRITE ? X86_PF_W : 0), i, "error");
    } else {
        expect(v->fault.vector == X86_GP && (i->flags & INSN_ALIGNED), i, "vector");
    }
    expect(!memcmp(copy->gpr, v->gpr, sizeof(v->gpr)), i, "registers kept");
    expect(copy->rflags == v->rflags, i, "flags kept");
    expect(!memcmp(copy->vec + 24, v->vec + 24, 8), i, "mxcsr kept");
    expect(!memcmp(copy->vec + 32, v->vec + 32, 384), i, "vector state kept");
    free(copy);
}

static void try(enum cpu_mode mode, const uint8_t *bytes, unsigned len, bool unmasked) {
    struct insn i;

    if (!bind(mode, bytes, len, &i) || i.op != OP_native)
        return;
    if (i.flags & INSN_AVX512) /* unit/native_evex */
        return;
    if (i.mem.access && i.mem.base != REG_RBX) /* 0f 38 as an opcode */
        return;
    compare_patterns(&i, unmasked);
    if (i.mem.access && i.mem.size > 1 && !unmasked)
        check_page_fault(&i);
}

/* --- enumeration --- */

static void legacy_forms(enum cpu_mode mode, bool unmasked) {
    static const uint8_t prefix[] = {0, 0x66, 0xf3, 0xf2};
    static const uint8_t rex[] = {0, 0x45, 0x4d};

    for (unsigned map = 1; map <= 3; map++)
        for (unsigned n = 0; n < 256 * 4 * 3; n++) {
            uint8_t b[16] = {0}, op = (uint8_t)(n & 255);
            uint8_t pre = prefix[n >> 8 & 3], rx = rex[n >> 10];

            if (mode != MODE_64 && rx)
                continue;
            for (unsigned reg = 0; reg < 16; reg++) {
                unsigned k = 0;
                bool group = map == 1 && ((op >= 0x71 && op <= 0x73) || op == 0xae ||
                                          op == 0x77 || op == 0x78);

                if (!group && (reg & 7) != 1)
                    continue;
                if (pre)
                    b[k++] = pre;
                if (rx) /* the base stays rbx */
                    b[k++] = reg & 8 ? rx : rx & 0xfe;
                b[k++] = 0x0f;
                if (map > 1)
                    b[k++] = map == 2 ? 0x38 : 0x3a;
                b[k++] = op;
                if (reg & 8) {
                    b[k++] = (uint8_t)(0xc0 | (reg & 7) << 3 | 2);
                } else {
                    b[k++] = (uint8_t)(0x40 | reg << 3 | 3);
                    b[k++] = 1;
                }
                b[k++] = (uint8_t)(n * 29 & 0x7f);
                b[k++] = 5;
                try(mode, b, k, unmasked);
            }
        }
}

static void vex_forms(enum cpu_mode mode, bool unmasked) {
    for (unsigned map = 1; map <= 3; map++)
        for (unsigned n = 0; n < 256 * 16; n++) {
            uint8_t op = (uint8_t)n;
            unsigned pp = n >> 8 & 3, l = n >> 10 & 1, w = n >> 11 & 1;

            if (w && mode != MODE_64) /* means less there: see test_narrow_w */
                continue;
            for (unsigned form = 0; form < 6; form++) {
                bool mem = form & 1, high = form >= 4 && mode == MODE_64;
                unsigned vvvv = form < 2 ? 15 : high ? 4 : 10; /* inverted: none, 11, 5 */
                uint8_t b[12] = {0xc4}, k = 1;

                b[k++] =
                    (uint8_t)((high ? 0 : 0x80) | 0x40 | (high && !mem ? 0 : 0x20) | map);
                b[k++] = (uint8_t)(w << 7 | vvvv << 3 | l << 2 | pp);
                b[k++] = op;
                b[k++] = mem ? 0x4b : form == 0 ? 0xd2 : 0xca;
                if (mem)
                    b[k++] = 1;
                b[k++] = 0x63;
                try(mode, b, k, unmasked);
            }
        }
}

static void x87_forms(enum cpu_mode mode, bool unmasked) {
    for (unsigned n = 0; n < 8 * 256; n++) {
        uint8_t b[3] = {(uint8_t)(0xd8 | n >> 8), (uint8_t)n, 1};

        if (b[1] < 0xc0 && (b[1] & 0xc7) != 0x43)
            continue;
        try(mode, b, 3, unmasked);
    }
}

static void all_forms(enum cpu_mode mode, bool unmasked) {
    compared = faulted = 0;
    set_mode(mode);
    legacy_forms(mode, unmasked);
    if (vec_supported() & X86_XCR0_AVX)
        vex_forms(mode, unmasked);
    x87_forms(mode, unmasked);
    set_mode(MODE_64);
    assert_true(compared > 5000);
    assert_true(faulted > 100);
}

static void test_all_64(void **state) {
    arm();
    all_forms(MODE_64, false);
}

static void test_all_64_unmasked(void **state) {
    arm();
    all_forms(MODE_64, true);
}

static void test_all_32(void **state) {
    arm();
    all_forms(MODE_32, false);
}

static void test_all_32_unmasked(void **state) {
    arm();
    all_forms(MODE_32, true);
}

/* --- singular cases --- */

static int run_one(enum cpu_mode mode, const char *bytes, unsigned len) {
    struct insn i;
    int rc;

    assert_true(bind(mode, (const uint8_t *)bytes, len, &i));
    assert_int_equal(i.len, len);
    rc = i.exec(v, &i);
    vec_park(v);
    return rc;
}

static int fault_of(const char *bytes, unsigned len) {
    return run_one(v->mode, bytes, len) == SEM_FAULT ? v->fault.vector : -1;
}

static void test_enabling(void **state) {
    arm();
    uint64_t cr0 = v->cr0, cr4 = v->cr4, xcr0 = v->xcr0;
    const char *addps = "\x0f\x58\xc1", *paddb = "\x0f\xfc\xc1", *fadd = "\xd8\xc1",
               *vaddps = "\xc5\xf0\x58\xc1", *fwait_ = "\x9b";

    random_state(1, false);
    v->cr0 = cr0 | X86_CR0_TS;
    assert_int_equal(fault_of(addps, 3), X86_NM);
    assert_int_equal(fault_of(paddb, 3), X86_NM);
    assert_int_equal(fault_of(fadd, 2), X86_NM);
    assert_int_equal(fault_of(vaddps, 4), X86_NM);
    assert_int_equal(fault_of(fwait_, 1), X86_NM);
    v->cr0 = (cr0 | X86_CR0_TS) & ~(uint64_t)X86_CR0_MP;
    assert_int_equal(fault_of(fwait_, 1), -1);
    v->cr0 = cr0 | X86_CR0_EM;
    assert_int_equal(fault_of(addps, 3), X86_UD);
    assert_int_equal(fault_of(paddb, 3), X86_UD);
    assert_int_equal(fault_of(fadd, 2), X86_NM);
    assert_int_equal(fault_of(vaddps, 4), -1);
    v->cr0 = cr0;
    v->cr4 = cr4 & ~(uint64_t)X86_CR4_OSFXSR;
    assert_int_equal(fault_of(addps, 3), X86_UD);
    assert_int_equal(fault_of(paddb, 3), -1);
    v->cr4 = cr4 & ~(uint64_t)X86_CR4_OSXSAVE;
    assert_int_equal(fault_of(vaddps, 4), X86_UD);
    v->cr4 = cr4;
    v->xcr0 = 3;
    assert_int_equal(fault_of(vaddps, 4), X86_UD);
    v->xcr0 = xcr0;
    assert_int_equal(fault_of(vaddps, 4), -1);
}

static void test_simd_exception(void **state) {
    arm();
    uint64_t cr4 = v->cr4;
    uint32_t one = 0x3f800000, zero = 0;

    random_state(1, true);
    memcpy(v->vec + 160, &one, 4);
    memcpy(v->vec + 176, &zero, 4);
    assert_int_equal(fault_of("\xf3\x0f\x5e\xc1", 4), X86_XM); /* divss xmm0, xmm1 */
    assert_memory_equal(v->vec + 160, &one, 4);
    v->cr4 &= ~(uint64_t)X86_CR4_OSXMMEXCPT;
    assert_int_equal(fault_of("\xf3\x0f\x5e\xc1", 4), X86_UD);
    v->cr4 = cr4;
}

/* An unmasked x87 exception is raised by the next waiting instruction, and parking with
 * one pending does no harm to the host. */
static void test_x87_pending(void **state) {
    arm();
    volatile long double host = 3;

    random_state(1, true);
    assert_int_equal(fault_of("\xd9\xee", 2), -1); /* fldz: stack overflow or not */
    assert_int_equal(run_one(MODE_64, "\xdb\xe3", 2), SEM_NEXT);
    put16(v->vec, 0x340);
    assert_int_equal(fault_of("\xd9\xe8", 2), -1); /* fld1 */
    v->rip = 0x777;
    assert_int_equal(fault_of("\xd8\xf2", 2), -1); /* fdiv st0, st2: empty: invalid */
    v->rip = 0x999;
    host = host / 7;
    assert_true(host < 1);
    assert_int_equal(v->vec[2] & 0x81, 0x81);
    assert_int_equal(v->fip, 0x777);
    assert_int_equal(v->fop, 0xf2);
    assert_int_equal(fault_of("\xd9\xe8", 2), X86_MF);
    assert_int_equal(fault_of("\x9b", 1), X86_MF);
    assert_int_equal(fault_of("\x0f\xfc\xc1", 3), X86_MF); /* paddb */
    assert_int_equal(v->fip, 0x777);
    assert_int_equal(fault_of("\xdb\xe2", 2), -1); /* fnclex */
    assert_int_equal(fault_of("\x9b", 1), -1);
}

static void test_ldmxcsr_reserved(void **state) {
    arm();
    random_state(1, false);
    v->gpr[REG_RBX] = CROSS;
    memcpy(guest + CROSS, "\x80\x1f\x00\x80", 4);
    assert_int_equal(fault_of("\x0f\xae\x13", 3), X86_GP);
    memcpy(guest + CROSS, "\x80\x3f\x00\x00", 4);
    assert_int_equal(fault_of("\x0f\xae\x13", 3), -1);
    assert_int_equal(v->vec[MXCSR_AT + 1], 0x3f);
}

/* W chooses no operand size outside 64-bit mode, and vvvv's top bit no register. */
static void test_narrow_w(void **state) {
    arm();
    if (!(vec_supported() & X86_XCR0_AVX))
        return;
    set_mode(MODE_32);
    random_state(0, false);
    v->gpr[REG_RAX] = 0x11223344;
    /* vmovd eax -> xmm1 with W=1 */
    assert_int_equal(run_one(MODE_32, "\xc4\xe1\xf9\x6e\xc8", 5), SEM_NEXT);
    assert_memory_equal(v->vec + 176, "\x44\x33\x22\x11\0\0\0\0", 8);
    /* vpaddb xmm0, xmm9 (so read as xmm1), xmm2 */
    assert_int_equal(run_one(MODE_32, "\xc4\xe1\x31\xfc\xc2", 5), SEM_NEXT);
    for (unsigned k = 0; k < 16; k++)
        assert_int_equal(v->vec[160 + k], (uint8_t)(v->vec[176 + k] + v->vec[192 + k]));
    set_mode(MODE_64);
}

/* --- masked moves and gathers --- */

static void test_masked(void **state) {
    arm();
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

        random_state(0, false);
        for (unsigned e = 0; e < 8; e++) { /* small indices in xmm6, both halves */
            uint32_t idx = (uint32_t)(rnd() & 15);

            if (forms[k].bytes[3] & 1 && forms[k].bytes[0] == '\xc4' && e & 1)
                idx = 0;
            memcpy(v->vec + (e < 4 ? 160 : 576) + 96 + 4 * (e & 3), &idx, 4);
        }
        fill(guest + at - 64, 256, 0);
        memcpy(host_mem, guest + CROSS, sizeof(host_mem));
        v->gpr[REG_RBX] = v->gpr[REG_RDI] = at;
        memcpy(image, v->vec, sizeof(image));
        memcpy(r.gpr, v->gpr, sizeof(r.gpr));
        r.gpr[REG_RBX] = r.gpr[REG_RDI] = (uint64_t)(uintptr_t)host_mem + (at & 0xfff);
        r.rflags = v->rflags;
        assert_true(bind(MODE_64, (const uint8_t *)forms[k].bytes, forms[k].len, &i));
        assert_int_equal(host_execute(&r, i.bytes, i.len, image), -1);
        expect(i.exec(v, &i) == SEM_NEXT, &i, "status");
        vec_park(v);
        expect(!memcmp(image, v->vec, 6), &i, "x87 control");
        expect(!memcmp(image + 32, v->vec + 32, 128), &i, "mmx");
        expect(!memcmp(image + 160, v->vec + 160, 256), &i, "xmm");
        expect(!memcmp(image + 576, v->vec + 576, 256), &i, "ymm");
        expect(!memcmp(host_mem, guest + CROSS, sizeof(host_mem)), &i, "memory");
    }
}

/* Only selected elements fault; a gather keeps what came before the fault. */
static void test_masked_faults(void **state) {
    arm();
    uint32_t ones[8] = {~0u, ~0u, 0, 0, ~0u, 0, 0, 0};

    if (!(vec_supported() & X86_XCR0_AVX))
        return;
    random_state(0, false);
    v->gpr[REG_RBX] = DATA + 4096 - 8;
    memcpy(v->vec + 192, ones, 16); /* xmm2: the two elements before the hole */
    memset(v->vec + 576 + 32, 0, 16);
    assert_int_equal(fault_of("\xc4\xe2\x69\x2c\x0b", 5), -1);
    assert_memory_equal(v->vec + 176, guest + DATA + 4096 - 8, 8);
    assert_int_equal(fault_of("\xc4\xe2\x6d\x2e\x0b", 5), -1);
    memcpy(v->vec + 576 + 32, ones + 4, 16); /* and element 4, in the hole */
    assert_int_equal(fault_of("\xc4\xe2\x6d\x2e\x0b", 5), X86_PF);
    assert_int_equal(v->fault.error, X86_PF_W);
    assert_int_equal(v->fault.addr, DATA + 4096 + 8);

    /* vpgatherdd ymm1, [rbx+ymm6], ymm2: elements 0, 1 fine, 4 in the hole */
    for (unsigned e = 0; e < 8; e++) {
        uint32_t idx = e * 4;
        memcpy(v->vec + (e < 4 ? 160 : 576) + 96 + 4 * (e & 3), &idx, 4);
    }
    assert_int_equal(fault_of("\xc4\xe2\x6d\x90\x0c\x33", 6), X86_PF);
    assert_memory_equal(v->vec + 176, guest + DATA + 4096 - 8, 8);
    assert_memory_equal(v->vec + 192, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    assert_memory_equal(v->vec + 576 + 32, ones + 4, 4);
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

    memcpy(image, v->vec, sizeof(image));
    memcpy(host_mem, guest + CROSS, sizeof(host_mem));
    v->gpr[REG_RBX] = CROSS;
    v->gpr[REG_RAX] = mask;
    v->gpr[REG_RDX] = 0;
    memcpy(r.gpr, v->gpr, sizeof(r.gpr));
    r.gpr[REG_RBX] = (uint64_t)(uintptr_t)host_mem;
    r.rflags = 2;
    assert_true(bind(MODE_64, (const uint8_t *)bytes, len, &i));
    trap = host_execute(&r, i.bytes, i.len, image);
    rc = i.exec(v, &i);
    vec_park(v);
    expect((rc == SEM_FAULT ? v->fault.vector : -1) == trap, &i, "fault");
    memcpy(host_mem + ptr, guest + CROSS + ptr, ptr_end - ptr);
    for (unsigned k = 0; k < 1024; k++)
        if (host_mem[k] != guest[CROSS + k])
            fprintf(stderr, "byte %u: host %02x guest %02x\n", k, host_mem[k],
                    guest[CROSS + k]);
    expect(!memcmp(host_mem, guest + CROSS, sizeof(host_mem)), &i, "memory");
    expect(!memcmp(image, v->vec, 6), &i, "x87 control");
    expect(!memcmp(image + 24, v->vec + 24, 392), &i, "legacy state");
    expect(!memcmp(image + 576, v->vec + 576, 256), &i, "ymm");
}

static void test_xsave_family(void **state) {
    arm();
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

        if (!bind(MODE_64, (const uint8_t *)pairs[k].save, pairs[k].len, &i))
            continue;
        random_state(1, n & 8);
        if (n & 16) /* the host decides what is in use: let it see initial values */
            vec_reset(v);
        fill(guest + CROSS, 1024, 0);
        memset(guest + CROSS + 512, 0, 64);
        compare_state(pairs[k].save, pairs[k].len, 6, 24, mask);
        random_state(2, false);
        compare_state(pairs[k].restore, pairs[k].len, 6, 24, mask);
    }
}

/* What counts as in use follows from the values, not from what the host has seen: the
 * engines execute different host code on the way to the same values. */
static void test_xsave_in_use(void **state) {
    arm();
    const char *xsavec = "\x48\x0f\xc7\x23";
    const uint64_t all = 7;
    struct insn i;
    uint64_t bv;

    if (!bind(MODE_64, (const uint8_t *)xsavec, 4, &i))
        skip();
    for (unsigned n = 0; n < 4; n++) {
        static const uint16_t at[] = {0, 32 + 16 * 7, 160 + 16 * 15 + 8, 576 + 16 * 3};
        uint64_t want[] = {0, 1, 2, 4};

        vec_reset(v);
        v->vec[at[n]] ^= n ? 0x80 : 0;
        memcpy(v->vec + 512, &all, 8);
        memset(guest + CROSS, 0x5a, 1024);
        v->gpr[REG_RBX] = CROSS;
        v->gpr[REG_RAX] = 7;
        v->gpr[REG_RDX] = 0;
        assert_int_equal(i.exec(v, &i), SEM_NEXT);
        memcpy(&bv, guest + CROSS + 512, 8);
        assert_int_equal(bv, want[n]);
        assert_int_equal(guest[CROSS + 160], n == 2 ? 0 : 0x5a);
    }
}

static void test_xrstor_checks(void **state) {
    arm();
    static const struct {
        unsigned at;
        uint64_t value;
    } bad[] = {{512, 8},          {520, 1},         {528, 1},
               {512, 1ull << 62}, {24, 0x80001f80}, {520, 1ull << 63 | 0x100}};
    const char *xrstor = "\x48\x0f\xae\x2b";

    for (unsigned n = 0; n < ARRAY_SIZE(bad); n++) {
        random_state(1, false);
        memset(guest + CROSS, 0, 1024);
        memcpy(guest + CROSS + bad[n].at, &bad[n].value, 8);
        compare_state(xrstor, 4, 0, 0, 7);
        assert_int_equal(v->fault.vector, X86_GP);
    }
    v->gpr[REG_RBX] = CROSS + 16;
    assert_int_equal(fault_of(xrstor, 4), X86_GP);
    v->gpr[REG_RBX] = DATA + 4096 - 512;
    assert_int_equal(fault_of(xrstor, 4), X86_PF);
    assert_int_equal(fault_of("\x48\x0f\xae\x23", 4), X86_PF); /* xsave */
    v->gpr[REG_RBX] = CROSS + 8;
    assert_int_equal(fault_of("\x0f\xae\x03", 3), X86_GP); /* fxsave */
}

static void test_x87_environment(void **state) {
    arm();
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

        random_state(n & 3, false);
        fill(guest + CROSS, 128, 0);
        put16(guest + CROSS, 0x37f);
        compare_state(forms[k].bytes, forms[k].len, forms[k].ptr, forms[k].ptr_end, 0);
    }
}

/* The pointers that a save shows are the guest's. FXSAVE of AMD's CPUs shows them with an
 * exception pending; unit/sem_vendor has what it shows without. */
static void test_x87_pointers(void **state) {
    arm();
    uint32_t env[7];
    uint64_t x[2];

    set_mode(MODE_32);
    random_state(1, false);
    v->gpr[REG_RBX] = CROSS + 256;
    v->rip = 0x1000;
    assert_int_equal(fault_of("\xd8\x03", 2), -1); /* fadd dword [rbx] */
    v->gpr[REG_RBX] = CROSS;
    v->rip = 0x1002;
    assert_int_equal(fault_of("\xd9\x33", 2), -1); /* fnstenv */
    memcpy(env, guest + CROSS, sizeof(env));
    assert_int_equal(env[3], 0x1000);
    assert_int_equal(env[4], 0x003u << 16 | v->seg[SEG_CS].sel);
    assert_int_equal(env[5], CROSS + 256);
    assert_int_equal(env[6] & 0xffff, v->seg[SEG_DS].sel);
    set_mode(MODE_64);
    memcpy(v->vec, "\x7e\x03\x81\x80", 4); /* invalid operation, pending */
    assert_int_equal(fault_of("\x48\x0f\xae\x03", 4), -1); /* fxsave64 */
    memcpy(x, guest + CROSS + 8, sizeof(x));
    assert_int_equal(x[0], 0x1000);
    assert_int_equal(x[1], CROSS + 256);
}

/* The same instruction is built once, whatever its address operand and register. */
static void test_stubs_shared(void **state) {
    arm();
    uint64_t stubs, runs;

    random_state(1, false);
    v->gpr[REG_RBX] = v->gpr[REG_RCX] = CROSS;
    assert_int_equal(fault_of("\x0f\x10\x03", 3), -1);
    assert_int_equal(fault_of("\x66\x0f\x7e\xc1", 4), -1);
    v->gpr[REG_RCX] = CROSS;
    stubs = counters.native_stubs;
    runs = counters.native_runs;
    assert_int_equal(fault_of("\x0f\x10\x01", 3), -1);
    assert_int_equal(fault_of("\x66\x0f\x7e\xc2", 4), -1);
    assert_int_equal(counters.native_stubs, stubs);
    assert_int_equal(counters.native_runs, runs + 2);
}

/* State stays live from one instruction to the next, also while a stub is made. */
static void test_live(void **state) {
    static const char *const forms[] = {"\x66\x0f\xfe\xc0", "\x66\x0f\xfa\xc0",
                                        "\x66\x0f\x3a\x0e\xc0\x5a"};
    _Alignas(64) uint8_t image[1024];
    uint64_t stubs = counters.native_stubs;
    struct insn i;

    arm();
    random_state(0, false);
    memcpy(image, v->vec, sizeof(image));
    for (unsigned k = 0; k < ARRAY_SIZE(forms); k++) {
        assert_true(bind(MODE_64, (const uint8_t *)forms[k], k == 2 ? 6 : 4, &i));
        vec_load(v);
        assert_int_equal(i.exec(v, &i), SEM_NEXT);
        assert_true(v->vec_live);
        vec_park(v);
        assert_memory_equal(image + 176, v->vec + 176, 240);
        assert_memory_equal(image + 576, v->vec + 576, 256);
    }
    assert_int_equal(counters.native_stubs, stubs + 3);
}

/* Real mode: linear pointers, 16 and 32 bits; no VEX there. */
static void test_real_mode(void **state) {
    uint64_t cr0 = v->cr0, efer = v->efer;
    uint16_t env[7];

    arm();
    v->cr0 &= ~(uint64_t)(X86_CR0_PE | X86_CR0_PG);
    v->efer = 0;
    set_mode(MODE_16);
    random_state(1, false);
    v->seg[SEG_CS].sel = 0xf234;
    v->seg[SEG_DS].sel = 0xabcd;
    v->gpr[REG_RBX] = 0x8000;
    v->rip = 0x5678;
    assert_int_equal(fault_of("\xd8\x07", 2), -1); /* fadd dword [bx] */
    v->gpr[REG_RBX] = 0x9000;
    assert_int_equal(fault_of("\xd9\x37", 2), -1); /* fnstenv */
    memcpy(env, guest + 0x9000, sizeof(env));
    assert_int_equal(env[3], (0xf2340 + 0x5678) & 0xffff);
    assert_int_equal(env[4], 0xf000 | 0x007);
    assert_int_equal(env[5], (0xabcd0 + 0x8000) & 0xffff);
    assert_int_equal(env[6], 0xb000);
    assert_int_equal(fault_of("\xd9\x27", 2), -1); /* fldenv */
    assert_int_equal(v->fip, 0xf2340 + 0x5678);
    assert_int_equal(v->fop, 7);
    v->cr0 = cr0;
    v->efer = efer;
    set_mode(MODE_64);
}

/* A full arena: one scratch stub, rebuilt at each use, and earlier stubs still good. */
static void test_arena_full(void **state) {
    struct insn early, i[2];
    uint64_t stubs;

    arm();
    random_state(0, false);
    assert_true(bind(MODE_64, (const uint8_t *)"\x0f\x57\xc0", 3, &early)); /* xorps */
    assert_int_equal(early.exec(v, &early), SEM_NEXT);
    for (unsigned n = 0; n < 1u << 16; n++) {
        uint8_t b[6] = {0x66, 0x40, 0x0f, 0x70, 0xc0, (uint8_t)n}; /* pshufd */

        b[1] |= (uint8_t)((n >> 14 & 1) << 2 | (n >> 15));
        b[4] |= (uint8_t)(n >> 8 & 63);
        assert_true(bind(MODE_64, b, sizeof(b), i));
        assert_int_equal(i->exec(v, i), SEM_NEXT);
    }
    vec_park(v);
    stubs = counters.native_stubs;
    assert_true(stubs > 60000 && stubs < 1u << 16);
    assert_true(bind(MODE_64, (const uint8_t *)"\xf2\x0f\x70\xc1\x1b", 5, &i[0]));
    assert_true(bind(MODE_64, (const uint8_t *)"\xf3\x0f\x70\xc1\x1b", 5, &i[1]));
    for (unsigned n = 0; n < 6; n++) {
        random_state(0, false);
        assert_int_equal(i[n & 1].exec(v, &i[n & 1]), SEM_NEXT);
        vec_park(v);
        for (unsigned k = 0; k < 8; k++) {
            bool low = k < 4, turned = low == !(n & 1); /* pshuflw, pshufhw */
            unsigned from = turned ? (low ? 3 - k : 11 - k) : k;

            assert_memory_equal(v->vec + 160 + 2 * k, v->vec + 176 + 2 * from, 2);
        }
    }
    assert_int_equal(counters.native_stubs, stubs);
    random_state(0, false);
    assert_int_equal(early.exec(v, &early), SEM_NEXT);
    vec_park(v);
    assert_int_equal(v->vec[160] | v->vec[175], 0);
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

    arm();
    v->hooks = &hooks;
    set_pte(PT + 8 * 0x120, 0xd0000007);
    mmu_flush_all(v);
    fill(device, sizeof(device), 0);
    random_state(0, false);
    v->gpr[REG_RBX] = 0x120000;
    assert_int_equal(fault_of("\x0f\x10\x0b", 3), -1); /* movups xmm1, [rbx] */
    assert_memory_equal(v->vec + 176, device, 16);
    assert_int_not_equal(device_reads, 0);
    device_reads = 0;
    v->gpr[REG_RBX] = 0x120020;
    assert_int_equal(fault_of("\x0f\x11\x13", 3), -1); /* movups [rbx], xmm2 */
    assert_memory_equal(v->vec + 192, device + 32, 16);
    assert_int_not_equal(device_writes, 0);
    assert_int_equal(device_reads, 0);
    v->hooks = NULL;
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
        cmocka_unit_test(test_all_64),
        cmocka_unit_test(test_all_64_unmasked),
        cmocka_unit_test(test_all_32),
        cmocka_unit_test(test_all_32_unmasked),
        cmocka_unit_test(test_foreign_faults),
        cmocka_unit_test(test_arena_full),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
