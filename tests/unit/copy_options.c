/* What is to differ between copies that are made at once (ctl/copy_options.c). */
#include "lib/unit.h"

#include "base/types.h"
#include "ctl/copy_options.h"

/* The words of copy N; freed with the process. */
static char **words_of(const char *const *said, int count, unsigned n) {
    char **word = calloc((size_t)count, sizeof(*word));

    for (int k = 0; k < count; k++)
        word[k] = strdup(said[k]);
    assert_true(copy_options_count(word, count, n));
    return word;
}

static void test_counts(void **state) {
    static const char *const said[] = {"--net",
                                       "user,mac=52:54:00:00:ff:fe",
                                       "--jail",
                                       "on",
                                       "--net=tap:t0,mac=52:54:00:01:00:00,mtu=9000",
                                       "--vsock",
                                       "CID=41,path=x",
                                       "--vsock=cid=7"};
    char **word = words_of(said, ARRAY_SIZE(said), 0);

    for (unsigned n = 0; n < ARRAY_SIZE(said); n++)
        assert_string_equal(word[n], said[n]);
    word = words_of(said, ARRAY_SIZE(said), 1);
    assert_string_equal(word[1], "user,mac=52:54:00:01:00:00");
    assert_string_equal(word[4], "--net=tap:t0,mac=52:54:00:01:00:02,mtu=9000");
    assert_string_equal(word[6], "CID=42,path=x");
    assert_string_equal(word[7], "--vsock=cid=8");
    assert_string_equal(word[3], "on");
    word = words_of(said, ARRAY_SIZE(said), 49);
    assert_string_equal(word[1], "user,mac=52:54:00:01:00:60");
    assert_string_equal(word[6], "CID=90,path=x");
}

/* Who takes the option says what is wrong with it. */
static void test_leaves(void **state) {
    static const char *const said[] = {
        "--net",  "user,mac=", "--net",         "user,mac=52:54:zz", "--vsock",
        "CID=",   "--net",     "user,mtu=1500", "--vsock",           "path=x",
        "--disk", "a,mac=b",   "--net"};
    char **word = words_of(said, ARRAY_SIZE(said), 3);

    for (unsigned n = 0; n < ARRAY_SIZE(said); n++)
        assert_string_equal(word[n], said[n]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_leaves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
