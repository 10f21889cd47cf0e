/*
 * Integer semantics against the host CPU: each encoding runs natively in a small stub and
 * through decode + sem, with edge and random operands, in registers and in memory.
 * Everything must agree: registers, memory, all six flags (also undefined ones), #DE.
 */
#undef _GNU_SOURCE /* its <signal.h> has names like ours */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>

#include "lib/exec.h"
#include "lib/rnd.h"
#include "lib/unit.h"
#include "sem/sem.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/exception.h"

enum { CODE = 0x100000, DATA = 0x200800, STACK = 0x300000 };

static struct vcpu V;
static struct guest G;

static uint64_t edge(void) {
    static const uint64_t list[] = {0,
                                    1,
                                    2,
                                    0x7f,
                                    0x80,
                                    0xff,
                                    0x7fff,
                                    0x8000,
                                    0xffff,
                                    0x7fffffff,
                                    0x80000000,
                                    0xffffffff,
                                    0x100000000,
                                    0x7fffffffffffffff,
                                    0x8000000000000000,
                                    ~0ull,
                                    ~1ull,
                                    31,
                                    32,
                                    33,
                                    63,
                                    64,
                                    9,
                                    17};
    uint64_t r = rnd();
    return r & 1 ? list[r / 2 % ARRAY_SIZE(list)] : rnd() >> (r / 2 % 64);
}

static uint8_t *ram(uint64_t a) {
    return mem_host(V.mem, gpa(a), 1);
}

/* Flat memory, identity-mapped by 2 MiB pages when LONG_MODE. */
static void setup(bool long_mode) {
    vcpu_reset(&V);
    for (unsigned s = 0; s < SEG_COUNT; s++) {
        V.seg[s].base = 0;
        V.seg[s].limit = 0xffffffff;
        V.seg[s].ar |= X86_AR_DB | X86_AR_G;
    }
    V.cr0 |= X86_CR0_PE;
    if (long_mode) {
        guest_put64(&G, 0x1000, 0x2003);
        guest_put64(&G, 0x2000, 0x3003);
        for (uint64_t n = 0; n < 4; n++)
            guest_put64(&G, 0x3000 + n * 8, n << 21 | 0x83);
        V.cr3 = 0x1000;
        V.cr4 |= X86_CR4_PAE;
        V.efer |= X86_EFER_LME | X86_EFER_LMA;
        V.cr0 |= X86_CR0_PG;
        V.seg[SEG_CS].ar = (uint16_t)((V.seg[SEG_CS].ar & ~X86_AR_DB) | X86_AR_L);
    }
    vcpu_update_mode(&V);
    mmu_mode_changed(&V);
    mmu_context_changed(&V);
    V.rip = CODE;
    V.gpr[REG_RSP] = STACK;
}

static int group_setup(void **state) {
    const struct guest_config cfg = {.ram = 8 << 20, .vcpu = &V};

    guest_new(&G, &cfg);
    return 0;
}

static int group_teardown(void **state) {
    guest_free(&G);
    return 0;
}

static int run(const uint8_t *bytes, unsigned len) {
    int rc = exec_bytes(&V, bytes, len);

    if (rc == SEM_NEXT || rc == SEM_STOP)
        V.rip += len;
    return rc;
}

/* --- the native side --- */

struct native {
    uint64_t gpr[8]; /* not rsp */
    uint64_t flags;
};

static uint8_t *stub;
static sigjmp_buf on_de;

static void de_handler(int sig) {
    siglongjmp(on_de, 1);
}

static uint8_t *emit(uint8_t *p, const void *bytes, unsigned n) {
    memcpy(p, bytes, n);
    return p + n;
}

static void build_stub(const uint8_t *insn, unsigned len) {
    uint8_t *p = stub;
    p = emit(p, "\x41\x57\x53\x55\x49\x89\xff", 7); /* push r15,rbx,rbp; mov r15,rdi */
    p = emit(p, "\x41\xff\x77\x40\x9d", 5);         /* push [r15+64]; popfq */
    for (unsigned r = 0; r < 8; r++)
        if (r != REG_RSP) {
            uint8_t ld[] = {0x49, 0x8b, (uint8_t)(0x47 | r << 3), (uint8_t)(r * 8)};
            p = emit(p, ld, 4);
        }
    p = emit(p, insn, len);
    for (unsigned r = 0; r < 8; r++)
        if (r != REG_RSP) {
            uint8_t st[] = {0x49, 0x89, (uint8_t)(0x47 | r << 3), (uint8_t)(r * 8)};
            p = emit(p, st, 4);
        }
    p = emit(p, "\x9c\x41\x8f\x47\x40", 5); /* pushfq; pop [r15+64] */
    emit(p, "\xfc\x5d\x5b\x41\x5f\xc3", 6);
}

/* Same start, both ways; RSI points at the data. */
static void compare(const uint8_t *insn, unsigned len) {
    static uint8_t native_mem[512] __attribute__((aligned(64)));
    struct native n;
    uint8_t *mem = ram(DATA);

    for (unsigned r = 0; r < 8; r++)
        n.gpr[r] = edge();
    n.flags = 2 | (rnd() & X86_FL_STATUS);
    for (unsigned k = 0; k < 64; k++)
        guest_put64(&G, DATA - 256 + k * 8, edge());
    memcpy(native_mem, mem - 256, 512);
    memcpy(V.gpr, n.gpr, sizeof n.gpr);
    V.gpr[REG_RSP] = STACK;
    V.gpr[REG_RSI] = DATA;
    V.rflags = n.flags;
    n.gpr[REG_RSI] = (uintptr_t)(native_mem + 256);
    V.rip = CODE;
    struct native start = n;
    int rc = run(insn, len);
    bool de = false;
    if (!sigsetjmp(on_de, 1))
        ((void (*)(struct native *))(void *)stub)(&n);
    else
        de = true;
    const char *what = NULL;
    if (de != (rc == SEM_FAULT))
        what = "fault";
    for (unsigned r = 0; !de && r < 8; r++)
        if (r != REG_RSP && r != REG_RSI && V.gpr[r] != n.gpr[r])
            what = "register";
    if (!de && ((V.rflags ^ n.flags) & X86_FL_STATUS))
        what = "flags";
    if (memcmp(native_mem, mem - 256, 512))
        what = "memory";
    if (!what)
        return;
    fprintf(stderr, "%s differs, flags %llx want %llx from %llx:", what,
            (unsigned long long)V.rflags, (unsigned long long)n.flags,
            (unsigned long long)start.flags);
    for (unsigned k = 0; k < len; k++)
        fprintf(stderr, " %02x", insn[k]);
    for (unsigned r = 0; r < 8; r++)
        fprintf(stderr, "\n  r%u %016llx -> %016llx want %016llx", r,
                (unsigned long long)start.gpr[r], (unsigned long long)V.gpr[r],
                (unsigned long long)n.gpr[r]);
    fprintf(stderr, "\n");
    fail();
}

/* An encoding: prefix bytes come first, then OPCODE, ModRM, immediates. */
struct form {
    const char *opcode;
    uint8_t len;
    int8_t ext;  /* /digit, or -1: any register */
    uint8_t imm; /* bytes; 'z' of 4 or 2 by operand size is 0xff */
    bool byte;   /* the byte form: no 66, no REX.W */
};

static const struct form forms[] = {
    {"\x00", 1, -1, 0, true},      {"\x01", 1, -1, 0, false},
    {"\x02", 1, -1, 0, true},      {"\x03", 1, -1, 0, false},
    {"\x08", 1, -1, 0, true},      {"\x09", 1, -1, 0, false},
    {"\x0b", 1, -1, 0, false},     {"\x10", 1, -1, 0, true},
    {"\x11", 1, -1, 0, false},     {"\x13", 1, -1, 0, false},
    {"\x18", 1, -1, 0, true},      {"\x19", 1, -1, 0, false},
    {"\x1b", 1, -1, 0, false},     {"\x20", 1, -1, 0, true},
    {"\x21", 1, -1, 0, false},     {"\x23", 1, -1, 0, false},
    {"\x28", 1, -1, 0, true},      {"\x29", 1, -1, 0, false},
    {"\x2b", 1, -1, 0, false},     {"\x30", 1, -1, 0, true},
    {"\x31", 1, -1, 0, false},     {"\x38", 1, -1, 0, true},
    {"\x39", 1, -1, 0, false},     {"\x3b", 1, -1, 0, false},
    {"\x84", 1, -1, 0, true},      {"\x85", 1, -1, 0, false},
    {"\x86", 1, -1, 0, true},      {"\x87", 1, -1, 0, false},
    {"\x88", 1, -1, 0, true},      {"\x89", 1, -1, 0, false},
    {"\x8a", 1, -1, 0, true},      {"\x8b", 1, -1, 0, false},
    {"\x80", 1, 0, 1, true},       {"\x80", 1, 5, 1, true},
    {"\x81", 1, 0, 0xff, false},   {"\x81", 1, 7, 0xff, false},
    {"\x83", 1, 2, 1, false},      {"\x83", 1, 3, 1, false},
    {"\x83", 1, 4, 1, false},      {"\x83", 1, 6, 1, false},
    {"\x83", 1, 7, 1, false},      {"\xc6", 1, 0, 1, true},
    {"\xc7", 1, 0, 0xff, false},   {"\xc0", 1, 0, 1, true},
    {"\xc0", 1, 2, 1, true},       {"\xc0", 1, 3, 1, true},
    {"\xc1", 1, 0, 1, false},      {"\xc1", 1, 1, 1, false},
    {"\xc1", 1, 2, 1, false},      {"\xc1", 1, 3, 1, false},
    {"\xc1", 1, 4, 1, false},      {"\xc1", 1, 5, 1, false},
    {"\xc1", 1, 6, 1, false},      {"\xc1", 1, 7, 1, false},
    {"\xd0", 1, 4, 0, true},       {"\xd1", 1, 0, 0, false},
    {"\xd1", 1, 3, 0, false},      {"\xd1", 1, 5, 0, false},
    {"\xd1", 1, 7, 0, false},      {"\xd2", 1, 0, 0, true},
    {"\xd2", 1, 1, 0, true},       {"\xd2", 1, 2, 0, true},
    {"\xd2", 1, 3, 0, true},       {"\xd2", 1, 4, 0, true},
    {"\xd2", 1, 5, 0, true},       {"\xd2", 1, 7, 0, true},
    {"\xd3", 1, 0, 0, false},      {"\xd3", 1, 1, 0, false},
    {"\xd3", 1, 2, 0, false},      {"\xd3", 1, 3, 0, false},
    {"\xd3", 1, 4, 0, false},      {"\xd3", 1, 5, 0, false},
    {"\xd3", 1, 7, 0, false},      {"\xf6", 1, 0, 1, true},
    {"\xf6", 1, 2, 0, true},       {"\xf6", 1, 3, 0, true},
    {"\xf6", 1, 4, 0, true},       {"\xf6", 1, 5, 0, true},
    {"\xf6", 1, 6, 0, true},       {"\xf6", 1, 7, 0, true},
    {"\xf7", 1, 0, 0xff, false},   {"\xf7", 1, 2, 0, false},
    {"\xf7", 1, 3, 0, false},      {"\xf7", 1, 4, 0, false},
    {"\xf7", 1, 5, 0, false},      {"\xf7", 1, 6, 0, false},
    {"\xf7", 1, 7, 0, false},      {"\xfe", 1, 0, 0, true},
    {"\xfe", 1, 1, 0, true},       {"\xff", 1, 0, 0, false},
    {"\xff", 1, 1, 0, false},      {"\x69", 1, -1, 0xff, false},
    {"\x6b", 1, -1, 1, false},     {"\x0f\xaf", 2, -1, 0, false},
    {"\x0f\xb0", 2, -1, 0, true},  {"\x0f\xb1", 2, -1, 0, false},
    {"\x0f\xc0", 2, -1, 0, true},  {"\x0f\xc1", 2, -1, 0, false},
    {"\x0f\xa4", 2, -1, 1, false}, {"\x0f\xa5", 2, -1, 0, false},
    {"\x0f\xac", 2, -1, 1, false}, {"\x0f\xad", 2, -1, 0, false},
    {"\x0f\xba", 2, 4, 1, false},  {"\x0f\xba", 2, 5, 1, false},
    {"\x0f\xba", 2, 6, 1, false},  {"\x0f\xba", 2, 7, 1, false},
    {"\x0f\xbc", 2, -1, 0, false}, {"\x0f\xbd", 2, -1, 0, false},
    {"\x0f\xb6", 2, -1, 0, false}, {"\x0f\xb7", 2, -1, 0, false},
    {"\x0f\xbe", 2, -1, 0, false}, {"\x0f\xbf", 2, -1, 0, false},
    {"\x63", 1, -1, 0, false},     {"\x0f\x44", 2, -1, 0, false},
    {"\x0f\x4c", 2, -1, 0, false}, {"\x0f\x47", 2, -1, 0, false},
    {"\x0f\x9f", 2, 0, 0, true},   {"\x0f\x93", 2, 0, 0, true},
    {"\x0f\xc7", 2, 1, 0, true},
};

static void try_form(const struct form *f, const char *prefix) {
    for (unsigned round = 0; round < 120; round++) {
        uint8_t b[16];
        unsigned n = 0;
        unsigned reg = f->ext >= 0 ? (unsigned)f->ext : (unsigned)(rnd() % 8);
        unsigned rm = (unsigned)(rnd() % 8), kind = (unsigned)(rnd() % 3);
        bool mem = kind == 0 || f->opcode[1] == '\xc7';

        /* rsp and rsi (and, by bytes, ah..bh in place of spl..) keep out of the way. */
        if (f->ext < 0 && (reg == REG_RSP || (reg == REG_RSI)) && !f->byte)
            reg = REG_RBX;
        if (f->byte && f->ext < 0 && reg == 6)
            reg = 7;
        if (rm == REG_RSP || rm == REG_RSI)
            rm = REG_RDX;
        for (const char *p = prefix; *p; p++)
            b[n++] = (uint8_t)*p;
        n = (unsigned)(emit(b + n, f->opcode, f->len) - b);
        b[n++] = (uint8_t)(mem ? reg << 3 | REG_RSI : 0xc0 | reg << 3 | rm);
        unsigned imm = f->imm != 0xff ? f->imm : *prefix == '\x66' ? 2 : 4;
        for (unsigned k = 0; k < imm; k++)
            b[n++] = (uint8_t)rnd();
        build_stub(b, n);
        for (unsigned k = 0; k < 12; k++)
            compare(b, n);
    }
}

static void test_against_host(void **state) {
    struct sigaction sa = {.sa_handler = de_handler};

    sigaction(SIGFPE, &sa, NULL);
    stub = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(stub, MAP_FAILED);
    setup(true);
    for (size_t k = 0; k < ARRAY_SIZE(forms); k++) {
        try_form(&forms[k], "");
        if (!forms[k].byte) {
            try_form(&forms[k], "\x66");
            try_form(&forms[k], "\x48");
        }
    }
}

static void test_prefixed_against_host(void **state) {
    static const struct {
        const char *bytes;
        unsigned len;
        enum cpuid_feature feature;
    } list[] = {
        {"\xf3\x0f\xb8\xc1", 4, CPUID_F_POPCNT},
        {"\xf3\x48\x0f\xb8\xc1", 5, CPUID_F_POPCNT},
        {"\xf3\x0f\xbd\xc1", 4, CPUID_F_LZCNT},
        {"\xf3\x48\x0f\xbc\x06", 5, CPUID_F_BMI1},
        {"\xf2\x0f\x38\xf0\xc1", 5, CPUID_F_SSE42},
        {"\xf2\x48\x0f\x38\xf1\x06", 6, CPUID_F_SSE42},
        {"\x66\x0f\x38\xf0\x06", 5, CPUID_F_MOVBE},
        {"\x48\x0f\x38\xf1\x06", 5, CPUID_F_MOVBE},
        {"\xc4\xe2\x70\xf2\xc2", 5, CPUID_F_BMI1}, /* andn eax, ecx, edx */
        {"\xc4\xe2\xf0\xf2\xc2", 5, CPUID_F_BMI1},
        {"\xc4\xe2\x78\xf3\xd9", 5, CPUID_F_BMI1},     /* blsi eax, ecx */
        {"\xc4\xe2\xf8\xf3\xd1", 5, CPUID_F_BMI1},     /* blsmsk rax, rcx */
        {"\xc4\xe2\xf8\xf3\xc9", 5, CPUID_F_BMI1},     /* blsr rax, rcx */
        {"\xc4\xe2\x70\xf7\xc2", 5, CPUID_F_BMI1},     /* bextr eax, edx, ecx */
        {"\xc4\xe2\xf0\xf5\xc2", 5, CPUID_F_BMI2},     /* bzhi rax, rdx, rcx */
        {"\xc4\xe2\xf3\xf5\xc2", 5, CPUID_F_BMI2},     /* pdep rax, rcx, rdx */
        {"\xc4\xe2\x72\xf5\xc2", 5, CPUID_F_BMI2},     /* pext eax, ecx, edx */
        {"\xc4\xe2\xf3\xf6\xc3", 5, CPUID_F_BMI2},     /* mulx rax, rcx, rbx */
        {"\xc4\xe2\x72\xf7\xc2", 5, CPUID_F_BMI2},     /* sarx eax, edx, ecx */
        {"\xc4\xe2\xf1\xf7\xc2", 5, CPUID_F_BMI2},     /* shlx rax, rdx, rcx */
        {"\xc4\xe2\x73\xf7\x06", 5, CPUID_F_BMI2},     /* shrx eax, [rsi], ecx */
        {"\xc4\xe3\xfb\xf0\xc1\x1b", 6, CPUID_F_BMI2}, /* rorx rax, rcx, 27 */
        {"\x66\x0f\x38\xf6\xc1", 5, CPUID_F_ADX},
        {"\xf3\x48\x0f\x38\xf6\xc1", 6, CPUID_F_ADX},
        {"\x98", 1, 0},
        {"\x48\x99", 2, 0},
        {"\x9e", 1, 0},
        {"\x9f", 1, 0},
        {"\xf5", 1, 0},
        {"\x0f\xc8", 2, 0},
        {"\x48\x0f\xc9", 3, 0},
        {"\x66\x0f\xc9", 3, 0},
        {"\x0f\xa3\xc8", 3, 0},
        {"\x48\x0f\xab\xc8", 4, 0},
        {"\x66\x0f\xbb\xc8", 4, 0},
        {"\x48\x8d\x44\x8b\x11", 5, 0},
        {"\x67\x8d\x44\x8b\x11", 5, 0},
    };

    setup(true);
    for (size_t k = 0; k < ARRAY_SIZE(list); k++) {
        if (list[k].feature && !cpuid_has(V.cpuid, list[k].feature))
            continue;
        build_stub((const uint8_t *)list[k].bytes, list[k].len);
        for (unsigned n = 0; n < 500; n++)
            compare((const uint8_t *)list[k].bytes, list[k].len);
    }
}

/* The manual's text, word for word (Intel SDM volume 2, "DAA" and "DAS"). */
static void manual_daa_das(bool add, uint8_t *al, bool *cf, bool *af) {
    uint8_t old = *al;
    bool old_cf = *cf;

    *cf = false;
    if ((*al & 15) > 9 || *af) {
        unsigned t = add ? *al + 6u : *al - 6u;
        *al = (uint8_t)t;
        *cf = old_cf || t > 255;
        *af = true;
    } else {
        *af = false;
    }
    if (old > 0x99 || old_cf) {
        *al = (uint8_t)(add ? *al + 0x60 : *al - 0x60);
        *cf = true;
    }
}

static void test_decimal(void **state) {
    setup(false);
    for (unsigned k = 0; k < 256 * 4 * 2; k++) {
        bool add = k & 1, cf = k & 2, af = k & 4;
        uint8_t al = (uint8_t)(k >> 3), op = add ? 0x27 : 0x2f;
        V.gpr[REG_RAX] = 0x1200 | al;
        V.rflags = 2 | (cf ? X86_FL_CF : 0) | (af ? X86_FL_AF : 0);
        assert_int_equal(run(&op, 1), SEM_NEXT);
        manual_daa_das(add, &al, &cf, &af);
        assert_int_equal(V.gpr[REG_RAX], 0x1200 | al);
        assert_int_equal(!!(V.rflags & X86_FL_CF), cf);
        assert_int_equal(!!(V.rflags & X86_FL_AF), af);
        assert_int_equal(!!(V.rflags & X86_FL_ZF), !al);
        assert_int_equal(!!(V.rflags & X86_FL_SF), al >> 7);
        assert_int_equal(!!(V.rflags & X86_FL_PF), !__builtin_parity(al));
    }
    V.gpr[REG_RAX] = 0x10f;
    assert_int_equal(run((const uint8_t *)"\x37", 1), SEM_NEXT); /* aaa */
    assert_int_equal(V.gpr[REG_RAX], 0x205);
    assert_true(V.rflags & X86_FL_CF);
    V.gpr[REG_RAX] = 77;
    assert_int_equal(run((const uint8_t *)"\xd4\x0a", 2), SEM_NEXT); /* aam */
    assert_int_equal(V.gpr[REG_RAX], 0x707);
    assert_int_equal(run((const uint8_t *)"\xd5\x0a", 2), SEM_NEXT); /* aad */
    assert_int_equal(V.gpr[REG_RAX], 77);
    assert_int_equal(run((const uint8_t *)"\xd4\x00", 2), SEM_FAULT);
    assert_int_equal(V.fault.vector, X86_DE);
}

static void test_stack(void **state) {
    uint64_t x;

    setup(true);
    assert_int_equal(run((const uint8_t *)"\x54", 1), SEM_NEXT); /* push rsp */
    memcpy(&x, ram(STACK - 8), 8);
    assert_int_equal(x, STACK);
    guest_put64(&G, STACK - 8, 0x1234);
    assert_int_equal(run((const uint8_t *)"\x5c", 1), SEM_NEXT); /* pop rsp */
    assert_int_equal(V.gpr[REG_RSP], 0x1234);
    V.gpr[REG_RSP] = STACK - 8; /* pop [rsp+8]: the address is taken after */
    assert_int_equal(run((const uint8_t *)"\x8f\x44\x24\x08", 4), SEM_NEXT);
    memcpy(&x, ram(STACK + 8), 8);
    assert_int_equal(x, 0x1234);
    V.gpr[REG_RSP] = STACK; /* a store that faults leaves rsp */
    V.gpr[REG_RBX] = 0x40000000;
    assert_int_equal(run((const uint8_t *)"\x8f\x03", 2), SEM_FAULT);
    assert_int_equal(V.fault.vector, X86_PF);
    assert_int_equal(V.gpr[REG_RSP], STACK);
    V.gpr[REG_RSP] = 0x8000000000000000; /* not canonical: #SS */
    assert_int_equal(run((const uint8_t *)"\x50", 1), SEM_FAULT);
    assert_int_equal(V.fault.vector, X86_SS);
    V.gpr[REG_RSP] = STACK;
    V.gpr[REG_RBP] = STACK + 0x100;
    guest_put64(&G, STACK + 0xf8, 0xaa);
    assert_int_equal(run((const uint8_t *)"\xc8\x20\x00\x02", 4), SEM_NEXT); /* enter */
    assert_int_equal(V.gpr[REG_RBP], STACK - 8);
    assert_int_equal(V.gpr[REG_RSP], STACK - 24 - 0x20);
    memcpy(&x, ram(STACK - 16), 8);
    assert_int_equal(x, 0xaa);
    assert_int_equal(run((const uint8_t *)"\xc9", 1), SEM_NEXT); /* leave */
    assert_int_equal(V.gpr[REG_RSP], STACK);
    assert_int_equal(V.gpr[REG_RBP], STACK + 0x100);
}

/* bt with a register offset walks through memory, also downwards. */
static void test_bit_string(void **state) {
    setup(true);
    memset(ram(DATA - 64), 0, 128);
    V.gpr[REG_RSI] = DATA;
    V.gpr[REG_RAX] = (uint64_t)-65;
    assert_int_equal(run((const uint8_t *)"\x48\x0f\xab\x06", 4), SEM_NEXT);
    assert_int_equal(*ram(DATA - 9), 0x80);
    V.gpr[REG_RAX] = 100;
    assert_int_equal(run((const uint8_t *)"\x0f\xbb\x06", 3), SEM_NEXT);
    assert_int_equal(*ram(DATA + 12), 0x10);
}

static int run_rep(const uint8_t *b, unsigned len) {
    int rc;
    while ((rc = run(b, len)) == SEM_REPEAT)
        ;
    return rc;
}

static void test_strings(void **state) {
    const uint64_t end = 8ull << 20; /* of what is mapped */

    setup(true);
    for (unsigned n = 0; n < 20000; n++)
        *ram(0x400000 + n) = (uint8_t)(n * 7);
    V.gpr[REG_RSI] = 0x400003;
    V.gpr[REG_RDI] = 0x410ff1;
    V.gpr[REG_RCX] = 9999;
    assert_int_equal(run_rep((const uint8_t *)"\xf3\xa4", 2), SEM_NEXT);
    assert_memory_equal(ram(0x410ff1), ram(0x400003), 9999);
    assert_int_equal(V.gpr[REG_RCX], 0);
    assert_int_equal(V.gpr[REG_RSI], 0x400003 + 9999);
    /* An overlap by one repeats the first byte. */
    V.gpr[REG_RSI] = 0x400000;
    V.gpr[REG_RDI] = 0x400001;
    V.gpr[REG_RCX] = 9000;
    *ram(0x400000) = 0x5a;
    assert_int_equal(run_rep((const uint8_t *)"\xf3\xa4", 2), SEM_NEXT);
    for (unsigned n = 0; n <= 9000; n++)
        assert_int_equal(*ram(0x400000 + n), 0x5a);
    /* A fault in the middle: everything before it is done. */
    V.gpr[REG_RAX] = 0x1122334455667788;
    V.gpr[REG_RDI] = end - 4096 - 16;
    V.gpr[REG_RCX] = 1000;
    assert_int_equal(run_rep((const uint8_t *)"\xf3\x48\xab", 3), SEM_FAULT);
    assert_int_equal(V.fault.addr, end);
    assert_int_equal(V.gpr[REG_RDI], end);
    assert_int_equal(V.gpr[REG_RCX], 1000 - (4096 + 16) / 8);
    assert_int_equal(V.rip, CODE + 4);
    assert_int_equal(*ram(end - 1), 0x11);
    /* Downwards. */
    V.rflags |= X86_FL_DF;
    V.gpr[REG_RSI] = 0x410ff1 + 9996;
    V.gpr[REG_RDI] = 0x430000;
    V.gpr[REG_RCX] = 2500;
    assert_int_equal(run_rep((const uint8_t *)"\xf3\xa5", 2), SEM_NEXT);
    assert_memory_equal(ram(0x430000 - 4 * 2499), ram(0x410ff1 + 9996 - 4 * 2499), 10000);
    assert_int_equal(V.gpr[REG_RDI], 0x430000 - 10000);
    V.rflags &= ~(uint64_t)X86_FL_DF;
    /* repne scasb finds a byte; repe cmpsb a difference. */
    memset(ram(0x420000), 1, 5000);
    *ram(0x420000 + 4321) = 0;
    V.gpr[REG_RAX] = 0;
    V.gpr[REG_RDI] = 0x420000;
    V.gpr[REG_RCX] = 5000;
    assert_int_equal(run_rep((const uint8_t *)"\xf2\xae", 2), SEM_NEXT);
    assert_int_equal(V.gpr[REG_RDI], 0x420000 + 4322);
    assert_true(V.rflags & X86_FL_ZF);
}

static void test_branches(void **state) {
    setup(true);
    V.gpr[REG_RAX] = 0x800000000000;
    assert_int_equal(run((const uint8_t *)"\xff\xe0", 2), SEM_FAULT); /* jmp rax */
    assert_int_equal(V.fault.vector, X86_GP);
    assert_int_equal(V.rip, CODE);
    V.rflags |= X86_FL_ZF;
    assert_int_equal(run((const uint8_t *)"\x74\xfe", 2), SEM_BRANCH);
    assert_int_equal(V.rip, CODE);
    V.gpr[REG_RCX] = 1;
    assert_int_equal(run((const uint8_t *)"\xe2\xfe", 2), SEM_NEXT); /* loop */
    assert_int_equal(V.gpr[REG_RCX], 0);
    V.rip = CODE;
    V.gpr[REG_RSP] = 0x40000000;
    assert_int_equal(run((const uint8_t *)"\xe8\0\0\0\0", 5), SEM_FAULT); /* call */
    assert_int_equal(V.rip, CODE);
    assert_int_equal(V.gpr[REG_RSP], 0x40000000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_host), cmocka_unit_test(test_prefixed_against_host),
        cmocka_unit_test(test_decimal),      cmocka_unit_test(test_stack),
        cmocka_unit_test(test_bit_string),   cmocka_unit_test(test_strings),
        cmocka_unit_test(test_branches),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
