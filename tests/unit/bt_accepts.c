/*
 * The verifier of emitted code accepts what the translator makes of every program of
 * tests/verify/set.c, under options of every kind; and the common code of the cache, with
 * no change to it.
 */
#include "decode/host.h"
#include "lib/unit.h"
#include "verify/set.h"
#include "verify/verify.h"

static const char *const flavours[] = {
    "verify,cache=2",
    "verify,cache=2,no-groups,no-anchors",
    "verify,cache=2,no-anchors,no-liveness",
    "verify,cache=2,tu=3,path=7,no-borrow",
    "verify,cache=2,count,no-held,no-stay,tu=64",
    "verify,cache=2,no-predict,no-unroll,no-adapt,no-chain",
};

static void accepted(void *arg, struct set *s, const struct tr_code *c) {
    struct finding f;

    ++*(unsigned *)arg;
    if (verify_code(set_env(s), c, &f))
        return;
    set_report(set_env(s), c, &f);
    fail_msg("a fragment of the translator's is not accepted: %s", f.why);
}

static void test_accepts(void **state) {
    for (size_t n = 0; n < ARRAY_SIZE(flavours); n++) {
        unsigned fragments = 0;

        set_each(flavours[n], true, accepted, &fragments);
        assert_true(fragments > 300);
    }
}

/* The same on hosts without RORX, where an address is hashed by MOV and SHR. */
static void test_accepts_old_host(void **state) {
    unsigned fragments = 0;

    set_each("verify,cache=2,no-anchors", false, accepted, &fragments);
    assert_true(fragments > 300);
}

/* --- the stub of anchors --- */

static void reject_stub(const struct tr_env *env, uint8_t *rw, const uint8_t *bytes,
                        unsigned len) {
    uint8_t saved[15];
    struct finding f;

    memcpy(saved, rw, len);
    memcpy(rw, bytes, len);
    if (verify_stubs(env, &f))
        fail_msg("a change at +%03x of the common code is accepted",
                 (unsigned)(rw - env->code.rw));
    memcpy(rw, saved, len);
}

/* Each instruction is left out, and has its last byte changed: an operand's register, a
 * displacement, an immediate. */
static void test_stubs(void **state) {
    struct set *s = set_new("verify,cache=2", SET_KIND_PLAIN);
    const struct tr_env *env = set_env(s);
    const uint8_t *rx = env->stub.anchor[MMU_READ];
    unsigned mutants = 0;
    struct finding f;

    assert_true(verify_stubs(env, &f));
    while (rx < env->stub.callout) {
        uint8_t *rw = (uint8_t *)(uintptr_t)rx - tr_delta(env);
        static const uint8_t nops[15] = {0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90,
                                         0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90};
        struct host_insn i;
        uint8_t last;

        assert_true(decode_host(rx, 15, &i));
        reject_stub(env, rw, nops, i.len);
        for (unsigned bit = 0; bit < 8; bit++) {
            last = (uint8_t)(rw[i.len - 1] ^ 1u << bit);
            reject_stub(env, rw + i.len - 1, &last, 1);
        }
        mutants += 9;
        rx += i.len;
    }
    assert_true(verify_stubs(env, &f));
    assert_true(mutants > 400);
    set_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_accepts_old_host),
        cmocka_unit_test(test_stubs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
