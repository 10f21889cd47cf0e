/*
 * The flash chip by itself: its commands, what reaches the host and in which order, and
 * how EDK2 tells it from RAM and ROM (OvmfPkg, QemuFlashFvbServicesRuntimeDxe).
 */
#include "dev/fw/flash.h"
#include "lib/rig.h"
#include "lib/unit.h"

#include <stdlib.h>

enum { AT = 0xffc00000, SIZE = 0x4000 };

static struct rig r;
static struct flash *flash;
static uint8_t host[SIZE];
static unsigned stores, settles;

static void on_store(void *arg, uint32_t at, const uint8_t *bytes, uint32_t len) {
    assert_true(at < SIZE && len <= SIZE - at);
    memcpy(host + at, bytes, len);
    stores++;
}

static void on_settle(void *arg) {
    settles++;
}

static int setup(void **state) {
    const struct flash_host h = {.store = on_store, .settle = on_settle};

    rig_new(&r);
    for (unsigned i = 0; i < SIZE; i++)
        host[i] = (uint8_t)(i / 7);
    stores = settles = 0;
    flash = flash_new(r.bus, gpa(AT), host, SIZE, &h);
    return flash ? 0 : -1;
}

static int teardown(void **state) {
    flash_free(flash);
    rig_free(&r);
    return 0;
}

static void put(unsigned at, unsigned value) {
    bus_mmio_write(r.bus, gpa(AT + at), 1, value);
}

static unsigned get(unsigned at) {
    return (unsigned)bus_mmio_read(r.bus, gpa(AT + at), 1);
}

static void test_read(void **state) {
    for (unsigned i = 0; i < SIZE; i++)
        assert_int_equal(get(i), (i / 7) & 0xff);
    assert_int_equal(bus_mmio_read(r.bus, gpa(AT + 6), 2), 0x0100);
    assert_int_equal(bus_mmio_read(r.bus, gpa(AT + 7 * 8), 8), 0x0908080808080808);
}

static void test_detect(void **state) {
    unsigned was = get(0x100);

    put(0x100, 0x50);
    assert_int_equal(get(0x100), was);
    put(0x100, 0x70);
    assert_int_equal(get(0x100), 0);
    put(0x100, 0xff);
    assert_int_equal(get(0x100), was);
    assert_int_equal(stores, 0);
    assert_int_equal(settles, 0);
}

static void test_program(void **state) {
    put(0x1005, 0x20);
    put(0x1005, 0xd0);
    assert_int_equal(get(0), 0x80); /* the status, ready */
    assert_int_equal(stores, 1);
    put(0x1010, 0x10);
    put(0x1010, 0xa5);
    put(0x1011, 0x40);
    put(0x1011, 0x5a);
    assert_int_equal(settles, 0);
    put(0x1011, 0xff);
    assert_int_equal(settles, 1);
    assert_int_equal(get(0x1010), 0xa5);
    assert_int_equal(get(0x1011), 0x5a);
    assert_int_equal(get(0x1fff), 0xff);
    assert_int_equal(get(0xfff), (0xfff / 7) & 0xff);
    assert_int_equal(get(0x2000), (0x2000 / 7) & 0xff);
    for (unsigned i = 0; i < SIZE; i++)
        assert_int_equal(get(i), host[i]);
    put(0x1010, 0x10); /* no bit comes back without erasing */
    put(0x1010, 0x0f);
    put(0, 0xff);
    assert_int_equal(get(0x1010), 0x05);
    assert_int_equal(host[0x1010], 0x05);
    put(0, 0xff);
    assert_int_equal(settles, 2);
}

static void test_sequences(void **state) {
    put(0, 0x20);
    put(0, 0x00); /* not confirmed */
    assert_int_equal(get(0), 0xb0);
    assert_int_equal(stores, 0);
    put(0, 0x50);
    assert_int_equal(get(0), 0);
    put(0, 0x90);
    assert_int_equal(get(0), 0x89);
    put(0, 0x98);
    assert_int_equal(get(0x10) << 16 | get(0x11) << 8 | get(0x12), 0x515259);
    assert_int_equal(get(0x2d), SIZE / FLASH_BLOCK - 1);
    put(0, 0x10);
    flash_reset(flash);
    put(5, 0x50);
    assert_int_equal(get(100), 100 / 7);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_read),
        T(test_detect),
        T(test_program),
        T(test_sequences),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
