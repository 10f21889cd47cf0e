/* Buckets of tokens (base/rate.h), by a clock of the test's. */
#include "lib/unit.h"

#include "base/rate.h"
#include "lib/rnd.h"

#define SECOND 1000000000u

static void test_none(void **state) {
    const struct rate_limit none[] = {{0}, {0, SECOND, 1, 0}, {7, 0, 1, 0}};
    struct rate r = {0};

    for (size_t n = 0; n < ARRAY_SIZE(none); n++) {
        rate_set(&r, &none[n], 5);
        assert_false(rate_is_limited(&r));
        rate_take(&r, UINT64_MAX, 5);
        assert_int_equal(rate_when(&r, 5), 5);
    }
}

/* Ten at once, then one each tenth of a second. */
static void test_steady(void **state) {
    const struct rate_limit l = {10, SECOND, SECOND, 0};
    uint64_t now = 77 * (uint64_t)SECOND;
    struct rate r;

    rate_set(&r, &l, now);
    assert_true(rate_is_limited(&r));
    for (unsigned n = 0; n < 10; n++) {
        assert_int_equal(rate_when(&r, now), now);
        rate_take(&r, 1, now);
    }
    for (unsigned n = 0; n < 100; n++) {
        uint64_t at = rate_when(&r, now);

        assert_true(at > now && at - now <= SECOND / 10);
        assert_true(rate_when(&r, at - 1) > at - 1);
        now = at;
        rate_take(&r, 1, now);
    }
    now += 3600 * (uint64_t)SECOND; /* it holds no more than ten */
    for (unsigned n = 0; n < 10; n++) {
        assert_int_equal(rate_when(&r, now), now);
        rate_take(&r, 1, now);
    }
    assert_true(rate_when(&r, now) > now);
}

/* What is more than the bucket can hold goes, and is owed. */
static void test_owed(void **state) {
    const struct rate_limit l = {1000, SECOND, SECOND, 0};
    struct rate r;

    rate_set(&r, &l, 0);
    rate_take(&r, 5000, 0);
    assert_int_equal(rate_when(&r, 0), 4 * (uint64_t)SECOND + SECOND / 1000);
    rate_set(&r, &l, SECOND);
    assert_int_equal(rate_when(&r, SECOND), SECOND);
}

static void test_once(void **state) {
    const struct rate_limit l = {1, SECOND, SECOND, 5};
    struct rate r;

    rate_set(&r, &l, 0);
    rate_take(&r, 4, 0);
    assert_int_equal(r.full_ns, 0);
    rate_take(&r, 3, 0); /* the last of these, and two of the bucket's */
    assert_int_equal(rate_when(&r, 0), 2 * (uint64_t)SECOND);
    assert_int_equal(rate_when(&r, 50 * (uint64_t)SECOND), 50 * (uint64_t)SECOND);
}

/* Whatever is said and taken, a wait ends; and nobody has more than the rate and what is
 * in the bucket. */
static void test_any(void **state) {

    rnd_seed(20);
    for (unsigned n = 0; n < 20000; n++) {
        const struct rate_limit l = {rnd() >> (rnd() & 63), rnd() >> (rnd() & 63),
                                     rnd() >> (rnd() & 63), rnd() >> (rnd() & 63)};
        uint64_t now = rnd() >> 4;
        struct rate r;

        rate_set(&r, &l, now);
        for (unsigned k = 0; k < 8; k++) {
            uint64_t at = rate_when(&r, now);

            assert_true(at >= now);
            assert_int_equal(rate_when(&r, at), at);
            rate_take(&r, rnd() >> (rnd() & 63), at);
            now = at < UINT64_MAX / 2 ? at : now;
        }
    }
}

static void test_exact(void **state) {
    const struct rate_limit l = {3000000, SECOND, SECOND / 10, 0};
    uint64_t now = 0, had = 0;
    struct rate r;

    rnd_seed(3);
    rate_set(&r, &l, now);
    while (now < 100 * (uint64_t)SECOND) {
        uint64_t n = rnd() % 65536;

        now = rate_when(&r, now);
        rate_take(&r, n, now);
        had += n;
    }
    assert_true(had >= 299000000 && had <= 301000000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none), cmocka_unit_test(test_steady),
        cmocka_unit_test(test_owed), cmocka_unit_test(test_once),
        cmocka_unit_test(test_any),  cmocka_unit_test(test_exact),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
