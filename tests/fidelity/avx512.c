/*
 * What AVX-512 adds to the harness, where host and guest have it: the components of the
 * image beyond AVX, which of the EVEX encodings the guest is offered, and what an EVEX
 * prefix says besides the form: masks, zeroing, broadcast or rounding, registers 16
 * to 31.
 */
#include <errno.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "decode/decode.h"
#include "fidelity.h"

uint32_t fid_components; /* of XCR0; host.c's assembler loads it */
uint32_t fid_image_len;

static struct cpuid_model *model;

int fid_avx512_init(void) {
    static const struct cpuid_config cfg = {.model = "host", .tsc_hz = 1000000000};

    model = cpuid_model_new(&cfg);
    if (!model)
        return -ENOMEM;
    fid_components = (uint32_t)cpuid_xcr0_valid(model) & 0xe7;
    fid_image_len = 576;
    for (unsigned n = 2; n < VEC_COMPONENTS; n++)
        if ((fid_components >> n & 1) && fid_image_len < vec_offset(n) + vec_size(n))
            fid_image_len = vec_offset(n) + vec_size(n);
    return 0;
}

bool fid_offered(enum cpu_mode mode, const uint8_t *bytes, unsigned len) {
    struct insn i;

    return decode_insn(mode, bytes, len, &i) == DECODE_OK && i.op != OP_invalid &&
           cpuid_has(model, (enum cpuid_feature)i.feature) &&
           cpuid_has(model, (enum cpuid_feature)i.also);
}

void fid_evex_vary(enum cpu_mode mode, uint8_t *evex, bool no_vvvv) {
    static const uint8_t how[] = {0, 0, 0x01, 0x83, 0x10, 0x11, 0x92, 0x04};

    if (fid_one_in(3))
        return;
    evex[3] ^= how[fid_pick(8)];
    evex[3] ^= fid_one_in(2) ? (uint8_t)(fid_pick(4) << 5) : 0;
    evex[2] ^= fid_one_in(no_vvvv ? 6 : 2) ? (uint8_t)(fid_pick(8) << 3) : 0;
    if (mode == MODE_64) {
        evex[1] ^= fid_one_in(3) ? 0x10 : 0;
        evex[3] ^= fid_one_in(no_vvvv ? 64 : 3) ? 0x08 : 0;
    }
}

/* AMD's CPUs ignore b of a register form without rounding, and R and B of opmask
 * registers, where Intel's manual says #UD; the guest has #UD (docs/errata.md). */
bool fid_amd_ignores(const struct form *f, const uint8_t *opcode) {
    if (!__builtin_cpu_is("amd") || !f->vex || f->vex > 2)
        return false;
    if (f->vex == 2)
        return !f->mem && (opcode[-1] & 0x10);
    if (f->map == 3)
        return f->opcode >= 0x30 && f->opcode <= 0x33;
    return f->map == 1 && ((f->opcode >= 0x41 && f->opcode <= 0x4b) ||
                           (f->opcode >= 0x90 && f->opcode <= 0x99));
}

/* --- the image --- */

void fid_avx512_random(uint8_t *x, void (*fill)(uint8_t *p, unsigned len)) {
    for (unsigned n = 5; n < VEC_COMPONENTS; n++)
        for (unsigned at = 0; fid_components >> n & 1 && at < vec_size(n); at += 64)
            fill(x + vec_offset(n) + at, 64);
    for (unsigned k = 1; fid_components & 0x20 && k < 8; k++) {
        uint64_t few = fid_one_in(2) ? ~0ull >> fid_pick(64) : fid_rnd() & fid_rnd();

        if (fid_one_in(2))
            memcpy(x + vec_offset(5) + 8 * k, &few, 8);
    }
}

void fid_avx512_zero(uint8_t *x) {
    for (unsigned n = 5; n < VEC_COMPONENTS; n++)
        if (fid_components >> n & 1)
            memset(x + vec_offset(n), 0, vec_size(n));
}

/* Those that XSTATE_BV says are in use; the others as they were. */
void fid_avx512_take(const uint8_t *from, uint8_t *to) {
    for (unsigned n = 5; n < VEC_COMPONENTS; n++)
        if (fid_components & from[512] & 1u << n)
            memcpy(to + vec_offset(n), from + vec_offset(n), vec_size(n));
}

void fid_avx512_expand(uint8_t *x) {
    for (unsigned n = 5; n < VEC_COMPONENTS; n++)
        if ((fid_components & ~(uint32_t)x[512]) >> n & 1)
            memset(x + vec_offset(n), 0, vec_size(n));
}

const char *fid_avx512_compare(const uint8_t *a, const uint8_t *b) {
    static const char *const names[] = {[5] = "opmask", [6] = "zmm", [7] = "zmm16 to 31"};

    for (unsigned n = 5; n < VEC_COMPONENTS; n++)
        if ((fid_components >> n & 1) &&
            memcmp(a + vec_offset(n), b + vec_offset(n), vec_size(n)))
            return names[n];
    return NULL;
}
