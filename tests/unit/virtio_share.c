/*
 * The device that files are reached by, by itself: messages and answers through its
 * queues, with a server that the test is.
 */
#include "dev/virtio/share.h"

#include "lib/rig.h"
#include "lib/unit.h"
#include "lib/vdrv.h"

#define MAX 4096u
#define AT VDRV_DATA

static struct rig r;
static struct vdrv v;
static struct virtio_share *s;
static uint8_t message[VIRTIO_SHARE_SLOTS][MAX];
static bool taken[VIRTIO_SHARE_SLOTS];
static unsigned places; /* that may be taken */
static unsigned submitted, resets, slot_of[64];
static uint32_t len_of[64], room_of[64];

static uint8_t *on_begin(void *arg, unsigned *slot) {
    for (unsigned n = 0; n < places; n++)
        if (!taken[n]) {
            taken[n] = true;
            *slot = n;
            return message[n];
        }
    return NULL;
}

static void on_submit(void *arg, unsigned slot, uint32_t len, uint32_t room) {
    slot_of[submitted] = slot;
    len_of[submitted] = len;
    room_of[submitted++] = room;
}

static void on_drop(void *arg, unsigned slot) {
    taken[slot] = false;
}

static void on_reset(void *arg) {
    resets++;
}

static void make(enum virtio_share_kind kind) {
    const struct virtio_share_host host = {.begin = on_begin,
                                           .submit = on_submit,
                                           .drop = on_drop,
                                           .reset = on_reset,
                                           .max = MAX};

    vdrv_new(&v);
    rig_new(&r);
    s = virtio_share_new(v.mem, r.clock, kind, "tag", &host, &r.cnt);
    v.d = virtio_share_device(s);
    memset(taken, 0, sizeof(taken));
    places = VIRTIO_SHARE_SLOTS;
    submitted = resets = 0;
    vdrv_start(&v, v.d->offered);
}

static int setup(void **state) {
    make(VIRTIO_SHARE_9P);
    return 0;
}

static int teardown(void **state) {
    virtio_share_free(s);
    rig_free(&r);
    vdrv_free(&v);
    return 0;
}

/* A message of LEN bytes and ROOM for its answer, each in two pieces. */
static void send(unsigned q, uint32_t len, uint32_t room) {
    const struct vdrv_piece p[] = {{AT, len / 2, 0},
                                   {AT + 0x10000, len - len / 2, 0},
                                   {AT + 0x20000, room / 2, VDRV_WRITE},
                                   {AT + 0x30000, room - room / 2, VDRV_WRITE}};

    vdrv_send(&v, q, p, 4);
}

static void answer(unsigned n, const char *text) {
    taken[slot_of[n]] = false;
    virtio_share_done(s, slot_of[n], (const uint8_t *)text, (uint32_t)strlen(text));
}

static void test_message(void **state) {
    uint32_t len;

    vdrv_put(&v, AT, 4, 0x64636261);
    vdrv_put(&v, AT + 0x10000, 4, 0x68676665);
    send(0, 8, 100);
    assert_int_equal(submitted, 1);
    assert_int_equal(len_of[0], 8);
    assert_int_equal(room_of[0], 100);
    assert_memory_equal(message[slot_of[0]], "abcdefgh", 8);
    assert_int_equal(vdrv_take(&v, 0, &len), -1);
    answer(0, "0123456789");
    assert_true(vdrv_take(&v, 0, &len) >= 0);
    assert_int_equal(len, 10);
    assert_int_equal(vdrv_get(&v, AT + 0x20000, 4), 0x33323130);
    assert_int_equal(v.interrupts, 1);
}

/* An answer that the guest has no room for is cut. */
static void test_short_room(void **state) {
    uint32_t len;

    send(0, 8, 6);
    answer(0, "0123456789");
    assert_true(vdrv_take(&v, 0, &len) >= 0);
    assert_int_equal(len, 6);
    send(0, 8, MAX * 3);
    assert_int_equal(room_of[1], MAX);
    answer(1, "");
    assert_true(vdrv_take(&v, 0, &len) >= 0);
    assert_int_equal(len, 0);
}

static void test_too_long(void **state) {
    send(0, MAX + 1, 100);
    assert_int_equal(submitted, 0);
    assert_true(v.d->status & VIRTIO_NEEDS_RESET);
    assert_false(taken[0]);
}

static void test_no_places(void **state) {
    uint32_t len;

    places = 2;
    for (unsigned n = 0; n < 5; n++)
        send(0, 8, 8);
    assert_int_equal(submitted, 2);
    answer(0, "one");
    virtio_share_go_on(s);
    assert_int_equal(submitted, 3);
    answer(2, "three");
    answer(1, "two");
    virtio_share_go_on(s);
    assert_int_equal(submitted, 5);
    answer(4, "five");
    answer(3, "four");
    virtio_share_go_on(s);
    for (unsigned n = 0; n < 5; n++)
        assert_true(vdrv_take(&v, 0, &len) >= 0);
    assert_int_equal(submitted, 5);
}

/* What is answered after a reset belongs to nobody. */
static void test_reset(void **state) {
    uint32_t len;
    unsigned before = resets;

    send(0, 8, 8);
    vdrv_start(&v, v.d->offered);
    assert_int_equal(resets, before + 1);
    answer(0, "late");
    assert_int_equal(vdrv_take(&v, 0, &len), -1);
    send(0, 8, 8);
    answer(1, "good");
    assert_true(vdrv_take(&v, 0, &len) >= 0);
}

static void test_config(void **state) {
    assert_int_equal(v.d->id, 9);
    assert_true(v.d->offered & 1);
    assert_int_equal(virtio_config_read(v.d, 0, 2), 3);
    assert_int_equal(virtio_config_read(v.d, 2, 1), 't');
    assert_int_equal(virtio_config_read(v.d, 4, 1), 'g');
    assert_int_equal(virtio_config_read(v.d, 5, 1), 0);
    teardown(state);
    make(VIRTIO_SHARE_FS);
    assert_int_equal(v.d->id, 26);
    assert_int_equal(virtio_config_read(v.d, 0, 4), 0x00676174);
    assert_int_equal(virtio_config_read(v.d, 36, 4), 1);
    send(0, 40, 0);
    send(1, 40, 16);
    assert_int_equal(submitted, 2);
    assert_int_equal(room_of[0], 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_message, setup, teardown),
        cmocka_unit_test_setup_teardown(test_short_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_long, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_places, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_config, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
