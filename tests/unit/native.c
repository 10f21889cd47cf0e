/*
 * sem/native/ and its kin against the host CPU.
 *
 * The systematic tests enumerate encodings (prefixes, maps, opcodes, register and memory
 * forms) and let the decoder say which are OP_native. Each runs twice from the same
 * random state: in the G.ram, and its original bytes unchanged on the host, with rbx
 * pointing at a buffer of ours. Registers, flags, memory, the XSAVE image and the
 * exception must agree; x87 pointers are compared with what was tracked.
 */
#include <stdio.h>

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

/* --- one comparison --- */

static unsigned compared, faulted;

static _Alignas(4096) uint8_t host_mem[2 * 4096];

/* Runs I at G.ram address AT (rbx, its offset in the page included) in both worlds. */
static void compare(const struct insn *i, uint64_t at, unsigned pattern, bool unmasked) {
    _Alignas(64) uint8_t image[1024];
    struct host_regs r;
    struct host_regs before;
    uint64_t page = at & ~0xfffull, off = at & 0xfff;
    int trap, rc;

    oracle_random_state(pattern, unmasked);
    oracle_fill(G.ram + at - 64 + (at & 7), 192, pattern);
    memcpy(host_mem, G.ram + page, sizeof(host_mem));
    G.v->gpr[REG_RBX] = at;
    memcpy(image, G.v->vec, sizeof(image));
    memcpy(before.gpr, G.v->gpr, sizeof(before.gpr));
    r = before;
    r.gpr[REG_RBX] = (uint64_t)(uintptr_t)host_mem + off;
    r.rflags = G.v->rflags;
    trap = host_execute(&r, i->bytes, i->len, image);
    rc = i->exec(G.v, i);
    vec_park(G.v);
    compared++;
    if (trap >= 0) {
        faulted++;
        oracle_expect(rc == SEM_FAULT, i, "the host faults, the G.ram does not");
        oracle_expect(G.v->fault.vector == trap, i, "vector");
        oracle_expect(G.v->fault.has_error == (trap == X86_GP) && !G.v->fault.error, i,
                      "error code");
        oracle_expect(!memcmp(before.gpr, G.v->gpr, sizeof(before.gpr)), i,
                      "fault kept registers");
    } else {
        oracle_expect(rc == SEM_NEXT, i, "the G.ram faults, the host does not");
        r.gpr[REG_RSP] = G.v->gpr[REG_RSP];
        if (r.gpr[REG_RBX] == (uint64_t)(uintptr_t)host_mem + off)
            r.gpr[REG_RBX] = at;
        oracle_expect(!memcmp(r.gpr, G.v->gpr, sizeof(r.gpr)), i, "registers");
        oracle_expect(!((r.rflags ^ G.v->rflags) & X86_FL_STATUS), i, "flags");
    }
    oracle_expect(!memcmp(image, G.v->vec, 6), i, "x87 control, status, tags");
    oracle_expect(!memcmp(image + 24, G.v->vec + 24, 8), i, "mxcsr");
    oracle_expect(!memcmp(image + 32, G.v->vec + 32, 128), i, "x87 registers");
    /* The host runs VZEROUPPER and VZEROALL in 64-bit mode: unit/sem_vendor has them. */
    if ((i->flags & INSN_VEX) && !i->off_modrm)
        return;
    oracle_expect(!memcmp(image + 160, G.v->vec + 160, 256), i, "xmm");
    oracle_expect(!memcmp(image + 576, G.v->vec + 576, 256), i, "ymm");
    oracle_expect(!memcmp(host_mem, G.ram + page, sizeof(host_mem)), i, "memory");
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
    struct vcpu *copy = aligned_alloc(64, (sizeof(*G.v) + 63) & ~63ull);
    int rc;

    oracle_random_state(1, false);
    G.v->gpr[REG_RBX] = DATA + 4096 - 1 - i->mem.size / 2;
    memcpy(copy, G.v, sizeof(*G.v));
    rc = i->exec(G.v, i);
    vec_park(G.v);
    oracle_expect(rc == SEM_FAULT, i, "fault expected");
    if (G.v->fault.vector == X86_PF) {
        oracle_expect(G.v->fault.addr == DATA + 4096, i, "address");
        oracle_expect(G.v->fault.error == (i->mem.access & OPND_WRITE ? X86_PF_W : 0), i,
                      "error");
    } else {
        oracle_expect(G.v->fault.vector == X86_GP && (i->flags & INSN_ALIGNED), i,
                      "vector");
    }
    oracle_expect(!memcmp(copy->gpr, G.v->gpr, sizeof(G.v->gpr)), i, "registers kept");
    oracle_expect(copy->rflags == G.v->rflags, i, "flags kept");
    oracle_expect(!memcmp(copy->vec + 24, G.v->vec + 24, 8), i, "mxcsr kept");
    oracle_expect(!memcmp(copy->vec + 32, G.v->vec + 32, 384), i, "vector state kept");
    free(copy);
}

static void try(enum cpu_mode mode, const uint8_t *bytes, unsigned len, bool unmasked) {
    struct insn i;

    if (!oracle_bind(mode, bytes, len, &i) || i.op != OP_native)
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
    oracle_set_mode(mode);
    legacy_forms(mode, unmasked);
    if (vec_supported() & X86_XCR0_AVX)
        vex_forms(mode, unmasked);
    x87_forms(mode, unmasked);
    oracle_set_mode(MODE_64);
    assert_true(compared > 5000);
    assert_true(faulted > 100);
}

static void test_all_64(void **state) {
    signals_back();
    all_forms(MODE_64, false);
}

static void test_all_64_unmasked(void **state) {
    signals_back();
    all_forms(MODE_64, true);
}

static void test_all_32(void **state) {
    signals_back();
    all_forms(MODE_32, false);
}

static void test_all_32_unmasked(void **state) {
    signals_back();
    all_forms(MODE_32, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_64),
        cmocka_unit_test(test_all_64_unmasked),
        cmocka_unit_test(test_all_32),
        cmocka_unit_test(test_all_32_unmasked),
    };

    return cmocka_run_group_tests(tests, setup, oracle_teardown);
}
