/* What engines can be told: names and values onto structures, what was said and what is
 * taken of itself, for the tables that there are and one of the test's own. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/options.h"
#include "machine/machine.h"

struct mine {
    bool fast;
    unsigned depth, colour, tail;
};

static const char *const colours[] = {"red", "green", NULL};
static const struct engine_option table[] = {
    {.name = "fast", .what = "w", .off = offsetof(struct mine, fast)},
    {.name = "depth",
     .what = "w",
     .off = offsetof(struct mine, depth),
     .min = 2,
     .max = 9},
    {.name = "colour", .off = offsetof(struct mine, colour), .choices = colours},
};

static void defaults(void *options) {
    *(struct mine *)options = (struct mine){.fast = true, .depth = 5};
}

static const struct engine_options mine = {.flag = "mine",
                                           .of = "my engine",
                                           .help = "help",
                                           .table = table,
                                           .count = ARRAY_SIZE(table),
                                           .size = sizeof(struct mine),
                                           .defaults = defaults,
                                           .counted = "no-fast,depth=3,colour=green"};

static char why[128];

static int parse(struct mine *m, uint64_t *given, const char *text) {
    return engine_options_parse(&mine, m, given, text, why, sizeof(why));
}

static void test_names(void **state) {
    uint64_t given = 0;
    struct mine m;

    defaults(&m);
    m.tail = 0x77777777;
    assert_int_equal(parse(&m, &given, "no-fast,depth=9"), 0);
    assert_false(m.fast);
    assert_int_equal(m.depth, 9);
    assert_int_equal(given, 3);
    assert_int_equal(parse(&m, &given, "fast,colour=green,depth=2"), 0);
    assert_true(m.fast);
    assert_int_equal(m.colour, 1);
    assert_int_equal(m.depth, 2);
    assert_int_equal(given, 7);
    assert_int_equal(m.tail, 0x77777777);
    assert_int_equal(parse(&m, NULL, "colour=red"), 0);
    assert_int_equal(m.colour, 0);
}

static void test_refusals(void **state) {
    static const char *const bad[] = {
        "",
        "fast=1",
        "no-fast=",
        "depth",
        "depth=",
        "depth=1",
        "depth=10",
        "depth=4294967298",
        "depth=x",
        "depth=-3",
        "no-depth",
        "colour",
        "colour=",
        "colour=blue",
        "colour=re",
        "no-colour=red",
        "fast,,depth=3",
        "fastest",
        "fas",
        "depth=3,",
        ",",
        "=",
        "no-",
        "depth=99999999999999999999999999",
    };

    for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
        struct mine m, before;
        uint64_t given = 0;

        memset(&m, 0, sizeof(m));
        defaults(&m);
        before = m;
        why[0] = 0;
        if (parse(&m, &given, bad[n]) != -EINVAL)
            fail_msg("'%s' is taken", bad[n]);
        assert_true(*why);
        assert_int_equal(m.depth == 3, !strncmp(bad[n], "depth=3,", 8));
        assert_int_equal(m.colour, before.colour);
    }
    assert_int_equal(parse(&(struct mine){0}, NULL, "blue"), -EINVAL);
    assert_string_equal(why, "my engine has no option 'blue'; `help` lists them");
    assert_int_equal(parse(&(struct mine){0}, NULL, "colour=blue"), -EINVAL);
    assert_string_equal(why, "'colour' wants one of red, green, not 'blue'");
}

/* What was said stands; the rest is the engine's word. */
static void test_apply(void **state) {
    uint64_t given = 0;
    struct mine m;

    defaults(&m);
    assert_int_equal(parse(&m, &given, "depth=8"), 0);
    engine_options_apply(&mine, &m, given, mine.counted);
    assert_false(m.fast);
    assert_int_equal(m.depth, 8);
    assert_int_equal(m.colour, 1);
    engine_options_apply(&mine, &m, 0, mine.counted);
    assert_int_equal(m.depth, 3);
    engine_options_apply(&mine, &m, 0, NULL);
    assert_int_equal(m.depth, 3);
}

/* Every engine's table: sane, its defaults in reach of it, its own texts understood. */
static void test_engines(void **state) {
    size_t count;
    const struct engine_ops *const *all = machine_engines(&count);
    struct machine_options o, before;

    machine_options_default(&o);
    before = o;
    assert_in_range(count, 1, MACHINE_ENGINES);
    for (size_t n = 0; n < count; n++) {
        const struct engine_options *s = all[n]->options;

        assert_ptr_equal(machine_options_of(&o, all[n]), s ? o.of[n].bytes : NULL);
        if (!s)
            continue;
        assert_in_range(s->count, 1, 64);
        assert_in_range(s->size, 1, ENGINE_OPTIONS_SIZE);
        assert_true(!s->flag || s->what);
        for (size_t k = 0; k < s->count; k++) {
            assert_true(*s->table[k].name && *s->table[k].what);
            assert_true(s->table[k].off < s->size);
        }
    }
    machine_options_counted(&o);
    assert_true(machine_options_exact(&o));
    machine_options_single(&o);
    o = before;
    for (size_t n = 0; n < count; n++)
        if (all[n]->options && !strcmp(all[n]->name, "bt")) {
            assert_false(machine_options_exact(&o)); /* dead flags */
            assert_int_equal(
                machine_options_parse(&o, all[n], "liveness", why, sizeof(why)), 0);
        }
    machine_options_counted(&o);
    assert_false(machine_options_exact(&o)); /* it was asked for */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_apply), cmocka_unit_test(test_engines)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
