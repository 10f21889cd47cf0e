/*
 * The virtio network card, between a driver of the test's and a network of the test's:
 * headers, merged buffers, filters, the control queue, flow control both ways, and a
 * driver that lies. VIRTIO 1.2, "Network Device".
 */
#include "dev/virtio/net.h"
#include "lib/rig.h"
#include "lib/rnd.h"
#include "lib/unit.h"
#include "lib/vdrv.h"
#include "net/net_int.h"

enum { RX, TX, CTRL };

#define F(bit) (1ull << (bit))
#define CSUM F(0)
#define GUEST_CSUM F(1)
#define GUEST_OFFLOADS F(2)
#define MTU F(3)
#define GUEST_TSO4 F(7)
#define HOST_TSO4 F(11)
#define MRG F(15)
#define CTRL_VQ F(17)
#define CTRL_RX F(18)
#define CTRL_MAC F(23)
#define ALL                                                                              \
    (VIRTIO_F_ALWAYS | CSUM | GUEST_CSUM | GUEST_OFFLOADS | GUEST_TSO4 | HOST_TSO4 |     \
     MRG | F(16) | CTRL_VQ | CTRL_RX | CTRL_MAC)

/* --- a network that is a buffer --- */

static struct net net;
static uint8_t sent[NET_FRAME_MAX];
static size_t sent_len;
static struct net_offload sent_off;
static unsigned sends, flushes, rooms; /* ROOMS: frames that it still takes */

static bool has_room(const struct net *n, size_t bytes, unsigned count) {
    return rooms >= count;
}

static uint8_t *place(struct net *n, size_t len) {
    return sent;
}

static void put(struct net *n, const struct net_offload *off, size_t len) {
    sent_off = *off;
    sent_len = len;
    sends++;
    rooms--;
}

static void flush(struct net *n) {
    flushes++;
}

static bool waits(const struct net *n) {
    return false;
}

/* Nothing more has been read. */
static int deliver(struct net *n) {
    return 0;
}

static const struct net_ops fake = {
    .can = NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6,
    .room = has_room,
    .place = place,
    .put = put,
    .flush = flush,
    .waits = waits,
    .deliver = deliver,
};

static bool arrive(const struct net_offload *off, uint8_t *frame, size_t len) {
    return net_deliver(&net, off, frame, len);
}

/* --- the card and its driver --- */

static struct rig r;
static struct vdrv v;
static struct virtio_net *card;
static const uint8_t mac[] = {0x52, 0x54, 0, 1, 2, 3};
static uint8_t frame[NET_FRAME_MAX];
static const struct net_offload plain;

static int setup(void **state) {
    struct virtio_net_config cfg = {.net = &net, .mtu = 1400};

    memcpy(cfg.mac, mac, sizeof(mac));
    net = (struct net){.ops = &fake, .gone = -1};
    rig_new(&r);
    cfg.clock = r.clock;
    vdrv_new(&v);
    card = virtio_net_new(v.mem, &cfg);
    assert_non_null(card);
    v.d = virtio_net_device(card);
    sends = flushes = 0;
    rooms = UINT32_MAX;
    for (unsigned k = 0; k < sizeof(frame); k++)
        frame[k] = (uint8_t)rnd();
    memcpy(frame, mac, sizeof(mac));
    return 0;
}

static int teardown(void **state) {
    virtio_net_free(card);
    vdrv_free(&v);
    rig_free(&r);
    return 0;
}

static bool broken(void) {
    return virtio_status(v.d) & VIRTIO_NEEDS_RESET;
}

/* Buffers for frames, COUNT of LEN bytes, at VDRV_DATA and on. */
static void offer_buffers(unsigned first, unsigned count, uint32_t len) {
    for (unsigned k = first; k < first + count; k++) {
        struct vdrv_piece p = {VDRV_DATA + k * 0x1000ull, len, VDRV_WRITE};

        vdrv_send(&v, RX, &p, 1);
    }
}

static uint64_t at_buffer(unsigned n, unsigned at, unsigned size) {
    return vdrv_get(&v, VDRV_DATA + n * 0x1000ull + at, size);
}

/* A frame that the driver sends: header, then the frame in two pieces. */
static unsigned transmit(const uint8_t *header, unsigned header_len, unsigned len) {
    struct vdrv_piece p[] = {{VDRV_DATA, header_len, 0},
                             {VDRV_DATA + 0x100, 20, 0},
                             {VDRV_DATA + 0x1000, len - 20, 0}};

    for (unsigned k = 0; k < header_len; k++)
        vdrv_put(&v, VDRV_DATA + k, 1, header[k]);
    for (unsigned k = 0; k < len; k++)
        vdrv_put(&v, VDRV_DATA + (k < 20 ? 0x100 + k : 0x1000 + k - 20), 1, frame[k]);
    return vdrv_send(&v, TX, p, 3);
}

static int command(unsigned class, unsigned what, const void *data, unsigned len) {
    struct vdrv_piece p[] = {{VDRV_DATA, 2 + len, 0}, {VDRV_DATA + 0x800, 1, VDRV_WRITE}};
    uint32_t written;

    vdrv_put(&v, VDRV_DATA, 1, class);
    vdrv_put(&v, VDRV_DATA + 1, 1, what);
    for (unsigned k = 0; k < len; k++)
        vdrv_put(&v, VDRV_DATA + 2 + k, 1, ((const uint8_t *)data)[k]);
    vdrv_put(&v, VDRV_DATA + 0x800, 1, 77);
    vdrv_send(&v, CTRL, p, 2);
    assert_int_not_equal(vdrv_take(&v, CTRL, &written), -1);
    assert_int_equal(written, 1);
    return (int)vdrv_get(&v, VDRV_DATA + 0x800, 1);
}

/* --- what it shows --- */

static void test_config(void **state) {
    const uint64_t must = CSUM | GUEST_CSUM | GUEST_TSO4 | F(8) | HOST_TSO4 | F(12) |
                          MRG | F(16) | CTRL_VQ | MTU | F(5);

    assert_int_equal(v.d->offered & must, must);
    assert_int_equal(virtio_config_read(v.d, 0, 4), 0x01005452);
    assert_int_equal(virtio_config_read(v.d, 4, 2), 0x0302);
    assert_int_equal(virtio_config_read(v.d, 6, 2), 1);
    assert_int_equal(virtio_config_read(v.d, 10, 2), 1400);
    vdrv_start(&v, ALL);
    net.fd = -1;
    net.card.link(net.card.arg);
    assert_int_equal(virtio_config_read(v.d, 6, 2), 0);
    assert_int_equal(v.changes, 1);
}

static void test_features(void **state) {
    static const uint64_t bad[] = {GUEST_TSO4, HOST_TSO4, CTRL_RX, CTRL_MAC};

    for (unsigned k = 0; k < ARRAY_SIZE(bad); k++) {
        vdrv_features(&v, VIRTIO_F_ALWAYS | bad[k]);
        assert_false(virtio_status(v.d) & VIRTIO_FEATURES_OK);
    }
    vdrv_features(&v, ALL);
    assert_true(virtio_status(v.d) & VIRTIO_FEATURES_OK);
}

/* --- sending --- */

static void test_send(void **state) {
    const uint8_t header[12] = {0};
    uint32_t len;

    vdrv_start(&v, ALL);
    unsigned head = transmit(header, 12, 1000);
    assert_int_equal(sends, 1);
    assert_in_range(flushes, 1, 5);
    assert_int_equal(sent_len, 1000);
    assert_memory_equal(sent, frame, 1000);
    assert_false(sent_off.csum || sent_off.gso);
    assert_int_equal(vdrv_take(&v, TX, &len), head);
    assert_int_equal(len, 0);
    assert_int_equal(v.interrupts, 1);
}

static void test_send_offloads(void **state) {
    /* NEEDS_CSUM, TCPv4, 66 bytes of headers, 1400 a segment, from 34 on at 16 */
    const uint8_t header[12] = {1, 1, 66, 0, 0x78, 5, 34, 0, 16, 0};

    vdrv_start(&v, ALL);
    transmit(header, 12, 4000);
    assert_true(sent_off.csum);
    assert_int_equal(sent_off.csum_start, 34);
    assert_int_equal(sent_off.csum_offset, 16);
    assert_int_equal(sent_off.gso, NET_GSO_TCP4);
    assert_int_equal(sent_off.gso_size, 1400);
    assert_int_equal(sent_off.header_len, 66);
    /* What was not negotiated is not there. */
    vdrv_start(&v, ALL & ~HOST_TSO4);
    transmit(header, 12, 4000);
    assert_true(sent_off.csum);
    assert_int_equal(sent_off.gso, NET_GSO_NONE);
    vdrv_start(&v, VIRTIO_F_ALWAYS);
    transmit(header, 12, 4000);
    assert_false(sent_off.csum);
}

/* The network has no room: the driver's buffers wait, and go in order afterwards. */
static void test_send_refused(void **state) {
    const uint8_t header[12] = {0};
    uint32_t len;

    vdrv_start(&v, ALL);
    rooms = 1;
    unsigned first = transmit(header, 12, 100), second = transmit(header, 12, 200);
    transmit(header, 12, 300);
    assert_int_equal(sends, 1);
    assert_int_equal(vdrv_take(&v, TX, &len), first);
    assert_int_equal(vdrv_take(&v, TX, &len), -1);
    assert_true(net.refused);
    rooms = UINT32_MAX;
    net.card.room(net.card.arg);
    assert_int_equal(sends, 3);
    assert_int_equal(sent_len, 300);
    assert_int_equal(vdrv_take(&v, TX, &len), second);
}

/* Many at once: it stops in between, and asks to be called again. */
static void test_send_many(void **state) {
    struct vdrv_piece p = {VDRV_DATA, 112, 0};
    unsigned head = 0;

    vdrv_start(&v, ALL);
    head = vdrv_send(&v, TX, &p, 1);
    sends = 0;
    for (unsigned k = 0; k < 255; k++)
        vdrv_offer_quietly(&v, TX, head);
    vdrv_offer(&v, TX, head);
    assert_int_equal(sends, 256);
    assert_true(net.refused);
    net.refused = false;
    vdrv_offer_quietly(&v, TX, head);
    net.card.room(net.card.arg);
    assert_int_equal(sends, 257);
    assert_false(net.refused);
}

static void test_send_nothing(void **state) {
    const struct vdrv_piece p[] = {{VDRV_DATA, 11, 0}, {VDRV_DATA, 12, 0}};
    uint32_t len;

    vdrv_start(&v, ALL);
    for (unsigned k = 0; k < 2; k++) {
        unsigned head = vdrv_send(&v, TX, &p[k], 1);

        assert_int_equal(vdrv_take(&v, TX, &len), head);
    }
    assert_int_equal(sends, 0);
    assert_false(broken());
    vdrv_send(&v, TX, &(struct vdrv_piece){VDRV_RAM, 100, 0}, 1);
    assert_true(broken());
}

/* --- receiving --- */

static void test_receive(void **state) {
    uint32_t len;

    vdrv_start(&v, ALL);
    offer_buffers(0, 2, 1526);
    assert_true(arrive(&plain, frame, 1000));
    assert_int_not_equal(vdrv_take(&v, RX, &len), -1);
    assert_int_equal(len, 1012);
    assert_int_equal(at_buffer(0, 0, 8), 0);
    assert_int_equal(at_buffer(0, 10, 2), 1);
    for (unsigned k = 0; k < 1000; k++)
        assert_int_equal(at_buffer(0, 12 + k, 1), frame[k]);
    assert_int_equal(v.interrupts, 1);
}

/* A legacy driver's header is two bytes shorter. */
static void test_receive_legacy(void **state) {
    uint32_t len;

    vdrv_start(&v, F(16));
    v.d->features &= ~VIRTIO_F_VERSION_1;
    offer_buffers(0, 1, 1526);
    assert_true(arrive(&plain, frame, 60));
    assert_int_not_equal(vdrv_take(&v, RX, &len), -1);
    assert_int_equal(len, 70);
    assert_int_equal(at_buffer(0, 10, 1), frame[0]);
}

static void test_receive_offloads(void **state) {
    const struct net_offload off = {.csum = true,
                                    .gso = NET_GSO_TCP4,
                                    .gso_size = 1400,
                                    .header_len = 66,
                                    .csum_start = 34,
                                    .csum_offset = 16};
    const struct net_offload good = {.csum_good = true};

    vdrv_start(&v, ALL);
    offer_buffers(0, 2, 4096);
    assert_true(arrive(&off, frame, 3000));
    assert_int_equal(at_buffer(0, 0, 8), 0x0022057800420101);
    assert_int_equal(at_buffer(0, 8, 2), 16);
    assert_true(arrive(&good, frame, 3000));
    assert_int_equal(at_buffer(1, 0, 1), 2);
}

/* The network does what the driver has not agreed to. */
static void test_receive_no_offloads(void **state) {
    const struct net_offload off = {.csum = true, .csum_start = 34, .csum_offset = 16};
    const struct net_offload good = {.csum_good = true};

    vdrv_start(&v, ALL & ~(GUEST_CSUM | GUEST_TSO4 | GUEST_OFFLOADS));
    offer_buffers(0, 2, 4096);
    assert_true(arrive(&off, frame, 3000));
    assert_int_equal(at_buffer(0, 0, 2), 0);
    assert_true(arrive(&good, frame, 3000));
    assert_int_equal(at_buffer(1, 0, 1), 0);
}

static void check_spread(unsigned buffers, uint32_t size, size_t frame_len) {
    uint32_t len;
    unsigned used = 0, skip = 12;
    size_t at = 0;

    vdrv_start(&v, ALL);
    offer_buffers(0, buffers, size);
    assert_true(arrive(&plain, frame, frame_len));
    for (; vdrv_take(&v, RX, &len) != -1; used++) {
        for (uint32_t k = 0; k < len; k++)
            if (skip)
                skip--;
            else
                assert_int_equal(at_buffer(used, k, 1), frame[at++]);
        assert_true(len == size || at == frame_len);
    }
    assert_int_equal(at, frame_len);
    assert_int_equal(used, (frame_len + 12 + size - 1) / size);
    if (size > 12)
        assert_int_equal(at_buffer(0, 10, 1), used);
}

static void test_receive_merged(void **state) {
    check_spread(3, 1000, 2988);
    check_spread(4, 1000, 2989);
    check_spread(5, 7, 20);
    check_spread(40, 1536, 60000);
    check_spread(1, 1000, 988);
}

/* Too few buffers: nothing is used; the frame comes when there are enough. */
static void test_receive_starved(void **state) {
    uint32_t len;

    vdrv_start(&v, ALL);
    assert_false(arrive(&plain, frame, 100));
    assert_true(net.blocked);
    offer_buffers(0, 1, 1000);
    assert_false(net.blocked);
    assert_int_equal(net_go_on(&net), 0);
    assert_int_not_equal(vdrv_take(&v, RX, &len), -1);
    offer_buffers(1, 2, 1000);
    assert_false(arrive(&plain, frame, 2500));
    assert_int_equal(vdrv_take(&v, RX, &len), -1);
    offer_buffers(3, 1, 1000);
    assert_int_equal(net_go_on(&net), 0);
    assert_int_not_equal(vdrv_take(&v, RX, &len), -1);
    assert_int_equal(len, 1000);
    assert_int_not_equal(vdrv_take(&v, RX, &len), -1);
    assert_int_not_equal(vdrv_take(&v, RX, &len), -1);
    assert_int_equal(len, 512);
    assert_int_equal(at_buffer(1, 10, 2), 3);
}

/* A frame that all buffers of a full ring have no room for keeps nothing waiting. */
static void test_receive_never(void **state) {
    vdrv_start(&v, ALL);
    offer_buffers(0, 255, 10);
    assert_false(arrive(&plain, frame, 3000));
    offer_buffers(255, 1, 10);
    assert_int_equal(net_go_on(&net), 0);
    assert_false(net.holding);
    assert_int_equal(vdrv_take(&v, RX, NULL), -1);
    assert_true(arrive(&plain, frame, 2548));
    for (unsigned n = 0; n < 256; n++)
        assert_int_not_equal(vdrv_take(&v, RX, NULL), -1);
}

/* Without merging, what is too long for a buffer is lost, and the buffer is not. */
static void test_receive_too_long(void **state) {
    uint32_t len;

    vdrv_start(&v, VIRTIO_F_ALWAYS);
    offer_buffers(0, 1, 1000);
    assert_true(arrive(&plain, frame, 989));
    assert_int_equal(vdrv_take(&v, RX, &len), -1);
    assert_true(arrive(&plain, frame, 988));
    assert_int_not_equal(vdrv_take(&v, RX, &len), -1);
}

/* No driver, or one that has gone while a frame waited: it is dropped. */
static void test_receive_nobody(void **state) {
    assert_true(arrive(&plain, frame, 100));
    vdrv_start(&v, ALL);
    assert_false(arrive(&plain, frame, 100));
    virtio_device_reset(v.d);
    assert_false(net.blocked);
    assert_int_equal(net_go_on(&net), 0);
    assert_false(net.holding);
    assert_true(arrive(&plain, frame, 100));
}

/* --- control --- */

/* As many commands as there are places: all are answered. */
static void test_control_many(void **state) {
    struct vdrv_piece p[] = {{VDRV_DATA, 3, 0}, {VDRV_DATA + 0x800, 1, VDRV_WRITE}};
    uint32_t len;
    unsigned taken = 0;

    vdrv_start(&v, ALL);
    unsigned head = vdrv_send(&v, CTRL, p, 2);
    assert_int_equal(vdrv_take(&v, CTRL, &len), head);
    for (unsigned k = 0; k < 63; k++)
        vdrv_offer_quietly(&v, CTRL, head);
    vdrv_offer(&v, CTRL, head);
    while (vdrv_take(&v, CTRL, &len) != -1)
        taken++;
    assert_int_equal(taken, 64);
}

/* Another CPU has always one more: the device goes on later, but not when it is gone. */
static void test_control_turns(void **state) {
    struct vdrv_piece p[] = {{VDRV_DATA, 3, 0}, {VDRV_DATA + 0x1000, 1, VDRV_WRITE}};
    unsigned head;

    vdrv_start(&v, ALL);
    head = vdrv_send(&v, CTRL, p, 2);
    vdrv_echo(&v, CTRL, head, VDRV_DATA + 0x1000, 2 * VIRTIO_TURN);
    vdrv_offer(&v, CTRL, head);
    assert_int_equal(v.echo.done, VIRTIO_TURN);
    assert_int_not_equal(vclock_next(r.clock), VCLOCK_NEVER);
    virtio_net_free(card);
    card = NULL;
    assert_int_equal(vclock_next(r.clock), VCLOCK_NEVER);
}

static bool comes(const uint8_t *to) {
    uint32_t len;
    bool came;

    memcpy(frame, to, 6);
    offer_buffers(8, 1, 1526);
    assert_true(arrive(&plain, frame, 60));
    came = vdrv_take(&v, RX, &len) != -1;
    if (!came) { /* use it up */
        v.d->ops->reset(v.d);
        arrive(&plain, frame, 60);
        assert_int_not_equal(vdrv_take(&v, RX, &len), -1);
    }
    return came;
}

static const uint8_t on = 1, off_ = 0;
static const uint8_t other[] = {0x52, 0x54, 0, 9, 9, 9}, group[] = {1, 0, 0x5e, 0, 0, 1},
                     everybody[] = {255, 255, 255, 255, 255, 255};

static void test_filter(void **state) {
    vdrv_start(&v, ALL);
    assert_true(comes(other)); /* until the driver says something */
    assert_int_equal(command(0, 0, &off_, 1), 0);
    assert_true(comes(mac));
    assert_true(comes(everybody));
    assert_false(comes(other));
    assert_int_equal(command(0, 0, &off_, 1), 0);
    assert_false(comes(group));
    assert_int_equal(command(0, 0, &off_, 1), 0);
    assert_int_equal(command(0, 1, &on, 1), 0);
    assert_true(comes(group));
    assert_int_equal(command(0, 5, &on, 1), 0);
    assert_false(comes(everybody));
}

static void test_filter_table(void **state) {
    uint8_t table[20] = {1, 0, 0, 0};
    uint8_t large[8 + 6 * 65] = {65};

    memcpy(table + 4, other, 6);
    table[10] = 1;
    memcpy(table + 14, group, 6);
    vdrv_start(&v, ALL);
    command(0, 0, &off_, 1);
    assert_int_equal(command(1, 0, table, 20), 0);
    assert_true(comes(other));
    assert_true(comes(group));
    assert_int_equal(command(1, 0, large, sizeof(large)), 0);
    assert_true(comes(other));
    assert_false(comes(group));
}

static void test_mac(void **state) {
    vdrv_start(&v, ALL);
    command(0, 0, &off_, 1);
    assert_int_equal(command(1, 1, other, 6), 0);
    assert_int_equal(virtio_config_read(v.d, 4, 2), 0x0909);
    assert_true(comes(other));
    assert_false(comes(mac));
    assert_int_equal(virtio_config_read(v.d, 4, 2), 0x0302); /* after a reset */
}

static void test_offloads(void **state) {
    uint64_t want = GUEST_CSUM;

    vdrv_start(&v, ALL);
    assert_int_equal(net.can, NET_CAN_CSUM | NET_CAN_TSO4);
    assert_int_equal(command(5, 0, &want, 8), 0);
    assert_int_equal(net.can, NET_CAN_CSUM);
    want = F(8); /* was not negotiated */
    assert_int_equal(command(5, 0, &want, 8), 1);
}

/* A frame that waits for buffers, and is not what the driver takes any more. */
static void test_offloads_fewer(void **state) {
    const struct net_offload off = {
        .csum = true, .gso = NET_GSO_TCP4, .gso_size = 1400, .csum_start = 34};
    uint64_t want = GUEST_CSUM;
    uint32_t len;

    vdrv_start(&v, ALL);
    assert_false(arrive(&off, frame, 3000));
    assert_int_equal(command(5, 0, &want, 8), 0);
    offer_buffers(1, 1, 4096);
    assert_int_equal(net_go_on(&net), 0);
    assert_int_equal(vdrv_take(&v, RX, &len), -1);
    assert_int_equal(net_figures(&net).dropped, 1);
    assert_true(arrive(&plain, frame, 100));
    assert_int_not_equal(vdrv_take(&v, RX, &len), -1);
    assert_int_equal(len, 112);
}

static void test_control_lies(void **state) {
    const uint8_t table[] = {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0};
    uint32_t len;

    vdrv_start(&v, ALL);
    assert_int_equal(command(0, 6, &on, 1), 1);
    assert_int_equal(command(0, 0, &on, 0), 1);
    assert_int_equal(command(0, 0, table, 2), 1);
    assert_int_equal(command(1, 0, table, 8), 1);
    assert_int_equal(command(1, 0, table + 4, 4), 1);
    assert_int_equal(command(1, 1, table, 5), 1);
    assert_int_equal(command(1, 2, table, 6), 1);
    assert_int_equal(command(9, 0, table, 8), 1);
    vdrv_send(&v, CTRL, &(struct vdrv_piece){VDRV_DATA, 1, 0}, 1);
    assert_int_not_equal(vdrv_take(&v, CTRL, &len), -1);
    assert_int_equal(len, 0);
    assert_false(broken());
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_config),
        TEST(test_features),
        TEST(test_send),
        TEST(test_send_offloads),
        TEST(test_send_refused),
        TEST(test_send_many),
        TEST(test_send_nothing),
        TEST(test_receive),
        TEST(test_receive_legacy),
        TEST(test_receive_offloads),
        TEST(test_receive_no_offloads),
        TEST(test_receive_merged),
        TEST(test_receive_starved),
        TEST(test_receive_never),
        TEST(test_receive_too_long),
        TEST(test_receive_nobody),
        TEST(test_control_many),
        TEST(test_control_turns),
        TEST(test_filter),
        TEST(test_filter_table),
        TEST(test_mac),
        TEST(test_offloads),
        TEST(test_offloads_fewer),
        TEST(test_control_lies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
