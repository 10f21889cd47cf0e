/*
 * Segments that become one frame: what was cut from a frame gives that frame again,
 * however it is cut; and a segment that differs in anything that matters is not taken.
 */
#include "lib/rnd.h"
#include "lib/unit.h"
#include "net/merge.h"
#include "net/offload.h"
#include "net/packet.h"

#define CAN (NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6)
#define OPTIONS 12

static struct net_merge merge;
static uint8_t whole[NET_FRAME_MAX];
static uint8_t segment[64][10000];
static size_t segment_len[64];
static unsigned segments;

/* A frame of TCP, and what is to be done to it. */
static size_t make(bool v6, size_t payload, unsigned size, struct net_offload *off) {
    size_t l4 = v6 ? 54 : 34, tcp_len = 20 + OPTIONS + payload, len = l4 + tcp_len;

    for (size_t n = 0; n < len; n++)
        whole[n] = (uint8_t)rnd();
    net_put16(whole + 12, v6 ? TYPE_IPV6 : TYPE_IPV4);
    whole[14] = v6 ? 0x60 : 0x45;
    if (v6) {
        net_put16(whole + 18, (unsigned)tcp_len);
        whole[20] = PROTO_TCP;
    } else {
        net_put16(whole + 16, (unsigned)(20 + tcp_len));
        net_put16(whole + 20, 0x4000);
        whole[23] = PROTO_TCP;
        net_sum_fill_ipv4(whole + 14, 20);
    }
    whole[l4 + 12] = (20 + OPTIONS) / 4 << 4;
    whole[l4 + 13] = FLAG_ACK | FLAG_PSH;
    net_put16(whole + l4 + 16,
              net_sum_fold(net_sum_pseudo(whole + 14, v6, PROTO_TCP, tcp_len)));
    *off = (struct net_offload){.csum = true,
                                .gso = v6 ? NET_GSO_TCP6 : NET_GSO_TCP4,
                                .gso_size = (uint16_t)size,
                                .csum_start = (uint16_t)l4,
                                .csum_offset = 16};
    return len;
}

static void cut(const struct net_offload *off, size_t len) {
    struct net_segments s;

    assert_true(net_segments_begin(&s, off, whole, len));
    assert_in_range(s.count, 1, 64);
    for (segments = 0; (segment_len[segments] = net_segments_length(&s)); segments++)
        net_segments_next(&s, segment[segments]);
}

static void check_again(bool v6, size_t payload, unsigned size) {
    struct net_offload off, got;
    size_t len = make(v6, payload, size, &off), got_len;
    const uint8_t *frame;

    cut(&off, len);
    for (unsigned n = 0; n < segments; n++)
        assert_true(net_merge_take(&merge, segment[n], segment_len[n], CAN));
    frame = net_merge_end(&merge, &got, &got_len);
    assert_false(net_merge_there(&merge));
    assert_int_equal(got_len, len);
    if (segments == 1) {
        assert_ptr_equal(frame, segment[0]);
        assert_true(got.csum_good && !got.csum && !got.gso);
        return;
    }
    assert_memory_equal(frame, whole, len);
    assert_true(got.csum && !got.csum_good);
    assert_int_equal(got.gso, off.gso);
    assert_int_equal(got.gso_size, size);
    assert_int_equal(got.csum_start, off.csum_start);
    assert_int_equal(got.csum_offset, 16);
    assert_int_equal(got.header_len, off.csum_start + 20 + OPTIONS);
}

static void test_again(void **state) {
    for (int v6 = 0; v6 < 2; v6++) {
        check_again(v6, 1448, 1448);
        check_again(v6, 1448 + NET_SEGMENT_MIN, 1448);
        check_again(v6, 10 * 1448, 1448);
        check_again(v6, 65535 - 72, 1448);
        for (int n = 0; n < 50; n++) {
            unsigned size = 1000 + pick(8000);
            size_t payload = NET_SEGMENT_MIN + pick(60000);

            if (payload % size >= NET_SEGMENT_MIN || payload % size == 0)
                check_again(v6, payload, size);
        }
    }
}

/* Bits of the headers that may differ between two segments that are merged. */
static bool may_differ(bool v6, size_t at, unsigned bit) {
    size_t l4 = v6 ? 54 : 34;

    if (at == l4 + 13)
        return bit == 0 || bit == 3; /* FIN, PSH */
    if (at >= l4 + 16 && at < l4 + 18)
        return true; /* checksum: it has been looked at */
    return !v6 && ((at >= 18 && at < 20) || (at >= 24 && at < 26)); /* id, checksum */
}

static void test_differs(void **state) {
    struct net_offload off;
    size_t len;

    for (int v6 = 0; v6 < 2; v6++) {
        size_t headers = (v6 ? 54 : 34) + 20 + OPTIONS;

        cut(&off, (make(v6, 3000, 1500, &off)));
        assert_int_equal(segments, 2);
        for (size_t bit = 0; bit < headers * 8; bit++) {
            uint8_t *byte = &segment[1][bit / 8], was = *byte;
            bool taken;

            *byte ^= (uint8_t)(1u << bit % 8);
            assert_true(net_merge_take(&merge, segment[0], segment_len[0], CAN));
            taken = net_merge_take(&merge, segment[1], segment_len[1], CAN);
            net_merge_end(&merge, &off, &len);
            *byte = was;
            if (taken != may_differ(v6, bit / 8, bit % 8))
                fail_msg("IPv%d, byte %zu, bit %zu: taken %d", v6 ? 6 : 4, bit / 8,
                         bit % 8, taken);
        }
    }
}

static void begin(void) {
    assert_true(net_merge_take(&merge, segment[0], segment_len[0], CAN));
}

static void test_ends(void **state) {
    struct net_offload off;
    size_t len;

    cut(&off, make(false, 4 * 1000, 1000, &off));
    /* One of the middle is missing; one comes twice. */
    begin();
    assert_false(net_merge_take(&merge, segment[2], segment_len[2], CAN));
    assert_false(net_merge_take(&merge, segment[0], segment_len[0], CAN));
    assert_true(net_merge_take(&merge, segment[1], segment_len[1], CAN));
    net_merge_end(&merge, &off, &len);
    assert_int_equal(len, segment_len[0] + 1000);
    /* After PSH nothing more. */
    segment[1][34 + 13] |= FLAG_PSH;
    begin();
    assert_true(net_merge_take(&merge, segment[1], segment_len[1], CAN));
    assert_false(net_merge_take(&merge, segment[2], segment_len[2], CAN));
    net_merge_end(&merge, &off, &len);
    assert_int_equal(merge.bytes[34 + 13], FLAG_ACK | FLAG_PSH);
    /* Nor after one that is shorter. */
    cut(&off, make(false, 1500, 1000, &off));
    begin();
    assert_true(net_merge_take(&merge, segment[1], segment_len[1], CAN));
    net_put32(segment[1] + 38, net_get32(segment[1] + 38) + 500);
    assert_false(net_merge_take(&merge, segment[1], segment_len[1], CAN));
    net_merge_end(&merge, &off, &len);
}

/* What is not merged at all. */
static void test_not_taken(void **state) {
    struct net_offload off;
    size_t len = make(false, 1000, 1000, &off);

    cut(&off, len);
    assert_false(net_merge_take(&merge, segment[0], len, NET_CAN_CSUM | NET_CAN_TSO6));
    assert_false(net_merge_take(&merge, segment[0], len - 1, CAN));
    assert_false(net_merge_take(&merge, segment[0], len + 1, CAN)); /* padded */
    for (size_t short_len = 0; short_len < 66; short_len++)
        assert_false(net_merge_take(&merge, segment[0], short_len, CAN));
    segment[0][34 + 13] = FLAG_ACK | 4; /* RST */
    assert_false(net_merge_take(&merge, segment[0], len, CAN));
    segment[0][34 + 13] = FLAG_ACK | FLAG_CWR;
    assert_false(net_merge_take(&merge, segment[0], len, CAN));
    segment[0][34 + 13] = FLAG_ACK;
    segment[0][20] = 0x20; /* a fragment */
    assert_false(net_merge_take(&merge, segment[0], len, CAN));
    len = make(false, 0, 1000, &off);
    assert_false(net_merge_take(&merge, whole, len, CAN));
    assert_false(net_merge_there(&merge));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_differs),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_not_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
