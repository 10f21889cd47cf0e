/* How long a halted CPU looks out for what it waits for before it sleeps. */
#include "lib/unit.h"
#include "machine/machine_int.h"

static void test_look(void **state) {
    uint32_t look = machine_lookout(0, 1000000);

    assert_int_equal(look, 0); /* an idle guest */
    look = machine_lookout(look, 200001);
    assert_int_equal(look, 0);
    look = machine_lookout(look, 50000);
    assert_int_equal(look, 10000);
    for (uint32_t wanted = 20000; wanted < 200000; wanted *= 2) {
        look = machine_lookout(look, 200000);
        assert_int_equal(look, wanted);
    }
    look = machine_lookout(look, 200000);
    assert_int_equal(look, 200000);
    assert_int_equal(machine_lookout(look, 200000), 200000);
    assert_int_equal(machine_lookout(look, 200001), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_look)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
