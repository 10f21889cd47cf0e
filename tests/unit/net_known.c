/*
 * Connections that a restored guest finds gone: its SYNs are noted, through a snapshot,
 * and each becomes one frame from the far end, whose sums are right; nothing else is, and
 * what a snapshot says that cannot be is refused.
 */
#include "lib/rnd.h"
#include "lib/unit.h"
#include "net/known.h"
#include "net/offload.h"
#include "net/packet.h"
#include "snapshot/snapshot.h"

#define SYN 0x02
#define RST 0x04

static struct net_known known, again;
static uint8_t frame[128];

/* Of the guest's, with FLAGS; N makes its port. */
static size_t make(bool v6, unsigned n, unsigned flags) {
    size_t l4 = v6 ? 54 : 34;

    rnd_seed(v6 ? 6 : 4);
    for (size_t k = 0; k < sizeof(frame); k++)
        frame[k] = (uint8_t)rnd();
    net_put16(frame + 12, v6 ? TYPE_IPV6 : TYPE_IPV4);
    frame[14] = v6 ? 0x60 : 0x45;
    net_put16(frame + 20, v6 ? PROTO_TCP << 8 : 0x4000);
    if (!v6)
        frame[23] = PROTO_TCP;
    net_put16(frame + l4, n);
    frame[l4 + 13] = (uint8_t)flags;
    return l4 + 24;
}

static void record(void *arg, struct snapshot *s) {
    net_known_state(arg, s);
}

static void write_and_read(void) {
    struct snapshot *s = snapshot_new(), *r;
    const uint8_t *bytes;
    size_t len;
    char why[128];

    snapshot_record(s, "net", 0, 1, record, &known);
    bytes = snapshot_finish(s, &len);
    r = snapshot_open(bytes, len, why, sizeof(why));
    assert_non_null(r);
    snapshot_record(r, "net", 0, 1, record, &again);
    assert_true(snapshot_good(r));
    snapshot_free(r);
    snapshot_free(s);
}

static void check_frame(bool v6, const uint8_t *out, size_t len, unsigned n) {
    size_t l4 = v6 ? 54 : 34, size = v6 ? 16 : 4, from = v6 ? 22 : 26;

    make(v6, n, SYN);
    assert_int_equal(len, l4 + TCP_HEADER);
    assert_memory_equal(out, frame + 6, 6);
    assert_memory_equal(out + 6, frame, 6);
    assert_memory_equal(out + from, frame + from + size, size);
    assert_memory_equal(out + from + size, frame + from, size);
    assert_memory_equal(out + l4, frame + l4 + 2, 2);
    assert_int_equal(net_get16(out + l4 + 2), n);
    assert_int_equal(out[l4 + 13], SYN);
    assert_true(net_checksum_right(out, len));
}

static void test_there_and_back(void **state) {
    uint8_t *out;
    size_t len;

    for (unsigned v6 = 0; v6 < 2; v6++) {
        memset(&known, 0, sizeof(known));
        for (unsigned n = 1; n <= 3; n++) {
            net_known_look(&known, frame, make(v6, n, SYN | (n == 2 ? FLAG_ACK : 0)));
            net_known_look(&known, frame, make(v6, n, SYN)); /* once more */
            net_known_look(&known, frame, make(v6, 99, FLAG_ACK));
            net_known_look(&known, frame, make(v6, 99, SYN | RST));
        }
        write_and_read();
        for (unsigned n = 3; n; n--) {
            len = net_known_next(&again, &out);
            check_frame(v6, out, len, n);
        }
        assert_int_equal(net_known_next(&again, &out), 0);
    }
}

/* Frames of every length, and other protocols, fragments, headers of any length. */
static void test_bytes(void **state) {
    memset(&known, 0, sizeof(known));
    for (unsigned v6 = 0; v6 < 2; v6++)
        for (size_t len = make(v6, 1, SYN) - 5; len--;)
            net_known_look(&known, frame, len);
    make(false, 1, SYN);
    frame[23] = PROTO_UDP;
    net_known_look(&known, frame, 80);
    make(false, 1, SYN);
    frame[21] = 1;
    net_known_look(&known, frame, 80);
    for (unsigned n = 0; n < 16; n++) {
        make(false, 1, SYN);
        frame[14] = (uint8_t)(0x40 | n);
        if (n != 5)
            net_known_look(&known, frame, 54);
    }
    assert_int_equal(known.count, 0);
}

/* Of too many the last ones are kept. */
static void test_many(void **state) {
    uint8_t *out;
    unsigned count = 0;

    memset(&known, 0, sizeof(known));
    for (unsigned n = 1; n <= NET_KNOWN_MAX + 10; n++)
        net_known_look(&known, frame, make(false, n, SYN));
    write_and_read();
    while (net_known_next(&again, &out)) {
        assert_in_range(net_get16(out + 36), 11, NET_KNOWN_MAX + 10);
        count++;
    }
    assert_int_equal(count, NET_KNOWN_MAX);
}

static void wrong(void *arg, struct snapshot *s) {
    uint32_t count = *(uint32_t *)arg;

    SNAPSHOT(s, count);
}

static void test_hostile(void **state) {
    const uint32_t counts[] = {1, NET_KNOWN_MAX, NET_KNOWN_MAX + 1, UINT32_MAX};

    for (size_t n = 0; n < ARRAY_SIZE(counts); n++) {
        struct snapshot *s = snapshot_new(), *r;
        uint32_t count = counts[n];
        const uint8_t *bytes;
        size_t len;
        char why[128];

        snapshot_record(s, "net", 0, 1, wrong, &count);
        bytes = snapshot_finish(s, &len);
        r = snapshot_open(bytes, len, why, sizeof(why));
        snapshot_record(r, "net", 0, 1, record, &again);
        assert_false(snapshot_good(r));
        snapshot_free(r);
        snapshot_free(s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
