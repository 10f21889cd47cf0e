/*
 * The socket device by itself: connections from both sides, credit, ends, and packets
 * that belong to nobody. VIRTIO 1.2, "Socket Device".
 */
#include "dev/virtio/vsock.h"

#include "lib/rig.h"
#include "lib/unit.h"
#include "lib/vdrv.h"
#include "snapshot/snapshot.h"

enum { RX, TX, EVENTS };
enum { INVALID, REQUEST, RESPONSE, RST, SHUTDOWN, RW, UPDATE, ASK };
#define CID 7
#define ALL (VIRTIO_F_ALWAYS | 1)
#define BUFFERS (VDRV_DATA + 0x10000) /* for packets to the guest, 4 KiB each */
#define PACKET VDRV_DATA

static struct rig r;
static struct vdrv v;
static struct virtio_vsock *s;
static int asked;           /* the connection that the guest asked for last */
static uint32_t asked_port; /* and where to */
static int answered, answered_ok;
static unsigned closed, ended;
static char written[70000];
static size_t room, written_len;
static const char *to_read;
static bool at_end;
static bool nobody; /* can be asked */

static bool on_connect(void *arg, unsigned n, uint32_t port) {
    asked = (int)n;
    asked_port = port;
    return !nobody;
}

static void on_opened(void *arg, unsigned n, bool ok, uint32_t port) {
    answered = (int)n;
    answered_ok = ok;
}

static size_t on_write(void *arg, unsigned n, const uint8_t *bytes, size_t len) {
    size_t took = len < room ? len : room;

    memcpy(written + written_len, bytes, took);
    written_len += took;
    room -= took;
    return took;
}

static int on_read(void *arg, unsigned n, uint8_t *buf, size_t len) {
    size_t have = strlen(to_read);

    have = have < len ? have : len;
    memcpy(buf, to_read, have);
    to_read += have;
    return have || !at_end ? (int)have : -1;
}

static void on_end(void *arg, unsigned n) {
    ended++;
}

static void on_close(void *arg, unsigned n) {
    closed++;
}

static unsigned given; /* buffers for packets */

static void give(unsigned count) {
    for (unsigned n = 0; n < count; n++) {
        struct vdrv_piece p = {BUFFERS + 4096 * (given++ % 128), 4096, VDRV_WRITE};

        vdrv_send(&v, RX, &p, 1);
    }
}

static int setup(void **state) {
    const struct virtio_vsock_host host = {.connect = on_connect,
                                           .opened = on_opened,
                                           .write = on_write,
                                           .read = on_read,
                                           .end = on_end,
                                           .close = on_close};

    vdrv_new(&v);
    rig_new(&r);
    s = virtio_vsock_new(v.mem, r.clock, CID, &host, &r.cnt);
    v.d = virtio_vsock_device(s);
    asked = answered = answered_ok = -1;
    closed = ended = given = 0;
    room = sizeof(written);
    written_len = 0;
    to_read = "";
    at_end = nobody = false;
    vdrv_start(&v, ALL);
    give(32);
    return 0;
}

static int teardown(void **state) {
    virtio_vsock_free(s);
    rig_free(&r);
    vdrv_free(&v);
    return 0;
}

/* --- packets --- */

struct packet {
    uint32_t from, to, len, flags, alloc, taken;
    unsigned op;
    uint64_t bytes; /* where its payload is */
};

static void say_as(uint64_t cid, struct packet p) {
    struct vdrv_piece piece[] = {{PACKET, 44, 0}, {p.bytes, p.len, 0}};

    vdrv_put(&v, PACKET, 8, cid);
    vdrv_put(&v, PACKET + 8, 8, 2);
    vdrv_put(&v, PACKET + 16, 4, p.from);
    vdrv_put(&v, PACKET + 20, 4, p.to);
    vdrv_put(&v, PACKET + 24, 4, p.len);
    vdrv_put(&v, PACKET + 28, 2, 1);
    vdrv_put(&v, PACKET + 30, 2, p.op);
    vdrv_put(&v, PACKET + 32, 4, p.flags);
    vdrv_put(&v, PACKET + 36, 4, p.alloc);
    vdrv_put(&v, PACKET + 40, 4, p.taken);
    vdrv_send(&v, TX, piece, p.bytes ? 2 : 1);
    assert_int_not_equal(vdrv_take(&v, TX, NULL), -1);
}

static void say(struct packet p) {
    say_as(CID, p);
}

/* The next packet to the guest; op -1: there is none. */
static struct packet hear(void) {
    struct packet p = {.op = ~0u};
    int head = vdrv_take(&v, RX, NULL);
    uint64_t at = BUFFERS + 4096 * (uint64_t)(head % 128);

    if (head < 0)
        return p;
    assert_int_equal(vdrv_get(&v, at, 8), 2);
    assert_int_equal(vdrv_get(&v, at + 8, 8), CID);
    p.from = (uint32_t)vdrv_get(&v, at + 16, 4);
    p.to = (uint32_t)vdrv_get(&v, at + 20, 4);
    p.len = (uint32_t)vdrv_get(&v, at + 24, 4);
    p.op = (unsigned)vdrv_get(&v, at + 30, 2);
    p.flags = (uint32_t)vdrv_get(&v, at + 32, 4);
    p.alloc = (uint32_t)vdrv_get(&v, at + 36, 4);
    p.taken = (uint32_t)vdrv_get(&v, at + 40, 4);
    p.bytes = at + 44;
    return p;
}

static void hear_nothing(void) {
    assert_int_equal(hear().op, ~0u);
}

/* The guest's port 1000 is connected to the host's 80. */
static void connect_guest(uint32_t alloc) {
    struct packet p;

    say((struct packet){.from = 1000, .to = 80, .op = REQUEST, .alloc = alloc});
    assert_int_equal(asked_port, 80);
    hear_nothing();
    virtio_vsock_answer(s, (unsigned)asked, true);
    p = hear();
    assert_int_equal(p.op, RESPONSE);
    assert_int_equal(p.from, 80);
    assert_int_equal(p.to, 1000);
    assert_int_equal(p.alloc, VIRTIO_VSOCK_BUFFER);
}

static void text(const char *what) {
    assert_true(mem_write(v.mem, gpa(PACKET + 0x1000), what, strlen(what)));
}

/* --- connections --- */

static void test_from_guest(void **state) {
    struct packet p;

    assert_int_equal(virtio_config_read(v.d, 0, 8), CID);
    connect_guest(1000);
    text("question");
    say((struct packet){.from = 1000,
                        .to = 80,
                        .op = RW,
                        .len = 8,
                        .alloc = 1000,
                        .bytes = PACKET + 0x1000});
    assert_int_equal(written_len, 8);
    assert_memory_equal(written, "question", 8);
    to_read = "answer";
    virtio_vsock_readable(s, (unsigned)asked);
    p = hear();
    assert_int_equal(p.op, RW);
    assert_int_equal(p.len, 6);
    assert_int_equal(p.taken, 8);
    assert_int_equal(vdrv_get(&v, p.bytes, 4), 'a' | 'n' << 8 | 's' << 16 | 'w' << 24);
    hear_nothing();
}

static void test_from_host(void **state) {
    int n = virtio_vsock_open(s, 22);
    struct packet p = hear();

    assert_true(n >= 0);
    assert_int_equal(p.op, REQUEST);
    assert_int_equal(p.to, 22);
    say((struct packet){.from = 22, .to = p.from, .op = RESPONSE, .alloc = 100});
    assert_int_equal(answered, n);
    assert_int_equal(answered_ok, 1);
    n = virtio_vsock_open(s, 23);
    p = hear();
    say((struct packet){.from = 23, .to = p.from, .op = RST});
    assert_int_equal(answered, n);
    assert_int_equal(answered_ok, 0);
    assert_int_equal(closed, 0);
}

static void test_refused(void **state) {
    struct packet p;

    say((struct packet){.from = 1000, .to = 81, .op = REQUEST});
    virtio_vsock_answer(s, (unsigned)asked, false);
    p = hear();
    assert_int_equal(p.op, RST);
    assert_int_equal(p.from, 81);
    assert_int_equal(p.to, 1000);
    say((struct packet){.from = 1000, .to = 81, .op = RW});
    assert_int_equal(hear().op, RST);
    nobody = true;
    say((struct packet){.from = 1001, .to = 81, .op = REQUEST});
    p = hear();
    assert_int_equal(p.op, RST);
    assert_int_equal(p.to, 1001);
    virtio_vsock_answer(s, (unsigned)asked, true); /* it is free */
    hear_nothing();
}

/* What belongs to nobody is reset; resets are answered by nothing. */
static void test_strays(void **state) {
    for (unsigned op = 0; op < 10; op++) {
        if (op == REQUEST)
            continue;
        say((struct packet){.from = 5, .to = 6, .op = op});
        if (op == RST)
            hear_nothing();
        else
            assert_int_equal(hear().op, RST);
    }
    say_as(CID + 1, (struct packet){.from = 5, .to = 6, .op = REQUEST});
    assert_int_equal(asked, -1);
    hear_nothing();
}

/* A second request for what is there; and other packets out of turn. */
static void test_out_of_turn(void **state) {
    connect_guest(1000);
    say((struct packet){.from = 1000, .to = 80, .op = REQUEST});
    assert_int_equal(hear().op, RST);
    assert_int_equal(closed, 1);
    connect_guest(1000);
    say((struct packet){.from = 1000, .to = 80, .op = RESPONSE});
    assert_int_equal(hear().op, RST);
    connect_guest(1000);
    say((struct packet){.from = 1000, .to = 80, .op = RW, .len = 99}); /* it has none */
    assert_int_equal(hear().op, RST);
    assert_int_equal(closed, 3);
}

/* --- credit --- */

/* The host side takes little: the guest may send as much as there is room for. */
static void test_credit_of_guest(void **state) {
    struct packet p = {
        .from = 1000, .to = 80, .op = RW, .len = 32768, .bytes = PACKET + 0x1000};

    connect_guest(1000);
    room = 0;
    say(p);
    say(p);
    assert_int_equal(written_len, 0);
    hear_nothing();
    room = 40000;
    virtio_vsock_writable(s, (unsigned)asked);
    assert_int_equal(written_len, 40000);
    p = hear();
    assert_int_equal(p.op, UPDATE);
    assert_int_equal(p.taken, 40000);
    say((struct packet){.from = 1000, .to = 80, .op = ASK});
    assert_int_equal(hear().op, UPDATE);
    say((struct packet){
        .from = 1000, .to = 80, .op = RW, .len = 40001, .bytes = PACKET + 0x1000});
    assert_int_equal(hear().op, RST); /* more than it had credit for */
    assert_int_equal(closed, 1);
}

static void test_credit_of_host(void **state) {
    struct packet p;

    connect_guest(10);
    to_read = "0123456789abcdef";
    virtio_vsock_readable(s, (unsigned)asked);
    p = hear();
    assert_int_equal(p.op, RW);
    assert_int_equal(p.len, 10);
    assert_int_equal(hear().op, ASK);
    hear_nothing();
    virtio_vsock_readable(s, (unsigned)asked); /* asks once */
    hear_nothing();
    say((struct packet){.from = 1000, .to = 80, .op = UPDATE, .alloc = 10, .taken = 4});
    p = hear();
    assert_int_equal(p.op, RW);
    assert_int_equal(p.len, 4);
    assert_int_equal(hear().op, ASK);
    /* Taken more than was sent: no credit at all. */
    say((struct packet){.from = 1000, .to = 80, .op = UPDATE, .alloc = 10, .taken = 99});
    assert_int_equal(hear().op, ASK);
    hear_nothing();
}

/* Without buffers nothing is read; with them it goes on. */
static void test_no_buffers(void **state) {
    connect_guest(1000);
    for (unsigned n = 0; n < 31; n++) {
        to_read = "x";
        virtio_vsock_readable(s, (unsigned)asked);
        assert_int_equal(hear().op, RW);
    }
    to_read = "yz";
    virtio_vsock_readable(s, (unsigned)asked);
    hear_nothing();
    assert_string_equal(to_read, "yz");
    give(1);
    assert_int_equal(hear().len, 2);
}

/* --- ends --- */

static void test_host_ends(void **state) {
    struct packet p;

    connect_guest(1000);
    to_read = "last";
    at_end = true;
    virtio_vsock_readable(s, (unsigned)asked);
    assert_int_equal(hear().len, 4);
    p = hear();
    assert_int_equal(p.op, SHUTDOWN);
    assert_int_equal(p.flags, 2);
    text("still");
    say((struct packet){.from = 1000,
                        .to = 80,
                        .op = RW,
                        .len = 5,
                        .alloc = 9,
                        .bytes = PACKET + 0x1000});
    assert_int_equal(written_len, 5);
    say((struct packet){.from = 1000, .to = 80, .op = SHUTDOWN, .flags = 3});
    assert_int_equal(hear().op, RST);
    assert_int_equal(closed, 1);
}

/* What the guest has sent before its end is written first. */
static void test_guest_ends(void **state) {
    connect_guest(1000);
    room = 3;
    text("tardy");
    say((struct packet){
        .from = 1000, .to = 80, .op = RW, .len = 5, .bytes = PACKET + 0x1000});
    say((struct packet){.from = 1000, .to = 80, .op = SHUTDOWN, .flags = 2});
    assert_int_equal(ended, 0);
    room = 10;
    virtio_vsock_writable(s, (unsigned)asked);
    assert_int_equal(ended, 1);
    assert_memory_equal(written, "tardy", 5);
    say((struct packet){
        .from = 1000, .to = 80, .op = RW, .len = 5, .bytes = PACKET + 0x1000});
    assert_int_equal(hear().op, RST);
}

static void test_host_lost(void **state) {
    connect_guest(1000);
    virtio_vsock_lost(s, (unsigned)asked);
    assert_int_equal(hear().op, RST);
    assert_int_equal(closed, 0);
    virtio_vsock_lost(s, (unsigned)asked); /* nothing there */
    hear_nothing();
    connect_guest(1000);
    virtio_set_status(v.d, 0, false);
    assert_int_equal(closed, 1);
}

/* As many as there are, and one more; resets wait for buffers, and then the guest does.
 */
static void test_too_many(void **state) {
    for (unsigned n = 0; n < VIRTIO_VSOCK_CONNECTIONS; n++)
        say((struct packet){.from = 2000 + n, .to = 80, .op = REQUEST});
    hear_nothing();
    say((struct packet){.from = 9, .to = 80, .op = REQUEST});
    assert_int_equal(hear().op, RST);
    assert_int_equal(virtio_vsock_open(s, 1), -1);
}

static void test_resets_wait(void **state) {
    struct vdrv_piece stray = {PACKET, 44, 0};
    unsigned taken = 0, heard = 0;

    say((struct packet){.from = 5, .to = 6, .op = RW});
    for (unsigned n = 0; n < 120; n++)
        vdrv_send(&v, TX, &stray, 1);
    while (vdrv_take(&v, TX, NULL) >= 0)
        taken++;
    assert_true(taken < 120); /* 32 buffers, and the list */
    while (hear().op == RST)
        heard++;
    assert_int_equal(heard, 32);
    give(110);
    while (vdrv_take(&v, TX, NULL) >= 0)
        taken++;
    assert_int_equal(taken, 120);
    while (hear().op == RST)
        heard++;
    assert_int_equal(heard, 121);
}

static void test_short_buffer(void **state) {
    struct vdrv_piece p = {BUFFERS, 43, VDRV_WRITE};

    vdrv_start(&v, ALL);
    vdrv_send(&v, RX, &p, 1);
    say((struct packet){.from = 5, .to = 6, .op = RW});
    assert_true(virtio_status(v.d) & VIRTIO_NEEDS_RESET);
}

static void state_of(void *arg, struct snapshot *snapshot) {
    virtio_vsock_state(arg, snapshot);
}

/* The device goes on from what it is. */
static void restore(void) {
    struct snapshot *out = snapshot_new(), *in;
    const uint8_t *bytes;
    char why[256];
    size_t len;

    snapshot_record(out, "vsock", 0, 1, state_of, s);
    bytes = snapshot_finish(out, &len);
    in = snapshot_open(bytes, len, why, sizeof(why));
    snapshot_record(in, "vsock", 0, 1, state_of, s);
    assert_true(snapshot_good(in));
    snapshot_free(in);
    snapshot_free(out);
}

/* A driver that hears that its connections are gone ends those that it has just then: a
 * new one waits until it has come back. */
static void test_restored(void **state) {
    struct vdrv_piece p = {PACKET + 0x2000, 8, VDRV_WRITE};
    uint32_t len;

    restore();
    assert_true(virtio_vsock_open(s, 22) >= 0);
    hear_nothing();
    vdrv_send(&v, EVENTS, &p, 1);
    assert_int_not_equal(vdrv_take(&v, EVENTS, &len), -1);
    assert_int_equal(len, 4);
    give(1);
    hear_nothing();
    vdrv_send(&v, EVENTS, &p, 1);
    assert_int_equal(hear().op, REQUEST);
    assert_int_equal(vdrv_take(&v, EVENTS, NULL), -1);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_from_guest),     T(test_from_host),    T(test_refused),
        T(test_strays),         T(test_out_of_turn),  T(test_credit_of_guest),
        T(test_credit_of_host), T(test_no_buffers),   T(test_host_ends),
        T(test_guest_ends),     T(test_host_lost),    T(test_too_many),
        T(test_resets_wait),    T(test_short_buffer), T(test_restored),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
