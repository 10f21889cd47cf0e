/*
 * virtio's queues and status by themselves: a device of the test's takes what a driver of
 * the test's offers, good chains and all kinds of bad ones. VIRTIO 1.2, "Split
 * Virtqueues", "Device Initialization".
 */
#include "dev/virtio/virtio.h"
#include "lib/unit.h"
#include "lib/vdrv.h"

enum { SIZE = 16, ROOMS = 24 };

static struct vdrv v;
static struct virtio_device dev;
static struct virtio_queue queue[2];
static struct virtio_piece room[ROOMS];
static struct virtio_chain chain;
static unsigned notified, resets, starts;
static bool good;
static uint8_t config[10];
static unsigned configured, configured_at;

static void on_notify(struct virtio_device *d, unsigned q) {
    notified++;
}

static void on_reset(struct virtio_device *d) {
    resets++;
}

static bool on_accept(struct virtio_device *d) {
    return good;
}

static void on_start(struct virtio_device *d) {
    starts++;
}

static void on_configure(struct virtio_device *d, unsigned at, unsigned len,
                         uint64_t value) {
    configured = len;
    configured_at = at;
}

static const struct virtio_ops ops = {.notify = on_notify,
                                      .reset = on_reset,
                                      .accept = on_accept,
                                      .start = on_start,
                                      .configure = on_configure};

static int setup(void **state) {
    vdrv_new(&v);
    queue[0] = (struct virtio_queue){.size_max = SIZE};
    queue[1] = (struct virtio_queue){.size_max = 0};
    dev = (struct virtio_device){.ops = &ops,
                                 .name = "test",
                                 .id = VIRTIO_ID_RNG,
                                 .mem = v.mem,
                                 .offered = VIRTIO_F_ALWAYS | 6,
                                 .config = config,
                                 .config_len = sizeof(config),
                                 .queue = queue,
                                 .queues = 2};
    virtio_device_init(&dev);
    v.d = &dev;
    chain = (struct virtio_chain){.room = room, .rooms = ROOMS};
    good = true;
    notified = resets = starts = configured = 0;
    return 0;
}

static int teardown(void **state) {
    vdrv_free(&v);
    return 0;
}

static bool pop(void) {
    return virtio_queue_pop(&queue[0], &chain);
}

static bool broken(void) {
    return virtio_status(&dev) & VIRTIO_NEEDS_RESET;
}

static void start(void) {
    vdrv_start(&v, VIRTIO_F_ALWAYS);
}

/* A chain of a readable and two writable pieces goes there and back. */
static void test_chain(void **state) {
    struct vdrv_piece p[] = {{VDRV_DATA, 5, 0},
                             {VDRV_DATA + 0x1000, 3, VDRV_WRITE},
                             {VDRV_DATA + 0x2000, 4, VDRV_WRITE}};
    uint8_t text[8] = {0};
    uint32_t len;

    start();
    assert_false(pop());
    vdrv_put(&v, VDRV_DATA, 5, 0x6f6c6c6568);
    notified = 0;
    unsigned head = vdrv_send(&v, 0, p, 3);
    assert_int_equal(notified, 1);
    assert_true(pop());
    assert_int_equal(chain.out.len, 5);
    assert_int_equal(chain.in.len, 7);
    assert_int_equal(chain.in.count, 2);
    assert_int_equal(virtio_span_read(&chain.out, text, 2), 2);
    assert_int_equal(virtio_span_read(&chain.out, text + 2, 100), 3);
    assert_string_equal((char *)text, "hello");
    assert_int_equal(virtio_span_write(&dev, &chain.in, "abcd", 4), 4);
    assert_int_equal(chain.in.len, 3);
    assert_int_equal(virtio_span_write(&dev, &chain.in, "efgh", 4), 3);
    assert_int_equal(vdrv_get(&v, VDRV_DATA + 0x1000, 3), 0x636261);
    assert_int_equal(vdrv_get(&v, VDRV_DATA + 0x2000, 4), 0x67666564);
    virtio_queue_push(&queue[0], chain.head, 7);
    assert_int_equal(vdrv_take(&v, 0, &len), -1);
    virtio_queue_publish(&queue[0]);
    assert_int_equal(vdrv_take(&v, 0, &len), head);
    assert_int_equal(len, 7);
    assert_int_equal(v.interrupts, 1);
    assert_false(pop());
    assert_false(broken());
}

static void test_span_ends(void **state) {
    struct vdrv_piece p[] = {{VDRV_DATA, 2, VDRV_WRITE},
                             {VDRV_DATA + 0x1000, 1, VDRV_WRITE}};

    start();
    vdrv_send(&v, 0, p, 2);
    assert_true(pop());
    assert_ptr_equal(virtio_span_take_last(&chain.in),
                     mem_host(v.mem, gpa(VDRV_DATA + 0x1000), 1));
    assert_ptr_equal(virtio_span_take_last(&chain.in),
                     mem_host(v.mem, gpa(VDRV_DATA + 1), 1));
    assert_int_equal(chain.in.len, 1);
    assert_non_null(virtio_span_take_last(&chain.in));
    assert_null(virtio_span_take_last(&chain.in));
    vdrv_send(&v, 0, p, 2);
    assert_true(pop());
    virtio_span_cut(&chain.in, 5);
    assert_int_equal(chain.in.len, 3);
    virtio_span_cut(&chain.in, 1);
    assert_int_equal(chain.in.count, 1);
    assert_int_equal(virtio_span_write(&dev, &chain.in, "xyz", 3), 1);
}

/* The ring goes round many times, and so do the indices. */
static void test_round(void **state) {
    struct vdrv_piece p = {VDRV_DATA, 1, VDRV_WRITE};

    start();
    for (unsigned n = 0; n < 70000; n++) {
        unsigned head = vdrv_send(&v, 0, &p, 1);

        assert_true(pop());
        virtio_queue_give(&queue[0], chain.head, 1);
        assert_int_equal(vdrv_take(&v, 0, NULL), head);
    }
}

static void test_unpop(void **state) {
    struct vdrv_piece p = {VDRV_DATA, 1, VDRV_WRITE};
    unsigned first;

    start();
    first = vdrv_send(&v, 0, &p, 1);
    vdrv_send(&v, 0, &p, 1);
    assert_true(pop());
    assert_true(pop());
    virtio_queue_unpop(&queue[0], 2);
    assert_true(pop());
    assert_int_equal(chain.head, first);
}

/* --- indirect descriptors --- */

#define TABLE (VDRV_DATA + 0x100000)

static void indirect(unsigned n, uint64_t at, uint32_t len, unsigned flags,
                     unsigned next) {
    vdrv_put(&v, TABLE + 16 * n, 8, at);
    vdrv_put(&v, TABLE + 16 * n + 8, 4, len);
    vdrv_put(&v, TABLE + 16 * n + 12, 2, flags);
    vdrv_put(&v, TABLE + 16 * n + 14, 2, next);
}

/* By itself, and behind a normal one; with more entries than the queue has. */
static void test_indirect(void **state) {
    enum { ENTRIES = SIZE + 4 };

    start();
    for (unsigned n = 0; n < ENTRIES; n++)
        indirect(n, VDRV_DATA + n, 1, n + 1 < ENTRIES ? VDRV_NEXT : VDRV_WRITE, n + 1);
    vdrv_desc(&v, 0, 3, TABLE, 16 * ENTRIES, VDRV_INDIRECT, 0);
    vdrv_offer(&v, 0, 3);
    assert_true(pop());
    assert_int_equal(chain.out.len, ENTRIES - 1);
    assert_int_equal(chain.in.len, 1);
    vdrv_desc(&v, 0, 2, VDRV_DATA, 7, VDRV_NEXT, 3);
    vdrv_offer(&v, 0, 2);
    assert_true(pop());
    assert_int_equal(chain.out.len, ENTRIES - 1 + 7);
    assert_false(broken());
}

static void offer_table(uint64_t at, uint32_t len, unsigned flags) {
    start();
    vdrv_desc(&v, 0, 0, at, len, VDRV_INDIRECT | flags, 0);
    vdrv_offer(&v, 0, 0);
}

static void test_bad_indirect(void **state) {
    indirect(0, VDRV_DATA, 1, 0, 0);
    offer_table(TABLE, 16, VDRV_WRITE); /* the flag says nothing here */
    assert_true(pop());
    static const struct {
        uint64_t at;
        uint32_t len;
        unsigned flags;
    } bad[] = {
        {TABLE, 0, 0},
        {TABLE, 17, 0},
        {TABLE, 16 * (VIRTIO_INDIRECT_MAX + 1), 0},
        {TABLE, 16, VDRV_NEXT},
        {VDRV_RAM, 16, 0},
        {UINT64_MAX - 15, 16, 0},
        {UINT64_MAX - 3, 16, 0},
    };
    for (unsigned n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
        offer_table(bad[n].at, bad[n].len, bad[n].flags);
        assert_false(pop());
        assert_true(broken());
    }
    static const struct {
        uint64_t at;
        uint32_t len;
        unsigned flags, next;
    } entry[] = {
        {TABLE, 16, VDRV_INDIRECT, 0},   /* one in the other */
        {VDRV_DATA, 1, VDRV_NEXT, 0},    /* a loop */
        {VDRV_DATA, 1, VDRV_NEXT, 1},    /* beyond the table */
        {VDRV_RAM - 1, 2, VDRV_WRITE, 0} /* beyond memory */
    };
    for (unsigned n = 0; n < sizeof(entry) / sizeof(entry[0]); n++) {
        indirect(0, entry[n].at, entry[n].len, entry[n].flags, entry[n].next);
        offer_table(TABLE, 16, 0);
        assert_false(pop());
        assert_true(broken());
    }
    vdrv_start(&v, VIRTIO_F_VERSION_1);
    indirect(0, VDRV_DATA, 1, 0, 0);
    vdrv_desc(&v, 0, 0, TABLE, 16, VDRV_INDIRECT, 0);
    vdrv_offer(&v, 0, 0);
    assert_false(pop());
    assert_true(broken());
}

/* --- hostile rings --- */

static void expect_broken(void) {
    assert_false(pop());
    assert_true(broken());
    assert_int_equal(v.changes, 1); /* the driver is told */
    assert_false(pop());
    notified = 0;
    virtio_notify(&dev, 0);
    assert_int_equal(notified, 0);
    virtio_queue_give(&queue[0], 0, 0);
    assert_int_equal(v.interrupts, 0);
    start();
    assert_false(broken());
}

static void test_hostile_chains(void **state) {
    start();
    vdrv_offer(&v, 0, SIZE); /* no such head */
    expect_broken();
    vdrv_offer(&v, 0, 0xffff);
    expect_broken();
    vdrv_desc(&v, 0, 0, VDRV_DATA, 1, VDRV_NEXT, 0); /* itself */
    vdrv_offer(&v, 0, 0);
    expect_broken();
    for (unsigned n = 0; n < SIZE; n++)
        vdrv_desc(&v, 0, n, VDRV_DATA, 1, VDRV_NEXT, (n + 1) % SIZE);
    vdrv_offer(&v, 0, 5);
    expect_broken();
    vdrv_desc(&v, 0, 0, VDRV_DATA, 1, VDRV_NEXT, SIZE);
    vdrv_offer(&v, 0, 0);
    expect_broken();
    vdrv_desc(&v, 0, 0, VDRV_DATA, 1, VDRV_NEXT | VDRV_WRITE, 1);
    vdrv_desc(&v, 0, 1, VDRV_DATA, 1, 0, 0); /* readable behind writable */
    vdrv_offer(&v, 0, 0);
    expect_broken();
}

static void test_hostile_addresses(void **state) {
    static const struct {
        uint64_t at;
        uint32_t len;
        unsigned flags;
    } bad[] = {
        {VDRV_RAM, 1, 0},
        {VDRV_RAM - 1, 2, 0},
        {VDRV_RAM - 1, 2, VDRV_WRITE},
        {0, 0xffffffff, 0},
        {UINT64_MAX, 1, 0},
        {UINT64_MAX - 1, 0xffffffff, VDRV_WRITE},
        {MEM_ROM_START, 16, VDRV_WRITE},
        {0xfee00000, 4, VDRV_WRITE},
    };

    start();
    for (unsigned n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
        vdrv_desc(&v, 0, 0, bad[n].at, bad[n].len, bad[n].flags, 0);
        vdrv_offer(&v, 0, 0);
        expect_broken();
    }
    vdrv_desc(&v, 0, 0, MEM_ROM_START, 16, 0, 0); /* may be read */
    vdrv_offer(&v, 0, 0);
    assert_true(pop());
    vdrv_desc(&v, 0, 1, UINT64_MAX, 0, 0, 0); /* nothing, nowhere */
    vdrv_offer(&v, 0, 1);
    assert_true(pop());
    assert_int_equal(chain.out.count, 0);
}

/* More pieces than the device has room for, in a table that is longer than the queue. */
static void test_rooms(void **state) {
    start();
    for (unsigned n = 0; n <= ROOMS; n++)
        indirect(n, VDRV_DATA + n, 1, n < ROOMS ? VDRV_NEXT : 0, n + 1);
    vdrv_desc(&v, 0, 0, TABLE, 16 * (ROOMS + 1), VDRV_INDIRECT, 0);
    vdrv_offer(&v, 0, 0);
    expect_broken();
}

static void test_hostile_index(void **state) {
    start();
    vdrv_put(&v, VDRV_RINGS + VDRV_AVAIL + 2, 2, SIZE);
    assert_true(pop()); /* a full queue */
    start();
    vdrv_put(&v, VDRV_RINGS + VDRV_AVAIL + 2, 2, SIZE + 1);
    expect_broken();
    vdrv_put(&v, VDRV_RINGS + VDRV_AVAIL + 2, 2, 0xffff); /* it went back */
    expect_broken();
}

static void test_ring_places(void **state) {
    static const struct {
        uint64_t desc, avail, used;
    } bad[] = {
        {VDRV_RAM, VDRV_DATA, VDRV_DATA},
        {VDRV_RAM - 16 * SIZE + 16, VDRV_DATA, VDRV_DATA},
        {VDRV_DATA + 8, VDRV_DATA, VDRV_DATA},
        {VDRV_DATA, VDRV_DATA + 1, VDRV_DATA},
        {VDRV_DATA, VDRV_RAM - 4, VDRV_DATA},
        {VDRV_DATA, VDRV_DATA, VDRV_DATA + 2},
        {VDRV_DATA, VDRV_DATA, UINT64_MAX - 3},
        {VDRV_DATA, VDRV_DATA, MEM_ROM_START},
    };

    for (unsigned n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
        vdrv_features(&v, VIRTIO_F_VERSION_1);
        queue[0].desc = bad[n].desc;
        queue[0].avail = bad[n].avail;
        queue[0].used = bad[n].used;
        virtio_queue_enable(&queue[0]);
        assert_true(broken());
        assert_false(queue[0].ready);
        virtio_set_status(&dev, VIRTIO_DRIVER_OK | virtio_status(&dev), false);
        assert_false(pop());
    }
}

/* --- notifications --- */

/* Without event index: the driver's flag. */
static void test_no_interrupt_flag(void **state) {
    struct vdrv_piece p = {VDRV_DATA, 1, VDRV_WRITE};

    vdrv_start(&v, VIRTIO_F_VERSION_1);
    for (unsigned flag = 0; flag < 2; flag++) {
        vdrv_put(&v, VDRV_RINGS + VDRV_AVAIL, 2, flag);
        vdrv_send(&v, 0, &p, 1);
        assert_true(pop());
        virtio_queue_give(&queue[0], chain.head, 0);
        assert_int_equal(v.interrupts, 1);
    }
}

/* "Used Buffer Notification Suppression": at the index that the driver names, and when it
 * is among several that are published at once. */
static void test_used_event(void **state) {
    struct vdrv_piece p = {VDRV_DATA, 1, VDRV_WRITE};
    uint64_t used_event = VDRV_RINGS + VDRV_AVAIL + 4 + 2 * SIZE;

    start();
    vdrv_put(&v, used_event, 2, 2);
    for (unsigned n = 0; n < 6; n++) {
        vdrv_send(&v, 0, &p, 1);
        assert_true(pop());
        virtio_queue_give(&queue[0], chain.head, 0);
        assert_int_equal(v.interrupts, n >= 2);
    }
    vdrv_put(&v, used_event, 2, 8);
    for (unsigned n = 0; n < 6; n++) {
        vdrv_send(&v, 0, &p, 1);
        assert_true(pop());
        virtio_queue_push(&queue[0], chain.head, 0);
    }
    assert_int_equal(v.interrupts, 1);
    virtio_queue_publish(&queue[0]);
    assert_int_equal(v.interrupts, 2);
    virtio_queue_publish(&queue[0]); /* nothing new */
    assert_int_equal(v.interrupts, 2);
}

/* The device wants to hear of the next one when it has found none. */
static void test_avail_event(void **state) {
    struct vdrv_piece p = {VDRV_DATA, 1, VDRV_WRITE};
    uint64_t avail_event = VDRV_RINGS + VDRV_USED + 4 + 8 * SIZE;

    start();
    vdrv_send(&v, 0, &p, 1);
    vdrv_send(&v, 0, &p, 1);
    assert_true(pop());
    assert_true(pop());
    assert_int_equal(vdrv_get(&v, avail_event, 2), 0);
    assert_false(pop());
    assert_int_equal(vdrv_get(&v, avail_event, 2), 2);
}

/* A driver whose stores are seen late: the fence brings them to light. */
static struct late {
    uint64_t at;
    uint16_t value;
    bool done; /* what the fence says of itself */
    unsigned calls;
} late;

static bool late_fence(void *arg) {
    late.calls++;
    vdrv_put(&v, late.at, 2, late.value);
    return late.done;
}

static void give_one(void) {
    struct vdrv_piece p = {VDRV_DATA, 1, VDRV_WRITE};

    vdrv_send(&v, 0, &p, 1);
    assert_true(pop());
    virtio_queue_give(&queue[0], chain.head, 0);
}

/* The driver wants to be told of the next one, and slept before we saw that. */
static void test_late_used_event(void **state) {
    uint64_t used_event = VDRV_RINGS + VDRV_AVAIL + 4 + 2 * SIZE;

    start();
    dev.fence = late_fence;
    late = (struct late){.at = used_event, .value = 0, .done = true};
    vdrv_put(&v, used_event, 2, 0x8000);
    give_one();
    assert_int_equal(v.interrupts, 1);
    assert_int_equal(late.calls, 1);
    late.value = 0x8000; /* it does not want to */
    give_one();
    assert_int_equal(v.interrupts, 1);
    late.done = false; /* nobody knows */
    give_one();
    assert_int_equal(v.interrupts, 2);
}

/* It has made one available, and did not see that we want to hear of it. */
static void test_late_avail(void **state) {
    struct vdrv_piece p = {VDRV_DATA, 1, VDRV_WRITE};
    uint64_t index = VDRV_RINGS + VDRV_AVAIL + 2;

    start();
    vdrv_send(&v, 0, &p, 1);
    assert_true(pop());
    vdrv_send(&v, 0, &p, 1);
    vdrv_put(&v, index, 2, 1);
    dev.fence = late_fence;
    late = (struct late){.at = index, .value = 2, .done = true};
    assert_true(pop());
    assert_int_equal(late.calls, 1);
}

/* --- status and features --- */

static void status(unsigned value) {
    virtio_set_status(&dev, (uint8_t)value, false);
}

static void test_status(void **state) {
    struct vdrv_piece p = {VDRV_DATA, 1, VDRV_WRITE};

    start();
    assert_int_equal(virtio_status(&dev), 15);
    assert_int_equal(starts, 1);
    status(1); /* clears nothing */
    assert_int_equal(virtio_status(&dev), 15);
    status(15 | VIRTIO_NEEDS_RESET); /* is not the driver's */
    assert_int_equal(virtio_status(&dev), 15);
    resets = 0;
    status(0);
    assert_int_equal(resets, 1);
    assert_int_equal(virtio_status(&dev), 0);
    assert_int_equal(dev.features, 0);
    assert_false(queue[0].ready);
    start();
    status(15 | VIRTIO_FAILED);
    notified = 0;
    vdrv_send(&v, 0, &p, 1);
    assert_int_equal(notified, 0);
    assert_false(pop());
}

/* Nothing is used before DRIVER_OK; what was offered until then is seen there. */
static void test_driver_ok(void **state) {
    vdrv_features(&v, VIRTIO_F_ALWAYS);
    queue[0].desc = VDRV_RINGS;
    queue[0].avail = VDRV_RINGS + VDRV_AVAIL;
    queue[0].used = VDRV_RINGS + VDRV_USED;
    virtio_queue_enable(&queue[0]);
    vdrv_offer(&v, 0, 0);
    assert_int_equal(notified, 0);
    assert_false(pop());
    virtio_config_changed(&dev);
    assert_int_equal(v.changes, 0);
    status(15);
    assert_int_equal(notified, 1);
    assert_true(pop());
}

static void test_features(void **state) {
    start();
    virtio_accept(&dev, 0, 0); /* too late */
    assert_int_equal(dev.features, VIRTIO_F_ALWAYS);
    vdrv_features(&v, VIRTIO_F_ALWAYS | 1); /* not offered */
    assert_int_equal(virtio_status(&dev), 3);
    status(15);
    assert_int_equal(virtio_status(&dev), 3);
    status(7); /* no DRIVER_OK without FEATURES_OK */
    assert_int_equal(virtio_status(&dev), 3);
    vdrv_features(&v, VIRTIO_F_EVENT_IDX); /* no VERSION_1 */
    assert_int_equal(virtio_status(&dev), 3);
    good = false;
    vdrv_features(&v, VIRTIO_F_ALWAYS);
    assert_int_equal(virtio_status(&dev), 3);
    good = true;
    status(11);
    assert_int_equal(virtio_status(&dev), 11);
    assert_int_equal(virtio_offered(&dev, 0), 6 | 3u << 28);
    assert_int_equal(virtio_offered(&dev, 1), 1);
    assert_int_equal(virtio_offered(&dev, 2), 0);
    virtio_accept(&dev, 2, 1);
    virtio_accept(&dev, 0xffffffff, 1);
}

static void test_sizes(void **state) {
    vdrv_features(&v, VIRTIO_F_ALWAYS);
    assert_null(virtio_queue_of(&dev, 1));
    assert_null(virtio_queue_of(&dev, 2));
    virtio_queue_set_size(&queue[0], 8);
    assert_int_equal(queue[0].size, 8);
    virtio_queue_set_size(&queue[0], 0);
    virtio_queue_set_size(&queue[0], 7);
    virtio_queue_set_size(&queue[0], SIZE * 2);
    virtio_queue_set_size(&queue[0], 0x10008);
    assert_int_equal(queue[0].size, 8);
    status(0);
    assert_int_equal(queue[0].size, SIZE);
}

/* --- the legacy interface --- */

static void legacy(unsigned value) {
    virtio_set_status(&dev, (uint8_t)value, true);
}

static void test_legacy(void **state) {
    dev.interrupt = NULL;
    start();
    legacy(0);
    legacy(1);
    legacy(3);
    virtio_accept(&dev, 0, 2);
    virtio_queue_set_legacy(&queue[0], VDRV_DATA >> 12, 4096);
    assert_true(queue[0].ready);
    assert_int_equal(queue[0].avail, VDRV_DATA + 16 * SIZE);
    assert_int_equal(queue[0].used, VDRV_DATA + 4096);
    vdrv_put(&v, queue[0].avail + 2, 2, 1);
    vdrv_put(&v, VDRV_DATA, 8, VDRV_DATA + 0x10000);
    vdrv_put(&v, VDRV_DATA + 8, 4, 1);
    notified = 0;
    virtio_notify(&dev, 0); /* before DRIVER_OK */
    assert_int_equal(notified, 1);
    assert_true(pop());
    legacy(7);
    assert_int_equal(virtio_status(&dev), 7);
    virtio_queue_set_legacy(&queue[0], 0, 4096);
    assert_false(queue[0].ready);
}

/* What was not offered is not accepted, early or late. */
static void test_legacy_features(void **state) {
    legacy(0);
    legacy(3);
    virtio_accept(&dev, 0, 1);
    virtio_queue_set_legacy(&queue[0], VDRV_DATA >> 12, 4096);
    virtio_notify(&dev, 0);
    assert_false(virtio_live(&dev));
    legacy(7);
    assert_int_equal(virtio_status(&dev), 3 | VIRTIO_FAILED);
}

/* --- configuration space --- */

static void test_config(void **state) {
    uint32_t generation = dev.config_generation;

    for (unsigned n = 0; n < sizeof(config); n++)
        config[n] = (uint8_t)(n + 1);
    start();
    assert_int_equal(virtio_config_read(&dev, 0, 1), 1);
    assert_int_equal(virtio_config_read(&dev, 6, 4), 0x0a090807);
    assert_int_equal(virtio_config_read(&dev, 8, 4), 0x0a09);
    assert_int_equal(virtio_config_read(&dev, 8, 8), 0x0a09);
    assert_int_equal(virtio_config_read(&dev, 10, 4), 0);
    assert_int_equal(virtio_config_read(&dev, UINT64_MAX, 4), 0);
    virtio_config_write(&dev, 6, 4, 1);
    assert_int_equal(configured, 4);
    assert_int_equal(configured_at, 6);
    configured = 0;
    virtio_config_write(&dev, 7, 4, 1);
    virtio_config_write(&dev, 10, 1, 1);
    virtio_config_write(&dev, UINT64_MAX, 1, 1);
    assert_int_equal(configured, 0);
    virtio_config_changed(&dev);
    assert_int_not_equal(dev.config_generation, generation);
    assert_int_equal(v.changes, 1);
}

/* A reset is over when nothing is under way. */
static void test_slow_reset(void **state) {
    uint32_t life;

    start();
    life = dev.lives;
    virtio_began(&dev.queue[0]);
    virtio_began(&dev.queue[0]);
    status(0);
    assert_int_not_equal(dev.lives, life);
    assert_int_equal(virtio_status(&dev), 15);
    assert_false(virtio_live(&dev));
    virtio_ended(&dev.queue[0]);
    assert_int_equal(virtio_status(&dev), 15);
    virtio_ended(&dev.queue[0]);
    assert_int_equal(virtio_status(&dev), 0);
    start();
    virtio_began(&dev.queue[0]);
    status(0);
    status(1); /* it does not wait */
    assert_int_equal(virtio_status(&dev), 1);
    virtio_ended(&dev.queue[0]);
    assert_int_equal(virtio_status(&dev), 1);
}

/* So is the end of a queue, whatever others do. */
static void test_slow_end(void **state) {
    struct virtio_queue *q;

    start();
    q = virtio_queue_of(&dev, 0);
    assert_true(virtio_queue_busy(q));
    virtio_began(q);
    virtio_queue_disable(q);
    assert_false(virtio_queue_live(q));
    assert_true(virtio_queue_busy(q));
    virtio_ended(q);
    assert_false(virtio_queue_busy(q));
    virtio_queue_enable(q);
    virtio_queue_disable(q);
    assert_false(virtio_queue_busy(q));
    virtio_began(q);
    status(0);
    assert_false(virtio_queue_busy(q)); /* a new driver finds it as it should be */
    virtio_ended(q);
}

/* --- traces --- */

static unsigned told;

static void on_trace(void *arg, struct gpa at, unsigned len) {
    told++;
}

/* The owners of traces hear of used buffers, and of what a device writes. */
static void test_traces(void **state) {
    struct vdrv_piece p = {VDRV_DATA + 0xff0, 32, VDRV_WRITE};

    start();
    vdrv_send(&v, 0, &p, 1);
    mem_own_trace(v.mem, MEM_TRACE_CODE, on_trace, NULL);
    mem_trace_add(v.mem, mem_host(v.mem, gpa(VDRV_DATA + 0x1000), 1), MEM_TRACE_CODE);
    mem_trace_add(v.mem, mem_host(v.mem, gpa(VDRV_RINGS + VDRV_USED), 1), MEM_TRACE_CODE);
    assert_true(pop());
    told = 0;
    virtio_span_written(&dev, &chain.in);
    assert_int_equal(told, 1);
    virtio_span_write(&dev, &chain.in, "0123456789abcdefg", 17);
    assert_int_equal(told, 2);
    virtio_queue_push(&queue[0], chain.head, 0);
    assert_int_equal(told, 3);
    virtio_queue_publish(&queue[0]);
    assert_int_equal(told, 4);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_chain),
        T(test_span_ends),
        T(test_round),
        T(test_unpop),
        T(test_indirect),
        T(test_bad_indirect),
        T(test_hostile_chains),
        T(test_rooms),
        T(test_hostile_index),
        T(test_ring_places),
        T(test_hostile_addresses),
        T(test_no_interrupt_flag),
        T(test_used_event),
        T(test_avail_event),
        T(test_late_used_event),
        T(test_late_avail),
        T(test_status),
        T(test_driver_ok),
        T(test_features),
        T(test_sizes),
        T(test_legacy),
        T(test_legacy_features),
        T(test_config),
        T(test_slow_reset),
        T(test_slow_end),
        T(test_traces),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
