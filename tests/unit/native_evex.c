/*
 * AVX-512 against the host CPU: sem/native/, above all evex.c.
 *
 * Every EVEX encoding that the decoder takes for a native one, and those of opmask
 * registers, is run from the same random state in the guest and, its bytes unchanged, on
 * the host, with rbx pointing at a page of ours between two that cannot be accessed. All
 * vector and opmask registers, general registers, flags, memory and the exception must
 * agree, with its address: with masks, broadcasts, rounding, compressed displacements,
 * and with operands that run into the guard pages.
 */
#include <stdio.h>
#include <sys/mman.h>

#include "cpu/vec.h"
#include "lib/oracle.h"
#include "lib/rnd.h"
#include "lib/signals.h"
#include "lib/unit.h"
#include "sem/sem_int.h"

/* The guest's page of operands; its neighbours are not mapped. */
#define PAGE 0x110000ull
#define GUARDS 40u /* on either side; more than any index reaches */

static uint8_t *page; /* the host's, between guards */

static bool ready(void) {
    signals_back();
    return cpuid_has(G.v->cpuid, CPUID_F_AVX512F);
}

static int setup(void **state) {
    page = mmap(NULL, 2 * GUARDS * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(page, MAP_FAILED);
    page += GUARDS * 4096;
    assert_int_equal(mprotect(page, 4096, PROT_READ | PROT_WRITE), 0);
    host_components = X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX | X86_XCR0_AVX512;
    oracle_start();
    for (unsigned k = 1; k < GUARDS; k++) {
        oracle_set_pte(PT + 8 * (PAGE / 4096 + k), 0);
        oracle_set_pte(PT + 8 * (PAGE / 4096 - k), 0);
    }
    return 0;
}

static uint8_t *opmask_at(unsigned k) {
    return G.v->vec + vec_offset(5) + 8 * k;
}

/* Indices of gathers and scatters of SIZE bytes, in zmm6 (vsib_forms()): small, and now
 * and then far. */
static void small_indices(unsigned size) {
    int64_t x[8];
    uint8_t b[64];

    for (unsigned e = 0; e < 64 / size; e++) {
        x[0] =
            rnd() & 15 ? (int64_t)(rnd() & 255) - 64 : (int64_t)(rnd() & 0x3fff) - 0x1000;
        memcpy(b + size * e, x, size);
    }
    memcpy(G.v->vec + 160 + 16 * 6, b, 16);
    memcpy(G.v->vec + 576 + 16 * 6, b + 16, 16);
    memcpy(G.v->vec + vec_offset(6) + 32 * 6, b + 32, 32);
}

static void random_state(unsigned pattern, bool unmasked, uint64_t opmask) {
    uint32_t mxcsr = unmasked ? 0 : 0x1f80;
    uint64_t in_use = vec_supported() & ~1ull; /* x87 is as after a reset */

    vec_reset(G.v);
    oracle_fill(G.v->vec + 160, 256, pattern);
    for (unsigned n = 2; n < VEC_COMPONENTS; n++)
        oracle_fill(G.v->vec + vec_offset(n), vec_size(n), pattern);
    for (unsigned k = 0; k < 8; k++) {
        uint64_t x = k == 3 ? opmask : rnd();
        memcpy(opmask_at(k), &x, 8);
    }
    memcpy(G.v->vec + 24, &mxcsr, 4);
    memcpy(G.v->vec + 512, &in_use, 8);
    for (unsigned k = 0; k < 16; k++)
        G.v->gpr[k] = G.v->mode == MODE_64 ? rnd() : (uint32_t)rnd();
    G.v->rflags = 2 | (rnd() & X86_FL_STATUS);
    G.v->rip = 0x12345;
}

/* False when these bytes are nothing that is executed through the host here. */
static bool bind(enum cpu_mode mode, const uint8_t *bytes, unsigned len, struct insn *i) {
    if (decode_insn(mode, bytes, len, i) != DECODE_OK || i->len > len)
        return false;
    sem_bind(G.v, i);
    return i->op != OP_invalid && (i->flags & INSN_AVX512);
}

/* --- one comparison --- */

static unsigned compared, faulted, page_faults, bad;

static bool expect(bool ok, const struct insn *i, uint64_t at, const char *what) {
    char text[128];

    if (ok)
        return true;
    if (bad++ < 40) {
        fprintf(stderr, "%s: %s: ", what, decode_format(i, 0, text, sizeof(text)));
        for (unsigned k = 0; k < i->len; k++)
            fprintf(stderr, "%02x ", i->bytes[k]);
        fprintf(stderr, "rbx %llx host %d %llx G.ram %d %llx\n", (unsigned long long)at,
                host_trap, (unsigned long long)(host_addr - (uintptr_t)page),
                G.v->fault.vector, (unsigned long long)(G.v->fault.addr - PAGE));
    }
    return false;
}

/* What a CPU that is not AMD's leaves behind with a fault may be something else:
 * docs/errata.md, "vcvtps2ph" and "masked". */
static bool in_errata(const struct insn *i) {
    bool converts = (i->bytes[1] & 7) == 3 && i->bytes[i->off_opcode] == 0x1d;

    return !__builtin_cpu_is("amd") && G.v->fault.vector == X86_PF &&
           (converts || i->op == OP_gather || i->op == OP_vmaskmov);
}

/* Runs I with rbx at OFF from the page, in both worlds. */
static void compare(const struct insn *i, int64_t off, unsigned pattern, bool unmasked,
                    uint64_t opmask) {
    _Alignas(64) uint8_t image[VCPU_XSAVE_SIZE];
    struct host_regs r, before;
    uint64_t at = PAGE + (uint64_t)off;
    int trap, rc;

    random_state(pattern, unmasked, opmask);
    if (i->op == OP_gather || i->op == OP_scatter)
        small_indices(i->bytes[i->off_opcode] & 1 ? 8 : 4);
    oracle_fill(G.ram + PAGE, 4096, pattern);
    memcpy(page, G.ram + PAGE, 4096);
    G.v->gpr[REG_RBX] = at;
    memcpy(image, G.v->vec, sizeof(image));
    memcpy(before.gpr, G.v->gpr, sizeof(before.gpr));
    r = before;
    r.gpr[REG_RBX] = (uint64_t)(uintptr_t)page + (uint64_t)off;
    r.rflags = G.v->rflags;
    G.v->fault = (struct fault){0};
    trap = host_execute(&r, i->bytes, i->len, image);
    rc = i->exec(G.v, i);
    vec_park(G.v);
    compared++;
    if (trap >= 0) {
        bool wr = i->mem.access & OPND_WRITE;

        faulted++;
        if (!expect(rc == SEM_FAULT, i, at, "the host faults, the G.ram does not"))
            return;
        if (in_errata(i))
            return;
        if (!expect(G.v->fault.vector == trap, i, at, "vector"))
            return;
        if (trap == X86_PF) {
            page_faults++;
            expect(G.v->fault.addr - PAGE == host_addr - (uintptr_t)page, i, at,
                   "address");
            expect(G.v->fault.error == (wr ? X86_PF_W : 0), i, at, "error code");
        }
        expect(!memcmp(before.gpr, G.v->gpr, sizeof(before.gpr)), i, at,
               "registers kept");
    } else {
        if (!expect(rc == SEM_NEXT, i, at, "the G.ram faults, the host does not"))
            return;
        r.gpr[REG_RSP] = G.v->gpr[REG_RSP];
        if (r.gpr[REG_RBX] == (uint64_t)(uintptr_t)page + (uint64_t)off)
            r.gpr[REG_RBX] = at;
        /* The host's W is not ignored as it is outside 64-bit mode: the halves that are.
         */
        for (unsigned n = 0; i->mode != MODE_64 && n < 16; n++) {
            r.gpr[n] = (uint32_t)r.gpr[n];
            G.v->gpr[n] = (uint32_t)G.v->gpr[n];
        }
        expect(!memcmp(r.gpr, G.v->gpr, sizeof(r.gpr)), i, at, "general registers");
        expect(!((r.rflags ^ G.v->rflags) & X86_FL_STATUS), i, at, "flags");
    }
    expect(!memcmp(image + 24, G.v->vec + 24, 4), i, at, "mxcsr");
    expect(!memcmp(image + 160, G.v->vec + 160, 256), i, at, "xmm");
    expect(!memcmp(image + 576, G.v->vec + 576, 256), i, at, "ymm");
    expect(!memcmp(image + vec_offset(5), G.v->vec + vec_offset(5), 64), i, at, "opmask");
    expect(!memcmp(image + vec_offset(6), G.v->vec + vec_offset(6), 512), i, at, "zmm");
    expect(!memcmp(image + vec_offset(7), G.v->vec + vec_offset(7), 1024), i, at,
           "zmm16");
    expect(!memcmp(page, G.ram + PAGE, 4096), i, at, "memory");
}

/* Where the operand may lie: inside, and about either end of the page. */
static void compare_places(const struct insn *i, bool unmasked) {
    int64_t disp = i->mem.disp, size = i->mem.size;
    uint64_t sparse = rnd() & rnd() & rnd();

    for (unsigned pattern = 0; pattern < 4; pattern++)
        compare(i, 0x400 - disp, pattern, unmasked, rnd());
    if (!i->mem.access)
        return;
    compare(i, 0x43f - disp, 2, unmasked, rnd());
    /* Exactly what it says, no more and no less. */
    compare(i, -disp, 2, unmasked, ~0ull);
    compare(i, 4096 - size - disp, 2, unmasked, ~0ull);
    compare(i, 4096 - size - disp + 1, 2, unmasked, ~0ull);
    compare(i, -1 - disp, 2, unmasked, ~0ull);
    for (unsigned n = 0; n < 3; n++) {
        int64_t below = (int64_t)(rnd() % (uint64_t)(size + 1));

        if (n == 2) /* aligned for those that ask for it */
            below &= ~7ll;
        compare(i, 4096 - below - disp, 2, unmasked, n ? sparse : rnd());
        compare(i, -below - disp, 2, unmasked, n ? sparse : rnd());
    }
    compare(i, 4096 - 8 - disp, 2, unmasked, 0);
    compare(i, 4096 + 8 - disp, 2, unmasked, 0);
    compare(i, 4096 - 64 - disp, 2, unmasked, sparse);
}

/* W of an integer's size, which modes other than 64-bit ignore: the host runs in that. */
static bool integer_w(const uint8_t *b) {
    unsigned map = b[1] & 7, pp = b[2] & 3;

    if (b[0] != 0x62 || !(b[2] & 0x80))
        return false;
    switch (map << 8 | b[4]) {
    case 0x12a:
    case 0x12c:
    case 0x12d:
    case 0x178:
    case 0x179:
    case 0x17b:
        return pp >= 2;
    case 0x16e:
    case 0x27c:
    case 0x316:
    case 0x322:
        return true;
    case 0x17e:
        return pp == 1;
    default:
        return map == 5;
    }
}

static void try(enum cpu_mode mode, const uint8_t *bytes, unsigned len, bool unmasked) {
    struct insn i;

    if (!bind(mode, bytes, len, &i))
        return;
    if (i.mem.access && i.mem.base != REG_RBX)
        return;
    if (mode != MODE_64 && integer_w(bytes))
        return;
    compare_places(&i, unmasked);
}

/* --- enumeration --- */

struct evex {
    unsigned map, op, pp, w, ll, b, z, aaa, vvvv, reg;
    bool mem, high;
};

static unsigned put_evex(const struct evex *e, uint8_t *b) {
    unsigned n = 0, high = e->high ? 1 : 0;

    b[n++] = 0x62;
    b[n++] = (uint8_t)((high ? 0 : 0x80) | (high && !e->mem ? 0 : 0x40) | 0x20 |
                       (high ? 0 : 0x10) | e->map);
    b[n++] = (uint8_t)(e->w << 7 | (~e->vvvv & 15) << 3 | 4 | e->pp);
    b[n++] =
        (uint8_t)(e->z << 7 | e->ll << 5 | e->b << 4 | (e->vvvv & 16 ? 0 : 8) | e->aaa);
    b[n++] = (uint8_t)e->op;
    if (e->mem) {
        b[n++] = (uint8_t)(0x43 | e->reg << 3);
        b[n++] = 0xfe; /* disp8 * N */
    } else {
        b[n++] = (uint8_t)(0xc2 | e->reg << 3);
    }
    b[n++] = 0x63;
    return n;
}

static const uint8_t maps[] = {1, 2, 3, 5, 6};

/* The variants of one opcode: lengths or roundings, masks, broadcast, zeroing. */
static void variants(enum cpu_mode mode, struct evex e, bool unmasked) {
    static const struct {
        uint8_t z, b, aaa;
    } how[] = {{0, 0, 0}, {0, 0, 3}, {1, 0, 3}, {0, 1, 0}, {0, 1, 3}, {1, 1, 3}};

    for (unsigned n = 0; n < ARRAY_SIZE(how) * 4; n++) {
        uint8_t b[16] = {0};

        e.ll = n & 3;
        e.z = how[n >> 2].z;
        e.b = how[n >> 2].b;
        e.aaa = how[n >> 2].aaa;
        for (unsigned form = 0; form < 2; form++) {
            e.high = form && mode == MODE_64;
            if (form && !e.high)
                continue;
            /* Operations without a third operand want vvvv to be 1111. */
            e.vvvv = e.high ? 21 : 5;
            try(mode, b, put_evex(&e, b), unmasked);
            e.vvvv = 0;
            try(mode, b, put_evex(&e, b), unmasked);
        }
    }
}

static void evex_forms(enum cpu_mode mode, bool unmasked) {
    for (unsigned m = 0; m < ARRAY_SIZE(maps); m++)
        for (unsigned n = 0; n < 256 * 16; n++) {
            struct evex e = {.map = maps[m],
                             .op = n & 255,
                             .pp = n >> 8 & 3,
                             .w = n >> 10 & 1,
                             .mem = n >> 11 & 1};
            bool group = e.map == 1 && e.op >= 0x71 && e.op <= 0x73;

            for (e.reg = group ? 0 : 1; e.reg < (group ? 8u : 2u); e.reg++)
                variants(mode, e, unmasked);
        }
}

/* Opmask registers. */
static void vex_forms(enum cpu_mode mode) {
    for (unsigned m = 1; m <= 3; m++)
        for (unsigned n = 0; n < 256 * 32; n++) {
            uint8_t b[16] = {0xc4}, k = 1;
            bool mem = n >> 12 & 1;

            b[k++] = (uint8_t)(0xe0 | m);
            b[k++] = (uint8_t)((n >> 10 & 1) << 7 | (n >> 11 & 1 ? 10 : 15) << 3 |
                               (n & 1) << 2 | (n >> 8 & 3));
            b[k++] = (uint8_t)n;
            b[k++] = mem ? 0x5b : 0xda;
            if (mem)
                b[k++] = 1;
            b[k++] = 0x63;
            try(mode, b, k, false);
            b[2] ^= 4; /* L */
            try(mode, b, k, false);
        }
}

/* [rbx + zmm6 * 1, 4], and zmm22. */
static void vsib_forms(enum cpu_mode mode) {
    for (unsigned op = 0x90; op <= 0xa3; op++)
        for (unsigned n = 0; n < 3 * 2 * 2 * 2 * 8; n++) {
            unsigned w = n & 1, high = n >> 1 & 1, scale = n >> 2 & 1 ? 0xb3 : 0x33;
            unsigned ll = (n >> 3) % 3, disp = 0xff - (n >> 3) / 3 % 2 * 0x80;
            uint8_t b[16] = {
                0x62,        0xf2, (uint8_t)(w << 7 | 0x7d), (uint8_t)(ll << 5 | 11),
                (uint8_t)op, 0x4c, (uint8_t)scale,           (uint8_t)disp};
            struct insn i;

            if (high && mode == MODE_64)
                b[1] ^= 0x10; /* data in zmm17 */
            if (!bind(mode, b, 8, &i))
                continue;
            if (i.op != OP_gather && i.op != OP_scatter)
                continue;
            for (unsigned k = 0; k < 12; k++)
                compare(&i, (int64_t)(k < 4 ? 0x800 : rnd() % 4096) - i.mem.disp, k & 3,
                        false, k & 4 ? rnd() & rnd() : rnd());
        }
}

/* VMASKMOV and gathers with VEX prefixes: they clear the upper halves of ZMM registers.
 */
static void vex_masked_forms(void) {
    static const char *const forms[] = {
        "\xc4\xe2\x69\x2c\x4b\x01", "\xc4\xe2\x6d\x2d\x4b\x01", /* loads */
        "\xc4\xe2\x6d\x8c\x4b\x01", "\xc4\xe2\xe9\x8c\x4b\x01",
        "\xc4\xe2\x69\x2e\x4b\x01", "\xc4\xe2\x6d\x2f\x4b\x01", /* stores */
        "\xc4\xe2\x6d\x8e\x4b\x01", "\xc4\xe2\xe9\x8e\x4b\x01",
        "\xc4\xe2\x69\x90\x0c\x33", "\xc4\xe2\x6d\x90\x0c\x33", /* gathers */
        "\xc4\xe2\xed\x90\x0c\x73", "\xc4\xe2\x6d\x91\x0c\x33",
        "\xc4\xe2\xe9\x91\x0c\x33", "\xc4\xe2\x6d\x92\x0c\xb3",
        "\xc4\xe2\xe9\x92\x0c\x33", "\xc4\xe2\x69\x93\x0c\x33",
    };

    for (unsigned n = 0; n < ARRAY_SIZE(forms) * 400; n++) {
        struct insn i;

        assert_int_equal(
            decode_insn(MODE_64, (const uint8_t *)forms[n % ARRAY_SIZE(forms)], 6, &i),
            DECODE_OK);
        sem_bind(G.v, &i);
        compare(&i, (int64_t)(n & 64 ? 0x800 : rnd() % 4096) - i.mem.disp, n >> 7 & 3,
                false, 0);
    }
}

static void all_forms(enum cpu_mode mode, bool unmasked) {
    compared = faulted = page_faults = bad = 0;
    oracle_set_mode(mode);
    evex_forms(mode, unmasked);
    if (!unmasked) {
        vex_forms(mode);
        vsib_forms(mode);
    }
    oracle_set_mode(MODE_64);
    vex_masked_forms();
    print_message("%u compared, %u faults, %u of them #PF; %u bad\n", compared, faulted,
                  page_faults, bad);
    assert_int_equal(bad, 0);
    assert_true(compared > 50000);
    assert_true(page_faults > 10000);
}

static void test_all_64(void **state) {
    if (!ready())
        skip();
    all_forms(MODE_64, false);
}

static void test_all_64_unmasked(void **state) {
    if (!ready())
        skip();
    all_forms(MODE_64, true);
}

static void test_all_32(void **state) {
    if (!ready())
        skip();
    all_forms(MODE_32, false);
}

/* --- the XSAVE family with all components --- */

/* Runs BYTES (memory operand [rbx], at the page's start) in both worlds. The x87 pointers
 * are the vCPU's and not compared, nor components that the host has and the vCPU has not
 * (AMX: with them XSAVE and XRSTOR reach behind the page). */
static void compare_state(const char *bytes, uint64_t components) {
    _Alignas(64) uint8_t image[VCPU_XSAVE_SIZE];
    struct host_regs r;
    struct insn i;
    int trap, rc;

    memcpy(image, G.v->vec, sizeof(image));
    memcpy(page, G.ram + PAGE, 4096);
    G.v->gpr[REG_RBX] = PAGE;
    G.v->gpr[REG_RAX] = components;
    G.v->gpr[REG_RDX] = 0;
    memcpy(r.gpr, G.v->gpr, sizeof(r.gpr));
    r.gpr[REG_RBX] = (uint64_t)(uintptr_t)page;
    r.gpr[REG_RAX] &= vec_supported();
    r.rflags = 2;
    assert_int_equal(decode_insn(MODE_64, (const uint8_t *)bytes, 4, &i), DECODE_OK);
    sem_bind(G.v, &i);
    trap = host_execute(&r, i.bytes, i.len, image);
    rc = i.exec(G.v, &i);
    vec_park(G.v);
    expect((rc == SEM_FAULT ? G.v->fault.vector : -1) == trap, &i, components, "fault");
    memcpy(page + 6, G.ram + PAGE + 6, 18);
    expect(!memcmp(page, G.ram + PAGE, 4096), &i, components, "memory");
    expect(!memcmp(image + 24, G.v->vec + 24, 392), &i, components, "legacy state");
    for (unsigned n = 2; n < VEC_COMPONENTS; n++)
        expect(!memcmp(image + vec_offset(n), G.v->vec + vec_offset(n), vec_size(n)), &i,
               components, "a component");
}

/* Some components as after a reset. (A host may call AVX used when only the upper halves
 * of ZMM registers are: seen on Zen 4, now and then.) */
static void leave_some_unused(void) {
    uint64_t in_use = vec_supported() & ~1ull;

    for (unsigned n = VEC_COMPONENTS - 1; n >= 2; n--)
        if (vec_size(n) && rnd() & 1 && (n != 2 || !(in_use & X86_XCR0_ZMM_HI256))) {
            memset(G.v->vec + vec_offset(n), 0, vec_size(n));
            in_use &= ~(1ull << n);
        }
    memcpy(G.v->vec + 512, &in_use, 8);
}

/* The header names a component that the host has and the vCPU has not. */
static bool names_others(void) {
    uint32_t lo, hi;
    uint64_t named[2];

    __asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    memcpy(named, G.ram + PAGE + 512, sizeof(named));
    return (named[0] | named[1]) & lo & ~vec_supported();
}

static void test_xsave(void **state) {
    static const char *const saves[] = {"\x48\x0f\xae\x23", "\x48\x0f\xc7\x23"};
    const char *xrstor = "\x48\x0f\xae\x2b";

    if (!ready())
        skip();
    bad = 0;
    for (unsigned n = 0; n < 6000; n++) {
        uint64_t components = rnd() & 0xff;

        random_state(n & 3, false, rnd());
        leave_some_unused();
        oracle_fill(G.ram + PAGE, 4096, 0);
        memset(G.ram + PAGE + 512, 0, 64);
        compare_state(saves[n % 2], n & 16 ? ~0u : components);
        random_state(2, false, rnd());
        compare_state(xrstor, rnd() & 8 ? ~0u : rnd() & 0xff);
        if (rnd() & 1) { /* a header that is wrong, or right and odd */
            random_state(2, false, rnd());
            G.ram[PAGE + 512 + rnd() % 17] ^= (uint8_t)(1 << rnd() % 8);
            if (!names_others())
                compare_state(xrstor, rnd() & 0xff);
        }
    }
    assert_int_equal(bad, 0);
}

/* What is not there in XCR0 is not there at all. */
static void test_enabling(void **state) {
    static const uint8_t vpaddd[] = {0x62, 0xf1, 0x75, 0x48, 0xfe, 0xc2};
    static const uint8_t kmovw[] = {0xc5, 0xf8, 0x92, 0xc8};
    static const uint8_t gather[] = {0x62, 0xf2, 0x7d, 0x49, 0x90, 0x0c, 0x33};
    static const struct {
        const uint8_t *bytes;
        unsigned len;
    } forms[] = {{vpaddd, 6}, {kmovw, 4}, {gather, 7}};
    uint64_t xcr0 = G.v->xcr0, cr0 = G.v->cr0;

    if (!ready())
        skip();
    for (unsigned n = 0; n < ARRAY_SIZE(forms); n++) {
        static const uint64_t missing[] = {2, 4, 0x20, 0x40, 0x80, 0xe0};
        struct insn i;

        assert_true(bind(MODE_64, forms[n].bytes, forms[n].len, &i));
        random_state(0, false, 0);
        memset(opmask_at(1), 0, 8); /* nothing to gather */
        assert_int_equal(i.exec(G.v, &i), SEM_NEXT);
        for (unsigned k = 0; k < ARRAY_SIZE(missing); k++) {
            G.v->xcr0 = xcr0 & ~missing[k];
            assert_int_equal(i.exec(G.v, &i), SEM_FAULT);
            assert_int_equal(G.v->fault.vector, X86_UD);
            G.v->xcr0 = xcr0;
        }
        G.v->cr0 = cr0 | X86_CR0_TS;
        assert_int_equal(i.exec(G.v, &i), SEM_FAULT);
        assert_int_equal(G.v->fault.vector, X86_NM);
        G.v->cr0 = cr0;
        vec_park(G.v);
    }
}

/* Segments that end in the middle of an operand: 32-bit mode. */
static void test_limit(void **state) {
    /* vmovdqu32 zmm1 {k3}, [ebx]; vmovdqu32 [ebx] {k3}, zmm1 */
    static const uint8_t load[] = {0x62, 0xf1, 0x7e, 0x4b, 0x6f, 0x0b};
    static const uint8_t store[] = {0x62, 0xf1, 0x7e, 0x4b, 0x7f, 0x0b};
    struct insn l, s;

    if (!ready())
        skip();
    oracle_set_mode(MODE_32);
    assert_true(bind(MODE_32, load, 6, &l) && bind(MODE_32, store, 6, &s));
    for (unsigned n = 0; n < 17; n++) {
        uint64_t first = (1ull << n) - 1;

        G.v->seg[SEG_DS].limit = (uint32_t)PAGE + 0x100 + n * 4 - 1;
        vcpu_update_mode(G.v);
        for (unsigned store_too = 0; store_too < 2; store_too++) {
            const struct insn *i = store_too ? &s : &l;

            random_state(0, false, first);
            G.v->gpr[REG_RBX] = PAGE + 0x100;
            assert_int_equal(i->exec(G.v, i), SEM_NEXT);
            random_state(0, false, first | 1ull << n);
            G.v->gpr[REG_RBX] = PAGE + 0x100;
            assert_int_equal(i->exec(G.v, i), n < 16 ? SEM_FAULT : SEM_NEXT);
            if (n < 16)
                assert_int_equal(G.v->fault.vector, X86_GP);
            vec_park(G.v);
        }
    }
    oracle_set_mode(MODE_64);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xsave),           cmocka_unit_test(test_enabling),
        cmocka_unit_test(test_limit),           cmocka_unit_test(test_all_64),
        cmocka_unit_test(test_all_64_unmasked), cmocka_unit_test(test_all_32),
    };
    return cmocka_run_group_tests(tests, setup, oracle_teardown);
}
