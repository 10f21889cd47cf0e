/*
 * The small ports by themselves: the A20 gate and the fast reset of port 0x92, reset
 * control beside PCI's ports, the POST code, isa-debug-exit.
 */
#include "dev/pc/ports.h"
#include "lib/rig.h"
#include "lib/unit.h"

static struct rig r;
static struct ports *ports;

static int setup(void **state) {
    rig_new(&r);
    ports = ports_new(r.bus, &r.host);
    return ports ? 0 : -1;
}

static int teardown(void **state) {
    ports_free(ports);
    rig_free(&r);
    return 0;
}

/* Port 0x92 and the keyboard controller move one gate; the host hears of moves alone. */
static void test_a20(void **state) {
    assert_true(ports_a20(ports));
    assert_int_equal(rig_in(&r, 0x92), 2);
    rig_out(&r, 0x92, 2);
    assert_int_equal(r.a20_moves, 0);
    rig_out(&r, 0x92, 0);
    assert_false(ports_a20(ports));
    assert_int_equal(rig_in(&r, 0x92), 0);
    assert_false(r.a20);
    ports_a20_set(ports, true);
    assert_int_equal(rig_in(&r, 0x92), 2);
    assert_true(r.a20);
    assert_int_equal(r.a20_moves, 2);
    rig_out(&r, 0x92, 0);
    ports_reset(ports);
    assert_true(ports_a20(ports));
    assert_true(r.a20);
}

/* A rise of bit 0 resets; bits that nobody has read as 0. */
static void test_fast_reset(void **state) {
    rig_out(&r, 0x92, 0xfe);
    assert_int_equal(rig_in(&r, 0x92), 2);
    assert_int_equal(r.resets, 0);
    rig_out(&r, 0x92, 3);
    assert_int_equal(r.resets, 1);
    assert_int_equal(rig_in(&r, 0x92), 3);
    rig_out(&r, 0x92, 3);
    assert_int_equal(r.resets, 1);
    rig_out(&r, 0x92, 2);
    rig_out(&r, 0x92, 3);
    assert_int_equal(r.resets, 2);
    ports_reset(ports);
    assert_int_equal(rig_in(&r, 0x92), 2);
}

/* PIIX's register: the rise of bit 2, whatever the kind of reset. */
static void test_reset_control(void **state) {
    rig_out(&r, PORTS_RESET, 0x02);
    assert_int_equal(rig_in(&r, PORTS_RESET), 0x02);
    assert_int_equal(r.resets, 0);
    rig_out(&r, PORTS_RESET, 0xff);
    assert_int_equal(r.resets, 1);
    assert_int_equal(rig_in(&r, PORTS_RESET), 0x06);
    rig_out(&r, PORTS_RESET, 0x06);
    assert_int_equal(r.resets, 1);
    rig_out(&r, PORTS_RESET, 0x00);
    rig_out(&r, PORTS_RESET, 0x04);
    assert_int_equal(r.resets, 2);
    ports_reset(ports);
    assert_int_equal(rig_in(&r, PORTS_RESET), 0);
}

/* There is no PCI, and what is meant for it does not reset. */
static void test_no_pci(void **state) {
    rig_out32(&r, 0xcf8, 0x8000fe06);
    rig_out16(&r, 0xcf8, 0x0600);
    rig_out16(&r, PORTS_RESET, 0x0006);
    assert_int_equal(r.resets, 0);
    assert_int_equal(rig_in32(&r, 0xcf8), 0xffffffff);
    assert_int_equal(rig_in32(&r, 0xcfc), 0xffffffff);
    assert_int_equal(rig_in(&r, 0xcf8), 0xff);
    assert_int_equal(rig_in(&r, 0xcfb), 0xff);
    rig_out(&r, 0xcf8, 0x06);
    rig_out(&r, 0xcfa, 0x06);
    assert_int_equal(r.resets, 0);
}

static void test_post_code(void **state) {
    assert_int_equal(ports_post_code(ports), 0);
    rig_out(&r, 0x80, 0x5a);
    assert_int_equal(ports_post_code(ports), 0x5a);
    assert_int_equal(rig_in(&r, 0x80), 0x5a);
    ports_reset(ports);
    assert_int_equal(ports_post_code(ports), 0);
}

/* Of any width, at the first of the four ports. */
static void test_debug_exit(void **state) {
    rig_out32(&r, PORTS_DEBUG_EXIT, 0x12345678);
    assert_int_equal(r.exit_value, 0x12345678);
    rig_out16(&r, PORTS_DEBUG_EXIT, 0x4321);
    assert_int_equal(r.exit_value, 0x4321);
    rig_out(&r, PORTS_DEBUG_EXIT, 0x31);
    assert_int_equal(r.exit_value, 0x31);
    rig_out(&r, PORTS_DEBUG_EXIT + 1, 0x77);
    assert_int_equal(r.exit_value, 0x31);
    assert_int_equal(rig_in32(&r, PORTS_DEBUG_EXIT), 0);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_a20),    T(test_fast_reset), T(test_reset_control),
        T(test_no_pci), T(test_post_code),  T(test_debug_exit),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
