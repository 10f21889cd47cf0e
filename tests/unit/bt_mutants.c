/*
 * Bugs in the translator (src/tr/mutant.def), one after the other: for each of them some
 * program of tests/verify/set.c is translated to code that the verifier does not accept.
 * Some were real once. Without one, all is accepted: tests/unit/bt_accepts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tr/mutant.h"
#include "verify/set.h"
#include "verify/verify.h"

unsigned bt_mutant;

static const char *const names[MUTANTS] = {
    [MUTANT_NONE] = "none",
#undef MUTANT
#define MUTANT(name, what) [MUTANT_##name] = what,
#include "tr/mutant.def"
#undef MUTANT
};

static const char *const flavours[] = {"cache=2,no-verify",
                                       "cache=2,no-verify,no-anchors"};

struct found {
    unsigned long fragments, findings;
    char why[160];
};

static void look(void *arg, struct set *s, const struct tr_code *c) {
    struct found *found = arg;
    struct finding f;

    found->fragments++;
    if (verify_code(set_env(s), c, &f))
        return;
    if (!found->findings++)
        memcpy(found->why, f.why, sizeof(found->why));
}

static struct found with_mutant(unsigned mutant) {
    struct found found = {0};
    size_t count;
    const struct set_program *p = set_programs(&count);

    for (size_t n = 0; n < ARRAY_SIZE(flavours); n++) {
        struct set *plain = set_new(flavours[n], SET_KIND_PLAIN);
        struct set *counted = set_new(flavours[n], SET_KIND_COUNTED);

        bt_mutant = mutant;
        set_env(plain)->no_splits = true;
        for (size_t k = 0; k < count; k++)
            set_translate(p[k].how & SET_COUNTED ? counted : plain, &p[k], look, &found);
        bt_mutant = MUTANT_NONE;
        set_free(plain);
        set_free(counted);
    }
    return found;
}

static void test_none(void **state) {
    struct found found = with_mutant(MUTANT_NONE);

    assert_true(found.fragments > 600);
    assert_int_equal(found.findings, 0);
}

/* Nothing can show it on a host without AVX-512. */
static bool out_of_reach(unsigned mutant) {
    return (mutant == MUTANT_EVEX_DISP8 || mutant == MUTANT_COPY_MASKED) &&
           !__builtin_cpu_supports("avx512f");
}

static void test_each_is_found(void **state) {
    unsigned missed = 0;

    for (unsigned m = MUTANT_NONE + 1; m < MUTANTS; m++) {
        struct found found = with_mutant(m);

        print_message("%4lu of %lu: %s: %s\n", found.findings, found.fragments, names[m],
                      found.findings ? found.why : "NOT FOUND");
        missed += !found.findings && !out_of_reach(m);
    }
    assert_int_equal(missed, 0);
}

/* With --bt verify nothing that was found is executed: the run ends. Also where the code
 * is made in the middle of it, as a hot path. */
static void test_ends_the_run(void **state) {
    /* mov ecx, 2000; mov edi, 0x30000; 1: mov [rdi], rcx; dec ecx; jnz 1b; hlt */
    static const uint8_t code[] = {0xb9, 0xd0, 0x07, 0,    0,    0xbf, 0,    0,    3,
                                   0,    0x48, 0x89, 0x0f, 0xff, 0xc9, 0x75, 0xf9, 0xf4};
    static const struct set_program p = {.code = code, .len = sizeof(code)};
    struct set *s = set_new("verify,cache=2,hot=100", SET_KIND_PLAIN);

    assert_int_equal(set_run(s, &p), EXIT_halt);
    assert_false(set_unsound(s));
    bt_mutant = MUTANT_HASH_WIDER; /* in its first fragment */
    assert_int_equal(set_run(s, &p), EXIT_error);
    assert_true(set_unsound(s));
    set_free(s);

    s = set_new("verify,cache=2,hot=100", SET_KIND_PLAIN);
    bt_mutant = MUTANT_ANCHOR_WIDER; /* its hot path alone */
    assert_int_equal(set_run(s, &p), EXIT_error);
    assert_true(set_unsound(s));
    set_free(s);
    bt_mutant = MUTANT_NONE;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_each_is_found),
        cmocka_unit_test(test_ends_the_run),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
