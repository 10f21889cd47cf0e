/*
 * The tablet by itself: what it says of itself, and events through its queue, with more
 * and with fewer buffers than they need.
 */
#include "dev/virtio/input.h"

#include "dev/pc/mouse.h"
#include "lib/rig.h"
#include "lib/unit.h"
#include "lib/vdrv.h"

#define AT VDRV_DATA
#define SELECT(what, of)                                                                 \
    (virtio_config_write(v.d, 0, 1, (what)), virtio_config_write(v.d, 1, 1, (of)),       \
     virtio_config_read(v.d, 2, 1))
#define DATA(at, size) virtio_config_read(v.d, 8 + (at), (size))

static struct rig r;
static struct vdrv v;
static struct virtio_input *t;
static unsigned offered; /* buffers of the event queue */

static int setup(void **state) {
    vdrv_new(&v);
    rig_new(&r);
    t = virtio_input_new(v.mem, r.clock, &r.cnt);
    assert_non_null(t);
    v.d = virtio_input_device(t);
    vdrv_start(&v, v.d->offered);
    offered = 0;
    return 0;
}

static int teardown(void **state) {
    virtio_input_free(t);
    rig_free(&r);
    vdrv_free(&v);
    return 0;
}

static void offer(unsigned count) {
    while (count--) {
        const struct vdrv_piece p = {AT + 8 * offered++, 8, VDRV_WRITE};

        vdrv_send(&v, 0, &p, 1);
    }
}

/* The next event is this one; events are taken in the order of the buffers. */
static unsigned seen;
static void expect(unsigned type, unsigned code, int value) {
    uint64_t at = AT + 8 * seen++;
    uint32_t len = 0;

    assert_true(vdrv_take(&v, 0, &len) >= 0);
    assert_int_equal(len, 8);
    assert_int_equal(vdrv_get(&v, at, 2), type);
    assert_int_equal(vdrv_get(&v, at + 2, 2), code);
    assert_int_equal((int32_t)vdrv_get(&v, at + 4, 4), value);
}

static void expect_nothing(void) {
    uint32_t len;

    assert_int_equal(vdrv_take(&v, 0, &len), -1);
}

static bool point(unsigned x, unsigned y, int wheel, unsigned buttons) {
    const struct virtio_input_point p = {(uint16_t)x, (uint16_t)y, (int16_t)wheel,
                                         (uint8_t)buttons};

    return virtio_input_point(t, &p);
}

static void test_config(void **state) {
    assert_int_equal(SELECT(0, 0), 0);
    assert_int_equal(SELECT(1, 0), 21);
    assert_int_equal(DATA(0, 1), 'b');
    assert_int_equal(DATA(20, 2), 't'); /* and a zero */
    assert_int_equal(SELECT(1, 1), 0);
    assert_int_equal(SELECT(3, 0), 8);
    assert_int_equal(DATA(0, 2), 6);
    assert_int_equal(SELECT(0x11, 1), 0x112 / 8 + 1);
    assert_int_equal(DATA(0x110 / 8, 1), 7);
    assert_int_equal(DATA(0, 8), 0);
    assert_int_equal(SELECT(0x11, 2), 2);
    assert_int_equal(DATA(0, 2), 1u << 8);
    assert_int_equal(SELECT(0x11, 3), 1);
    assert_int_equal(DATA(0, 1), 3);
    assert_int_equal(SELECT(0x11, 0x14), 0); /* no repetition */
    assert_int_equal(SELECT(0x12, 1), 20);
    assert_int_equal(DATA(0, 8), (uint64_t)VIRTIO_INPUT_MAX << 32);
    assert_int_equal(SELECT(0x12, 2), 0);
    assert_int_equal(SELECT(255, 255), 0);
    virtio_config_write(v.d, 2, 4, 0xffffffff); /* not the driver's to write */
    virtio_config_write(v.d, 0, 8, 0xffffffff);
    assert_int_equal(virtio_config_read(v.d, 2, 1), 0);
    virtio_device_reset(v.d);
    assert_int_equal(virtio_config_read(v.d, 0, 2), 0);
}

static void test_events(void **state) {
    seen = 0;
    offer(20);
    assert_true(point(100, 32767, 0, 0));
    expect(3, 0, 100);
    expect(3, 1, 32767);
    expect(0, 0, 0);
    assert_true(point(100, 32767, 0, 0)); /* nothing new */
    expect_nothing();
    assert_true(point(100, 5, 2, MOUSE_LEFT | MOUSE_MIDDLE));
    expect(3, 1, 5);
    expect(1, 0x110, 1);
    expect(1, 0x112, 1);
    expect(2, 8, -2);
    expect(0, 0, 0);
    assert_true(point(100, 5, 0, MOUSE_RIGHT));
    expect(1, 0x110, 0);
    expect(1, 0x111, 1);
    expect(1, 0x112, 0);
    expect(0, 0, 0);
    expect_nothing();
}

/* What has no buffers waits: whole, positions merged, clicks not. */
static void test_few(void **state) {
    seen = 0;
    offer(2);
    assert_true(point(1, 1, 0, 0));
    expect_nothing();
    assert_true(point(2, 2, 1, 0));
    assert_true(point(3, 3, 1, 0));
    assert_true(point(3, 3, 0, MOUSE_LEFT));
    assert_true(point(3, 3, 0, 0));
    offer(1); /* four are needed */
    expect_nothing();
    offer(1);
    expect(3, 0, 3);
    expect(3, 1, 3);
    expect(2, 8, -2);
    expect(0, 0, 0);
    expect_nothing();
    offer(4);
    expect(1, 0x110, 1);
    expect(0, 0, 0);
    expect(1, 0x110, 0);
    expect(0, 0, 0);
    for (int n = 0; n < 1000; n++) /* more than are kept */
        assert_true(point(4, 4, 30000, n & 1 ? MOUSE_LEFT : 0));
    offer(48);
    while (seen < 56) { /* the last of them is there */
        uint32_t len;

        if (vdrv_take(&v, 0, &len) < 0)
            break;
        seen++;
    }
    assert_true(seen > 8);
}

/* No driver; one that offers nothing, or buffers that are too short; its lights. */
static void test_drivers(void **state) {
    const struct vdrv_piece small = {AT, 3, VDRV_WRITE}, none = {AT, 8, 0};
    uint32_t len;

    vdrv_send(&v, 1, &none, 1);
    assert_true(vdrv_take(&v, 1, &len) >= 0);
    assert_int_equal(len, 0);
    vdrv_send(&v, 0, &small, 1);
    vdrv_send(&v, 0, &none, 1);
    assert_true(point(7, 0, 0, 0));
    assert_true(vdrv_take(&v, 0, &len) >= 0);
    assert_int_equal(len, 3);
    assert_true(vdrv_take(&v, 0, &len) >= 0);
    assert_int_equal(len, 0);
    virtio_device_reset(v.d);
    assert_false(point(8, 0, 0, 0));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_config),
        T(test_events),
        T(test_few),
        T(test_drivers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
